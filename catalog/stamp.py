"""Time stamps that an authority owes: which signed files lack one, and giving it later.

A stamped file is a new asset of the same image (`made_by` stamp), or a new rendition; the one
before stays known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog.lake import Lake
from catalog.rendition_rows import insert_renditions
from catalog.rows import arrow, later_file_row, manifest_row, text_table, waiting_rows
from catalog.write import insert_table
from pipeline.errors import PlatemarkError, SetupError
from pipeline.keys import Identity, signing_identity
from pipeline.lock import staging_lock
from pipeline.records import Asset, Signed
from pipeline.settings import Settings
from pipeline.sign import stamp
from pipeline.store import path_of, place_recorded, sha256_of, stage
from pipeline.timestamps import is_stamped

if TYPE_CHECKING:
    import duckdb

AT_ONCE = 64
"""Files stamped between two commits."""
_WAITING = 8
"""Files that wait for the authority at the same time."""
_LOOKED_AT = 10_000
"""Manifests looked through at a time."""


@dataclass(frozen=True)
class NotStamped:
    """A file that could not be stamped, and why."""

    asset_sha256: str
    why: str


@dataclass(frozen=True)
class Stamped:
    """What `stamp_files` did: SHA-256 of the new files by those of the old, and what failed."""

    files: Mapping[str, str]
    failed: tuple[NotStamped, ...]


_Done = tuple[Asset, Signed, Mapping[str, Any]]


def record_owed(lake: Lake, sha256s: Sequence[str]) -> None:
    """Records signed files (SHA-256, hex) as waiting for a time stamp, once."""
    table = waiting_rows(sha256s, datetime.now(UTC))

    def append(connection: duckdb.DuckDBPyConnection) -> None:
        connection.register("owing", table)
        try:
            new = connection.execute(
                "SELECT owing.* FROM owing ANTI JOIN raw.stamps_owed USING (asset_sha256)"
            ).to_arrow_table()
        finally:
            connection.unregister("owing")
        if new.num_rows:
            insert_table(connection, "stamps_owed", new)

    if sha256s:
        lake.transact(append)


def unstamped(lake: Lake) -> list[str]:
    """SHA-256 of signed files whose manifest has no time stamp, whoever signed them and when.

    Looks through every manifest of the catalog: minutes at millions.
    """
    found: list[str] = []
    last = ""
    while rows := lake.rows(
        "SELECT asset_sha256, label, manifest FROM manifests "
        "WHERE manifest IS NOT NULL AND asset_sha256 > $last "
        "ORDER BY asset_sha256 LIMIT $most",
        {"last": last, "most": _LOOKED_AT},
    ):
        last = rows[-1]["asset_sha256"]
        found += [
            row["asset_sha256"] for row in rows if not is_stamped(row["manifest"], row["label"])
        ]
    done = lake.rows("SELECT asset_sha256 FROM stamps")
    return sorted(set(found) - {row["asset_sha256"] for row in done})


def owed(lake: Lake, limit: int | None = None) -> list[str]:
    """SHA-256 of signed files that wait for their time stamp, those that wait longest first.

    Without those whose manifest was erased: a new one would bring back what it said.
    """
    rows = lake.rows(
        "SELECT asset_sha256 FROM stamps_owed ANTI JOIN (SELECT asset_sha256 FROM raw.manifests "
        "WHERE manifest IS NULL) USING (asset_sha256) "
        "ORDER BY owed_since, asset_sha256 LIMIT $most",
        {"most": limit if limit is not None else 2**62},
    )
    return [row["asset_sha256"] for row in rows]


def stamp_files(
    settings: Settings,
    lake: Lake,
    sha256s: Sequence[str],
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Stamped:
    """Gives these catalogued files a time stamp each, as new assets of their images.

    Raises SetupError when no authority is configured or it does not serve.
    """
    if not settings.signing.timestamp_url:
        raise SetupError("no time-stamp authority is configured: set signing.timestamp_url")
    if not sha256s:
        return Stamped({}, ())
    identity = signing_identity(settings)
    files: dict[str, str] = {}
    failed: list[NotStamped] = []
    with ThreadPoolExecutor(_WAITING) as threads:
        for start in range(0, len(sha256s), AT_ONCE):
            part = sha256s[start : start + AT_ONCE]
            for each in _stamp_part(settings, lake, identity, threads, part):
                if isinstance(each, NotStamped):
                    failed.append(each)
                else:
                    files[each[2]["sha256"]] = each[0].sha256
            progress(min(start + AT_ONCE, len(sha256s)), len(sha256s))
    return Stamped(files, tuple(failed))


_FILES = """
SELECT a.request_id, a.sha256, a.url, a.mime, a.width, a.height, a.pixels_sha256,
       a.perceptual_hash, a.state, c.attempt,
       row_number() OVER (PARTITION BY a.request_id ORDER BY a.recorded_at DESC, a.sha256) = 1
           AS newest
FROM assets AS a
SEMI JOIN (SELECT request_id FROM assets SEMI JOIN wanted USING (sha256)) AS w
    ON w.request_id = a.request_id
JOIN raw.current AS c ON c.request_id = a.request_id
WHERE a.state = 'signed'
"""
_RENDITIONS = """
WITH meant AS (
    SELECT original_sha256, recipe::VARCHAR AS recipe
    FROM renditions SEMI JOIN wanted USING (sha256))
SELECT n.request_id, n.sha256, n.url, n.mime, n.width, n.height, '' AS pixels_sha256,
       n.original_sha256, n.recipe::VARCHAR AS recipe, n.actions,
       row_number() OVER (PARTITION BY n.original_sha256, n.recipe::VARCHAR
                          ORDER BY n.made_at DESC, n.sha256) = 1 AS newest
FROM renditions AS n
SEMI JOIN meant ON meant.original_sha256 = n.original_sha256 AND meant.recipe = n.recipe::VARCHAR
"""

_ERASED = (
    "SELECT DISTINCT asset_sha256 AS sha256 FROM raw.manifests "
    "SEMI JOIN wanted ON wanted.sha256 = asset_sha256 WHERE manifest IS NULL"
)


def _stamp_part(
    settings: Settings,
    lake: Lake,
    identity: Identity,
    threads: ThreadPoolExecutor,
    sha256s: Sequence[str],
) -> Iterator[NotStamped | _Done]:
    wanted = text_table(sha256=sha256s)
    with staging_lock(settings, alone=False):
        # Erasures wait for this lock: a stamp after one would bring back what it took.
        erased = {row["sha256"] for row in lake.rows(_ERASED, wanted=wanted)}
        rows = [*lake.rows(_RENDITIONS, wanted=wanted), *lake.rows(_FILES, wanted=wanted)]
        found = {row["sha256"]: row for row in rows if row["sha256"] not in erased}
        known = [found[sha256] for sha256 in sha256s if sha256 in found]
        outcomes = list(threads.map(lambda row: _one(settings, identity, row), known))
        done = [each for each in outcomes if not isinstance(each, NotStamped)]
        kept: set[str] = set()

        def record() -> list[str]:
            authority = str(identity.timestamp_url)
            kept.update(lake.transact(lambda connection: _record(connection, done, authority)))
            return [str(asset.url) for asset, _, row in done if row["sha256"] in kept]

        place_recorded(settings, [str(asset.url) for asset, _, _ in done], record)
    yield from (
        NotStamped(
            sha256,
            "its manifest was erased"
            if sha256 in erased
            else "the catalog has no such signed file",
        )
        for sha256 in sha256s
        if sha256 not in found
    )
    # What another process stamped meanwhile is neither this one's work nor a failure.
    yield from (
        each for each in outcomes if isinstance(each, NotStamped) or each[2]["sha256"] in kept
    )


def _one(settings: Settings, identity: Identity, row: Mapping[str, Any]) -> NotStamped | _Done:
    if not row["newest"]:
        # A stamp on it would make the older file the one that counts.
        return NotStamped(row["sha256"], "another file of this image was signed since")
    path = path_of(settings, row["url"])
    try:
        data = path.read_bytes()
        if sha256_of(data) != row["sha256"]:
            return NotStamped(row["sha256"], f"{path} is not the file that was signed")
        stamped, signed = stamp(data, row["mime"], identity)
    except OSError as error:
        return NotStamped(row["sha256"], f"{path} cannot be read: {error.strerror}")
    except PlatemarkError as error:
        return NotStamped(row["sha256"], str(error))
    sha256, url = stage(settings, "assets", stamped, row["mime"])
    sizes = {name: row[name] for name in ("mime", "width", "height", "pixels_sha256")}
    return Asset(sha256, "signed", url, size=len(stamped), **sizes), signed, row


def _record(
    connection: duckdb.DuckDBPyConnection, done: Sequence[_Done], authority: str
) -> set[str]:
    """Records the stamped files of those that still wait; returns the old files' SHA-256."""
    import pyarrow as pa

    if not done:
        return set()
    connection.register("stamping", text_table(sha256=[row["sha256"] for *_, row in done]))
    try:
        taken = connection.execute(
            "SELECT asset_sha256 FROM raw.stamps JOIN stamping ON sha256 = asset_sha256"
        ).fetchall()
    finally:
        connection.unregister("stamping")
    already = {sha256 for (sha256,) in taken}
    now = datetime.now(UTC)
    files, stores, stamps, renditions = [], [], [], []
    for asset, signed, row in done:
        if row["sha256"] in already:
            continue
        stamps.append((row["sha256"], row["request_id"], asset.sha256))
        if "recipe" in row:
            renditions.append(_rendition(asset, signed, row))
            continue
        key = {"request_id": row["request_id"], "attempt": row["attempt"]}
        kept = later_file_row(asset, signed, "stamp", row["perceptual_hash"])
        files.append({**key, **kept, "recorded_at": now})
        stores.append({**key, **manifest_row(asset, signed), "recorded_at": now})
    if files:
        insert_table(connection, "later_files", arrow("later_files", files))
        insert_table(connection, "manifests", arrow("manifests", stores))
    if renditions:
        insert_renditions(connection, renditions, now)
    if stamps:
        names = ("asset_sha256", "request_id", "stamped_sha256")
        columns = dict(zip(names, zip(*stamps, strict=True), strict=True))
        table = text_table(**columns, authority=[authority] * len(stamps))
        moment = pa.array([now] * len(stamps), pa.timestamp("us", tz="UTC"))
        insert_table(connection, "stamps", table.append_column("stamped_at", moment))
    return {sha256 for sha256, _, _ in stamps}


def _rendition(asset: Asset, signed: Signed, row: Mapping[str, Any]) -> dict[str, Any]:
    """A stamped rendition's columns: of the same original and recipe as the one before."""
    same = ("request_id", "original_sha256", "recipe", "actions")
    return {
        **{name: row[name] for name in same},
        **{name: getattr(asset, name) for name in ("sha256", "url", "mime", "width", "height")},
        "size": asset.size,
        "label": signed.label,
        "certificate": signed.certificate,
        "store": signed.manifest,
    }
