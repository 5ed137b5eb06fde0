"""The fixed transforms: deterministic, RGB out, and each does what its name and numbers say."""

import numpy as np
import pytest
from check_samples import pictures
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.checks.transforms import TRANSFORMS

PICTURE, SCENE = pictures(2, 96, 128, seed=4)
OUTLINED = np.dstack([PICTURE, np.zeros((96, 128), np.uint8)])
OUTLINED[20:70, 30:110, 3] = 255

each = pytest.mark.parametrize("name", TRANSFORMS)


def test_the_set_is_the_documented_one():
    assert list(TRANSFORMS) == [
        "pasted", "cropped", "recoloured", "mirrored", "re-encoded", "blurred", "partly covered",
    ]  # fmt: skip
    assert all(transform.__doc__ for transform in TRANSFORMS.values())


@each
@given(seed=st.integers(0, 2**31), outlined=st.booleans())
@settings(max_examples=25, deadline=None)
def test_same_seed_same_picture_and_inputs_stay_as_they_were(name, seed, outlined):
    picture = OUTLINED if outlined else PICTURE
    before = picture.copy(), SCENE.copy()
    first, again = (TRANSFORMS[name](picture, seed, SCENE) for _ in range(2))
    assert first.dtype == np.uint8
    assert first.shape == (96, 128, 3)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(picture, before[0])
    np.testing.assert_array_equal(SCENE, before[1])


@each
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 200), (64, 5)])
def test_any_size_will_do(name, height, width):
    picture = pictures(1, height, width)[0]
    for seed in range(6):
        assert TRANSFORMS[name](picture, seed, SCENE).ndim == 3


@each
def test_other_seeds_give_other_pictures(name):
    made = {TRANSFORMS[name](PICTURE, seed, SCENE).tobytes() for seed in range(12)}
    assert len(made) == 1 if name == "mirrored" else len(made) > 8


@pytest.mark.parametrize("picture", [PICTURE, OUTLINED])
@pytest.mark.parametrize("seed", range(20))
def test_pasted_covers_30_to_60_percent_of_the_sides(picture, seed):
    changed = (TRANSFORMS["pasted"](picture, seed, SCENE) != SCENE).any(2)
    tall, wide = (np.ptp(np.flatnonzero(changed.any(axis))) + 1 for axis in (1, 0))
    # The cut-out is 80 wide and 50 tall, so its width decides.
    assert 0.27 <= wide / 128 <= 0.62
    if picture is OUTLINED and seed % 2:
        assert tall / wide == pytest.approx(50 / 80, abs=0.1)
    else:
        assert tall / 96 == pytest.approx(wide / 128, abs=0.05)


def test_covered_hides_10_to_30_percent_and_leaves_the_rest():
    for seed in range(40):
        changed = (TRANSFORMS["partly covered"](PICTURE, seed, SCENE) != PICTURE).any(2)
        rows, columns = (np.flatnonzero(changed.any(axis)) for axis in (1, 0))
        share = (np.ptp(rows) + 1) * (np.ptp(columns) + 1) / changed.size
        assert 0.08 <= share <= 0.32
        assert changed.sum() / changed.size > 0.08


def test_mirrored_twice_is_the_picture():
    once = TRANSFORMS["mirrored"](PICTURE, 0, SCENE)
    np.testing.assert_array_equal(TRANSFORMS["mirrored"](once, 0, SCENE), PICTURE)


def test_recoloured_moves_hue_and_every_fifth_is_grey():
    red = np.zeros((8, 8, 3), np.uint8) + np.array([200, 20, 20], np.uint8)
    for seed in range(1, 20):
        made = TRANSFORMS["recoloured"](red, seed, SCENE)[0, 0].astype(int)
        if seed % 5 == 0:
            assert np.ptp(made) == 0
        else:
            assert np.abs(made - red[0, 0]).max() > 40


def test_blurred_and_reencoded_keep_the_picture_in_the_large():
    for name in ("blurred", "re-encoded"):
        for seed in range(10):
            made = TRANSFORMS[name](PICTURE, seed, SCENE).astype(float)
            assert 0 < np.abs(made - PICTURE).mean() < 12
