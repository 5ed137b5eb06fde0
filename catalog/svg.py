"""Small SVG drawings, built as trees so that no text in them can become markup.

What plots and graphs share; the drawings stand inside HTML pages that open offline.
"""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, tostring

_ALLOWED = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold (section 2.2, "Characters")."""
_NARROW, _MEAN = "iljtfr.,:;'|!()[] ", 0.58


def canvas(width: float, height: float, title: str) -> Element:
    """An empty drawing of `width` × `height` px that shrinks with its page; `title` is read out."""
    drawing = element(
        "svg",
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        font_family="system-ui, sans-serif",
    )
    drawing.append(element("title", content=title))
    return drawing


def element(name: str, content: str = "", **attributes: str | float) -> Element:
    """An element with text; `_` in an attribute's name stands for `-`."""
    made = Element(name)
    for key, value in attributes.items():
        made.set(key.replace("_", "-"), _clean(value if isinstance(value, str) else f"{value:g}"))
    if content:
        made.text = _clean(content)
    return made


def text(
    content: str, x: float, y: float, *, size: float = 11, fill: str = "#424242",
    anchor: str = "start",
) -> Element:  # fmt: skip
    """A line of text whose baseline begins (`start`), is centred or ends (`end`) at `x`, `y`."""
    return element("text", content, x=x, y=y, font_size=size, fill=fill, text_anchor=anchor)


def fitted(content: str, width: float, size: float) -> str:
    """The text, cut with an ellipsis to about `width` px; there are no fonts here to measure by."""
    line = " ".join(content.split())
    used = 0.0
    for place, sign in enumerate(line):
        used += size * (0.32 if sign in _NARROW else 1.0 if ord(sign) > 0x2E80 else _MEAN)
        if used > width:
            return line[: max(place - 1, 0)] + "…"
    return line


def written(drawing: Element) -> str:
    """The drawing as text that stands in HTML and in a file of its own."""
    return tostring(drawing, encoding="unicode")


def _clean(value: str) -> str:
    return _ALLOWED.sub("�", value)
