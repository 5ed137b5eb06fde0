"""Where a pack is written: a zip, a tar, a folder, or any store that fsspec knows.

A target takes files in the pack's order. Nothing shows under its name before `publish`. What an
interrupted export left is taken up again: a file counts when its bytes have the SHA-256 asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from catalog.pack_to_archive import ArchiveTarget
from catalog.pack_to_folder import FolderTarget
from catalog.pack_to_store import StoreTarget
from pipeline.errors import Fault, InputError

Copy = Callable[[str, Path], str]
"""Copies a file under a name; SHA-256 (hex) of the bytes that it read."""


class Target(Protocol):
    """What packs are written to. `plan` in `open_target` says what an unfinished pack was of."""

    @property
    def copy(self) -> Copy | None:
        """Puts a file where `holds` finds it, from any thread; None where only `add` does.

        Raises catalog.pack_copy.Unreadable, and OSError when it cannot be written.
        """

    def holds(self, name: str, sha256: str, size: int) -> bool:
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


def plan_of(parts: Sequence[object]) -> str:
    """What an unfinished pack is of: SHA-256 over everything that decides its content."""
    return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()
