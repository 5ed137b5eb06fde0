"""A reference library in memory: real embeddings and hashes of real pictures, without storage."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.pdq import RELIABLE_QUALITY, pdq
from pipeline.checks.references import Embedder, Near, Role
from pipeline.checks.rights import Reference
from pipeline.images import RgbImage, decode_limited
from pipeline.settings import ROOT

Work = tuple[Reference, RgbImage]
STARTER = ROOT / "starter" / "references"

_EMBEDDINGS: dict[tuple[str, str], NDArray[np.float32]] = {}
"""By model and picture, so that tests embed each picture once."""


def starter_works() -> list[Work]:
    """The 18 protected pictures that ship: Mirolo, Zanti and the Orvanto logo, six of each."""
    with (STARTER / "rights.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    return [
        (
            Reference("", sha256=_sha256(STARTER / row["file"]), **row),
            decode_limited(STARTER / row["file"]),
        )
        for row in rows
    ]


def demo_picture(name: str) -> RgbImage:
    """A photo of the demo, 128 × 128: `teapot` or `vase`."""
    return decode_limited(ROOT / "starter" / "demo" / "pictures" / f"{name}.png")


def work(picture: RgbImage, title: str, role: Role = "own", expires: date | None = None) -> Work:
    digest = hashlib.sha256(picture.tobytes()).hexdigest()
    name = f"{title.lower().replace(' ', '-')}.png"
    return Reference("", name, digest, title, "Us", "own work", role, expires=expires), picture


class PictureLibrary:
    """`References` over pictures that are at hand."""

    def __init__(self, name: str, works: Sequence[Work], checked_at: datetime | None = None):
        self.name = name
        self.checked_at = checked_at or datetime.now(UTC)
        self._works = [(replace(reference, library=name), picture) for reference, picture in works]
        self._embeddings: dict[str, NDArray[np.float32]] = {}
        self._hashes = [_hash(picture) for _, picture in self._works]

    @property
    def digest(self) -> str:
        works = "".join(repr(reference) for reference, _ in self._works)
        return hashlib.sha256(works.encode()).hexdigest()

    def count(self, role: Role) -> int:
        return len(self._rows(role))

    def prepare(self, embedder: Embedder) -> None:
        known = {(embedder.digest, work.sha256): picture for work, picture in self._works}
        for key in known.keys() - _EMBEDDINGS.keys():
            _EMBEDDINGS[key] = embedder.images(known[key][None])[0]
        if known:
            self._embeddings[embedder.digest] = np.stack([_EMBEDDINGS[key] for key in known])

    def nearest(
        self, embedder: Embedder, vectors: NDArray[np.float32], top: int, role: Role
    ) -> list[list[Near]]:
        rows = self._rows(role)
        if not rows:
            return [[] for _ in vectors]
        return [
            self._ranked(rows, -cosines, cosines, top)
            for cosines in vectors @ self._embeddings[embedder.digest][rows].T
        ]

    def nearest_hashes(self, hashes: NDArray[np.uint64], top: int, role: Role) -> list[list[Near]]:
        rows = [row for row in self._rows(role) if self._hashes[row] is not None]
        if not rows:
            return [[] for _ in hashes]
        known = np.stack([self._hashes[row] for row in rows])
        apart = [np.bitwise_count(known ^ each).sum(axis=1).astype(float) for each in hashes]
        return [self._ranked(rows, each, each, top) for each in apart]

    def picture(self, reference: Reference) -> RgbImage | None:
        return next((picture for known, picture in self._works if known == reference), None)

    def _ranked(self, rows: list[int], order: NDArray, values: NDArray, top: int) -> list[Near]:
        if np.isnan(values).any():
            return [Near(self._works[rows[0]][0], float("nan"))]
        ranked = np.argsort(order, kind="stable")[:top]
        return [Near(self._works[rows[each]][0], float(values[each])) for each in ranked]

    def _rows(self, role: Role) -> list[int]:
        counted = [_counts_as(reference) for reference, _ in self._works]
        return [row for row, found in enumerate(counted) if found == role]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _counts_as(reference: Reference) -> str:
    if reference.expires is None or reference.expires >= datetime.now(UTC).date():
        return reference.role
    return "protected" if reference.role == "own" else "nothing"


def _hash(picture: RgbImage) -> NDArray[np.uint64] | None:
    luma = picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    hashes, quality = pdq(luma[None])
    return hashes[0] if quality[0] > RELIABLE_QUALITY else None
