"""What was found in a library, and what of it counts: own works explain what is intended.

Nearest works → a value and evidence, for pipeline/checks/copying.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.checks.protocol import finite
from pipeline.checks.references import Near
from pipeline.checks.rights import Reference

_ROUNDING = 1e-5
"""Cosines of equal pictures differ by less, float32 and order of summation being what they are."""


@dataclass(frozen=True)
class Hit:
    """A work that was found, how near it is (a larger number is nearer, whatever the measure), and
    where in the image, as evidence has it."""

    near: Near
    nearness: float
    where: Mapping[str, Any]


@dataclass(frozen=True)
class Matches:
    """One image's hits in one library, the nearest first, each work once.

    `value` is the score: the nearest that counts, None where none does. `intended` are the hits
    that do not count, each with the own hit that explains it.
    """

    value: float | None
    counted: Sequence[Hit]
    own: Sequence[Hit]
    intended: Sequence[tuple[Hit, Hit]]

    def evidence(self, measure: str) -> dict[str, Any]:
        """`nearest`, `own` and `intended` for a score; `measure` is what its values are called."""
        return {
            "nearest": [_told(hit, measure) for hit in self.counted],
            "own": [_told(hit, measure) for hit in self.own],
            "intended": [
                {**_told(hit, measure), "own": _told(own, measure)} for hit, own in self.intended
            ],
        }


NOTHING = Matches(None, (), (), ())


def matches(protected: Sequence[Sequence[Hit]], own: Sequence[Sequence[Hit]], top: int) -> Matches:
    """What counts of the hits at each place of an image, and the `top` of each kind.

    A protected hit counts unless an own hit at the same place is at least as near. More protected
    works so never lower what counts, and more own works never raise it.
    """
    counted: list[Hit] = []
    explained: dict[int, Hit] = {}
    passed: list[Hit] = []
    for hits, ours in zip(protected, own, strict=True):
        nearest = _first(ours, 1)
        for hit in hits:
            if nearest and nearest[0].nearness >= hit.nearness - _ROUNDING:
                explained[id(hit)] = nearest[0]
                passed.append(hit)
            else:
                counted.append(hit)
    first = _first(counted, top)
    value = first[0].near.value if first else None
    # A work whose embedding is not a number is nobody's match, and nobody's leave.
    if any(math.isnan(hit.nearness) for hit in counted):
        value = math.nan
    return Matches(
        value,
        first,
        _first((hit for hits in own for hit in hits), top),
        [(hit, explained[id(hit)]) for hit in _first(passed, top)],
    )


def _first(hits: Iterable[Hit], count: int) -> list[Hit]:
    ranked = sorted((hit for hit in hits if not math.isnan(hit.nearness)), key=_farness)
    works: dict[tuple[str, str], Hit] = {}
    for hit in ranked:
        works.setdefault((hit.near.reference.library, hit.near.reference.sha256), hit)
        if len(works) == count:
            break
    return list(works.values())


def _farness(hit: Hit) -> float:
    return -hit.nearness


def _told(hit: Hit, measure: str) -> dict[str, Any]:
    return {**_work(hit.near.reference), measure: finite(hit.near.value), **hit.where}


def _work(reference: Reference) -> dict[str, Any]:
    work = {
        "library": reference.library,
        "file": reference.file,
        "sha256": reference.sha256,
        "title": reference.title,
        "rights_holder": reference.rights_holder,
        "licence": reference.licence,
        "role": reference.role,
    }
    return work | ({"expires": reference.expires.isoformat()} if reference.expires else {})
