"""Writers queue: nobody is overtaken, nobody waits for ever, and a dead one holds nobody up."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from catalog.turn import TURN, writers_turn

HOLDER = """
import sys, time
from pathlib import Path
from catalog.turn import writers_turn
with writers_turn(Path(sys.argv[1]), 5):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_writers_come_in_the_order_in_which_they_asked(tmp_path: Path) -> None:
    came: list[int] = []

    def write(number: int) -> None:
        with writers_turn(tmp_path, 20):
            came.append(number)

    writers = []
    with writers_turn(tmp_path, 20):
        for number in range(5):
            writers.append(threading.Thread(target=write, args=(number,)))
            writers[-1].start()
            time.sleep(0.1)
        assert came == []
    for writer in writers:
        writer.join(20)
    assert came == [0, 1, 2, 3, 4]


def test_a_writer_goes_on_when_its_patience_ends_and_leaves_no_lock_behind(tmp_path: Path) -> None:
    with writers_turn(tmp_path, 20):
        begun = time.monotonic()
        with writers_turn(tmp_path, 0.2):
            assert 0.2 <= time.monotonic() - begun < 5
    begun = time.monotonic()
    with writers_turn(tmp_path, 20):
        assert time.monotonic() - begun < 5


def test_a_killed_writer_holds_nobody_up(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "mine\n"
        begun = time.monotonic()
        threading.Timer(0.3, holder.send_signal, [signal.SIGKILL]).start()
        with writers_turn(tmp_path, 30):
            assert 0.2 <= time.monotonic() - begun < 25


def test_a_folder_that_takes_no_file_is_the_writers_own_trouble(tmp_path: Path) -> None:
    with writers_turn(tmp_path / "missing", 20):
        assert not (tmp_path / "missing" / TURN).exists()
