"""Appends rows and their ledger entries in one transaction: what catalog/write.py writes through.

`append_rows` inserts and hashes; what a transaction appended becomes entries just before it commits
(catalog/ledger_pending.py); catalog/ledger_checkpoints.py signs the log that they form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from catalog.ledger_entries import ENTRY_ROWS, covered_tables, new_entry
from catalog.ledger_pending import enter_pending, forget_pending, note, pending_commit
from catalog.ledger_rows import (
    SALT,
    Erasure,
    RowForm,
    columns_of,
    erasure_from_json,
    hashed_rows,
    row_form,
    salted,
)
from catalog.rows import new_attempt
from pipeline.request import canonical_json
from pipeline.settings import Settings

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from catalog.ledger_notes import Verifier


def place_of(settings: Settings) -> Path:
    """The folder of the ledger's key, its verifier key, and the last checkpoint (mode 0700)."""
    return settings.root / "ledger"


def append_rows(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    """Appends an Arrow table to raw.`name` inside a transaction, and notes the rows' hashes.

    Tables with a column `salt` get 16 random bytes a row in it.
    """
    types = _types(connection, f"raw.{name}")
    incoming = salted(table) if SALT in types else table
    # More than a row group is written by several threads, which keep no order.
    for first in range(0, len(incoming), ENTRY_ROWS):
        connection.register("incoming", incoming.slice(first, ENTRY_ROWS).combine_chunks())
        try:
            form = row_form(types, _types(connection, "incoming", str(incoming.schema)))
            _note(connection, name, form)
            connection.execute(f"INSERT INTO raw.{name} BY NAME SELECT * FROM incoming")
        finally:
            connection.unregister("incoming")


def append_table(connection: duckdb.DuckDBPyConnection, name: str, source: str) -> int:
    """The same for the rows of a temporary table, 65,536 at a time; returns how many.

    For answers of a SELECT: CREATE TEMP TABLE … AS first, so that what is hashed is inserted, and
    before the transaction: rows of its own have no ids yet. Raises ValueError for such a table.
    """
    ((whole,),) = connection.execute(f"SELECT count(*) FROM {source}").fetchall()
    count = 0
    while True:
        rows = connection.execute(
            f"SELECT * FROM {source} WHERE rowid >= {count} AND rowid < {count + ENTRY_ROWS}"
        ).to_arrow_table()
        if not len(rows) and count < whole:
            raise ValueError(f"{source} was made in this transaction")
        if not len(rows):
            return count
        append_rows(connection, name, rows)
        count += len(rows)


def enter_found(connection: duckdb.DuckDBPyConnection) -> int:
    """Enters all rows of a catalog that has no ledger yet, as found; returns how many.

    Part of the transaction that upgrades a catalog, before anybody may append. Such entries say
    that the rows were so at that moment, not who wrote them or when: their kind is `found`.
    """
    ((known,),) = connection.execute("SELECT count(*) FROM raw.ledger_entries").fetchall()
    if known:
        return 0
    forget_pending(connection)
    commit_id = new_attempt()
    entered = 0
    for name in covered_tables(connection):
        form = row_form(columns_of(connection, f"raw.{name}"))
        hashes: list[bytes] = []
        keys: list[str] = []
        ordered = f"(SELECT rowid, * FROM raw.{name} ORDER BY rowid)"
        for block in hashed_rows(connection, ordered, form, {}, rowid=True):
            hashes += block.hashes
            keys += block.keys
        for at in range(0, len(hashes), ENTRY_ROWS):
            end = at + ENTRY_ROWS
            note(connection, new_entry(commit_id, "found", name, hashes[at:end], keys[at:end]))
        entered += len(hashes)
    enter_pending(connection)
    return entered


def erasure_statement(row: Mapping[str, Any]) -> bytes:
    """What is signed of a row of raw.ledger_erasures: who may not sign may not excuse a change."""
    signed = {
        "erasure_id": bytes(row["erasure_id"]).hex(),
        **{name: row[name] for name in ("table_name", "row_key", "erased", "file_sha256", "kept")},
    }
    return b"platemark ledger erasure v1\n" + canonical_json(signed)


def erasures(
    connection: duckdb.DuckDBPyConnection, verifiers: Sequence[Verifier]
) -> dict[bytes, Erasure]:
    """The signed tombstones of rows by erasure id.

    One that nobody of `verifiers` signed, or that cannot be read, is left out: its row is found by
    its hash then.
    """
    found: dict[bytes, Erasure] = {}
    for row in _tombstones(connection, verifiers):
        try:
            if row["kept"] is not None:
                found[bytes(row["erasure_id"])] = erasure_from_json(row["kept"])
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return found


def erased_files(connection: duckdb.DuckDBPyConnection, verifiers: Sequence[Verifier]) -> set[str]:
    """SHA-256 (hex) of files that signed tombstones say are gone."""
    rows = _tombstones(connection, verifiers)
    return {row["file_sha256"] for row in rows if row["file_sha256"] is not None}


def _tombstones(
    connection: duckdb.DuckDBPyConnection, verifiers: Sequence[Verifier]
) -> list[dict[str, Any]]:
    rows = connection.execute("FROM raw.ledger_erasures").to_arrow_table().to_pylist()
    return [
        row
        for row in rows
        if any(
            each.holds(erasure_statement(row), bytes(row["signature"] or b"")) for each in verifiers
        )
    ]


def _note(connection: duckdb.DuckDBPyConnection, name: str, form: RowForm) -> None:
    hashes: list[bytes] = []
    keys: list[str] = []
    for block in hashed_rows(connection, "incoming", form, {}, rowid=False):
        hashes += block.hashes
        keys += block.keys
    commit_id = pending_commit(connection) or new_attempt()
    note(connection, new_entry(commit_id, "commit", name, hashes, keys))


def _types(
    connection: duckdb.DuckDBPyConnection, relation: str, schema: str = ""
) -> dict[str, Any]:
    """Columns of a relation, asked once a connection: the schema changes only as one is opened."""
    known = _known_types.setdefault(connection, {})
    if (relation, schema) not in known:
        known[relation, schema] = columns_of(connection, relation)
    return known[relation, schema]


_known_types: WeakKeyDictionary[Any, dict[tuple[str, str], dict[str, Any]]] = WeakKeyDictionary()
