"""What decides an adapter's weights, checked before anything is loaded, and its random draws.

Every draw comes from a generator of its own, seeded by recipe, purpose and number: a step draws
the same whether or not the training was interrupted before it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import Fault, InputError
from pipeline.request import canonical_json

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_WARM, _FLOOR = 10, 0.1


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights besides the machine: equal recipes go on from each other.

    `captions` and `pictures` (SHA-256) are in the samples' order; sizes are pixels.
    """

    base: str
    base_revision: str
    rank: int
    steps: int
    seed: int
    rate: float
    batch_size: int
    width: int
    height: int
    captions: tuple[str, ...]
    pictures: tuple[str, ...]
    prompts: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON of everything above."""
        return hashlib.sha256(canonical_json(self.plain())).hexdigest()

    def plain(self) -> dict[str, Any]:
        """All of it as JSON holds it."""
        plain: dict[str, Any] = json.loads(json.dumps(self.__dict__))
        return plain


def check_arguments(name: str, recipe: Recipe, sample_every: int | None, keep_every: int) -> None:
    """Raise InputError with every argument that is out of range."""
    faults = []
    if not _NAME.fullmatch(name) or name.endswith(".training"):
        faults.append(Fault(f"{name!r} is no name", "name", "letters, digits, . _ -"))
    whole = {"sample_every": sample_every or 1, "keep_every": keep_every}
    for what, value in {
        "rank": recipe.rank,
        "steps": recipe.steps,
        "batch_size": recipe.batch_size,
        **whole,
    }.items():
        if value < 1:
            faults.append(Fault(f"{value} is too small", what, "at least 1"))
    if not 0 <= recipe.seed < 2**63:
        faults.append(Fault(f"{recipe.seed} is no seed", "seed", "from 0 to 2^63 - 1"))
    if not 0 < recipe.rate < 1:
        faults.append(Fault(f"{recipe.rate} is no learning rate", "rate", "say 0.0005"))
    if min(recipe.width, recipe.height) < 8 or recipe.width % 8 or recipe.height % 8:
        size = f"{recipe.width}×{recipe.height}"
        faults.append(Fault(f"{size} is no size", "resolution", "a multiple of 8 pixels"))
    if not recipe.pictures:
        faults.append(Fault("no samples", "samples", "give at least one picture"))
    if faults:
        raise InputError("train lora", faults)


def mixed(seed: int, purpose: str, number: int) -> int:
    """A seed of its own for each purpose and number; below 2^63."""
    digest = hashlib.sha256(f"{seed} {purpose} {number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def drawn(recipe: Recipe, position: int) -> int:
    """The sample at a position of the endless sequence of shuffled rounds."""
    count = len(recipe.pictures)
    order = np.random.default_rng(mixed(recipe.seed, "round", position // count))
    return int(order.permutation(count)[position % count])


def schedule(number: int, steps: int) -> float:
    """Share of the learning rate: a short rise, then a cosine down to a tenth."""
    warm = min(_WARM, max(1, steps // 10))
    if number < warm:
        return (number + 1) / warm
    part = (number - warm) / max(1, steps - warm)
    return _FLOOR + (1 - _FLOOR) * 0.5 * (1 + float(np.cos(np.pi * part)))
