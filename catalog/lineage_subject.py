"""Finds what somebody means by a name: an image, a picture from outside, a model or a pack.

A part of catalog/lineage.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.errors import Fault, InputError

_KINDS = ("image", "picture", "model", "pack")
_DIGITS = re.compile(r"[0-9a-f]{6,64}")


class Reader(Protocol):
    """Asks the catalog."""

    def __call__(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        """The rows of one SELECT with its parameters."""


@dataclass(frozen=True)
class Subject:
    """One thing that a name may mean, as a node of a lineage."""

    key: str
    kind: str
    name: str
    detail: str = ""


def subject_of(read: Reader, name: str, most: int) -> list[Subject]:
    """The things of one kind that `name` means: images of a sku, revisions of a model.

    A file of ours that came back as a picture is meant as an image. Raises InputError when nothing
    or things of several kinds are called so, or more than `most`.
    """
    kind, colon, rest = name.partition(":")
    wanted, name = ((kind,), rest) if colon and kind in _KINDS else (_KINDS, name)
    digits = name.lower() if _DIGITS.fullmatch(name.lower()) else None
    found: dict[str, list[Subject]] = {}
    for kind in wanted:
        given = {"name": name, "digits": digits, "most": most + 1}
        rows = read(_SQL[kind], **{key: given[key] for key in given if f"${key}" in _SQL[kind]})
        if rows:
            found[kind] = [Subject(**row) for row in rows]
        if rows and kind == "image" and digits:
            break
    if not found:
        remedy = "give a sku, a file, 6 or more digits of a SHA-256 or request id, or the name of "
        fault = Fault("the catalog knows nothing of that name", name, remedy + "a picture or model")
        raise InputError("lineage", [fault])
    if len(found) > 1:
        faults = [
            Fault(f"{len(those)} called so", f"{kind}:{name}", f"e.g. {those[0].name}")
            for kind, those in found.items()
        ]
        raise InputError(f"{name} names things of several kinds, say which", faults)
    (those,) = found.values()
    if len(those) > most:
        raise InputError("lineage", [Fault(f"more than {most} are called so", name)])
    return those


_SQL = {
    "image": """
WITH meant AS (
    SELECT request_id FROM requests
    WHERE sku = $name OR sku || '-' || "index" = $name OR starts_with(request_id, $digits)
    UNION
    SELECT request_id FROM assets WHERE starts_with(sha256, $digits))
SELECT 'image:' || r.request_id AS key, 'image' AS kind, r.sku || '-' || r."index" AS name,
       coalesce(v.outcome, r.state, '') || ', ' || r.model AS detail
FROM requests AS r LEFT JOIN verdicts AS v USING (request_id)
WHERE r.request_id IN (SELECT request_id FROM meant) ORDER BY name, key LIMIT $most""",
    "picture": """
SELECT 'picture:' || sha256 AS key, any_value(kind) AS kind, min(name) AS name,
       'sha256 ' || left(sha256, 12) AS detail
FROM (SELECT sha256, 'picture' AS kind, name FROM inputs WHERE source = 'file'
      UNION ALL SELECT sha256, 'training picture', file FROM training_images)
WHERE name = $name OR starts_with(sha256, $digits)
GROUP BY sha256 ORDER BY name, key LIMIT $most""",
    "model": """
SELECT 'model:' || model || '@' || revision AS key, min(part) AS kind, model AS name,
       left(revision, 12) AS detail
FROM (SELECT model, revision, part FROM models_used
      UNION ALL SELECT adapter, revision, 'adapter' FROM training_images
      UNION ALL SELECT name, revision, 'model' FROM models)
WHERE model = $name OR model || '@' || revision = $name
GROUP BY model, revision ORDER BY key LIMIT $most""",
    "pack": """
SELECT 'pack:' || pack_id AS key, 'pack' AS kind, any_value(coalesce(file, pack_id)) AS name,
       '' AS detail
FROM packs WHERE pack_id = $name OR file = $name OR starts_with(sha256, $digits)
GROUP BY pack_id ORDER BY key LIMIT $most""",
}
