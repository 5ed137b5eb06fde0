"""Fingerprints that are bound to an image: PDQ of the whole and of its middle, and ISCC.

The middle four fifths lie inside every crop by a tenth, so a cropped picture can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from iscc_lib import gen_image_code_v0
from numpy.typing import NDArray
from PIL import Image, ImageChops

from pipeline.checks.pdq import Hashes, luma_of, pdq
from pipeline.images import RgbImage

PDQ = "org.platemark.pdq.1"
ISCC = "io.iscc.v0"

Window = tuple[float, float, float, float]
"""Left, top, right, bottom as shares of width and height, 0..1."""

MIDDLE: Window = (0.1, 0.1, 0.9, 0.9)
_LARGEST = 512
_ISCC_SIDE = 32


def pdq_of(image: RgbImage, windows: tuple[Window, ...]) -> tuple[Hashes, NDArray[np.int64]]:
    """PDQ hashes, uint64 [N, 4], and qualities, int64 [N], of parts of one image."""
    luma = _small(luma_of(image))
    found = [pdq(part[None]) for part in _parts(luma, windows)]
    return np.concatenate([each[0] for each in found]), np.concatenate([each[1] for each in found])


def iscc_of(image: RgbImage) -> str:
    """The 64-bit ISCC Image-Code (ISO 24138:2024), as `ISCC:EEA…`.

    Prepared as iscc-sdk does (its `image_normalize`, read 2026-11, without the tolerant trimming
    that the standard does not have): plain borders cut off, grey, 32 × 32 bicubic.
    """
    picture = Image.fromarray(image)
    plain = Image.new("RGB", picture.size, picture.getpixel((0, 0)))
    difference = ImageChops.difference(picture, plain)
    box = ImageChops.add(difference, difference).getbbox()
    grey = picture.crop(box).convert("L").resize((_ISCC_SIDE, _ISCC_SIDE), Image.Resampling.BICUBIC)
    return str(gen_image_code_v0(grey.tobytes(), 64)["iscc"])


def _small(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    """At most 512 pixels a side: PDQ looks at 64."""
    height, width = luma.shape
    if max(height, width) <= _LARGEST:
        return luma
    scale = _LARGEST / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(luma).resize(size, Image.Resampling.BOX))


def _parts(luma: NDArray[np.float32], windows: tuple[Window, ...]) -> Iterator[NDArray[np.float32]]:
    height, width = luma.shape
    for left, top, right, bottom in windows:
        rows = slice(round(top * height), max(round(bottom * height), 1))
        yield luma[rows, round(left * width) : max(round(right * width), 1)]
