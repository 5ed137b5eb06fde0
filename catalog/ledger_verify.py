"""Verifies the whole ledger: checkpoints, entries, every row of every table; names what is wrong.

Reads a private copy of the metadata, so that it waits for nobody. Files of the store are the work
of catalog/ledger_files.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog.lake import Lake, writing
from catalog.ledger import erasures
from catalog.ledger_checkpoints import peaks_of, recorded
from catalog.ledger_entries import Entry, covered_tables, leaves, whole_entries
from catalog.ledger_merkle import Peaks
from catalog.ledger_notes import Checkpoint, NoteError, Verifier, opened
from catalog.ledger_rows import Erasure, HashedRows, columns_of, hashed_rows, row_form

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


@dataclass(frozen=True)
class Verification:
    """The answer. `open_entries` came after the last checkpoint: nobody has signed them yet.

    `found_rows` were there before the ledger was; `erased_rows` have a tombstone.
    """

    rows: int
    entries: int
    checkpoints: int
    open_entries: int
    found_rows: int
    erased_rows: int
    last: Checkpoint | None
    files: int = 0
    findings: tuple[Finding, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Nothing is wrong, and there is a checkpoint to say so."""
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        last = self.last and {
            "size": self.last.size,
            "time": self.last.time,
            "occasion": self.last.occasion,
        }
        return {
            **{name: value for name, value in asdict(self).items() if name != "last"},
            "ok": self.ok,
            "last": last,
            "findings": [asdict(one) for one in self.findings],
        }


def verify_ledger(
    lake: Lake, verifiers: Sequence[Verifier], kept: Mapping[str, Sequence[str]] | None = None
) -> Verification:
    """Hashes all rows again and compares them with entries, and these with signed checkpoints.

    `verifiers` are the log's keys, old ones too. `kept` are checkpoints that were kept outside the
    catalog, notes by where they were: what came before them cannot be forged even by who has the
    key.
    """
    connection = lake.connection
    findings: list[Finding] = []
    last = None
    log: list[Entry] = []
    signed = 0
    try:
        log = leaves(connection)
        notes = recorded(connection)
        signed = len(notes)
        last = _check_checkpoints(log, notes, verifiers, kept or {}, findings)
    except _errors() as error:
        findings.append(Finding("unreadable", "ledger", "", _first_line(error)))
    rows, erased = _check_rows(connection, verifiers, findings)
    _check_views(lake, findings)
    return Verification(
        rows=rows,
        entries=len(log),
        checkpoints=signed,
        open_entries=max(0, len(log) - (last.size if last else 0)),
        found_rows=sum(entry.rows for entry in log if entry.kind == "found"),
        erased_rows=erased,
        last=last,
        findings=tuple(findings),
    )


def _check_checkpoints(
    log: Sequence[Entry],
    notes: Sequence[tuple[int, bytes, str]],
    verifiers: Sequence[Verifier],
    kept: Mapping[str, Sequence[str]],
    findings: list[Finding],
) -> Checkpoint | None:
    """Signatures, their chain, and the log's root at each; returns the last that holds."""
    trusted: list[tuple[str, Checkpoint]] = []
    before: Checkpoint | None = None
    for place, (size, peaks, note) in enumerate(notes, start=1):
        key = f"{place} (size {size})"
        try:
            said = opened(note, verifiers)
        except NoteError as error:
            findings.append(Finding("forged", "checkpoint", key, str(error)))
            continue
        tree = peaks_of(size, peaks)
        if tree is None or (said.size, said.root) != (size, tree.root):
            findings.append(Finding("changed", "checkpoint", key, "its tree is not what it signs"))
        same_key = before if before and before.origin == said.origin else None
        if said.previous != (same_key.digest if same_key else ""):
            detail = "the checkpoint before it is not the one that it names"
            findings.append(Finding("removed", "checkpoint", f"before {key}", detail))
        before = said
        trusted.append((f"checkpoint {key}", said))
    known = {said.digest for _, said in trusted}
    for source, kept_notes in kept.items():
        for note in kept_notes:
            try:
                said = opened(note, verifiers)
            except NoteError as error:
                findings.append(Finding("forged", "checkpoint", source, str(error)))
                continue
            if said.digest not in known:
                detail = f"the one of {said.time}, size {said.size}, is not in the catalog"
                findings.append(Finding("removed", "checkpoint", f"kept in {source}", detail))
            trusted.append((f"checkpoint kept in {source}", said))
    if not trusted:
        findings.append(Finding("removed", "checkpoint", "all", "nothing is signed"))
    _check_roots(log, trusted, findings)
    return before


def _check_roots(
    log: Sequence[Entry], trusted: Sequence[tuple[str, Checkpoint]], findings: list[Finding]
) -> None:
    """The log's root at the size of each checkpoint. The first that fails tells where to look."""
    tree, held = Peaks(), 0
    for name, said in sorted(trusted, key=lambda one: one[1].size):
        if said.size > len(log):
            detail = f"{name} signs {said.size} entries, the log has {len(log)}"
            findings.append(Finding("removed", "ledger", f"entries from {held}", detail))
            return
        tree = tree.grown([entry.leaf for entry in log[tree.size : said.size]])
        if tree.root != said.root:
            between = log[held : said.size]
            commits = sorted({entry.commit_id for entry in between})
            detail = (
                f"not as {name} of {said.time} signs them: entries of {len(commits)} commits were "
                f"changed, removed, added or reordered"
            )
            where = f"entries {held}–{said.size - 1}"
            findings.append(Finding("changed", "ledger", where, detail))
            return
        held = said.size


def _check_rows(
    connection: duckdb.DuckDBPyConnection, verifiers: Sequence[Verifier], findings: list[Finding]
) -> tuple[int, int]:
    """Every row of every table against the entries; returns (rows, erased ones)."""
    expected: dict[str, list[Entry]] = {}
    tombstones: dict[bytes, Erasure] = {}
    try:
        for entry in whole_entries(connection):
            if fault := entry.faulty():
                key = f"commit {entry.commit_id} of table {entry.table}"
                findings.append(Finding("changed", "ledger", key, fault))
            expected.setdefault(entry.table, []).append(entry)
        found_hashes = {
            one
            for entries in expected.values()
            for entry in entries
            if entry.kind == "found"
            for one in entry.hashes()
        }
        # Only rows from before the ledger have no salt, and are excused whole.
        tombstones = {
            key: one
            for key, one in erasures(connection, verifiers).items()
            if one.remaining is None or one.original in found_hashes
        }
    except _errors() as error:
        findings.append(Finding("unreadable", "ledger", "", _first_line(error)))
    tables = covered_tables(connection)
    rows = 0
    for name in sorted({*tables, *expected}):
        if name not in tables:
            findings.append(Finding("removed", "table", name, "the whole table is gone"))
            continue
        try:
            actual = _all_rows(connection, name, tombstones)
        except _errors() as error:
            findings.append(Finding("unreadable", "table", name, _first_line(error)))
            continue
        rows += len(actual.hashes)
        found = compared(name, expected.get(name, []), actual)
        findings += found[:NAMED]
        if len(found) > NAMED:
            more = f"and {len(found) - NAMED:,} more rows"
            findings.append(Finding("changed", "table", name, more))
    return rows, len(tombstones)


def _check_views(lake: Lake, findings: list[Finding]) -> None:
    """What people read must be what this version of Platemark makes of the rows."""
    with TemporaryDirectory() as folder, writing(Path(folder) / "catalog") as fresh:
        meant = _views(fresh.connection)
    found = _views(lake.connection)
    for name in sorted({*meant, *found}):
        if meant.get(name) != found.get(name):
            what = "added" if name not in meant else "changed" if name in found else "removed"
            detail = "it is not as this version of Platemark defines it"
            findings.append(Finding(what, "view", name, detail))


def _views(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    rows = connection.execute(
        "SELECT schema_name, view_name, sql FROM duckdb_views() WHERE database_name = 'lake'"
    ).fetchall()
    return {f"{schema}.{name}": sql for schema, name, sql in rows}


def _all_rows(
    connection: duckdb.DuckDBPyConnection, name: str, tombstones: Mapping[bytes, Erasure]
) -> HashedRows:
    """All rows of a table in the order in which they were inserted."""
    form = row_form(columns_of(connection, f"raw.{name}"))
    blocks = list(hashed_rows(connection, f"raw.{name}", form, tombstones, rowid=True))
    if not blocks:
        return HashedRows(np.empty(0, np.int64), [], [])
    rowids = np.concatenate([block.rowids for block in blocks])
    hashes = [one for block in blocks for one in block.hashes]
    keys = [one for block in blocks for one in block.keys]
    if bool((rowids[1:] > rowids[:-1]).all()):
        return HashedRows(rowids, hashes, keys)
    order = np.argsort(rowids, kind="stable")
    return HashedRows(rowids[order], [hashes[at] for at in order], [keys[at] for at in order])


def compared(table: str, entries: Sequence[Entry], actual: HashedRows) -> list[Finding]:
    """How the rows of a table differ from what was entered, a finding a row."""
    want = [one for entry in entries for one in entry.hashes()]
    have = actual.hashes
    if want == have:
        return []
    missing, extra, moved = _differences(want, have)
    names = _Names(table, entries)
    findings = []
    # A row that stands where another is missing was changed.
    common = {place - nth: place for nth, place in enumerate(missing)}
    for nth, place in enumerate(extra):
        if (was := common.pop(place - nth, None)) is not None:
            now = actual.keys[place]
            detail = "" if now == names.key(was) else f"what stands there now is {now or '-'}"
            findings.append(Finding("changed", "row", names.at(was), detail))
        else:
            key = f"{table} {actual.keys[place] or f'row {place + 1}'}"
            findings.append(Finding("added", "row", key, "no commit of the ledger has it"))
    findings += [Finding("removed", "row", names.at(place)) for place in common.values()]
    if moved:
        shown = ", ".join(names.at(place) for place in moved[:_MOVED])
        findings.append(Finding("reordered", "row", shown, f"{len(moved)} rows changed places"))
    return findings


def _differences(
    want: Sequence[bytes], have: Sequence[bytes]
) -> tuple[list[int], list[int], list[int]]:
    """Places in `want` that are missing, in `have` that are extra, in `want` that moved."""
    first = 0
    while first < min(len(want), len(have)) and want[first] == have[first]:
        first += 1
    end = 0
    while end < min(len(want), len(have)) - first and want[-1 - end] == have[-1 - end]:
        end += 1
    missing = _surplus(want[first : len(want) - end], have[first : len(have) - end], first)
    extra = _surplus(have[first : len(have) - end], want[first : len(want) - end], first)
    gone, come = set(missing), set(extra)
    rest = [at for at in range(first, len(want) - end) if at not in gone]
    left = [have[at] for at in range(first, len(have) - end) if at not in come]
    moved = [at for at, one in zip(rest, left, strict=True) if want[at] != one]
    return missing, extra, moved


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
        self.ends = np.cumsum([len(entry.row_hashes) // 32 for entry in entries])

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


def _errors() -> tuple[type[Exception], ...]:
    """What DuckDB raises on damaged files, and Arrow on what it hands over."""
    import duckdb

    return (duckdb.Error, ValueError, OverflowError, TypeError)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
