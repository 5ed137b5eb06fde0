from __future__ import annotations

import multiprocessing
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from catalog_samples import begin, produced_of

from catalog.extensions import connected
from catalog.faults import is_contention, setup_error
from catalog.lake import SCHEMA_VERSION, Lake, reading, writing
from catalog.metadata import METADATA, exists
from catalog.upkeep import merge_small_files, remove_orphans
from catalog.write import commit_batch, finish_run
from pipeline.errors import BusyError, SetupError


def count(lake: Lake, table: str) -> int:
    return int(lake.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"])


def test_what_was_committed_is_there_when_the_catalog_is_opened_again(folder: Path) -> None:
    with writing(folder) as lake:
        commit_batch(lake, "run-1", "b1", [produced_of(1), produced_of(2)])
    with writing(folder) as lake:
        assert count(lake, "images") == 2
    with reading(folder) as lake:
        assert count(lake, "images") == 2


def test_a_catalog_moves_with_its_workspace(tmp_path: Path, folder: Path) -> None:
    with writing(folder) as lake:
        commit_batch(lake, "run-1", "b1", [produced_of(1)])
    moved = tmp_path / "it's elsewhere" / "catalog"
    moved.parent.mkdir()
    shutil.move(folder, moved)
    with writing(moved) as lake:
        commit_batch(lake, "run-1", "b2", [produced_of(2)])
        assert count(lake, "images") == 2
    assert not folder.exists()


def test_a_catalog_being_read_cannot_be_changed(folder: Path) -> None:
    with writing(folder) as lake:
        commit_batch(lake, "run-1", "b1", [produced_of(1)])
    with reading(folder) as lake, pytest.raises(Exception, match="read-only"):
        lake.transact(lambda connection: connection.execute("DELETE FROM raw.images"))


def test_a_catalog_whose_maker_was_stopped_is_made_by_the_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.link", stopped)
        with pytest.raises(KeyboardInterrupt), writing(folder):
            pass
    assert not exists(folder) and any((folder / "data").rglob("*.parquet"))
    with writing(folder) as lake:
        commit_batch(lake, "run-1", "b1", [produced_of(1)])
        assert count(lake, "images") == 1
    (folder / METADATA).unlink()
    with pytest.raises(SetupError, match="restore it"), writing(folder):
        pass


def test_reading_without_a_catalog_says_how_to_make_one_and_makes_none(folder: Path) -> None:
    with pytest.raises(SetupError, match="platemark run"), reading(folder):
        pass
    assert not folder.exists()


def test_work_that_fails_leaves_nothing_behind(lake: Lake) -> None:
    def half(connection: object) -> None:
        lake.connection.execute("INSERT INTO raw.run_ends (run_id) VALUES ('x')")
        raise KeyError("broken")

    with pytest.raises(KeyError):
        lake.transact(half)
    assert count(lake, "raw.run_ends") == 0
    finish_run(lake, "run-1", "completed")
    assert count(lake, "raw.run_ends") == 1


def holding(folder: Path, *statements: str) -> subprocess.Popen[bytes]:
    """A process that has the metadata open, and runs these statements, until its input ends."""
    code = (
        "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "[connection.execute(each).fetchall() for each in sys.argv[2:]];"
        "print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, folder / METADATA, *statements],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout and other.stdout.readline() == b"held\n"
    return other


def test_a_catalog_locked_for_too_long_is_busy(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catalog.lake._READERS_SECONDS", 1)
    with writing(folder) as lake:
        begin(lake)
        other = holding(folder, "BEGIN EXCLUSIVE")
        with pytest.raises(BusyError, match="locked by other writers"):
            lake.transact(
                lambda connection: connection.execute(
                    "INSERT INTO raw.run_ends (run_id) VALUES ('run-1')"
                ),
                patience=0.1,
            )
        other.communicate()
        finish_run(lake, "run-1", "completed")


def test_a_commit_and_a_merge_wait_for_a_slow_reader(folder: Path, lake: Lake) -> None:
    """Longer than the five seconds after which SQLite would give up, and the writer with it."""
    commit_batch(lake, "run-1", "b1", [produced_of(1)])
    reads = ("BEGIN", "SELECT count(*) FROM ducklake_snapshot")
    for number, write in enumerate(
        (
            lambda: commit_batch(lake, "run-1", "b2", [produced_of(2)]),
            lambda: merge_small_files(lake),
        )
    ):
        other = holding(folder, *reads)
        threading.Timer(6, other.communicate).start()
        write()
        assert other.wait(30) == 0
        commit_batch(lake, "run-1", f"later-{number}", [produced_of(10 + number)])
    assert count(lake, "images") == 4


def test_a_newer_schema_is_refused(folder: Path) -> None:
    with writing(folder) as lake:
        lake.transact(
            lambda connection: connection.execute(
                f"INSERT INTO raw.schema_version VALUES ({SCHEMA_VERSION + 1}, now())"
            )
        )
    with pytest.raises(SetupError, match="update Platemark"), writing(folder):
        pass


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 500, b"SQLite format 3\0" + b"x" * 9000]
)
def test_damaged_metadata_is_named_with_the_way_back(folder: Path, content: bytes) -> None:
    with writing(folder):
        pass
    (folder / METADATA).write_bytes(content)
    for opened in (writing, reading):
        with pytest.raises(SetupError, match="damaged"), opened(folder):
            pass


def test_lost_metadata_are_not_replaced_by_an_empty_catalog(folder: Path) -> None:
    with writing(folder) as lake:
        commit_batch(lake, "run-1", "b1", [produced_of(1)])
    (folder / METADATA).unlink()
    with pytest.raises(SetupError, match="missing: restore"), writing(folder):
        pass
    assert not exists(folder)


def test_lost_data_are_named(folder: Path) -> None:
    with writing(folder) as lake:
        commit_batch(lake, "run-1", "b1", [produced_of(1)])
    shutil.rmtree(folder / "data")
    with pytest.raises(SetupError, match="data of the catalog"), reading(folder) as lake:
        count(lake, "images WHERE seed = 1")


def test_another_lake_is_not_taken_for_a_catalog(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    connection = connected()
    connection.execute(
        f"ATTACH 'ducklake:sqlite:{folder / METADATA}' AS other (DATA_PATH '{tmp_path}')"
    )
    connection.execute("CREATE TABLE other.t (a INTEGER)")
    connection.close()
    with pytest.raises(SetupError, match="not a Platemark catalog"), writing(folder):
        pass


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("IO Error: Could not write file: No space left on device", "is full"),
        ("database or disk is full", "is full"),
        ("attempt to write a readonly database", "may not be written"),
        ("Binder Error: column x does not exist", None),
    ],
)
def test_faults_of_the_set_up_are_told_from_others(
    tmp_path: Path, message: str, told: str | None
) -> None:
    error = setup_error(RuntimeError(message), tmp_path / "not" / "there")
    assert (told in str(error)) if told else error is None


def test_only_contention_is_tried_again() -> None:
    assert is_contention(RuntimeError("TransactionContext Error: database is locked"))
    assert not is_contention(RuntimeError("No space left on device"))


def test_a_masked_fault_is_tried_again_unless_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("Failed to commit: cannot rollback - no transaction is active")
    assert setup_error(error, tmp_path) is None and is_contention(error)
    usage = shutil.disk_usage(tmp_path)._replace(free=4096)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert "0 MiB free" in str(setup_error(error, tmp_path))


def test_merging_keeps_every_row_and_leaves_fewer_files_to_read(lake: Lake) -> None:
    for number in range(6):
        commit_batch(lake, "run-1", f"b{number}", [produced_of(number)])
    before = lake.rows("SELECT * FROM images ORDER BY request_id")
    files = "SELECT count(*) AS n FROM ducklake_list_files('lake', 'images', schema => 'raw')"
    assert lake.rows(files)[0]["n"] == 6
    merge_small_files(lake)
    assert lake.rows(files)[0]["n"] == 1
    assert lake.rows("SELECT * FROM images ORDER BY request_id") == before
    commit_batch(lake, "run-1", "b9", [produced_of(9)])
    assert count(lake, "images") == 7


def test_orphans_are_removed_only_when_old(folder: Path, lake: Lake) -> None:
    import os

    commit_batch(lake, "run-1", "b1", [produced_of(1)])
    known = next((folder / "data").rglob("*.parquet"))
    old, young = (known.with_name(f"ducklake-{name}.parquet") for name in ("old", "young"))
    for orphan in (old, young):
        orphan.write_bytes(known.read_bytes())
    os.utime(old, (0, 0))
    os.utime(known, (0, 0))
    assert [Path(path).name for path in remove_orphans(lake, dry_run=True)] == [old.name]
    assert old.exists()
    remove_orphans(lake)
    assert not old.exists() and young.exists() and known.exists()
    assert count(lake, "images") == 1


def test_a_writer_that_idles_holds_up_nobody(folder: Path, lake: Lake) -> None:
    with writing(folder):
        other = multiprocessing.get_context("spawn").Process(
            target=write_batches, args=(folder, 1, 1)
        )
        other.start()
        other.join(30)
        stuck = other.is_alive()
        other.kill()
    assert not stuck and other.exitcode == 0
    assert count(lake, "batches") == 1


def write_batches(folder: Path, writer: int, batches: int) -> None:
    with writing(folder) as lake:
        for batch in range(batches):
            numbers = [1000 * writer + 10 * batch + offset for offset in range(3)]
            commit_batch(lake, f"run-{writer}", f"b{batch}", [produced_of(n) for n in numbers])


def test_processes_that_create_and_write_at_once_lose_nothing(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_batches, args=(folder, n, 3)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    with reading(folder) as lake:
        assert count(lake, "images") == count(lake, "raw.images") == 27
        assert count(lake, "batches") == 9
        assert count(lake, "scores") == 3 * 27


def test_batches_of_killed_writers_are_whole_or_absent(folder: Path, empty_catalog: Path) -> None:
    shutil.copytree(empty_catalog, folder)
    context = multiprocessing.get_context("spawn")
    for round_number in range(2):
        writer = context.Process(target=write_batches, args=(folder, round_number, 1000))
        writer.start()
        wait_for_batches(folder, round_number)
        time.sleep(random.uniform(0, 0.3))
        writer.kill()
        writer.join()
        with reading(folder) as lake:
            rows = lake.rows(
                "SELECT images, count(*) AS n FROM raw.batches JOIN raw.images "
                "USING (run_id, batch_id, attempt) GROUP BY ALL"
            )
            assert {row["images"] for row in rows} == {3}
            assert count(lake, "raw.images") == 3 * count(lake, "raw.batches")
            assert count(lake, "scores") == 9 * count(lake, "raw.batches")
        with writing(folder) as lake:
            committed = count(lake, f"raw.batches WHERE run_id = 'run-{round_number}'")
            again = [produced_of(1000 * round_number + offset) for offset in range(3)]
            assert not commit_batch(lake, f"run-{round_number}", "b0", again)
            assert count(lake, f"raw.batches WHERE run_id = 'run-{round_number}'") == committed


def wait_for_batches(folder: Path, writer: int) -> None:
    for _ in range(200):
        with reading(folder) as lake:
            if count(lake, f"raw.batches WHERE run_id = 'run-{writer}'"):
                return
    raise AssertionError("the writer never committed")


def test_the_catalog_is_light_to_import() -> None:
    modules = "catalog.audit, catalog.read, catalog.write, catalog.review, catalog.story"
    code = f"import {modules}, catalog.results, catalog.lake, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"torch", "duckdb", "pyarrow", "numpy", "PIL", "c2pa"} & set(loaded.stdout.split())
