"""Fingerprints: what stays the same when a picture is edited, and what a manifest says of it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.images import RgbImage
from pipeline.soft_binding.fingerprint import iscc_of


def picture(seed: int, side: int = 512) -> RgbImage:
    """A smooth picture of large patches."""
    patches = np.random.default_rng(seed).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(patches).resize((side, side), Image.Resampling.BICUBIC))


def jpeg(pixels: RgbImage, quality: int, side: int) -> RgbImage:
    out = io.BytesIO()
    Image.fromarray(pixels).resize((side, side)).save(out, "JPEG", quality=quality)
    return np.asarray(Image.open(out))


@pytest.mark.parametrize(("quality", "side"), [(90, 512), (60, 512), (75, 256), (75, 768)])
def test_an_iscc_survives_encoding_and_size(quality: int, side: int) -> None:
    codes = [(iscc_of(jpeg(picture(n), quality, side)), iscc_of(picture(n))) for n in range(20)]
    assert sum(after == before for after, before in codes) >= 16


def test_an_iscc_tells_pictures_apart_and_ignores_plain_borders() -> None:
    assert len({iscc_of(picture(seed)) for seed in range(20)}) == 20
    inside = picture(1)
    framed = np.full((560, 570, 3), 7, dtype=np.uint8)
    framed[20:532, 30:542] = inside
    assert iscc_of(framed) == iscc_of(inside)


def test_an_iscc_of_nothing_but_one_colour_is_a_code_too() -> None:
    assert iscc_of(np.full((64, 48, 3), 255, dtype=np.uint8)).startswith("ISCC:EEA")
