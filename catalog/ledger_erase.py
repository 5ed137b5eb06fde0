"""Erases what law requires to go, for good, and leaves a tombstone: the rest still verifies.

The value leaves the row, older Parquet files, and the metadata's statistics; its commitment, which
says nothing without the salt, stays in the log.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.lake import Lake, patiently, writing
from catalog.ledger import append_rows, erasure_statement, erasures, place_of
from catalog.ledger_checkpoints import write_checkpoint
from catalog.ledger_entries import covered_tables
from catalog.ledger_notes import Signer, signer_in
from catalog.ledger_rows import (
    ERASABLE,
    SALT,
    SALT_BYTES,
    Erasure,
    Parts,
    columns_of,
    commitments_of,
    erasure_of,
    kept_values,
    row_form,
    row_hash,
    row_parts,
)
from catalog.metadata import METADATA
from pipeline.errors import Fault, InputError, SetupError
from pipeline.settings import Settings
from pipeline.store import path_of

if TYPE_CHECKING:
    import duckdb

# In a process of its own: see catalog/metadata.py. Statistics keep the least and greatest value of
# a column, and SQLite keeps deleted bytes in free pages until it is packed anew.
_SCRUB = """
import json, sqlite3, sys
lake = sqlite3.connect(sys.argv[1], timeout=120)
for table, column in json.loads(sys.argv[2]):
    lake.execute(
        "UPDATE ducklake_table_column_stats SET min_value = NULL, max_value = NULL "
        "WHERE (table_id, column_id) IN (WITH RECURSIVE inside(table_id, column_id) AS ("
        "SELECT c.table_id, c.column_id FROM ducklake_column c "
        "JOIN ducklake_table t USING (table_id) WHERE t.table_name = ? AND c.column_name = ? "
        "UNION SELECT k.table_id, k.column_id FROM ducklake_column k JOIN inside "
        "ON k.table_id = inside.table_id AND k.parent_column = inside.column_id) "
        "SELECT table_id, column_id FROM inside)",
        (table, column))
lake.commit()
lake.execute("VACUUM")
"""


@dataclass(frozen=True)
class Erased:
    """What was erased: rows by table, columns, files. `snapshots`: "as of" ends at this moment."""

    rows: Mapping[str, int]
    columns: tuple[str, ...]
    files: tuple[str, ...]


def erase(
    settings: Settings,
    key: Mapping[str, Any],
    *,
    reason: str,
    by: str,
    columns: Sequence[str] = (),
    files: bool = False,
) -> Erased:
    """Erases columns of all rows that `key` names (`{"request_id": …}`), in every table.

    All erasable columns when none are named; with `files` the asset files too, since a C2PA
    manifest may quote a prompt. Earlier states of the catalog ("as of") go with it, and readers at
    work may have to begin again. Raises InputError: nothing fits, unknown columns, no reason.
    """
    _refuse_arguments(columns, reason, by)
    signer = signer_in(place_of(settings))
    with writing(settings.catalog) as lake:

        def work(connection: duckdb.DuckDBPyConnection) -> tuple[dict[str, set[str]], Any, Any]:
            return _erase_rows(connection, key, columns, files, reason, by, signer)

        touched, counts, urls = lake.transact(work)
        for url in urls:
            path_of(settings, url).unlink(missing_ok=True)
        # Also where nothing was left to erase: an erasure before may have been interrupted here.
        _purge(lake)
        write_checkpoint(lake, place_of(settings), f"erasure of {_words(key)[:60]}")
        # The checkpoint's own commit has made a snapshot; what came before goes now.
        erasable = {
            table: set(columns_of(lake.connection, f"raw.{table}")) & ERASABLE
            for table in covered_tables(lake.connection)
        }
    _scrub(settings.catalog, erasable)
    if not counts and not urls:
        what = f"no row with {_words(key)} has anything to erase"
        raise InputError("ledger erase", [Fault(what, "", "was it erased already?")])
    names = sorted({name for found in touched.values() for name in found})
    return Erased(counts, tuple(names), tuple(urls))


def _erase_rows(
    connection: duckdb.DuckDBPyConnection,
    key: Mapping[str, Any],
    columns: Sequence[str],
    files: bool,
    reason: str,
    by: str,
    signer: Signer,
) -> tuple[dict[str, set[str]], dict[str, int], list[str]]:
    """(Erased columns by table, rows by table, urls of files that are to go)."""
    import pyarrow as pa

    known = erasures(connection, [signer.verifier])
    tombstones: list[dict[str, Any]] = []
    touched: dict[str, set[str]] = {}
    counts: dict[str, int] = {}
    urls: list[str] = []
    stamp = {"reason": reason, "erased_by": by, "erased_at": datetime.now(UTC)}
    condition = " AND ".join(f'"{name}" = ?' for name in key)
    for table in covered_tables(connection):
        types = columns_of(connection, f"raw.{table}")
        if not set(key) <= set(types):
            continue
        if SALT in types:
            form = row_form(types)
            batch = connection.execute(
                f"SELECT rowid, {form.select} FROM raw.{table} WHERE {condition}",
                list(key.values()),
            ).to_arrow_table()
            for one in batch.to_batches():
                places = zip(
                    one.column(0).to_pylist(),
                    one.column(2).to_pylist(),
                    row_parts(one, form),
                    strict=True,
                )
                for rowid, row_key, parts in places:
                    names = _going(parts, columns)
                    if not names:
                        continue
                    erasure_id, salt, erased = _tombstone(parts, names, known)
                    sets = ", ".join(f'"{name}" = NULL' for name in names)
                    connection.execute(
                        f'UPDATE raw.{table} SET {sets}, "{SALT}" = ? WHERE rowid = ?',
                        [salt, rowid],
                    )
                    touched.setdefault(table, set()).update(names)
                    counts[table] = counts.get(table, 0) + 1
                    tombstones.append(
                        {
                            "erasure_id": erasure_id,
                            "table_name": table,
                            "row_key": row_key,
                            "erased": names,
                            "file_sha256": None,
                            "kept": erased.as_json(),
                            **stamp,
                        }
                    )
        if files and {"url", "sha256"} <= set(types):
            for url, sha256 in connection.execute(
                f"SELECT DISTINCT url, sha256 FROM raw.{table} "
                f"WHERE {condition} AND url IS NOT NULL",
                list(key.values()),
            ).fetchall():
                urls.append(url)
                tombstones.append(
                    {
                        "erasure_id": secrets.token_bytes(SALT_BYTES),
                        "table_name": table,
                        "row_key": sha256[:12],
                        "erased": [],
                        "file_sha256": sha256,
                        "kept": None,
                        **stamp,
                    }
                )
    for row in tombstones:
        row["signature"] = signer.sign_statement(erasure_statement(row))
    if tombstones:
        append_rows(connection, "ledger_erasures", pa.Table.from_pylist(tombstones))
    return touched, counts, urls


def _going(parts: Parts, columns: Sequence[str]) -> list[str]:
    return [
        name
        for (name, _), value in zip(parts.tail, parts.values, strict=True)
        if value is not None and name in ERASABLE and (not columns or name in columns)
    ]


def _tombstone(
    parts: Parts, names: Sequence[str], known: Mapping[bytes, Erasure]
) -> tuple[bytes, bytes, Erasure]:
    """(Erasure id, the row's new salt, what is kept of the row)."""
    erasure_id = secrets.token_bytes(SALT_BYTES)
    before = erasure_of(parts, known)
    original = row_hash(parts, known)
    if parts.salt is None or (before and before.remaining):
        rest = tuple(
            None if name in names else value
            for (name, _), value in zip(parts.tail, parts.values, strict=True)
        )
        remaining = row_hash(Parts(parts.body, parts.tail, rest, None), {})
        return erasure_id, erasure_id, Erasure({}, original, remaining)
    gone = {*names, *(before.commitments if before else ())}
    all_made = commitments_of(parts, before)
    made = {name: value for name, value in all_made.items() if name in gone}
    salts = [salt for name, salt, _ in kept_values(parts) if name not in names]
    return erasure_id, erasure_id + b"".join(salts), Erasure(made, original)


def _purge(lake: Lake) -> None:
    """Rewrites files with deleted rows, forgets older snapshots, removes their files."""

    def purge() -> None:
        with lake.alone() as connection:
            connection.execute("CALL ducklake_rewrite_data_files('lake', delete_threshold => 0)")
            connection.execute("CALL ducklake_expire_snapshots('lake', older_than => now())")
            connection.execute("CALL ducklake_cleanup_old_files('lake', cleanup_all => true)")

    patiently(purge, lake.folder)


def _scrub(catalog: Path, touched: Mapping[str, set[str]]) -> None:
    import json

    pairs = [(table, name) for table, names in touched.items() for name in sorted(names)]
    command = [sys.executable, "-I", "-S", "-c", _SCRUB, str(catalog / METADATA), json.dumps(pairs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(
            f"the values are erased, but the metadata's statistics may still hold some: "
            f"{done.stderr.strip().splitlines()[-1:]}; run the erasure again when no run is at work"
        )


def _refuse_arguments(columns: Sequence[str], reason: str, by: str) -> None:
    faults = [
        Fault(
            f"{name!r} is no column that can be erased", "", f"one of {', '.join(sorted(ERASABLE))}"
        )
        for name in columns
        if name not in ERASABLE
    ]
    if not reason.strip() or not by.strip():
        faults.append(Fault("an erasure needs a reason and a name", "--reason", "say why"))
    if faults:
        raise InputError("ledger erase", faults)


def _words(key: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in key.items())
