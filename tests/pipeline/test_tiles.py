"""Upscaling in tiles: no seams, no neighbours, tiles of sizes that the models take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.generate.tiles import MULTIPLE, OVERLAP, Enlarge, _starts, upscaled
from pipeline.images import RgbImage
from pipeline.request import Request, derived_seed

SIDE = {4: (64, 64), 2: (128, 128)}
SIZES = [(64, 64), (65, 64), (20, 30), (100, 300), (200, 129), (1, 1), (257, 3)]


@pytest.fixture
def request_(request_of: object) -> Request:
    return request_of(mode="upscaling")  # type: ignore[operator, no-any-return]


class Nearest:
    """Every pixel repeated; a pure function of the picture, so tiles must join to the whole."""

    def __init__(self, factor: int):
        self.factor = factor
        self.passes: list[Sequence[tuple[Request, RgbImage]]] = []

    def __call__(self, tiles: list[tuple[Request, RgbImage]]) -> NDArray[np.uint8]:
        self.passes.append(tiles)
        pictures = np.stack([tile for _, tile in tiles])
        return pictures.repeat(self.factor, 1).repeat(self.factor, 2)


def grain(high: int, wide: int, seed: int = 0) -> RgbImage:
    return np.random.default_rng(seed).integers(0, 256, (high, wide, 3), dtype=np.uint8)


@pytest.mark.parametrize("factor", [4, 2])
@pytest.mark.parametrize(("high", "wide"), SIZES)
def test_tiles_join_to_the_whole_without_seams(
    high: int, wide: int, factor: int, request_: Request
) -> None:
    enlarge, picture = Nearest(factor), grain(high, wide)
    (made,) = upscaled([(request_, picture)], enlarge, factor, SIDE[factor], 3)
    assert made.dtype == np.uint8
    assert np.array_equal(made, picture.repeat(factor, 0).repeat(factor, 1))
    for tiles in enlarge.passes:
        assert len(tiles) == 3
        for _, tile in tiles:
            assert tile.shape == tiles[0][1].shape
            assert all(side % MULTIPLE[factor] == 0 for side in tile.shape[:2])
            assert all(a <= b for a, b in zip(tile.shape, SIDE[factor], strict=False))


@pytest.mark.parametrize("side", [16, 17, 20, 70, 100, 128])
@pytest.mark.parametrize("factor", [4, 2])
def test_a_models_own_size_may_be_anything(side: int, factor: int, request_: Request) -> None:
    enlarge, picture = Nearest(factor), grain(150, 90)
    (made,) = upscaled([(request_, picture)], enlarge, factor, (side, side), 4)
    assert np.array_equal(made, picture.repeat(factor, 0).repeat(factor, 1))
    assert all(
        size % MULTIPLE[factor] == 0
        for tiles in enlarge.passes
        for _, tile in tiles
        for size in tile.shape[:2]
    )


@pytest.mark.parametrize("length", [64, 65, 79, 112, 113, 1000, 4096])
def test_tiles_cover_the_length_and_overlap(length: int) -> None:
    starts = _starts(length, 64)
    assert (starts[0], starts[-1]) == (0, length - 64)
    steps = [b - a for a, b in pairwise(starts)]
    assert all(0 < step <= 64 - OVERLAP for step in steps)
    # Evenly spread, and not one more than needed.
    assert not steps or max(steps) - min(steps) <= 1
    assert len(starts) == 1 or (len(starts) - 2) * (64 - OVERLAP) + 64 < length


def test_each_tile_has_noise_of_its_own_whoever_its_neighbours_are(request_: Request) -> None:
    """Random pictures by the tiles' seeds, as a model would paint them."""

    def painted(tiles: list[tuple[Request, RgbImage]]) -> NDArray[np.uint8]:
        return np.stack(
            [
                np.random.default_rng(own.seed).integers(
                    0, 256, (tile.shape[0] * 4, tile.shape[1] * 4, 3), dtype=np.uint8
                )
                for own, tile in tiles
            ]
        )

    enlarge: Enlarge = painted
    # As the engine gets them: seeds derived from what is asked for.
    asked = [replace(request_, seed=0, prompt=prompt) for prompt in ("a mug", "a vase")]
    one, other = (replace(each, seed=derived_seed(each.as_json())) for each in asked)
    pictures = [(one, grain(100, 80)), (other, grain(100, 80, 1))]
    together = upscaled(pictures, enlarge, 4, (64, 64), 4)
    for picture, made in zip(pictures, together, strict=True):
        (alone,) = upscaled([picture], enlarge, 4, (64, 64), 3)
        assert np.array_equal(alone, made)
    seen = Nearest(4)
    upscaled(pictures, seen, 4, (64, 64), 8)
    seeds = [own.seed for own, _ in seen.passes[0]]
    assert len(set(seeds)) == 8
    assert (seeds[0], seeds[4]) == (one.seed, other.seed)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_neighbouring_tiles_fade_into_each_other(request_: Request) -> None:
    """Two tiles that disagree, black and white, meet in a slope rather than at an edge."""

    def black_then_white(tiles: list[tuple[Request, RgbImage]]) -> NDArray[np.uint8]:
        shape = (len(tiles), *(4 * side for side in tiles[0][1].shape[:2]), 3)
        made = np.zeros(shape, np.uint8)
        made[1::2] = 255
        return made

    (made,) = upscaled([(request_, grain(64, 112))], black_then_white, 4, (64, 64), 2)
    row = made[128, :, 0].astype(int)
    assert (row[0], row[-1]) == (0, 255)
    assert np.diff(row).min() >= 0
    assert np.diff(row).max() <= 8
