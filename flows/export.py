"""The export flow: a licensed pack on demand or on a schedule."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow

from catalog.export import export as export_pack
from catalog.selection import EVERYTHING
from flows import artifacts
from pipeline.settings import load_settings


@flow(name="export", persist_result=False)
def export(
    where: str = EVERYTHING,
    terms: str | None = None,
    out: str | None = None,
    workspace: str | None = None,
    channel: str = "plain",
    items: str | None = None,
    values: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Write a pack of the images that `where` names.

    Args:
        where: condition over the view `images`, as an auditor would write it.
        terms: a YAML file of usage terms, or the id of catalogued ones.
        out: a zip, a tar, a folder or a store's address; default: a zip, by date, in the
            workspace's packs folder.
        workspace: folder of the workspace; default as in the settings.
        channel: name or YAML file of the channel that the pack is for.
        items: table of what the channel's feed says of each item, by sku.
        values: what the channel's templates need besides, such as `base_url`.

    Returns the pack in JSON: its id, path, SHA-256, and what was left out and why.
    """
    settings = load_settings(Path(workspace) if workspace else None)
    name = f"pack-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.zip"
    pack = export_pack(
        settings,
        out or settings.packs / name,
        where,
        terms,
        channel=channel,
        items=Path(items) if items else None,
        values=values,
    )
    told = pack.as_json()
    artifacts.table(
        [{"sku": each["sku"], "reasons": "; ".join(each["reasons"])} for each in told["left_out"]],
        "export-left-out",
        f"Left out of {pack.name}, which holds {pack.images} images",
    )
    return told
