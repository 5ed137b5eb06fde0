"""A check measures images: batch in, scores out. Images → scores, between generate and policy.

A check only measures; what a score means is the policy's matter.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.pdq import RELIABLE_QUALITY, luma_of, pdq, pdq_hex
from pipeline.records import Score
from pipeline.request import Request

Images = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
"""uint8 [N, H, W, 3] RGB, or a list of [H, W, 3] of any sizes."""


class Encoder(Protocol):
    """Whatever turns images into embeddings (pipeline/checks/embed.py)."""

    def images(self, images: Images) -> NDArray[np.float32]:
        """A row of float32 for each image, [N, D]: embeddings, or a classifier's probabilities."""
        ...


class ModelSpec(Protocol):
    """What a check needs of a model; pipeline/models.py has them."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def source(self) -> str: ...  # noqa: D102
    @property
    def revision(self) -> str: ...  # noqa: D102
    @property
    def weights_sha256(self) -> str | None: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """Images of one size and the requests they answer, with what several checks share.

    `images` is uint8 [N, H, W, 3], RGB. Whatever is costly is computed on first use and kept, so
    that NSFW concepts and similarity share one embedding pass.
    """

    images: NDArray[np.uint8]
    requests: tuple[Request, ...]
    _embeddings: dict[int, NDArray[np.float32]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        shape = self.images.shape
        if self.images.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3:
            raise ValueError(f"images are {self.images.dtype} {shape}, not uint8 [N, H, W, 3]")
        if len(self.requests) != len(self.images):
            raise ValueError(f"{len(self.images)} images for {len(self.requests)} requests")

    def __len__(self) -> int:
        return len(self.images)

    def one(self, index: int) -> ImageBatch:
        """A batch of the image at `index` alone."""
        return ImageBatch(self.images[index : index + 1], self.requests[index : index + 1])

    def embedding(self, encoder: Encoder) -> NDArray[np.float32]:
        """The images' embeddings by `encoder`, float32 [N, D], computed once a batch."""
        if id(encoder) not in self._embeddings:
            self._embeddings[id(encoder)] = encoder.images(self.images)
        return self._embeddings[id(encoder)]

    @cached_property
    def luma(self) -> NDArray[np.float32]:
        """BT.601 luma, float32 [N, H, W], in 0..255."""
        return luma_of(self.images)

    @cached_property
    def pixels_sha256(self) -> tuple[str, ...]:
        """SHA-256 (hex) of each image's raw RGB bytes, row by row."""
        return tuple(
            hashlib.sha256(np.ascontiguousarray(image).data).hexdigest() for image in self.images
        )

    @cached_property
    def pdq(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """PDQ hashes, uint64 [N, 4], and their quality 0..100, [N]."""
        return pdq(self.luma)

    @cached_property
    def perceptual_hashes(self) -> tuple[str | None, ...]:
        """PDQ as 64 hex digits for the catalog; None where the image is too plain to have one."""
        hashes, quality = self.pdq
        return tuple(
            pdq_hex(bits) if reliable else None
            for bits, reliable in zip(hashes, quality > RELIABLE_QUALITY, strict=True)
        )


class Check(Protocol):
    """One measurement. `name` is the section of the policy's `checks`, and `Score.check`."""

    name: str

    def __call__(self, batch: ImageBatch) -> list[tuple[Score, ...]]:
        """The scores of each image, in order. Values are raw: a NaN is passed on, not hidden."""
        ...


@dataclass(frozen=True)
class Checked:
    """What the checks found in one image. With an `error`, the scores are those that were had.

    `milliseconds` is each check's time by its name, shared evenly among the batch.
    """

    scores: tuple[Score, ...] = ()
    error: str | None = None
    milliseconds: Mapping[str, float] = field(default_factory=dict)


def run_checks(checks: Sequence[Check], batch: ImageBatch) -> list[Checked]:
    """All scores of all images of a batch. Never raises for an image: its error is a value.

    A check that fails on the batch is asked again image by image, so that one image (or too little
    memory) does not cost the others their scores.
    """
    scores: list[list[Score]] = [[] for _ in range(len(batch))]
    errors: list[list[str]] = [[] for _ in range(len(batch))]
    milliseconds: dict[str, float] = {}
    for check in checks:
        start = time.perf_counter()
        for index, found in enumerate(_measure(check, batch)):
            if isinstance(found, str):
                errors[index].append(found)
            else:
                scores[index].extend(found)
        spent = (time.perf_counter() - start) * 1000 / max(len(batch), 1)
        milliseconds[check.name] = milliseconds.get(check.name, 0.0) + spent
    return [
        Checked(tuple(found), "; ".join(failed) or None, milliseconds)
        for found, failed in zip(scores, errors, strict=True)
    ]


def remember(checks: Sequence[Check], batch: ImageBatch) -> None:
    """Tells the checks that compare with earlier images that this batch is done. Call in order."""
    for check in checks:
        add = getattr(check, "add", None)
        if add is not None:
            add(batch)


def finite(value: float) -> float | None:
    """A number that JSON can hold: None for NaN and infinities."""
    return float(value) if math.isfinite(value) else None


def detector(model: ModelSpec, digest: str) -> dict[str, Any]:
    """The evidence that every model-based score carries: which detector, pinned how."""
    return {"detector": model.name, "revision": model.revision, "weights_sha256": digest}


def _measure(check: Check, batch: ImageBatch) -> list[tuple[Score, ...] | str]:
    # Anything may come out of a model or a plugin; whatever it is belongs to these images alone.
    try:
        return [*_complete(check, batch)]
    except Exception as error:
        if len(batch) == 1:
            return [f"check {check.name!r} failed: {type(error).__name__}: {error}"]
    return [_measure(check, batch.one(index))[0] for index in range(len(batch))]


def _complete(check: Check, batch: ImageBatch) -> list[tuple[Score, ...]]:
    found = check(batch)
    if len(found) != len(batch):
        raise ValueError(f"{len(found)} results for {len(batch)} images")
    return found
