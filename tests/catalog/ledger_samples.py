"""A catalog whose rows are in the ledger, and ways to tamper with it behind its back."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from catalog_samples import produced_of
from cryptography import x509

from catalog.lake import Lake, reading, writing
from catalog.ledger import append_rows
from catalog.ledger_checkpoints import kept_beside_key, write_checkpoint
from catalog.ledger_compare import Finding
from catalog.ledger_notes import verifier_in
from catalog.ledger_verify import Verification, verify_ledger
from catalog.rows import batch_tables, new_attempt

SALTED = ("manifests", "library_works", "reviews")
"""Tables of the samples whose rows can be erased."""


def salt_tables(lake: Lake) -> None:
    for table in SALTED:
        lake.connection.execute(f"ALTER TABLE raw.{table} ADD COLUMN IF NOT EXISTS salt BLOB")


def commit(lake: Lake, numbers: Sequence[int], batch_id: str) -> None:
    """One batch of produced images, entered."""
    produced = [produced_of(number) for number in numbers]
    tables = batch_tables("run-1", batch_id, new_attempt(), produced, datetime.now(UTC))

    def append(connection: object) -> None:
        for name, table in tables.items():
            append_rows(connection, name, table)  # type: ignore[arg-type]

    lake.transact(append)


def works(count: int) -> pa.Table:
    """Rows of raw.library_works, every one with personal data."""
    return pa.Table.from_pylist(
        [
            {
                "library": "own",
                "work_id": number,
                "sha256": f"{number:064x}",
                "file": f"portraits/person-{number}.png",
                "title": f"Portrait of Person {number}",
                "rights_holder": f"Person {number}",
                "licence": "CC0-1.0",
                "role": "protected",
                "note": "taken at home",
                "added_at": datetime.now(UTC),
            }
            for number in range(count)
        ]
    )


def add_works(lake: Lake, count: int) -> None:
    lake.transact(lambda connection: append_rows(connection, "library_works", works(count)))


def sample(root: Path) -> Path:
    """A workspace with a catalog of 4 commits and 2 checkpoints."""
    with writing(root / "catalog") as lake:
        salt_tables(lake)
        commit(lake, range(8), "b0")
        commit(lake, range(8, 16), "b1")
        write_checkpoint(lake, root / "ledger", "run run-1")
        add_works(lake, 6)
        commit(lake, range(16, 20), "b2")
        write_checkpoint(lake, root / "ledger", "export spring")
    return root


def copied(sample: Path, to: Path) -> Path:
    shutil.copytree(sample, to)
    return to


def verified(root: Path, *more: str, authorities: Sequence[x509.Certificate] = ()) -> Verification:
    """As the command does: the checkpoint beside the key counts, and those kept elsewhere."""
    with reading(root / "catalog") as lake:
        return verified_in(lake, root, *more, authorities=authorities)


def verified_in(
    lake: Lake, root: Path, *more: str, authorities: Sequence[x509.Certificate] = ()
) -> Verification:
    kept = kept_beside_key(root / "ledger")
    if more:
        kept["a witness"] = list(more)
    verifier = verifier_in(root / "ledger")
    assert verifier
    return verify_ledger(lake, [verifier], kept, authorities)


def tampered(root: Path, sql: str) -> list[Finding]:
    """What verification finds after SQL that did not pass through the ledger."""
    with writing(root / "catalog") as lake:
        lake.connection.execute(sql)
        return list(verified_in(lake, root).findings)
