"""A library as checks see it: its works as they count today, found by embedding or PDQ hash.

What lacks is derived from the works' files before the first image, or stops the run.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from catalog.lake import Lake
from catalog.libraries import Progress, library_row
from catalog.libraries_add import keep_derived
from pipeline.checks.pdq import RELIABLE_QUALITY
from pipeline.checks.references import Embedder, Near, Role
from pipeline.checks.rights import Reference
from pipeline.errors import SetupError
from pipeline.images import ImageRefused, RgbImage, decode_limited
from pipeline.references.derive import derived_of
from pipeline.references.embedding import Indexes, embed_lacking, in_line, open_indexes
from pipeline.references.hashes import nearest, read_hashes
from pipeline.references.originals import Original, read_again
from pipeline.references.place import changing, content_id, content_ids, place_of

ROLES: tuple[Role, ...] = get_args(Role)
_COLUMNS = ("file", "sha256", "title", "rights_holder", "licence", "role", "note", "expires")
_DIGESTED = ("sha256", "counts_as", "role", "title", "rights_holder", "licence", "expires")
_KEPT = 65_536
"""References made of rows; the same few are found again and again."""


class Library:
    """A library of the catalog, open: `References` of pipeline/checks. Made by `open_library`.

    It sees the works as they were when it was opened, or last prepared; embeddings of works that
    are removed meanwhile are gone at once.
    """

    def __init__(self, lake: Lake, name: str, folder: Path, device: str):
        self._lake = lake
        self._name = name
        self._folder = folder
        self._device = device
        self._place = place_of(lake.folder, name)
        self._indexes: dict[str, Indexes] = {}
        self._preparing = threading.Lock()
        self._digest: str | None = None
        if not self._read():
            with changing(self._place):
                self._mend()

    @property
    def name(self) -> str:
        """As policies call it."""
        return self._name

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over all works that count today: file, role and rights."""
        if self._digest is None:
            columns = [self._works[name].to_pylist() for name in _DIGESTED]
            # A separator that no field may hold.
            lines = sorted(
                "\x1f".join("" if each is None else str(each) for each in row) + "\n"
                for row in zip(*columns, strict=True)
                if row[1] is not None
            )
            self._digest = hashlib.sha256("".join(lines).encode()).hexdigest()
        return self._digest

    @property
    def checked_at(self) -> datetime:
        """When somebody last added to it or confirmed it. Aware, in UTC."""
        return self._checked_at

    def count(self, role: Role) -> int:
        """Works that count as that role today."""
        return len(self._ids[role])

    def prepare(self, embedder: Embedder, progress: Progress | None = None) -> None:
        """Makes the embeddings by this model those of the works that count today.

        Raises SetupError when files of works that it has not embedded are gone or changed,
        InputError when they are faulty, BusyError when another process changes the library.
        """
        with self._preparing:
            indexes = open_indexes(self._place, embedder.digest, ROLES)
            if not in_line(indexes, self._ids):
                with changing(self._place):
                    self._mend()
                    indexes = embed_lacking(
                        self._name, self._place, embedder, self._ids, self._originals, progress
                    )
            self._indexes[embedder.digest] = indexes

    def nearest(
        self, embedder: Embedder, vectors: NDArray[np.float32], top: int, role: Role
    ) -> Sequence[Sequence[Near]]:
        """For each unit vector of [Q, D] the `top` works of the role with the largest cosines.

        Raises SetupError when the library has not been prepared for the model.
        """
        if embedder.digest not in self._indexes:
            raise SetupError(
                f"library {self._name!r} is not prepared for the model {embedder.spec.name!r}"
            )
        index = self._indexes[embedder.digest][role]
        if index is None or not len(self._ids[role]):
            return [()] * len(vectors)
        cosines, ids = index.search(vectors, top, self._device)
        return [self._near(role, found, values) for found, values in zip(ids, cosines, strict=True)]

    def nearest_hashes(
        self, hashes: NDArray[np.uint64], top: int, role: Role
    ) -> Sequence[Sequence[Near]]:
        """For each PDQ hash of [Q, 4] the `top` works of the role with the least distances."""
        bits, rows = self._hashes[role]
        distances, found = nearest(hashes, bits, top)
        return [
            [
                Near(self._reference(int(rows[each])), float(value))
                for each, value in zip(places, values, strict=True)
            ]
            for places, values in zip(found, distances, strict=True)
        ]

    def picture(self, reference: Reference) -> RgbImage | None:
        """The small picture of a work, None when it is gone."""
        try:
            return decode_limited(self._place.picture(reference.sha256))
        except (OSError, ImageRefused):
            return None

    def _near(
        self, role: Role, ids: NDArray[np.int64], cosines: NDArray[np.float32]
    ) -> Sequence[Near]:
        if np.isnan(cosines).any():
            return [Near(self._reference(int(self._rows[role][0])), float("nan"))]
        ids, cosines = ids[ids >= 0], cosines[ids >= 0]
        # A work that was added since has an embedding, but is unknown here.
        places = np.searchsorted(self._ids[role], ids).clip(max=len(self._ids[role]) - 1)
        return [
            Near(self._reference(int(self._rows[role][place])), float(cosine))
            for place, id_, cosine in zip(places, ids, cosines, strict=True)
            if self._ids[role][place] == id_
        ]

    def _read(self) -> bool:
        """Takes the works as the catalog has them now; False when some have no hash."""
        self._checked_at: datetime = library_row(self._lake, self._name)["checked_at"]
        self._works = self._lake.read(_WORKS, {"library": self._name})
        self._digest = None
        self._reference = lru_cache(_KEPT)(self._made)
        ids = content_ids(self._works["sha256"].to_pylist())
        counts_as = np.array(self._works["counts_as"].to_pylist(), object)
        self._ids: dict[Role, NDArray[np.int64]] = {}
        self._rows: dict[Role, NDArray[np.int64]] = {}
        self._hashes: dict[Role, tuple[NDArray[np.uint64], NDArray[np.int64]]] = {}
        records = read_hashes(self._place.hashes)
        for role in ROLES:
            rows = np.flatnonzero(counts_as == role)
            self._rows[role] = rows[np.argsort(ids[rows])]
            self._ids[role] = ids[self._rows[role]]
            theirs = records[np.isin(records["id"], self._ids[role])]
            clear = theirs[theirs["quality"] > RELIABLE_QUALITY]
            places = np.searchsorted(self._ids[role], clear["id"])
            self._hashes[role] = clear["hash"].copy(), self._rows[role][places]
        self._unhashed = np.setdiff1d(ids[counts_as != None], records["id"])  # noqa: E711
        return not len(self._unhashed)

    def _mend(self) -> None:
        """Hashes and pictures that works should have and the folder has lost, under the lock.

        What was removed since the library was opened must not come back: so all is read first.
        """
        if self._read():
            return
        files = self._originals(self._unhashed.tolist())
        for _, derived in read_again(self._name, files, derived_of):
            keep_derived(self._place, [derived])
        self._read()

    def _originals(self, ids: Sequence[int]) -> list[Original]:
        columns = (self._works["sha256"].to_pylist(), self._works["file"].to_pylist())
        files = {content_id(sha256): (sha256, file) for sha256, file in zip(*columns, strict=True)}
        return [
            Original(id_, self._folder / file, file, sha256)
            for id_, (sha256, file) in ((id_, files[id_]) for id_ in ids)
        ]

    def _made(self, row: int) -> Reference:
        fields: dict[str, Any] = {name: self._works[name][row].as_py() for name in _COLUMNS}
        return Reference(self._name, **fields)


def open_library(lake: Lake, name: str, folder: Path = Path("/"), device: str = "cpu") -> Library:
    """The library of that name, from a catalog that is open for writing.

    Files of entries that are not absolute start at `folder`; large searches run on `device`.
    Raises SetupError, naming those there are, when there is no such library, or when hashes that
    are lost cannot be made again from the works' files.
    """
    return Library(lake, name, folder, device)


_WORKS = """
SELECT file, sha256, title, rights_holder, licence, role, coalesce(note, '') AS note, expires,
       counts_as
FROM "references" WHERE library = $library ORDER BY work_id"""
