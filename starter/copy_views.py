"""Views of pictures from which the copy descriptor learns what stays a copy: whole or cut out and
pasted elsewhere, cropped, turned, mirrored, recoloured, blurred, compressed, covered.

The transforms that measure it (pipeline/checks/transforms.py) are other code with other numbers.
"""

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor

from starter import library, pictures
from starter.augment import SIZE

ALPHA = 6
"""The plane of a stored geometry that says how much of each pixel the subject covers."""


def outlines(data: pictures.Pictures, split: str) -> tuple[Tensor, Tensor]:
    """Coverage uint8 [G,128,128] of every geometry, and which one each picture shows, int64 [N].

    Pictures of one geometry differ in colour and material alone, so they are never each other's
    counter-examples.
    """
    source = library.load(split)
    rows, first = [], {}
    for key, planes in source.tensors.items():
        first[key] = sum(len(row) for row in rows)
        rows.append((planes[:, ALPHA].float() * 255).round().byte())
    which = [
        first[s.subject, s.view] + s.seed - source.seeds[s.subject, s.view][0] for s in data.scenes
    ]
    return torch.cat(rows), torch.tensor(which)


def weak(x: Tensor, rng: Generator) -> Tensor:
    """A picture as a library holds it, slightly moved: [N,3,128,128] to [N,3,64,64] in [0,1]."""
    n = len(x)
    moved = _sample(x, _matrices(n, rng, zoom=(0.92, 1.12), shift=0.06, turn=0.03, mirror=0.0))
    return torch.where(_some(n, 0.4, rng), F.avg_pool2d(x, 2), moved)


def strong(x: Tensor, alpha: Tensor, others: Tensor, rng: Generator) -> Tensor:
    """What people make of a picture: [N,3,128,128] to [N,3,64,64], all in [0,1].

    `alpha` [N,1,128,128] is the subject's outline; `others` [N,3,128,128] are what it is pasted
    into and covered with.
    """
    n = len(x)
    view = torch.empty(n, 3, SIZE, SIZE)
    pasted = torch.rand(n, generator=rng) < 0.5
    view[pasted] = _pasted(x[pasted], alpha[pasted], others[pasted], rng)
    near = _matrices(int((~pasted).sum()), rng, (0.9, 1.9), shift=0.35, turn=0.15, mirror=0.5)
    view[~pasted] = _sample(x[~pasted], near)
    view = _covered(_recolour(view.clamp(0, 1), rng), others, rng)
    return _noisy(_compressed(_blurred(view, rng), rng), rng)


def _pasted(x: Tensor, alpha: Tensor, others: Tensor, rng: Generator) -> Tensor:
    n = len(x)
    cut = torch.where(_some(n, 0.5, rng), alpha, torch.ones_like(alpha))
    far = _matrices(n, rng, zoom=(0.45, 1.05), shift=0.55, turn=0.15, mirror=0.5)
    layers = _sample(torch.cat([x * cut, cut], 1), far, "zeros")
    scene = F.avg_pool2d(others, 2)
    ground = torch.where(_some(n, 0.75, rng), scene, torch.rand(n, 3, 1, 1, generator=rng))
    return layers[:, :3] + ground * (1 - layers[:, 3:])


def scraps(x: Tensor, rng: Generator) -> Tensor:
    """Half-size pieces of pictures, which are no copy of anything: [N,3,128,128] to [N,3,64,64]."""
    n = len(x)
    near = _sample(x, _matrices(n, rng, zoom=(1.2, 2.6), shift=0.9, turn=0.0, mirror=0.5))
    return _noisy(_blurred(_recolour(near, rng), rng), rng)


def _some(n: int, share: float, rng: Generator) -> Tensor:
    return torch.rand(n, 1, 1, 1, generator=rng) < share


def _between(n: int, low: float, high: float, rng: Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=rng)


def _matrices(
    n: int, rng: Generator, zoom: tuple[float, float], shift: float, turn: float, mirror: float
) -> Tensor:
    """Inverse affine maps [N,2,3] for `grid_sample`; shifts are shares of half the output."""
    low, high = (math.log(bound) for bound in zoom)
    scale = _between(n, low, high, rng).exp()
    stretch = _between(n, -0.12, 0.12, rng).exp()
    angle = turn * torch.randn(n, generator=rng)
    flip = 1 - 2 * (torch.rand(n, generator=rng) < mirror).float()
    cos, sin = angle.cos(), angle.sin()
    turned = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    sides = torch.stack([flip / (scale * stretch), stretch / scale], 1)
    linear = sides[:, :, None] * turned
    move = shift * (2 * torch.rand(n, 2, generator=rng) - 1)
    return torch.cat([linear, -(linear @ move[:, :, None])], 2)


def _sample(x: Tensor, theta: Tensor, padding: str = "reflection") -> Tensor:
    """[N,C,128,128] moved by [N,2,3] and made half as large."""
    grid = F.affine_grid(theta, [len(x), x.shape[1], SIZE, SIZE], align_corners=False)
    # Sampled from the large picture, only what is enlarged is free of jagged edges.
    small = F.grid_sample(F.avg_pool2d(x, 2), grid, padding_mode=padding, align_corners=False)
    near = theta[:, :, :2].norm(dim=2).amax(1) < 0.75
    small[near] = F.grid_sample(x[near], grid[near], padding_mode=padding, align_corners=False)
    return small


def _recolour(x: Tensor, rng: Generator) -> Tensor:
    """Turn hues, pull saturation, brightness and contrast; a tenth become grey."""
    n = len(x)
    grey = (x * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    angle = 2 * math.pi * torch.rand(n, generator=rng)
    rotated = torch.einsum("nij,njhw->nihw", _hue(angle), x)
    y = torch.where(_some(n, 0.65, rng), rotated, x)
    saturation = torch.where(
        _some(n, 0.15, rng), torch.zeros(()), _between(n, 0.5, 1.6, rng).view(n, 1, 1, 1)
    )
    y = grey + saturation * (y - grey)
    gain = _between(n, 0.75, 1.3, rng).view(n, 1, 1, 1)
    tint = 1 + 0.25 * (torch.rand(n, 3, 1, 1, generator=rng) - 0.5)
    contrast = _between(n, 0.7, 1.3, rng).view(n, 1, 1, 1)
    y = ((y - 0.5) * contrast + 0.5) * gain * tint
    return torch.where(_some(n, 0.7, rng), y, x).clamp(0, 1)


def _hue(angle: Tensor) -> Tensor:
    """Rotations [N,3,3] of RGB about the grey axis (Rodrigues' formula)."""
    cos, sin = angle.cos(), math.sqrt(1 / 3) * angle.sin()
    rest = (1 - cos) / 3
    a, b, c = cos + rest, rest - sin, rest + sin
    return torch.stack([a, b, c, c, a, b, b, c, a], 1).view(-1, 3, 3)


def _covered(x: Tensor, others: Tensor, rng: Generator) -> Tensor:
    """Half get a box of a flat colour or of another picture over 5 to 35 % of the area."""
    n = len(x)
    area = _between(n, 0.05, 0.35, rng)
    ratio = _between(n, -0.5, 0.5, rng).exp()
    half = torch.stack([(area * ratio).sqrt() / 2, (area / ratio).sqrt() / 2], 1)
    centre = torch.rand(n, 2, generator=rng)
    place = (torch.arange(SIZE) + 0.5) / SIZE
    rows = ((place - centre[:, :1]).abs() < half[:, :1])[:, None, :, None]
    columns = ((place - centre[:, 1:]).abs() < half[:, 1:])[:, None, None, :]
    flat = torch.rand(n, 3, 1, 1, generator=rng).expand(n, 3, SIZE, SIZE)
    cover = torch.where(_some(n, 0.6, rng), flat, F.avg_pool2d(others.roll(1, 0), 2))
    return torch.where(rows & columns & _some(n, 0.5, rng), cover, x)


def _blurred(x: Tensor, rng: Generator) -> Tensor:
    for side in (20, 28, 40):
        rows = (torch.rand(len(x), generator=rng) < 0.09).nonzero()[:, 0]
        if len(rows):
            low = F.interpolate(x[rows], (side, side), mode="bilinear", antialias=True)
            x[rows] = F.interpolate(low, (SIZE, SIZE), mode="bilinear")
    return x


def _compressed(x: Tensor, rng: Generator) -> Tensor:
    for row in (torch.rand(len(x), generator=rng) < 0.15).nonzero()[:, 0].tolist():
        quality = int(torch.randint(8, 70, (1,), generator=rng))
        buffer = io.BytesIO()
        array = (x[row].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        Image.fromarray(array).save(buffer, "JPEG", quality=quality)
        x[row] = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1).float() / 255
    return x


def _noisy(x: Tensor, rng: Generator) -> Tensor:
    level = 0.05 * torch.rand(len(x), 1, 1, 1, generator=rng) ** 2
    return (x + level * torch.randn(x.shape, generator=rng)).clamp(0, 1)
