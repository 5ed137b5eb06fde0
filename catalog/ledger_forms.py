"""Rows as SQL: the SELECT lists that give a row its canonical text, or the hash of that at once.

DuckDB hashes whole tables on all cores; catalog/ledger_rows.py says the same in Python, for single
rows: those that were erased in part, and those that a proof shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

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


@dataclass(frozen=True)
class RowForm:
    """SQL for the rows of one table.

    `select` gives a row in parts: `body` text, `row_key` text, then (with a salt) the salt, then a
    column for each of `tail`. `digest` is one expression, the row's hash (BLOB, 32 bytes): that of
    `row_hash` for every row of which nothing was erased.
    """

    select: str
    digest: str
    row_key: str
    tail: tuple[tuple[str, bool], ...]
    """Name, and whether it is a BLOB, of the columns that are hashed on their own, by name."""
    salted: bool


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
        columns.append((name, shape_of(types[name]), str(types[name]) if cast else None))
    return _row_form(tuple(columns))


def canonical_text(value: str, kind: Any) -> str:
    """SQL for the canonical text of an SQL expression of this DuckDB type."""
    return _text(value, shape_of(kind), 0)


@lru_cache(maxsize=256)
def _row_form(columns: tuple[tuple[str, Any, str | None], ...]) -> RowForm:
    names = {name for name, _, _ in columns}
    is_salted = SALT in names
    apart = is_salted or any(shape == "blob" for _, shape, _ in columns)
    body: list[str] = []
    plain_tail: list[str] = []
    tail: list[tuple[str, bool]] = []
    values: list[str] = []
    hashed: list[str] = []
    for name, shape, cast in columns:
        value = _quoted(name) if cast is None else f"CAST({_quoted(name)} AS {cast})"
        is_blob = shape == "blob"
        if name == SALT:
            continue
        text = value if is_blob else _text(value, shape, 0)
        if not is_blob and name not in ERASABLE:
            body.append(_part(name, text))
        elif apart:
            tail.append((name, is_blob))
            values.append(value if is_blob else f"encode({text})")
            hashed.append(_hashed_part(name, text, is_blob, is_salted))
        else:
            plain_tail.append(_part(name, text))
    body += plain_tail
    text = f"concat({', '.join(body)})" if body else "''"
    whole = f"concat({', '.join([*body, *hashed])})" if body or hashed else "''"
    # A leaf of RFC 9162: SHA-256(0x00 || row).
    digest = f"unhex(sha256('\\x00'::BLOB || encode({whole})))"
    named = [name for name in KEYS if name in names]
    key = f"CAST({_quoted(named[0])} AS VARCHAR)" if named else "''"
    row_key = f"left(coalesce({key}, ''), {KEY_LENGTH})"
    parts = [f"{text} AS body", f"{row_key} AS row_key"]
    parts += [_quoted(SALT)] if is_salted else []
    parts += [f"{value} AS part{at}" for at, value in enumerate(values)]
    return RowForm(", ".join(parts), digest, row_key, tuple(tail), is_salted)


def _hashed_part(name: str, text: str, is_blob: bool, is_salted: bool) -> str:
    """A part that can be erased as its salted commitment, a BLOB as its hash; NULL when it is."""
    plain = f"'{_escaped(name)}#' || sha256({text}) || ';'" if is_blob else _part(name, text)
    if not is_salted or name not in ERASABLE:
        return plain
    salt = f"unhex(sha256({_quoted(SALT)} || '{_escaped(name)}'::BLOB))"
    value = text if is_blob else f"encode({text})"
    committed = f"'{_escaped(name)}~' || sha256({salt} || {value}) || ';'"
    return f"CASE WHEN {_quoted(SALT)} IS NULL THEN {plain} ELSE {committed} END"


def _part(name: str, text: str) -> str:
    """`name=bytes:text;`; NULL when the value is, which concat leaves out."""
    head = f"{name}=".replace("'", "''")
    return f"'{head}' || strlen({text}) || ':' || {text} || ';'"


def shape_of(kind: Any) -> Any:
    """A DuckDB type as plain data: its id, with the shapes of what it holds."""
    if kind.id in ("list", "array"):
        return ("list", shape_of(kind.children[0][1]))
    if kind.id == "struct":
        return ("struct", tuple((name, shape_of(child)) for name, child in kind.children))
    if kind.id == "map":
        (_, key), (_, value) = kind.children
        return ("map", (("key", shape_of(key)), ("value", shape_of(value))))
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
