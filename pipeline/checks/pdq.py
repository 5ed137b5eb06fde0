"""PDQ, Meta's perceptual hash of 256 bits, for whole batches in numpy.

After "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm" (Facebook, 2019)
and the reference code in facebook/ThreatExchange. Blur and decimation are done in one step, only
where a sample is kept. Bits agree with the reference but for coefficients within float rounding of
the median.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

BITS = 256
RELIABLE_QUALITY = 49
"""Hashes of this quality or less say nothing: too few edges (PDQ hashing, "Quality metric")."""

_SIDE = 64
_MIN_SIDE = 5

Hashes = NDArray[np.uint64]
"""uint64 [N, 4]: 256 bits, most significant first."""


def pdq(luma: NDArray[np.float32]) -> tuple[Hashes, NDArray[np.int64]]:
    """Hashes, uint64 [N, 4], and qualities 0..100, int64 [N], of luma [N, H, W] in 0..255.

    Images under 5 pixels a side get hash 0 and quality 0, as in the reference.
    """
    count, height, width = luma.shape
    if min(height, width) < _MIN_SIDE:
        return np.zeros((count, 4), np.uint64), np.zeros(count, np.int64)
    small = luma
    if (height, width) != (_SIDE, _SIDE):
        small = _shrink(_shrink(luma, height).transpose(0, 2, 1), width).transpose(0, 2, 1)
    coefficients = (_cosines() @ small @ _cosines().T).reshape(count, BITS)
    median = np.partition(coefficients, BITS // 2 - 1, axis=1)[:, BITS // 2 - 1, None]
    # Bit k of the reference is coefficient k; the highest is written first.
    bits = (coefficients > median)[:, ::-1]
    packed = np.packbits(bits, axis=1).view(">u8").astype(np.uint64)
    return packed, _quality(small)


def luma_of(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """ITU-R BT.601 luma in 0..255, float32 [...], of RGB [..., 3]: what PDQ is defined on."""
    red, green, blue = (images[..., channel] for channel in range(3))
    luma: NDArray[np.float32] = (
        red * np.float32(0.299) + green * np.float32(0.587) + blue * np.float32(0.114)
    )
    return luma


def pdq_hex(bits: NDArray[np.uint64]) -> str:
    """One hash, uint64 [4], as the 64 hex digits that other PDQ tools write."""
    return "".join(f"{int(word):016x}" for word in bits)


def pdq_bits(text: str) -> NDArray[np.uint64]:
    """The hash, uint64 [4], of 64 hex digits. Raises ValueError when it is none."""
    if len(text) != BITS // 4:
        raise ValueError(f"{text!r} is not a PDQ hash of {BITS // 4} hex digits")
    return np.frombuffer(bytes.fromhex(text), dtype=">u8").astype(np.uint64)


def _quality(small: NDArray[np.float32]) -> NDArray[np.int64]:
    steps = [np.abs(np.trunc(np.diff(small, axis=axis) * 100 / 255)) for axis in (1, 2)]
    total: NDArray[np.float32] = np.sum([step.sum(axis=(1, 2)) for step in steps], axis=0)
    return np.asarray(np.minimum(total // 90, 100), dtype=np.int64)


def _shrink(luma: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Two box blurs and the decimation to 64 of the rows of [N, length, W]: float32 [N, 64, W]."""
    # A sum of a few shifted rows, not a matrix product: numpy's would start threads of its own,
    # which then wait in a busy loop beside the generator's.
    samples, weights = _band(length)
    shrunk = luma[:, samples[0]] * weights[0, :, None]
    for sample, weight in zip(samples[1:], weights[1:], strict=True):
        shrunk += luma[:, sample] * weight[:, None]
    return shrunk


@lru_cache(maxsize=32)
def _band(length: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each of the 64 samples, which rows it is made of, int64 [K, 64], and their weights."""
    matrix = np.zeros((_SIDE, length))
    for row in range(_SIDE):
        outer = _window(int((row + 0.5) * length / _SIDE), length)
        for centre in outer:
            inner = _window(centre, length)
            matrix[row, inner.start : inner.stop] += 1 / (len(outer) * len(inner))
    widest = int((matrix > 0).sum(axis=1).max())
    first = np.minimum((matrix > 0).argmax(axis=1), length - widest)
    samples = first + np.arange(widest)[:, None]
    weights = np.take_along_axis(matrix.T, samples, axis=0)
    return samples, np.asarray(weights, dtype=np.float32)


def _window(centre: int, length: int) -> range:
    """The samples that one box blur averages: a 128th of the side, cut off at the ends."""
    width = -(-length // (2 * _SIDE))
    ahead = (width + 2) // 2
    return range(max(0, centre + ahead - width), min(length, centre + ahead))


@lru_cache(maxsize=1)
def _cosines() -> NDArray[np.float32]:
    """Rows 1 to 16 of the discrete cosine transform of 64 samples, float32 [16, 64]."""
    row, column = np.arange(1, 17)[:, None], np.arange(_SIDE)[None]
    matrix = np.sqrt(2 / _SIDE) * np.cos(np.pi / (2 * _SIDE) * row * (2 * column + 1))
    return np.asarray(matrix, dtype=np.float32)
