"""Ledger entries: which rows a commit appended, as a leaf of the log each, read in log order.

An entry covers up to 65,536 rows of one table and commits to them by a Merkle root of its own. The
order of the log is the order of commits, which DuckLake keeps in the row ids of the entries.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from catalog.ledger_merkle import HASH_BYTES, hashes_in, leaf_hash, merkle_root

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

ENTRY_ROWS = 65_536
"""Rows of one entry at most."""
NOT_COVERED = frozenset({"ledger_entries", "ledger_checkpoints", "schema_version"})
"""Tables that are not in the log: the log, what signs it, and the version of the software."""
_AT_ONCE = 64
_HEAD = "platemark ledger entry v1"


@dataclass(frozen=True)
class Entry:
    """One leaf. `kind` is `commit`, or `found`: rows that were there before the ledger was.

    `rows` counts rows of raw.`table`; `root` is the RFC 9162 root over their hashes; `row_hashes`
    are those, 32 bytes each, and `row_keys` text that names each row, a line a row.
    """

    commit_id: str
    kind: str
    table: str
    rows: int
    root: bytes
    entered_at: datetime
    keys_sha256: bytes
    row_hashes: bytes = field(default=b"", repr=False)
    row_keys: str = field(default="", repr=False)

    @property
    def text(self) -> str:
        """What is hashed as the leaf: eight lines, no NUL, UTF-8."""
        return "\n".join(
            (
                _HEAD,
                self.commit_id,
                self.kind,
                self.table,
                str(self.rows),
                self.entered_at.astimezone(UTC).isoformat(timespec="microseconds"),
                base64.b64encode(self.root).decode(),
                base64.b64encode(self.keys_sha256).decode(),
            )
        )

    @property
    def leaf(self) -> bytes:
        """The leaf's hash in the log."""
        return leaf_hash(self.text.encode())

    def hashes(self) -> list[bytes]:
        """The hashes of the rows, one each."""
        return hashes_in(self.row_hashes)

    def names(self) -> list[str]:
        """What names the rows, one each."""
        return self.row_keys.split("\n") if self.rows else []

    def faulty(self) -> str | None:
        """Why the entry contradicts itself, None when it does not."""
        if len(self.row_hashes) != HASH_BYTES * self.rows:
            return f"has {len(self.row_hashes) // HASH_BYTES} row hashes for {self.rows} rows"
        if merkle_root(self.row_hashes) != self.root:
            return "its row hashes do not give its root"
        if _keys_digest(self.row_keys) != self.keys_sha256:
            return "its row keys were changed"
        return None


def new_entry(
    commit_id: str, kind: str, table: str, row_hashes: bytes, keys: Sequence[str]
) -> Entry:
    """An entry over rows in the order in which they are inserted, by their hashes in one piece."""
    row_keys = "\n".join(key.replace("\n", " ") for key in keys)
    return Entry(
        commit_id,
        kind,
        table,
        len(keys),
        merkle_root(row_hashes),
        datetime.now(UTC),
        _keys_digest(row_keys),
        row_hashes,
        row_keys,
    )


def entry_from_text(text: str) -> Entry:
    """The entry that a leaf's text says, without its rows. Raises ValueError when it is none."""
    lines = text.split("\n")
    if len(lines) != 8 or lines[0] != _HEAD:
        raise ValueError("not a ledger entry")
    _, commit_id, kind, table, rows, moment, root, keys = lines
    found = Entry(
        commit_id,
        kind,
        table,
        int(rows),
        base64.b64decode(root, validate=True),
        datetime.fromisoformat(moment),
        base64.b64decode(keys, validate=True),
    )
    if found.text != text:
        raise ValueError("not a ledger entry in its canonical form")
    return found


def entries_table(entries: Sequence[Entry]) -> pa.Table:
    """Entries as rows of raw.ledger_entries, in order."""
    import pyarrow as pa

    text, blob = pa.string(), pa.binary()
    columns: dict[str, pa.Array] = {
        "commit_id": pa.array([one.commit_id for one in entries], text),
        "kind": pa.array([one.kind for one in entries], text),
        "table_name": pa.array([one.table for one in entries], text),
        "row_count": pa.array([one.rows for one in entries], pa.int64()),
        "root": pa.array([one.root for one in entries], blob),
        "entered_at": pa.array([one.entered_at for one in entries], pa.timestamp("us", tz="UTC")),
        "keys_sha256": pa.array([one.keys_sha256 for one in entries], blob),
        "row_hashes": pa.array([one.row_hashes for one in entries], blob),
        "row_keys": pa.array([one.row_keys for one in entries], text),
    }
    return pa.table(columns)


def leaves(connection: duckdb.DuckDBPyConnection, first: int = 0) -> list[Entry]:
    """Entries from place `first` on, in log order, without the hashes of their rows."""
    answer = connection.execute(
        f"SELECT {_COLUMNS} FROM raw.ledger_entries ORDER BY rowid OFFSET {int(first)}"
    )
    return [Entry(*row) for row in answer.fetchall()]


def entries_of(
    connection: duckdb.DuckDBPyConnection, table: str | None = None, kind: str | None = None
) -> Iterator[Entry]:
    """Entries with the hashes of their rows, in log order, a few at a time.

    Those of one table, of one kind, or all.
    """
    answer = connection.execute(
        f"SELECT {_COLUMNS}, row_hashes, row_keys FROM raw.ledger_entries "
        "WHERE table_name = coalesce($table, table_name) AND kind = coalesce($kind, kind) "
        "ORDER BY rowid",
        {"table": table, "kind": kind},
    )
    while block := answer.fetchmany(_AT_ONCE):
        yield from (Entry(*row) for row in block)


def entered_tables(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Names of the tables that entries are of."""
    rows = connection.execute("SELECT DISTINCT table_name FROM raw.ledger_entries").fetchall()
    return {name for (name,) in rows}


def covered_tables(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Names of all tables in schema raw that the ledger protects."""
    # duckdb_tables() looks up how large each one is: ten times as long.
    rows = connection.execute(
        "SELECT table_name FROM duckdb_columns() "
        "WHERE database_name = 'lake' AND schema_name = 'raw' "
        "EXCEPT SELECT view_name FROM duckdb_views() "
        "WHERE database_name = 'lake' AND schema_name = 'raw' ORDER BY 1"
    ).fetchall()
    return [name for (name,) in rows if name not in NOT_COVERED]


def tables_of_files(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Those of the covered tables that say which file (url, sha256) an image has."""
    rows = connection.execute(
        "SELECT table_name FROM duckdb_columns() "
        "WHERE database_name = 'lake' AND schema_name = 'raw' "
        "AND column_name IN ('url', 'sha256', 'request_id') GROUP BY ALL HAVING count(*) = 3"
    ).fetchall()
    files = {name for (name,) in rows}
    return [name for name in covered_tables(connection) if name in files]


_COLUMNS = "commit_id, kind, table_name, row_count, root, entered_at, keys_sha256"


def _keys_digest(row_keys: str) -> bytes:
    return hashlib.sha256(row_keys.encode()).digest()
