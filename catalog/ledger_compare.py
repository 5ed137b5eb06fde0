"""Holds the rows of a table against the ledger's entries, and names how they differ.

Part of catalog/ledger_verify.py. As long as both agree, some thousand rows are in memory.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalog.ledger_entries import Entry, entries_of
from catalog.ledger_forms import RowForm, columns_of, row_form
from catalog.ledger_merkle import HASH_BYTES, hashes_in
from catalog.ledger_rows import Erasure, HashedRows, hashed_rows

if TYPE_CHECKING:
    import duckdb

NAMED = 1_000
"""Rows that are named, of each table; the others are counted."""
_MOVED = 20


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it was entered.

    `what` is changed, removed, added, reordered, forged or unreadable; `where` a table, the ledger,
    the checkpoints or a folder; `key` names the row, entry or file.
    """

    what: str
    where: str
    key: str
    detail: str = ""

    def __str__(self) -> str:
        tail = f": {self.detail}" if self.detail else ""
        return f"{self.what} {self.where} {self.key}{tail}"

    def as_json(self) -> dict[str, str]:
        """The same as plain JSON values."""
        return asdict(self)


def compared_table(
    connection: duckdb.DuckDBPyConnection, table: str, tombstones: Mapping[bytes, Erasure]
) -> tuple[int, list[Finding]]:
    """(Rows of raw.`table`, how they and its entries differ). Raises what DuckDB raises."""
    form = row_form(columns_of(connection, f"raw.{table}"))
    count = _agreed(connection, table, form, tombstones)
    if count is not None:
        return count, []
    entries = list(entries_of(connection, table))
    findings = [fault for entry in entries if (fault := _fault(entry))]
    blocks = list(hashed_rows(connection, f"raw.{table}", form, tombstones))
    actual = HashedRows(
        np.concatenate([block.rowids for block in blocks] or [np.empty(0, np.int64)]),
        b"".join(block.hashes for block in blocks),
    )
    found = _compared(connection, table, form, entries, actual)
    findings += found[:NAMED]
    if len(found) > NAMED:
        more = f"and {len(found) - NAMED:,} more rows"
        findings.append(Finding("changed", "table", table, more))
    return len(actual.rowids), findings


def _agreed(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    form: RowForm,
    tombstones: Mapping[bytes, Erasure],
) -> int | None:
    """How many rows a table has when all are as entered and no entry is at fault, else None."""
    entered, found, count = hashlib.sha256(), hashlib.sha256(), 0
    for entry in entries_of(connection, table):
        if _fault(entry):
            return None
        entered.update(entry.row_hashes)
    for block in hashed_rows(connection, f"raw.{table}", form, tombstones):
        found.update(block.hashes)
        count += len(block.rowids)
    return count if entered.digest() == found.digest() else None


def _fault(entry: Entry) -> Finding | None:
    fault = entry.faulty()
    key = f"commit {entry.commit_id} of table {entry.table}"
    return Finding("changed", "ledger", key, fault) if fault else None


def _compared(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    form: RowForm,
    entries: Sequence[Entry],
    actual: HashedRows,
) -> list[Finding]:
    """How the rows of a table differ from what was entered, a finding a row."""
    missing, extra, moved = _differences(
        b"".join(entry.row_hashes for entry in entries), actual.hashes
    )
    names = _Names(table, entries)
    keys = _keys(connection, table, form, actual.rowids[extra[:NAMED]].tolist())
    findings = []
    # A row that stands where another is missing was changed.
    common = {place - nth: place for nth, place in enumerate(missing)}
    for nth, place in enumerate(extra):
        now = keys.get(int(actual.rowids[place]), "")
        if (was := common.pop(place - nth, None)) is not None:
            detail = "" if now == names.key(was) else f"what stands there now is {now or '-'}"
            findings.append(Finding("changed", "row", names.at(was), detail))
        else:
            key = f"{table} {now or f'row {place + 1}'}"
            findings.append(Finding("added", "row", key, "no commit of the ledger has it"))
    findings += [Finding("removed", "row", names.at(place)) for place in common.values()]
    if moved:
        shown = ", ".join(names.at(place) for place in moved[:_MOVED])
        findings.append(Finding("reordered", "row", shown, f"{len(moved)} rows changed places"))
    return findings


def _keys(
    connection: duckdb.DuckDBPyConnection, table: str, form: RowForm, rowids: Sequence[int]
) -> dict[int, str]:
    """What names rows to people, by row id."""
    listed = ", ".join(map(str, rowids)) or "NULL"
    return dict(
        connection.execute(
            f"SELECT rowid, {form.row_key} FROM raw.{table} WHERE rowid IN ({listed})"
        ).fetchall()
    )


def _differences(want: bytes, have: bytes) -> tuple[list[int], list[int], list[int]]:
    """Places in `want` that are missing, in `have` that are extra, in `want` that moved.

    Both are hashes, one after the other.
    """
    first = _alike(_words(want), _words(have))
    rest = slice(HASH_BYTES * first, None)
    end = _alike(_words(want[rest])[::-1], _words(have[rest])[::-1])
    wanted, found = _middle(want, first, end), _middle(have, first, end)
    missing = _surplus(wanted, found, first)
    extra = _surplus(found, wanted, first)
    gone, come = set(missing), set(extra)
    left = [(at, one) for at, one in enumerate(wanted, start=first) if at not in gone]
    there = [one for at, one in enumerate(found, start=first) if at not in come]
    moved = [at for (at, one), other in zip(left, there, strict=True) if one != other]
    return missing, extra, moved


def _words(hashes: bytes) -> NDArray[np.uint64]:
    return np.frombuffer(hashes, np.uint64).reshape(-1, HASH_BYTES // 8)


def _alike(some: NDArray[Any], others: NDArray[Any]) -> int:
    """How many of the first hashes are the same."""
    count = min(len(some), len(others))
    differ = np.flatnonzero((some[:count] != others[:count]).any(axis=1))
    return int(differ[0]) if len(differ) else count


def _middle(hashes: bytes, first: int, end: int) -> list[bytes]:
    """The hashes from place `first` on, without the last `end`."""
    return hashes_in(hashes[HASH_BYTES * first : len(hashes) - HASH_BYTES * end])


def _surplus(those: Sequence[bytes], others: Sequence[bytes], first: int) -> list[int]:
    """Places of what `those` has more often than `others`, counted from `first`."""
    left = Counter(others)
    places = []
    for place, one in enumerate(those, start=first):
        if left[one]:
            left[one] -= 1
        else:
            places.append(place)
    return places


class _Names:
    """Names rows by their place among all rows that were entered of a table."""

    def __init__(self, table: str, entries: Sequence[Entry]) -> None:
        self.table = table
        self.entries = entries
        self.ends = np.cumsum([len(entry.row_hashes) // HASH_BYTES for entry in entries])

    def at(self, place: int) -> str:
        """Table, key, commit and place in it."""
        entry, inside = self._entry(place)
        when = f"{entry.entered_at:%Y-%m-%d %H:%M}"
        return (
            f"{self.table} {self.key(place) or '-'} "
            f"(row {inside + 1} of commit {entry.commit_id}, {when})"
        )

    def key(self, place: int) -> str:
        """What names the row to people."""
        entry, inside = self._entry(place)
        names = entry.names()
        return names[inside] if inside < len(names) else ""

    def _entry(self, place: int) -> tuple[Entry, int]:
        which = int(np.searchsorted(self.ends, place, side="right"))
        return self.entries[which], place - (int(self.ends[which - 1]) if which else 0)
