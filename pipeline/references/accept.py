"""What an index takes: unit vectors of its length, new ids to add, known ids to look up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import Fault, InputError
from pipeline.references.generation import Generation

_ROUNDING = 1e-3
"""How far a unit vector's length may be from 1: half-precision models round that much."""


def vector_faults(vectors: NDArray[np.float32], dimension: int, nan: bool = False) -> list[Fault]:
    """Faults of vectors that should be unit and [N, `dimension`]; rows of NaN may be let pass."""
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        shape = " × ".join(str(length) for length in vectors.shape) or "a number"
        return [Fault(f"shape is {shape}, not N × {dimension}", remedy="use the index's model")]
    lengths = np.linalg.norm(vectors, axis=1)
    unreadable = ~np.isfinite(lengths)
    bad = np.flatnonzero((unreadable & (not nan)) | (np.abs(lengths - 1) > _ROUNDING))
    return [
        Fault("is not a number", f"vector {row}", "the model gave NaN or infinity for this image")
        if unreadable[row]
        else Fault(f"has length {lengths[row]:.4g}, not 1", f"vector {row}", "normalise it")
        for row in bad.tolist()
    ]


def id_faults(ids: NDArray[np.int64], count: int, generation: Generation) -> list[Fault]:
    """Faults of the ids of `count` new vectors: integers from 0, each once and not yet there."""
    if ids.ndim != 1 or len(ids) != count:
        return [Fault(f"{ids.size} ids for {count} vectors", remedy="give one id a vector")]
    if count and not np.issubdtype(ids.dtype, np.integer):
        return [Fault(f"ids are {ids.dtype}, not integers")]
    # -1 marks a removed row; what does not fit in 63 bits becomes negative here.
    values, counts = np.unique(ids.astype(np.int64), return_counts=True)
    present = values[np.isin(values, generation.ids[generation.live()])]
    return [
        *(Fault("is negative", f"id {value}", "ids begin at 0") for value in values[values < 0]),
        *(Fault("is given twice", f"id {value}") for value in values[counts > 1]),
        *(Fault("is in the index already", f"id {value}", "remove it first") for value in present),
    ]


def rows_of(ids: NDArray[np.int64], generation: Generation) -> NDArray[np.int64]:
    """The rows of ids. Raises InputError for unknown ones."""
    live = np.flatnonzero(generation.live())
    held = generation.ids[live]
    order = np.argsort(held)
    places = np.searchsorted(held, ids, sorter=order)
    known = places < len(held)
    known[known] = held[order[places[known]]] == ids[known]
    if not known.all():
        faults = [Fault("is not in the index", f"id {value}") for value in ids[~known].tolist()]
        raise InputError("references", faults)
    return live[order[places]]
