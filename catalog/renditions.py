"""Renditions as the catalog keeps them: made once for a recipe and terms, found again by exports.

A rendition is a signed file like others: staged, recorded with its manifest, then placed. So the
ledger proves it, and `platemark recover` finds it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog.fingerprints import index_signed
from catalog.fitting import Fit
from catalog.lake import Lake
from catalog.rendition_rows import insert_renditions
from catalog.rows import as_json, owed_rows, text_table
from catalog.write import insert_table
from pipeline.errors import PlatemarkError, SetupError
from pipeline.keys import Identity
from pipeline.licences import Licences
from pipeline.lock import staging_lock
from pipeline.rendition import Recipe, render
from pipeline.settings import Settings
from pipeline.store import path_of, place, place_recorded, sha256_of, stage
from pipeline.terms import UsageTerms

if TYPE_CHECKING:
    import duckdb

_BATCH = 32
"""Renditions between two commits: what a crash costs at most."""
_DELIVERED = ("sha256", "url", "mime", "width", "height", "size", "label", "certificate")
_KNOWN = """
SELECT wanted.request_id, n.* EXCLUDE (request_id, manifest) FROM wanted
JOIN renditions AS n ON n.original_sha256 = wanted.sha256 AND n.recipe::VARCHAR = wanted.recipe
WHERE n.certificate = $certificate ORDER BY n.made_at DESC, n.sha256
"""
_CATALOGUED = """
WITH made AS (SELECT n.* FROM renditions AS n SEMI JOIN wanted USING (sha256))
SELECT m.sha256, m.request_id, c.sku, 'signed' AS state, c.outcome, c.decision,
       m.label AS c2pa_label, m.made_at AS recorded_at, true AS counts
FROM made AS m
JOIN (FROM raw.counted SEMI JOIN made USING (request_id)) AS c USING (request_id)
"""

Found = dict[str, Mapping[str, Any] | str]
"""By request id, a rendition's columns, or why there is none."""


@dataclass(frozen=True)
class Maker:
    """Who makes renditions and for what: the pack's terms go into their labels.

    `anchors` are PEM roots that originals and renditions must be Trusted under.
    """

    settings: Settings
    identity: Identity
    anchors: bytes
    terms: UsageTerms
    licences: Licences | None = None

    def key(self, recipe: Recipe) -> str:
        """Recipe and terms as canonical JSON: what renditions are known by."""
        terms = as_json(self.terms.model_dump(mode="json"))
        under = {"id": self.terms.id, "sha256": sha256_of(terms.encode())}
        return as_json({**asdict(recipe), "terms": under})


def prepare_renditions(
    lake: Lake,
    fits: Sequence[Fit],
    maker: Maker,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Found:
    """For each fit with a recipe, by request id, the rendition's columns, or why there is none.

    Columns: sha256, url, mime, width, height, size, label, certificate. What lacks is made, signed
    and recorded, a batch at a time. Raises SetupError when the disk is full.
    """
    asked = [each for each in fits if each.recipe and not each.broken]
    if not asked:
        return {}
    done: Found = {**known_renditions(lake, asked, maker)}
    missing = [each for each in asked if each.row["request_id"] not in done]
    progress(len(done), len(asked))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for first in range(0, len(missing), _BATCH):
            batch = missing[first : first + _BATCH]
            done |= _make(lake, batch, maker, threads)
            progress(len(done), len(asked))
    if missing:
        index_signed(lake)
    return done


def known_renditions(lake: Lake, fits: Sequence[Fit], maker: Maker) -> dict[str, Mapping[str, Any]]:
    """The columns of renditions that were made already and lie unaltered in the store."""
    asked = [each for each in fits if each.recipe and not each.broken]
    wanted = text_table(
        request_id=[each.row["request_id"] for each in asked],
        sha256=[each.row["sha256"] for each in asked],
        recipe=[maker.key(each.recipe) for each in asked if each.recipe],
    )
    found: dict[str, Mapping[str, Any]] = {}
    given = {"certificate": maker.identity.certificate}
    for row in lake.rows(_KNOWN, given, wanted=wanted):
        if row["request_id"] not in found and _lies_whole(maker.settings, row):
            found[row["request_id"]] = _told(row)
    return found


def catalogued_renditions(lake: Lake, sha256s: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What the catalog knows of renditions by SHA-256 (hex), as catalog/read.py tells of assets."""
    wanted = text_table(sha256=[sha256.lower() for sha256 in sha256s])
    return {row.pop("sha256"): row for row in lake.rows(_CATALOGUED, wanted=wanted)}


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _DELIVERED}


def _lies_whole(settings: Settings, row: Mapping[str, Any]) -> bool:
    path = path_of(settings, row["url"])
    if not path.is_file():
        # Recorded by an export that was stopped before it placed the file.
        with staging_lock(settings, alone=False), suppress(FileNotFoundError):
            place(settings, [row["url"]])
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return False
    return bool(found == row["sha256"])


def _make(lake: Lake, batch: Sequence[Fit], maker: Maker, threads: ThreadPoolExecutor) -> Found:
    settings = maker.settings
    with staging_lock(settings, alone=False):
        made = list(threads.map(lambda each: _staged(each, maker), batch))
        rows = [each for each in made if isinstance(each, dict)]
        urls = [row["url"] for row in rows]

        def record() -> list[str]:
            _record(lake, rows, stamps_expected=bool(settings.signing.timestamp_url))
            return urls

        place_recorded(settings, urls, record)
    return {
        each.row["request_id"]: one if isinstance(one, str) else _told(one)
        for each, one in zip(batch, made, strict=True)
    }


def _staged(fit: Fit, maker: Maker) -> dict[str, Any] | str:
    """A rendition's columns, its file staged; or why there is none."""
    assert fit.recipe
    row, settings = fit.row, maker.settings
    try:
        data = path_of(settings, row["url"]).read_bytes()
        if (found := sha256_of(data)) != row["sha256"]:
            return f"the file {row['url']} was altered: its SHA-256 is {found}"
        made = render(
            data,
            fit.recipe,
            maker.identity,
            maker.anchors,
            terms=maker.terms,
            licences=maker.licences,
        )
        sha256, url = stage(settings, "assets", made.data, made.mime)
    except OSError as error:
        return f"the file {row['url']} is missing or unreadable: {error.strerror}"
    except SetupError:
        raise
    except PlatemarkError as error:
        return f"no rendition: {error}"
    return {
        "request_id": row["request_id"],
        "original_sha256": row["sha256"],
        "recipe": maker.key(fit.recipe),
        "sha256": sha256,
        "url": url,
        "mime": made.mime,
        "width": made.width,
        "height": made.height,
        "size": len(made.data),
        "actions": list(made.actions),
        "label": made.signed.label,
        "certificate": made.signed.certificate,
        "store": made.signed.manifest,
    }


def _record(lake: Lake, rows: Sequence[Mapping[str, Any]], *, stamps_expected: bool) -> None:
    now = datetime.now(UTC)
    signed = [(row["sha256"], row["store"], row["label"]) for row in rows]
    owed = owed_rows(signed, now) if stamps_expected else None

    def append(connection: duckdb.DuckDBPyConnection) -> None:
        insert_renditions(connection, rows, now)
        if owed is not None:
            insert_table(connection, "stamps_owed", owed)

    if rows:
        lake.transact(append)
