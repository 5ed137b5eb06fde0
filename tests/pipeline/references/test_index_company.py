from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from index_samples import MODEL, D, bytes_in, clustered

from pipeline.errors import BusyError
from pipeline.references.index import VectorIndex
from pipeline.references.rebuild import rebuild, rebuild_in_background
from pipeline.references.state import BUILDING, write_lock

ADDING = """
import sys
import numpy as np
from pathlib import Path
from pipeline.references.index import VectorIndex
folder, model = Path(sys.argv[1]), sys.argv[2]
index = VectorIndex.open(folder, model)
vectors = np.tile(np.eye(256, dtype=np.float32), (20, 1))
print("ready", flush=True)
while True:
    first = len(index)
    index.add(vectors, np.arange(first, first + len(vectors)))
    print(len(index), flush=True)
"""


def test_kill_in_the_middle_of_adding_leaves_the_index_before_or_after(folder: Path) -> None:
    VectorIndex.create(folder, 256, MODEL)
    for delay in (0.01, 0.05, 0.02, 0.08, 0.035):
        command = [sys.executable, "-c", ADDING, str(folder), MODEL]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout and process.stdout.readline() == "ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        told = [int(line) for line in process.stdout.read().split()]
        index = VectorIndex.open(folder, MODEL)
        assert len(index) % 5_120 == 0
        assert len(index) >= max(told, default=0)
        assert np.array_equal(np.sort(index.ids), np.arange(len(index)))
        if len(index):
            assert np.array_equal(index.vectors([len(index) - 1])[0], np.eye(256)[255])


def test_bytes_that_were_never_counted_are_not_seen_and_cleared_away(folder: Path) -> None:
    VectorIndex.create(folder, D, MODEL).add(clustered(5), np.arange(5))
    for name, size in (("000000.vectors", 200), ("000000.ids", 12), ("index.json.ab.part", 9)):
        with (folder / name).open("ab") as file:
            file.write(b"\1" * size)
    index = VectorIndex.open(folder, MODEL)
    assert sorted(index.ids.tolist()) == [0, 1, 2, 3, 4]
    index.add(clustered(1, seed=1), [5])
    assert np.array_equal(index.vectors(np.arange(6)), [*clustered(5), *clustered(1, seed=1)])
    sizes = {path.name: path.stat().st_size for path in folder.glob("[0-9i]*.*")}
    assert sizes.pop("index.json")
    assert sizes == {"000000.vectors": 4 * D * 6, "000000.ids": 8 * 6}


NO_ROOM = """
import resource, sys
import numpy as np
from pathlib import Path
from pipeline.errors import SetupError
from pipeline.references.index import VectorIndex
from pipeline.references.rebuild import rebuild
folder, model = Path(sys.argv[1]), sys.argv[2]
index = VectorIndex.open(folder, model)
resource.setrlimit(resource.RLIMIT_FSIZE, (39_000, 39_000))
for change in (lambda: index.add(np.eye(32, dtype=np.float32).repeat(20, 0), range(500, 1140)),
               lambda: rebuild(folder)):
    try:
        change()
    except SetupError as error:
        print(error)
"""


def test_a_disk_without_room_leaves_the_index_as_before(folder: Path) -> None:
    VectorIndex.create(folder, D, MODEL, exact_up_to=100).add(clustered(300), np.arange(300))
    command = [sys.executable, "-c", NO_ROOM, str(folder), MODEL]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [line.split(str(folder))[0] for line in told.splitlines()] == [
        "cannot write to ",
        "the index in ",
    ]
    index = VectorIndex.open(folder, MODEL)
    assert (len(index), index.kind) == (300, "exact")
    assert np.array_equal(index.vectors(np.arange(300)), clustered(300))
    assert (folder / "000000.vectors").stat().st_size == 300 * 4 * D
    assert not (folder / BUILDING).exists()


def waiting(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@pytest.fixture
def growing(folder: Path) -> VectorIndex:
    """Large enough that its rebuild takes a second or more."""
    index = VectorIndex.create(folder, 64, MODEL, exact_up_to=1_000)
    index.add(clustered(60_000, dimension=64), np.arange(60_000))
    return index


def test_additions_go_on_while_a_rebuild_runs_in_the_background(
    growing: VectorIndex, folder: Path
) -> None:
    late = clustered(200, seed=4, dimension=64)
    process = rebuild_in_background(folder)
    waiting((folder / BUILDING).exists)
    for number in range(200):
        growing.add(late[number : number + 1], [100_000 + number])
        if process.poll() is not None:
            break
    assert process.wait(120) == 0, (folder / "rebuild.log").read_text()
    index = VectorIndex.open(folder, MODEL)
    assert index.kind == "ivf" and index.recall >= 0.99
    assert len(index) == 60_000 + number + 1
    assert (index.search(late[: number + 1], 1)[1][:, 0] >= 100_000).all()


def test_a_removal_overtakes_a_rebuild(growing: VectorIndex, folder: Path) -> None:
    gone = growing.vectors(np.arange(20))
    process = rebuild_in_background(folder)
    # Vectors are being written, so those to be removed may lie in there already.
    waiting(lambda: size(folder / BUILDING) > 0 or process.poll() is not None)
    growing.remove(np.arange(20))
    assert bytes_in(folder, gone) == []
    assert process.wait(120) == 0, (folder / "rebuild.log").read_text()
    index = VectorIndex.open(folder, MODEL)
    assert (index.kind, len(index)) == ("ivf", 59_980)
    assert bytes_in(folder, gone) == []


def test_a_rebuild_that_is_killed_changes_nothing(growing: VectorIndex, folder: Path) -> None:
    process = rebuild_in_background(folder)
    waiting((folder / BUILDING).exists)
    with pytest.raises(BusyError, match=f"rebuild .* under way .process {process.pid}"):
        rebuild(folder)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    index = VectorIndex.open(folder, MODEL)
    assert (index.kind, len(index)) == ("exact", 60_000)
    rebuild(folder, threads=1)
    assert VectorIndex.open(folder, MODEL).kind == "ivf"
    assert not (folder / BUILDING).exists()


def test_a_second_writer_is_told_who_is_at_work(folder: Path) -> None:
    index = VectorIndex.create(folder, D, MODEL)
    with write_lock(folder), pytest.raises(BusyError, match=rf"process {os.getpid()}.*try again"):
        index.add(clustered(1), [1])
    index.add(clustered(1), [1])
