"""Reads the embedded watermark from any picture: whole, cropped, mirrored or turned a little.

Where the marked image lies is found by correlation with the template over scales, shifts and
angles; there it is read like a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
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
_STEPS = np.array([-0.5, -0.25, 0.0, 0.25, 0.5])
_ANGLES = (-4.0, -3.0, -2.0, 2.0, 3.0, 4.0)
"""Degrees by which a picture may be turned; by one more or less it is read all the same."""
_TURNED_SIDES = range(FRAME, 108, -4)
"""What may be left of both sides of a turned picture, since its corners are often cut off."""
_SHORTER, _LONGER = 2 * FRAME, 8 * FRAME
"""Sides, in pixels, of what is turned: larger pictures would only take longer."""

_Spectrum = NDArray[np.complexfloating[Any, Any]]
_Size = tuple[int, int]
"""Height and width in frame pixels."""


@dataclass(frozen=True)
class Reading:
    """A payload, and the part of the marked image that was seen: left, top, right, bottom, 0..1.

    `mirrored` pictures show it left to right; `turned` is by how many degrees, to the nearest,
    a picture was turned counter-clockwise. Other pictures give a payload once in some 1,800 times:
    it counts when a record has it.
    """

    payload: int
    window: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    mirrored: bool = False
    turned: float = 0.0


class _Place(NamedTuple):
    """Where a picture may lie in the frame, in pixels, and how well the template fits there."""

    fit: float
    height: int
    width: int
    top: float
    left: float
    angle: float = 0.0


def read(image: RgbImage) -> Reading | None:
    """What the watermark of uint8 [H, W, 3] says; None when there is none that can be read.

    Tried in this order: whole; cropped by up to 14 % a side; the same mirrored; turned by up to 4
    degrees, whole or with its corners cut off.
    """
    luma = luma_of(image)
    detail = heard(framed(luma))
    (payload,) = _payloads([np.fft.rfft2(detail)])
    if payload is not None:
        return Reading(payload)
    for mirrored in (False, True):
        seen = np.ascontiguousarray(detail[:, ::-1]) if mirrored else detail
        if found := _first(_places(seen), {0.0: seen}):
            return replace(found, mirrored=mirrored)
    small = _shrunk(luma)
    turned = {angle: heard(framed(_turned_back(small, angle))) for angle in _ANGLES}
    return _first(_turned_places(turned), turned)


def _payloads(spectra: Sequence[_Spectrum]) -> list[int | None]:
    each = carriers()
    return decoded(np.stack([each.symbols(each.chips(one))[:SYMBOLS] for one in spectra]))


def _first(places: Sequence[_Place], details: Mapping[float, Frame]) -> Reading | None:
    """What can be read at the best of these places; `details` by the angle of a place."""
    spectra = {
        angle: _spectra(
            detail, {(each.height, each.width) for each in places if each.angle == angle}
        )
        for angle, detail in details.items()
    }
    moved = [_moved(spectra[each.angle][each.height, each.width], each) for each in places]
    payloads = _payloads([spectrum for spectrum, _, _ in moved])
    for place, (_, top, left), payload in zip(places, moved, payloads, strict=True):
        if payload is not None:
            edges = (left, top, left + place.width, top + place.height)
            window = tuple(float(np.clip(edge / FRAME, 0, 1)) for edge in edges)
            shown = (window[0], window[1], window[2], window[3])
            return Reading(payload, shown, turned=place.angle)
    return None


def _places(detail: Frame) -> list[_Place]:
    """Where the template fits best, best first: coarse sizes, then the neighbours of the best."""
    coarse = {(height, width) for height in _SIDES for width in _SIDES}
    found = sorted(_best_shifts(detail, coarse), reverse=True)
    near = {
        (min(place.height + down, FRAME), min(place.width + right, FRAME))
        for place in found[:_REFINED]
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    }
    return sorted([*found, *_best_shifts(detail, near - coarse)], reverse=True)[:_TRIED]


def _turned_places(details: Mapping[float, Frame]) -> list[_Place]:
    """The same of a picture turned back by each angle: whole, or with as much off both sides."""
    found = [
        place._replace(angle=angle)
        for angle, detail in details.items()
        for place in _best_shifts(detail, [(side, side) for side in _TURNED_SIDES])
    ]
    return sorted(found, reverse=True)[:_TRIED]


def _shrunk(luma: NDArray[np.float32]) -> Image.Image:
    """Luma [H, W] as a picture of mode F, at most 256 by 1,024 pixels."""
    picture = Image.fromarray(luma)
    scale = min(1.0, _SHORTER / min(luma.shape), _LONGER / max(luma.shape))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BICUBIC)


def _turned_back(picture: Image.Image, angle: float) -> NDArray[np.float32]:
    """Luma of a picture that was turned by this angle, upright again."""
    turned = picture.rotate(-angle, Image.Resampling.BICUBIC)
    return np.asarray(turned, dtype=np.float32)


@lru_cache(maxsize=1)
def _band() -> tuple[NDArray[np.int64], NDArray[np.int64], _Spectrum]:
    """Rows and columns of the spectrum that hold carriers, and the template's part of them."""
    each = carriers()
    rows, columns = np.unique(each.rows), np.unique(each.columns)
    template = each.spectrum(np.where(each.symbol == SYMBOLS, each.sign, np.float32(0)))
    return rows, columns, template[np.ix_(rows, columns)]


@lru_cache(maxsize=FRAME)
def _squeezed(length: int) -> tuple[_Spectrum, _Spectrum]:
    """The band's frequencies of a line of 128 samples that is resized to `length`: of columns,
    complex64 [rows, 128], and of lines, [128, columns].

    A linear map: resizing and the Fourier transform of a whole search are a few small products.
    """
    rows, columns, _ = _band()
    line = Image.fromarray(np.eye(FRAME, dtype=np.float32))
    resized = np.asarray(line.resize((FRAME, length), Image.Resampling.BICUBIC))
    found = np.fft.fft(resized, FRAME, axis=0).astype(np.complex64)
    return found[rows], np.ascontiguousarray(found[columns].T)


def _spectra(detail: Frame, sizes: Collection[_Size]) -> dict[_Size, _Spectrum]:
    """The carriers' band of the spectrum of a frame resized to each height and width."""
    ours = detail.astype(np.complex64)
    across = {width: ours @ _squeezed(width)[1] for width in {width for _, width in sizes}}
    return {size: _squeezed(size[0])[0] @ across[size[1]] for size in sizes}


def _shifts(steps: NDArray[np.float64], frequencies: NDArray[np.int64]) -> _Spectrum:
    """What moves a spectrum by each of these frame pixels: complex64 [steps, frequencies]."""
    signed = np.where(frequencies > FRAME // 2, frequencies - FRAME, frequencies)
    return np.exp(-2j * np.pi / FRAME * np.outer(steps, signed)).astype(np.complex64)


@lru_cache(maxsize=1)
def _whole_shifts() -> tuple[_Spectrum, _Spectrum]:
    """By every whole frame pixel that a crop may lie off, down and to the right."""
    rows, columns, _ = _band()
    steps = np.arange(FRAME - min(_SIDES) + 2.0)
    return _shifts(steps, rows), _shifts(steps, columns)


def _best_shifts(detail: Frame, sizes: Collection[_Size]) -> list[_Place]:
    """For each size where the template fits best."""
    downs, rights = _whole_shifts()
    found = []
    for (height, width), spectrum in _spectra(detail, sizes).items():
        fitting = spectrum * _band()[2].conj()
        fits = (downs[: FRAME - height + 1] @ fitting @ rights[: FRAME - width + 1].T).real
        top, left = np.unravel_index(int(fits.argmax()), fits.shape)
        fit = float(fits[top, left]) / float(np.sqrt(height * width))
        found.append(_Place(fit, height, width, int(top), int(left)))
    return found


def _moved(spectrum: _Spectrum, place: _Place) -> tuple[_Spectrum, float, float]:
    """The picture's spectrum moved to its place, to a quarter of a pixel; and that place."""
    rows, columns, template = _band()
    downs, rights = _shifts(place.top + _STEPS, rows), _shifts(place.left + _STEPS, columns)
    fits = (downs @ (spectrum * template.conj()) @ rights.T).real
    down, right = np.unravel_index(int(fits.argmax()), fits.shape)
    moved = np.zeros((FRAME, FRAME // 2 + 1), np.complex64)
    moved[np.ix_(rows, columns)] = spectrum * downs[down][:, None] * rights[right]
    return moved, place.top + float(_STEPS[down]), place.left + float(_STEPS[right])
