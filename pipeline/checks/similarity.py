"""Similarity to reference libraries by open_clip: exact top-k cosines, the nearest as evidence.

CLIP compares what is shown, not who drew it: a shortlist for people, to be calibrated before it
blocks. A score is a match in these libraries, never a statement about rights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

from pipeline.checks.embed import ClipEncoder
from pipeline.checks.protocol import ImageBatch, detector, finite
from pipeline.checks.references import Near, References, Role, unusable
from pipeline.errors import SetupError
from pipeline.records import Score


class Similarity:
    """Scores `similarity.nearest`: the cosine, -1..1, to the nearest protected reference.

    `own` references are intended matches: reported in the evidence, never counted.
    """

    name = "similarity"

    def __init__(self, encoder: ClipEncoder, libraries: Sequence[References], top: int = 5):
        self.libraries = tuple(libraries)
        self._encoder = encoder
        self._top = top
        if faults := unusable("similarity", libraries):
            raise SetupError("\n".join(faults))
        for library in libraries:
            library.prepare(encoder)
        self._sizes = {
            library.name: library.count("protected") + library.count("own") for library in libraries
        }
        self._digests = {library.name: library.digest for library in libraries}

    def __call__(self, batch: ImageBatch) -> list[tuple[Score, ...]]:
        """One score an image; evidence lists the `top` nearest, the libraries' sizes and digests.

        A digest changes with any work or right of its library.
        """
        evidence = {
            **detector(self._encoder.spec, self._encoder.digest),
            "libraries": self._sizes,
            "library_digests": self._digests,
            "library_size": sum(self._sizes.values()),
        }
        return [
            (
                Score(
                    self.name,
                    "nearest",
                    protected[0].value,
                    {**evidence, "nearest": _matches(protected), "own": _matches(own)},
                ),
            )
            for protected, own in zip(
                self._nearest(batch, "protected"), self._nearest(batch, "own"), strict=True
            )
        ]

    def _nearest(self, batch: ImageBatch, role: Role) -> list[list[Near]]:
        """For each image the nearest of all libraries, the first of equals first."""
        embeddings = batch.embedding(self._encoder)
        found = [
            library.nearest(self._encoder, embeddings, self._top, role)
            for library in self.libraries
        ]
        # Beside a NaN nothing can be ranked: it comes first, and is the score.
        return [
            sorted(
                chain.from_iterable(per_library),
                key=lambda near: -math.inf if math.isnan(near.value) else -near.value,
            )[: self._top]
            for per_library in zip(*found, strict=True)
        ]


def _matches(found: Sequence[Near]) -> list[dict[str, Any]]:
    return [{**_rights(near), "cosine": finite(near.value)} for near in found]


def _rights(near: Near) -> dict[str, Any]:
    fields = asdict(near.reference)
    del fields["note"]
    expires = fields.pop("expires")
    return fields | ({"expires": expires.isoformat()} if expires else {})
