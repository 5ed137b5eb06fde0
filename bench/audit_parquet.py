"""A plain DuckDB over the Parquet files of a catalog, for bench/audit.py: what a lake adds to them.

The same files, the same views (catalog/views.sql), no DuckLake.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from catalog.audit import Limits
from catalog.lake import attached
from catalog.metadata import metadata_copy

if TYPE_CHECKING:
    import duckdb

VIEWS = Path(__file__).resolve().parent.parent / "catalog" / "views.sql"


@contextmanager
def plain_parquet(folder: Path, limits: Limits) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB in memory, with a view raw.TABLE over the files of each of the catalog's tables."""
    import duckdb

    with duckdb.connect(
        config={
            "memory_limit": limits.memory,
            "threads": limits.threads,
            "temp_directory": "",
            "dynamic_or_filter_threshold": 256,
        }
    ) as connection:
        connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
        # Footers are read once, as a lake does.
        connection.execute("SET parquet_metadata_cache = true")
        # The name of the lake, which questions about tables ask for.
        connection.execute("ATTACH ':memory:' AS lake; USE lake; CREATE SCHEMA raw")
        for sql in _tables(folder):
            connection.execute(sql)
        connection.execute(VIEWS.read_text(encoding="utf-8"))
        yield connection


def _tables(folder: Path) -> list[str]:
    """SQL that makes raw.TABLE of each table: a view over its files, an empty table without any."""
    made = []
    with metadata_copy(folder) as copy, attached(copy, folder, read_only=True) as lake:
        tables = lake.execute(
            "SELECT table_name, list((column_name, data_type) ORDER BY column_index) "
            "FROM duckdb_columns() WHERE database_name = 'lake' AND schema_name = 'raw' "
            "AND table_name IN (SELECT table_name FROM duckdb_tables() WHERE schema_name = 'raw') "
            "GROUP BY 1"
        ).fetchall()
        for table, columns in tables:
            files = lake.execute(
                f"SELECT data_file, delete_file FROM ducklake_list_files('lake', '{table}', "
                "schema => 'raw')"
            ).fetchall()
            if any(deleted for _, deleted in files):
                raise ValueError(f"rows of {table} were erased: its files alone tell too much")
            paths = ", ".join(f"'{path}'" for path, _ in files)
            names = ", ".join(f'"{name}"' for name, _ in columns)
            typed = ", ".join(f'"{name}" {kind}' for name, kind in columns)
            made.append(
                f"CREATE VIEW raw.{table} AS SELECT {names} FROM read_parquet([{paths}])"
                if files
                else f"CREATE TABLE raw.{table} ({typed})"
            )
    return made
