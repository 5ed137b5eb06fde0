"""What channels ask: white ground, fill, banding and bytes, on pictures whose answers are known."""

import numpy as np
import pytest
from check_samples import pictures, request_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.checks import ImageBatch
from pipeline.checks.background import background_and_fill
from pipeline.checks.banding import banding
from pipeline.checks.quality import Quality
from pipeline.encode import encode
from pipeline.policy_model import ImageFormat


def frame_with_box(side=100, ground=255, box=(10, 20, 90, 60), colour=0, width=None):
    """A plain ground with a box of left, top, right, bottom: uint8 [1, H, W, 3]."""
    image = np.full((1, side, width or side, 3), ground, np.uint8)
    left, top, right, bottom = box
    image[:, top:bottom, left:right] = colour
    return image


def measured(image):
    background, fill = background_and_fill(image)
    return float(background[0]), float(fill[0])


@settings(max_examples=60, deadline=None)
@given(st.integers(30, 256), st.integers(30, 256), st.data())
def test_a_black_box_on_white_has_a_white_ground_and_its_exact_extent(width, height, data):
    left = data.draw(st.integers(1, width - 4))
    right = data.draw(st.integers(left + 3, width - 1))
    top = data.draw(st.integers(1, height - 4))
    bottom = data.draw(st.integers(top + 3, height - 1))
    box = (left, top, right, bottom)
    found = measured(frame_with_box(height, box=box, width=width))
    assert found == (1, pytest.approx(max((right - left) / width, (bottom - top) / height)))


@pytest.mark.parametrize("side", [64, 256, 1000, 2000])
def test_a_larger_picture_is_measured_to_a_pixel_of_256(side):
    margin = round(side * 0.07)
    box = (margin, margin * 2, side - margin, side - margin * 2)
    background, fill = measured(frame_with_box(side, box=box))
    assert background == 1
    assert fill == pytest.approx((side - 2 * margin) / side, abs=2 / 125)


@pytest.mark.parametrize(
    ("what", "image", "background", "fill"),
    [
        ("grey ground", frame_with_box(ground=240), 0, 0.8),
        ("not quite white", frame_with_box(ground=249), 0, 0.8),
        ("white after JPEG", frame_with_box(ground=251), 1, 0.8),
        ("one channel short", frame_with_box(ground=(255, 255, 240)), 0, 0.8),
        ("blank", frame_with_box(box=(0, 0, 0, 0)), 1, 0),
        ("black", frame_with_box(ground=0, box=(0, 0, 0, 0)), 0, 0),
        # A speck of dust is no product, and the box stays that of the product.
        ("dust", frame_with_box() & frame_with_box(box=(2, 2, 3, 3)), 1, 0.8),
    ],
)  # fmt: skip
def test_known_pictures(what, image, background, fill):
    assert measured(image) == (pytest.approx(background), pytest.approx(fill, abs=0.01)), what


def test_a_white_product_on_white_is_found_by_its_outline_and_its_inside_is_no_ground():
    image = frame_with_box(box=(20, 20, 80, 80), colour=180)
    image[:, 21:79, 21:79] = 252
    assert measured(image) == (1, pytest.approx(0.6))


def test_a_soft_shadow_is_ground_that_is_not_white():
    image = frame_with_box(box=(30, 10, 70, 60)).astype(float)
    ramp = np.concatenate([np.arange(0, 12), np.arange(12, 0, -1)]) * 5
    image[:, 60:84, 30:70] -= ramp[None, :, None, None]
    background, fill = measured(image.astype(np.uint8))
    assert fill == pytest.approx(0.5)
    assert 0.8 < background < 1


@pytest.mark.parametrize(
    ("what", "cut", "least", "most"),
    [
        ("a table top under a white wall", (slice(60, None), slice(None)), 0.4, 0.6),
        ("a grey corner", (slice(0, 30), slice(0, 30)), 0.6, 0.95),
        ("a product cut off at the left", (slice(30, 60), slice(0, 50)), 0.6, 0.95),
    ],
)
def test_what_touches_the_frame_and_is_not_white_is_told(what, cut, least, most):
    image = frame_with_box(box=(40, 20, 60, 50))
    image[(0, *cut)] = 120
    assert least <= measured(image)[0] <= most, what


def test_a_scene_has_no_white_ground():
    scene = pictures(1, 100, 100, seed=3)
    background, _ = measured(scene)
    assert background < 0.05


def ramp(side, low, high, levels=256):
    """A diagonal gradient of `levels` grey levels over 0..255, float32 [H, W]."""
    across, down = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    step = 255 / (levels - 1)
    smooth = low + (high - low) * (across + down) / 2
    return (np.round(smooth / step) * step).astype(np.float32)


@pytest.mark.parametrize("side", [128, 256, 1024])
@pytest.mark.parametrize(
    ("what", "low", "high", "levels", "noise", "least", "most"),
    [
        ("32 levels", 40, 220, 32, 0, 0.9, 1),
        ("64 levels", 40, 220, 64, 0, 0.9, 1),
        ("8 bits", 40, 220, 256, 0, 0, 0),
        ("8 bits, faint", 225, 250, 256, 0, 0, 0.01),
        ("8 bits, noisy", 40, 220, 256, 2, 0, 0.02),
        ("flat", 80, 80, 32, 0, 0, 0),
    ],
)
def test_stairs_are_told_from_gradients(side, what, low, high, levels, noise, least, most):
    luma = ramp(side, low, high, levels)
    luma = np.round(luma + np.random.default_rng(0).normal(0, noise, luma.shape)) if noise else luma
    assert least <= banding(luma[None].astype(np.float32))[0] <= most, what


def test_dithering_hides_the_stairs():
    step = 255 / 15
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (256, 256)) * step
    dithered = np.round((ramp(256, 40, 220) + noise) / step) * step
    assert banding(ramp(256, 40, 220, 32)[None])[0] > 0.9
    assert banding(dithered[None].astype(np.float32))[0] < 0.05


@pytest.mark.parametrize("fmt", [ImageFormat(), ImageFormat(format="jpeg", quality=80)])
def test_bytes_are_those_of_the_encoded_file(fmt):
    images = pictures(2, 64, 64)
    batch = ImageBatch(images, (request_of("a"), request_of("b")))
    for pixels, scores in zip(images, Quality(fmt)(batch), strict=True):
        (found,) = (score for score in scores if score.name == "bytes")
        assert found.value == len(encode(pixels, fmt)[0])
        assert found.evidence["format"] == fmt.format
        assert "manifest" in found.evidence["note"]


def test_bytes_are_not_measured_unless_asked_for():
    batch = ImageBatch(pictures(1), (request_of("a"),))
    assert "bytes" not in {score.name for score in Quality()(batch)[0]}
