"""The watermark's frame: which spatial frequencies carry which code symbol, and how it is heard.

Everything happens in a square frame that the picture is stretched onto, so that its size and shape
do not matter. Spread spectrum after Cox et al., "Secure Spread Spectrum Watermarking for
Multimedia" (IEEE Trans. Image Processing, 1997); Fourier carriers, so that a shift is a phase.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.soft_binding.payload import SYMBOLS

FRAME = 128
"""Side of the frame in pixels."""
_LOWEST, _HIGHEST = 6.0, 26.0
"""Carriers lie between these frequencies, cycles a frame: survivors of JPEG at small sizes."""
_TEMPLATE_SHARE = 5
"""One chip in so many is of the synchronisation template."""
_BLUR = 4
"""Radius of the box blurs that tell the picture from the mark, frame pixels."""
_LIMIT = 1.0
"""Luma steps beyond which detail counts little: edges of the picture would drown the mark."""

Frame = NDArray[np.float32]
"""float32 [128, 128]."""


@dataclass(frozen=True, eq=False)
class Carriers:
    """Chips: the real and imaginary parts of `rows`, `columns` of a real Fourier transform.

    `symbol` int [N] is the code symbol that a chip carries, 210 for the template; `sign` ±1 [N].
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    symbol: NDArray[np.int64]
    sign: NDArray[np.float32]

    def chips(self, spectrum: NDArray[np.complexfloating[Any, Any]]) -> NDArray[np.float32]:
        """The chips of a spectrum, float32 [N]."""
        found = spectrum[self.rows, self.columns]
        return np.concatenate([found.real, found.imag]).astype(np.float32)

    def spectrum(self, chips: NDArray[np.float32]) -> NDArray[np.complex64]:
        """The half spectrum, complex64 [128, 65], whose chips these are."""
        spectrum = np.zeros((FRAME, FRAME // 2 + 1), np.complex64)
        half = len(chips) // 2
        spectrum[self.rows, self.columns] = chips[:half] + 1j * chips[half:]
        return spectrum

    def pattern(self, chips: NDArray[np.float32]) -> Frame:
        """The frame whose chips these are."""
        spectrum = self.spectrum(chips)
        return np.asarray(np.fft.irfft2(spectrum, s=(FRAME, FRAME)), dtype=np.float32)

    def symbols(self, chips: NDArray[np.float32]) -> NDArray[np.float32]:
        """Soft symbols [211]: the mean of each one's chips; the last is the template's."""
        total = np.bincount(self.symbol, chips * self.sign, minlength=SYMBOLS + 1)
        return np.asarray(total / np.bincount(self.symbol), dtype=np.float32)


@lru_cache(maxsize=1)
def carriers() -> Carriers:
    """The carriers of version 1. All of it follows from a hash, on every machine alike."""
    rows, columns = np.meshgrid(np.arange(FRAME), np.arange(1, FRAME // 2), indexing="ij")
    frequency = np.hypot(np.where(rows > FRAME // 2, rows - FRAME, rows), columns)
    chosen = (frequency >= _LOWEST) & (frequency < _HIGHEST)
    rows, columns, frequency = rows[chosen], columns[chosen], frequency[chosen]
    count = 2 * len(rows)
    draws = np.frombuffer(
        hashlib.shake_256(b"org.platemark.watermark.1").digest(count * 9), dtype=np.uint8
    )
    order = np.argsort(draws[: count * 8].view("<u8"), kind="stable")
    sign = np.where(draws[count * 8 :] & 1, 1.0, -1.0).astype(np.float32)
    symbol = np.full(count, SYMBOLS, np.int64)
    payload = order[count // _TEMPLATE_SHARE :]
    symbol[payload] = np.arange(len(payload)) % SYMBOLS
    return Carriers(rows, columns, symbol, sign)


def framed(luma: NDArray[np.float32]) -> Frame:
    """Luma [H, W] stretched onto the frame."""
    if luma.shape == (FRAME, FRAME):
        return luma
    picture = Image.fromarray(luma)
    return np.asarray(picture.resize((FRAME, FRAME), Image.Resampling.BICUBIC), dtype=np.float32)


def heard(frame: Frame) -> Frame:
    """What is left of a frame without the picture's own large shapes and hard edges."""
    detail = frame - _blurred(_blurred(frame))
    limited = detail / np.sqrt(1 + (detail / np.float32(_LIMIT)) ** 2)
    return np.asarray(limited, dtype=np.float32)


def _blurred(frame: Frame) -> Frame:
    width = 2 * _BLUR + 1
    for _ in range(2):
        padded = np.pad(frame, ((_BLUR + 1, _BLUR), (0, 0)), mode="edge")
        total = padded.cumsum(axis=0, dtype=np.float64)
        frame = ((total[width:] - total[:-width]) / width).astype(np.float32).T
    return frame
