"""Regions of an image that are compared besides the whole, so that a logo in a corner is found.

Image → regions → one embedding each by the copy descriptor (pipeline/checks/descriptor.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.protocol import Encoder

Region = tuple[int, int, int, int]
"""left, top, right, bottom in pixels; right and bottom lie outside, as in Pillow."""

CHUNK_BYTES = 64 * 1024 * 1024
"""Pixels of crops that are held at once, beside the images themselves."""

_MIN_SIDE = 16


def regions(height: int, width: int, levels: int) -> list[Region]:
    """The whole image, then for each further level a grid of overlapping parts, row by row.

    Level 1 is the whole. Level k > 1 has k × k parts whose sides are 2 / (k + 1) of the image's, so
    that neighbours overlap by half: 4 parts of two thirds, 9 of a half, 16 of two fifths. Whatever
    is at most 1 / (k + 1) of each side lies whole in some part of level k. Parts under 16 pixels a
    side are left out. Raises ValueError for less than one level or pixel.
    """
    if levels < 1 or min(height, width) < 1:
        raise ValueError(f"no regions of {levels} levels in {width}×{height} pixels")
    found: list[Region] = [(0, 0, width, height)]
    for count in range(2, levels + 1):
        tall, wide = (round(2 * side / (count + 1)) for side in (height, width))
        if min(tall, wide) < _MIN_SIDE:
            break
        tops, lefts = _starts(height, tall, count), _starts(width, wide, count)
        found += [(left, top, left + wide, top + tall) for top in tops for left in lefts]
    return found


def region_embeddings(
    descriptor: Encoder, images: NDArray[np.uint8], places: Sequence[Region]
) -> NDArray[np.float32]:
    """The descriptor's unit embeddings of each region of each image: float32 [N, R, D].

    `images` is uint8 [N, H, W, 3]. Regions of one size go through the model together, as many at a
    time as `CHUNK_BYTES` hold.
    """
    if not len(images):
        return np.zeros((0, len(places), 0), np.float32)
    sizes: dict[tuple[int, int], list[int]] = {}
    for index, (left, top, right, bottom) in enumerate(places):
        sizes.setdefault((bottom - top, right - left), []).append(index)
    found: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * (len(images) * len(places))
    for (tall, wide), members in sizes.items():
        jobs = [(image, index) for image in range(len(images)) for index in members]
        step = max(1, CHUNK_BYTES // (3 * tall * wide))
        for start in range(0, len(jobs), step):
            chunk = jobs[start : start + step]
            crops = np.stack([_crop(images[image], places[index]) for image, index in chunk])
            for (image, index), embedding in zip(chunk, descriptor.images(crops), strict=True):
                found[image * len(places) + index] = embedding
    return np.stack(found).reshape(len(images), len(places), -1)


def _crop(image: NDArray[np.uint8], region: Region) -> NDArray[np.uint8]:
    left, top, right, bottom = region
    return image[top:bottom, left:right]


def _starts(side: int, part: int, count: int) -> list[int]:
    """Where `count` parts begin, evenly from one edge to the other."""
    return [round(index * (side - part) / (count - 1)) for index in range(count)]
