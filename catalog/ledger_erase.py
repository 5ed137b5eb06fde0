"""Erases what law requires to go, for good, and leaves a tombstone: the rest still verifies.

The value leaves the row, older Parquet files, and the metadata's statistics; its commitment, which
says nothing without the salt, stays in the log.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog.lake import writing
from catalog.ledger import append_rows, erasure_statement, erasures, place_of
from catalog.ledger_checkpoints import write_checkpoint
from catalog.ledger_entries import covered_tables
from catalog.ledger_erase_files import FilesToGo, files_to_go, remove_files
from catalog.ledger_forms import (
    ERASABLE,
    SALT,
    SALT_BYTES,
    canonical_text,
    columns_of,
    row_form,
)
from catalog.ledger_notes import Signer, signer_in
from catalog.ledger_purge import purge, scrub
from catalog.ledger_redact import PARTLY, PROMPT_COLUMNS, redacted, texts_of
from catalog.ledger_rows import (
    Erasure,
    Parts,
    commitments_of,
    erasure_of,
    kept_values,
    row_hash,
    row_parts,
)
from pipeline.errors import Fault, InputError
from pipeline.lock import staging_lock, workspace_lock
from pipeline.settings import Settings

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Erased:
    """What was erased: rows by table, columns, files.

    `kept_files` are those that other images share: they go when the last of these is erased with
    its files.
    """

    rows: Mapping[str, int]
    columns: tuple[str, ...]
    files: tuple[str, ...]
    kept_files: tuple[str, ...] = ()


@dataclass
class _Work:
    """One erasure under way, in its transaction."""

    connection: duckdb.DuckDBPyConnection
    key: Mapping[str, Any]
    columns: frozenset[str]
    texts: set[str] | None
    """What goes of columns in PARTLY: what quotes one of these; None: all texts."""
    known: Mapping[bytes, Erasure]
    counts: dict[str, int] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    tombstones: list[dict[str, Any]] = field(default_factory=list)

    @property
    def condition(self) -> str:
        """SQL that names the rows; its parameters are the key's values."""
        return " AND ".join(f'"{name}" = ?' for name in self.key)


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

    When none are named: of an image what quotes its prompts, of anything else all that can be
    erased. Recipes and reasons lose their texts only, since licences and approvals need the rest.
    With `files` the image's files go too, as a C2PA manifest may quote a prompt; those that another
    image shares stay. Earlier states of the catalog ("as of") go with it, and readers at work may
    have to begin again.

    Raises InputError: nothing fits, unknown columns, no reason. BusyError: a run is at work.
    """
    _refuse_arguments(columns, reason, by)
    signer = signer_in(place_of(settings))
    stamp = {"reason": reason, "erased_by": by, "erased_at": datetime.now(UTC)}
    with (
        workspace_lock(settings),
        staging_lock(settings, alone=True),
        writing(settings.catalog) as lake,
    ):

        def work(connection: duckdb.DuckDBPyConnection) -> tuple[_Work, FilesToGo]:
            erasing = _begun(connection, key, columns, signer)
            for table in covered_tables(connection):
                _erase_table(erasing, table)
            found = FilesToGo()
            if files and "request_id" in key:
                found = files_to_go(connection, str(key["request_id"]), [signer.verifier])
                erasing.tombstones += found.tombstones
            _bury(connection, [{**row, **stamp} for row in erasing.tombstones], signer)
            return erasing, found

        done, found = lake.transact(work)
        # Also where nothing was left to erase: an erasure before may have been interrupted here.
        leftovers = purge(lake, key)
        occasion = ", ".join(f"{name} {value}" for name, value in key.items())
        write_checkpoint(
            lake,
            place_of(settings),
            f"erasure of {occasion[:60]}",
            timestamp_url=settings.signing.timestamp_url,
        )
        scrub(lake)
        remove_files(settings, found.going)
    if not done.counts and not found.tombstones and not leftovers:
        what = f"no row with {occasion} has anything to erase"
        raise InputError("ledger erase", [Fault(what, "", "was it erased already?")])
    touched = tuple(sorted(done.touched))
    return Erased(done.counts, touched, tuple(found.going), tuple(found.shared))


def _begun(
    connection: duckdb.DuckDBPyConnection,
    key: Mapping[str, Any],
    columns: Sequence[str],
    signer: Signer,
) -> _Work:
    of_image = "request_id" in key and not columns
    texts = None
    if of_image:
        rows = (
            connection.execute(
                "SELECT prompt, prompt_sha256, negative_prompt, recipe FROM raw.images "
                "WHERE request_id = ?",
                [key["request_id"]],
            )
            .to_arrow_table()
            .to_pylist()
        )
        # Where the prompt alone was erased before, what quotes it cannot be told any more.
        alone = any(row["prompt"] is None and row["prompt_sha256"] is not None for row in rows)
        texts = None if alone else texts_of(rows)
    named = frozenset(columns or (PROMPT_COLUMNS if of_image else ERASABLE))
    return _Work(connection, key, named, texts, erasures(connection, [signer.verifier]))


def _erase_table(work: _Work, table: str) -> None:
    types = columns_of(work.connection, f"raw.{table}")
    if not set(work.key) <= set(types) or SALT not in types:
        return
    form = row_form(types)
    partly = sorted(PARTLY & work.columns & set(types))
    quoted = "".join(f', "{name}"' for name in partly)
    batch = work.connection.execute(
        f"SELECT rowid, {form.select}{quoted} FROM raw.{table} WHERE {work.condition}",
        list(work.key.values()),
    ).to_arrow_table()
    for one in batch.to_batches():
        first = one.num_columns - len(partly)
        kept = one.select(range(first, one.num_columns)).to_pylist()
        rows = zip(one.column(0).to_pylist(), one.column(2).to_pylist(), strict=True)
        for (rowid, row_key), parts, values in zip(rows, row_parts(one, form), kept, strict=True):
            changed = {
                name: left
                for name, value in values.items()
                if (left := redacted(name, value, work.texts)) != value
            }
            gone = [name for name, _ in parts.named if name in work.columns and name not in PARTLY]
            if changed or gone:
                left = _canonical(work.connection, table, types, one.schema, changed)
                _erase_row(work, table, rowid, row_key, parts, gone, left)


def _canonical(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    types: Mapping[str, Any],
    schema: Any,
    changed: Mapping[str, Any],
) -> dict[str, bytes]:
    """The canonical text of what columns are changed to; `incoming` holds the values meanwhile."""
    import pyarrow as pa

    if not changed:
        return {}
    connection.register(
        "incoming",
        pa.table(
            {name: pa.array([value], schema.field(name).type) for name, value in changed.items()}
        ),
    )
    texts = ", ".join(
        f"encode({canonical_text(_as_stored(name, types), types[name])})" for name in changed
    )
    (row,) = connection.execute(f"SELECT {texts} FROM incoming").fetchall()
    return dict(zip(changed, row, strict=True))


def _as_stored(name: str, types: Mapping[str, Any]) -> str:
    return f'CAST("{name}" AS {types[name]})'


def _erase_row(
    work: _Work,
    table: str,
    rowid: int,
    row_key: str,
    parts: Parts,
    gone: Sequence[str],
    left: Mapping[str, bytes],
) -> None:
    erasure_id, salt, erased = _tombstone(parts, gone, left, work.known)
    types = columns_of(work.connection, f"raw.{table}")
    sets = [f'"{name}" = NULL' for name in gone]
    sets += [f'"{name}" = (SELECT {_as_stored(name, types)} FROM incoming)' for name in left]
    work.connection.execute(
        f'UPDATE raw.{table} SET {", ".join(sets)}, "{SALT}" = ? WHERE rowid = ?', [salt, rowid]
    )
    if left:
        work.connection.unregister("incoming")
    work.touched.update(gone, left)
    work.counts[table] = work.counts.get(table, 0) + 1
    work.tombstones.append(
        {
            "erasure_id": erasure_id,
            "table_name": table,
            "row_key": row_key,
            "erased": sorted([*gone, *left]),
            "file_sha256": None,
            "kept": erased.as_json(),
        }
    )


def _tombstone(
    parts: Parts,
    gone: Sequence[str],
    left: Mapping[str, bytes],
    known: Mapping[bytes, Erasure],
) -> tuple[bytes, bytes, Erasure]:
    """(Erasure id, the row's new salt, what is kept of the row).

    `gone` columns become NULL, those of `left` have these canonical texts from now on.
    """
    erasure_id = secrets.token_bytes(SALT_BYTES)
    before = erasure_of(parts, known)
    original = row_hash(parts, known)
    if parts.salt is None or (before and before.remaining):
        rest = tuple(
            None if name in gone else left.get(name, value)
            for (name, _), value in zip(parts.tail, parts.values, strict=True)
        )
        remaining = row_hash(Parts(parts.body, parts.tail, rest, None), {})
        return erasure_id, erasure_id, Erasure({}, original, remaining)
    redacted_before = before.redacted if before else {}
    all_made = commitments_of(parts, before)
    changed = {*gone, *left, *(before.commitments if before else ())}
    made = {name: value for name, value in all_made.items() if name in changed}
    digests = {name: hashlib.sha256(text).digest() for name, text in left.items()}
    stays = {name: one for name, one in redacted_before.items() if name not in gone} | digests
    salts = [
        salt
        for name, salt, _ in kept_values(parts, redacted_before)
        if name not in gone and name not in left
    ]
    return erasure_id, erasure_id + b"".join(salts), Erasure(made, original, None, stays)


def _bury(
    connection: duckdb.DuckDBPyConnection, tombstones: list[dict[str, Any]], signer: Signer
) -> None:
    import pyarrow as pa

    for row in tombstones:
        row["signature"] = signer.sign_statement(erasure_statement(row))
    if tombstones:
        append_rows(connection, "ledger_erasures", pa.Table.from_pylist(tombstones))


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
