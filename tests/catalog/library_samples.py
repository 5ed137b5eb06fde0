"""Folders of small pictures with rights, and the starter's model, for tests of libraries."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catalog.lake import Lake
from catalog.libraries_add import Added, add_works
from pipeline.checks.embed import ClipEncoder, load_clip
from pipeline.references.sources import read_sources
from pipeline.settings import ROOT

HEADER = "file,title,rights_holder,licence,role,note,expires"


@dataclass(frozen=True)
class Spec:
    name: str
    source: str
    kind: str = "open-clip"
    revision: str = "r1"
    weights_sha256: str | None = None


STARTER = Spec("starter-clip", str(ROOT / "starter" / "weights" / "open-clip"))


@cache
def starter_clip() -> ClipEncoder:
    return load_clip(STARTER, "cpu")


class Counting:
    """The starter's encoder, counting the pictures it is given; after `fails_at` it breaks down."""

    def __init__(self, fails_at: int | None = None):
        self._encoder = starter_clip()
        self.spec = self._encoder.spec
        self.digest = self._encoder.digest
        self.seen = 0
        self._fails_at = fails_at

    def images(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        if self._fails_at is not None and self.seen + len(images) > self._fails_at:
            raise MemoryError("no more")
        self.seen += len(images)
        return self._encoder.images(images)


def picture(seed: int, side: int = 64) -> NDArray[np.uint8]:
    """A smooth random picture, uint8 [side, side, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def picture_file(path: Path, seed: int, side: int = 64) -> str:
    """Writes it; its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, side)).save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rights_row(file: str, title: str = "", **changes: str) -> str:
    fields = {"title": title or f"Work {file}", "rights_holder": "Nova AG", "licence": "reserved"}
    fields |= {"role": "protected", "note": "", "expires": ""} | changes
    return ",".join((file, *fields.values()))


def folder_of_works(folder: Path, count: int, side: int = 64) -> Path:
    """`count` protected works, w0.png and so on."""
    for number in range(count):
        picture_file(folder / f"w{number}.png", number, side)
    write_rights(folder, *(rights_row(f"w{number}.png") for number in range(count)))
    return folder


def write_rights(folder: Path, *rows: str) -> None:
    (folder / "rights.csv").write_text("\n".join((HEADER, *rows)) + "\n", encoding="utf-8")


def add(lake: Lake, name: str, *sources: Path, skip_faulty: bool = False, **defaults: str) -> Added:
    """As the command does it."""
    works, faults = read_sources(name, sources, defaults)
    assert not faults
    return add_works(lake, name, works, by="ann", skip_faulty=skip_faulty)
