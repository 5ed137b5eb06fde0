"""Small pictures, requests and model specs that the tests of the checks share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.request import Request

RIGHTS_HEADER = "file,title,rights_holder,licence,role,note"


@dataclass(frozen=True)
class Spec:
    name: str
    kind: str
    source: str
    revision: str = "r1"
    weights_sha256: str | None = None


def pictures(count: int, height: int = 40, width: int = 40, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth random pictures, uint8 [count, height, width, 3]."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    large = [
        Image.fromarray(each).resize((width, height), Image.Resampling.BICUBIC) for each in small
    ]
    return np.stack([np.asarray(each) for each in large])


def request_of(sku: str, index: int = 0, width: int = 40, height: int = 40) -> Request:
    return Request(
        sku=sku, index=index, mode="text-to-image", model="m", model_revision="r", prompt="a mug",
        negative_prompt="", seed=index, width=width, height=height, steps=4, guidance=3.0,
        scheduler="", campaign="", client="",
    )  # fmt: skip
