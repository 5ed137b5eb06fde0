"""The embedded watermark: blind, needs no weights, survives re-encoding, resizing, small crops.

Pixels and a payload in, marked pixels out. pipeline/soft_binding/detect.py reads it back.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.checks.pdq import luma_of
from pipeline.images import RgbImage
from pipeline.soft_binding.carriers import FRAME, carriers, framed, heard
from pipeline.soft_binding.payload import SYMBOLS, encoded

ALGORITHM = "org.platemark.watermark.1"
SMALLEST = 64
"""Shorter sides, in pixels, hold too little of the carriers: such images are not marked."""

_ROUNDS = 6
_PASSED = 0.8
"""About how much of a chip's amplitude `heard` lets through; each round corrects the rest."""


def marks(height: int, width: int) -> bool:
    """Whether images of this size are marked."""
    return min(height, width) >= SMALLEST


def psnr_target(height: int, width: int) -> float:
    """The PSNR in dB of marked pixels: 44 at 128 pixels a side, 48 at 512, 50 from 1,024.

    Larger images average more pixels a carrier, and show its larger waves sooner.
    """
    octaves = np.log2(np.sqrt(height * width) / FRAME)
    return float(np.clip(44 + 2 * octaves, 42, 50))


def embed(image: RgbImage, payload: int) -> RgbImage:
    """The image with a 48-bit payload in its pixels; pure white (255) pixels stay as they are.

    The same input gives the same output. Informed embedding (Miller, Cox and Bloom, "Informed
    Embedding", ICIP 2000): every code symbol gets as much strength as the picture itself lacks.
    Raises ValueError when the image is too small.
    """
    height, width = image.shape[:2]
    if not marks(height, width):
        raise ValueError(f"{width}×{height} pixels are too small for a watermark")
    white = (image == 255).all(axis=2)
    if white.all():
        return image.copy()
    strength = 255 / 10 ** (psnr_target(height, width) / 20)
    mark = _mark(framed(luma_of(image)), framed(1 - white.astype(np.float32)), payload, strength)
    if (height, width) != mark.shape:
        picture = Image.fromarray(mark).resize((width, height), Image.Resampling.BICUBIC)
        mark = np.asarray(picture)
    # Marketplaces measure whether a background is pure white.
    marked = image + np.where(white, np.float32(0), mark)[..., None]
    return np.clip(np.rint(marked), 0, 255).astype(np.uint8)


def _mark(
    luma: NDArray[np.float32], room: NDArray[np.float32], payload: int, strength: float
) -> NDArray[np.float32]:
    """What is added to the frame's luma; `strength` is its root mean square over the frame."""
    each = carriers()
    wanted = np.append(encoded(payload), np.float32(1))
    share = np.bincount(each.symbol).astype(np.float32)
    gain = np.ones(SYMBOLS + 1, np.float32)
    mark = np.zeros_like(luma)
    for _ in range(_ROUNDS):
        mark = each.pattern((gain * wanted)[each.symbol] * each.sign) * room
        scale = np.float32(strength / max(float(np.sqrt(np.mean(mark**2))), 1e-6))
        mark, gain = mark * scale, gain * scale
        found = each.symbols(each.chips(np.fft.rfft2(heard(np.clip(luma + mark, 0, 255)))))
        own = found * wanted / _PASSED - gain
        gain = _filled(own, share, float((gain**2 * share).sum()))
    return mark


def _filled(
    own: NDArray[np.float32], share: NDArray[np.float32], energy: float
) -> NDArray[np.float32]:
    """Gains that lift all symbols to one level above what the picture gives, with that energy."""
    low, high = float(own.min()), float(own.max()) + float(np.sqrt(energy))
    for _ in range(40):
        level = (low + high) / 2
        spent = float((np.maximum(level - own, 0) ** 2 * share).sum())
        low, high = (level, high) if spent < energy else (low, level)
    return np.asarray(np.maximum(high - own, 0), dtype=np.float32)
