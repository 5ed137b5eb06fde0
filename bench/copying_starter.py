"""The starter world as a set of copies: held-out renders, plain and through the fixed transforms.

A render of a protected subject copies all references of that subject: it is the work, not the
picture, that is protected.
"""

from __future__ import annotations

from functools import partial
from random import Random

import numpy as np

from bench.copying_sets import CopySet, Picture, Query
from pipeline.checks.transforms import TRANSFORMS
from pipeline.images import RgbImage, decode_limited

COUNTS = 200, 600
"""Pictures: of protected subjects, of others."""
_SEED = 4


def starter() -> CopySet:
    """200 renders of protected subjects and 600 others, each plain and by seven transforms.

    Makes the picture sets first where the cache lacks them (some minutes).
    """
    from starter import library, pictures
    from starter.library import HELD_OUT
    from starter.paths import REFERENCES
    from starter.vocabulary import PROTECTED

    pictures.build()
    held, source = pictures.load(HELD_OUT), library.load(HELD_OUT)
    subjects = [scene.subject for scene in held.scenes]
    mine = [i for i, subject in enumerate(subjects) if subject in PROTECTED][: COUNTS[0]]
    rest = [i for i, subject in enumerate(subjects) if subject not in PROTECTED]
    works = sorted(REFERENCES.glob("*.png"))
    copied = {
        name: frozenset(i for i, work in enumerate(works) if work.stem.startswith(f"{name}-"))
        for name in PROTECTED
    }
    rng = Random(_SEED)
    queries = []
    for kind in ("plain", *TRANSFORMS):
        for index in mine + rest[: COUNTS[1]]:
            scene = held.scenes[index]
            outline = source.buffers([scene]).alpha[0]
            picture = np.dstack(
                [held.rgb[index].permute(1, 2, 0).numpy(), (outline * 255).round().byte().numpy()]
            )
            ground = held.rgb[rng.choice(rest)].permute(1, 2, 0).numpy()
            name = f"{scene.subject} {scene.view} {scene.seed}"
            load = partial(_made, kind, picture, rng.randrange(2**31), ground)
            queries.append(
                Query(Picture(name, load), kind, name, copied.get(scene.subject, frozenset()))
            )
    return CopySet([Picture(work.name, partial(decode_limited, work)) for work in works], queries)


def _made(kind: str, picture: RgbImage, seed: int, ground: RgbImage) -> RgbImage:
    if kind == "plain":
        return np.ascontiguousarray(picture[..., :3])
    return TRANSFORMS[kind](picture, seed, ground)
