"""Sphere tracing of many geometries of one subject into a G-buffer, from which images are mixed.

Shading is linear in the paints, so light, shadow and coverage are traced once (at twice the
resolution, then averaged) and any colour, material and background is composited afterwards.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from starter.camera import DISTANCE, azimuth_of, camera, distance, frame, rays_of
from starter.figures import ALL_SHAPES
from starter.vocabulary import PAINTS

LIGHT = F.normalize(torch.tensor([-0.5, 0.95, 0.85]), dim=0)


@dataclass(frozen=True)
class GBuffer:
    """What light does to N geometries, at S×S; all float32, premultiplied by coverage.

    diffuse, specular [N,S,S]: light on the part that takes the caption's colour, and highlights;
    fixed [N,3,S,S]: linear RGB of the other parts; fixed_specular [N,S,S]; alpha [N,S,S] in [0,1];
    floor [N,S,S] in [0,1]: light that reaches the floor; depth [N,S,S]: camera distance.
    """

    diffuse: Tensor
    specular: Tensor
    fixed: Tensor
    fixed_specular: Tensor
    alpha: Tensor
    floor: Tensor
    depth: Tensor


def to_linear(srgb: Tensor) -> Tensor:
    """sRGB in [0,1] to linear light (IEC 61966-2-1)."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _march(subject: str, eye: Tensor, rays: Tensor, u: Tensor, steps: int = 56) -> Tensor:
    """Distance along each of M rays to the subject, or infinity; eye, rays [M,3], u [M,8]."""
    m = len(rays)
    hit = torch.full((m,), math.inf)
    live = torch.arange(m)
    t = torch.full((m,), DISTANCE - 2.6)
    e, r, v, x = eye, rays, u, t
    for step in range(steps):
        d = distance(subject, (e + r * x[:, None]).unbind(-1), v)
        x = x + d
        done = d < 0.0012 * x
        if step % 4 == 3 or step == steps - 1:
            hit[live[done]] = x[done]
            keep = ~done & (x < DISTANCE + 2.6)
            live, e, r, v, x = live[keep], e[keep], r[keep], v[keep], x[keep]
            if not len(live):
                break
    return hit


def _soft_shadow(subject: str, p: Tensor, u: Tensor, steps: int, sharp: float) -> Tensor:
    """Share of the key light that reaches points p [M,3] (Quilez's penumbra estimate)."""
    light = torch.ones(len(p))
    t = torch.full((len(p),), 0.04)
    for _ in range(steps):
        d = distance(subject, (p + LIGHT * t[:, None]).unbind(-1), u)
        light = torch.minimum(light, (0.5 + 0.5 * sharp * d / t).clamp(0, 1))
        t = t + d.clamp(0.04, 0.35)
    return light * light * (3 - 2 * light)


def _occlusion(subject: str, p: Tensor, n: Tensor, u: Tensor, reach: float) -> Tensor:
    """Ambient light left at points p with normals n after nearby surfaces took theirs."""
    lost = torch.zeros(len(p))
    for i in range(1, 5):
        h = reach * i / 4
        lost = lost + (h - distance(subject, (p + n * h).unbind(-1), u)).clamp(min=0) / 2**i / h
    return (1 - 0.9 * lost).clamp(0, 1)


def _normals(subject: str, p: Tensor, u: Tensor) -> Tensor:
    """Surface normals by central differences on a tetrahedron."""
    out = torch.zeros_like(p)
    for k in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        k_ = torch.tensor(k, dtype=torch.float32)
        out = out + k_ * distance(subject, (p + 0.004 * k_).unbind(-1), u)[:, None]
    return F.normalize(out, dim=-1)


def _shade(subject: str, p: Tensor, rays: Tensor, u: Tensor, tone: Tensor) -> Tensor:
    """Light at surface points: [M,6] = diffuse, specular, fixed RGB, fixed specular."""
    n = _normals(subject, p, u)
    parts = ALL_SHAPES[subject](p.unbind(-1), u)
    which = torch.stack(list(parts.values()), -1).argmin(-1)
    facing = (n @ LIGHT).clamp(min=0)
    lit = torch.where(facing > 0, _soft_shadow(subject, p + 0.02 * n, u, 14, 10.0), 0.0)
    sky = _occlusion(subject, p, n, u, 0.35) * (0.62 + 0.38 * n[:, 1])
    floor = (1 - p[:, 1] / 0.25).clamp(0, 1) * (0.5 - 0.5 * n[:, 1].abs())
    diffuse = 0.72 * facing * lit + 0.46 * sky * (1 - 0.5 * floor)
    half = F.normalize(LIGHT - rays, dim=-1)
    fresnel = 0.04 + 0.5 * (1 + (n * rays).sum(-1)).clamp(0, 1) ** 4
    specular = lit * (n * half).sum(-1).clamp(min=0) ** 48 + 0.22 * fresnel * sky
    table = torch.stack(
        [to_linear(torch.tensor(PAINTS.get(name, (0, 0, 0))) / 255.0) for name in parts]
    )
    skins = torch.stack(
        [to_linear(torch.tensor(PAINTS[s]) / 255.0) for s in ("skin", "skin2", "skin3")]
    )
    paint = table[which]
    names = list(parts)
    if "skin" in names:
        paint = torch.where((which == names.index("skin"))[:, None], skins[tone], paint)
    own = (which == names.index("colour")).float() if "colour" in names else torch.zeros(len(p))
    glow = diffuse[:, None]
    if "flame" in names:
        glow = torch.where((which == names.index("flame"))[:, None], 1.15, glow)
    rgb = paint * glow * (1 - own)[:, None]
    return torch.cat(
        [(own * diffuse)[:, None], (own * specular)[:, None], rgb, ((1 - own) * specular)[:, None]],
        -1,
    )


def _floor_light(subject: str, eye: Tensor, rays: Tensor, u: Tensor) -> Tensor:
    """Light on the floor where each ray meets it, in [0,1]; 1 where it never does."""
    t = torch.where(rays[:, 1] < -1e-3, -eye[:, 1] / rays[:, 1].clamp(max=-1e-3), math.inf)
    p = eye + rays * t.clamp(max=50)[:, None]
    near = ((p[:, 0].abs() < 4) & (p[:, 2].abs() < 4)).nonzero()[:, 0]
    q, v = p[near], u[near]
    up = torch.tensor([0.0, 1.0, 0.0]).expand_as(q)
    key = _soft_shadow(subject, q + 0.01 * up, v, 18, 5.0)
    sky = _occlusion(subject, q, up, v, 0.7)
    light = torch.ones(len(p))
    light[near] = 0.55 * key + 0.45 * sky
    return light


def trace(subject: str, view: str, seeds: list[int], size: int = 128, fill: float = 0.7) -> GBuffer:
    """G-buffer of one subject from one view for each geometry seed, supersampled twice."""
    u = torch.stack([torch.rand(8, generator=torch.Generator().manual_seed(s)) for s in seeds])
    n, big = len(u), size * 2
    axes = camera(view, u, azimuth_of(subject))
    eye, half = frame(subject, u, axes, fill)
    tone = torch.tensor([s % 3 for s in seeds])
    buffers = []
    for i in range(n):  # one geometry at a time keeps the working set inside the cache
        own = (axes[0][i : i + 1], axes[1][i : i + 1], axes[2][i : i + 1])
        rays = rays_of(own, half[i : i + 1], big)[0]
        e, v = eye[i].expand_as(rays), u[i].expand(len(rays), 8)
        t = _march(subject, e, rays, v)
        on = torch.isfinite(t).nonzero()[:, 0]
        p = e[on] + rays[on] * t[on, None]
        image = torch.zeros(big * big, 8)
        image[on, :6] = _shade(subject, p, rays[on], v[on], tone[i].expand(len(on)))
        image[on, 6] = 1.0
        image[on, 7] = t[on]
        low = F.avg_pool2d(image.T.reshape(1, 8, big, big), 2)[0]
        coarse = rays_of(own, half[i : i + 1], size)[0]
        light = _floor_light(subject, eye[i].expand_as(coarse), coarse, v[: len(coarse)])
        depth = low[7] / low[6].clamp(min=1e-6)
        ground = torch.where(coarse[:, 1] < -1e-3, -eye[i, 1] / coarse[:, 1].clamp(max=-1e-3), 50.0)
        depth = torch.where(low[6] > 0.5, depth, ground.clamp(max=50).reshape(size, size))
        buffers.append(torch.cat([low[:7], light.reshape(1, size, size), depth[None]]))
    b = torch.stack(buffers)
    return GBuffer(b[:, 0], b[:, 1], b[:, 2:5], b[:, 5], b[:, 6], b[:, 7], b[:, 8])
