"""Where the files of a library lie beside the catalog, and who may change them at a time.

Everything here is derived from the works' pictures and named by their bytes: what a killed writer
leaves can be too much, never wrong.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BusyError
from pipeline.references.hashes import keep_hashes
from pipeline.references.index import VectorIndex

PATIENCE = 30.0


@dataclass(frozen=True)
class Place:
    """The folder of one library."""

    folder: Path

    @property
    def hashes(self) -> Path:
        """PDQ hashes (pipeline/references/hashes.py)."""
        return self.folder / "hashes.pdq"

    @property
    def stamps(self) -> Path:
        """What is known of the files of a library that is kept equal to a folder."""
        return self.folder / "folder.json"

    def picture(self, sha256: str) -> Path:
        """The small picture of a work."""
        return self.folder / "pictures" / f"{sha256}.jpg"

    def vectors(self, digest: str, role: str) -> Path:
        """The index of the embeddings of the works of a role by the model with that digest."""
        return self.folder / "vectors" / f"{digest}-{role}"

    def model(self, digest: str) -> Path:
        """What people call the model."""
        return self.folder / "vectors" / f"{digest}.json"

    def indexes(self) -> Iterator[tuple[str, str, Path]]:
        """The indexes that there are: digest, role, folder."""
        for folder in sorted(self.folder.glob("vectors/*-*/")):
            digest, _, role = folder.name.rpartition("-")
            yield digest, role, folder

    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


def place_of(catalog: Path, library: str) -> Place:
    """The place of a library beside the catalog in that folder."""
    return Place(catalog / "references" / library)


def content_id(sha256: str) -> int:
    """The id of a work's hash and embeddings: the first 60 bits of its file's SHA-256.

    Among a million works two share one with a probability of 4e-7.
    """
    return int(sha256[:15], 16)


def content_ids(sha256s: Collection[str]) -> NDArray[np.int64]:
    """The same of many, int64 [N]."""
    return np.fromiter(map(content_id, sha256s), np.int64, len(sha256s))


@contextmanager
def changing(place: Place, patience: float = PATIENCE) -> Iterator[None]:
    """Hold a library's files for a change. Raises BusyError after `patience` seconds."""
    place.folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    with (place.folder / ".lock").open("a+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    file.seek(0)
                    raise BusyError(
                        f"another process is changing the library {place.folder.name!r} (process "
                        f"{file.read().strip() or 'unknown'}); run again when it is done"
                    ) from None
                time.sleep(0.1)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def keep_only(place: Place, sha256s: Collection[str]) -> None:
    """Everything derived from other files is gone afterwards. For the holder of `changing`."""
    ids = content_ids(sha256s)
    for digest, _, folder in place.indexes():
        index = VectorIndex.open(folder, digest)
        gone = np.setdiff1d(index.ids, ids)
        if len(gone):
            index.remove(gone)
    keep_hashes(place.hashes, ids)
    kept = frozenset(sha256s)
    for picture in place.folder.glob("pictures/*"):
        if picture.stem not in kept:
            picture.unlink()
