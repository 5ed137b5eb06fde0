"""Hashes of catalog rows: the same before and after Parquet, merges and added columns.

A row's bytes are its columns that are not NULL, by name; what law may require to erase enters as
a salted commitment, so that a value can go and the rest still verifies (docs/ledger.md).
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from catalog.ledger_forms import ERASABLE, SALT, SALT_BYTES, RowForm
from catalog.ledger_merkle import HASH_BYTES, leaf_hash

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa

_BATCH_ROWS = 20_000


@dataclass(frozen=True)
class Erasure:
    """What a tombstone keeps of one erased row, enough to verify the rest of it.

    A row with a salt: `commitments` of the columns of which something was erased, as they were
    entered; `redacted` are those of them that still have a value, the SHA-256 of what it is now.
    A row without a salt (entered at an upgrade): its hash as it was entered, and as it is now.
    """

    commitments: Mapping[str, bytes]
    original: bytes
    remaining: bytes | None = None
    redacted: Mapping[str, bytes] = field(default_factory=dict)

    def as_json(self) -> str:
        """The same as JSON text, hashes in hex."""
        return json.dumps(
            {
                "commitments": {name: value.hex() for name, value in self.commitments.items()},
                "original": self.original.hex(),
                "remaining": self.remaining.hex() if self.remaining else None,
                "redacted": {name: value.hex() for name, value in self.redacted.items()},
            },
            sort_keys=True,
        )


def erasure_from_json(text: str) -> Erasure:
    """What `as_json` wrote. Raises ValueError or KeyError when it is something else."""
    found = json.loads(text)
    return Erasure(
        {name: bytes.fromhex(value) for name, value in found["commitments"].items()},
        bytes.fromhex(found["original"]),
        bytes.fromhex(found["remaining"]) if found["remaining"] else None,
        {name: bytes.fromhex(value) for name, value in found.get("redacted", {}).items()},
    )


@dataclass(frozen=True)
class HashedRows:
    """Rows in order: `rowids` int64 (n,), `hashes` 32 bytes each, one after the other."""

    rowids: np.ndarray[Any, np.dtype[np.int64]]
    hashes: bytes


def salted(table: pa.Table) -> pa.Table:
    """The table with 16 random bytes in `salt` for each row."""
    import pyarrow as pa

    if SALT in table.column_names:
        table = table.drop_columns([SALT])
    noise = secrets.token_bytes(SALT_BYTES * len(table))
    values = [noise[at : at + SALT_BYTES] for at in range(0, len(noise), SALT_BYTES)]
    return table.append_column(SALT, pa.array(values, pa.binary()))


def column_salt(salt: bytes, column: str) -> bytes:
    """The salt of one column: SHA-256(salt || column name); it says nothing of the others'."""
    return hashlib.sha256(salt + column.encode()).digest()


def commitment(salt: bytes, value: bytes) -> bytes:
    """SHA-256(column salt || value): shows the value to who has both, hides it from others."""
    return hashlib.sha256(salt + value).digest()


@dataclass(frozen=True)
class Parts:
    """One row in its canonical parts, as a RowForm's SELECT gives them."""

    body: bytes
    tail: tuple[tuple[str, bool], ...]
    values: Sequence[bytes | None]
    """One for each of `tail`."""
    salt: bytes | None

    @property
    def named(self) -> list[tuple[str, bytes]]:
        """Name and value of those that are not NULL."""
        pairs = zip(self.tail, self.values, strict=True)
        return [(name, value) for (name, _), value in pairs if value is not None]


def row_hash(parts: Parts, erasures: Mapping[bytes, Erasure]) -> bytes:
    """The leaf hash of one row (RFC 9162) from its canonical parts.

    An erased row whose parts do not fit its tombstone gets a hash that is in no ledger.
    """
    found = leaf_hash(row_text(parts, erasures))
    erased = erasure_of(parts, erasures)
    return erased.original if erased and found == erased.remaining else found


def erasure_of(parts: Parts, erasures: Mapping[bytes, Erasure]) -> Erasure | None:
    """The tombstone of a row that was erased in part."""
    return erasures.get(parts.salt[:SALT_BYTES]) if parts.salt else None


def row_text(parts: Parts, erasures: Mapping[bytes, Erasure]) -> bytes:
    """A row's canonical bytes: its body, then by name what is hashed on its own.

    `name=length:text;` a value, `name#sha256;` a BLOB, `name~commitment;` what can be erased.
    """
    made = commitments_of(parts, erasure_of(parts, erasures))
    text = [parts.body]
    for (name, is_blob), value in zip(parts.tail, parts.values, strict=True):
        if name in made:
            text.append(b"%s~%s;" % (name.encode(), made[name].hex().encode()))
        elif value is None:
            continue
        elif is_blob:
            digest = hashlib.sha256(value).hexdigest()
            text.append(b"%s#%s;" % (name.encode(), digest.encode()))
        else:
            text.append(b"%s=%d:%s;" % (name.encode(), len(value), value))
    return b"".join(text)


def commitments_of(parts: Parts, erased: Erasure | None) -> dict[str, bytes]:
    """The commitment to each erasable value that a row has or had, by column."""
    if parts.salt is None or (erased and erased.remaining):
        return {}
    made = dict(erased.commitments) if erased else {}
    redacted = erased.redacted if erased else {}
    named = parts.named if redacted else ()
    now = {name: hashlib.sha256(value).digest() for name, value in named}
    for name, digest in redacted.items():
        if now.get(name) != digest:
            # Not what the tombstone left there: a commitment to nothing spoils the hash.
            made[name] = bytes(HASH_BYTES)
    # A value in an erased place is a forgery: committing to it spoils the hash.
    for name, salt, value in kept_values(parts, redacted):
        made[name] = commitment(salt, value)
    return made


def kept_values(parts: Parts, redacted: Mapping[str, bytes]) -> list[tuple[str, bytes, bytes]]:
    """Column, its salt and its value, of each erasable value that is whole, in a row with a salt.

    The `salt` of an erased row is the erasure's id, then the salts of these columns, by name.
    """
    salt = parts.salt or b""
    kept = [
        (name, value) for name, value in parts.named if name in ERASABLE and name not in redacted
    ]
    if len(salt) == SALT_BYTES:
        return [(name, column_salt(salt, name), value) for name, value in kept]
    return [
        (name, salt[SALT_BYTES + 32 * at : SALT_BYTES + 32 * at + 32], value)
        for at, (name, value) in enumerate(kept)
    ]


def row_parts(batch: Any, form: RowForm) -> list[Parts]:
    """The rows of one Arrow batch of `SELECT rowid, {form.select}`."""
    bodies = [value.encode() for value in batch.column(1).to_pylist()]
    salts = batch.column(3).to_pylist() if form.salted else [None] * len(bodies)
    first = 4 if form.salted else 3
    columns = [batch.column(first + at).to_pylist() for at in range(len(form.tail))]
    rows = zip(*columns, strict=True) if columns else [()] * len(bodies)
    return [
        Parts(body, form.tail, values, salt)
        for body, salt, values in zip(bodies, salts, rows, strict=True)
    ]


def hashed_rows(
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    form: RowForm,
    erasures: Mapping[bytes, Erasure],
) -> Iterator[HashedRows]:
    """Rows of a table in the order of their row ids, in blocks of some 20,000 that DuckDB hashes.

    What was erased in part is hashed here, by its tombstones.
    """
    import numpy as np

    own = _hashed_by_tombstone(connection, relation, form, erasures) if form.salted else {}
    odd = np.asarray(sorted(own), np.int64)
    answer = connection.execute(
        f"SELECT rowid, {form.digest} AS digest FROM {relation} ORDER BY rowid"
    )
    for batch in answer.to_arrow_reader(_BATCH_ROWS):
        rowids = np.asarray(batch.column(0), np.int64)
        hashes = joined(batch.column(1))
        if len(odd):
            places = np.flatnonzero(np.isin(rowids, odd))
            changed = bytearray(hashes)
            for at in places:
                changed[HASH_BYTES * at : HASH_BYTES * (at + 1)] = own[int(rowids[at])]
            hashes = bytes(changed)
        yield HashedRows(rowids, hashes)


def incoming_hashes(
    connection: duckdb.DuckDBPyConnection, relation: str, form: RowForm
) -> tuple[bytes, list[str]]:
    """Hashes, one after the other, and keys of the rows of a registered Arrow table, in order."""
    table = connection.execute(
        f"SELECT {form.digest} AS digest, {form.row_key} AS row_key FROM {relation}"
    ).to_arrow_table()
    digests = table.column(0)
    return b"".join(map(joined, digests.chunks)), table.column(1).to_pylist()


def _hashed_by_tombstone(
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    form: RowForm,
    erasures: Mapping[bytes, Erasure],
) -> dict[int, bytes]:
    """The hashes of rows whose salt is no longer the one that they were entered with, by row id."""
    ids = ", ".join(f"unhex('{one.hex()}')" for one in erasures)
    known = f" OR {SALT} IN ({ids})" if ids else ""
    odd = f"FROM {relation} WHERE octet_length({SALT}) <> {SALT_BYTES}{known}"
    # Mostly there are none, and the rows' parts take long to plan.
    if not connection.execute(f"SELECT 1 {odd} LIMIT 1").fetchone():
        return {}
    answer = connection.execute(f"SELECT rowid, {form.select} {odd}")
    return {
        rowid: row_hash(parts, erasures)
        for batch in answer.to_arrow_reader(_BATCH_ROWS)
        for rowid, parts in zip(batch.column(0).to_pylist(), row_parts(batch, form), strict=True)
    }


def joined(digests: pa.Array) -> bytes:
    """The bytes of an Arrow array of BLOBs of 32 bytes without NULLs, one after the other."""
    import pyarrow as pa

    fixed = digests.cast(pa.binary(HASH_BYTES))
    start = HASH_BYTES * fixed.offset
    return bytes(fixed.buffers()[1][start : start + HASH_BYTES * len(fixed)])
