"""One image's whole story as plain data, and as a picture beside the references that it cites.

What `platemark show` prints and draws.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.lake import Lake
from pipeline.errors import Fault, InputError
from pipeline.settings import Settings
from pipeline.store import path_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipeline.images import RgbImage

_JSON_COLUMNS = ("terms", "milliseconds", "evidence", "details", "versions", "recipe")


def story(lake: Lake, request_id: str) -> dict[str, Any]:
    """Everything the catalog holds on one request, as a JSON-able dict.

    Keys: request, model, inputs, run, scores, verdict (the one that counts), verdict_history (all
    of them, in time), policy, reviews, assets, manifests (their size, not their bytes), attempts,
    packs. Raises InputError when the request is unknown.
    """
    requests = _rows(lake, "SELECT * FROM requests WHERE request_id = $id", request_id)
    if not requests:
        raise InputError(request_id, [Fault("the catalog has no such request")])
    request = requests[0]
    verdict = _one(_rows(lake, "SELECT * FROM verdicts WHERE request_id = $id", request_id))
    return {
        "request": request,
        "model": _one(
            _rows(
                lake,
                "SELECT m.* FROM models AS m JOIN requests AS r "
                "ON m.name = r.model AND m.revision = r.model_revision WHERE request_id = $id",
                request_id,
            )
        ),
        "inputs": _rows(
            lake, "SELECT * FROM inputs WHERE request_id = $id ORDER BY step, role", request_id
        ),
        "run": _one(_rows(lake, "SELECT * FROM runs WHERE run_id = $id", request["run_id"])),
        "scores": _rows(
            lake, "SELECT * FROM scores WHERE request_id = $id ORDER BY score", request_id
        ),
        "verdict": verdict,
        "verdict_history": _rows(
            lake,
            "SELECT * EXCLUDE (reasons) FROM verdict_history WHERE request_id = $id "
            "ORDER BY decided_at",
            request_id,
        ),
        "policy": _one(
            _rows(lake, "SELECT * FROM policies WHERE digest = $id", verdict["policy_digest"])
            if verdict
            else []
        ),
        "reviews": _rows(
            lake, "SELECT * FROM reviews WHERE request_id = $id ORDER BY decided_at", request_id
        ),
        "assets": _rows(
            lake, "SELECT * FROM assets WHERE request_id = $id ORDER BY recorded_at", request_id
        ),
        "manifests": _rows(
            lake,
            "SELECT * EXCLUDE (manifest), octet_length(manifest) AS bytes FROM manifests "
            "WHERE request_id = $id ORDER BY recorded_at",
            request_id,
        ),
        "attempts": _rows(
            lake, "SELECT * FROM attempts WHERE request_id = $id ORDER BY attempt", request_id
        ),
        "packs": _rows(
            lake,
            "SELECT p.*, a.asset_sha256, a.file AS name_in_pack FROM packs AS p "
            "JOIN pack_assets AS a USING (pack_id) WHERE a.request_id = $id ORDER BY created_at",
            request_id,
        ),
    }


def comparison(told: Mapping[str, Any], settings: Settings) -> Image | None:
    """The image of a story beside the references that its scores cite.

    None when the image was not kept, or when no reference that is cited is in its library still.
    """
    from pipeline.comparison import Compared, cited_works, side_by_side

    image = _image(told, settings)
    cited = cited_works(told["scores"])
    references = [_reference_picture(settings, work.library, work.sha256) for work in cited]
    if image is None or all(picture is None for picture in references):
        return None
    request, verdict = told["request"], told["verdict"]
    lines = [f"{request['sku']}-{request['index']}", f"request {request['request_id'][:16]}"]
    if verdict:
        lines.append(f"{verdict['outcome']} by {verdict['policy']} {verdict['policy_version']}")
    compared = [
        Compared(
            picture,
            [
                work.title,
                f"{work.rights_holder} (library {work.library})",
                *work.found,
                *([f"own work that is at least as near: {work.intended}"] if work.intended else []),
            ],
            work.region,
        )
        for work, picture in zip(cited, references, strict=True)
    ]
    return side_by_side(image, lines, compared)


def _image(told: Mapping[str, Any], settings: Settings) -> RgbImage | None:
    """The signed file's pixels, else those of the one in quarantine."""
    kept = [asset for asset in told["assets"] if asset["url"]]
    for asset in sorted(kept, key=lambda each: bool(each["state"] != "signed")):
        pixels = _pixels(path_of(settings, asset["url"]))
        if pixels is not None:
            return pixels
    return None


def _reference_picture(settings: Settings, library: str, sha256: str) -> RgbImage | None:
    from pipeline.references.place import place_of

    return _pixels(place_of(settings.catalog, library).picture(sha256))


def _pixels(path: Path) -> RgbImage | None:
    from pipeline.images import ImageRefused, decode_limited

    try:
        return decode_limited(path)
    # Files go: rejects are dropped, references are removed, a disk is moved.
    except (OSError, ImageRefused):
        return None


def _one(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    return rows[0] if rows else None


def _rows(lake: Lake, sql: str, key: str) -> list[dict[str, Any]]:
    return [_plain(row) for row in lake.rows(sql, {"id": key})]


def _plain(value: Any, column: str = "") -> Any:
    """JSON columns parsed, times as ISO 8601, so that the whole is JSON-able."""
    if isinstance(value, dict):
        return {key: _plain(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    if column in _JSON_COLUMNS and isinstance(value, str):
        return json.loads(value)
    return value
