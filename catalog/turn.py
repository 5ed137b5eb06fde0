"""Whose turn it is to write: processes that commit to one catalog queue, first come, first served.

Without a queue the slower of two writers does its work again, and may lose many times in a row.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TURN = ".turn"


@contextmanager
def writers_turn(folder: Path, patience: float) -> Iterator[None]:
    """Waits for this writer's turn at the catalog in `folder`, and holds it.

    A courtesy, not what keeps rows: after `patience` seconds, or where the file system knows no
    locks, it goes on without, and DuckLake decides who was first.
    """
    try:
        descriptor = os.open(folder / TURN, os.O_RDONLY | os.O_CREAT, 0o666)
    except OSError:
        # Whoever may not write here is told so by the write itself.
        yield
        return
    try:
        _wait(descriptor, patience)
        yield
    finally:
        os.close(descriptor)


def _wait(descriptor: int, patience: float) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # In a thread, since only a blocking wait keeps the order of arrival and it has no time
        # limit. One that is given up ends with its lock, whose descriptor is closed by then.
        taken = threading.Thread(target=_take, args=(descriptor,), daemon=True)
        taken.start()
        taken.join(patience)
    except OSError:
        return


def _take(descriptor: int) -> None:
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
