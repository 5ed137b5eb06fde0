"""Catalogued images as inputs of new ones: variations of what passed or was approved."""

from __future__ import annotations

from catalog.lake import exists, reading
from catalog.read import find_asset
from pipeline.errors import Fault, InputError
from pipeline.inputs import CatalogAsset, FindAsset
from pipeline.settings import Settings
from pipeline.store import path_of


def asset_finder(settings: Settings) -> FindAsset | None:
    """A function that finds cleared images by name; None while there is no catalog.

    It raises InputError for a name that means no image or several, and for an image that is not
    cleared: blocked, rejected, or waiting for a review.
    """
    if not exists(settings.catalog):
        return None

    def find(name: str) -> CatalogAsset:
        with reading(settings.catalog) as lake:
            found = find_asset(lake, name)
            rows = lake.rows(
                "SELECT cleared, outcome, model_licence FROM images WHERE request_id = $id",
                {"id": found.request_id},
            )
        if not rows or not rows[0]["cleared"] or not found.url or not found.sha256:
            outcome = rows[0]["outcome"] if rows else "unknown"
            remedy = "use one that passed, or approve it: `platemark review approve`"
            raise InputError(name, [Fault(f"it is not cleared (verdict {outcome})", "", remedy)])
        return CatalogAsset(
            request_id=found.request_id,
            sha256=found.sha256,
            path=path_of(settings, found.url),
            name=f"{found.sku}-{found.index}",
            licence=rows[0]["model_licence"] or "",
        )

    return find
