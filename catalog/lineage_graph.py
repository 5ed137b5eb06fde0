"""A lineage as a picture: DOT text for Graphviz, and SVG that needs no program.

A part of catalog/lineage.py's results; what stands in them comes from briefs and files.
"""

from __future__ import annotations

from collections import defaultdict
from xml.etree.ElementTree import Element

from catalog.lineage import Lineage, Node
from catalog.svg import canvas, element, fitted, text, written

COLOURS = {
    "image": "#1565c0",
    "picture": "#6a1b9a",
    "step": "#00838f",
    "model": "#2e7d32",
    "control": "#2e7d32",
    "adapter": "#558b2f",
    "tool": "#558b2f",
    "training picture": "#8e24aa",
    "policy": "#ef6c00",
    "review": "#ad1457",
    "pack": "#4e342e",
}
_OTHER = "#616161"
DRAWN = 150
"""Nodes in a picture: beyond that nobody sees anything. Tables and DOT have them all."""
_WIDTH, _HEIGHT, _ACROSS, _DOWN, _MARGIN = 190, 40, 80, 14, 20


def dot(lineage: Lineage) -> str:
    """The graph in Graphviz's language (graphviz.org/doc/info/lang.html, read 2026-11)."""
    lines = ["digraph lineage {", "  rankdir=LR;", '  node [shape=box, fontname="sans-serif"];']
    for node in lineage.nodes:
        label = "\\n".join(_escaped(line) for line in (node.name, node.kind, node.detail) if line)
        colour = COLOURS.get(node.kind, _OTHER)
        lines.append(f'  "{_escaped(node.key)}" [label="{label}", color="{colour}"];')
    for edge in lineage.edges:
        ends = f'"{_escaped(edge.source)}" -> "{_escaped(edge.target)}"'
        lines.append(f'  {ends} [label="{_escaped(edge.relation)}"];')
    return "\n".join([*lines, "}", ""])


def svg(lineage: Lineage) -> str:
    """The graph as one SVG element: generations from left to right, the subject framed.

    Each generation's nodes stand near those that they belong to (barycentre ordering of Sugiyama,
    Tagawa, Toda, "Methods for Visual Understanding of Hierarchical System Structures", 1981).
    """
    nodes = sorted(lineage.nodes, key=lambda node: abs(node.depth))[:DRAWN]
    places = _places(nodes, lineage)
    columns = sorted({node.depth for node in nodes})
    across = {depth: _MARGIN + k * (_WIDTH + _ACROSS) for k, depth in enumerate(columns)}
    rows = max(places.values(), default=0) + 1
    width = 2 * _MARGIN + len(columns) * (_WIDTH + _ACROSS) - _ACROSS
    height = 2 * _MARGIN + rows * (_HEIGHT + _DOWN) + 14
    drawing = canvas(max(width, _WIDTH), height, f"Lineage of {lineage.subject}")
    at = {
        node.key: (across[node.depth], _MARGIN + places[node.key] * (_HEIGHT + _DOWN))
        for node in nodes
    }
    for edge in lineage.edges:
        if edge.source in at and edge.target in at:
            drawing.append(_line(at[edge.source], at[edge.target], edge.relation))
    for node in nodes:
        drawing.append(_box(node, *at[node.key]))
    if left := len(lineage.nodes) - len(nodes):
        more = f"… and {left} more, not drawn: the table has them"
        drawing.append(text(more, _MARGIN, height - 8, size=11, fill="#616161"))
    return written(drawing)


def _places(nodes: list[Node], lineage: Lineage) -> dict[str, int]:
    """Each node's row in its column, by the mean row of the neighbours placed before it."""
    beside = defaultdict(list)
    for edge in lineage.edges:
        beside[edge.source].append(edge.target)
        beside[edge.target].append(edge.source)
    columns = defaultdict(list)
    for node in nodes:
        columns[node.depth].append(node)
    places: dict[str, int] = {}

    def mean_place(node: Node) -> tuple[float, str, str]:
        near = [places[key] for key in beside[node.key] if key in places]
        return (sum(near) / len(near) if near else 0.0, node.kind, node.name)

    for depth in sorted(columns, key=abs):
        ordered = sorted(columns[depth], key=mean_place)
        places.update({node.key: row for row, node in enumerate(ordered)})
    return places


def _line(source: tuple[int, int], target: tuple[int, int], relation: str) -> Element:
    x1, y1 = source[0] + _WIDTH, source[1] + _HEIGHT / 2
    x2, y2 = target[0], target[1] + _HEIGHT / 2
    bend = max(_ACROSS / 2, abs(x2 - x1) / 2)
    path = f"M{x1:g},{y1:g} C{x1 + bend:g},{y1:g} {x2 - bend:g},{y2:g} {x2:g},{y2:g}"
    line = element("path", d=path, fill="none", stroke="#9e9e9e")
    line.append(element("title", content=relation))
    return line


def _box(node: Node, x: int, y: int) -> Element:
    colour = COLOURS.get(node.kind, _OTHER)
    group = element("g")
    group.append(element("title", content=f"{node.kind} {node.name}\n{node.detail}\n{node.key}"))
    thick = 3 if node.depth == 0 else 1
    group.append(
        element("rect", x=x, y=y, width=_WIDTH, height=_HEIGHT, rx=5, fill="#ffffff",
                stroke=colour, stroke_width=thick)
    )  # fmt: skip
    group.append(text(fitted(node.name, _WIDTH - 16, 12), x + 8, y + 16, size=12, fill="#212121"))
    below = f"{node.kind}{': ' if node.detail else ''}{node.detail}"
    group.append(text(fitted(below, _WIDTH - 16, 10), x + 8, y + 31, size=10, fill=colour))
    return group


def _escaped(value: str) -> str:
    plain = "".join(sign if sign.isprintable() else " " for sign in value)
    return plain.replace("\\", "\\\\").replace('"', '\\"')
