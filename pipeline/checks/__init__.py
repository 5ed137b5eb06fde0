"""Checks measure images: images → scores, between generate and policy.

A policy's `checks` section says which; `build_checks` makes them before the first image,
`run_checks` measures a batch, `remember` is called when a batch is committed.

A check of your own is a class or function result with a `name` and a call, made by a factory that
an installed package offers in the entry-point group `platemark.checks`. The whole of one, which
scores how much of each image's frame is white, as marketplaces ask of main images:

    # frame_check.py
    from pipeline.checks import Check, Context, ImageBatch
    from pipeline.errors import SetupError
    from pipeline.records import Score

    class WhiteFrame:
        name = "white_frame"

        def __init__(self, level: int):
            self.level = level

        def __call__(self, batch: ImageBatch) -> list[tuple[Score, ...]]:
            edges = (batch.images[:, 0], batch.images[:, -1])
            white = sum((edge >= self.level).all(axis=2).mean(axis=1) for edge in edges) / 2
            evidence = {"detector": "white-frame", "revision": "1", "level": self.level}
            return [(Score(self.name, "share", float(share), evidence),) for share in white]

    def make(options: dict, context: Context) -> Check:
        level = options.get("level", 250)
        if not 0 <= level <= 255:
            raise SetupError(f"white_frame.level is {level}; write a number from 0 to 255")
        return WhiteFrame(level)

    # pyproject.toml
    [project.entry-points."platemark.checks"]
    white_frame = "frame_check:make"

    # the policy
    checks:
      white_frame: {level: 250}

Rules then speak of `white_frame.share`. Scores are raw (NaN is passed on), evidence is JSON and
says `detector` and `revision`. What cannot be set up raises SetupError with the remedy; what raises
while measuring costs only the images it raised for. A check that compares with earlier images has
`add(batch)` as well, which is called in the order in which batches are committed. Calls may come
from several threads.
"""

from pipeline.checks.build import ENTRY_POINTS, Context, build_checks
from pipeline.checks.duplicates import Catalogued
from pipeline.checks.protocol import Check, Checked, ImageBatch, remember, run_checks

__all__ = [
    "ENTRY_POINTS",
    "Catalogued",
    "Check",
    "Checked",
    "Context",
    "ImageBatch",
    "build_checks",
    "remember",
    "run_checks",
]
