"""What the depth estimator and the segmenter learn from: pictures with a target at every pixel.

Renders and autoencoder round trips, mirrored, zoomed and shifted with their targets; then blurred,
tinted and noisy, because both read generated pictures later.
"""

from dataclasses import dataclass
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from starter import controls, library, pictures
from starter.augment import round_trips
from starter.library import TRAIN
from starter.vocabulary import SUBJECTS
from starter.world import Scene

TRIPS = 1500
"""Round trips that every training run makes at its start (half a minute)."""


@dataclass(frozen=True)
class Batch:
    """rgb [N,3,128,128] in [0,1]; disparity [N,128,128] in [0,1], near is 1; labels [N,128,128]."""

    rgb: Tensor
    disparity: Tensor
    labels: Tensor


def targets(source: library.Library, scenes: list[Scene]) -> tuple[Tensor, Tensor]:
    """Disparity and coverage [N,128,128] of scenes, from the renderer."""
    g = source.buffers(scenes)
    return controls.depth(g.depth)[:, 0].float() / 255, g.alpha


def label_map(scenes: list[Scene], alpha: Tensor) -> Tensor:
    """Class of each pixel: 0 for ground, else 1 + the index in `SUBJECTS`; int64 [N,H,W]."""
    own = torch.tensor([1 + SUBJECTS.index(s.subject) for s in scenes])
    return (alpha > 0.5) * own[:, None, None]


def stretch(x: Tensor) -> Tensor:
    """Maps [N,H,W] stretched to [0,1], each by itself."""
    low, high = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
    return (x - low) / (high - low).clamp(min=1e-6)


def _move(x: Tensor) -> Tensor:
    """Mirror, zoom and shift planes [N,C,H,W]; a third stay as they are."""
    n = len(x)
    zoom = 0.75 + 0.6 * torch.rand(n)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = zoom * torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    theta[:, 1, 1] = zoom
    theta[:, :, 2] = (torch.rand(n, 2) - 0.5) * 0.3
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    moved = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    still = torch.rand(n, 1, 1, 1) < 0.33
    return torch.where(still, x, moved)


def _wear(rgb: Tensor, rng: Random) -> Tensor:
    """Blur some pictures [N,3,H,W], tint all, add a little noise."""
    for i in range(len(rgb)):
        if rng.random() < 0.2:
            low = rng.choice((48, 64, 96))
            small = F.interpolate(rgb[i : i + 1], (low, low), mode="bilinear", antialias=True)
            rgb[i] = F.interpolate(small, rgb.shape[-2:], mode="bilinear")[0]
    n = len(rgb)
    gain = 1 + 0.2 * (torch.rand(n, 1, 1, 1) - 0.5)
    lift = 0.08 * (torch.rand(n, 3, 1, 1) - 0.5)
    noise = 0.05 * torch.rand(n, 1, 1, 1) ** 2 * torch.randn_like(rgb)
    return (rgb * gain + lift + noise).clamp(0, 1)


def wake(model: nn.Module) -> None:
    """He's variance for every layer: transformers' 0.02 starves models as narrow as these."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Source:
    """Endless training batches from the training split."""

    def __init__(self, seed: int) -> None:
        self.data, self.library = pictures.load(TRAIN), library.load(TRAIN)
        self.trips, self.where = round_trips(self.data, TRIPS, seed)

    def batch(self, count: int, rng: Random) -> Batch:
        """`count` altered pictures, a third of them round trips, with their targets."""
        trips = count // 3
        rows = [rng.randrange(len(self.where)) for _ in range(trips)]
        index = [rng.randrange(len(self.data.scenes)) for _ in range(count - trips)]
        rgb = torch.cat([self.data.batch(torch.tensor(index)), self.trips[rows].float() / 255])
        scenes = [self.data.scenes[i] for i in (*index, *(self.where[r] for r in rows))]
        disparity, alpha = targets(self.library, scenes)
        moved = _move(torch.cat([rgb, disparity[:, None], alpha[:, None]], 1))
        labels = label_map(scenes, moved[:, 4])
        return Batch(_wear(moved[:, :3].clone(), rng), stretch(moved[:, 3]), labels)
