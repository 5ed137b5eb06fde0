"""The files of one committed generation, memory-mapped: ids, vectors beside lists, lists.

A rebuild writes the next generation and unlinks this one; who has it open goes on with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.references.inverted import BLOCK, InvertedLists
from pipeline.references.state import State, damaged, read_state


@dataclass(frozen=True, eq=False)
class Generation:
    """Rows in order: those of the lists, then the flat ones, in the order they were added.

    `ids` int64 [rows], -1 for a removed one: live, other processes' removals show at once.
    `flat` float32 [flat rows, D]; `assigned` int64 [flat rows], the list that each belongs to and
    that a rebuild will put it in, empty without lists.
    """

    folder: Path
    state: State
    ids: NDArray[np.int64]
    flat: NDArray[np.float32]
    lists: InvertedLists | None
    assigned: NDArray[np.int64]

    @property
    def listed(self) -> int:
        """Rows in inverted lists."""
        return self.lists.rows if self.lists else 0

    def live(self) -> NDArray[np.bool_]:
        """Which rows are there, bool [rows]."""
        there = self.ids >= 0
        there[list(self.state.removing)] = False
        return there

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of rows, float32 [n, D]."""
        vectors = np.empty((len(rows), self.state.dimension), np.float32)
        flat = rows >= self.listed
        vectors[flat] = self.flat[rows[flat] - self.listed]
        if self.lists:
            vectors[~flat] = self.lists.gather(rows[~flat])
        return vectors

    @cached_property
    def _by_list(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        order = np.argsort(self.assigned, kind="stable")
        return order, self.assigned[order]

    def flat_in(self, searched: NDArray[np.int64], most: int) -> NDArray[np.int64] | None:
        """Flat rows that belong to each query's lists: int64 [Q, n], -1 where there are fewer.

        None when they are more than `most` together: then comparing with all is quicker.
        """
        order, lists = self._by_list
        begun = np.searchsorted(lists, searched.ravel(), side="left")
        counts = np.searchsorted(lists, searched.ravel(), side="right") - begun
        total = int(counts.sum())
        if total > most:
            return None
        of_query = counts.reshape(searched.shape).sum(axis=1)
        number = np.arange(total)
        places = np.repeat(begun - np.cumsum(counts) + counts, counts) + number
        query = np.repeat(np.arange(len(searched)), of_query)
        rows = np.full((len(searched), int(of_query.max(initial=0))), -1, np.int64)
        rows[query, number - (np.cumsum(of_query) - of_query)[query]] = self.listed + order[places]
        return rows

    def flat_blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The vectors beside the lists: (first row, float32 [n, D])."""
        for start in range(0, len(self.flat), BLOCK):
            yield self.listed + start, self.flat[start : start + BLOCK]

    def blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """All vectors: (first row, float32 [n, D])."""
        if self.lists:
            yield from self.lists.blocks()
        yield from self.flat_blocks()


def open_generation(folder: Path) -> Generation:
    """The committed generation. Raises SetupError when files are absent, short or damaged."""
    state = read_state(folder)
    while True:
        try:
            return _open(folder, state)
        except FileNotFoundError as error:
            now = read_state(folder)
            if now.generation == state.generation:
                raise damaged(folder, f"{Path(error.filename).name} is absent") from error
            # A rebuild was committed in between.
            state = now


def _open(folder: Path, state: State) -> Generation:
    lists = None
    if state.lists:
        path = state.file(folder, "faiss")
        path.stat()
        try:
            lists = InvertedLists(path)
        # FAISS raises RuntimeError for all that it cannot read.
        except RuntimeError as error:
            path.stat()
            raise damaged(folder, f"{path.name} cannot be read") from error
        if (lists.rows, lists.index.d) != (state.lists.rows, state.dimension):
            raise damaged(folder, f"{path.name} holds other vectors")
    ids = _mapped(state.file(folder, "ids"), np.int64, (state.rows,))
    flat = _mapped(state.file(folder, "vectors"), np.float32, (state.flat_rows, state.dimension))
    listed = (state.flat_rows if lists else 0,)
    none = np.zeros(0, np.int64)
    assigned = _mapped(state.file(folder, "assigned"), np.int64, listed) if lists else none
    return Generation(folder, state, ids, flat, lists, assigned)


def _mapped(path: Path, kind: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
    wanted = int(np.prod(shape)) * np.dtype(kind).itemsize
    if path.stat().st_size < wanted:
        raise damaged(path.parent, f"{path.name} is too short")
    if not wanted:
        return np.zeros(shape, kind)
    # Copy on write, never written: torch refuses to be silent about read-only memory.
    return np.asarray(np.memmap(path, kind, "c", shape=shape))
