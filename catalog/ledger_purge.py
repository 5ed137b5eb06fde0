"""Removes what was erased from the disk: data files, snapshots, statistics, leftovers of writers.

The last step of catalog/ledger_erase.py, with no run at work.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.lake import DATA, Lake, patiently
from catalog.ledger_entries import covered_tables
from catalog.ledger_forms import ERASABLE, columns_of
from catalog.ledger_reads import read_patiently
from catalog.metadata import METADATA
from pipeline.errors import SetupError

if TYPE_CHECKING:
    import duckdb

# In a process of its own: see catalog/metadata.py. Statistics keep the least and greatest value of
# a column, and SQLite keeps deleted bytes in free pages until it is packed anew.
_SCRUB = """
import json, sqlite3, sys
lake = sqlite3.connect(sys.argv[1], timeout=120)
for table, column in json.loads(sys.argv[2]):
    lake.execute(
        "UPDATE ducklake_table_column_stats SET min_value = NULL, max_value = NULL "
        "WHERE (table_id, column_id) IN (WITH RECURSIVE inside(table_id, column_id) AS ("
        "SELECT c.table_id, c.column_id FROM ducklake_column c "
        "JOIN ducklake_table t USING (table_id) WHERE t.table_name = ? AND c.column_name = ? "
        "UNION SELECT k.table_id, k.column_id FROM ducklake_column k JOIN inside "
        "ON k.table_id = inside.table_id AND k.parent_column = inside.column_id) "
        "SELECT table_id, column_id FROM inside)",
        (table, column))
lake.commit()
lake.execute("VACUUM")
"""
_UNDER_WAY_SECONDS = 600.0
"""A file that no snapshot has may be of a commit under way while it is younger."""


def purge(lake: Lake, key: Mapping[str, Any]) -> int:
    """Rewrites files with deleted rows, forgets older snapshots, removes files that hold old rows.

    Returns how many such files it removed that killed writers had left. `key` names the erased
    rows. Raises SetupError when other writers kept an old file in use.
    """

    def rewrite() -> None:
        with lake.alone() as connection:
            connection.execute("CALL ducklake_rewrite_data_files('lake', delete_threshold => 0)")
            connection.execute("CALL ducklake_expire_snapshots('lake', older_than => now())")
            connection.execute("CALL ducklake_cleanup_old_files('lake', cleanup_all => true)")

    patiently(rewrite, lake.folder)
    removed = 0
    for table, types in _columns(lake).items():
        if set(key) <= types and ERASABLE & types:
            used = _used(lake, table)
            with lake.alone() as connection:
                removed += _remove_leftovers(connection, lake.folder, table, used, key)
    return removed


def scrub(lake: Lake) -> None:
    """Empties the metadata's statistics of all columns that can be erased, and packs it anew."""
    pairs = [
        (table, name)
        for table, types in _columns(lake).items()
        for name in sorted(types & ERASABLE)
    ]
    file = lake.folder / METADATA
    command = [sys.executable, "-I", "-S", "-c", _SCRUB, str(file), json.dumps(pairs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(
            f"the values are erased, but the metadata's statistics may still hold some: "
            f"{done.stderr.strip().splitlines()[-1:]}; run the erasure again when no run is at work"
        )


def _columns(lake: Lake) -> dict[str, set[str]]:
    """Columns of all tables that the ledger covers."""
    return read_patiently(
        lake,
        lambda connection: {
            table: set(columns_of(connection, f"raw.{table}"))
            for table in covered_tables(connection)
        },
    )


def _used(lake: Lake, table: str) -> set[str]:
    """Names of the data files that the table has now. Raises SetupError when some are old."""
    listed = read_patiently(
        lake,
        lambda connection: connection.execute(
            "SELECT data_file, delete_file "
            f"FROM ducklake_list_files('lake', '{table}', schema => 'raw')"
        ).fetchall(),
    )
    if any(deleted for _, deleted in listed):
        raise SetupError(
            f"the values are erased, but old files of the table {table} still hold them, since "
            f"another writer is at work: run the erasure again when it is done"
        )
    return {Path(data).name for data, _ in listed}


def _remove_leftovers(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    table: str,
    used: set[str],
    key: Mapping[str, Any],
) -> int:
    """Files of killed or failed commits, which no snapshot has: those that hold the key's rows."""
    removed = 0
    for path in sorted((folder / DATA / "raw" / table).rglob("*.parquet")):
        if path.name not in used and _holds(connection, path, key):
            if _is_young(path):
                raise SetupError(
                    f"the values are erased, but {path.name} still holds them and is younger than "
                    f"ten minutes: another writer may be about to commit it; run the erasure again "
                    f"then"
                )
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _holds(connection: duckdb.DuckDBPyConnection, path: Path, key: Mapping[str, Any]) -> bool:
    import duckdb

    condition = " AND ".join(f'"{name}" = ?' for name in key)
    try:
        found = connection.execute(
            f"SELECT 1 FROM read_parquet(?) WHERE {condition} LIMIT 1", [str(path), *key.values()]
        ).fetchone()
    except duckdb.Error:
        # Half written: whose rows it has cannot be told.
        return not _is_young(path)
    return found is not None


def _is_young(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime < _UNDER_WAY_SECONDS
    return False
