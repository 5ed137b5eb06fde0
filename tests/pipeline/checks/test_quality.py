"""Technical quality against plain formulas, and its order: sharp over blurred over blank."""

import numpy as np
import pytest
from check_samples import pictures, request_of
from PIL import Image, ImageFilter

from pipeline.checks import ImageBatch
from pipeline.checks.quality import Quality, sharpness


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


def test_an_empty_image_does_not_decode():
    with np.errstate(all="ignore"), pytest.warns(RuntimeWarning):
        assert scores_of(np.zeros((1, 0, 5, 3), np.uint8))[0]["decodes"] == 0
