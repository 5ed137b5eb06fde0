"""Does the image show what its item says, and the product of the item's photo. Needs open_clip.

Both tell one item from another, no more: what the model cannot see, such as a missing button, they
do not find.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.embed import ClipEncoder
from pipeline.checks.protocol import ImageBatch, detector, finite
from pipeline.checks.reference_photo import ReferencePhotos
from pipeline.checks.references import Embedder
from pipeline.checks.rivals import GENERIC, Rivals
from pipeline.images import RgbImage
from pipeline.records import Score
from pipeline.request import Input, Request

_TIE = 1e-5
"""Cosines nearer than this are equal: float32 in batches of other sizes differs by less."""


class Fidelity:
    """Scores `fidelity.text`, `fidelity.rank` and, with a model to compare photos, `reference`."""

    name = "fidelity"

    def __init__(
        self,
        encoder: ClipEncoder,
        items: Mapping[str, str],
        distractors: int,
        compared: Embedder | None,
        picture: Callable[[str], RgbImage] | None,
    ):
        """`items` are the words of the brief's items by sku; `distractors` of them are met at most.

        `compared` embeds images and the photos that `picture` gives by SHA-256.
        """
        self._encoder = encoder
        self._items = items
        self._rivals = Rivals(items)
        self._count = distractors
        self._compared = compared
        self._photos = ReferencePhotos(compared, picture) if compared else None

    def __call__(self, batch: ImageBatch) -> list[tuple[Score, ...]]:
        """Two or three scores an image.

        - `text`, 0..1: the probability of the item's own words among its rivals', the softmax of
          the model's scale times the cosines (Radford et al., "Learning Transferable Visual Models
          From Natural Language Supervision", 2021).
        - `rank`, 1 or more: the place of its own words among them, 1 the best. Equals share the
          better place.
        - `reference`, -1..1: the cosine between image and photo, the larger of those of all of it
          and of its middle: a new background changes the whole, a product at the rim the middle.
          1 without a photo.

        An item's words are those of `items`, else its request's prompt. Rivals are the words of
        other items; where there are fewer than `distractors`, generic phrases (rivals.py) join
        them, so that an item alone is at least told from an empty picture and from noise. An item
        without words has asked for nothing: `text` 1 and `rank` 1. A NaN is passed on.
        """
        asked = [self._asked(request) for request in batch.requests]
        # All new texts of a batch in one pass; the encoder keeps them.
        self._encoder.texts([text for each in asked for text in each.all])
        scores = [
            self._text_scores(image, each)
            for image, each in zip(batch.embedding(self._encoder), asked, strict=True)
        ]
        if self._compared is None or self._photos is None:
            return scores
        origin = detector(self._compared.spec, self._compared.digest)
        return [
            (*of_text, _reference_score(origin, found))
            for of_text, found in zip(scores, self._photos.cosines(batch), strict=True)
        ]

    def _asked(self, request: Request) -> _Asked:
        words = self._items.get(request.sku, request.chain[0].prompt).strip()
        others = self._rivals.of(request.sku, words, self._count)
        return _Asked(words, others, list(GENERIC[: self._count - len(others)]))

    def _text_scores(self, image: NDArray[np.float32], asked: _Asked) -> tuple[Score, ...]:
        evidence: dict[str, Any] = {
            **detector(self._encoder.spec, self._encoder.digest),
            "words": asked.words,
        }
        if not asked.words:
            evidence["note"] = "the item has no words to compare with"
            return tuple(Score(self.name, name, 1.0, evidence) for name in ("text", "rank"))
        # A sum, not a matrix product: numpy's would start threads beside the generator's.
        cosines = (self._encoder.texts(asked.all) * image).sum(axis=1).astype(np.float64)
        probabilities = _softmax(self._encoder.logit_scale * cosines)
        strongest = 1 + int(np.argmax(probabilities[1:]))
        evidence |= {
            "cosine": finite(cosines[0]),
            "rival": asked.all[strongest],
            "rival_probability": finite(probabilities[strongest]),
            "distractors": len(asked.others),
            "generic": len(asked.generic),
        }
        if not asked.others:
            evidence["note"] = "no other item to compare with: generic phrases only"
        better = int((cosines[1:] > cosines[0] + _TIE).sum())
        rank = 1.0 + better if np.isfinite(cosines).all() else np.nan
        return (
            Score(self.name, "text", float(probabilities[0]), evidence),
            Score(self.name, "rank", rank, evidence),
        )


@dataclass(frozen=True)
class _Asked:
    """An item's words, those of other items, and the generic ones that make up the number."""

    words: str
    others: list[str]
    generic: list[str]

    @property
    def all(self) -> list[str]:
        return [self.words, *self.others, *self.generic]


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    exponentials: NDArray[np.float64] = np.exp(logits - logits.max())
    return np.asarray(exponentials / exponentials.sum())


def _reference_score(
    origin: dict[str, Any], found: tuple[Input, NDArray[np.float32]] | None
) -> Score:
    if found is None:
        return Score("fidelity", "reference", 1.0, {**origin, "note": "the item has no photo"})
    photo, (whole, middle) = found
    evidence = {
        **origin,
        "photo": {"name": photo.name, "sha256": photo.sha256},
        "whole": finite(whole),
        "middle": finite(middle),
    }
    # numpy's maximum, unlike Python's, passes a NaN on.
    return Score("fidelity", "reference", float(np.maximum(whole, middle)), evidence)
