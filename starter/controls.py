"""Control pictures of the starter world, straight from the renderer: edges, depth, segmentation.

They look like what preprocessors make of photos: white lines on black, near is bright, one flat
colour a kind of thing. Inpainting's control is the picture itself with its hole at -1.
"""

from random import Random

import cv2
import torch
from torch import Tensor

from starter.vocabulary import SUBJECTS

LOW, HIGH = 100, 200
"""Canny's thresholds, those of `pipeline.generate.preprocess`."""
PALETTE: tuple[tuple[int, int, int], ...] = (
    (255, 60, 60), (60, 255, 60), (60, 60, 255), (255, 255, 60), (255, 60, 255), (60, 255, 255),
    (255, 150, 60), (150, 60, 255), (60, 255, 150), (200, 200, 200), (150, 90, 40), (120, 120, 255),
    (255, 190, 200), (255, 120, 160), (180, 140, 110), (130, 0, 130), (0, 0, 130), (220, 20, 60),
)  # fmt: skip
"""The segmentation colour of each subject, in the order of `SUBJECTS`; the ground is black."""


def edges(pictures: Tensor) -> Tensor:
    """Canny edges of uint8 pictures [N,3,H,W]: uint8 [N,3,H,W], 0 or 255."""
    lines = [
        torch.from_numpy(cv2.Canny(p.permute(1, 2, 0).contiguous().numpy(), LOW, HIGH))
        for p in pictures
    ]
    return torch.stack(lines)[:, None].expand(-1, 3, -1, -1)


def depth(distance: Tensor) -> Tensor:
    """Camera distances [N,H,W] as uint8 [N,3,H,W]: disparity stretched, near is 255."""
    near = 1 / distance.clamp(min=1e-3)
    low, high = near.amin((1, 2), keepdim=True), near.amax((1, 2), keepdim=True)
    grey = ((near - low) / (high - low).clamp(min=1e-6) * 255).round().byte()
    return grey[:, None].expand(-1, 3, -1, -1)


def segmentation(subjects: list[str], alpha: Tensor) -> Tensor:
    """Flat colours by subject where coverage [N,H,W] is over a half: uint8 [N,3,H,W]."""
    colours = torch.tensor([PALETTE[SUBJECTS.index(s)] for s in subjects], dtype=torch.uint8)
    return (alpha > 0.5)[:, None] * colours[:, :, None, None]


def hole(alpha: Tensor, rng: Random) -> Tensor:
    """A mask to paint in, bool [H,W]: box, object, everything but the object, or a side."""
    side = alpha.shape[-1]
    kind = rng.random()
    mask = torch.zeros(side, side, dtype=torch.bool)
    if kind < 0.3:
        high, wide = rng.randint(side // 5, 3 * side // 4), rng.randint(side // 5, 3 * side // 4)
        top, left = rng.randint(0, side - high), rng.randint(0, side - wide)
        mask[top : top + high, left : left + wide] = True
    elif kind < 0.55:
        mask = grow(alpha > 0.3, rng.randint(2, 10))
    elif kind < 0.8:
        mask = ~grow(alpha > 0.5, rng.randint(0, 2))
    else:
        part = rng.randint(side // 5, side // 2)
        mask[:, :part] = True
        mask = torch.rot90(mask, rng.randint(0, 3))
    return mask


def grow(mask: Tensor, by: int) -> Tensor:
    """The mask [H,W] widened by `by` pixels on every side."""
    if not by:
        return mask
    wide = torch.nn.functional.max_pool2d(mask[None, None].float(), 2 * by + 1, 1, by)
    return wide[0, 0] > 0
