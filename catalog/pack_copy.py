"""Copies one file of a pack: read once, each chunk hashed and written from the same memory.

It goes past the system's cache where the disk allows: a page there costs more processor time than
its hash, and a pack would push all else out.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path

_CHUNK = 1 << 20
_BLOCK = 4096
"""What disks want addresses and lengths to be multiples of, who write past the cache."""
_PAST_CACHE = getattr(os, "O_DIRECT", 0)
_of_thread = threading.local()


class Unreadable(Exception):
    """The file to copy is missing or cannot be read; it says why."""


def copy_file(source: Path, file: Path) -> tuple[str, int]:
    """Copies `source` to `file` and flushes it; SHA-256 (hex) and number of the bytes written.

    Raises Unreadable, and OSError when `file` cannot be written.
    """
    descriptor = _opened(file)
    try:
        found = read_once(source, lambda chunk: _write(descriptor, chunk))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return found


def write_file(data: bytes, file: Path) -> None:
    """Writes `data` to `file` and flushes it. Raises OSError when it cannot be written."""
    descriptor, buffer = _opened(file), _buffer()
    try:
        for start in range(0, len(data), _CHUNK):
            chunk = buffer[: min(_CHUNK, len(data) - start)]
            chunk[:] = memoryview(data)[start : start + _CHUNK]
            _write(descriptor, chunk)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_once(
    source: Path, take: Callable[[memoryview], object] = lambda chunk: None
) -> tuple[str, int]:
    """SHA-256 (hex) and size of a file, whose chunks `take` gets one by one. Raises Unreadable."""
    digest, size, buffer = hashlib.sha256(), 0, _buffer()
    try:
        stream = source.open("rb", buffering=0)
    except OSError as error:
        raise Unreadable(error.strerror) from error
    with stream:
        while True:
            try:
                count = stream.readinto(buffer)
            except OSError as error:
                raise Unreadable(error.strerror) from error
            if not count:
                return digest.hexdigest(), size
            chunk = buffer[:count]
            digest.update(chunk)
            take(chunk)
            size += count


def _buffer() -> memoryview:
    """The thread's own, at the start of a page."""
    if not hasattr(_of_thread, "buffer"):
        _of_thread.buffer = memoryview(mmap.mmap(-1, _CHUNK))
    found: memoryview = _of_thread.buffer
    return found


def _opened(file: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        return os.open(file, flags | _PAST_CACHE, 0o666)
    except OSError as error:
        if error.errno != errno.EINVAL or not _PAST_CACHE:
            raise
        return os.open(file, flags, 0o666)


def _write(descriptor: int, chunk: memoryview) -> None:
    while chunk:
        # The end of a file is no whole block.
        count = len(chunk) // _BLOCK * _BLOCK
        if not count:
            _use_cache(descriptor)
            count = len(chunk)
        try:
            chunk = chunk[os.write(descriptor, chunk[:count]) :]
        except OSError as error:
            if error.errno != errno.EINVAL or not _use_cache(descriptor):
                raise


def _use_cache(descriptor: int) -> bool:
    """Writes through the system's cache from now on; whether it did not already."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~_PAST_CACHE)
    return bool(flags & _PAST_CACHE)
