"""A cached library of traced geometries, and endless batches of pictures mixed from it.

Training and held-out geometries come from disjoint seeds; both are traced once and kept as fp16.
"""

from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from starter.paths import cache_dir
from starter.tracer import GBuffer, trace
from starter.vocabulary import COLOURS, OBJECTS, SUBJECTS, VIEWS
from starter.world import Scene, composite, random_scene

TRAIN, HELD_OUT = "train", "held-out"
COUNTS = {TRAIN: (60, 40), HELD_OUT: (14, 24)}
"""Geometries per subject and view: (catalogue objects, figures)."""
FIRST_SEED = {TRAIN: 0, HELD_OUT: 1_000_000}


@dataclass(frozen=True)
class Library:
    """Traced geometries of one split: (subject, view) → [N,9,128,128] fp16 and their seeds."""

    tensors: dict[tuple[str, str], Tensor]
    seeds: dict[tuple[str, str], list[int]]

    def buffers(self, scenes: list[Scene]) -> GBuffer:
        """The traced geometry of each scene, float32, stacked in the order of `scenes`."""
        rows = []
        for s in scenes:
            key = (s.subject, s.view)
            rows.append(self.tensors[key][s.seed - self.seeds[key][0]])
        b = torch.stack(rows).float()
        return GBuffer(b[:, 0], b[:, 1], b[:, 2:5], b[:, 5], b[:, 6], b[:, 7], b[:, 8])

    def mix(self, scenes: list[Scene]) -> Tensor:
        """Composite scenes whose seeds this library holds: float32 [N,3,128,128] in [0,1]."""
        return composite(self.buffers(scenes), scenes)

    def draw(self, rng: Random, subjects: list[str]) -> list[Scene]:
        """One random scene for each subject named, over this library's geometries."""
        scenes = []
        for subject in subjects:
            view = rng.choice(list(VIEWS))
            seed = rng.choice(self.seeds[subject, view])
            scenes.append(random_scene(subject, rng, seed, view))
        return scenes


def _file(split: str, subject: str, view: str) -> Path:
    folder = cache_dir() / "geometry" / split
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{subject}-{view}.pt".replace(" ", "_")


def _seeds(split: str, subject: str, view: str) -> list[int]:
    count = COUNTS[split][0 if subject in OBJECTS else 1]
    start = FIRST_SEED[split] + 1000 * (3 * SUBJECTS.index(subject) + list(VIEWS).index(view))
    return list(range(start, start + count))


@torch.no_grad()
def _trace_to_file(job: tuple[str, str, str]) -> str:
    torch.set_num_threads(1)
    split, subject, view = job
    g = trace(subject, view, _seeds(split, subject, view))
    planes = [getattr(g, f.name) for f in fields(GBuffer)]
    packed = torch.cat([p if p.dim() == 4 else p[:, None] for p in planes], 1).half()
    path = _file(split, subject, view)
    torch.save(packed, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)
    return f"{split} {subject} {view}"


def build(processes: int = 2) -> None:
    """Trace every geometry that the cache lacks (about five CPU-minutes in all)."""
    jobs = [(split, s, v) for split in COUNTS for s in SUBJECTS for v in VIEWS]
    jobs = [job for job in jobs if not _file(*job).exists()]
    with get_context("spawn").Pool(processes) as pool:
        for i, name in enumerate(pool.imap_unordered(_trace_to_file, jobs), 1):
            print(f"geometry {i}/{len(jobs)}: {name}", flush=True)


def load(split: str) -> Library:
    """Open a split's geometries; files are memory-mapped, so that processes share them."""
    keys = [(s, v) for s in SUBJECTS for v in VIEWS]
    tensors = {k: torch.load(_file(split, *k), mmap=True) for k in keys}
    return Library(tensors, {k: _seeds(split, *k) for k in keys})


def draw_subjects(rng: Random, count: int, figures: float = 0.2) -> list[str]:
    """Subject names for a training batch; `figures` is the share that is not a catalogue object."""
    others = SUBJECTS[len(OBJECTS) :]
    return [
        rng.choice(others) if rng.random() < figures else rng.choice(OBJECTS) for _ in range(count)
    ]


def colour_index(scene: Scene) -> int:
    """Index of a scene's colour in `COLOURS`, or -1 where the palette is fixed."""
    return list(COLOURS).index(scene.colour) if scene.colour else -1


if __name__ == "__main__":
    build()
