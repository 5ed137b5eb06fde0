"""Where the camera stands: views by name, framing that fits each subject, and rays.

The subject is measured on a coarse grid, so that every geometry fills the same share of the frame.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from starter.figures import ALL_SHAPES
from starter.sdf import Point
from starter.vocabulary import VIEWS

DISTANCE = 7.0
EXTENT = 2.9  # side of the cube, centred at height 1.3, that holds every subject
Axes = tuple[Tensor, Tensor, Tensor]


def distance(subject: str, p: Point, u: Tensor) -> Tensor:
    """Signed distance to the nearest part of a subject."""
    parts = list(ALL_SHAPES[subject](p, u).values())
    out = parts[0]
    for part in parts[1:]:
        out = torch.minimum(out, part)
    return out


def camera(view: str, u: Tensor, base: float) -> Axes:
    """Right, up and forward axes [N,3] of the camera for each geometry."""
    spread = {"eye level": 8.0, "three-quarter": 10.0, "top": 10.0}[view]
    turn = {"eye level": 0.35, "three-quarter": 1.0, "top": 0.8}[view]
    azimuth = torch.deg2rad(base * turn + spread * (2 * u[:, 7] - 1))
    elevation = torch.deg2rad(VIEWS[view] + 4.0 * (u[:, 6] - 0.5))
    ca, sa, ce, se = azimuth.cos(), azimuth.sin(), elevation.cos(), elevation.sin()
    forward = torch.stack([-sa * ce, -se, -ca * ce], -1)
    right = torch.stack([ca, torch.zeros_like(ca), -sa], -1)
    return right, torch.linalg.cross(right, forward), forward


def frame(subject: str, u: Tensor, axes: Axes, fill: float) -> tuple[Tensor, Tensor]:
    """Camera position [N,3] and half field of view [N] that make the subject fill the frame."""
    right, up, forward = axes
    n, steps = len(u), 40
    line = torch.linspace(-EXTENT / 2, EXTENT / 2, steps)
    grid = torch.stack(torch.meshgrid(line, line + 1.3, line, indexing="ij"), -1).reshape(1, -1, 3)
    flat = grid.expand(n, -1, 3)
    inside = distance(subject, flat.unbind(-1), u[:, None, :]) < 0.6 * EXTENT / steps
    middle = torch.tensor([0.0, 1.0, 0.0])
    for _ in range(2):  # the second pass centres what perspective has shifted
        eye = middle - DISTANCE * forward
        rel = flat - eye[:, None] if eye.dim() == 2 else flat - eye
        depth = (rel * forward[:, None]).sum(-1)
        sx = (rel * right[:, None]).sum(-1) / depth
        sy = (rel * up[:, None]).sum(-1) / depth
        lo = torch.stack([torch.where(inside, s, 9.0).amin(1) for s in (sx, sy)], -1)
        hi = torch.stack([torch.where(inside, s, -9.0).amax(1) for s in (sx, sy)], -1)
        centre = (lo + hi) / 2 * DISTANCE
        middle = middle + centre[:, :1] * right + centre[:, 1:] * up
    size = ((hi - lo) / 2).amax(-1)
    zoom = fill * (0.94 + 0.12 * u[:, 5])
    shift = (torch.stack([u[:, 3], u[:, 4]], -1) - 0.5) * 0.12 * size[:, None] * DISTANCE
    middle = middle + shift[:, :1] * right + shift[:, 1:] * up
    return middle - DISTANCE * forward, size / zoom


def rays_of(axes: Axes, half: Tensor, size: int) -> Tensor:
    """Unit ray directions [N, size*size, 3] through pixel centres."""
    right, up, forward = (a[:, None] for a in axes)
    line = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(-line, line, indexing="ij")
    x, y = x.reshape(1, -1, 1), y.reshape(1, -1, 1)
    return F.normalize(forward + half[:, None, None] * (x * right + y * up), dim=-1)


TURNED = {"gift box": 32, "chair": 34, "book": 32, "table": 28, "mug": 12, "teapot": 10}


def azimuth_of(subject: str) -> float:
    """Degrees by which a subject turns from the camera, so that its telling side shows."""
    return float(TURNED.get(subject, 14))
