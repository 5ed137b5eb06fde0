"""Renditions as the catalog keeps them: made once for a recipe, found again by later exports."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from catalog.fitting import Fit
from catalog.lake import Lake, writing
from catalog.rows import as_json, text_table
from catalog.verified import SDK
from catalog.write import insert_table
from pipeline.errors import PlatemarkError
from pipeline.keys import Identity
from pipeline.rendition import Recipe, render
from pipeline.settings import Settings
from pipeline.store import path_of, relative_url, sha256_of, write_file

if TYPE_CHECKING:
    import duckdb

_BATCH = 32
"""Renditions between two commits: what a crash costs at most."""
_DELIVERED = ("sha256", "url", "mime", "width", "height", "size", "label", "certificate")
_KNOWN = """
SELECT wanted.request_id, n.* EXCLUDE (request_id, manifest) FROM wanted
JOIN renditions AS n ON n.original_sha256 = wanted.sha256 AND n.recipe::VARCHAR = wanted.recipe
WHERE n.certificate = $certificate ORDER BY n.made_at
"""


def prepare_renditions(
    settings: Settings,
    fits: Sequence[Fit],
    identity: Identity,
    anchors: bytes,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Mapping[str, Any] | str]:
    """For each fit with a recipe, by request id, the rendition's columns, or why there is none.

    Columns: sha256, url, mime, width, height, size, label, certificate. Made ones are signed by
    `identity`, stored beside the assets and recorded, a batch at a time.
    """
    asked = [each for each in fits if each.recipe and not each.broken]
    if not asked:
        return {}
    done: dict[str, Mapping[str, Any] | str] = {}
    with writing(settings.catalog) as lake:
        done |= _known(lake, settings, asked, identity.certificate)
        missing = [each for each in asked if each.row["request_id"] not in done]
        progress(len(done), len(asked))
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            for first in range(0, len(missing), _BATCH):
                batch = missing[first : first + _BATCH]
                made = list(
                    threads.map(lambda each: _made(settings, each, identity, anchors), batch)
                )
                _record(lake, [each for each in made if isinstance(each, dict)])
                for each, found in zip(batch, made, strict=True):
                    done[each.row["request_id"]] = found if isinstance(found, str) else _told(found)
                progress(len(done), len(asked))
    return done


def recipe_key(recipe: Recipe) -> str:
    """A recipe as canonical JSON."""
    return as_json(asdict(recipe))


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _DELIVERED}


def _known(
    lake: Lake, settings: Settings, asked: Sequence[Fit], certificate: str
) -> dict[str, Mapping[str, Any]]:
    wanted = text_table(
        request_id=[each.row["request_id"] for each in asked],
        sha256=[each.row["sha256"] for each in asked],
        recipe=[recipe_key(each.recipe) for each in asked if each.recipe],
    )
    rows = lake.rows(_KNOWN, {"certificate": certificate}, wanted=wanted)
    return {
        row["request_id"]: _told(row) for row in rows if path_of(settings, row["url"]).is_file()
    }


def _made(settings: Settings, fit: Fit, identity: Identity, anchors: bytes) -> dict[str, Any] | str:
    assert fit.recipe
    row = fit.row
    try:
        data = path_of(settings, row["url"]).read_bytes()
        if (found := sha256_of(data)) != row["sha256"]:
            return f"the file {row['url']} was altered: its SHA-256 is {found}"
        made = render(data, fit.recipe, identity, anchors)
        url = relative_url("assets", made.sha256, made.mime)
        write_file(path_of(settings, url), made.data)
    except OSError as error:
        return f"the file {row['url']} is missing or unreadable: {error.strerror}"
    except PlatemarkError as error:
        return f"no rendition: {error}"
    return {
        "request_id": row["request_id"],
        "original_sha256": row["sha256"],
        "recipe": recipe_key(fit.recipe),
        "sha256": made.sha256,
        "url": url,
        "mime": made.mime,
        "width": made.width,
        "height": made.height,
        "size": len(made.data),
        "actions": list(made.actions),
        "label": made.signed.label,
        "certificate": made.signed.certificate,
        "manifest": made.signed.manifest,
        "sdk": version(SDK),
        "made_at": datetime.now(UTC),
    }


def _record(lake: Lake, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa

    if not rows:
        return
    table = pa.Table.from_pylist(list(rows))

    def append(connection: duckdb.DuckDBPyConnection) -> None:
        insert_table(connection, "renditions", table)

    lake.transact(append)
