"""Batches → images. An engine makes the pixels of one batch; diffusers is the one that ships."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.plan import Batch


@dataclass(frozen=True)
class Kept:
    """What an edit was to leave alone: the input at the finished size, and where it may change.

    `original` is uint8 RGB [H, W, 3]; `repainted` float32 [H, W] in 0..1, 0 where nothing may
    change.
    """

    original: NDArray[np.uint8]
    repainted: NDArray[np.float32]
    nothing_found: bool = False
    """The tool that was to find the object found none: what was to be kept is not known."""

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The repainted region's bounding box: x, y, width, height in pixels; zeros without one."""
        rows, columns = np.nonzero(self.repainted.max(1))[0], np.nonzero(self.repainted.max(0))[0]
        if not len(rows):
            return 0, 0, 0, 0
        left, top = int(columns[0]), int(rows[0])
        return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


@dataclass(frozen=True)
class Generated:
    """Images uint8 RGB [N, H, W, 3] in the order of the batch's requests; `kept` for edits."""

    images: NDArray[np.uint8]
    kept: tuple[Kept | None, ...]


class Engine(Protocol):
    """Makes images. The image of a request must not depend on its neighbours in the batch."""

    def __call__(self, batch: Batch) -> Generated:
        """The images of a batch."""
        ...
