"""The check sums that a pack brings: every file that SHA256SUMS lists is there, and as it was.

Images are hashed by pipeline/verify_many.py anyway and only compared here; the other files, the
pack's papers, are hashed here. Nothing is unpacked to disk.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pipeline.verify import Report
from pipeline.verify_files import PACK_ERRORS, is_image, is_pack, is_zip, tar_members

SUMS = "SHA256SUMS"
"""The last file of a pack: a line a file, as `sha256sum` writes and checks it."""
_HEAD = "pack.json"
_SHEET = "contact-sheet.jpg"
_LEFT_BY_SYSTEMS = (".DS_Store", "Thumbs.db", "desktop.ini")
"""What file managers leave in a folder that somebody looked at."""
_MAX_SUMS = 64 << 20
_MAX_PAPERS = 4 << 30
"""Bytes of one pack's papers: what claims more is no pack of images."""
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_CHUNK = 1 << 20


@dataclass
class PackSums:
    """A pack's check sums. `root` is its path, `listed` SHA-256 (hex) by name, `found` those of its
    papers, `unlisted` names its files that are neither listed nor images. `seen` grows with the
    images that `fault_of` was asked about."""

    root: Path
    listed: dict[str, str]
    found: dict[str, str]
    fault: str | None = None
    """Why the sums, or some of them, cannot be read."""
    unlisted: dict[str, None] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def is_paper(self, name: str) -> bool:
        """Whether a file is one of the pack's own papers (its contact sheet is an image), which
        carry no manifest: its check sum is all that there is."""
        return name in self.listed and (
            not is_image(name) or (name == _SHEET and _HEAD in self.listed)
        )

    def fault_of(self, name: str, sha256: str | None) -> str | None:
        """What is wrong with an image of this SHA-256 (None: it could not be read)."""
        self.seen.add(name)
        if name not in self.listed:
            return f"{SUMS} does not list it" if _HEAD in self.listed else None
        if self.listed[name] == sha256:
            return None
        return f"its bytes are not those that {SUMS} lists"

    def rest(self) -> Iterator[Report]:
        """A report for each paper that is not as listed, each file that is missing, and each that
        was put in."""
        if self.fault:
            yield self._report(SUMS, self.fault)
        for name, sha256 in self.listed.items():
            if self.is_paper(name):
                found = self.found.get(name)
                if found is None:
                    yield self._report(name, f"{SUMS} lists it, and it is missing")
                elif found != sha256:
                    yield self._report(name, f"its bytes are not those that {SUMS} lists")
            elif name not in self.seen:
                yield self._report(name, f"{SUMS} lists it, and it is missing")
        for name in self.unlisted if _HEAD in self.listed else ():
            yield self._report(name, f"{SUMS} does not list it")

    def add(self, name: str) -> None:
        """Notes a file of the pack that is no image."""
        if name not in self.listed and name != SUMS:
            self.unlisted[name] = None

    def _report(self, name: str, error: str) -> Report:
        why = ("the pack is not as it was delivered",)
        return Report(f"{self.root}/{name}", error=error, why=why, decodes=None)


class Packs:
    """The packs with check sums among paths and below them."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.by_root = {each.root: each for path in paths for each in _packs_in(path)}

    def of(self, path: Path) -> tuple[PackSums, str] | None:
        """The innermost pack that holds a reported path, and its name there."""
        for root in path.parents:
            if root in self.by_root:
                return self.by_root[root], path.relative_to(root).as_posix()
        return None

    def is_paper(self, path: Path) -> bool:
        """Whether a file is one of a pack's own papers."""
        found = self.of(path) if self.by_root else None
        return found is not None and found[0].is_paper(found[1])

    def fault_of(self, path: Path, sha256: str | None) -> str | None:
        """What the check sums of its pack say against a file; None: nothing."""
        found = self.of(path) if self.by_root else None
        return found[0].fault_of(found[1], sha256) if found else None

    def rest(self) -> Iterator[Report]:
        """What is wrong with all other files of the packs; asked when the images are done."""
        for pack in self.by_root.values():
            yield from pack.rest()


def _packs_in(path: Path) -> Iterator[PackSums]:
    if path.is_dir():
        # What cannot be listed is told where images are looked for.
        for folder, _, files in os.walk(path):
            if SUMS in files and Path(folder, SUMS).is_file():
                yield from _read(Path(folder), _of_folder)
            for name in files:
                if is_pack(Path(name)):
                    yield from _packs_in(Path(folder, name))
    elif is_pack(path) and path.is_file():
        yield from _read(path, _of_zip if is_zip(path) else _of_tar)


def _read(root: Path, read: Callable[[Path], PackSums | None]) -> Iterator[PackSums]:
    try:
        found = read(root)
    except PACK_ERRORS as error:
        found = PackSums(root, {}, {}, f"cannot be read: {error or type(error).__name__}")
    if found:
        yield found


def _of_folder(root: Path) -> PackSums:
    with (root / SUMS).open("rb") as stream:
        pack = _parsed(root, stream.read(_MAX_SUMS))
    hashed = _Hashed()
    for name in pack.listed:
        file = root / name
        inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        if pack.is_paper(name) and inside and file.is_file():
            with file.open("rb") as stream:
                pack.found[name] = hashed.digest(stream)
    for folder, folders, files in os.walk(root):
        # A pack inside has sums of its own.
        folders[:] = sorted(each for each in folders if not Path(folder, each, SUMS).is_file())
        for name in sorted(files):
            if not is_image(name) and name not in _LEFT_BY_SYSTEMS:
                pack.add(Path(folder, name).relative_to(root).as_posix())
    return hashed.checked(pack)


def _of_zip(path: Path) -> PackSums | None:
    with zipfile.ZipFile(path) as archive:
        if SUMS not in archive.namelist():
            return None
        with archive.open(SUMS) as stream:
            pack = _parsed(path, stream.read(_MAX_SUMS))
        hashed = _Hashed()
        for info in archive.infolist():
            if pack.is_paper(info.filename):
                with archive.open(info) as stream:
                    # Of two files of one name, one that is not as listed is told.
                    _keep(pack, info.filename, hashed.digest(stream))
            elif not (info.is_dir() or is_image(info.filename)):
                pack.add(info.filename)
    return hashed.checked(pack)


def _of_tar(path: Path) -> PackSums | None:
    """One pass: the sums come last, so everything that may be a paper is hashed on the way."""
    text, digests, hashed = None, [], _Hashed()
    links: list[str] = []
    with tarfile.open(path, "r:*") as archive:
        for member in tar_members(archive):
            # As `tar -C pack .` names them.
            name = member.name.removeprefix("./")
            image = is_image(name) and name != _SHEET
            stream = archive.extractfile(member) if member.isreg() and not image else None
            if stream is None:
                if not (member.isreg() or member.isdir()):
                    links.append(name)
                continue
            if name == SUMS:
                text = stream.read(_MAX_SUMS)
            else:
                digests.append((name, hashed.digest(stream)))
    if text is None:
        return None
    pack = _parsed(path, text)
    for name, sha256 in digests:
        if pack.is_paper(name):
            _keep(pack, name, sha256)
    for name in [*(name for name, _ in digests if not is_image(name)), *links]:
        pack.add(name)
    return hashed.checked(pack)


def _keep(pack: PackSums, name: str, sha256: str) -> None:
    if pack.found.get(name, pack.listed[name]) == pack.listed[name]:
        pack.found[name] = sha256


def _parsed(root: Path, text: bytes) -> PackSums:
    lines = text.decode("utf-8", "replace").splitlines()
    found = [_LINE.fullmatch(line) for line in lines]
    listed = {match[2]: match[1] for match in found if match}
    strange = sum(match is None for match in found)
    return PackSums(root, listed, {}, f"{strange:,} lines are no check sums" if strange else None)


class _Hashed:
    """SHA-256 of a pack's papers, up to what all of them together may have."""

    def __init__(self) -> None:
        self.left = _MAX_PAPERS

    def digest(self, stream: IO[bytes]) -> str:
        """In hex; nothing of what is too much."""
        digest = hashlib.sha256()
        while self.left >= 0 and (chunk := stream.read(_CHUNK)):
            self.left -= len(chunk)
            digest.update(chunk)
        return digest.hexdigest() if self.left >= 0 else ""

    def checked(self, pack: PackSums) -> PackSums:
        """The pack, with a fault when it was too much."""
        if self.left < 0:
            pack.fault = f"its papers have more than {_MAX_PAPERS >> 30} GiB"
        return pack
