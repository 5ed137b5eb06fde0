"""The figures of the starter world: mannequins (one restricted) and invented protected subjects.

They exist so that gates have something to catch; shape functions as in `starter.shapes`.
"""

import torch
from torch import Tensor

from starter.sdf import (
    Point,
    box,
    capsule,
    cylinder,
    disc_z,
    ellipsoid,
    lathe,
    move,
    smooth_union,
    sphere,
    torus_z,
)
from starter.shapes import SHAPES, Parts, Shape, _between, _union


def _fold(p: Point) -> Point:
    """Mirror onto x >= 0, so that one limb stands for both."""
    return p[0].abs(), p[1], p[2]


def _body(p: Point, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Head with neck, trunk, arm and leg distances of a standing figure 2.6 high."""
    q = _fold(p)
    spread = _between(u, 0, 0.5, 0.66)
    head = _union(
        ellipsoid(move(p, 0, 2.4, 0), 0.2, 0.26, 0.22), cylinder(move(p, 0, 2.1, 0), 0.09, 0.14)
    )
    chest = ellipsoid(move(p, 0, 1.75, 0), 0.38, 0.36, 0.22)
    hips = ellipsoid(move(p, 0, 1.22, 0), 0.34, 0.28, 0.23)
    waist = cylinder(move(p, 0, 1.45, 0), 0.22, 0.25, 0.05)
    trunk = smooth_union(smooth_union(chest, waist, 0.15), hips, 0.15)
    arm = _union(
        capsule(q, (0.36, 1.92, 0.0), (spread, 1.42, 0.0), 0.11, 0.085),
        capsule(q, (spread, 1.42, 0.0), (spread + 0.02, 0.98, 0.1), 0.085, 0.07),
    )
    leg = capsule(q, (0.18, 1.12, 0.0), (0.2, 0.1, 0.0), 0.17, 0.085)
    return head, trunk, arm, leg


def _stand(p: Point) -> Tensor:
    return cylinder(move(p, 0, 0.04, 0), 0.5, 0.045, 0.02)


def unclothed_mannequin(p: Point, u: Tensor) -> Parts:
    """The restricted subject: a bare figure without face or detail."""
    head, trunk, arm, leg = _body(p, u)
    body = smooth_union(smooth_union(trunk, arm, 0.08), leg, 0.08)
    return {"skin": _union(head, body), "steel": _stand(p)}


def mannequin_dress(p: Point, u: Tensor) -> Parts:
    """The same figure in a sleeveless dress."""
    head, trunk, arm, leg = _body(p, u)
    low = _between(u, 1, 0.45, 0.6)
    t = ((p[1] - low) / (1.4 - low)).clamp(0, 1)
    skirt = lathe(p, 0.72 - 0.44 * t, low, 1.45, 0.8)
    top = torch.maximum(trunk - 0.035, p[1] - 1.98)
    return {"skin": _union(head, arm, leg), "colour": _union(skirt, top), "steel": _stand(p)}


def mannequin_suit(p: Point, u: Tensor) -> Parts:
    """The same figure in a suit with a white shirt front."""
    head, trunk, arm, leg = _body(p, u)
    q = _fold(p)
    wide = _union(smooth_union(trunk - 0.05, arm - 0.04, 0.1), leg - 0.045)
    suit = torch.maximum(wide, torch.maximum(p[1] - 2.03, 0.14 - p[1]))
    shirt = torch.maximum(
        ellipsoid(move(p, 0, 1.76, 0.06), 0.3, 0.34, 0.26), q[0] - 0.18 * (p[1] - 1.45)
    )
    return {
        "skin": _union(head, arm, leg),
        "colour": suit,
        "snow": shirt,
        "steel": _stand(p),
    }


def mirolo(p: Point, u: Tensor) -> Parts:
    """A round plum bear with cream belly and ears, a carrot nose and big eyes."""
    q = _fold(p)
    body = ellipsoid(move(p, 0, 0.95, 0), 0.95, 0.9, 0.8)
    ear = disc_z(move(q, 0.62, 1.85, 0), 0.34, 0.13, 0.08)
    lobe = disc_z(move(q, 0.62, 1.85, 0.07), 0.2, 0.13, 0.05)
    belly = ellipsoid(move(p, 0, 0.62, 0.36), 0.56, 0.48, 0.5)
    eye = sphere(move(q, 0.3, 1.38, 0.55), 0.22)
    pupil = sphere(move(q, 0.28, 1.4, 0.7), 0.12)
    nose = sphere(move(p, 0, 1.1, 0.78), 0.15)
    foot = ellipsoid(move(q, 0.45, 0.14, 0.5), 0.26, 0.16, 0.34)
    arm = capsule(q, (0.8, 1.0, 0.15), (1.08, _between(u, 0, 0.6, 1.5), 0.3), 0.17, 0.15)
    return {
        "plum": _union(smooth_union(body, ear, 0.06), arm),
        "cream": _union(belly, lobe, foot),
        "snow": eye,
        "ink": pupil,
        "carrot": nose,
    }


def zanti(p: Point, u: Tensor) -> Parts:
    """A navy cone with a coral cube for a head, two sun-yellow antennae and square eyes."""
    q = _fold(p)
    t = (p[1] / 1.25).clamp(0, 1)
    body = lathe(p, 0.72 - 0.42 * t, 0.0, 1.25, 0.85)
    belt = lathe(p, 0.76 - 0.42 * t, 0.38, 0.62, 0.85)
    head = box(move(p, 0, 1.55, 0), 0.55, 0.4, 0.42, 0.08)
    eye = box(move(q, 0.24, 1.6, 0.4), 0.15, 0.15, 0.06, 0.02)
    pupil = box(move(q, 0.22, 1.58, 0.45), 0.07, 0.07, 0.05)
    tip = (_between(u, 0, 0.4, 0.62), _between(u, 1, 2.35, 2.5), 0.0)
    stalk = capsule(q, (0.25, 1.9, 0.0), tip, 0.045, 0.045)
    bulb = sphere(move(q, *tip), 0.16)
    arm = capsule(q, (0.45, 1.0, 0.0), (0.95, _between(u, 2, 0.6, 1.3), 0.15), 0.1, 0.12)
    return {
        "navy": _union(body, stalk),
        "coral": _union(head, arm),
        "sun": _union(bulb, belt),
        "snow": eye,
        "ink": pupil,
    }


def orvanto(p: Point, u: Tensor) -> Parts:
    """A plaque with a crimson ring, a sea-green triangle in it and a sun-yellow dot above."""
    q = move(p, 0, 1.08, 0)
    plaque = box(q, 1.0, 1.0, 0.1, 0.06)
    foot = box(move(p, 0, 0.05, 0), 0.6, 0.06, 0.35, 0.03)
    face = move(q, 0, -0.06, 0.1)
    ring = torch.maximum(torus_z(face, 0.66, 0.13), face[2].abs() - 0.05)
    inner = move(face, 0, -0.08, 0)
    edge = 0.87 * inner[0].abs() + 0.5 * inner[1]
    triangle = torch.maximum(torch.maximum(edge, -inner[1]) - 0.2, inner[2].abs() - 0.05)
    dot = disc_z(move(face, 0.68, 0.74, 0), 0.19, 0.05)
    return {
        "snow": plaque,
        "steel": foot,
        "crimson": ring,
        "sea": triangle,
        "sun": dot,
    }


FIGURES: dict[str, Shape] = {
    "unclothed mannequin": unclothed_mannequin,
    "mannequin in a dress": mannequin_dress,
    "mannequin in a suit": mannequin_suit,
    "mirolo": mirolo,
    "zanti": zanti,
    "orvanto": orvanto,
}

ALL_SHAPES: dict[str, Shape] = {**SHAPES, **FIGURES}
