"""Finished picture sets: tens of thousands of mixed images with their scenes, memory-mapped.

Every trainer draws from these sets, so that no training step waits for the renderer.
"""

from dataclasses import astuple, dataclass
from random import Random

import torch
from torch import Tensor

from starter import library
from starter.library import HELD_OUT, TRAIN
from starter.paths import cache_dir
from starter.world import Scene

SIZES = {TRAIN: 40_000, HELD_OUT: 3_000}


@dataclass(frozen=True)
class Pictures:
    """rgb uint8 [N,3,128,128] and the scene of each."""

    rgb: Tensor
    scenes: list[Scene]

    def batch(self, index: Tensor) -> Tensor:
        """Pictures by index as float32 in [0,1]."""
        return self.rgb[index].float() / 255


def build() -> None:
    """Mix the sets that the cache lacks (about three CPU-minutes)."""
    library.build()
    for split, count in SIZES.items():
        path = cache_dir() / f"pictures-{split}.pt"
        if path.exists():
            continue
        rng = Random(f"pictures {split}")
        source = library.load(split)
        scenes = source.draw(rng, library.draw_subjects(rng, count))
        rgb = torch.empty(count, 3, 128, 128, dtype=torch.uint8)
        for i in range(0, count, 8):
            rgb[i : i + 8] = (source.mix(scenes[i : i + 8]) * 255).round().byte()
            if i % 4000 == 0:
                print(f"pictures {split} {i}/{count}", flush=True)
        torch.save(rgb, cache_dir() / f"pictures-{split}.tmp")
        torch.save([astuple(s) for s in scenes], cache_dir() / f"scenes-{split}.pt")
        (cache_dir() / f"pictures-{split}.tmp").replace(path)


def load(split: str = TRAIN) -> Pictures:
    """Open a set that `build` made."""
    rgb = torch.load(cache_dir() / f"pictures-{split}.pt", mmap=True)
    rows = torch.load(cache_dir() / f"scenes-{split}.pt")
    return Pictures(rgb, [Scene(*row) for row in rows])


if __name__ == "__main__":
    torch.set_num_threads(1)
    build()
