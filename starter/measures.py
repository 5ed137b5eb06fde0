"""What results are measured with: edges, silhouettes, depth, fidelity, sharpness, a reader."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModelForDepthEstimation,
    AutoModelForSemanticSegmentation,
)

from starter import captions, controls, shipped
from starter.paths import WEIGHTS
from starter.vocabulary import BACKGROUNDS, OBJECTS
from starter.world import Scene

SLACK = 1
"""Pixels by which an edge may lie beside its model."""


def to_bytes(x: Tensor) -> Tensor:
    """Pictures in [0,1] as uint8."""
    return (x.clamp(0, 1) * 255).round().byte()


def edge_f1(made: Tensor, control: Tensor) -> Tensor:
    """F1 [N] of Canny edges of pictures [N,3,H,W] in [0,1] with a control uint8, `SLACK` px."""
    a = controls.edges(to_bytes(made))[:, :1].float() / 255
    b = control[:, :1].float() / 255
    wide_a, wide_b = (F.max_pool2d(x, 2 * SLACK + 1, 1, SLACK) for x in (a, b))
    found = (a * wide_b).sum((1, 2, 3)) / a.sum((1, 2, 3)).clamp(min=1)
    kept = (b * wide_a).sum((1, 2, 3)) / b.sum((1, 2, 3)).clamp(min=1)
    return 2 * found * kept / (found + kept).clamp(min=1e-6)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation [N] of maps [N,H,W]."""
    a, b = a.flatten(1), b.flatten(1)
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-9)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union [N] of masks bool [N,H,W]."""
    both, either = (a & b).sum((1, 2)).float(), (a | b).sum((1, 2)).float()
    return both / either.clamp(min=1)


def psnr(a: Tensor, b: Tensor, where: Tensor | None = None) -> Tensor:
    """PSNR [N] in dB of pictures [N,3,H,W] in [0,1], over all pixels or those of a mask [N,H,W]."""
    error = ((a - b) ** 2).mean(1)
    weight = torch.ones_like(error) if where is None else where.float()
    mse = (error * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)
    return -10 * mse.clamp(min=1e-10).log10()


def sharpness(x: Tensor) -> Tensor:
    """Mean squared gradient [N] of pictures [N,3,H,W]: an edge twice as steep counts double."""
    return (x.diff(dim=-1) ** 2).mean((1, 2, 3)) + (x.diff(dim=-2) ** 2).mean((1, 2, 3))


def seam(x: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute step [N] across the border of a mask [N,H,W] in pictures [N,3,H,W]."""
    total, count = torch.zeros(len(x)), torch.zeros(len(x))
    for axis in (-1, -2):
        border = mask.int().diff(dim=axis).abs().float()
        total += (x.diff(dim=axis).abs().mean(1) * border).sum((1, 2))
        count += border.sum((1, 2))
    return total / count.clamp(min=1)


def depth_reader() -> Callable[[Tensor], Tensor]:
    """Disparity [N,128,128] of pictures [N,3,128,128] in [0,1] by the shipped depth estimator."""
    processor = AutoImageProcessor.from_pretrained(WEIGHTS / "depth")
    model = AutoModelForDepthEstimation.from_pretrained(WEIGHTS / "depth").float().eval()

    @torch.no_grad()
    def read(x: Tensor) -> Tensor:
        rows = []
        for part in to_bytes(x).split(32):
            inputs = processor(images=list(part), return_tensors="pt")
            rows.append(model(**inputs).predicted_depth)
        return torch.cat(rows)

    return read


def segmenter() -> Callable[[Tensor], Tensor]:
    """Class of every pixel [N,128,128] of pictures [N,3,128,128] by the shipped segmenter."""
    processor = AutoImageProcessor.from_pretrained(WEIGHTS / "segmentation")
    folder = WEIGHTS / "segmentation"
    model = AutoModelForSemanticSegmentation.from_pretrained(folder).float().eval()

    @torch.no_grad()
    def read(x: Tensor) -> Tensor:
        rows = []
        for part in to_bytes(x).split(32):
            logits = model(**processor(images=list(part), return_tensors="pt")).logits
            rows.append(F.interpolate(logits, x.shape[-2:], mode="bilinear").argmax(1))
        return torch.cat(rows)

    return read


def clip_reader() -> Callable[[Tensor], list[tuple[str, str | None]]]:
    """(object, colour) in each picture [N,3,H,W] in [0,1], zero-shot by the shipped CLIP."""
    clip, rows = shipped.clip(), captions.joint_prompts(OBJECTS)
    texts = clip.texts([text for *_, text in rows])

    def read(x: Tensor) -> list[tuple[str, str | None]]:
        return [rows[i][:2] for i in (clip.images(x) @ texts.T).argmax(-1).tolist()]

    return read


def told(read: list[tuple[str, str | None]], scenes: list[Scene]) -> dict[str, float]:
    """Share of pictures read as the object, and as the colour, that was asked for."""
    n = len(scenes)
    pairs = list(zip(read, scenes, strict=True))
    return {
        "object": sum(r[0] == s.subject for r, s in pairs) / n,
        "colour": sum(r[1] == s.colour for r, s in pairs) / n,
    }


def ground_right(x: Tensor, scenes: list[Scene]) -> float:
    """Share of pictures [N,3,H,W] whose upper corners are nearest to the background asked for."""
    corners = torch.cat([x[:, :, :12, :12].flatten(2), x[:, :, :12, -12:].flatten(2)], -1)
    seen = corners.median(-1).values * 255
    paints = torch.tensor(list(BACKGROUNDS.values())).float()
    best = (seen[:, None] - paints[None]).norm(dim=-1).argmin(-1).tolist()
    names = list(BACKGROUNDS)
    return sum(names[b] == s.background for b, s in zip(best, scenes, strict=True)) / len(scenes)
