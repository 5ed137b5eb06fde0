"""Runs one SELECT where it can do no harm: a DuckDB over a private copy of the metadata, limited.

It sees the catalog as it is now or was at a moment, and no file, network, secret or setting. What
people type runs in a process of its own besides (catalog/sandbox.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from catalog.as_of import metadata_as_of, set_clock
from catalog.faults import setup_error
from catalog.guard import one_select, wrong_sql
from catalog.lake import DATA, attached
from pipeline.errors import Fault, InputError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

T = TypeVar("T")
Value = str | int | float | None
_CHUNK_ROWS = 20_000


@dataclass(frozen=True)
class Answer:
    """The rows of an audit. `types` are DuckDB's names of the columns' types, in their order.

    `limit` is how many rows were asked for, None when that was not said.
    """

    table: pa.Table
    types: tuple[str, ...]
    limit: int | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(self.table.column_names)

    @property
    def may_go_on(self) -> bool:
        """Whether there are as many rows as were asked for, so that there may be more."""
        return self.limit is not None and self.table.num_rows >= self.limit


@dataclass(frozen=True)
class Limits:
    """What one audit may use; DuckDB writes nothing to disk for it."""

    seconds: float = 60.0
    memory: str = "1GB"
    threads: int = 2
    rows: int = 5_000_000
    megabytes: int = 1024


@contextmanager
def isolated(
    folder: Path, limits: Limits, as_of: datetime | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB that sees the catalog as it is now, or was at `as_of` (aware), and nothing else.

    Raises InputError, naming what can be asked, when the catalog of that moment is not kept.
    """
    with (
        metadata_as_of(folder, as_of) as (copy, _),
        isolated_copy(copy, folder, limits, as_of) as connection,
    ):
        yield connection


@contextmanager
def isolated_copy(
    metadata: Path, folder: Path, limits: Limits, as_of: datetime | None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """The same over a private copy of the metadata that is there already."""
    config = {
        "memory_limit": limits.memory,
        "threads": limits.threads,
        "temp_directory": "",
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        "allow_persistent_secrets": False,
        # So many keys, as lists have, are looked for in the row groups that may hold them only.
        "dynamic_or_filter_threshold": 256,
    }
    with attached(metadata, folder, read_only=True, **config) as connection:
        if as_of is not None:
            set_clock(connection, as_of)
        data = str(folder / DATA).replace("'", "''")
        connection.execute(f"SET allowed_directories = ['{data}/']")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection


def select(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    parameters: Mapping[str, Any],
    limits: Limits,
    folder: Path,
) -> Answer:
    """Checks and runs one SELECT on an isolated connection, within the limits.

    Raises InputError when it is not one SELECT over the catalog, is wrong, takes longer than the
    limits allow or returns more; nothing is ever cut off silently.
    """
    statement = one_select(connection, sql)

    def work() -> Answer:
        result = connection.execute(statement, dict(parameters) or None)
        types = tuple(str(column[1]) for column in result.description or ())
        return Answer(_within(result.to_arrow_reader(_CHUNK_ROWS), limits), types)

    return _limited(connection, work, limits, folder)


def plan(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    parameters: Mapping[str, Any],
    limits: Limits,
    folder: Path,
) -> str:
    """How DuckDB would run one SELECT, as text; it is checked like in `select`, and not run."""
    statement = one_select(connection, sql)
    (explained,) = connection.extract_statements(f"EXPLAIN {statement.query}")

    def work() -> str:
        rows = connection.execute(explained, dict(parameters) or None).fetchall()
        return "\n".join(str(text).rstrip() for _, text in rows)

    return _limited(connection, work, limits, folder)


def too_long(limits: Limits) -> InputError:
    """What is said when an audit took longer than it may."""
    return _too_much(f"it took longer than {limits.seconds:g} s")


def too_large(limits: Limits) -> InputError:
    """What is said when an audit needed more memory than it may have."""
    return _too_much(f"it needs more memory than {limits.memory}")


def _limited(
    connection: duckdb.DuckDBPyConnection, work: Callable[[], T], limits: Limits, folder: Path
) -> T:
    import duckdb
    import pyarrow as pa

    late = threading.Event()

    def stop() -> None:
        late.set()
        connection.interrupt()

    timer = threading.Timer(limits.seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        return work()
    except (duckdb.Error, pa.ArrowException, OSError, MemoryError) as error:
        if late.is_set():
            raise too_long(limits) from error
        memory = isinstance(error, duckdb.OutOfMemoryException | MemoryError | pa.ArrowMemoryError)
        if memory or any(sign in str(error) for sign in ("Out of Memory", "bad_alloc")):
            raise too_large(limits) from error
        raise setup_error(error, folder) or wrong_sql(error) from error
    finally:
        timer.cancel()


def _within(reader: pa.RecordBatchReader, limits: Limits) -> pa.Table:
    import pyarrow as pa

    batches: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in reader:
        rows += batch.num_rows
        size += batch.nbytes
        if rows > limits.rows:
            raise _too_much(f"it returns more than {limits.rows:,} rows")
        if size > limits.megabytes * 2**20:
            raise _too_much(f"it returns more than {limits.megabytes:,} MiB")
        batches.append(batch)
    table = pa.Table.from_batches(batches, reader.schema)
    return table.rename_columns(_unlike(table.column_names))


def _unlike(names: list[str]) -> list[str]:
    """The names, those that stood before with a number: rows are dicts, none may hide another."""
    taken: dict[str, None] = {}
    for name in names:
        unlike, number = name, 2
        while unlike in taken:
            unlike, number = f"{name}_{number}", number + 1
        taken[unlike] = None
    return list(taken)


def _too_much(what: str) -> InputError:
    return InputError("SQL", [Fault(what, remedy="ask for less: WHERE, GROUP BY or LIMIT")])
