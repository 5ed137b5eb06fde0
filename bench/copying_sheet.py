"""A contact sheet of what copy detection missed and what alarmed, each beside its reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from bench.copying_sets import CopySet, Picture

_SIDE, _PAIRS, _COLUMNS, _LABEL = 96, 40, 8, 14


def sheet(
    data: CopySet,
    nearest: NDArray[np.int64],
    missed: NDArray[np.bool_],
    alarmed: NDArray[np.bool_],
    path: Path,
) -> None:
    """Write a JPEG of up to 40 misses, then up to 40 alarms: the query and a reference.

    Beside a miss stands a reference that it copies, beside an alarm the nearest one (`nearest`).
    """
    pairs = []
    for name, chosen in (("missed", missed), ("alarm", alarmed)):
        # Evenly over the queries, so that every transform shows.
        rows = np.flatnonzero(chosen)
        for row in rows[np.linspace(0, len(rows) - 1, min(len(rows), _PAIRS)).astype(int)]:
            query = data.queries[row]
            other = min(query.copies) if name == "missed" else int(nearest[row])
            pairs.append((f"{name}: {query.kind}", query.picture, data.references[other]))
    lines = max(1, -(-len(pairs) // _COLUMNS))
    whole = Image.new("RGB", (_COLUMNS * (2 * _SIDE + 8), lines * (_SIDE + _LABEL)), "white")
    draw = ImageDraw.Draw(whole)
    for number, (label, *pictures) in enumerate(pairs):
        left, top = number % _COLUMNS * (2 * _SIDE + 8), number // _COLUMNS * (_SIDE + _LABEL)
        draw.text((left, top), label, fill="black")
        for offset, picture in enumerate(pictures):
            whole.paste(_small(picture), (left + offset * _SIDE, top + _LABEL))
    whole.save(path, quality=85)


def _small(picture: Picture) -> Image.Image:
    return Image.fromarray(picture.load()).resize((_SIDE, _SIDE))
