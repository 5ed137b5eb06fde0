"""What an image's inputs say, and whether an edit kept what it was to keep. Needs no model.

Scores of images made from others: `inputs.restricted` and `inputs.preserved`.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.generate import Kept
from pipeline.images import RgbImage
from pipeline.ingredients import Made
from pipeline.records import Score
from pipeline.request import Request

IDENTICAL_DB = 100.0
"""PSNR stands for equal pixels at this value: infinity is no number that a catalog can compare."""


def preserved_db(image: RgbImage, kept: Kept) -> float:
    """PSNR in dB, at most 100, of what lies outside the repainted region; 100 where nothing does.

    0 where the tool that was to find the object found none: then nothing is known to be kept.

    10 log10(255² / MSE) over all channels of the pixels that may not change at all.
    """
    if kept.nothing_found:
        return 0.0
    outside = ~(kept.repainted > 0)
    if not outside.any():
        return IDENTICAL_DB
    difference = image[outside].astype(np.float64) - kept.original[outside]
    error = float((difference**2).mean())
    return min(IDENTICAL_DB, 10 * np.log10(255**2 / error)) if error else IDENTICAL_DB


def input_scores(request: Request, made: Made) -> tuple[Score, ...]:
    """Scores from the inputs of all of a chain's steps; none for an image from words alone.

    `restricted` is how many statements against such use the inputs carry. `preserved` is the least
    PSNR in dB outside the repainted regions, over the steps that repainted one.
    """
    origin = {"detector": "platemark-inputs", "revision": "1"}
    scores = []
    outside = [each for each in made.used if each.source != "step"]
    if outside:
        says = [
            {"file": each.name, "sha256": each.sha256, "says": text.removeprefix("editing: ")}
            for each in outside
            for text in each.restrictions
            if text.startswith("editing: ")
        ]
        told = "; ".join(f"{each['file']}: {each['says']}" for each in says)
        evidence = {**origin, "says": told, "restrictions": says}
        scores.append(Score("inputs", "restricted", float(len(says)), evidence))
    edits = [step for step in request.chain if step.region]
    if edits:
        regions = [made.regions[e.request_id] for e in edits if e.request_id in made.regions]
        # What was not measured is no number, and neither is the least of such.
        measured = [each.preserved_db for each in regions] if len(regions) == len(edits) else []
        worst = float(np.min(measured)) if measured else math.nan
        found = {**origin, "regions": [list(each.box) for each in regions]}
        scores.append(Score("inputs", "preserved", worst, found))
    return tuple(scores)
