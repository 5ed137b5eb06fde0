"""Reads the embedded watermark from any picture, whole or cropped by up to 15 % a side.

A crop is found by correlation with the template over scales and shifts, then read like a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.checks.pdq import luma_of
from pipeline.images import RgbImage
from pipeline.soft_binding.carriers import FRAME, Frame, carriers, framed, heard
from pipeline.soft_binding.payload import SYMBOLS, decoded

_SIDES = range(FRAME, 108, -2)
"""Frame pixels that are left of a cropped side: 100 % down to 86 %; then those between."""
_REFINED = 6
_TRIED = 12
_STEPS = (-0.5, -0.25, 0.0, 0.25, 0.5)

_Spectrum = NDArray[np.complexfloating[Any, Any]]


@dataclass(frozen=True)
class Reading:
    """A payload and the part of the marked image that was seen: left, top, right, bottom, 0..1.

    Other pictures give a payload once in some 5,000 times: it counts when a record has it.
    """

    payload: int
    window: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)


class _Place(NamedTuple):
    """Where a crop may lie in the frame, in pixels, and how well the template fits there."""

    fit: float
    height: int
    width: int
    top: float
    left: float


def read(image: RgbImage) -> Reading | None:
    """What the watermark of uint8 [H, W, 3] says; None when there is none that can be read."""
    detail = heard(framed(luma_of(image)))
    payload = _payload(np.fft.rfft2(detail))
    if payload is not None:
        return Reading(payload)
    for place in _places(detail):
        spectrum, top, left = _moved(detail, place)
        payload = _payload(spectrum)
        if payload is not None:
            edges = (left, top, left + place.width, top + place.height)
            window = tuple(float(np.clip(edge / FRAME, 0, 1)) for edge in edges)
            return Reading(payload, (window[0], window[1], window[2], window[3]))
    return None


def _payload(spectrum: _Spectrum) -> int | None:
    each = carriers()
    return decoded(each.symbols(each.chips(spectrum))[:SYMBOLS])


@lru_cache(maxsize=1)
def _template() -> _Spectrum:
    each = carriers()
    return each.spectrum(np.where(each.symbol == SYMBOLS, each.sign, np.float32(0)))


def _places(detail: Frame) -> list[_Place]:
    """Where the template fits best, best first: coarse sizes, then the neighbours of the best."""
    coarse = [_best_shift(detail, height, width) for height in _SIDES for width in _SIDES]
    coarse.sort(reverse=True)
    near = {
        (min(place.height + down, FRAME), min(place.width + right, FRAME))
        for place in coarse[:_REFINED]
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    } - {(place.height, place.width) for place in coarse}
    fine = [_best_shift(detail, height, width) for height, width in sorted(near)]
    return sorted([*coarse, *fine], reverse=True)[:_TRIED]


def _scaled(detail: Frame, height: int, width: int) -> _Spectrum:
    if (height, width) != detail.shape:
        picture = Image.fromarray(detail).resize((width, height), Image.Resampling.BICUBIC)
        detail = np.asarray(picture)
    return np.asarray(np.fft.rfft2(detail, s=(FRAME, FRAME)), dtype=np.complex64)


def _best_shift(detail: Frame, height: int, width: int) -> _Place:
    spectrum = _scaled(detail, height, width)
    fits = np.fft.irfft2(spectrum.conj() * _template(), s=(FRAME, FRAME))
    fits = fits[: FRAME - height + 1, : FRAME - width + 1]
    top, left = np.unravel_index(int(fits.argmax()), fits.shape)
    return _Place(
        float(fits[top, left]) / float(np.sqrt(height * width)), height, width, int(top), int(left)
    )


def _moved(detail: Frame, place: _Place) -> tuple[_Spectrum, float, float]:
    """The crop's spectrum moved to its place, to a quarter of a pixel; and that place."""
    spectrum = _scaled(detail, place.height, place.width)
    rows, columns = np.fft.fftfreq(FRAME)[:, None], np.fft.rfftfreq(FRAME)[None]
    downs = {step: np.exp(-2j * np.pi * rows * (place.top + step)) for step in _STEPS}
    rights = {step: np.exp(-2j * np.pi * columns * (place.left + step)) for step in _STEPS}
    fitting = spectrum * _template().conj()
    down, right = max(
        ((down, right) for down in _STEPS for right in _STEPS),
        key=lambda steps: float((fitting * downs[steps[0]] * rights[steps[1]]).real.sum()),
    )
    moved = (spectrum * downs[down] * rights[right]).astype(np.complex64)
    return moved, place.top + down, place.left + right
