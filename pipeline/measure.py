"""Measures pictures that no run has made: examples of a policy, samples to calibrate on.

Files → scores, by the same checks and with the same limits as images of a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.checks.protocol import Check, ImageBatch, run_checks
from pipeline.images import SUFFIXES, ImageRefused, RgbImage, decode_limited
from pipeline.records import Score
from pipeline.request import Request

_AT_ONCE = 16


@dataclass(frozen=True)
class Measured:
    """A file's scores, or `error`: why it could not be measured, wholly or in part."""

    file: Path
    scores: tuple[Score, ...] = ()
    error: str | None = None


def request_for(
    file: Path, width: int, height: int, prompt: str = "", channels: Sequence[str] = ()
) -> Request:
    """What stands for the request of a picture that was not asked for: its name, size, words."""
    return Request(
        sku=file.name,
        index=0,
        mode="text-to-image",
        model="",
        model_revision="",
        prompt=prompt,
        negative_prompt="",
        seed=0,
        width=width,
        height=height,
        steps=0,
        guidance=0.0,
        scheduler="",
        campaign="",
        client="",
        terms={"channels": list(channels)} if channels else {},
    )


def measure_files(
    checks: Sequence[Check],
    files: Sequence[Path],
    prompts: Sequence[str] = (),
) -> Iterator[Measured]:
    """Each file's scores, in order; pictures of one size are measured together.

    `prompts` are the words of each file, where there are any.
    """
    for start in range(0, len(files), _AT_ONCE):
        some = files[start : start + _AT_ONCE]
        words = prompts[start : start + _AT_ONCE] or [""] * len(some)
        decoded = [_decoded(file) for file in some]
        sizes: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(decoded):
            if not isinstance(image, str):
                sizes.setdefault(image.shape, []).append(index)
        found: dict[int, Measured] = {
            index: Measured(file, error=image)
            for index, (file, image) in enumerate(zip(some, decoded, strict=True))
            if isinstance(image, str)
        }
        for indexes in sizes.values():
            found |= _measured(checks, some, decoded, indexes, words)
        yield from (found[index] for index in range(len(some)))


def pictures_in(folder: Path) -> list[Path]:
    """The PNG, JPEG and WebP files in a folder and those below it, by name."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES and file.is_file() and not file.name.startswith(".")
    )


def _measured(
    checks: Sequence[Check],
    files: Sequence[Path],
    decoded: Sequence[RgbImage | str],
    indexes: Sequence[int],
    words: Sequence[str],
) -> dict[int, Measured]:
    images = np.stack([image for index in indexes if not isinstance(image := decoded[index], str)])
    height, width = images.shape[1:3]
    requests = tuple(request_for(files[index], width, height, words[index]) for index in indexes)
    batch = ImageBatch(images, requests)
    # Those that compare with earlier images would compare one example with another.
    comparing = [check for check in checks if hasattr(check, "add")]
    results = run_checks([check for check in checks if check not in comparing], batch)
    found = {}
    for place, (index, result) in enumerate(zip(indexes, results, strict=True)):
        (alone,) = run_checks(comparing, batch.one(place))
        error = "; ".join(filter(None, (result.error, alone.error))) or None
        found[index] = Measured(files[index], (*result.scores, *alone.scores), error)
    return found


def _decoded(file: Path) -> RgbImage | str:
    try:
        return decode_limited(file)
    except (ImageRefused, OSError) as error:
        return str(error)
