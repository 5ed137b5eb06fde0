"""Which files a verification is about: single ones, folders, and members of packs (zip, tar).

Lists them for pipeline/verify_many.py without unpacking anything to disk.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath

from pipeline.verify import MAX_BYTES

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".gif"}
"""What is looked at in folders and packs, in lower case; a file that is named is always."""
_ZIPS, _TARS = (".zip",), (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
PACK_ERRORS = (OSError, zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, ValueError,
               NotImplementedError, RuntimeError)  # fmt: skip
"""What broken archives raise; RuntimeError: members behind a password."""


@dataclass(frozen=True)
class Item:
    """One file to verify: `path`, or its `member` when that is a pack.

    `offset` and `size` say where an uncompressed tar holds it, in bytes, `place` which member of a
    zip it is; `data` are the bytes of a
    member of a compressed one, which can only be read in order; `fault` says why it has none.
    """

    path: Path
    member: str | None = None
    offset: int | None = None
    size: int = 0
    place: int = 0
    data: bytes | None = field(default=None, repr=False)
    fault: str | None = None

    @property
    def name(self) -> Path:
        """What reports call it: a pack's members are paths below the pack."""
        return Path(f"{self.path}/{self.member.lstrip('/')}") if self.member else self.path


def is_pack(path: Path) -> bool:
    """Whether a file's name says that it is a pack."""
    return path.name.lower().endswith(_ZIPS + _TARS)


def is_zip(path: Path) -> bool:
    """Whether a pack's name says that it is a zip."""
    return path.name.lower().endswith(_ZIPS)


def is_image(name: str) -> bool:
    """Whether a file's name says that it is an image."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def files_in(paths: Iterable[Path]) -> Iterator[Item]:
    """Every file of `paths`: images in folders, by name, and in packs, in their order there.

    Packs in folders are looked into as well; links to folders are not followed. A pack or a folder
    that cannot be read is one item with a `fault`.
    """
    for path in paths:
        if path.is_dir():
            yield from _in_folder(path)
        elif is_pack(path) and path.is_file():
            yield from _in_pack(path)
        else:
            yield Item(path)


def _in_folder(folder: Path) -> Iterator[Item]:
    waiting = [_listed(folder)]
    while waiting:
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
        elif isinstance(entry, Item):
            yield entry
        elif entry.is_dir(follow_symlinks=False):
            waiting.append(_listed(Path(entry.path)))
        elif is_pack(path := Path(entry.path)):
            yield from _in_pack(path)
        elif is_image(entry.name) and not entry.is_dir():
            yield Item(path, size=_size(path))


def _listed(folder: Path) -> Iterator[os.DirEntry[str] | Item]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        yield Item(folder, fault=f"cannot be listed: {error.strerror}")
        return
    yield from entries


def _in_pack(path: Path) -> Iterator[Item]:
    try:
        yield from _in_zip(path) if is_zip(path) else _in_tar(path)
    except PACK_ERRORS as error:
        yield Item(path, fault=f"is no readable pack: {error or type(error).__name__}")


def read(item: Item) -> bytes:
    """A pack member's bytes. Raises one of PACK_ERRORS; none is larger than the limit."""
    if item.fault:
        raise ValueError(item.fault)
    if item.data is not None:
        return item.data
    if item.size > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES >> 20} MiB")
    if item.offset is not None:
        with item.path.open("rb") as file:
            file.seek(item.offset)
            data = file.read(item.size)
        if len(data) < item.size:
            raise ValueError("is cut short")
        return data
    archive = _opened(item.path, item.path.stat().st_mtime_ns)
    with archive.open(archive.infolist()[item.place]) as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES >> 20} MiB")
    return data


def _in_zip(path: Path) -> Iterator[Item]:
    with zipfile.ZipFile(path) as archive:
        # By place, not by name: of two members of one name, both are looked at.
        for place, info in enumerate(archive.infolist()):
            if is_image(info.filename) and not info.is_dir():
                yield Item(path, info.filename, size=info.file_size, place=place)


def _in_tar(path: Path) -> Iterator[Item]:
    try:
        with tarfile.open(path, "r:", tarinfo=_Member) as archive:
            for member in tar_members(archive):
                if member.isreg() and is_image(member.name) and not member.issparse():
                    yield Item(path, member.name, member.offset_data, member.size)
            return
    except tarfile.ReadError:
        if path.name.lower().endswith(".tar"):
            raise
    with tarfile.open(path, "r|*", tarinfo=_Member) as archive:
        for member in tar_members(archive):
            if member.isreg() and is_image(member.name):
                yield _unpacked(path, archive, member)


_MAX_HEADER = 1 << 20
_MAX_UNPACKED = 64 << 30
"""Bytes of a compressed pack, unpacked: what more claims to be is no pack of images."""


class _Member(tarfile.TarInfo):
    """A header that may not claim a name or a record of more than a mebibyte."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        named = self.type in _NAMES and self.size > _MAX_HEADER
        if self.size < 0 or named:
            raise ValueError(f"a header claims {self.size:,} bytes")
        found: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return found


_NAMES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


def tar_members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """A tar's members in order. Raises ValueError when they overlap or are too much in all."""
    last = -1
    for member in archive:
        if member.size < 0 or member.offset <= last or member.offset > _MAX_UNPACKED:
            raise ValueError("its members overlap, or claim more than 64 GiB")
        last = member.offset
        yield member


def _unpacked(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Item:
    stream = archive.extractfile(member)
    if stream is None or member.size > MAX_BYTES:
        return Item(path, member.name, fault=f"is larger than {MAX_BYTES >> 20} MiB")
    return Item(path, member.name, size=member.size, data=stream.read(member.size))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


@lru_cache(maxsize=2)
def _opened(path: Path, modified: int) -> zipfile.ZipFile:
    """Kept open: a large pack's directory takes longer to read than an image."""
    return zipfile.ZipFile(path)
