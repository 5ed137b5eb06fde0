"""Hashes of catalog rows: the same before and after Parquet, merges and added columns.

A row's bytes are its columns that are not NULL, by name; what law may require to erase enters as
a salted commitment, so that a value can go and the rest still verifies (docs/ledger.md).
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from catalog.ledger_merkle import leaf_hash

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa

SALT = "salt"
"""The column that makes a table's rows erasable: 16 random bytes a row, or an erasure's id."""
SALT_BYTES = 16
ERASABLE = frozenset(
    (
        *("error", "evidence", "fault", "file", "licensee", "manifest", "name", "negative_prompt"),
        *("note", "prompt", "prompt_sha256", "reason", "reasons", "recipe", "remedy"),
        *("removed_by", "reviewer", "rights_holder", "title"),
    )
)
"""Columns of tables with a salt that may hold personal data or somebody's work."""
KEYS = (
    *("request_id", "asset_sha256", "sha256", "pack_id", "run_id", "library", "review_id"),
    *("replay_id", "digest", "revision", "signature", "adapter", "attempt", "name"),
)
"""Columns that name a row to people; the first that the row has is kept beside its hash."""
KEY_LENGTH = 12
_BATCH_ROWS = 20_000


@dataclass(frozen=True)
class Erasure:
    """What a tombstone keeps of one erased row, enough to verify the rest of it.

    A row with a salt: `commitments` of the erased columns. A row without one (entered at an
    upgrade): its hash as it was entered, and as it is now.
    """

    commitments: Mapping[str, bytes]
    original: bytes
    remaining: bytes | None = None

    def as_json(self) -> str:
        """The same as JSON text, hashes in hex."""
        return json.dumps(
            {
                "commitments": {name: value.hex() for name, value in self.commitments.items()},
                "original": self.original.hex(),
                "remaining": self.remaining.hex() if self.remaining else None,
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
    )


@dataclass(frozen=True)
class HashedRows:
    """Rows in order: `rowids` int64 (n,), `hashes` 32 bytes each, `keys` text that names each."""

    rowids: np.ndarray[Any, np.dtype[np.int64]]
    hashes: list[bytes]
    keys: list[str]


@dataclass(frozen=True)
class RowForm:
    """A SELECT list that gives rows in their canonical parts.

    Columns of the answer: `body` text, `row_key` text, then (with a salt) the salt, then one for
    each of `tail`.
    """

    select: str
    tail: tuple[tuple[str, bool], ...]
    """Name, and whether it is a BLOB, of the columns that are hashed on their own, by name."""
    salted: bool


def salted(table: pa.Table) -> pa.Table:
    """The table with 16 random bytes in `salt` for each row."""
    import pyarrow as pa

    if SALT in table.column_names:
        table = table.drop_columns([SALT])
    noise = secrets.token_bytes(SALT_BYTES * len(table))
    values = [noise[at : at + SALT_BYTES] for at in range(0, len(noise), SALT_BYTES)]
    return table.append_column(SALT, pa.array(values, pa.binary()))


def columns_of(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, Any]:
    """Columns and DuckDB types of a table or a registered name."""
    found = connection.sql(f"FROM {relation} LIMIT 0")
    return dict(zip(found.columns, found.types, strict=True))


def row_form(types: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> RowForm:
    """How rows of a table with these column types are hashed.

    `given` are the columns of an incoming relation: those it lacks are NULL, and NULL does not
    count; those of another type are cast as INSERT casts them.
    """
    columns = []
    for name in sorted(types):
        if given is not None and name not in given:
            continue
        cast = given is not None and str(given[name]) != str(types[name])
        columns.append((name, _shape(types[name]), str(types[name]) if cast else None))
    return _row_form(tuple(columns))


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
    # A value in an erased place is a forgery: committing to it spoils the hash.
    for name, salt, value in kept_values(parts):
        made[name] = commitment(salt, value)
    return made


def kept_values(parts: Parts) -> list[tuple[str, bytes, bytes]]:
    """Column, its salt and its value, of each erasable value that a row with a salt still has.

    The `salt` of an erased row is the erasure's id, then the salts of these columns, by name.
    """
    salt = parts.salt or b""
    kept = [
        (name, value)
        for (name, _), value in zip(parts.tail, parts.values, strict=True)
        if value is not None and name in ERASABLE
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
    *,
    rowid: bool,
) -> Iterator[HashedRows]:
    """Rows of a relation, hashed in blocks of some 20,000, in the order that DuckDB gives them.

    DuckDB makes the text on all cores; OpenSSL hashes it, four times faster than DuckDB's sha256.
    With `rowid` the table's own row ids, otherwise places from 0.
    """
    import numpy as np

    first = "rowid" if rowid else "0::BIGINT AS rowid"
    answer = connection.execute(f"SELECT {first}, {form.select} FROM {relation}")
    seen = 0
    for batch in answer.to_arrow_reader(_BATCH_ROWS):
        ids = np.asarray(batch.column(0), np.int64) if rowid else np.arange(seen, seen + len(batch))
        seen += len(batch)
        yield HashedRows(ids, _hashes(batch, form, erasures), batch.column(2).to_pylist())


def _hashes(batch: Any, form: RowForm, erasures: Mapping[bytes, Erasure]) -> list[bytes]:
    if form.tail or form.salted:
        return [row_hash(parts, erasures) for parts in row_parts(batch, form)]
    sha256 = hashlib.sha256
    return [sha256(b"\x00" + body.encode()).digest() for body in batch.column(1).to_pylist()]


@lru_cache(maxsize=256)
def _row_form(columns: tuple[tuple[str, Any, str | None], ...]) -> RowForm:
    names = {name for name, _, _ in columns}
    is_salted = SALT in names
    apart = is_salted or any(shape == "blob" for _, shape, _ in columns)
    body: list[str] = []
    plain_tail: list[str] = []
    tail: list[tuple[str, bool]] = []
    values: list[str] = []
    for name, shape, cast in columns:
        value = _quoted(name) if cast is None else f"CAST({_quoted(name)} AS {cast})"
        is_blob = shape == "blob"
        if name == SALT:
            continue
        if not is_blob and name not in ERASABLE:
            body.append(_part(name, _text(value, shape, 0)))
        elif apart:
            tail.append((name, is_blob))
            values.append(value if is_blob else f"encode({_text(value, shape, 0)})")
        else:
            plain_tail.append(_part(name, _text(value, shape, 0)))
    body += plain_tail
    text = f"concat({', '.join(body)})" if body else "''"
    named = [name for name in KEYS if name in names]
    key = f"CAST({_quoted(named[0])} AS VARCHAR)" if named else "''"
    parts = [f"{text} AS body", f"left(coalesce({key}, ''), {KEY_LENGTH}) AS row_key"]
    parts += [_quoted(SALT)] if is_salted else []
    parts += [f"{value} AS part{at}" for at, value in enumerate(values)]
    return RowForm(", ".join(parts), tuple(tail), is_salted)


def _part(name: str, text: str) -> str:
    """`name=bytes:text;`; NULL when the value is, which concat leaves out."""
    head = f"{name}=".replace("'", "''")
    return f"'{head}' || strlen({text}) || ':' || {text} || ';'"


def _shape(kind: Any) -> Any:
    """A DuckDB type as plain data: its id, with the shapes of what it holds."""
    if kind.id in ("list", "array"):
        return ("list", _shape(kind.children[0][1]))
    if kind.id == "struct":
        return ("struct", tuple((name, _shape(child)) for name, child in kind.children))
    if kind.id == "map":
        (_, key), (_, value) = kind.children
        return ("map", (("key", _shape(key)), ("value", _shape(value))))
    return kind.id


def _text(value: str, shape: Any, depth: int) -> str:
    """SQL for a value's canonical text; NULL stays NULL, everything else is told apart."""
    if isinstance(shape, tuple):
        kind, inner = shape
        if kind == "map":
            return _text(f"map_entries({value})", ("list", ("struct", inner)), depth)
        if kind == "list":
            each = f"x{depth}"
            text = _text(each, inner, depth + 1)
            one = f"coalesce(strlen({text}) || ':' || {text}, '-')"
            listed = f"array_to_string(list_transform({value}, lambda {each}: {one}), ',')"
            return f"('[' || {listed} || ']')"
        fields = [
            _part(name, _text(f"struct_extract({value}, '{_escaped(name)}')", child, depth))
            for name, child in sorted(inner)
        ]
        text = f"concat('{{', {', '.join(fields)}, '}}')"
        return f"CASE WHEN {value} IS NULL THEN NULL ELSE {text} END"
    if shape == "varchar":
        return f"{value}::VARCHAR"
    if shape in ("float", "double"):
        # -0.0 and 0.0 differ, all NaN are one; the text is the shortest that reads back the same.
        return f"{value}::DOUBLE::VARCHAR"
    if shape == "blob":
        return f"hex({value})"
    if shape in ("timestamp with time zone", "timestamp"):
        return f"epoch_us({value})::VARCHAR"
    return f"{value}::VARCHAR"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _escaped(name: str) -> str:
    return name.replace("'", "''")
