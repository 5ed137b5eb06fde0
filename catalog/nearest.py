"""Fingerprint search: PDQ hashes of a picture and its parts against the index, in one scan.

A crop shows the middle of our image somewhere in it, so its parts are compared with our middles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.lake import Lake
from pipeline.checks.pdq import RELIABLE_QUALITY
from pipeline.images import RgbImage
from pipeline.soft_binding.fingerprint import MIDDLE, Window, pdq_of

FARTHEST = 40
"""Bits of 256 up to which a hash is worth a look at the thumbnail; PDQ's own bound is 31."""
_STEADY = 14
"""Bits of a hash's last 64 up to which the rest is compared: 40 of 256 spread evenly are 10."""
_WHOLE: Window = (0.0, 0.0, 1.0, 1.0)
_KEPT = ((1.0, 0.0), (0.95, 0.0), (0.95, 0.05), (0.9, 0.0), (0.9, 0.05), (0.9, 0.1))
"""What may be left of a side, and where it begins."""


@dataclass(frozen=True)
class Candidate:
    """A row of the index, how many bits its hash is off, and the part of our image seen.

    `mirrored`: the picture shows it left to right.
    """

    row: Mapping[str, Any]
    distance: int
    window: Window
    mirrored: bool = False


def nearest(lake: Lake, pixels: RgbImage, limit: int) -> list[Candidate]:
    """Records whose hash is within 40 bits of the picture's or of one of its parts, best first.

    First as a whole, also mirrored, then as a crop by up to a tenth a side. Pictures of too few
    edges have none.
    """
    hashes, quality = pdq_of(pixels, (_WHOLE,))
    if quality[0] <= RELIABLE_QUALITY:
        return []
    mirrored, _ = pdq_of(pixels[:, ::-1], (_WHOLE,))
    both = np.concatenate([hashes, mirrored])
    found = _scan(lake, "pdq", both, [(_WHOLE, False), (_WHOLE, True)], limit)
    if found and found[0].distance <= FARTHEST // 2:
        return found
    seen, parts = [], []
    for (wide, left), (high, top) in product(_KEPT, _KEPT):
        seen.append(((left, top, left + wide, top + high), False))
        parts.append(
            (
                (MIDDLE[0] - left) / wide,
                (MIDDLE[1] - top) / high,
                (MIDDLE[2] - left) / wide,
                (MIDDLE[3] - top) / high,
            )
        )
    middles, quality = pdq_of(pixels, tuple(parts))
    clear = np.flatnonzero(quality > RELIABLE_QUALITY)
    cropped = _scan(lake, "middle", middles[clear], [seen[index] for index in clear], limit)
    best = {each.row["label"]: each for each in [*cropped, *found]}
    for each in found:
        other = best[each.row["label"]]
        best[each.row["label"]] = min(each, other, key=lambda one: one.distance)
    return sorted(best.values(), key=lambda each: each.distance)[:limit]


def nearest_hash(lake: Lake, bits: NDArray[np.uint64], limit: int) -> list[Candidate]:
    """Records whose whole picture's hash is within 40 bits of one hash, uint64 [4]."""
    return _scan(lake, "pdq", bits[None], [(_WHOLE, False)], limit)


def _scan(
    lake: Lake,
    part: str,
    hashes: NDArray[np.uint64],
    views: Sequence[tuple[Window, bool]],
    limit: int,
) -> list[Candidate]:
    """Rows of which one hash is near: those near in the steadiest quarter first, then in all.

    `views` are what the hashes are of: a part of our image, and whether mirrored.
    """
    if not len(hashes):
        return []
    names = [f"{part}_{word}" for word in range(4)]
    index = lake.read(f"SELECT {', '.join(names)} FROM fingerprints WHERE {names[3]} IS NOT NULL")
    words = [index.column(name).to_numpy() for name in names]
    # The last word holds the lowest frequencies, which edits change least.
    close = np.zeros(index.num_rows, dtype=bool)
    for each in hashes:
        close |= np.bitwise_count(words[3] ^ each[3]) <= _STEADY
    ours = np.stack([word[close] for word in words], axis=1)
    apart = np.stack([np.bitwise_count(ours ^ each).sum(axis=1) for each in hashes], axis=1)
    # Texts are only read of the best: among products of one kind, thousands are a little alike.
    best = apart.min(axis=1).argsort(kind="stable")[:limit]
    near = {tuple(ours[row].tolist()): apart[row] for row in best if apart[row].min() <= FARTHEST}
    if not near:
        return []
    places = ", ".join(["?::UBIGINT"] * len(near))
    rows = lake.rows(
        f"SELECT DISTINCT request_id, asset_sha256, label, recorded_at, {', '.join(names)} "
        f"FROM fingerprints WHERE {names[3]} IN ({places}) ORDER BY label",
        [key[3] for key in near],
    )
    found = []
    for row in rows:
        key = tuple(row.pop(name) for name in names)
        if key in near:
            place = int(near[key].argmin())
            window, flipped = views[place]
            found.append(Candidate(row, int(near[key][place]), window, flipped))
    return sorted(found, key=lambda each: (each.distance, each.row["label"]))[:limit]
