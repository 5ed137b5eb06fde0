"""How results look: tables and colours on a terminal, JSON for scripts. Errors go to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

_ACTING = {
    code: "\ufffd"
    for first, last in ((0, 8), (11, 31), (127, 159), (0x202A, 0x202E), (0x2066, 0x2069))
    for code in range(first, last + 1)
}
"""What a terminal obeys instead of showing: control characters but tab and line feed, and those
that turn the direction of writing (Unicode 16, 23.2)."""


class _Plain(Console):
    """A console on which texts show and never act: many come from strangers' files."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        for each in super().render(renderable, options):
            yield each if each.control else Segment(each.text.translate(_ACTING), each.style)


# No markup: what is printed comes from briefs and files, and may hold brackets.
out = _Plain(soft_wrap=True, highlight=False, markup=False)
err = _Plain(stderr=True, soft_wrap=True, highlight=False, markup=False)

COLOURS = {
    "pass": "green",
    "review": "yellow",
    "block": "red",
    "failed": "red",
    "Trusted": "green",
    "Valid": "yellow",
    "Invalid": "red",
    "approve": "green",
    "reject": "red",
}


def print_json(value: Any) -> None:
    """One JSON document on stdout, dates and paths as text."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def print_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Rows as a table; long cells fold, verdict words are coloured."""
    rows = list(rows)
    if not rows:
        out.print("no rows", style="dim")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    names = list(columns or rows[0])
    for name in names:
        numeric = all(isinstance(row[name], int | float | None) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell(row[name]) for name in names))
    out.print(table)


def cell(value: Any) -> Text:
    """One value as text: numbers short, verdict words in their colour."""
    if value is None:
        return Text("–", style="dim")
    if isinstance(value, float):
        return Text(f"{value:.4g}")
    if isinstance(value, dict | list):
        return Text(json.dumps(value, ensure_ascii=False, default=str))
    text = str(value).replace("\n", " ")
    return Text(text, style=COLOURS.get(text, ""))


def words(*parts: str | tuple[str, str]) -> Text:
    """One line of plain and styled parts: `words("verdict ", ("pass", "green"))`."""
    found = Text.assemble(*parts)
    # A name with a line break must not look like the next line of a report.
    found.plain = found.plain.replace("\n", " ")
    return found


def duration(seconds: float) -> str:
    """Seconds as people say them: `40 s`, `3 min`, `2 h 10 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def print_notices(notices: Iterable[str]) -> None:
    """What people must know of the models, on stderr."""
    for notice in notices:
        err.print(f"Note: {notice}", style="yellow")
