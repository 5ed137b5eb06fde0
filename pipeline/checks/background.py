"""The ground that a product stands on: how white it is, and how much of the frame it leaves.

A part of pipeline/checks/quality.py: what marketplaces ask of main images. Looks at a picture made
small, so that it costs the same for any size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 256
"""Larger pictures are made smaller by whole factors until no side is longer, in pixels."""
WHITE = 250
"""From here all three channels count as pure white: 255, but for what lossy encoding takes."""

_STEP = 6
"""The largest step between neighbours of one ground, of 255 levels: soft shadows and gradients
stay within, outlines do not."""
_NEAR = 40
"""How far, of 255 levels, the ground may be from the border's median where it begins."""
_SPECK = 0.01
"""A row or column with no larger share of product is a speck: noise, dust."""
_ROUNDS = 8
"""Rounds of sweeps in which the ground spreads; it reaches around a corner in each."""


def background_and_fill(
    images: NDArray[np.uint8],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How white the ground is and how far the product reaches, 0..1, two times [N].

    `images` are uint8 [N, H, W, 3] of at least one pixel. The *ground* is what can be reached from
    the frame's border in steps of at most 6 of 255 levels a channel, beginning at border pixels
    within 40 levels of the border's median colour. *Background* is the share of pixels whose
    channels are all 250 or more: of the ground or of the frame's border, whichever is less. The
    border counts whole, so a scene, or a product cut off by the frame, is no white ground. *Fill*
    is the larger of (product's box width / frame width) and (box height / frame height); the
    product is all that is not ground, without rows and columns of which it is 1 % or less. 0 where
    there is nothing but ground.

    Amazon asks for a ground of RGB 255, 255, 255 and a product that fills 85 % of the frame
    (Amazon Seller Central, "Product image requirements").
    """
    planes = np.ascontiguousarray(_reduced(images).transpose(3, 0, 1, 2))
    ground = _ground(planes)
    white = planes.min(axis=0) >= WHITE
    border = np.ones_like(ground)
    border[:, 1:-1, 1:-1] = False
    background = np.minimum(_share(white, ground), _share(white, border))
    product = ~ground
    width, height = (_extent(product.sum(axis=axis), product.shape[axis]) for axis in (1, 2))
    return background, np.maximum(width, height)


def _reduced(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Means of square blocks, so that no side is longer than `SIDE`."""
    factor = -(-max(images.shape[1:3]) // SIDE)
    if factor == 1:
        return images
    return np.stack([np.asarray(Image.fromarray(each).reduce(factor)) for each in images])


def _ground(planes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where the ground is, bool [N, H, W], of planes [3, N, H, W]."""
    across, down = _Runs(planes), _Runs(planes.swapaxes(2, 3))
    ground = _border_ground(planes)
    reached = -1
    for _ in range(_ROUNDS):
        ground = across.filled(ground)
        ground = down.filled(ground.swapaxes(1, 2)).swapaxes(1, 2)
        if (now := int(np.count_nonzero(ground))) == reached:
            break
        reached = now
    return ground


def _border_ground(planes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Border pixels near the border's median colour, bool [N, H, W], of planes [3, N, H, W]."""
    edges = [planes[..., 0, :], planes[..., -1, :], planes[..., 0], planes[..., -1]]
    median = np.median(np.concatenate(edges, axis=2), axis=2)[..., None].astype(np.int16)
    near = [(np.abs(edge - median) <= _NEAR).all(axis=0) for edge in edges]
    ground = np.zeros(planes.shape[1:], bool)
    ground[:, 0], ground[:, -1] = near[0], near[1]
    ground[:, :, 0] |= near[2]
    ground[:, :, -1] |= near[3]
    return ground


class _Runs:
    """The rows of planes [3, N, R, L] parted into runs without a break between neighbours."""

    def __init__(self, planes: NDArray[np.uint8]):
        planes = np.ascontiguousarray(planes)
        after, before = planes[..., 1:], planes[..., :-1]
        # The distance of unsigned bytes, without a wider type.
        apart = np.maximum(after, before) - np.minimum(after, before)
        begins = np.ones(planes.shape[1:], bool)
        begins[..., 1:] = apart.max(axis=0) > _STEP
        self._starts = np.flatnonzero(begins)
        self._lengths = np.diff(self._starts, append=begins.size)

    def filled(self, ground: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The ground spread over every run that it has a pixel of, bool [N, R, L]."""
        touched = np.logical_or.reduceat(np.ascontiguousarray(ground).reshape(-1), self._starts)
        return np.repeat(touched, self._lengths).reshape(ground.shape)


def _share(which: NDArray[np.bool_], among: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The share of `among` that is also `which`, [N]; 0 where there is nothing among it."""
    count = among.sum(axis=(1, 2))
    return np.asarray((which & among).sum(axis=(1, 2)) / np.maximum(count, 1))


def _extent(counts: NDArray[np.int64], across: int) -> NDArray[np.float64]:
    """From the first to the last place that is no speck, as a share of all places, [N].

    `counts` [N, places] are of product pixels among `across`.
    """
    held = counts > _SPECK * across
    places = held.shape[1]
    first, last = held.argmax(axis=1), places - held[:, ::-1].argmax(axis=1)
    return np.where(held.any(axis=1), (last - first) / places, 0.0)
