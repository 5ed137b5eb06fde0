"""The subjects of the starter world as solids: one function each, from points to painted parts.

A shape function takes points and eight random numbers in [0, 1] a geometry (`u`, broadcast to the
points) and returns distances by paint; the paint "colour" takes the colour of the caption.
Objects stand on the floor y = 0, face the camera (+z), and measure about 2 across.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from starter.sdf import (
    Point,
    box,
    capsule,
    cylinder,
    ellipsoid,
    lathe,
    move,
    smooth_union,
    sphere,
    torus_z,
)

Parts = dict[str, Tensor]
Shape = Callable[[Point, Tensor], Parts]


def _between(u: Tensor, i: int, low: float, high: float) -> Tensor:
    return low + (high - low) * u[..., i]


def _union(*parts: Tensor) -> Tensor:
    out = parts[0]
    for part in parts[1:]:
        out = torch.minimum(out, part)
    return out


def mug(p: Point, u: Tensor) -> Parts:
    """A straight mug with a ring handle on its right."""
    r, h = _between(u, 0, 0.62, 0.72), _between(u, 1, 0.68, 0.82)
    q = move(p, 0, h, 0)
    outer = cylinder(q, r, h, 0.05)
    inner = cylinder(move(q, 0, 0.2, 0), r - 0.09, h, 0.05)
    handle = torus_z(move(q, r + 0.05, 0, 0), _between(u, 2, 0.36, 0.44), 0.1)
    handle = torch.maximum(handle, 0.03 + r * 0.9 - length_xz(q))
    return {"colour": _union(torch.maximum(outer, -inner), handle)}


def length_xz(p: Point) -> Tensor:
    """Distance from the y axis."""
    return torch.sqrt(p[0] * p[0] + p[2] * p[2] + 1e-12)


def bottle(p: Point, u: Tensor) -> Parts:
    """A shouldered bottle with a dark cap."""
    r, h = _between(u, 0, 0.42, 0.52), _between(u, 1, 1.15, 1.4)
    neck, top = _between(u, 2, 0.15, 0.19), h + 0.85
    s = ((p[1] - h) / 0.42).clamp(0, 1)
    profile = r + (neck - r) * (s * s * (3 - 2 * s))
    cap = cylinder(move(p, 0, top + 0.1, 0), neck + 0.07, 0.15, 0.03)
    return {"colour": lathe(p, profile, 0.0, top, 0.75), "ink": cap}


def vase(p: Point, u: Tensor) -> Parts:
    """A hollow vase with a belly, a narrow neck and a flared lip."""
    h, belly, neck = 2.0, _between(u, 0, 0.62, 0.74), _between(u, 1, 0.24, 0.3)
    t = (p[1] / h).clamp(0, 1)
    body = torch.exp(-(((t - 0.36) / 0.25) ** 2)) * (belly - neck)
    lip = ((t - 0.78) / 0.22).clamp(min=0) ** 2 * _between(u, 2, 0.22, 0.3)
    profile = neck + body + lip
    outer = lathe(p, profile, 0.0, h, 0.6)
    hole = lathe(p, profile - 0.07, 0.15, h + 1, 0.6)
    return {"colour": torch.maximum(outer, -hole)}


def bowl(p: Point, u: Tensor) -> Parts:
    """A wide hollow bowl."""
    h, r = _between(u, 0, 0.62, 0.72), 1.0
    t = (p[1] / h).clamp(0, 1)
    profile = _between(u, 1, 0.36, 0.44) + (r - 0.4) * torch.sqrt(t + 1e-6)
    outer = lathe(p, profile, 0.0, h, 0.6)
    hole = lathe(p, profile - 0.08, 0.1, h + 1, 0.6)
    return {"colour": torch.maximum(outer, -hole)}


def lamp(p: Point, u: Tensor) -> Parts:
    """A table lamp: coloured shade, steel stem and foot."""
    h = _between(u, 0, 1.15, 1.3)
    low, high = h - 0.1, h + _between(u, 1, 0.72, 0.82)
    t = ((p[1] - low) / (high - low)).clamp(0, 1)
    profile = _between(u, 2, 0.74, 0.84) * (1 - t) + _between(u, 3, 0.4, 0.46) * t
    shade = torch.maximum(
        lathe(p, profile, low, high, 0.85), -lathe(p, profile - 0.06, low - 1, high - 0.06, 0.85)
    )
    stem = cylinder(move(p, 0, 0.7, 0), 0.07, 0.7)
    foot = cylinder(move(p, 0, 0.06, 0), 0.46, 0.07, 0.03)
    return {"colour": shade, "steel": _union(stem, foot)}


def ball(p: Point, u: Tensor) -> Parts:
    """A ball; only its framing varies."""
    return {"colour": sphere(move(p, 0, 1.0, 0), 1.0)}


def gift_box(p: Point, u: Tensor) -> Parts:
    """A lidded box with ribbons and a bow."""
    w, h = _between(u, 0, 0.8, 0.9), _between(u, 1, 0.55, 0.66)
    base = box(move(p, 0, h, 0), w, h, w, 0.02)
    lid = box(move(p, 0, 2 * h, 0), w + 0.06, 0.16, w + 0.06, 0.03)
    q = move(p, 0, h + 0.08, 0)
    band = _union(box(q, 0.15, h + 0.12, w + 0.09), box(q, w + 0.09, h + 0.12, 0.15))
    top = 2 * h + 0.3
    loops = _union(
        ellipsoid(move(p, 0.3, top + 0.06, 0.1), 0.32, 0.17, 0.16),
        ellipsoid(move(p, -0.3, top + 0.06, 0.1), 0.32, 0.17, 0.16),
        sphere(move(p, 0, top, 0.1), 0.14),
    )
    return {"colour": _union(base, lid), "ribbon": _union(band, loops)}


def chair(p: Point, u: Tensor) -> Parts:
    """A four-legged chair with a gap in its back."""
    w, seat = _between(u, 0, 0.55, 0.62), _between(u, 1, 0.85, 0.95)
    top = seat + _between(u, 2, 1.05, 1.2)
    leg = 0.085
    qx, qz = p[0].abs() - (w - leg), p[2].abs() - (w - leg)
    legs = box((qx, p[1] - seat / 2, qz), leg, seat / 2, leg, 0.02)
    board = box(move(p, 0, seat, 0), w, 0.09, w, 0.03)
    back = box(move(p, 0, (top + seat) / 2, -w + 0.08), w, (top - seat) / 2, 0.08, 0.03)
    hole = box(move(p, 0, seat + 0.28, -w), w - 0.2, 0.13, 0.5)
    return {"colour": _union(legs, board, torch.maximum(back, -hole))}


def book(p: Point, u: Tensor) -> Parts:
    """A standing book with a paper label."""
    w, h, d = 0.78, _between(u, 0, 1.0, 1.12), _between(u, 1, 0.2, 0.26)
    q = move(p, 0, h, 0)
    covers = box((q[0], q[1], q[2].abs() - d), w, h, 0.05, 0.02)
    spine = box(move(q, -w, 0, 0), 0.05, h, d + 0.05, 0.02)
    pages = box(move(q, -0.02, 0, 0), w - 0.06, h - 0.07, d)
    label = box(move(q, 0.06, _between(u, 2, 0.25, 0.4), d + 0.05), 0.42, 0.2, 0.02)
    return {"colour": _union(covers, spine), "paper": _union(pages, label)}


def table(p: Point, u: Tensor) -> Parts:
    """A long table on four legs."""
    w, d, h = _between(u, 0, 1.2, 1.3), _between(u, 1, 0.7, 0.8), _between(u, 2, 0.95, 1.1)
    leg = 0.1
    qx, qz = p[0].abs() - (w - leg - 0.06), p[2].abs() - (d - leg - 0.06)
    legs = box((qx, p[1] - h / 2, qz), leg, h / 2, leg, 0.02)
    return {"colour": _union(legs, box(move(p, 0, h, 0), w, 0.1, d, 0.03))}


def teapot(p: Point, u: Tensor) -> Parts:
    """A round teapot: spout right, handle left, lid with a knob."""
    a, b = _between(u, 0, 0.74, 0.8), _between(u, 1, 0.58, 0.64)
    body = torch.maximum(ellipsoid(move(p, 0, b, 0), a, b, a), 0.02 - p[1])
    spout = capsule(p, (a * 0.75, b * 0.75, 0.0), (a + 0.55, b + 0.55, 0.0), 0.2, 0.08)
    body = smooth_union(body, spout, 0.12)
    handle = torus_z(move(p, -a - 0.08, b + 0.08, 0), _between(u, 2, 0.34, 0.4), 0.085)
    lid = ellipsoid(move(p, 0, 2 * b - 0.06, 0), 0.38, 0.13, 0.38)
    knob = sphere(move(p, 0, 2 * b + 0.16, 0), 0.13)
    return {"colour": _union(body, handle, lid, knob)}


def candle(p: Point, u: Tensor) -> Parts:
    """A burning candle on a steel dish."""
    r, h = _between(u, 0, 0.36, 0.44), _between(u, 1, 0.62, 0.75)
    wax = cylinder(move(p, 0, h + 0.1, 0), r, h, 0.05)
    top = 2 * h + 0.1
    wick = cylinder(move(p, 0, top + 0.05, 0), 0.035, 0.12)
    t = ((p[1] - top - 0.08) / 0.62).clamp(0, 1)
    flame = lathe(p, 0.42 * torch.sqrt(t + 1e-6) * (1 - t), top + 0.08, top + 0.7, 0.6)
    dish = cylinder(move(p, 0, 0.06, 0), r + 0.32, 0.07, 0.04)
    return {"colour": wax, "ink": wick, "flame": flame, "steel": dish}


SHAPES: dict[str, Shape] = {
    "mug": mug,
    "bottle": bottle,
    "vase": vase,
    "bowl": bowl,
    "lamp": lamp,
    "ball": ball,
    "gift box": gift_box,
    "chair": chair,
    "book": book,
    "table": table,
    "teapot": teapot,
    "candle": candle,
}
"""The catalogue objects; `starter.figures` adds the mannequins and the protected subjects."""
