"""How an index's files change: rows are appended, removed ones are overwritten where they lie.

All of this under the write lock. Order makes it safe: bytes first, then the state that counts them;
for a removal the decision first, then the bytes, and whoever writes next finishes it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SetupError
from pipeline.references.generation import Generation, open_generation
from pipeline.references.inverted import InvertedLists, assign
from pipeline.references.state import BUILDING, STATE, commit

_GIVES_AWAY = 0.999
"""A cosine to its centroid from which a removed vector could be read off that centroid."""


def settle(folder: Path) -> Generation:
    """The index as committed, with the leavings of killed writers cleared away."""
    generation = open_generation(folder)
    state = generation.state
    sizes = {"ids": 8 * state.rows, "vectors": 4 * generation.flat.size}
    if state.lists:
        sizes["assigned"] = 8 * state.flat_rows
    for kind, size in sizes.items():
        path = state.file(folder, kind)
        if path.stat().st_size > size:
            os.truncate(path, size)
    current = state.file(folder, "ids").stem
    for path in folder.iterdir():
        if (path.stem.isdigit() and path.stem != current) or path.name.startswith(f"{STATE}."):
            path.unlink()
    return _finish_removal(generation) if state.removing else generation


def append(
    generation: Generation, vectors: NDArray[np.float32], ids: NDArray[np.int64]
) -> Generation:
    """The index with these rows behind the others. Raises SetupError when the disk is full."""
    state, folder = generation.state, generation.folder
    files: dict[str, NDArray[np.float32] | NDArray[np.int64]] = {"vectors": vectors, "ids": ids}
    if generation.lists:
        files["assigned"] = assign(vectors, generation.lists.centroids())
    try:
        for kind, rows in files.items():
            with state.file(folder, kind).open("ab") as file:
                write_blocks(file, [rows])
    except OSError as error:
        settle(folder)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise SetupError(f"cannot write to {folder}: {error.strerror}") from error
        raise SetupError(
            f"no room left on the disk of {folder}: free some and add again; the index is as before"
        ) from error
    commit(folder, replace(state, rows=state.rows + len(ids)))
    return open_generation(folder)


def write_blocks(
    file: IO[bytes], blocks: Iterable[NDArray[np.float32] | NDArray[np.int64]]
) -> None:
    """Write arrays one after another and flush them to the disk."""
    for block in blocks:
        file.write(np.ascontiguousarray(block).view(np.uint8).data if block.size else b"")
    file.flush()
    os.fsync(file.fileno())


def remove_rows(generation: Generation, rows: NDArray[np.int64]) -> Generation:
    """The index without these rows; their bytes are in no file of its folder afterwards."""
    commit(generation.folder, replace(generation.state, removing=tuple(rows.tolist())))
    return _finish_removal(open_generation(generation.folder))


def _finish_removal(generation: Generation) -> Generation:
    folder, state = generation.folder, generation.state
    rows = np.array(sorted(state.removing), np.int64)
    # A rebuild under way copies what is removed here; it sees the count of removals and restarts.
    (folder / BUILDING).unlink(missing_ok=True)
    _overwrite(state.file(folder, "ids"), 8 * rows, np.full((len(rows), 1), -1, np.int64))
    lists, listed = generation.lists, rows < generation.listed
    if lists and state.lists:
        path = state.file(folder, "faiss")
        changed, centroids = _recentred(lists, rows[listed])
        row_bytes = 4 * state.dimension
        _overwrite(path, state.lists.centroids_at + row_bytes * changed, centroids)
        _overwrite(path, lists.offsets(rows[listed]), _nothing(listed.sum(), state.dimension))
    places = 4 * state.dimension * (rows[~listed] - generation.listed)
    _overwrite(state.file(folder, "vectors"), places, _nothing((~listed).sum(), state.dimension))
    commit(folder, replace(state, removing=(), removals=state.removals + 1))
    return open_generation(folder)


def _nothing(count: np.int64, dimension: int) -> NDArray[np.float32]:
    return np.broadcast_to(np.float32(np.nan), (int(count), dimension))


def _overwrite(
    path: Path, offsets: NDArray[np.int64], rows: NDArray[np.float32] | NDArray[np.int64]
) -> None:
    with path.open("r+b") as file:
        for offset, row in zip(offsets.tolist(), rows, strict=True):
            file.seek(offset)
            file.write(row.tobytes())
        file.flush()
        os.fsync(file.fileno())


def _recentred(
    lists: InvertedLists, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Lists whose centroid is as good as a removed vector, and centroids of what stays in them."""
    numbers, centroids = lists.list_of(rows), lists.centroids()
    cosines = np.einsum("nd,nd->n", lists.gather(rows), centroids[numbers])
    changed = np.unique(numbers[cosines > _GIVES_AWAY])
    renewed = np.zeros((len(changed), centroids.shape[1]), np.float32)
    for place, number in enumerate(changed):
        staying = np.setdiff1d(np.arange(lists.starts[number], lists.starts[number + 1]), rows)
        vectors = lists.gather(staying)
        mean = vectors[np.isfinite(vectors).all(axis=1)].sum(axis=0)
        renewed[place] = mean / max(float(np.linalg.norm(mean)), 1e-6)
    return changed, renewed
