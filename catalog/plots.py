"""Plots as SVG text: columns over time, bars, and distributions with their bounds.

For pages that open offline, without a plotting library: the light install has none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from catalog.svg import canvas, element, fitted, text, written

COLOURS = {
    "pass": "#2e7d32",
    "approve": "#2e7d32",
    "review": "#ef8f00",
    "block": "#c62828",
    "reject": "#c62828",
    "failed": "#757575",
}
"""Of outcomes and decisions, as on contact sheets."""
_PLAIN = "#1565c0"
_GRID, _INK = "#e0e0e0", "#424242"
_WIDTH, _LEFT, _TOP = 760.0, 52.0, 26.0
_BAR, _LABEL = 20.0, 220.0


@dataclass(frozen=True)
class Marker:
    """A bound in a distribution: where, what it does (`review`, `block`), and what it says."""

    value: float
    outcome: str
    label: str


def columns(title: str, labels: Sequence[str], series: Mapping[str, Sequence[float]]) -> str:
    """Stacked columns, one a label, in the order of `series`. As many values a series as labels."""
    height, floor = 240.0, 240.0 - 34
    drawing = canvas(_WIDTH, height, title)
    drawing.append(text(title, 0, 14, size=13, fill="#212121"))
    _legend(drawing, series)
    totals = [sum(values) for values in zip(*series.values(), strict=True)]
    top = _nice(max(totals, default=0) or 1)
    _grid(drawing, top, floor)
    step = (_WIDTH - _LEFT) / max(len(labels), 1)
    every = math.ceil(len(labels) / 12)
    for place, label in enumerate(labels):
        x, below = _LEFT + place * step, floor
        for name, values in series.items():
            tall = (floor - _TOP) * values[place] / top
            below -= tall
            if tall:
                bar = element("rect", x=x + step * 0.1, y=below, width=step * 0.8, height=tall,
                              fill=COLOURS.get(name, _PLAIN))  # fmt: skip
                bar.append(element("title", f"{label}: {values[place]:,.0f} {name}"))
                drawing.append(bar)
        if place % every == 0:
            drawing.append(text(label, x + step / 2, height - 16, size=10, anchor="middle"))
    return written(drawing)


def bars(title: str, labels: Sequence[str], series: Mapping[str, Sequence[float]]) -> str:
    """Stacked horizontal bars, one a label, with the label before and the total behind each."""
    height = _TOP + 8 + len(labels) * _BAR
    drawing = canvas(_WIDTH, height, title)
    drawing.append(text(title, 0, 14, size=13, fill="#212121"))
    _legend(drawing, series)
    totals = [sum(values) for values in zip(*series.values(), strict=True)]
    most = max(totals, default=0) or 1
    room = _WIDTH - _LABEL - 70
    for place, label in enumerate(labels):
        x, y = _LABEL, _TOP + 4 + place * _BAR
        name = text(fitted(label, _LABEL - 12, 11), _LABEL - 8, y + 13, anchor="end")
        name.append(element("title", label))
        drawing.append(name)
        for kind, values in series.items():
            wide = room * values[place] / most
            bar = element("rect", x=x, y=y + 2, width=wide, height=_BAR - 6,
                          fill=COLOURS.get(kind, _PLAIN))  # fmt: skip
            bar.append(element("title", f"{label}: {values[place]:,.0f} {kind}"))
            drawing.append(bar)
            x += wide
        drawing.append(text(f"{totals[place]:,.0f}", x + 6, y + 13, size=10))
    return written(drawing)


def distribution(
    title: str, counts: Sequence[int], lowest: float, highest: float,
    markers: Sequence[Marker] = (),
) -> str:  # fmt: skip
    """A histogram of equal bins between `lowest` and `highest`; bounds are dashed lines.

    The axis reaches to bounds that lie outside the values.
    """
    height, floor = 170.0, 170.0 - 44
    drawing = canvas(_WIDTH, height, title)
    drawing.append(text(title, 0, 14, size=13, fill="#212121"))
    ends = [lowest, highest, *(marker.value for marker in markers)]
    low, high = min(ends), max(ends)
    if low == high:
        low, high = low - 0.5, high + 0.5
    top = _nice(max(counts, default=0) or 1)
    _grid(drawing, top, floor)

    def across(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT) * (value - low) / (high - low)

    # All values alike make one bin without width: it is drawn as a line's breadth.
    wide = (highest - lowest) / max(len(counts), 1)
    for place, count in enumerate(counts):
        x1, x2 = across(lowest + place * wide), across(lowest + (place + 1) * wide)
        tall = (floor - _TOP) * count / top
        bar = element("rect", x=x1, y=floor - tall, width=max(x2 - x1 - 1, 2), height=tall,
                      fill=_PLAIN)  # fmt: skip
        start = lowest + place * wide
        bar.append(element("title", f"{start:.4g} to {start + wide:.4g}: {count:,}"))
        drawing.append(bar)
    for place in range(6):
        value = low + (high - low) * place / 5
        anchor = "start" if place == 0 else "end" if place == 5 else "middle"
        at = across(value)
        drawing.append(text(f"{value:.3g}", at, floor + 14, size=10, anchor=anchor))
    for place, marker in enumerate(markers):
        colour, x = COLOURS.get(marker.outcome, _INK), across(marker.value)
        drawing.append(
            element("line", x1=x, x2=x, y1=_TOP, y2=floor, stroke=colour, stroke_width=2,
                    stroke_dasharray="5 3")
        )  # fmt: skip
        anchor = "end" if x > _WIDTH * 0.7 else "start"
        shift = -5 if anchor == "end" else 5
        y = _TOP + 10 + 12 * (place % 4)
        drawing.append(text(marker.label, x + shift, y, size=10, fill=colour, anchor=anchor))
    return written(drawing)


def _legend(drawing: Element, series: Mapping[str, Sequence[float]]) -> None:
    if len(series) < 2:
        return
    x = _WIDTH
    for name in reversed(list(series)):
        x -= 18 + 7 * len(name)
        drawing.append(element("rect", x=x, y=5, width=9, height=9, fill=COLOURS.get(name, _PLAIN)))
        drawing.append(text(name, x + 12, 13, size=11))


def _grid(drawing: Element, top: float, floor: float) -> None:
    for part in range(5):
        y = floor - (floor - _TOP) * part / 4
        drawing.append(element("line", x1=_LEFT, x2=_WIDTH, y1=y, y2=y, stroke=_GRID))
        drawing.append(text(f"{top * part / 4:,.4g}", _LEFT - 6, y + 4, size=10, anchor="end"))


def _nice(most: float) -> float:
    """The least of 4, 8, 20, 40, 80 … that is no less: its quarters are round numbers."""
    scale = 10.0 ** math.floor(math.log10(most))
    return next(each * scale for each in (1, 2, 4, 8, 10, 20) if each * scale >= most)
