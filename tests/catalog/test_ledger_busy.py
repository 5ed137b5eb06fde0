"""The ledger beside writers: it waits for who holds the metadata, and keeps nobody waiting."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from catalog_samples import sha256
from ledger_samples import commit
from test_lake import holding

from catalog.lake import Lake, writing
from catalog.ledger_checkpoints import ready_to_sign, write_checkpoint
from catalog.ledger_notes import verifier_in
from catalog.ledger_proof import inclusion_proofs
from catalog.ledger_purge import scrub
from catalog.revocation import revoke, revoked_pack


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def lake(
    folder: Path, place: Path, empty_catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lake]:
    """A signed log, in a catalog whose commits and reads give up after a second in SQLite."""
    monkeypatch.setattr("catalog.lake._READERS_SECONDS", 1)
    shutil.copytree(empty_catalog, folder)
    with writing(folder) as opened:
        commit(opened, range(5), "b1")
        write_checkpoint(opened, place, "run run-1")
        yield opened


def prove(lake: Lake, place: Path) -> None:
    verifier, signed = verifier_in(place), sha256("file 0")
    assert verifier and list(inclusion_proofs(lake, [signed], [verifier])) == [signed]


READS: dict[str, Callable[[Lake, Path], object]] = {
    "ready to sign": ready_to_sign,
    "prove": prove,
    "scrub": lambda lake, place: scrub(lake),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_what_meets_a_writer_waits_for_it(
    lake: Lake, folder: Path, place: Path, read: Callable[[Lake, Path], object]
) -> None:
    writer = holding(folder, "BEGIN EXCLUSIVE")
    threading.Timer(3, writer.communicate).start()
    read(lake, place)
    assert writer.wait(30) == 0


def stopped_pack(lake: Lake) -> None:
    lake.transact(
        lambda connection: connection.execute(
            "INSERT INTO raw.packs (pack_id, file) VALUES ('p1', 'p1.zip')"
        )
    )
    revoke(lake, "p1", reason="wrong client", by="ann")


def test_what_was_read_keeps_no_writer_waiting(lake: Lake, folder: Path, place: Path) -> None:
    stopped_pack(lake)
    for read in (
        lambda: ready_to_sign(lake, place),
        lambda: revoked_pack(lake.connection, "p1"),
    ):
        read()
        holding(folder, "BEGIN EXCLUSIVE").communicate()
