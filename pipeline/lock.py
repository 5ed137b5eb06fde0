"""Who may do what at once in a workspace. Locks go with the process: kill -9 leaves none behind."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import BusyError
from pipeline.settings import Settings


@contextmanager
def workspace_lock(settings: Settings) -> Iterator[None]:
    """Hold the workspace for a run. Raises BusyError at once when another process holds it."""
    settings.root.mkdir(parents=True, exist_ok=True)
    path = settings.root / ".lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise BusyError(
                f"another run is at work in {settings.root} (process {holder}); wait for it, or "
                f"use another --workspace"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def staging_lock(settings: Settings, *, alone: bool) -> Iterator[None]:
    """Hold the staging area: `alone` to settle it, otherwise beside others who stage and place.

    So a starting run never takes the file of an approval under way for the leavings of a crash.
    """
    settings.root.mkdir(parents=True, exist_ok=True)
    with (settings.root / ".staging.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
