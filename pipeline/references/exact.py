"""Exact search: every vector is compared, by torch, on whatever device it is told.

Torch's product, not numpy's: one pool of threads for all of a process.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


def nearest_rows(
    queries: NDArray[np.float32],
    blocks: Iterable[tuple[int, NDArray[np.float32] | torch.Tensor]],
    ids: NDArray[np.int64],
    top: int,
    device: str = "cpu",
) -> NDArray[np.int64]:
    """Rows int64 [Q, top] of the largest inner products, best first, -1 where there are fewer.

    `blocks` are (first row, vectors [n, D]); a row whose id is negative is passed over. A row that
    gives NaN, which no vector written here does, comes first, so that the caller sees it.
    """
    import torch

    asked = torch.from_numpy(queries).to(device)
    best = torch.full((len(queries), top), -torch.inf, device=device)
    rows = torch.full((len(queries), top), -1, dtype=torch.int64, device=device)
    for first, block in blocks:
        vectors = torch.from_numpy(block) if isinstance(block, np.ndarray) else block
        cosines = asked @ vectors.to(device).T
        # Read after the vectors: a remover takes the id first, then the vector.
        removed = ids[first : first + len(vectors)] < 0
        if removed.any():
            cosines.masked_fill_(torch.from_numpy(removed).to(device), -torch.inf)
        found, place = cosines.topk(min(top, len(vectors)), dim=1)
        place = torch.where(found == -torch.inf, -1, place + first)
        best, chosen = torch.cat([best, found], 1).topk(top, dim=1)
        rows = torch.cat([rows, place], 1).gather(1, chosen)
    return rows.cpu().numpy()


def fits(count: int, dimension: int, device: str) -> bool:
    """Whether that many float32 vectors take no more than half of a device's free memory."""
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    elif kind == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    else:
        return False
    return 4 * count * dimension <= free / 2
