"""Verifies the whole ledger: checkpoints, entries, every row of every table; names what is wrong.

Reads a private copy of the metadata, so that it waits for nobody. Files of the store are the work
of catalog/ledger_files.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from catalog.lake import Lake, writing
from catalog.ledger import erasures
from catalog.ledger_checkpoints import peaks_of, recorded
from catalog.ledger_compare import Finding, compared_table
from catalog.ledger_entries import Entry, covered_tables, entered_tables, entries_of, leaves
from catalog.ledger_merkle import Peaks
from catalog.ledger_notes import Checkpoint, NoteError, Verifier, opened, torn_from
from catalog.ledger_rows import Erasure
from catalog.ledger_stamps import Stamps, check_stamps

if TYPE_CHECKING:
    import duckdb
    from cryptography import x509


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
    time_stamps: Stamps = field(default_factory=Stamps)
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
            "time_stamps": self.time_stamps.as_json(),
            "findings": [one.as_json() for one in self.findings],
        }


def verify_ledger(
    lake: Lake,
    verifiers: Sequence[Verifier],
    kept: Mapping[str, Sequence[str]] | None = None,
    authorities: Sequence[x509.Certificate] = (),
) -> Verification:
    """Hashes all rows again and compares them with entries, and these with signed checkpoints.

    `verifiers` are the log's keys, old ones too. `kept` are checkpoints that were kept outside the
    catalog, notes by where they were: what came before them cannot be forged even by who has the
    key. A place that is to have some and has none is a finding. `authorities` are roots of
    time-stamp authorities: stamps by others are counted apart.
    """
    connection = lake.connection
    findings: list[Finding] = []
    last, stamps = None, Stamps()
    log: list[Entry] = []
    signed = 0
    try:
        log = leaves(connection)
        notes = recorded(connection)
        signed = len(notes)
        last, trusted = _check_checkpoints(log, notes, verifiers, kept or {}, findings)
        stamps = check_stamps(trusted, authorities, findings)
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
        time_stamps=stamps,
        findings=tuple(findings),
    )


def _check_checkpoints(
    log: Sequence[Entry],
    notes: Sequence[tuple[int, bytes, str]],
    verifiers: Sequence[Verifier],
    kept: Mapping[str, Sequence[str]],
    findings: list[Finding],
) -> tuple[Checkpoint | None, list[tuple[str, Checkpoint]]]:
    """Signatures, their chain, and the log's root at each.

    Returns the last that holds, and all that are signed, by their names.
    """
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
        trusted.append((key, said))
    known = {said.digest for _, said in trusted}
    signed = {note for _, _, note in notes}
    for source, kept_notes in kept.items():
        # A writer that was stopped leaves a part of a note; the whole one is in the catalog.
        whole = [one for one in kept_notes if one in signed or not torn_from(one, signed)]
        if signed and not whole:
            detail = "a checkpoint is to be there, and is not"
            findings.append(Finding("removed", "checkpoint", f"kept in {source}", detail))
        for note in whole:
            try:
                said = opened(note, verifiers)
            except NoteError as error:
                findings.append(Finding("forged", "checkpoint", source, str(error)))
                continue
            if said.digest not in known:
                detail = f"the one of {said.time}, size {said.size}, is not in the catalog"
                findings.append(Finding("removed", "checkpoint", f"kept in {source}", detail))
            trusted.append((f"kept in {source}", said))
    if not trusted:
        findings.append(Finding("removed", "checkpoint", "all", "nothing is signed"))
    _check_roots(log, trusted, findings)
    return before, trusted


def _check_roots(
    log: Sequence[Entry], trusted: Sequence[tuple[str, Checkpoint]], findings: list[Finding]
) -> None:
    """The log's root at the size of each checkpoint. The first that fails tells where to look."""
    tree, held = Peaks(), 0
    for name, said in sorted(trusted, key=lambda one: one[1].size):
        if said.size > len(log):
            detail = f"checkpoint {name} signs {said.size} entries, the log has {len(log)}"
            findings.append(Finding("removed", "ledger", f"entries from {held}", detail))
            return
        tree = tree.grown([entry.leaf for entry in log[tree.size : said.size]])
        if tree.root != said.root:
            between = log[held : said.size]
            commits = sorted({entry.commit_id for entry in between})
            detail = (
                f"not as checkpoint {name} of {said.time} signs them: entries of {len(commits)} "
                f"commits were changed, removed, added or reordered"
            )
            where = f"entries {held}–{said.size - 1}"
            findings.append(Finding("changed", "ledger", where, detail))
            return
        held = said.size


def _check_rows(
    connection: duckdb.DuckDBPyConnection, verifiers: Sequence[Verifier], findings: list[Finding]
) -> tuple[int, int]:
    """Every row of every table against the entries; returns (rows, erased ones)."""
    entered: set[str] = set()
    tombstones: dict[bytes, Erasure] = {}
    try:
        entered = entered_tables(connection)
        tombstones = _valid(connection, erasures(connection, verifiers))
    except _errors() as error:
        findings.append(Finding("unreadable", "ledger", "", _first_line(error)))
    tables = covered_tables(connection)
    filled = _filled(connection, tables)
    rows = 0
    for name in sorted({*tables, *entered}):
        if name not in tables:
            findings.append(Finding("removed", "table", name, "the whole table is gone"))
            continue
        try:
            if name in entered or name in filled:
                count, found = compared_table(connection, name, tombstones)
                rows += count
                findings += found
        except _errors() as error:
            findings.append(Finding("unreadable", "table", name, _first_line(error)))
    return rows, len(tombstones)


def _valid(
    connection: duckdb.DuckDBPyConnection, signed: Mapping[bytes, Erasure]
) -> dict[bytes, Erasure]:
    """Without those that excuse a whole row which was not there before the ledger was.

    Only rows from before the ledger have no salt, and are excused whole.
    """
    whole = {one.original for one in signed.values() if one.remaining is not None}
    known: set[bytes] = set()
    if whole:
        for entry in entries_of(connection, kind="found"):
            known |= whole.intersection(entry.hashes())
    return {
        key: one for key, one in signed.items() if one.remaining is None or one.original in known
    }


def _filled(connection: duckdb.DuckDBPyConnection, tables: Sequence[str]) -> set[str]:
    """Tables that have rows: all of them when one cannot be read."""
    parts = [f"(SELECT '{name}' FROM raw.{name} LIMIT 1)" for name in tables]
    try:
        rows = connection.execute(" UNION ALL ".join(parts)).fetchall()
    except _errors():
        return set(tables)
    return {name for (name,) in rows}


def _check_views(lake: Lake, findings: list[Finding]) -> None:
    """What people read must be what this version of Platemark makes of the rows."""
    meant = _meant_views()
    found = _views(lake.connection)
    for name in sorted({*meant, *found}):
        if meant.get(name) != found.get(name):
            what = "added" if name not in meant else "changed" if name in found else "removed"
            detail = "it is not as this version of Platemark defines it"
            findings.append(Finding(what, "view", name, detail))


@cache
def _meant_views() -> dict[str, str]:
    with TemporaryDirectory() as folder, writing(Path(folder) / "catalog") as fresh:
        return _views(fresh.connection)


def _views(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    rows = connection.execute(
        "SELECT schema_name, view_name, sql FROM duckdb_views() WHERE database_name = 'lake'"
    ).fetchall()
    return {f"{schema}.{name}": sql for schema, name, sql in rows}


def _errors() -> tuple[type[Exception], ...]:
    """What DuckDB raises on damaged files, and Arrow on what it hands over."""
    import duckdb

    return (duckdb.Error, ValueError, OverflowError, TypeError)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
