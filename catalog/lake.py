"""Opens the catalog: a DuckLake with its metadata in SQLite and its data in Parquet files.

Flows write through `writing`, the one place where commits are tried again; everything that only
reads goes through `reading`, a private copy of the metadata, so that neither waits for the other.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from catalog.extensions import connected
from catalog.faults import is_contention, setup_error
from catalog.ledger_pending import enter_pending, forget_pending
from catalog.metadata import METADATA, exists, metadata_copy
from catalog.turn import writers_turn
from pipeline.errors import BusyError, SetupError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

T = TypeVar("T")

__all__ = ["SCHEMA_VERSION", "Lake", "attached", "exists", "reading", "writing"]

SCHEMA_VERSION = 5
DATA = "data"
_PATIENCE_SECONDS = 120.0
_READERS_SECONDS = 30
"""How long a commit waits for who reads the metadata. One that gives up, as DuckDB has it after 5
seconds, leaves the connection locked against itself for good (measured: DuckLake 1.0)."""


class Lake:
    """An open catalog. Threads may share it: one transaction at a time, reads beside it."""

    def __init__(self, folder: Path, connection: duckdb.DuckDBPyConnection) -> None:
        self.folder = folder
        self.connection = connection
        self.unmerged = 0
        """Batches appended by this process since small files were last merged."""
        self._lock = threading.RLock()

    def transact(
        self, work: Callable[[duckdb.DuckDBPyConnection], T], patience: float = _PATIENCE_SECONDS
    ) -> T:
        """Runs `work` in one transaction, and all of it again when another writer was faster.

        DuckLake's own retries lose batches (measured: 25 of 200, with four writers at once and
        SQLite metadata); the whole transaction, again after a random pause, lost none. Writers
        queue, so that this is seldom. Raises BusyError after `patience` seconds without its turn
        and as many of trying, SetupError when the disk is full or the metadata is damaged.
        """

        def attempt() -> T:
            try:
                self.connection.execute("BEGIN")
                forget_pending(self.connection)
                result = work(self.connection)
                enter_pending(self.connection)
                self.connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
            return result

        with self._lock, writers_turn(self.folder, patience):
            return patiently(attempt, self.folder, patience)

    def read(
        self,
        sql: str,
        parameters: Mapping[str, Any] | Sequence[Any] = (),
        **tables: pa.Table,
    ) -> pa.Table:
        """The rows of one SELECT; `tables` are Arrow tables that it may name."""

        def attempt() -> pa.Table:
            with self.connection.cursor() as cursor:
                cursor.execute("USE lake")
                for name, table in tables.items():
                    cursor.register(name, table)
                return cursor.execute(sql, parameters or None).to_arrow_table()

        return patiently(attempt, self.folder)

    def rows(
        self,
        sql: str,
        parameters: Mapping[str, Any] | Sequence[Any] = (),
        **tables: pa.Table,
    ) -> list[dict[str, Any]]:
        """The same as one dict a row."""
        found: list[dict[str, Any]] = self.read(sql, parameters, **tables).to_pylist()
        return found

    @contextmanager
    def alone(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The connection outside a transaction, for upkeep, with other threads kept waiting."""
        with self._lock:
            yield self.connection

    def _roll_back(self) -> None:
        import duckdb

        # A failed commit has ended the transaction already.
        with suppress(duckdb.Error):
            self.connection.execute("ROLLBACK")


def patiently(attempt: Callable[[], T], folder: Path, patience: float = _PATIENCE_SECONDS) -> T:
    """The result of `attempt`, made again after random pauses while other writers are in the way.

    Raises BusyError after `patience` seconds, SetupError when what failed is the set-up.
    """
    import duckdb

    deadline = time.monotonic() + patience
    pause = 0.02
    while True:
        try:
            return attempt()
        except duckdb.Error as error:
            if fault := setup_error(error, folder):
                raise fault from error
            if not is_contention(error):
                raise
            if time.monotonic() > deadline:
                raise BusyError(
                    f"the catalog {folder} has been locked by other writers for "
                    f"{patience:.0f} s: run again when they are done"
                ) from error
        time.sleep(random.uniform(pause / 2, pause))
        pause = min(pause * 2, 2.0)


@contextmanager
def writing(folder: Path) -> Iterator[Lake]:
    """The catalog in `folder`, made when there is none, open for transactions.

    Raises SetupError: no extensions, no permission, damaged, or written by a newer version.
    """
    _refuse_data_without_metadata(folder)
    if not exists(folder):
        _create(folder)
    with attached(folder / METADATA, folder, read_only=False) as connection:
        lake = Lake(folder, connection)
        if _version(connection, folder) < SCHEMA_VERSION:
            lake.transact(_bring_up_to_date)
            patiently(lambda: _set_row_groups(connection), folder)
        yield lake


@contextmanager
def reading(folder: Path) -> Iterator[Lake]:
    """The catalog as it is now, from a private copy of its metadata: never waits for a writer.

    Raises SetupError when there is no catalog yet.
    """
    with metadata_copy(folder) as copy, attached(copy, folder, read_only=True) as connection:
        yield Lake(folder, connection)


@contextmanager
def attached(
    metadata: Path, folder: Path, *, read_only: bool, **config: Any
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB in memory with the lake attached as `lake` and in use; its time zone is UTC.

    The data path is the folder's own whatever the metadata say, so that a workspace can be moved.
    """
    connection = connected(**config)
    try:
        connection.execute("SET TimeZone = 'UTC'")
        # Its bar would stand between lines that scripts read.
        connection.execute("SET enable_progress_bar = false")
        # A Python variable of the same name must never stand in for a table.
        connection.execute("SET python_enable_replacements = false")
        patiently(lambda: _attach(connection, metadata, folder / DATA, read_only), folder)
        found = patiently(lambda: _version(connection, folder), folder)
        if read_only and found < SCHEMA_VERSION:
            # Readers have a private copy of the metadata: that is brought up to date, not the
            # catalog, which they may not be allowed to write.
            connection.execute("USE memory; DETACH lake")
            _attach(connection, metadata, folder / DATA, read_only=False)
            connection.execute("BEGIN")
            _alter(connection, found, _AS_VIEW)
            connection.execute("COMMIT")
            connection.execute("USE memory; DETACH lake")
            _attach(connection, metadata, folder / DATA, read_only=True)
        yield connection
    finally:
        connection.close()


def _bring_up_to_date(connection: duckdb.DuckDBPyConnection) -> None:
    """Tables and views of an older catalog as this version has them.

    Its Parquet files stay as they are: earlier snapshots show what they held.
    """
    ((found,),) = connection.execute("SELECT max(version) FROM raw.schema_version").fetchall()
    if found < SCHEMA_VERSION:
        from catalog.ledger import enter_found
        from catalog.upkeep import settle

        _alter(connection, found, _AS_TABLE)
        now = datetime.now(UTC)
        connection.execute("INSERT INTO raw.schema_version VALUES (?, ?)", [SCHEMA_VERSION, now])
        if found < 4:
            settle(connection)
            forget_pending(connection)
            enter_found(connection)


def _alter(connection: duckdb.DuckDBPyConnection, found: int, keep: str) -> None:
    for version in range(found + 1, SCHEMA_VERSION + 1):
        if version == 5 and found < 4:
            # What version 4 gathers has its columns.
            continue
        connection.execute(_sql(f"upgrade-{version}.sql"))
        for name in _GATHERED if version == 4 else ():
            connection.execute(keep.format(name=name))
        if version == 4 and keep == _AS_TABLE:
            connection.execute(_sql("upgrade-4-tables.sql"))
    connection.execute(_sql("views.sql"))


_GATHERED = ("images", "signatures", "rescored", "later_files")
"""Tables that version 4 gathers from those of earlier ones."""
_AS_VIEW = "CREATE VIEW raw.{name} AS FROM raw.{name}_before_4"
_AS_TABLE = "CREATE TABLE raw.{name} AS FROM raw.{name}_before_4"
"""For readers, who may not be allowed to write data, and for writers."""


# Fetching a few rows takes a fifth of the time that it takes with DuckDB's 122,880: the images of
# an item, the manifest of a recovered file.
_ROW_GROUPS = {"images": 16384, "manifests": 2048}


def _set_row_groups(connection: duckdb.DuckDBPyConnection) -> None:
    """After the commit: settings are refused for tables that the transaction itself made."""
    for table, rows in _ROW_GROUPS.items():
        connection.execute(
            f"CALL lake.set_option('parquet_row_group_size', {rows}, schema => 'raw', "
            f"table_name => '{table}')"
        )


def _sql(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _attach(
    connection: duckdb.DuckDBPyConnection, metadata: Path, data: Path, read_only: bool
) -> None:
    # Small inserts go to Parquet like all others: rows inlined in the metadata would be copied
    # with it for every reader (and changing the limit crashed DuckLake 1.0).
    options = (
        f"DATA_PATH '{_quoted(data)}/', OVERRIDE_DATA_PATH true, DATA_INLINING_ROW_LIMIT 0, "
        f"META_BUSY_TIMEOUT {_READERS_SECONDS * 1000}"
    )
    if read_only:
        options += ", READ_ONLY"
    connection.execute(f"ATTACH 'ducklake:sqlite:{_quoted(metadata)}' AS lake ({options})")
    connection.execute("USE lake")


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _create(folder: Path) -> None:
    """Makes an empty catalog under another name and links it into place: whole, and only once."""
    import duckdb

    draft = folder / f".{METADATA}.{os.getpid()}-{random.getrandbits(32):08x}"
    try:
        (folder / DATA).mkdir(parents=True, exist_ok=True)
        connection = connected()
        try:
            _attach(connection, draft, folder / DATA, read_only=False)
            connection.execute("BEGIN")
            connection.execute(_sql("schema.sql"))
            connection.execute(_sql("views.sql"))
            connection.execute(
                "INSERT INTO raw.schema_version VALUES (?, ?)",
                [SCHEMA_VERSION, datetime.now(UTC)],
            )
            connection.execute("COMMIT")
            _set_row_groups(connection)
        finally:
            connection.close()
        # If another process was faster, its catalog is the same.
        with suppress(FileExistsError):
            os.link(draft, folder / METADATA)
    except (duckdb.Error, OSError) as error:
        raise setup_error(error, folder) or SetupError(
            f"the catalog {folder} cannot be created: {error}"
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def _refuse_data_without_metadata(folder: Path) -> None:
    # A process that was killed while it made the catalog leaves the row of its version.
    files = (folder / DATA).rglob("*.parquet")
    held = any(path.parent.name != "schema_version" for path in files)
    # In this order, since another process may make the catalog and write meanwhile.
    if held and not exists(folder):
        raise SetupError(
            f"{folder / DATA} holds catalog data, but {folder / METADATA} is missing: restore it "
            f"from a backup, or move the folder away to begin a new catalog"
        )


def _version(connection: duckdb.DuckDBPyConnection, folder: Path) -> int:
    """The catalog's schema version. Raises SetupError when it is newer, or none of ours."""
    import duckdb

    try:
        # All rows: a result read halfway keeps SQLite's lock, and with it other writers waiting.
        ((found,),) = connection.execute("SELECT max(version) FROM raw.schema_version").fetchall()
    except duckdb.CatalogException as error:
        raise SetupError(
            f"{folder / METADATA} is a DuckLake, but not a Platemark catalog: choose another "
            f"folder in `catalog_url`"
        ) from error
    if found is None or found > SCHEMA_VERSION:
        raise SetupError(
            f"the catalog {folder} has schema version {found}, this Platemark knows up to "
            f"{SCHEMA_VERSION}: update Platemark"
        )
    return int(found)
