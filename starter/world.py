"""The starter world as pictures: a frozen `Scene` in; pixels, depth, mask and caption out.

`render` traces and composites; `composite` mixes any colour, material and background from a traced
G-buffer, which is how training sets of many thousand images are made from a few thousand traces.
"""

from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from starter.tracer import GBuffer, to_linear, trace
from starter.vocabulary import BACKGROUNDS, COLOURS, MATERIALS, PROTECTED, RESTRICTED, VIEWS

GLOSS = {"matte": 0.05, "glossy": 0.9}
COLOURLESS: frozenset[str] = frozenset((*RESTRICTED, *PROTECTED))
"""Subjects with a fixed palette: their scenes have no colour."""


@dataclass(frozen=True)
class Scene:
    """One picture of the world; `seed` decides the geometry and the framing."""

    subject: str
    colour: str | None
    material: str = "glossy"
    background: str = "white"
    view: str = "three-quarter"
    seed: int = 0


@dataclass(frozen=True)
class Render:
    """rgb uint8 [N,H,W,3] (sRGB), depth float32 [N,H,W] (camera units), mask bool [N,H,W]."""

    rgb: Tensor
    depth: Tensor
    mask: Tensor


def random_scene(subject: str, rng: Random, seed: int, view: str | None = None) -> Scene:
    """A scene of `subject` with everything else drawn by `rng`."""
    colour = None if subject in COLOURLESS else rng.choice(list(COLOURS))
    return Scene(
        subject,
        colour,
        rng.choice(MATERIALS),
        rng.choice(list(BACKGROUNDS)),
        view or rng.choice(list(VIEWS)),
        seed,
    )


def _paints(table: dict[str, tuple[int, int, int]], names: list[str | None]) -> Tensor:
    srgb = torch.tensor([table[n] if n else (0, 0, 0) for n in names]) / 255.0
    return to_linear(srgb)[:, :, None, None]


def composite(g: GBuffer, scenes: list[Scene]) -> Tensor:
    """Mix N scenes from N traced geometries: float32 sRGB [N,3,S,S] in [0,1]."""
    own = _paints(COLOURS, [s.colour for s in scenes])
    ground = _paints(BACKGROUNDS, [s.background for s in scenes])
    gloss = torch.tensor([GLOSS[s.material] for s in scenes])[:, None, None, None]
    shine = (g.specular + g.fixed_specular)[:, None] * gloss
    image = g.diffuse[:, None] * own + g.fixed + shine
    image = image + (1 - g.alpha[:, None]) * ground * (0.25 + 0.75 * g.floor[:, None])
    image = image.clamp(0, 1)
    return torch.where(
        image <= 0.0031308, image * 12.92, 1.055 * image.clamp(min=1e-6) ** (1 / 2.4) - 0.055
    )


@torch.no_grad()
def render(scenes: list[Scene], size: int = 128) -> Render:
    """Render scenes at size×size; the same scenes give the same pixels."""
    rgb = torch.empty(len(scenes), size, size, 3, dtype=torch.uint8)
    depth = torch.empty(len(scenes), size, size)
    mask = torch.empty(len(scenes), size, size, dtype=torch.bool)
    for i, scene in enumerate(scenes):
        g = trace(scene.subject, scene.view, [scene.seed], size)
        rgb[i] = (composite(g, [scene])[0] * 255).round().byte().permute(1, 2, 0)
        depth[i], mask[i] = g.depth[0], g.alpha[0] > 0.5
    return Render(rgb, depth, mask)
