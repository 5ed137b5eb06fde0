"""The bytes of a pack's zip or tar: uncompressed, without times, so that a part can be taken up.

Python's zipfile goes back to patch headers and its tarfile needs a finished archive to append to;
here an archive only ever grows, and whole files of an interrupted one are recognised.
"""

from __future__ import annotations

import hashlib
import io
import os
import queue
import struct
import tarfile
import threading
import zipfile
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

# The earliest time that zip can say: packs know no clock.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_CHUNK = 1 << 20
_FLUSH = 64 << 20
"""Bytes after which the disk is given what was written: by itself the kernel starts late."""


@dataclass(frozen=True)
class Entry:
    """One file of an archive: where its header starts and its padded data end, in bytes."""

    name: str
    sha256: str
    size: int
    crc: int
    start: int
    end: int


class Form(Protocol):
    """How an archive's bytes are laid out."""

    entries: list[Entry]

    def head(self, name: str, data: bytes, sha256: str, start: int) -> tuple[bytes, Entry]:
        """The header of a file that starts at `start`."""

    def padding(self, size: int) -> int:
        """Zero bytes after data of this size."""

    def end(self, start: int) -> bytes:
        """What ends the archive, from `start` on."""

    def scan(self, stream: IO[bytes]) -> list[Entry]:
        """The whole files at the start of an interrupted archive, hashed."""


def form_of(path: Path) -> Form:
    """By the file's suffix."""
    return TarForm() if path.suffix.lower() == ".tar" else ZipForm()


class ZipForm:
    """ZIP, method "stored" (APPNOTE 6.3.10, 4.3)."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def head(self, name: str, data: bytes, sha256: str, start: int) -> tuple[bytes, Entry]:
        """A local file header with size and check sum."""
        info = self._info(name, len(data), zlib.crc32(data), start)
        header = info.FileHeader()
        end = start + len(header) + len(data)
        return header, Entry(name, sha256, len(data), info.CRC, start, end)

    def padding(self, size: int) -> int:
        """None."""
        return 0

    def end(self, start: int) -> bytes:
        """The central directory, as zipfile writes it."""
        tail = _Tail(start)
        archive = zipfile.ZipFile(tail, "w")  # type: ignore[call-overload]
        archive.filelist = [
            self._info(each.name, each.size, each.crc, each.start) for each in self.entries
        ]
        archive.close()
        return tail.written.getvalue()

    def scan(self, stream: IO[bytes]) -> list[Entry]:
        """Follows the local headers as long as they are as written here and check sums hold."""
        found: list[Entry] = []
        stream.seek(0)
        while len(raw := stream.read(_LOCAL_HEADER.size)) == _LOCAL_HEADER.size:
            mark, _, flags, method, _, _, _, size, full, name_size, extra = _LOCAL_HEADER.unpack(
                raw
            )
            if mark != b"PK\x03\x04" or flags or method or size != full or extra:
                break
            named = stream.read(name_size)
            name = named.decode("ascii", "replace")
            start = found[-1].end if found else 0
            entry = _hashed(stream, name, size, start)
            if (
                entry is None
                or raw + named != self._info(name, size, entry.crc, start).FileHeader()
            ):
                break
            found.append(entry)
        return found

    def _info(self, name: str, size: int, crc: int, start: int) -> zipfile.ZipInfo:
        info = zipfile.ZipInfo(name, _EPOCH)
        info.create_system = 3  # Unix, whatever system writes it
        info.external_attr = 0o100644 << 16
        info.file_size = info.compress_size = size
        info.CRC, info.header_offset = crc, start
        return info


class _Tail:
    """What zipfile writes at the end of an archive that was written without it."""

    def __init__(self, start: int) -> None:
        self.start, self.written = start, io.BytesIO()

    def write(self, data: bytes) -> int:
        return self.written.write(data)

    def tell(self) -> int:
        return self.start + self.written.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        return offset

    def flush(self) -> None:
        """Nothing waits."""


class TarForm:
    """POSIX.1-1988 ustar with GNU long names, blocks of 512 bytes."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def head(self, name: str, data: bytes, sha256: str, start: int) -> tuple[bytes, Entry]:
        """A header block."""
        header = self._header(name, len(data))
        end = start + len(header) + len(data) + self.padding(len(data))
        return header, Entry(name, sha256, len(data), 0, start, end)

    def padding(self, size: int) -> int:
        """Up to the next block."""
        return -size % 512

    def end(self, start: int) -> bytes:
        """Two empty blocks, then up to a record of 10,240 bytes, as tar does."""
        return bytes(1024 + -(start + 1024) % 10240)

    def scan(self, stream: IO[bytes]) -> list[Entry]:
        """Follows the headers as long as they are as written here and their data are whole."""
        found: list[Entry] = []
        stream.seek(0)
        try:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                for info in archive:
                    if info.size < 0:
                        break
                    # tarfile reads over bits that it does not need.
                    start = found[-1].end if found else 0
                    stream.seek(start)
                    if stream.read(info.offset_data - start) != self._header(info.name, info.size):
                        break
                    entry = _hashed(stream, info.name, info.size, start)
                    padding = self.padding(info.size)
                    if entry is None or stream.read(padding) != bytes(padding):
                        break
                    end = info.offset_data + info.size + padding
                    found.append(Entry(info.name, entry.sha256, info.size, 0, entry.start, end))
        except (tarfile.TarError, UnicodeError):
            pass
        size = stream.seek(0, io.SEEK_END)
        return [each for each in found if each.end <= size]

    def _header(self, name: str, size: int) -> bytes:
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o644
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def _hashed(stream: IO[bytes], name: str, size: int, start: int) -> Entry | None:
    """The entry whose data come next in the stream, None when they are cut off."""
    digest, crc, left = hashlib.sha256(), 0, size
    while left:
        chunk = stream.read(min(_CHUNK, left))
        if not chunk:
            return None
        digest.update(chunk)
        crc = zlib.crc32(chunk, crc)
        left -= len(chunk)
    return Entry(name, digest.hexdigest(), size, crc, start, stream.tell())


class HashedWriter:
    """Writes an archive, and beside it, on threads of their own, hashes it and has the disk take
    what was written: each costs as much as the writing does. At most a few chunks wait."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.offset = 0
        self.digest: Any = hashlib.sha256()
        self._kept = 0
        self._waiting: queue.Queue[bytes | None] | None = None
        self._thread: threading.Thread | None = None
        self._disk = ThreadPoolExecutor(1)
        self._flushing: Future[None] | None = None
        self._flushed = 0

    def keep(self, entry: Entry) -> None:
        """Goes on behind an entry that an interrupted export wrote."""
        self.offset = self._kept = entry.end

    def write(self, data: bytes) -> None:
        """Appends; the first time over what lies behind the kept entries."""
        if self._waiting is None:
            self._begin()
        self.stream.write(data)
        self.offset += len(data)
        assert self._waiting is not None
        self._waiting.put(data)
        if self.offset - self._flushed >= _FLUSH and (not self._flushing or self._flushing.done()):
            self._flush_ahead()

    def finish(self) -> str:
        """The SHA-256 (hex) of all bytes, which are on the disk then."""
        self.stream.flush()
        self._flush_ahead()
        self.stop()
        if self._flushing:
            self._flushing.result()
        os.fsync(self.stream.fileno())
        return str(self.digest.hexdigest())

    def stop(self) -> None:
        """Ends the threads."""
        if self._waiting is not None and self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
        self._waiting = self._thread = None
        self._disk.shutdown()

    def _flush_ahead(self) -> None:
        # A failure is told once only, to whoever flushes next.
        if self._flushing:
            self._flushing.result()
        self._flushed = self.offset
        self._flushing = self._disk.submit(os.fdatasync, self.stream.fileno())

    def _begin(self) -> None:
        self.stream.truncate(self._kept)
        self.stream.seek(0)
        left = self._kept
        while left:
            chunk = self.stream.read(min(_CHUNK, left))
            self.digest.update(chunk)
            left -= len(chunk)
        self.stream.seek(self._kept)
        self._waiting = queue.Queue(maxsize=8)
        self._thread = threading.Thread(target=self._hash, args=(self._waiting,), daemon=True)
        self._thread.start()

    def _hash(self, waiting: queue.Queue[bytes | None]) -> None:
        while (data := waiting.get()) is not None:
            self.digest.update(data)
