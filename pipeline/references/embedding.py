"""Brings a library's embeddings by one model in line with the works that count, role by role."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.references import Embedder, Role
from pipeline.errors import SetupError
from pipeline.images import RgbImage, decode_limited
from pipeline.references.index import VectorIndex
from pipeline.references.originals import Original, read_again
from pipeline.references.place import Place
from pipeline.references.rebuild import rebuild_in_background
from pipeline.references.state import STATE
from pipeline.store import write_file

Indexes = dict[Role, VectorIndex | None]
"""None where no work of the role was ever embedded."""

_BATCH = 64
_BATCH_BYTES = 200_000_000
"""Pixels of one batch, so that it fits into memory whatever people photograph with."""
_REBUILT_FROM = 10_000
"""Works from which an index that could be quicker is rebuilt; fewer are compared at once anyway."""


def open_indexes(place: Place, digest: str, roles: Sequence[Role]) -> Indexes:
    """The embeddings of a model by role. Raises SetupError for damaged ones."""
    indexes: Indexes = {}
    for role in roles:
        folder = place.vectors(digest, role)
        there = (folder / STATE).exists()
        indexes[role] = VectorIndex.open(folder, digest) if there else None
    return indexes


def in_line(indexes: Indexes, wanted: Mapping[Role, NDArray[np.int64]]) -> bool:
    """Whether exactly the wanted works are embedded."""
    return all(np.array_equal(np.sort(_ids(indexes[role])), ids) for role, ids in wanted.items())


def embed_lacking(
    library: str,
    place: Place,
    embedder: Embedder,
    wanted: Mapping[Role, NDArray[np.int64]],
    originals: Callable[[Sequence[int]], Sequence[Original]],
    progress: Callable[[int, int], None] | None = None,
) -> Indexes:
    """Embeds the works that lack, and lets go of those that no longer count. Resumable.

    `wanted` are ids by role. A work whose role changed keeps its embedding. For the holder of
    `changing`. Raises SetupError for files that are gone and for models that give no numbers,
    InputError for faulty files.
    """
    indexes = open_indexes(place, embedder.digest, list(wanted))
    name = json.dumps({"model": embedder.spec.name, "revision": embedder.spec.revision})
    write_file(place.model(embedder.digest), name.encode())
    lacking: dict[int, Role] = {}
    for role, ids in wanted.items():
        _move(place, embedder.digest, indexes, role, ids)
        lacking |= dict.fromkeys(np.setdiff1d(ids, _ids(indexes[role])).tolist(), role)
    files = originals(list(lacking))
    done = 0
    for batch in _batches(read_again(library, files, decode_limited)):
        vectors = embedder.images([picture for _, picture in batch])
        if not np.isfinite(vectors).all():
            raise SetupError(
                f"the model {embedder.spec.name!r} gives no numbers for works of the library "
                f"{library!r}; check its weights"
            )
        ids = np.array([original.id for original, _ in batch], np.int64)
        roles = np.array([lacking[id_] for id_ in ids.tolist()])
        for role in wanted:
            chosen = roles == role
            _add(place, embedder.digest, indexes, role, vectors[chosen], ids[chosen])
        done += len(batch)
        if progress:
            progress(done, len(files))
    for role, ids in wanted.items():
        _tidy(indexes[role], ids, place.vectors(embedder.digest, role))
    return indexes


def _move(
    place: Place, digest: str, indexes: Indexes, role: Role, wanted: NDArray[np.int64]
) -> None:
    """What the role lacks and other roles have: a right that expired, or was changed."""
    for other in [index for index in indexes.values() if index is not None]:
        lacking = np.setdiff1d(wanted, _ids(indexes[role]))
        moved = np.intersect1d(lacking, other.ids)
        if len(moved):
            _add(place, digest, indexes, role, other.vectors(moved), moved)


def _add(
    place: Place,
    digest: str,
    indexes: Indexes,
    role: Role,
    vectors: NDArray[np.float32],
    ids: NDArray[np.int64],
) -> None:
    if not len(ids):
        return
    index = indexes[role]
    if index is None:
        index = VectorIndex.create(place.vectors(digest, role), vectors.shape[1], digest)
        indexes[role] = index
    index.add(vectors, ids)


def _tidy(index: VectorIndex | None, wanted: NDArray[np.int64], folder: Path) -> None:
    if index is None:
        return
    gone = np.setdiff1d(index.ids, wanted)
    if len(gone):
        index.remove(gone)
    if len(index) > _REBUILT_FROM and index.stale:
        rebuild_in_background(folder)


def _batches(
    read: Iterator[tuple[Original, RgbImage]],
) -> Iterator[list[tuple[Original, RgbImage]]]:
    batch: list[tuple[Original, RgbImage]] = []
    size = 0
    for original, picture in read:
        batch.append((original, picture))
        size += picture.nbytes
        if len(batch) == _BATCH or size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _ids(index: VectorIndex | None) -> NDArray[np.int64]:
    return np.zeros(0, np.int64) if index is None else index.ids
