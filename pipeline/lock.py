"""Who may do what at once in a workspace. Locks go with the process: kill -9 leaves none behind."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from pipeline.errors import BusyError
from pipeline.settings import Settings


@contextmanager
def workspace_lock(settings: Settings, patience: float = 0) -> Iterator[None]:
    """Hold the workspace for a run.

    Raises BusyError when another process still holds it after `patience` seconds.
    """
    settings.make_root()
    deadline = time.monotonic() + patience
    with (settings.root / ".lock").open("a+") as file:
        while not _locked(file):
            if time.monotonic() >= deadline:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise BusyError(
                    f"another run is at work in {settings.root} (process {holder}); wait for it, "
                    f"or use another --workspace"
                )
            time.sleep(1)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def staging_lock(settings: Settings, *, alone: bool) -> Iterator[None]:
    """Hold the staging area: `alone` to settle it, otherwise beside others who stage and place.

    So a starting run never takes the file of an approval under way for the leavings of a crash.
    """
    settings.make_root()
    with (settings.root / ".staging.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
