"""What a transaction has appended and not yet entered, by connection; knows nothing of the lake.

Lake.transact forgets it after BEGIN, so that a transaction that is tried again notes its rows
anew, and enters it before COMMIT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from catalog.ledger_entries import Entry, entries_table

if TYPE_CHECKING:
    import duckdb

_noted: WeakKeyDictionary[Any, list[Entry]] = WeakKeyDictionary()


def forget_pending(connection: duckdb.DuckDBPyConnection) -> None:
    """Forgets what an earlier transaction appended and rolled back; called after BEGIN."""
    _noted.pop(connection, None)


def note(connection: duckdb.DuckDBPyConnection, entry: Entry) -> None:
    """Keeps an entry until the transaction commits."""
    _noted.setdefault(connection, []).append(entry)


def pending_commit(connection: duckdb.DuckDBPyConnection) -> str | None:
    """The id under which this transaction's rows are noted, None before the first."""
    noted = _noted.get(connection)
    return noted[0].commit_id if noted else None


def enter_pending(connection: duckdb.DuckDBPyConnection) -> None:
    """Writes the entries of what this transaction appended; called just before its COMMIT."""
    noted = _noted.pop(connection, None)
    if not noted:
        return
    connection.register("incoming", entries_table(noted))
    try:
        connection.execute("INSERT INTO raw.ledger_entries SELECT * FROM incoming")
    finally:
        connection.unregister("incoming")
