"""Bounds for a stated rate of false alarms, and intervals: the arithmetic of bench/copying.py."""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

Z = 1.959964
"""Two-sided 95 % of a normal distribution."""


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of `hits` in `count` (Wilson, JASA 22, 1927)."""
    if count == 0:
        return 0.0, 1.0
    share, z2 = hits / count, Z * Z
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    spread = share * (1 - share) / count + z2 / (4 * count * count)
    half = Z * math.sqrt(spread) / (1 + z2 / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def bound_for(negatives: NDArray[np.float64], rate: float) -> float:
    """The least bound at which, with 97.5 % confidence, at most `rate` of such images alarm.

    `negatives` are the scores, larger is nearer, of images that copy nothing; those at the bound or
    above alarm. Infinite where the sample is too small to show such a rate, even without an alarm.
    """
    allowed = -1
    while allowed + 1 <= len(negatives) and wilson(allowed + 1, len(negatives))[1] <= rate:
        allowed += 1
    if allowed < 0:
        return math.inf
    ranked = np.sort(negatives)[::-1]
    return float(np.nextafter(ranked[min(allowed, len(ranked) - 1)], math.inf))


def in_calibration(group: str) -> bool:
    """Whether a group is calibrated on (a fixed half, by the hash of its name) or reported."""
    return hashlib.sha256(group.encode()).digest()[0] % 2 == 0
