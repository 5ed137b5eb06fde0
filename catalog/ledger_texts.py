"""Hashes the rows of a small Arrow table without SQL: a run's commits have some dozens of rows.

To plan the SELECT of catalog/ledger_forms.py takes longer than to hash them. Both give the same
bytes; what this one does not know is left to the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from catalog.ledger_forms import ERASABLE, KEY_LENGTH, KEYS, SALT, shape_of
from catalog.ledger_rows import column_salt, commitment

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

FEW = 500
"""Rows up to which this is the faster way."""
_WHOLE = frozenset(
    (
        *("tinyint", "smallint", "integer", "bigint"),
        *("utinyint", "usmallint", "uinteger", "ubigint"),
    )
)


def few_hashes(
    connection: duckdb.DuckDBPyConnection, table: pa.Table, types: Mapping[str, Any]
) -> tuple[bytes, list[str]] | None:
    """Hashes of the rows, 32 bytes each, one after the other, and their keys.

    `types` are the DuckDB types of the catalog's table. None when a column has another type than
    that, since INSERT would cast it, or one that is not known here.
    """
    names = sorted(set(types) & set(table.column_names))
    shapes = {name: shape_of(types[name]) for name in names}
    key = next((name for name in KEYS if name in names), None)
    known = all(_fits(table.schema.field(name).type, shapes[name]) for name in names)
    if not known or (key and shapes[key] == "blob"):
        return None
    values = {name: _plain(table.column(name), shapes[name]) for name in names}
    numbers: list[float] = []
    for name in names:
        for value in values[name]:
            _collect(value, shapes[name], numbers)
    said = _as_duckdb_writes(connection, numbers)
    texts = {name: [_text(each, shapes[name], said) for each in values[name]] for name in names}
    salts = texts.pop(SALT, [None] * len(table))
    body = [name for name in texts if shapes[name] != "blob" and name not in ERASABLE]
    tail = [name for name in texts if name not in body]
    hashes = []
    for at, salt in enumerate(salts):
        parts = [_part(name, text) for name in body if (text := texts[name][at]) is not None]
        parts += [
            _tail_part(name, value, salt) for name in tail if (value := texts[name][at]) is not None
        ]
        hashes.append(hashlib.sha256(b"\x00" + "".join(parts).encode()).digest())
    keys = [(text or "")[:KEY_LENGTH] for text in texts[key]] if key else [""] * len(table)
    return b"".join(hashes), keys


def _fits(kind: pa.DataType, shape: Any) -> bool:
    import pyarrow as pa

    t = pa.types
    if t.is_null(kind):
        return True
    if isinstance(shape, tuple):
        name, inner = shape
        if name == "list":
            return t.is_list(kind) and _fits(kind.value_type, inner)
        fields = dict(inner) if name == "struct" and t.is_struct(kind) else {}
        return (
            bool(fields)
            and {each.name for each in kind} == set(fields)
            and all(_fits(each.type, fields[each.name]) for each in kind)
        )
    if shape == "uuid":
        return getattr(kind, "extension_name", "") == "arrow.uuid"
    if shape == "timestamp with time zone":
        return t.is_timestamp(kind) and kind.unit == "us" and kind.tz is not None
    if shape in _WHOLE:
        return bool(t.is_integer(kind))
    plain = {
        "varchar": pa.string(),
        "json": pa.string(),
        "blob": pa.binary(),
        "double": pa.float64(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
    }
    return shape in plain and bool(kind == plain[shape])


def _plain(column: pa.ChunkedArray, shape: Any) -> list[Any]:
    """Python values; moments as microseconds since 1970."""
    import pyarrow as pa

    if shape == "timestamp with time zone":
        return list(column.cast(pa.int64()).to_pylist())
    return list(column.to_pylist())


def _collect(value: Any, shape: Any, into: list[float]) -> None:
    if shape == "double":
        if value is not None:
            into.append(value)
    elif isinstance(shape, tuple) and value is not None:
        for each, inner in _inside(value, shape):
            _collect(each, inner, into)


def _inside(value: Any, shape: tuple[str, Any]) -> Iterator[tuple[Any, Any]]:
    kind, inner = shape
    if kind == "list":
        return ((each, inner) for each in value)
    return ((value[name], each) for name, each in sorted(inner))


def _as_duckdb_writes(
    connection: duckdb.DuckDBPyConnection, numbers: Sequence[float]
) -> Iterator[str]:
    """Each number's text, in order. Python's differs: 1e16 is its own affair."""
    import pyarrow as pa

    if not numbers:
        return iter(())
    connection.register("numbers", pa.table({"x": pa.array(numbers, pa.float64())}))
    try:
        rows = connection.execute("SELECT x::VARCHAR FROM numbers").fetchall()
    finally:
        connection.unregister("numbers")
    return (text for (text,) in rows)


def _text(value: Any, shape: Any, numbers: Iterator[str]) -> Any:
    """A value's canonical text as catalog/ledger_forms.py has it; a BLOB stays as it is."""
    if value is None or shape in ("varchar", "json", "blob"):
        return value
    if isinstance(shape, tuple):
        inside = [_text(each, inner, numbers) for each, inner in _inside(value, shape)]
        if shape[0] == "list":
            each = ("-" if text is None else f"{_size(text)}:{text}" for text in inside)
            return f"[{','.join(each)}]"
        named = zip((name for name, _ in sorted(shape[1])), inside, strict=True)
        return f"{{{''.join(_part(name, text) for name, text in named if text is not None)}}}"
    if shape == "double":
        return next(numbers)
    if shape == "boolean":
        return "true" if value else "false"
    if shape == "uuid":
        return str(value if isinstance(value, UUID) else UUID(bytes=value))
    return str(value)


def _part(name: str, text: str) -> str:
    return f"{name}={_size(text)}:{text};"


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _tail_part(name: str, value: str | bytes, salt: bytes | None) -> str:
    data = value if isinstance(value, bytes) else value.encode()
    if salt is not None and name in ERASABLE:
        return f"{name}~{commitment(column_salt(salt, name), data).hex()};"
    if isinstance(value, bytes):
        return f"{name}#{hashlib.sha256(data).hexdigest()};"
    return _part(name, value)
