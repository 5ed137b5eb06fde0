"""Upscaling in tiles: pictures of any size through a model of one size, without seams."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.images import RgbImage
from pipeline.request import Request

OVERLAP = 16
"""Pixels that neighbouring tiles share, before enlarging; there they fade into each other."""
MULTIPLE = {4: 8, 2: 64}
"""Sides of a tile are multiples of this, by factor: the UNets halve them, that of the latent
upscaler after its autoencoder did."""

Enlarge = Callable[[list[tuple[Request, RgbImage]]], NDArray[np.uint8]]
"""Tiles of one size and the requests they belong to → uint8 RGB [N, H·factor, W·factor, 3]."""


def upscaled(
    pictures: Sequence[tuple[Request, RgbImage]],
    enlarge: Enlarge,
    factor: int,
    side: tuple[int, int],
    batch_size: int,
) -> list[RgbImage]:
    """Each picture [h, w, 3] enlarged to [h·factor, w·factor, 3].

    Pictures of one size; tiles are at most `side` (height, width), rounded down to what the model
    takes, and always pass in batches of `batch_size`, so that an image does not depend on its
    neighbours.
    """
    height, width = pictures[0][1].shape[:2]
    multiple = MULTIPLE[factor]
    most = tuple(max(each // multiple, 1, -(-2 * OVERLAP // multiple)) * multiple for each in side)
    rows, columns = _starts(height, most[0]), _starts(width, most[1])
    high, wide = min(most[0], _up(height, multiple)), min(most[1], _up(width, multiple))
    tiles: list[tuple[Request, RgbImage]] = []
    for request, picture in pictures:
        right, below = max(0, wide - width), max(0, high - height)
        padded = np.pad(picture, ((0, below), (0, right), (0, 0)), mode="edge")
        for number, (top, left) in enumerate((y, x) for y in rows for x in columns):
            own = request if number == 0 else replace(request, seed=_tile_seed(request, number))
            tiles.append((own, padded[top : top + high, left : left + wide]))
    large: list[RgbImage] = []
    for start in range(0, len(tiles), batch_size):
        part = tiles[start : start + batch_size]
        filled = part + [part[-1]] * (batch_size - len(part))
        large.extend(enlarge(filled)[: len(part)])
    each = len(rows) * len(columns)
    return [
        _joined(large[i * each : (i + 1) * each], rows, columns, factor)[
            : height * factor, : width * factor
        ]
        for i in range(len(pictures))
    ]


def faithful(large: RgbImage, small: RgbImage, factor: int) -> RgbImage:
    """The enlarged picture with the block means of the small one put back: all it adds is detail.

    Shrunk again it is the input: a cast or a blotch that a model leaves in flat areas goes. Two
    rounds of back-projection (Irani and Peleg, "Improving resolution by image registration", 1991).
    """
    import torch
    import torch.nn.functional as functional

    made = torch.from_numpy(large).permute(2, 0, 1)[None].float()
    wanted = torch.from_numpy(small).permute(2, 0, 1)[None].float()
    for _ in range(2):
        missing = wanted - functional.avg_pool2d(made, factor)
        made += functional.interpolate(missing, scale_factor=factor, mode="bicubic")
        made.clamp_(0, 255)
    result: RgbImage = made[0].permute(1, 2, 0).round().byte().numpy()
    return result


def _up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def _tile_seed(request: Request, number: int) -> int:
    """Every tile has noise of its own: equal noise would repeat as a pattern."""
    digest = hashlib.sha256(f"{request.seed} {number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _starts(length: int, side: int) -> list[int]:
    """Where tiles begin along one axis: evenly spread, sharing OVERLAP pixels or more."""
    if length <= side:
        return [0]
    count = -(-(length - OVERLAP) // (side - OVERLAP))
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


def _joined(
    tiles: Sequence[RgbImage], rows: Sequence[int], columns: Sequence[int], factor: int
) -> RgbImage:
    """Tiles on one canvas, weighted down towards their edges."""
    if len(tiles) == 1:
        return tiles[0]
    high, wide = tiles[0].shape[:2]
    canvas = np.zeros((rows[-1] * factor + high, columns[-1] * factor + wide, 3), np.float32)
    weight = np.zeros((*canvas.shape[:2], 1), np.float32)
    ramp = np.minimum.outer(_ramp(high, factor), _ramp(wide, factor))[..., None]
    places = ((y * factor, x * factor) for y in rows for x in columns)
    for tile, (top, left) in zip(tiles, places, strict=True):
        canvas[top : top + high, left : left + wide] += tile * ramp
        weight[top : top + high, left : left + wide] += ramp
    joined: RgbImage = (canvas / weight).round().clip(0, 255).astype(np.uint8)
    return joined


def _ramp(length: int, factor: int) -> NDArray[np.float32]:
    """1 in the middle, falling towards both ends over the shared pixels."""
    distance = np.minimum(np.arange(length), np.arange(length)[::-1]) + 1
    ramp: NDArray[np.float32] = np.minimum(1, distance / (OVERLAP * factor)).astype(np.float32)
    return ramp
