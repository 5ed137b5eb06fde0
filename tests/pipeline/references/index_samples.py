"""Vectors as embeddings lie, edited copies of them, and where their bytes are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MODEL, OTHER = "a" * 64, "b" * 64
D = 32

Vectors = NDArray[np.float32]


def unit(vectors: NDArray[np.floating]) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(count: int, seed: int = 0, dimension: int = D) -> Vectors:
    """Vectors around forty centres, as embeddings of a shop's works lie."""
    centres = np.random.default_rng(99).standard_normal((40, dimension))
    random = np.random.default_rng(seed)
    near = centres[random.integers(0, 40, count)]
    return unit(near + 0.7 * random.standard_normal((count, dimension)))


def edited(vectors: Vectors, seed: int = 5) -> Vectors:
    noise = np.random.default_rng(seed).standard_normal(vectors.shape)
    return unit(vectors + 0.5 * noise / vectors.shape[1] ** 0.5)


def bytes_in(folder: Path, vectors: Vectors) -> list[str]:
    """Files of a folder in which the bytes of a vector, or of most of it, lie."""
    parts = [vector[4:-4].tobytes() for vector in vectors]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files if any(part in path.read_bytes() for part in parts)]
