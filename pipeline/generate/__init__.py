"""Batches → images. An engine makes the pixels of one batch; diffusers is the one that ships."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.plan import Batch


class Engine(Protocol):
    """Makes images. The image of a request must not depend on its neighbours in the batch."""

    def __call__(self, batch: Batch) -> NDArray[np.uint8]:
        """RGB images [N, H, W, 3] in the order of `batch.requests`."""
        ...
