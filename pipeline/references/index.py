"""The vector index of a reference library: add, remove, search; exact or inverted lists by size.

Library embeddings go in, similarity asks. A folder on disk, memory-mapped; any number of readers
beside one writer; `pipeline.references.rebuild` keeps it fast as it grows.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import InputError, SetupError
from pipeline.references.accept import id_faults, rows_of, vector_faults
from pipeline.references.exact import fits, nearest_rows
from pipeline.references.generation import Generation, open_generation
from pipeline.references.state import STATE, State, commit, damaged, write_lock
from pipeline.references.writing import append, remove_rows, settle

if TYPE_CHECKING:
    import torch

EXACT_UP_TO = 200_000
"""References up to which comparing with all of them is quick enough."""
_SPARE = 4
"""More than asked are looked at, so that rounding and equal vectors do not decide who is last."""
_FEW = 64
"""Vectors beside the lists that are compared one by one with a query, in the mean."""
_PAIRS = 64
"""Cosines computed at once: larger pieces spend their time on getting memory."""


class VectorIndex:
    """Unit float32 vectors under int64 ids; the inner product is the cosine.

    An object sees the index as it was when it was opened, or last changed through it: open it again
    for what others changed. (Their removals show at once, unless a rebuild came in between.) Many
    processes may read while one writes.
    """

    def __init__(self, generation: Generation):
        self._generation = generation
        self._on_device: tuple[str, list[tuple[int, torch.Tensor]]] | None = None

    @classmethod
    def create(
        cls, folder: Path, dimension: int, model_digest: str, exact_up_to: int = EXACT_UP_TO
    ) -> VectorIndex:
        """An empty index in a new folder, for vectors of one model. Raises SetupError if taken."""
        folder.mkdir(parents=True, exist_ok=True)
        with write_lock(folder):
            if (folder / STATE).exists():
                raise SetupError(f"there is an index in {folder} already; open it instead")
            state = State(model_digest, dimension, exact_up_to)
            for kind in ("ids", "vectors"):
                state.file(folder, kind).write_bytes(b"")
            commit(folder, state)
        return cls(open_generation(folder))

    @classmethod
    def open(cls, folder: Path, model_digest: str) -> VectorIndex:
        """The index in a folder.

        Raises SetupError when it holds another model's embeddings, or files are absent, short or
        damaged.
        """
        generation = open_generation(folder)
        held = generation.state.model_digest
        if held != model_digest:
            raise SetupError(
                f"the index in {folder} holds embeddings of model {held[:12]}…, not of "
                f"{model_digest[:12]}…: embeddings of another model are never mixed; embed the "
                f"library again with this model, or configure the model it was made with"
            )
        return cls(generation)

    @property
    def ids(self) -> NDArray[np.int64]:
        """The ids of all vectors, int64 [len], in no promised order."""
        return self._generation.ids[self._generation.live()]

    def __len__(self) -> int:
        return int(np.count_nonzero(self._generation.live()))

    @property
    def dimension(self) -> int:
        """D, the length of a vector."""
        return self._generation.state.dimension

    @property
    def kind(self) -> Literal["exact", "ivf"]:
        """Whether every vector is compared, or those of the nearest inverted lists."""
        return "ivf" if self._generation.lists else "exact"

    @property
    def recall(self) -> float:
        """Recall@1 against exact, 0..1, measured on perturbed vectors; exact search has 1.0."""
        lists = self._generation.state.lists
        return lists.recall if lists else 1.0

    @property
    def stale(self) -> str:
        """Why a rebuild is due, or "". Search stays right meanwhile; it only takes longer."""
        state = self._generation.state
        holes = state.rows - len(self)
        if holes > state.rows / 4:
            return f"{holes:,} of {state.rows:,} rows are holes of removed references"
        if not state.lists and len(self) > state.exact_up_to:
            return f"{len(self):,} references are compared one by one"
        # Beyond this, those beside the lists cost more than the lists themselves.
        if state.lists and state.flat_rows > max(state.exact_up_to // 10, state.lists.rows // 50):
            return f"{state.flat_rows:,} references were added since the last rebuild"
        return ""

    def add(self, vectors: ArrayLike, ids: ArrayLike) -> None:
        """Append unit vectors [N, D] under new ids [N], all or none of them, for good.

        Raises InputError with all faults at once (shape, NaN, length, ids), BusyError when another
        process is writing, SetupError when the disk is full.
        """
        new, numbers = np.asarray(vectors, np.float32), np.asarray(ids)
        with write_lock(self._generation.folder):
            generation = settle(self._generation.folder)
            faults = vector_faults(new, generation.state.dimension)
            faults += id_faults(numbers, len(new) if new.ndim else 0, generation)
            if faults:
                raise InputError("vectors to add", faults)
            if len(numbers):
                generation = append(generation, new, numbers.astype(np.int64))
            self._renew(generation)

    def remove(self, ids: ArrayLike) -> None:
        """Remove vectors for good: afterwards their bytes are in no file of the folder.

        They are overwritten where they lie, a few kilobytes each, whatever the index's size; the
        holes are closed by the next rebuild. A rebuild under way starts over. What the file system
        or a backup keeps of old blocks is beyond this. Raises InputError for unknown ids, BusyError
        when another process is writing.
        """
        numbers = np.unique(np.asarray(ids, np.int64))
        with write_lock(self._generation.folder):
            generation = settle(self._generation.folder)
            rows = rows_of(numbers, generation)
            self._renew(remove_rows(generation, rows) if len(rows) else generation)

    def vectors(self, ids: ArrayLike) -> NDArray[np.float32]:
        """The vectors of ids, float32 [N, D]. Raises InputError for unknown ids, all at once."""
        numbers = np.asarray(ids, np.int64)
        return self._generation.gather(rows_of(numbers, self._generation))

    def search(
        self, queries: ArrayLike, top: int, device: str = "cpu"
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The nearest: cosines float32 [Q, top], -1..1, and ids int64 [Q, top], best first.

        Where there are fewer, -inf and -1. A query that is not a number has cosines NaN and ids -1.
        Equal cosines come by id. On `cuda` and `mps` search is exact when all vectors fit there.
        The cosine of a pair is the same to the last bit for every kind, batch and device. Raises
        InputError for queries that are not unit vectors [Q, D].
        """
        asked = np.asarray(queries, np.float32)
        finite = np.isfinite(asked)
        if faults := vector_faults(np.where(finite, asked, np.nan), self.dimension, nan=True):
            raise InputError("queries", faults)
        readable: NDArray[np.bool_] = np.asarray(finite.all(axis=1))
        asked = np.where(readable[:, None], asked, np.float32(0))
        rows = self._candidates(asked, top + _SPARE + len(self._generation.state.removing), device)
        cosines, ids = self._ranked(asked, rows)
        cosines[~readable], ids[~readable] = np.nan, -1
        return cosines[:, :top], ids[:, :top]

    def _candidates(self, queries: NDArray[np.float32], top: int, device: str) -> NDArray[np.int64]:
        generation = self._generation
        held = self._held_by(device)
        if held is not None:
            return nearest_rows(queries, held, generation.ids, top, device)
        lists, state = generation.lists, generation.state.lists
        if not (lists and state):
            return nearest_rows(queries, generation.flat_blocks(), generation.ids, top)
        listed, searched = lists.search(queries, top, state.nprobe)
        flat = generation.flat_in(searched, most=_FEW * len(queries))
        if flat is None:
            flat = nearest_rows(queries, generation.flat_blocks(), generation.ids, top)
        return np.concatenate([listed, flat], axis=1)

    def _held_by(self, device: str) -> list[tuple[int, torch.Tensor]] | None:
        """All vectors on an accelerator, once copied they stay; None when they do not fit there."""
        import torch

        if self._on_device and self._on_device[0] == device:
            return self._on_device[1]
        if not fits(self._generation.state.rows, self.dimension, device):
            return None
        blocks = self._generation.blocks()
        held = [(first, torch.from_numpy(block).to(device)) for first, block in blocks]
        self._on_device = device, held
        return held

    def _ranked(
        self, queries: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines and ids of candidates, best first, each cosine computed in one way."""
        generation = self._generation
        asked, place = np.nonzero(rows >= 0)
        found = rows[asked, place]
        near = np.empty(len(found), np.float32)
        for start in range(0, len(found), _PAIRS):
            part = slice(start, start + _PAIRS)
            vectors = generation.gather(found[part]).astype(float)
            near[part] = np.einsum("nd,nd->n", vectors, queries[asked[part]].astype(float))
        # After the vectors, see `nearest_rows`.
        named = np.where(np.isin(found, generation.state.removing), -1, generation.ids[found])
        if np.isnan(near[named >= 0]).any():
            raise damaged(generation.folder, "a vector is not a number")
        cosines = np.full(rows.shape, -np.inf, np.float32)
        ids = np.full(rows.shape, -1, np.int64)
        cosines[asked, place] = np.where(named >= 0, near, -np.inf)
        ids[asked, place] = named
        order = np.lexsort((ids, -cosines))
        return np.take_along_axis(cosines, order, axis=1), np.take_along_axis(ids, order, axis=1)

    def _renew(self, generation: Generation) -> None:
        self._generation, self._on_device = generation, None
