"""Zero-shot concepts: classes of phrases, weighed by open_clip. Serves `sensitive` and `nsfw`.

All concepts and similarity share one embedding of the images; more phrases cost next to nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.embed import ClipEncoder
from pipeline.checks.protocol import ImageBatch, detector, finite
from pipeline.errors import SetupError
from pipeline.records import Score


class Concepts:
    """One score a class, 0..1: the summed probability of its phrases.

    Softmax over the model's logits of all phrases, the `neutral` ones among them (Radford et al.
    2021, zero-shot classification). The classes of one detector so share out one probability: what
    belongs to two of them lowers both. Classes that overlap belong into detectors of their own.
    """

    def __init__(
        self,
        check: str,
        encoder: ClipEncoder,
        classes: Mapping[str, Sequence[str]],
        neutral: Sequence[str],
    ):
        """`classes` are phrases by class, `neutral` phrases of what is none of them.

        Raises SetupError when one of these is empty, or a phrase stands in two of them.
        """
        self.name = check
        self._encoder = encoder
        self._classes = {name: tuple(dict.fromkeys(each)) for name, each in classes.items()}
        others = tuple(dict.fromkeys(neutral))
        _demand_phrases(check, self._classes, others)
        phrases = [phrase for each in self._classes.values() for phrase in each]
        self._texts = encoder.texts((*phrases, *others))

    def __call__(self, batch: ImageBatch) -> list[tuple[Score, ...]]:
        """A score for each class of each image; evidence names the class's likeliest phrase."""
        cosines = batch.embedding(self._encoder) @ self._texts.T
        return [self._scores(row) for row in _softmax(cosines * self._encoder.logit_scale)]

    def _scores(self, probabilities: NDArray[np.float32]) -> tuple[Score, ...]:
        scores, start = [], 0
        for name, phrases in self._classes.items():
            own = probabilities[start : start + len(phrases)]
            start += len(phrases)
            likeliest = int(own.argmax())
            evidence = {
                **detector(self._encoder.spec, self._encoder.digest),
                "concept": phrases[likeliest],
                "probability": finite(own[likeliest]),
            }
            scores.append(Score(self.name, name, float(own.sum()), evidence))
        return tuple(scores)


def _demand_phrases(
    check: str, classes: Mapping[str, tuple[str, ...]], neutral: tuple[str, ...]
) -> None:
    empty = [f"class {name!r}" for name, phrases in classes.items() if not phrases]
    if not classes:
        empty.append("a class")
    if not neutral:
        empty.append("the neutral side")
    if empty:
        raise SetupError(
            f"{check}: {' and '.join(empty)} of its concepts needs at least one phrase; "
            f"name what it looks like"
        )
    places = Counter(phrase.casefold() for each in (*classes.values(), neutral) for phrase in each)
    twice = [phrase for phrase, count in places.items() if count > 1]
    if twice:
        raise SetupError(
            f"{check}: {', '.join(map(repr, twice))} stands in two places of one detector's "
            f"concepts, which would halve its probability; leave it in one"
        )


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)
