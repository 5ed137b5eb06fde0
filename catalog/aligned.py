"""Whether a picture shows a stored thumbnail, or a part of it: laid over it, then compared.

A candidate of the fingerprint search (catalog/nearest.py) comes with a rough guess at the part.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.checks.pdq import Hashes
from pipeline.images import RgbImage
from pipeline.soft_binding.fingerprint import Window, pdq_of

WHOLE: Window = (0.0, 0.0, 1.0, 1.0)
_SIDE = 32
_TURNED_SIDE = 512
"""Longer side, in pixels, of what is turned back: larger pictures would only take longer."""
_MOST_CUT = 0.25
"""Of each end of a side, of long thin pictures that were turned: something must be left."""
_STEPS = (0.02, 0.01, 0.005)
"""By how much an edge of the window is moved, as a share of a side."""
_SMALLEST = 0.85
"""Of a side: what is cropped further is not looked for."""

_Small = NDArray[np.float32]


@dataclass(frozen=True)
class Picture:
    """A picture that is compared with several thumbnails: what that takes is computed once."""

    pixels: RgbImage

    @cached_property
    def mirrored(self) -> Picture:
        """The same left to right."""
        return Picture(np.ascontiguousarray(self.pixels[:, ::-1]))

    @cached_property
    def small(self) -> _Small:
        """Its colours, float32 [32, 32, 3] in 0..255."""
        return _small(Image.fromarray(self.pixels))

    @cached_property
    def hashes(self) -> Hashes:
        """Its PDQ hash, uint64 [1, 4]."""
        return pdq_of(self.pixels, (WHOLE,))[0]


def turned_back(picture: Picture, degrees: float, window: Window) -> tuple[Picture, Window]:
    """What shows our image upright in a picture that was turned counter-clockwise, and where.

    Only the middle, in its shape, that turning leaves whole: the corners are not of our image.
    """
    if not degrees:
        return picture, window
    ours = Image.fromarray(picture.pixels)
    ours.thumbnail((_TURNED_SIDE, _TURNED_SIDE))
    radians = np.radians(abs(degrees))
    longer = max(ours.width / ours.height, ours.height / ours.width)
    cut = min((1 - 1 / float(np.cos(radians) + longer * np.sin(radians))) / 2, _MOST_CUT)
    left, top, right, bottom = window
    across, down = cut * (right - left), cut * (bottom - top)
    upright = ours.rotate(-degrees, Image.Resampling.BILINEAR)
    middle = upright.crop(
        (
            round(cut * ours.width),
            round(cut * ours.height),
            round((1 - cut) * ours.width),
            round((1 - cut) * ours.height),
        )
    )
    return Picture(np.asarray(middle)), (left + across, top + down, right - across, bottom - down)


@dataclass(frozen=True)
class Aligned:
    """How far a picture is from the part of a thumbnail that it shows.

    `difference` is the root mean square colour difference, 0..255, `distance` that of the PDQ
    hashes, in bits of 256.
    """

    window: Window
    difference: float
    distance: int


def aligned(thumbnail: RgbImage, picture: Picture, window: Window) -> Aligned:
    """Moves the window's edges, one at a time, as long as the picture looks more like the part."""
    ours = Image.fromarray(thumbnail)
    difference = _apart(ours, picture, window)
    for step in _STEPS:
        while True:
            nearer = min((_apart(ours, picture, each), each) for each in _moved(window, step))
            if nearer[0] >= difference:
                break
            difference, window = nearer
    return Aligned(window, difference, _bits_apart(thumbnail, picture, window))


def difference_of(thumbnail: RgbImage, picture: Picture, window: Window = WHOLE) -> float:
    """Root mean square colour difference, 0..255, of a picture from a part of a thumbnail."""
    return _apart(Image.fromarray(thumbnail), picture, window)


def _moved(window: Window, step: float) -> list[Window]:
    """Windows of which one edge is moved by a step; the window itself where none can be."""
    found = [window]
    for edge in range(4):
        for by in (-step, step):
            moved = [*window[:edge], min(max(window[edge] + by, 0.0), 1.0), *window[edge + 1 :]]
            left, top, right, bottom = moved
            if min(right - left, bottom - top) >= _SMALLEST:
                found.append((left, top, right, bottom))
    return found


def _apart(ours: Image.Image, picture: Picture, window: Window) -> float:
    left, top, right, bottom = window
    box = (left * ours.width, top * ours.height, right * ours.width, bottom * ours.height)
    apart = _small(ours, box) - picture.small
    return float(np.sqrt(np.mean(apart**2)))


def _small(picture: Image.Image, box: tuple[float, float, float, float] | None = None) -> _Small:
    small = picture.resize((_SIDE, _SIDE), Image.Resampling.BOX, box)
    return np.asarray(small, dtype=np.float32)


def _bits_apart(thumbnail: RgbImage, picture: Picture, window: Window) -> int:
    ours, _ = pdq_of(thumbnail, (window,))
    return int(np.bitwise_count(ours ^ picture.hashes).sum())
