"""Technical quality against plain formulas, and its order: sharp over blurred over blank."""

import math

import numpy as np
import pytest
from check_samples import pictures, request_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from pipeline.checks import ImageBatch
from pipeline.checks.quality import Quality, sharpness
from pipeline.policy_checks import KNOWN_SCORES


def scores_of(images, width=40, height=40):
    requests = tuple(
        request_of(f"s{index}", width=width, height=height) for index in range(len(images))
    )
    found = Quality()(ImageBatch(images, requests))
    return [{score.name: score.value for score in scores} for scores in found]


def test_sharpness_is_the_variance_of_the_four_neighbour_laplacian():
    luma = np.random.default_rng(0).random((2, 9, 7)).astype(np.float32)
    for image, found in zip(luma, sharpness(luma), strict=True):
        values = [
            image[y - 1, x] + image[y + 1, x] + image[y, x - 1] + image[y, x + 1] - 4 * image[y, x]
            for y in range(1, 8)
            for x in range(1, 6)
        ]
        assert found == pytest.approx(np.var(values), rel=1e-4)


def test_blur_lowers_sharpness_and_a_blank_image_has_none_and_no_contrast():
    sharp = np.repeat(pictures(1, 64, 64)[0, ::8], 8, axis=0)
    blurred = np.asarray(Image.fromarray(sharp).filter(ImageFilter.GaussianBlur(3)))
    blank = np.full_like(sharp, 80)
    a, b, c = scores_of(np.stack([sharp, blurred, blank]))
    assert a["sharpness"] > 4 * b["sharpness"] > 0
    assert (c["sharpness"], c["contrast"]) == (0, pytest.approx(0, abs=1e-6))
    assert a["decodes"] == b["decodes"] == c["decodes"] == 1


def test_contrast_is_a_half_for_black_and_white():
    image = np.zeros((1, 8, 8, 3), np.uint8)
    image[:, ::2] = 255
    assert scores_of(image)[0]["contrast"] == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(("width", "height", "matches"), [(48, 32, 1), (32, 48, 0), (64, 32, 0)])
def test_size_must_be_the_requests(width, height, matches):
    assert (
        scores_of(np.zeros((1, 32, 48, 3), np.uint8), width, height)[0]["size_matches"] == matches
    )


def test_an_empty_image_does_not_decode_and_nothing_else_of_it_is_measured():
    assert scores_of(np.zeros((1, 0, 5, 3), np.uint8)) == [{"decodes": 0, "size_matches": 0}]


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (40, 40, {"megapixels": 0.0016, "shortest_side": 40, "longest_side": 40, "aspect": 1}),
        (200, 50, {"megapixels": 0.01, "shortest_side": 50, "longest_side": 200, "aspect": 4}),
        (1, 3, {"megapixels": 3e-6, "shortest_side": 1, "longest_side": 3, "aspect": 3}),
    ],
)
def test_sizes_are_those_of_the_picture(width, height, expected):
    (found,) = scores_of(np.zeros((1, height, width, 3), np.uint8))
    assert {name: found[name] for name in expected} == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 90),
    st.integers(1, 300),
    st.integers(0, 2**32),
    st.sampled_from(["noise", "ramp", "flat"]),
)
def test_all_scores_are_finite_and_in_range_for_any_picture(count, height, width, seed, kind):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    if kind == "ramp":
        images = np.sort(images, axis=2)
    elif kind == "flat":
        images[:] = images[:1, :1, :1]
    for found in scores_of(images):
        assert set(found) == {*KNOWN_SCORES["quality"]} - {"bytes"}
        assert all(math.isfinite(value) for value in found.values())
        assert all(0 <= found[name] <= 1 for name in ("background", "fill", "banding"))
        assert found["aspect"] >= 1
    alone = scores_of(images[-1:])
    assert alone[0] == pytest.approx(scores_of(images)[-1], rel=1e-5, abs=1e-7)
