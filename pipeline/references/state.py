"""What an index's folder has committed: one small JSON file, replaced in one atomic step.

Bytes that it does not count are not there: a killed writer leaves the index as before or after.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.errors import BusyError, SetupError
from pipeline.store import flush, write_file

STATE = "index.json"
BUILDING = "building.faiss"
"""The lists of a rebuild under way; takes its generation's name when it is committed."""
_FORMAT = 1
_PATIENCE = 3.0
"""Seconds that a writer waits for another: a rebuild's last step and an addition are shorter."""


@dataclass(frozen=True)
class ListsState:
    """The inverted lists of a generation: its first `rows` rows, and how well they are found.

    `recall` is recall@1 against exact with `nprobe` lists, measured when they were written;
    `trained_on` counts the vectors that there were when the centroids were trained; the float32
    centroids lie at byte `centroids_at` of the file.
    """

    rows: int
    trained_on: int
    nprobe: int
    recall: float
    centroids_at: int


@dataclass(frozen=True)
class State:
    """A committed index. Rows are positions in a generation's files; `rows` counts holes too.

    `removing` are rows whose removal is decided but not yet written out: nobody may see them.
    `removals` counts finished removals, so that a rebuild notices one that overtook it.
    """

    model_digest: str
    dimension: int
    exact_up_to: int
    generation: int = 0
    rows: int = 0
    lists: ListsState | None = None
    removing: tuple[int, ...] = ()
    removals: int = 0

    @property
    def flat_rows(self) -> int:
        """Rows that lie in no inverted list."""
        return self.rows - (self.lists.rows if self.lists else 0)

    def file(self, folder: Path, kind: str) -> Path:
        """This generation's file of a kind: `ids`, `vectors` or `faiss`."""
        return folder / f"{self.generation:06d}.{kind}"


def read_state(folder: Path) -> State:
    """The committed state. Raises SetupError when there is none or it cannot be read."""
    try:
        fields = json.loads((folder / STATE).read_text())
        if fields.pop("format") != _FORMAT:
            raise SetupError(
                f"the index in {folder} was written by another version of Platemark; use that "
                f"version, or make the index again"
            )
        lists = fields.pop("lists")
        removing = tuple(fields.pop("removing"))
        return State(**fields, lists=ListsState(**lists) if lists else None, removing=removing)
    except FileNotFoundError as error:
        raise SetupError(f"no index in {folder}; create the library first") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(folder, f"{STATE} cannot be read") from error


def commit(folder: Path, state: State) -> None:
    """Make `state` what the index is. What it counts must be on the disk already."""
    write_file(folder / STATE, json.dumps({"format": _FORMAT, **asdict(state)}).encode())
    flush(folder)


def damaged(folder: Path, what: str) -> SetupError:
    """The error for files that are not what the index wrote."""
    return SetupError(
        f"the index in {folder} is damaged ({what}); delete the folder and embed the library again"
    )


@contextmanager
def write_lock(folder: Path, patience: float = _PATIENCE) -> Iterator[None]:
    """Hold the index for a change. Raises BusyError when another still does after `patience` s."""
    with _lock(folder / ".lock", f"another process is changing the index in {folder}", patience):
        yield


@contextmanager
def rebuild_lock(folder: Path) -> Iterator[None]:
    """Hold the right to rebuild: additions go on beside it. Raises BusyError when it is taken."""
    with _lock(folder / ".rebuild.lock", f"a rebuild of the index in {folder} is under way", 0):
        yield


@contextmanager
def _lock(path: Path, busy: str, patience: float) -> Iterator[None]:
    deadline = time.monotonic() + patience
    try:
        opened = path.open("a+")
    except OSError as error:
        raise SetupError(
            f"the index in {path.parent} cannot be written to: {error.strerror}; create the "
            f"library first, or check the folder"
        ) from error
    with opened as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    file.seek(0)
                    holder = file.read().strip() or "unknown"
                    raise BusyError(
                        f"{busy} (process {holder}); wait for it and try again"
                    ) from None
                time.sleep(0.05)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
