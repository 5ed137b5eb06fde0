"""Inverted lists: a FAISS IVF-flat file, memory-mapped, that FAISS itself can also read.

FAISS writes a file from memory; here it is streamed list by list, so that building needs no second
copy of the vectors and the place of every row is known: a removed one is overwritten there.
The ids within FAISS are row numbers: lists one after another, rows in order.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 16_384
"""Vectors that are compared, copied or assigned at once."""


class InvertedLists:
    """An opened file of lists.

    `starts` int64 [lists + 1]: the first row of each list. Raises RuntimeError (FAISS's own) when
    the file cannot be read as one.
    """

    def __init__(self, path: Path):
        import faiss

        flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
        index: Any = faiss.read_index(str(path), flags)
        mapped: Any = faiss.downcast_InvertedLists(index.invlists)
        # 32 threads that touch pages in advance; with pages in memory they double the time.
        mapped.prefetch_nthread = 0
        self.index = index
        sizes = [mapped.list_size(number) for number in range(mapped.nlist)]
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.rows = int(self.starts[-1])
        self._row_bytes = 4 * int(index.d)
        # A plain view: slices of a memmap cost ten times as much.
        self._bytes = np.asarray(np.memmap(path, np.uint8, "r"))
        self._base = len(self._bytes) - self.rows * (self._row_bytes + 8)

    def search(
        self, queries: NDArray[np.float32], top: int, nprobe: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row numbers int64 [Q, top] of the nearest, -1 where there are fewer; and the lists
        int64 [Q, nprobe] that were searched.

        Removed rows are NaN, which compares false with everything, so that FAISS keeps none.
        """
        import faiss
        import torch

        # FAISS brings its own OpenMP: it uses as many threads as torch was told to.
        faiss.omp_set_num_threads(torch.get_num_threads())
        self.index.nprobe = nprobe
        near, searched = self.index.quantizer.search(queries, nprobe)
        rows = self.index.search_preassigned(queries, top, searched, near)[1]
        return np.asarray(rows, np.int64), np.asarray(searched, np.int64)

    def list_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The list each row lies in."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def offsets(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The byte in the file where each row's vector begins."""
        # Before a row: all earlier vectors, and the ids of the lists before its own.
        return self._base + rows * self._row_bytes + 8 * self.starts[self.list_of(rows)]

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of rows, float32 [n, D]."""
        vectors = np.empty((len(rows), self._row_bytes), np.uint8)
        for place, offset in enumerate(self.offsets(rows).tolist()):
            vectors[place] = self._bytes[offset : offset + self._row_bytes]
        return vectors.view("<f4")

    def blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """All vectors in order: (first row, float32 [n, D])."""
        begun = 0
        while begun < len(self.starts) - 1:
            # As many whole lists as a block takes; one that is larger goes alone.
            last = int(np.searchsorted(self.starts, self.starts[begun] + BLOCK, side="right")) - 1
            ended = max(last, begun + 1)
            if self.starts[ended] > self.starts[begun]:
                yield int(self.starts[begun]), self._of_lists(begun, ended)
            begun = ended

    def _of_lists(self, begun: int, ended: int) -> NDArray[np.float32]:
        """The vectors of lists `begun`..`ended`-1, float32 [n, D]."""
        rows = self.starts[begun : ended + 1]
        vectors = np.empty((rows[-1] - rows[0], self._row_bytes), np.uint8)
        for number in range(begun, ended):
            first, last = self.starts[number : number + 2]
            offset = self._base + first * self._row_bytes + 8 * first
            packed = self._bytes[offset : offset + (last - first) * self._row_bytes]
            vectors[first - rows[0] : last - rows[0]] = packed.reshape(-1, self._row_bytes)
        return vectors.view("<f4")

    def centroids(self) -> NDArray[np.float32]:
        """Centroids, float32 [lists, D]."""
        return np.asarray(self.index.quantizer.reconstruct_n(0, self.index.nlist), np.float32)


def train(sample: NDArray[np.float32], lists: int) -> NDArray[np.float32]:
    """Unit centroids, float32 [lists, D], by FAISS's spherical k-means; the same for the same."""
    import faiss

    quantizer = faiss.IndexFlatIP(sample.shape[1])
    index = faiss.IndexIVFFlat(quantizer, sample.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1
    # Ten by default; the number of lists that are searched makes up for what little is lost.
    index.cp.niter = 6
    index.train(sample)
    return np.asarray(quantizer.reconstruct_n(0, lists), np.float32)


def assign(vectors: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    """The list of each vector: that of its nearest centroid."""
    import faiss

    quantizer = faiss.IndexFlatIP(centroids.shape[1])
    quantizer.add(centroids)
    return np.asarray(quantizer.search(vectors, 1)[1][:, 0], np.int64)


def write_lists(
    file: IO[bytes],
    centroids: NDArray[np.float32],
    assigned: NDArray[np.int64],
    gather: Callable[[NDArray[np.int64]], NDArray[np.float32]],
) -> tuple[NDArray[np.int64], int]:
    """Write a FAISS IVF-flat file of `len(assigned)` vectors, which `gather(numbers)` gives.

    Returns (order, centroids_at): `order[row]` is the number of the vector that became that row.
    The format is FAISS's own (`write_index`: fourcc `ilar`, sizes, then codes and ids by list).
    """
    import faiss

    lists, dimension = centroids.shape
    quantizer = faiss.IndexFlatIP(dimension)
    quantizer.add(centroids)
    index = faiss.IndexIVFFlat(quantizer, dimension, lists, faiss.METRIC_INNER_PRODUCT)
    index.is_trained = True
    index.ntotal = len(assigned)
    header = faiss.serialize_index(index).tobytes()
    head, empty = header[:-32], header[-32:]
    if not empty.startswith(b"ilar"):
        raise RuntimeError("this FAISS writes inverted lists in another format")
    sizes = np.bincount(assigned, minlength=lists).astype("<u8")
    order = np.argsort(assigned, kind="stable")
    file.write(head)
    file.write(empty[:20] + b"full" + struct.pack("<Q", lists))
    file.write(sizes.tobytes())
    first = 0
    for size in sizes.tolist():
        file.write(gather(order[first : first + size]).tobytes())
        file.write(np.arange(first, first + size, dtype="<i8").tobytes())
        first += size
    return order, head.index(centroids.tobytes())
