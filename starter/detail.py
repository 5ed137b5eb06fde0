"""Large pictures for the upscaler: 512 px renders, and the 128 px pictures that they shrink to.

Half of the small ones went through the text-to-image autoencoder, so that the upscaler also
sharpens what the starter models make, not only clean renders.
"""

from dataclasses import dataclass
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from starter import captions, loop
from starter.library import FIRST_SEED, HELD_OUT, TRAIN, draw_subjects
from starter.paths import cache_dir
from starter.tracer import trace
from starter.train_autoencoder import load as load_autoencoder
from starter.vocabulary import VIEWS
from starter.world import composite, random_scene

SIDE, FACTOR = 512, 4
GEOMETRIES = {TRAIN: 420, HELD_OUT: 48}
MIXES = {TRAIN: 5, HELD_OUT: 1}
"""Pictures mixed from each geometry: other colours, materials and backgrounds."""
OFFSET = 500_000
"""Seeds lie apart from those of the 128 px geometries."""


@dataclass(frozen=True)
class Detail:
    """`large` uint8 [N,3,512,512]; `small` and `rough` uint8 [N,3,128,128]; a caption each.

    `rough` is `small` after the text-to-image autoencoder.
    """

    large: Tensor
    small: Tensor
    rough: Tensor
    texts: list[str]


def shrink(x: Tensor) -> Tensor:
    """Pictures [N,3,H,W] at a quarter of the side, by the mean of each 4×4 block."""
    return F.avg_pool2d(x, FACTOR)


@torch.no_grad()
def build(split: str) -> None:
    """Trace and mix the set that the cache lacks (minutes)."""
    path = cache_dir() / f"detail-{split}.pt"
    if path.exists():
        return
    rng = Random(f"detail {split}")
    vae = load_autoencoder()
    large, small, rough, texts = [], [], [], []
    for i, subject in enumerate(draw_subjects(rng, GEOMETRIES[split])):
        seed = FIRST_SEED[split] + OFFSET + i
        g = trace(subject, rng.choice(list(VIEWS)), [seed], SIDE)
        for _ in range(MIXES[split]):
            scene = random_scene(subject, rng, seed)
            x = composite(g, [scene])
            low = shrink(x)
            large.append((x * 255).round().byte())
            small.append((low * 255).round().byte())
            again = vae.decoder(vae.encoder(low * 2 - 1)).clamp(-1, 1)
            rough.append(((again + 1) * 127.5).round().byte())
            texts.append(captions.prompt(scene))
        if i % 40 == 0:
            print(f"detail {split} {i}/{GEOMETRIES[split]}", flush=True)
    done = [torch.cat(large), torch.cat(small), torch.cat(rough), texts]
    torch.save(done, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def load(split: str) -> Detail:
    """Open a set, made on first use."""
    build(split)
    return Detail(*torch.load(cache_dir() / f"detail-{split}.pt", mmap=True))


def build_all() -> None:
    """Both sets."""
    build(TRAIN)
    build(HELD_OUT)


if __name__ == "__main__":
    loop.quiet_threads()
    build_all()
