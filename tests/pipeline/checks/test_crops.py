"""Regions cover the image, overlap, and are embedded as if each were cut out and embedded alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.checks import crops
from pipeline.checks.crops import region_embeddings, regions
from pipeline.checks.protocol import Images


class Corners:
    """An encoder that answers with sizes and corner pixels, so that no two regions are alike."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def images(self, images: Images) -> np.ndarray:
        self.calls.append(np.asarray(images).nbytes)
        return np.stack(
            [np.array([*i[0, 0], *i[-1, -1], *i.shape[:2]], np.float32) for i in images]
        )


@pytest.mark.parametrize(
    ("levels", "count", "last"),
    [
        (1, 1, (0, 0, 120, 60)),
        (2, 5, (40, 20, 120, 60)),
        (3, 14, (60, 30, 120, 60)),
        (4, 30, (72, 36, 120, 60)),
    ],
)
def test_the_whole_first_then_a_grid_a_level(levels, count, last):
    found = regions(60, 120, levels)
    assert found[0] == (0, 0, 120, 60)
    assert len(found) == len(set(found)) == count
    assert found[-1] == last


@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 6))
def test_regions_lie_inside_and_each_level_covers_the_image(height, width, levels):
    found = regions(height, width, levels)
    assert all(0 <= a < c <= width and 0 <= b < d <= height for a, b, c, d in found)
    for size in {(c - a, d - b) for a, b, c, d in found}:
        seen = np.zeros((height, width), bool)
        for a, b, c, d in found:
            if (c - a, d - b) == size:
                seen[b:d, a:c] = True
        assert seen.all()


@given(
    st.integers(48, 700), st.integers(48, 700), st.integers(2, 5), st.floats(0, 1), st.floats(0, 1)
)
def test_what_is_small_lies_whole_in_a_region_of_its_level(height, width, level, across, down):
    parts = regions(height, width, level)[-level * level :]
    # Rounding to pixels may cost one at either end.
    tall, wide = (int(side / (level + 1)) - 2 for side in (height, width))
    top, left = int(down * (height - tall)), int(across * (width - wide))
    assert any(
        a <= left and left + wide <= c and b <= top and top + tall <= d for a, b, c, d in parts
    )


@pytest.mark.parametrize(("height", "width", "levels"), [(0, 9, 1), (9, 0, 1), (9, 9, 0)])
def test_no_regions_of_nothing(height, width, levels):
    with pytest.raises(ValueError, match="no regions"):
        regions(height, width, levels)


@pytest.mark.parametrize("chunk", [1, 10_000, 10**9])
def test_embeddings_are_those_of_each_region_alone(monkeypatch, chunk):
    monkeypatch.setattr(crops, "CHUNK_BYTES", chunk)
    images = np.random.default_rng(1).integers(0, 256, (3, 50, 70, 3), dtype=np.uint8)
    places = regions(50, 70, 3)
    found = region_embeddings(Corners(), images, places)
    assert found.shape == (3, 14, 8)
    assert found.dtype == np.float32
    for row, image in enumerate(images):
        for column, (a, b, c, d) in enumerate(places):
            alone = Corners().images(image[None, b:d, a:c])[0]
            np.testing.assert_array_equal(found[row, column], alone)


def test_no_more_crops_are_held_at_once_than_allowed(monkeypatch):
    monkeypatch.setattr(crops, "CHUNK_BYTES", 100_000)
    encoder = Corners()
    region_embeddings(encoder, np.zeros((20, 100, 100, 3), np.uint8), regions(100, 100, 3))
    assert max(encoder.calls) <= 100_000


def test_no_images_have_no_embeddings():
    found = region_embeddings(Corners(), np.zeros((0, 40, 40, 3), np.uint8), regions(40, 40, 2))
    assert found.shape[:2] == (0, 5)
