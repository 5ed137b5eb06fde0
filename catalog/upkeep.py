"""Keeps the catalog quick: settles which attempts count, merges the small files of many commits and
removes what nobody needs.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from catalog.faults import is_contention, setup_error
from catalog.lake import Lake, patiently
from catalog.ledger import append_rows
from pipeline.errors import BusyError

if TYPE_CHECKING:
    import duckdb

# Younger files are never removed: a reader that began before may need a merged one, and a commit
# that is under way owns what looks like an orphan.
# With SQLite metadata DuckLake compares the times of merged files as texts, "T" with a space, and
# takes all of the same day (UTC) for older (measured: DuckLake 1.0): a day and an hour is an hour.
_MERGED = "now() - INTERVAL 25 HOUR"
_ORPHANED = "now() - INTERVAL 1 DAY"


def merge_small_files(lake: Lake) -> None:
    """Merges adjacent Parquet files of each table. History ("as of") is kept.

    Files that were merged stay for an hour at least, for readers who began before. A merge that
    meets another writer is left to the next one: it loses nothing.
    """
    import duckdb

    lake.unmerged = 0
    # Readers compare what is not settled: it costs them time, not truth.
    with suppress(BusyError):
        lake.transact(settle, patience=_SETTLE_SECONDS)
    try:
        with lake.alone() as connection:
            connection.execute("CALL ducklake_merge_adjacent_files('lake')")
            connection.execute(f"CALL ducklake_cleanup_old_files('lake', older_than => {_MERGED})")
    except duckdb.Error as error:
        if fault := setup_error(error, lake.folder):
            raise fault from error
        if not is_contention(error):
            raise


_SETTLE_SECONDS = 5.0


def settle(connection: duckdb.DuckDBPyConnection) -> None:
    """Records which attempts do not count, among all that this transaction sees.

    An attempt that does not count never counts again, and one that is committed meanwhile is not
    seen here and therefore not settled: the view raw.superseded compares it with all others.
    """
    superseded = connection.execute(
        "FROM raw.superseded_since ANTI JOIN raw.superseded_attempts USING (request_id, attempt)"
    ).to_arrow_table()
    settled = connection.execute(
        "SELECT DISTINCT attempt FROM raw.batches ANTI JOIN raw.settled USING (attempt)"
    ).to_arrow_table()
    for name, rows in (("superseded_attempts", superseded), ("settled", settled)):
        if len(rows):
            append_rows(connection, name, rows)


def remove_orphans(lake: Lake, *, dry_run: bool = False) -> list[str]:
    """Removes data files that no commit refers to, left by killed writers; returns their paths.

    Files younger than a day stay, since a commit that is under way may own them.
    """
    with lake.alone() as connection:
        rows = patiently(
            lambda: connection.execute(
                f"FROM ducklake_delete_orphaned_files('lake', dry_run => {dry_run}, "
                f"older_than => {_ORPHANED})"
            ).fetchall(),
            lake.folder,
        )
    return [str(row[0]) for row in rows]
