"""Signed distance functions of simple solids, batched over points.

Points are `(x, y, z)` tensors of one shape; sizes are floats or tensors that broadcast. Distances
are negative inside. Formulas: Inigo Quilez, "Distance functions" (iquilezles.org).
"""

import torch
from torch import Tensor

Point = tuple[Tensor, Tensor, Tensor]
Size = float | Tensor


def move(p: Point, x: Size = 0.0, y: Size = 0.0, z: Size = 0.0) -> Point:
    """Points as seen from a solid whose centre lies at `(x, y, z)`."""
    return p[0] - x, p[1] - y, p[2] - z


def length(*parts: Tensor) -> Tensor:
    """Euclidean norm of components, kept away from zero."""
    total = parts[0] * parts[0]
    for part in parts[1:]:
        total = total + part * part
    return torch.sqrt(total + 1e-12)


def sphere(p: Point, r: Size) -> Tensor:
    """Ball of radius `r`."""
    return length(*p) - r


def ellipsoid(p: Point, a: Size, b: Size, c: Size) -> Tensor:
    """Ellipsoid with half-axes `a, b, c` (Quilez's bound, good near the surface)."""
    k0 = length(p[0] / a, p[1] / b, p[2] / c)
    k1 = length(p[0] / (a * a), p[1] / (b * b), p[2] / (c * c))
    return k0 * (k0 - 1.0) / k1.clamp(min=1e-4)


def box(p: Point, a: Size, b: Size, c: Size, r: Size = 0.0) -> Tensor:
    """Box with half-sizes `a, b, c` and edges rounded by `r` (inside the given sizes)."""
    qx, qy, qz = p[0].abs() - a + r, p[1].abs() - b + r, p[2].abs() - c + r
    outside = length(qx.clamp(min=0), qy.clamp(min=0), qz.clamp(min=0))
    inside = torch.maximum(qx, torch.maximum(qy, qz)).clamp(max=0)
    return outside + inside - r


def _capped(radial: Tensor, axial: Tensor, r: Size) -> Tensor:
    outside = length(radial.clamp(min=0), axial.clamp(min=0))
    return outside + torch.maximum(radial, axial).clamp(max=0) - r


def cylinder(p: Point, radius: Size, half: Size, r: Size = 0.0) -> Tensor:
    """Upright cylinder of half height `half`, edges rounded by `r`."""
    return _capped(length(p[0], p[2]) - radius + r, p[1].abs() - half + r, r)


def disc_z(p: Point, radius: Size, half: Size, r: Size = 0.0) -> Tensor:
    """Cylinder that lies along z: a coin that faces the camera."""
    return _capped(length(p[0], p[1]) - radius + r, p[2].abs() - half + r, r)


def lathe(p: Point, profile: Tensor, low: Size, high: Size, slope: float = 0.7) -> Tensor:
    """Solid of revolution of radius `profile` (evaluated at `p[1]`) between two heights.

    `slope` shrinks the distance so that steep profiles are not overstepped.
    """
    radial = length(p[0], p[2]) - profile
    return torch.maximum(radial, torch.maximum(p[1] - high, low - p[1])) * slope


def torus_z(p: Point, major: Size, minor: Size) -> Tensor:
    """Ring in the xy plane (its axis is z)."""
    return length(length(p[0], p[1]) - major, p[2]) - minor


def capsule(
    p: Point, a: tuple[Size, Size, Size], b: tuple[Size, Size, Size], ra: Size, rb: Size
) -> Tensor:
    """Thick line from `a` to `b`, radius going from `ra` to `rb`."""
    ax, ay, az = p[0] - a[0], p[1] - a[1], p[2] - a[2]
    bx, by, bz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    h = ((ax * bx + ay * by + az * bz) / (bx * bx + by * by + bz * bz)).clamp(0, 1)
    return length(ax - bx * h, ay - by * h, az - bz * h) - (ra + (rb - ra) * h)


def smooth_union(a: Tensor, b: Tensor, k: float) -> Tensor:
    """Polynomial smooth minimum: the seam is rounded over a width of `k`."""
    h = (0.5 + 0.5 * (b - a) / k).clamp(0, 1)
    return b + (a - b) * h - k * h * (1 - h)
