"""Copying: is an image, or a part of it, somebody's work? Several signals, library by library.

A score is a match in these libraries, never a statement about rights. `own` works are allow-listed:
a match that an own work explains is reported as intended, and does not count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.concepts import Concepts
from pipeline.checks.crops import region_embeddings, regions
from pipeline.checks.matches import NOTHING, Hit, matches
from pipeline.checks.pdq import BITS, RELIABLE_QUALITY, pdq
from pipeline.checks.protocol import Check, ImageBatch, detector
from pipeline.checks.references import Embedder, References, Role, unusable
from pipeline.errors import SetupError
from pipeline.records import Score

if TYPE_CHECKING:
    from pipeline.checks.embed import ClipEncoder

UNLIKE = -1.0
"""The cosine where no protected work counts: the least that there is."""
_PDQ = {"detector": "pdq", "revision": "2019"}
_NO_NUMBER = "the model's embedding of this image is not a number"


class Copying:
    """Scores `copying.SIGNAL@LIBRARY` for each signal and library, and `copying.concept`.

    `pdq`: the least Hamming distance, 0..256, of the image or its mirror image. `descriptor`: the
    largest cosine, -1..1, of the whole image or one of its regions. `clip`: the largest cosine of
    the whole image. `concept`: the probability, 0..1, of the protected phrases.

    A work counts unless an own work of any of the libraries is at least as near at the same place:
    the same region for the descriptor, the whole image for the others. A score of -1 or 256 means
    that none counts.
    """

    name = "copying"

    def __init__(
        self,
        libraries: Sequence[References],
        *,
        descriptor: Embedder | None,
        crops: int,
        shortlist: ClipEncoder | None,
        concepts: Mapping[str, Sequence[str]] | None,
        top: int,
        fresh_days: int | None,
    ):
        """`crops` are levels of regions besides the whole, `top` the works in the evidence,
        `concepts` has `phrases` and `neutral`. Embeds the libraries' works.

        Raises SetupError, with all that is wrong, when a library is empty or stale or none has a
        protected work, and whatever `References.prepare` raises.
        """
        self.libraries = tuple(libraries)
        self._descriptor = descriptor
        self._crops = crops
        self._shortlist = shortlist
        self._top = top
        self._concepts: Check | None = None
        if shortlist is not None and concepts is not None:
            phrases = {"concept": list(concepts["phrases"])}
            self._concepts = Concepts(self.name, shortlist, phrases, list(concepts["neutral"]))
        faults = [*unusable("copying", self.libraries), *_stale(self.libraries, fresh_days)]
        if faults:
            raise SetupError("\n".join(faults))
        for library in self.libraries:
            for embedder in (descriptor, shortlist):
                if embedder is not None:
                    library.prepare(embedder)

    def __call__(self, batch: ImageBatch) -> list[tuple[Score, ...]]:
        """The scores of each image; evidence lists the `top` nearest works of each signal.

        `nearest` are the protected works that count, `own` the own ones, `intended` the protected
        ones that do not count, each with the own work that explains it.
        """
        signals = [self._hashes(batch)]
        if self._descriptor is not None:
            height, width = batch.images.shape[1:3]
            places = regions(height, width, 1 + self._crops)
            vectors = region_embeddings(self._descriptor, batch.images, places)
            where = [{"region": [int(edge) for edge in place]} for place in places]
            signals.append(self._cosines("descriptor", self._descriptor, vectors, where))
        if self._shortlist is not None:
            whole = batch.embedding(self._shortlist)[:, None]
            signals.append(self._cosines("clip", self._shortlist, whole, [{}]))
        scores = [self._scores(signal) for signal in signals]
        if self._concepts is not None:
            scores.append([list(found) for found in self._concepts(batch)])
        return [
            tuple(score for found in image for score in found)
            for image in zip(*scores, strict=True)
        ]

    def _hashes(self, batch: ImageBatch) -> _Signal:
        hashes, quality = batch.pdq
        mirrored, _ = pdq(batch.luma[:, :, ::-1])
        said: list[dict[str, Any]] = [{**_PDQ, "quality": int(each)} for each in quality]
        plain = [each["quality"] <= RELIABLE_QUALITY for each in said]
        for evidence in compress(said, plain):
            quality_is = f"quality {evidence['quality']} is {RELIABLE_QUALITY} or less"
            evidence["note"] = f"{quality_is}: too plain to be compared"
        turned = [{"mirrored": False}, {"mirrored": True}]

        def search(library: References, role: Role) -> list[list[list[Hit]]]:
            both = [library.nearest_hashes(each, self._top, role) for each in (hashes, mirrored)]
            return [
                [
                    [
                        Hit(near, -near.value, where)
                        for nears, where in zip(found, turned, strict=True)
                        for near in nears
                    ]
                ]
                for found in zip(*both, strict=True)
            ]

        settled = [float(BITS) if is_plain else None for is_plain in plain]
        return _Signal("pdq", "distance", float(BITS), said, settled, search)

    def _cosines(
        self,
        name: str,
        embedder: Embedder,
        vectors: NDArray[np.float32],
        where: Sequence[Mapping[str, Any]],
    ) -> _Signal:
        """The signal of embeddings [N, R, D] of R places of each image."""
        count, places, dimensions = vectors.shape
        queries = np.ascontiguousarray(vectors.reshape(count * places, dimensions))
        known = [bool(np.isfinite(each).all()) for each in vectors]
        origin = detector(embedder.spec, embedder.digest)
        said = [origin if is_known else {**origin, "note": _NO_NUMBER} for is_known in known]

        def search(library: References, role: Role) -> list[list[list[Hit]]]:
            found = library.nearest(embedder, queries, self._top, role)
            hits = [
                [Hit(near, near.value, where[query % places]) for near in nears]
                for query, nears in enumerate(found)
            ]
            return [hits[start : start + places] for start in range(0, count * places, places)]

        settled = [None if is_known else math.nan for is_known in known]
        return _Signal(name, "cosine", UNLIKE, said, settled, search)

    def _scores(self, signal: _Signal) -> list[list[Score]]:
        """For each image its scores, one a library."""
        each = [signal.search(library, "own") for library in self.libraries]
        own = [
            [[hit for hits in place for hit in hits] for place in zip(*image, strict=True)]
            for image in zip(*each, strict=True)
        ]
        scores: list[list[Score]] = [[] for _ in own]
        for library in self.libraries:
            about = {
                "library": library.name,
                "library_size": library.count("protected"),
                "library_digest": library.digest,
            }
            protected = signal.search(library, "protected")
            for index, (found, ours) in enumerate(zip(protected, own, strict=True)):
                value, seen = signal.settled[index], NOTHING
                if value is None:
                    seen = matches(found, ours, self._top)
                    value = signal.nothing if seen.value is None else float(seen.value)
                evidence = {**signal.said[index], **about, **seen.evidence(signal.measure)}
                name = f"{signal.name}@{library.name}"
                scores[index].append(Score(self.name, name, value, evidence))
        return scores


@dataclass(frozen=True)
class _Signal:
    """One way to compare a batch with libraries.

    `said` is each image's evidence before any library, `settled` its score where none is asked.
    `search` gives the hits for each image and each of its places.
    """

    name: str
    measure: str
    nothing: float
    said: Sequence[Mapping[str, Any]]
    settled: Sequence[float | None]
    search: Callable[[References, Role], list[list[list[Hit]]]]


def _stale(libraries: Sequence[References], fresh_days: int | None) -> list[str]:
    if fresh_days is None:
        return []
    oldest = datetime.now(UTC) - timedelta(days=fresh_days)
    return [
        f"library {library.name!r} was last confirmed on {library.checked_at:%Y-%m-%d}, more than "
        f"the policy's {fresh_days} days ago; look whether it is still complete, then confirm it "
        f"with `platemark library confirm {library.name}`"
        for library in libraries
        if library.checked_at < oldest
    ]
