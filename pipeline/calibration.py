"""Bounds from labelled samples: what a bound catches and how often it cries wolf, with its doubt.

The sample is each image's score as the policy would see it. Against a reference library that is the
largest over the library (or the least distance), so the false-alarm rate is per image and holds at
the library's size on that day: a library twice as large has about twice the false alarms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import Fault, InputError
from pipeline.measure import Measured
from pipeline.policy_checks import Side as Words
from pipeline.policy_checks import range_of
from pipeline.records import Score

CONFIDENCE = 0.95
_RESAMPLES = 1000


@dataclass(frozen=True)
class Rate:
    """A share of `count` images, 0..1, and its exact 95 % confidence interval."""

    hits: int
    count: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share that was seen; NaN of no images."""
        return self.hits / self.count if self.count else math.nan


@dataclass(frozen=True)
class Proposed:
    """A bound for a false-alarm rate per image, and what it does to the sample.

    `low` and `high` are the 95 % bootstrap interval of the bound itself. `proven` says that even
    the upper end of the false alarms' interval keeps to the rate asked; `needed` is how many
    known-good images that takes at the least.
    """

    rate: float
    bound: float
    low: float
    high: float
    false_alarms: Rate
    caught: Rate
    proven: bool
    needed: int


@dataclass(frozen=True)
class Calibration:
    """One score's samples. `words` is the side on which it is bad."""

    score: str
    words: Words
    good: NDArray[np.float64]
    bad: NDArray[np.float64]

    @property
    def area(self) -> float:
        """Area under the ROC, 0.5..1: the chance that a bad image scores worse than a good one.

        The Mann-Whitney statistic; ties count half.
        """
        good, bad = np.sort(self._worse(self.good)), self._worse(self.bad)
        below = np.searchsorted(good, bad, "left")
        ties = np.searchsorted(good, bad, "right") - below
        return float((below + ties / 2).sum() / (len(good) * len(bad)))

    def roc(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """False-alarm rates and recalls, each 0..1, over all bounds, the strictest last."""
        bounds = np.unique(self._worse(np.concatenate([self.good, self.bad])))[::-1]
        good, bad = np.sort(self._worse(self.good)), np.sort(self._worse(self.bad))
        false = 1 - np.searchsorted(good, bounds, "left") / len(good)
        caught = 1 - np.searchsorted(bad, bounds, "left") / len(bad)
        return np.concatenate([[0], false, [1]]), np.concatenate([[0], caught, [1]])

    def propose(self, rate: float) -> Proposed:
        """The mildest bound whose false alarms the sample shows to keep within `rate` per image.

        Where the sample is too small to show any, the mildest that keeps its own within it.
        """
        bound = self._bound(self.good, rate)
        generator = np.random.default_rng(0)
        again = [
            self._bound(generator.choice(self.good, len(self.good)), rate)
            for _ in range(_RESAMPLES)
        ]
        low, high = np.quantile(again, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        false_alarms = rate_of(self._broken(self.good, bound), len(self.good))
        return Proposed(
            rate,
            bound,
            float(low),
            float(high),
            false_alarms,
            rate_of(self._broken(self.bad, bound), len(self.bad)),
            false_alarms.high <= rate,
            images_needed(rate),
        )

    def _worse(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values if self.words == "at_least" else -values

    def _broken(self, values: NDArray[np.float64], bound: float) -> int:
        broken = values >= bound if self.words == "at_least" else values < bound
        return int(broken.sum())

    def _bound(self, good: NDArray[np.float64], rate: float) -> float:
        """Just beyond the good image that may no longer alarm."""
        worst_first = np.sort(self._worse(good))[::-1]
        allowed = min(_allowed(len(good), rate), len(good) - 1)
        last = float(worst_first[allowed])
        if self.words == "at_least":
            return _round_up(last)
        # `below` is strict, so the value itself does not alarm.
        return _round_down(-last)


@dataclass(frozen=True)
class Calibrated:
    """A score's calibration with the bounds proposed, and what it was measured against.

    `against` says it in words: detector, revision, library and its size.
    """

    calibration: Calibration
    review: Proposed
    block: Proposed
    check: str
    name: str
    library: str | None
    against: str


def calibrations(
    check: str,
    score: str,
    good: Sequence[Measured],
    bad: Sequence[Measured],
    review_rate: float,
    block_rate: float,
) -> list[Calibrated]:
    """The scores of a check (or the one called `score`), calibrated; images with errors are left
    out.

    A score is bad on the side where the known-bad images' median lies. Raises InputError when it
    was not measured, or not as a number.
    """
    values: dict[str, tuple[list[float], list[float]]] = {}
    origins: dict[str, dict[str, None]] = {}
    for side, images in enumerate((good, bad)):
        for image in (each for each in images if not each.error):
            worst: dict[str, float] = {}
            for each in image.scores:
                if each.check == check and score in ("", each.name, each.name.partition("@")[0]):
                    worst[each.name] = _worse(check, each, worst.get(each.name))
                    library = each.name.partition("@")[2]
                    origins.setdefault(each.name, {})[_origin(each.evidence, library)] = None
            for name, value in worst.items():
                values.setdefault(name, ([], []))[side].append(value)
    if not values:
        remedy = "name a check, or one of its scores, that the policy measures"
        raise InputError("calibrate", [Fault(f"{check}.{score} was not measured", "", remedy)])
    faults: list[Fault] = []
    found = []
    for name, samples in values.items():
        try:
            calibration = calibrate(f"{check}.{name}", *samples)
        except ValueError as error:
            faults.append(Fault(str(error), "", "look at these images"))
            continue
        plain, _, library = name.partition("@")
        found.append(
            Calibrated(
                calibration,
                calibration.propose(review_rate),
                calibration.propose(block_rate),
                check,
                plain,
                library or None,
                "; ".join(origins[name]),
            )
        )
    # Of a whole check, those scores are left out that these images say nothing of.
    if faults and (score or not found):
        raise InputError("calibrate", faults)
    return found


def _worse(check: str, score: Score, other: float | None) -> float:
    """The worse of two detectors' scores of one name: a rule speaks when either is beyond it."""
    if other is None or math.isnan(score.value) or math.isnan(other):
        return score.value if other is None or math.isnan(score.value) else other
    known = range_of(check, score.name.partition("@")[0])
    return min(other, score.value) if known and known[2] == "below" else max(other, score.value)


def _origin(evidence: Mapping[str, Any], library: str) -> str:
    revision = str(evidence.get("weights_sha256") or evidence.get("revision") or "")[:12]
    size = evidence.get("library_size")
    named = f"library {library}" if library else "libraries"
    return f"{evidence.get('detector')} {revision}" + (f", {named} of {size} works" if size else "")


def calibrate(score: str, good: Sequence[float], bad: Sequence[float]) -> Calibration:
    """The samples of one score; a score that is not ours is bad where the median of `bad` lies.

    Raises ValueError for an empty sample, one that is no number, or samples alike."""
    samples = [np.asarray(each, np.float64) for each in (good, bad)]
    for name, values in zip(("known-good", "known-bad"), samples, strict=True):
        if not len(values):
            raise ValueError(f"{score}: no {name} image was measured")
        if not np.isfinite(values).all():
            raise ValueError(f"{score}: {name} scores are not all numbers")
    known = range_of(*score.partition("@")[0].partition(".")[::2])
    higher = np.median(samples[1]) >= np.median(samples[0])
    words: Words = known[2] if known else "at_least" if higher else "below"
    found = Calibration(score, words, samples[0], samples[1])
    if found.area <= 0.5:
        raise ValueError(f"{score} does not tell these images apart")
    return found


def rate_of(hits: int, count: int) -> Rate:
    """A share and its exact interval: Clopper and Pearson, "The use of confidence or fiducial
    limits illustrated in the case of the binomial", Biometrika 26 (1934)."""
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if hits == 0 else _solve(lambda p: 1 - _at_most(hits - 1, count, p) - tail)
    high = 1.0 if hits == count else _solve(lambda p: tail - _at_most(hits, count, p))
    return Rate(hits, count, low, high)


def images_needed(rate: float) -> int:
    """How many known-good images, none of them alarming, show that alarms are no more than `rate`.

    With none among n the interval ends at 1 - 0.025^(1/n).
    """
    tail = (1 - CONFIDENCE) / 2
    return math.ceil(math.log(tail) / math.log1p(-rate))


@cache
def _allowed(count: int, rate: float) -> int:
    """The most alarms among `count` that still show the rate; where none does, those of the rate
    itself."""
    low, high = 0, math.floor(rate * count)
    if rate_of(0, count).high > rate:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if rate_of(middle, count).high <= rate else (low, middle - 1)
    return low


def _at_most(hits: int, count: int, chance: float) -> float:
    """P(X <= hits) of a binomial."""
    if chance <= 0:
        return 1.0
    if chance >= 1:
        return float(hits >= count)
    each = [
        math.lgamma(count + 1)
        - math.lgamma(k + 1)
        - math.lgamma(count - k + 1)
        + k * math.log(chance)
        + (count - k) * math.log1p(-chance)
        for k in range(hits + 1)
    ]
    top = max(each)
    return min(1.0, math.exp(top) * math.fsum(math.exp(term - top) for term in each))


def _solve(rising: Callable[[float], float]) -> float:
    """The root in 0..1 of a function that rises, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if rising(middle) < 0:
            low = middle
        else:
            high = middle
    return high


def _round_up(value: float) -> float:
    """The next number of four decimals above: a bound that people can read and write."""
    bound = (math.floor(value * 10_000) + 1) / 10_000
    return bound if bound > value else (math.floor(value * 10_000) + 2) / 10_000


def _round_down(value: float) -> float:
    return math.floor(value * 10_000) / 10_000
