"""Exact and near duplicates among everything catalogued and everything earlier in this run.

Another colour of the same object is near by design: which distance matters is the policy's word.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.pdq import BITS, RELIABLE_QUALITY, pdq_bits
from pipeline.checks.protocol import ImageBatch
from pipeline.records import Score

_ORIGIN = {"detector": "pdq", "revision": "2019"}


@dataclass(frozen=True)
class Catalogued:
    """An image made before: whose it is, its raw pixels' SHA-256, its PDQ hash if it had one."""

    request_id: str
    sku: str
    pixels_sha256: str
    perceptual_hash: str | None


class Duplicates:
    """Scores `duplicates.exact` (0 or 1), `near` and `in_set` (Hamming distances, 0..256).

    `near` is the distance to the nearest of all, `in_set` to the nearest of the same item (sku):
    variations of an item that came out the same.

    An image is compared with those before it: in the order that `add` was given them, then in its
    own batch. One that was added already has its place in that order, so it never counts as its own
    duplicate, and a batch that is done again gets the same scores.
    """

    name = "duplicates"

    def __init__(self, catalogued: Iterable[Catalogued] = ()):
        self._lock = threading.Lock()
        self._exact: dict[str, dict[str, str]] = {}
        self._owners: list[tuple[str, str]] = []
        self._places: dict[str, int] = {}
        self._sets: dict[str, list[int]] = {}
        self._hashes = np.zeros((4, 1024), np.uint64)
        for image in catalogued:
            self._append(image)

    def __call__(self, batch: ImageBatch) -> list[tuple[Score, ...]]:
        """Three scores an image; evidence names the nearest image's request and item."""
        bits, quality = batch.pdq
        earlier = Duplicates()
        scores: list[tuple[Score, ...]] = []
        with self._lock:
            for index, image in enumerate(_rows(batch)):
                scores.append(
                    (
                        self._exact_score(image, earlier),
                        *self._near_scores(image, bits[index], int(quality[index]), earlier),
                    )
                )
                earlier._append(image)
        return scores

    def add(self, batch: ImageBatch) -> None:
        """Remembers a batch, so that later ones are compared with it."""
        with self._lock:
            for image in _rows(batch):
                self._append(image)

    def _append(self, image: Catalogued) -> None:
        owners = self._exact.setdefault(image.pixels_sha256, {})
        if image.request_id in owners:
            return
        owners[image.request_id] = image.sku
        if image.perceptual_hash is None:
            return
        count = len(self._owners)
        if count == self._hashes.shape[1]:
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)], axis=1)
        self._hashes[:, count] = pdq_bits(image.perceptual_hash)
        self._places.setdefault(image.request_id, count)
        self._sets.setdefault(image.sku, []).append(count)
        self._owners.append((image.request_id, image.sku))

    def _exact_score(self, image: Catalogued, earlier: Duplicates) -> Score:
        for index in (self, earlier):
            for request_id, sku in index._exact.get(image.pixels_sha256, {}).items():
                if request_id == image.request_id:
                    break
                of = {"request_id": request_id, "sku": sku}
                return Score(self.name, "exact", 1.0, {**_ORIGIN, "duplicate_of": of})
        return Score(self.name, "exact", 0.0, {**_ORIGIN, "duplicate_of": None})

    def _near_scores(
        self, image: Catalogued, bits: NDArray[np.uint64], quality: int, earlier: Duplicates
    ) -> tuple[Score, Score]:
        evidence: dict[str, Any] = {**_ORIGIN, "quality": quality, "nearest": None}
        if image.perceptual_hash is None:
            evidence["note"] = (
                f"quality {quality} is {RELIABLE_QUALITY} or less: too plain to be compared"
            )
        found = []
        for name, sku in (("near", None), ("in_set", image.sku)):
            distance, nearest = BITS, None
            if image.perceptual_hash is not None:
                distance, owner = min(
                    (index._nearest(image.request_id, bits, sku) for index in (self, earlier)),
                    key=lambda each: each[0],
                )
                nearest = owner and {"request_id": owner[0], "sku": owner[1]}
            found.append(Score(self.name, name, float(distance), {**evidence, "nearest": nearest}))
        return found[0], found[1]

    def _nearest(
        self, request_id: str, bits: NDArray[np.uint64], sku: str | None
    ) -> tuple[int, tuple[str, str] | None]:
        """The smallest distance to a hash before the request's own, and whose; 256 if none.

        Of all hashes, or of those of one item.
        """
        end = self._places.get(request_id, len(self._owners))
        known, places = self._hashes[:, :end], None
        if sku is not None:
            places = [place for place in self._sets.get(sku, ()) if place < end]
            known = known[:, places]
        if not known.size:
            return BITS, None
        distances = np.zeros(known.shape[1], np.uint16)
        for known_word, word in zip(known, bits, strict=True):
            distances += np.bitwise_count(known_word ^ word)
        nearest = int(distances.argmin())
        owner = self._owners[places[nearest] if places else nearest]
        return int(distances[nearest]), owner


def _rows(batch: ImageBatch) -> Iterable[Catalogued]:
    for request, pixels, phash in zip(
        batch.requests, batch.pixels_sha256, batch.perceptual_hashes, strict=True
    ):
        yield Catalogued(request.request_id, request.sku, pixels, phash)
