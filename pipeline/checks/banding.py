"""Banding: smooth gradients that show as steps. A part of pipeline/checks/quality.py."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE = 256
"""Larger pictures are sampled at whole distances until no side is longer; steps survive that."""
_WINDOW = 4
"""A gradient is judged over this part, a quarter, of the longest side."""
_FLAT = 2
"""Equal pixels on both sides that make a step one between plateaus."""
_VISIBLE, _EDGE = 2, 32
"""Levels of 255: smaller steps are those of any 8-bit gradient, larger ones are outlines."""
_SLOPE = 3
"""Levels that a window must rise or fall to count as a gradient, not as a flat ground."""
_LEAST = 0.01
"""Gradients in fewer than this share of the windows count as this share."""


def banding(luma: NDArray[np.float32]) -> NDArray[np.float64]:
    """The share of smooth gradients that are stairs, 0..1, [N], of luma [N, H, W] in 0..255.

    Along every other row and column of a picture of at most 256 pixels, in windows of a quarter of
    its longest side: a window is a *gradient* when no step in it is more than 32 levels and its
    ends differ by 3 or more; it is *stairs* when at least two steps of 2 to 32 levels have two
    equal pixels on either side, and these, up and down taken against each other, make up most of
    all its change. Gradients in less than 1 % of the windows count as 1 %. 0 where there are none,
    and for sides under 8 pixels.

    After the flat, textured and banding pixels of Wang et al., "A perceptual visibility metric for
    banding artifacts" (ICIP 2016), which tells edges between flat areas from texture; here in one
    dimension and at one scale. Noise or dithering breaks the plateaus, and so hides the bands, here
    as to the eye. Bands wider than an eighth of the picture are not seen as such.
    """
    every = -(-max(luma.shape[1:]) // SIDE)
    levels = np.rint(luma[:, ::every, ::every]).astype(np.int16)
    window = max(levels.shape[1:]) // _WINDOW
    stairs, gradients, windows = np.zeros(len(luma)), np.zeros(len(luma)), 1
    # Bands are wider than a line: every other one tells as much.
    for lines in (levels[:, ::2], np.ascontiguousarray(levels[:, :, ::2].swapaxes(1, 2))):
        if window > 1 and lines.shape[2] > max(window, 2 * _FLAT):
            found = _stairs_and_gradients(lines, window)
            stairs += found[0].sum(axis=(1, 2))
            gradients += found[1].sum(axis=(1, 2))
            windows += found[0][0].size
    return np.asarray(stairs / np.maximum(gradients, _LEAST * windows))


def _stairs_and_gradients(
    lines: NDArray[np.int16], window: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which windows along the rows of [N, R, L] are stairs, and which are gradients."""
    signed = np.diff(lines, axis=2)
    steps = np.abs(signed)
    flat = steps == 0
    plateaus = (steps >= _VISIBLE) & (steps <= _EDGE)
    plateaus[..., :_FLAT] = plateaus[..., -_FLAT:] = False
    for distance in range(1, _FLAT + 1):
        plateaus[..., distance:] &= flat[..., :-distance]
        plateaus[..., :-distance] &= flat[..., distance:]
    smooth = _in_windows(steps > _EDGE, window) == 0
    gradient = smooth & (np.abs(lines[..., window:] - lines[..., :-window]) >= _SLOPE)
    one_way = np.abs(_in_windows(signed * plateaus, window))
    stairs = gradient & (2 * one_way > _in_windows(steps, window))
    stairs &= _in_windows(plateaus, window) >= 2
    return stairs, gradient


def _in_windows(values: NDArray[np.generic], window: int) -> NDArray[np.int32]:
    """Sums over each `window` successive values along the last axis."""
    total = np.cumsum(values, axis=-1, dtype=np.int32)
    sums = total[..., window - 1 :].copy()
    sums[..., 1:] -= total[..., :-window]
    return sums
