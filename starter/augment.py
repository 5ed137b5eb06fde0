"""What happens to pictures before readers learn from them: shifts, blur, compression, the
autoencoder. So that a reader that grew up on renders also reads generated and re-saved pictures.
"""

import io
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from starter import loop, pictures
from starter.train_autoencoder import load as load_autoencoder

SIZE = 64
"""Pixels a side of what the readers see."""


def _jpeg(x: Tensor, quality: int) -> Tensor:
    array = (x.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1).float() / 255


def augment(x: Tensor, rng: Random) -> Tensor:
    """Shift, zoom, blur, compress, tint and add noise: [N,3,128,128] to [N,3,64,64] in [0,1]."""
    n = len(x)
    zoom = 1 / (0.82 + 0.3 * torch.rand(n))
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, :, 2] = (torch.rand(n, 2) - 0.5) * 0.24
    grid = F.affine_grid(theta, [n, 3, SIZE, SIZE], align_corners=False)
    small = F.avg_pool2d(x, 2)
    moved = F.grid_sample(small, grid, padding_mode="reflection", align_corners=False)
    still = torch.rand(n) < 0.3
    x = torch.where(still[:, None, None, None], small, moved)
    for i in range(n):
        roll = rng.random()
        if roll < 0.15:
            low = rng.choice((28, 36, 48))
            blur = F.interpolate(x[i : i + 1], (low, low), mode="bilinear", antialias=True)
            x[i] = F.interpolate(blur, (SIZE, SIZE), mode="bilinear")[0]
        elif roll < 0.27:
            x[i] = _jpeg(x[i], rng.randint(25, 80))
    gain = 1 + 0.16 * (torch.rand(n, 1, 1, 1) - 0.5)
    lift = 0.06 * (torch.rand(n, 3, 1, 1) - 0.5)
    noise = 0.05 * torch.rand(n, 1, 1, 1) ** 2 * torch.randn_like(x)
    return (x * gain + lift + noise).clamp(0, 1)


def round_trips(data: pictures.Pictures, count: int, seed: int) -> tuple[Tensor, list[int]]:
    """uint8 pictures after the autoencoder with noisy latents, and which pictures they are."""
    dev = loop.device()
    vae = load_autoencoder().to(dev, memory_format=torch.channels_last)
    index = torch.randperm(len(data.scenes), generator=torch.Generator().manual_seed(seed))[:count]
    out = []
    with torch.no_grad(), loop.autocast(dev):
        for part in index.split(16):
            x = (data.batch(part) * 2 - 1).to(dev, memory_format=torch.channels_last)
            z = vae.encoder(x)
            z = z + torch.rand(len(z), 1, 1, 1, device=dev) * 0.3 * torch.randn_like(z)
            y = vae.decoder(z).float().clamp(-1, 1)
            out.append(((y + 1) * 127.5).round().byte().cpu().contiguous())
    return torch.cat(out), index.tolist()
