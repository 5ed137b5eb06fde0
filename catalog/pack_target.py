"""Where a pack is written: a zip, a tar, a folder, or any store that fsspec knows.

A target takes files in the pack's order. Nothing shows under its name before `finish`. What an
interrupted export left is taken up again: a file counts when its bytes have the SHA-256 asked for.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

from catalog.pack_archive import HashedWriter, form_of
from pipeline.errors import BusyError, Fault, InputError, SetupError
from pipeline.store import flush
from pipeline.verify_sums import SUMS

_UNFINISHED = ".platemark-unfinished.json"
_WRITERS = 8
"""Files that wait for the disk at the same time."""


class Target(Protocol):
    """What packs are written to. `plan` in `open_target` says what an unfinished pack was of."""

    def holds(self, name: str, sha256: str) -> bool:
        """Whether the file comes next in the pack, or lies in it, with just these bytes."""

    def add(self, name: str, data: bytes, sha256: str) -> None:
        """Writes one file; files come in the pack's order."""

    def complete(self) -> tuple[str, int]:
        """Flushes all to disk; SHA-256 and bytes of the pack, which is not yet visible."""

    def publish(self) -> None:
        """Makes the complete pack appear under its name, in one step."""

    def close(self) -> None:
        """Lets go of an unfinished pack; what was written stays, to go on from."""

    def discard(self) -> None:
        """Removes an unfinished pack."""


def is_store(out: str) -> bool:
    """Whether `out` is the address of a store (`s3://bucket/pack`) rather than a path."""
    return "://" in out


def open_target(out: str, plan: str) -> Target:
    """The target behind `out`: `….zip`, `….tar`, a folder, or the address of a store.

    Raises InputError, SetupError (fsspec or its driver is missing) and BusyError when another
    export writes to it.
    """
    if is_store(out):
        return StoreTarget(out, plan)
    path = Path(out)
    if path.suffix.lower() in (".zip", ".tar"):
        return ArchiveTarget(path)
    if path.suffix.lower() in (".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"):
        remedy = "name it ….zip or ….tar, a folder, or a store's address"
        raise InputError("export", [Fault("a pack is not compressed", out, remedy)])
    return FolderTarget(path)


def _locked(stream: IO[bytes], path: Path) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        raise BusyError(
            f"another export writes {path}: wait for it, or name another file"
        ) from None


def _other_pack(path: object) -> InputError:
    fault = Fault("it holds another pack already", str(path), "choose another name or remove it")
    return InputError("export", [fault])


class ArchiveTarget:
    """A zip or tar, uncompressed: its bytes depend on the files alone."""

    def __init__(self, path: Path) -> None:
        self.path, self.form = path, form_of(path)
        self.part = path.with_name(f".{path.name}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.stream = self.part.open("a+b")
        _locked(self.stream, path)
        self.left = self.form.scan(self.stream)
        self.writer = HashedWriter(self.stream)

    def holds(self, name: str, sha256: str) -> bool:
        """Whether the interrupted export wrote this very file next."""
        if not self.left or (self.left[0].name, self.left[0].sha256) != (name, sha256):
            return False
        self.writer.keep(self.left[0])
        self.form.entries.append(self.left.pop(0))
        return True

    def add(self, name: str, data: bytes, sha256: str) -> None:
        """Appends one file, over whatever else the interrupted export wrote there."""
        self.left.clear()
        head, entry = self.form.head(name, data, sha256, self.writer.offset)
        self.form.entries.append(entry)
        self.writer.write(head)
        self.writer.write(data)
        self.writer.write(bytes(self.form.padding(len(data))))

    def complete(self) -> tuple[str, int]:
        """Ends the archive and flushes it."""
        self.writer.write(self.form.end(self.writer.offset))
        sha256 = self.writer.finish()
        if self.path.exists():
            with self.path.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                    raise _other_pack(self.path)
        return sha256, self.writer.offset

    def publish(self) -> None:
        """Renames it."""
        self.part.replace(self.path)
        flush(self.path.parent)
        self.close()

    def close(self) -> None:
        """Closes the part, which stays."""
        self.writer.stop()
        self.stream.close()

    def discard(self) -> None:
        """Removes the part."""
        self.part.unlink(missing_ok=True)
        self.close()


class FolderTarget:
    """A folder that gets its name when all of its files are on the disk.

    Files are written and flushed by threads, a few at a time: waiting for the disk takes longest.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part = path.with_name(f".{path.name}.part")
        self.part.mkdir(parents=True, exist_ok=True)
        self.lock = path.with_name(f".{path.name}.lock").open("ab")
        _locked(self.lock, path)
        self.names: dict[str, str] = {}
        self.size = 0
        self.threads = ThreadPoolExecutor(_WRITERS)
        self.writing: deque[Future[None]] = deque()

    def holds(self, name: str, sha256: str) -> bool:
        """Whether the interrupted export left just these bytes under this name."""
        size = _size_of(self.part / name, sha256)
        if size is None:
            return False
        # It may not have been flushed.
        self._begin(flush, self.part / name)
        self.size += size
        self.names[name] = sha256
        return True

    def add(self, name: str, data: bytes, sha256: str) -> None:
        """Writes the file; the folder is not visible yet."""
        file = self.part / name
        file.parent.mkdir(parents=True, exist_ok=True)
        self._begin(_write, file, data)
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
        if self.path.exists():
            self._refuse_another(sha256)
        return sha256, self.size

    def publish(self) -> None:
        """Renames it; where the very same pack lies already, that one stays."""
        if self.path.exists():
            shutil.rmtree(self.part)
        else:
            self.part.replace(self.path)
        flush(self.path.parent)
        self.close()

    def close(self) -> None:
        """Leaves the part where it is."""
        self.threads.shutdown()
        self.lock.close()
        Path(self.lock.name).unlink(missing_ok=True)

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
        if _size_of(self.path / SUMS, sha256) is None:
            raise _other_pack(self.path)
        with ThreadPoolExecutor(_WRITERS) as threads:
            sizes = threads.map(
                lambda name: _size_of(self.path / name, self.names[name]), self.names
            )
            harmed = [name for name, size in zip(self.names, sizes, strict=True) if size is None]
        if harmed:
            remedy = "remove it and export again, or choose another name"
            faults = [
                Fault("it lies there altered, or is missing", str(self.path / name), remedy)
                for name in harmed
            ]
            raise InputError("export", faults)


def _write(file: Path, data: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _size_of(file: Path, sha256: str) -> int | None:
    """A file's bytes when they have this SHA-256 (hex), else None."""
    try:
        with file.open("rb") as stream:
            same = hashlib.file_digest(stream, "sha256").hexdigest() == sha256
            return stream.tell() if same else None
    except OSError:
        return None


class StoreTarget:
    """Objects under an address of any fsspec store. Each appears whole; SHA256SUMS comes last.

    While an export is unfinished, an object beside the others says of which one it is.
    """

    def __init__(self, url: str, plan: str) -> None:
        self.url = url.rstrip("/")
        self.store, self.root = _store(self.url)
        self.plan = plan
        self.names: dict[str, str] = {}
        self.size = 0
        self.sums: bytes = b""
        found = self._listed()
        unfinished = found.pop(_UNFINISHED, None)
        same = unfinished is not None and self._unfinished_plan() == plan
        self.finished = unfinished is None and SUMS in found
        if found and unfinished is None and not self.finished:
            raise _other_pack(self.url)
        self.found = set(found)
        self.sizes = found if same or self.finished else {}
        if not self.finished:
            self._put(_UNFINISHED, json.dumps({"plan": plan}).encode())

    def holds(self, name: str, sha256: str) -> bool:
        """Whether this same pack's interrupted export put an object there.

        The store took it whole then, and it is asked for its size now; bytes are not read back.
        """
        # Papers are few and may say something new: only images are taken as they are.
        taken = self.finished or name.startswith("images/")
        if name not in self.sizes or name == SUMS or not taken:
            return False
        self.names[name] = sha256
        self.size += self.sizes[name]
        return True

    def add(self, name: str, data: bytes, sha256: str) -> None:
        """Puts one object; the check sums wait for the end."""
        self.names[name] = sha256
        self.size += len(data)
        if name == SUMS:
            self.sums = data
        elif self.finished:
            raise _other_pack(self.url)
        else:
            self._put(name, data)

    def complete(self) -> tuple[str, int]:
        """Nothing waits to be flushed; a finished pack must be the very same."""
        if self.finished and self.store.cat_file(f"{self.root}/{SUMS}") != self.sums:
            raise _other_pack(self.url)
        for name in self.found - set(self.names) - {SUMS}:
            self.store.rm_file(f"{self.root}/{name}")
        return self.names[SUMS], self.size

    def publish(self) -> None:
        """Puts the check sums and takes the mark of the unfinished away."""
        if not self.finished:
            self._put(SUMS, self.sums)
            self.store.rm_file(f"{self.root}/{_UNFINISHED}")

    def close(self) -> None:
        """Leaves the objects where they are."""

    def discard(self) -> None:
        """Removes the objects of the unfinished pack."""
        if not self.finished:
            for name in [*self.names, _UNFINISHED]:
                with suppress(FileNotFoundError):
                    self.store.rm_file(f"{self.root}/{name}")

    def _put(self, name: str, data: bytes) -> None:
        path = f"{self.root}/{name}"
        self.store.makedirs(path.rpartition("/")[0], exist_ok=True)
        self.store.pipe_file(path, data)

    def _listed(self) -> dict[str, int]:
        try:
            found = self.store.find(self.root, detail=True)
        except FileNotFoundError:
            return {}
        head = f"{self.root.strip('/')}/"
        return {
            path.strip("/").removeprefix(head): int(each["size"]) for path, each in found.items()
        }

    def _unfinished_plan(self) -> str | None:
        try:
            told = json.loads(self.store.cat_file(f"{self.root}/{_UNFINISHED}"))
        except (ValueError, FileNotFoundError):
            return None
        return told.get("plan") if isinstance(told, dict) else None


def _store(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ModuleNotFoundError:
        raise SetupError(
            f"{url} needs fsspec: install it with pip install -c constraints.txt '.[stores]'"
        ) from None
    try:
        store, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise SetupError(f"{url}: {error}") from None
    except ValueError as error:
        remedy = f"one of {', '.join(sorted(fsspec.available_protocols())[:20])} …"
        raise InputError("export", [Fault(str(error), url, remedy)]) from None
    return store, str(root).rstrip("/")


def plan_of(parts: Sequence[object]) -> str:
    """What an unfinished pack is of: SHA-256 over everything that decides its content."""
    return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()
