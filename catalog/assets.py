"""Catalogued images as inputs of new ones: variations of what passed or was approved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from catalog.lake import Lake, exists, reading
from catalog.read import find_asset
from pipeline.errors import Fault, InputError
from pipeline.inputs import CatalogAsset, FindAsset
from pipeline.settings import Settings
from pipeline.store import path_of

# Licences flow down: an asset may itself have been made from assets.
_LICENCES = """
WITH RECURSIVE made AS (
    SELECT $id AS request_id
    UNION
    SELECT i.source_request_id FROM inputs AS i JOIN made ON made.request_id = i.request_id
    WHERE i.source = 'asset')
SELECT DISTINCT coalesce(m.licence, '') AS licence
FROM models_used AS u JOIN made USING (request_id)
LEFT JOIN models AS m ON m.name = u.model AND m.revision = u.revision ORDER BY 1
"""


@contextmanager
def asset_finder(settings: Settings) -> Iterator[FindAsset | None]:
    """A function that finds cleared images by name; None while there is no catalog.

    It raises InputError for a name that means no image or several, and for an image that is not
    cleared: blocked, rejected, or waiting for a review. The catalog is opened when it is first
    asked, once, and read as it was then.
    """
    if not exists(settings.catalog):
        yield None
        return
    opened: list[Lake] = []
    with ExitStack() as stack:

        def find(name: str) -> CatalogAsset:
            if not opened:
                opened.append(stack.enter_context(reading(settings.catalog)))
            return _found(settings, opened[0], name)

        yield find


def _found(settings: Settings, lake: Lake, name: str) -> CatalogAsset:
    found = find_asset(lake, name)
    rows = lake.rows(
        "SELECT cleared, outcome, prompt FROM images WHERE request_id = $id",
        {"id": found.request_id},
    )
    if rows and rows[0]["prompt"] is None:
        raise InputError(name, [Fault("its prompt was erased", "", "use another image")])
    if not rows or not rows[0]["cleared"] or not found.url or not found.sha256:
        outcome = rows[0]["outcome"] if rows else "unknown"
        remedy = "use one that passed, or approve it: `platemark review approve`"
        raise InputError(name, [Fault(f"it is not cleared (verdict {outcome})", "", remedy)])
    return CatalogAsset(
        request_id=found.request_id,
        sha256=found.sha256,
        path=path_of(settings, found.url),
        name=f"{found.sku}-{found.index}",
        licences=tuple(
            str(row["licence"]) for row in lake.rows(_LICENCES, {"id": found.request_id})
        ),
    )
