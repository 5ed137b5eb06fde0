"""What audits rank images by, taken from their scores and verdict when a row is written.

Each has a column of its own, so that a question over ten million images need not go through their
lists of scores or reasons. The view raw.ranked says the same of rows that versions before 5 wrote.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan

from pipeline.records import SEVERITIES, Score, Verdict

FARTHEST = 256.0
"""Bits of PDQ that differ from nothing at all: there is no such image or work, or no such check."""
UNLIKE = -1.0
"""The cosine to nothing at all."""


def nearness(scores: Iterable[Score]) -> dict[str, float]:
    """How near an image is to earlier ones and to protected works, over all libraries.

    `duplicate_distance`: 0 (the same pixels) to 256, bits of PDQ that differ from the nearest
    earlier image. `nearest_pdq`: the same to the nearest work; `nearest_clip` and
    `nearest_descriptor`: cosines, -1 to 1. What was not measured, or is no number, is farthest.
    """
    found = {
        "duplicate_distance": FARTHEST,
        "nearest_pdq": FARTHEST,
        "nearest_clip": UNLIKE,
        "nearest_descriptor": UNLIKE,
    }
    for score in scores:
        if isnan(score.value):
            continue
        name = score.name.partition("@")[0]
        match score.check, name:
            case "duplicates", "exact" if score.value == 1:
                found["duplicate_distance"] = 0.0
            case "duplicates", "near":
                found["duplicate_distance"] = min(found["duplicate_distance"], score.value)
            case "copying", "pdq":
                found["nearest_pdq"] = min(found["nearest_pdq"], score.value)
            case ("copying", "clip") | ("similarity", "nearest"):
                found["nearest_clip"] = max(found["nearest_clip"], score.value)
            case "copying", "descriptor":
                found["nearest_descriptor"] = max(found["nearest_descriptor"], score.value)
    return found


def urgency(verdict: Verdict | None) -> int:
    """How urgently a person is asked: the greatest severity, 1 (low) to 4; 0 where nobody is."""
    if verdict is None or verdict.outcome != "review":
        return 0
    severities = [SEVERITIES.index(reason.severity) for reason in verdict.reasons]
    return 1 + max(severities, default=SEVERITIES.index("normal"))
