"""Rows of a library's works: entered and removed, in one transaction each time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from catalog.lake import Lake
from catalog.upkeep import merge_small_files
from catalog.write import MERGE_EVERY, insert_table
from pipeline.checks.rights import Listed

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

SUPERSEDED = "its entry changed"


def enter_works(
    lake: Lake,
    name: str,
    works: Sequence[tuple[Listed, str]],
    superseded: Sequence[int],
    by: str,
) -> None:
    """Enters works with the SHA-256 of their files, some in place of entries of these work_ids.

    For the holder of `changing`: only one process at a time enters works of a library.
    """
    now = datetime.now(UTC)

    def enter(connection: duckdb.DuckDBPyConnection) -> None:
        row = connection.execute(
            "SELECT coalesce(max(work_id), 0) FROM raw.library_works WHERE library = ?", [name]
        ).fetchone()
        first = 1 + (row[0] if row else 0)
        insert_table(connection, "library_works", _rows(name, works, first, now))
        if superseded:
            removals = removal_rows(name, superseded, SUPERSEDED, by)
            insert_table(connection, "library_removals", removals)

    lake.transact(enter)
    lake.unmerged += 1
    if lake.unmerged >= MERGE_EVERY:
        merge_small_files(lake)


def _rows(name: str, works: Sequence[tuple[Listed, str]], first: int, now: datetime) -> pa.Table:
    import pyarrow as pa

    count = len(works)
    texts = ("file", "title", "rights_holder", "licence", "role", "note")
    columns = {
        "library": pa.array([name] * count, pa.string()),
        "work_id": pa.array(range(first, first + count), pa.int64()),
        "sha256": pa.array([sha256 for _, sha256 in works], pa.string()),
        **{
            text: pa.array([getattr(work, text) for work, _ in works], pa.string())
            for text in texts
        },
        "expires": pa.array([work.expires for work, _ in works], pa.date32()),
        "added_at": pa.array([now] * count, pa.timestamp("us", tz="UTC")),
    }
    return pa.table(columns)


def removal_rows(name: str, work_ids: Sequence[int], reason: str, by: str) -> pa.Table:
    """Rows of raw.library_removals."""
    import pyarrow as pa

    count = len(work_ids)
    now = datetime.now(UTC)
    columns = {
        "library": pa.array([name] * count, pa.string()),
        "work_id": pa.array(work_ids, pa.int64()),
        "reason": pa.array([reason] * count, pa.string()),
        "removed_by": pa.array([by] * count, pa.string()),
        "removed_at": pa.array([now] * count, pa.timestamp("us", tz="UTC")),
    }
    return pa.table(columns)
