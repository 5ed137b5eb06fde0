"""Technical quality, and what channels ask of a picture. All from the pixels, without a model.

Vectorised over the batch; whatever does not need all pixels looks at a small picture
(pipeline/checks/background.py, pipeline/checks/banding.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.background import WHITE, background_and_fill
from pipeline.checks.banding import banding
from pipeline.checks.protocol import ImageBatch
from pipeline.encode import encode
from pipeline.images import MAX_PIXELS
from pipeline.policy_model import ImageFormat
from pipeline.records import Score
from pipeline.request import Request

_REVISION = "1"

LABELS_ALLOWANCE = 64_000
"""Bytes that labels and a C2PA manifest may add to a file; what they do add is mostly less."""


class Quality:
    """Scores of `quality`: how a picture is made up, and whether it is whole.

    With an `image` format its encoded size is measured too, which costs an encoding.
    """

    name = "quality"

    def __init__(self, image: ImageFormat | None = None):
        self._image = image

    def __call__(self, batch: ImageBatch) -> list[tuple[Score, ...]]:
        """Eleven scores an image, twelve with `bytes`. Of an image without pixels, the first two.

        - `decodes`: 1 when readers with our limits can read the image (pipeline/images.py), else 0.
        - `size_matches`: 1 when width and height are the request's, else 0.
        - `contrast`: the standard deviation of luma in 0..1: 0 for a blank image, 0.5 at most.
        - `sharpness`: the variance of the Laplacian of luma in 0..1 (see `sharpness`).
        - `megapixels`: width x height / 1,000,000. `shortest_side`, `longest_side`: pixels.
        - `aspect`: longest over shortest side, 1 or more.
        - `background`, `fill`: how white the ground is, and how much of the frame the product
          takes, 0..1 (see `background_and_fill`).
        - `banding`: the share of smooth gradients that are stairs, 0..1 (see `banding`).
        - `bytes`: the size of the encoded file before labels and manifest, which the evidence's
          `allowance` makes room for.
        """
        height, width = batch.images.shape[1:3]
        frame = [_frame(request, width, height) for request in batch.requests]
        if not height * width:
            return frame
        measured = _pixel_scores(batch)
        return [
            (*of_frame, *of_pixels, *self._bytes(pixels))
            for of_frame, of_pixels, pixels in zip(frame, measured, batch.images, strict=True)
        ]

    def _bytes(self, pixels: NDArray[np.uint8]) -> tuple[Score, ...]:
        if self._image is None:
            return ()
        evidence = {
            "format": self._image.format,
            "quality": None if self._image.format == "png" else self._image.quality,
            "allowance": LABELS_ALLOWANCE,
            "note": "before labels and manifest; leave room for the allowance",
        }
        return (_score("bytes", float(len(encode(pixels, self._image)[0])), evidence),)


def sharpness(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    """Variance of the Laplacian, float32 [N], of luma [N, H, W] in 0..1; 0 under 3 pixels a side.

    The 4-neighbour Laplacian without borders, after Pech-Pacheco et al., "Diatom autofocusing in
    brightfield microscopy" (ICPR 2000). OpenCV's familiar figure on 0..255 is 65,025 times as much,
    so its rule of thumb, blurred below 100, is 0.0015 here.
    """
    if min(luma.shape[1:]) < 3:
        return np.zeros(len(luma), np.float32)
    laplacian = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1]
    laplacian += luma[:, 1:-1, :-2]
    laplacian += luma[:, 1:-1, 2:]
    laplacian -= 4 * luma[:, 1:-1, 1:-1]
    return np.asarray(laplacian.var(axis=(1, 2)))


def _frame(request: Request, width: int, height: int) -> tuple[Score, ...]:
    """What the size alone says."""
    size = {"width": width, "height": height}
    asked = {"width": request.width, "height": request.height}
    shortest, longest = sorted((width, height))
    decodes = _score("decodes", float(0 < height * width <= MAX_PIXELS), size)
    matches = _score("size_matches", float(size == asked), {**size, "asked": asked})
    if not shortest:
        return decodes, matches
    return (
        decodes,
        matches,
        _score("megapixels", width * height / 1e6, size),
        _score("shortest_side", float(shortest), size),
        _score("longest_side", float(longest), size),
        _score("aspect", longest / shortest, size),
    )


def _pixel_scores(batch: ImageBatch) -> list[tuple[Score, ...]]:
    # One image at a time: what is made of a large one then stays in the processor's cache.
    lumas = [batch.luma[index : index + 1] / np.float32(255) for index in range(len(batch))]
    background, fill = background_and_fill(batch.images)
    return [
        (
            _score("contrast", float(luma.std()), {}),
            _score("sharpness", float(sharpness(luma)[0]), {}),
            _score("background", float(white), {"white": WHITE}),
            _score("fill", float(filled), {}),
            _score("banding", float(steps), {}),
        )
        for luma, white, filled, steps in zip(
            lumas, background, fill, banding(batch.luma), strict=True
        )
    ]


def _score(name: str, value: float, evidence: dict[str, Any]) -> Score:
    origin = {"detector": "platemark-quality", "revision": _REVISION}
    return Score("quality", name, value, {**origin, **evidence})
