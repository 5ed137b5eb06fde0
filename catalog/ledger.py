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
from catalog.ledger_forms import SALT, columns_of, row_form
from catalog.ledger_pending import enter_pending, forget_pending, note, pending_commit
from catalog.ledger_rows import Erasure, erasure_from_json, incoming_hashes, joined, salted
from catalog.ledger_texts import FEW, few_hashes
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
        some = incoming.slice(first, ENTRY_ROWS).combine_chunks()
        connection.register("incoming", some)
        try:
            hashed = few_hashes(connection, some, types) if len(some) <= FEW else None
            if hashed is None:
                form = row_form(types, _types(connection, "incoming", str(incoming.schema)))
                hashed = incoming_hashes(connection, "incoming", form)
            commit_id = pending_commit(connection) or new_attempt()
            note(connection, new_entry(commit_id, "commit", name, *hashed))
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
        answer = connection.execute(
            f"SELECT {form.digest} AS digest, {form.row_key} AS row_key FROM raw.{name} "
            "ORDER BY rowid"
        )
        for batch in answer.to_arrow_reader(ENTRY_ROWS):
            hashes, keys = joined(batch.column(0)), batch.column(1).to_pylist()
            note(connection, new_entry(commit_id, "found", name, hashes, keys))
            entered += len(keys)
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
    return {row["file_sha256"] for row in rows if row["file_sha256"] and row["kept"] is None}


def file_tombstones(
    connection: duckdb.DuckDBPyConnection, verifiers: Sequence[Verifier]
) -> dict[str, set[str]]:
    """By SHA-256 of a file, the keys (12 digits of a request id) of images erased with it."""
    found: dict[str, set[str]] = {}
    for row in _tombstones(connection, verifiers):
        if row["file_sha256"]:
            found.setdefault(row["file_sha256"], set()).add(row["row_key"])
    return found


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


def _types(
    connection: duckdb.DuckDBPyConnection, relation: str, schema: str = ""
) -> dict[str, Any]:
    """Columns of a relation, asked once a connection: the schema changes only as one is opened."""
    known = _known_types.setdefault(connection, {})
    if (relation, schema) not in known:
        known[relation, schema] = columns_of(connection, relation)
    return known[relation, schema]


_known_types: WeakKeyDictionary[Any, dict[tuple[str, str], dict[str, Any]]] = WeakKeyDictionary()
