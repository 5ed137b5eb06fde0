"""A pack as a folder, which is filled under another name and gets its own when it is whole."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from catalog.pack_alone import lock, no_pack, other_pack
from catalog.pack_copy import Unreadable, copy_file, read_once, write_file
from pipeline.errors import Fault, InputError
from pipeline.store import flush
from pipeline.verify_sums import SUMS

_WRITERS = 8
"""Files that wait for the disk at the same time."""


class FolderTarget:
    """A folder that gets its name when all of its files are on the disk.

    Files are written and flushed by threads, a few at a time: waiting for the disk takes longest.
    """

    def __init__(self, path: Path) -> None:
        if path.is_file() or (_is_filled(path) and not (path / SUMS).is_file()):
            raise no_pack(path)
        self.path = path
        self.part = path.with_name(f".{path.name}.part")
        self.part.mkdir(parents=True, exist_ok=True)
        self.lock = path.with_name(f".{path.name}.lock").open("ab")
        lock(self.lock, Path(self.lock.name), path)
        self.copied: dict[str, tuple[str, int]] = {}
        self.names: dict[str, str] = {}
        self.size = 0
        self.threads = ThreadPoolExecutor(_WRITERS)
        self.writing: deque[Future[None]] = deque()

    def copy(self, name: str, source: Path) -> str:
        """Copies a file, whose name no other thread uses; SHA-256 (hex) of the bytes it read.

        It is not written again where an interrupted export left just these bytes. It belongs to
        the pack once `holds` was asked for it. Raises Unreadable, and OSError when it cannot be
        written.
        """
        file = self.part / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and _has(file, *(found := read_once(source))):
            # It may not have been flushed.
            flush(file)
        else:
            found = copy_file(source, file)
        self.copied[name] = found
        return found[0]

    def holds(self, name: str, sha256: str, size: int) -> bool:
        """Whether `copy` put just these bytes under this name, or the interrupted export did."""
        if self.copied.get(name) != (sha256, size):
            if not _has(self.part / name, sha256, size):
                return False
            self._begin(flush, self.part / name)
        self.size += size
        self.names[name] = sha256
        return True

    def add(self, name: str, data: bytes, sha256: str) -> None:
        """Writes the file; the folder is not visible yet."""
        file = self.part / name
        file.parent.mkdir(parents=True, exist_ok=True)
        self._begin(write_file, data, file)
        self.names[name] = sha256
        self.size += len(data)

    def complete(self) -> tuple[str, int]:
        """Waits for every file; nothing else stays in the folder."""
        while self.writing:
            self.writing.popleft().result()
        for file in self.part.rglob("*"):
            if file.is_file() and file.relative_to(self.part).as_posix() not in self.names:
                file.unlink()
        for folder in [self.part, *(each for each in self.part.rglob("*") if each.is_dir())]:
            flush(folder)
        sha256 = self.names[SUMS]
        if _is_filled(self.path):
            self._refuse_another(sha256)
        return sha256, self.size

    def publish(self) -> None:
        """Renames it; where the very same pack lies already, that one stays."""
        if _is_filled(self.path):
            shutil.rmtree(self.part)
        else:
            self.part.replace(self.path)
        flush(self.path.parent)
        self.close()

    def close(self) -> None:
        """Leaves the part where it is."""
        self.threads.shutdown()
        # While it is locked: another export's lock must not be taken away.
        Path(self.lock.name).unlink(missing_ok=True)
        self.lock.close()

    def discard(self) -> None:
        """Removes the part."""
        self.threads.shutdown(cancel_futures=True)
        shutil.rmtree(self.part, ignore_errors=True)
        self.close()

    def _begin(self, work: Callable[..., None], *given: Any) -> None:
        # Bounded: what waits is in memory.
        while len(self.writing) > _WRITERS:
            self.writing.popleft().result()
        self.writing.append(self.threads.submit(work, *given))

    def _refuse_another(self, sha256: str) -> None:
        """What lies there must be this pack, and whole."""
        if not _has(self.path / SUMS, sha256):
            raise other_pack(self.path)
        with ThreadPoolExecutor(_WRITERS) as threads:
            whole = threads.map(lambda name: _has(self.path / name, self.names[name]), self.names)
            harmed = [name for name, same in zip(self.names, whole, strict=True) if not same]
        if harmed:
            remedy = "remove it and export again, or choose another name"
            faults = [
                Fault("it lies there altered, or is missing", str(self.path / name), remedy)
                for name in harmed
            ]
            raise InputError("export", faults)


def _is_filled(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())


def _has(file: Path, sha256: str, size: int | None = None) -> bool:
    """Whether a file has this SHA-256 (hex), and this many bytes."""
    try:
        if size is not None and file.stat().st_size != size:
            return False
        return read_once(file)[0] == sha256
    except (OSError, Unreadable):
        return False
