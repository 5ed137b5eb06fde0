"""Lineage both ways over images made from images, adapters and photos."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from catalog_samples import begin, produced_of, request_of, sha256
from test_made_from import CHAINED, INPAINTED, PHOTO, PLAIN, TRAINED_ON, VARIED, used, varied

from catalog.isolated import Limits, isolated, select
from catalog.lake import writing
from catalog.lineage import Direction, Lineage, lineage, lineage_by
from catalog.lineage_graph import DRAWN, dot, svg
from catalog.review import record_review
from catalog.write import commit_batch, insert_row, register_model, register_training_images
from pipeline.errors import InputError
from pipeline.records import Review

Find = Callable[..., Lineage]
HOSTILE = '"];</title><script>alert(1)</script>\\\x00\x1b]0;\u202e{'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("lineage") / "catalog"
    assert PLAIN.asset and VARIED.asset
    own = {"file": "own.png", "sha256": PLAIN.asset.sha256, "rights_holder": "us", "licence": "own"}
    hostile = produced_of(13, "review", sku=HOSTILE)
    hostile = replace(hostile, used=(used(0, "image", "file", HOSTILE, sha256("hostile")),))
    with writing(made) as lake:
        begin(lake)
        register_model(lake, name="brand", revision="a1", licence="CC-BY-4.0", source="folder")
        register_training_images(lake, "brand", "a1", [*TRAINED_ON, own])
        third = varied(11, VARIED)
        batch = [INPAINTED, VARIED, CHAINED, PLAIN, third, hostile]
        commit_batch(lake, "run-1", "b1", batch)
        review = Review("ada", "reject", HOSTILE, datetime.now(UTC))
        record_review(lake, hostile.request.request_id, review)
        pack = {"pack_id": "p1", "file": "spring.zip", "sha256": sha256("zip"), "terms_id": "web"}
        held = {
            "pack_id": "p1",
            "request_id": third.request.request_id,
            "asset_sha256": third.asset.sha256 if third.asset else None,
            "file": "a.png",
        }
        lake.transact(lambda connection: insert_row(connection, "packs", pack))
        lake.transact(lambda connection: insert_row(connection, "pack_assets", held))
    return made


@pytest.fixture(scope="module")
def find(folder: Path) -> Iterator[Find]:
    """Finds lineages as `lineage` does, on one connection for all tests."""
    with isolated(folder, Limits()) as connection:

        def read(sql: str, **parameters: Any) -> list[dict[str, Any]]:
            rows: list[dict[str, Any]] = select(
                connection, sql, parameters, Limits(), folder
            ).table.to_pylist()
            return rows

        yield lambda *asked, **more: lineage_by(read, *asked, **more)


def told(found: Lineage) -> set[tuple[str, str, int]]:
    return {(node.kind, node.name, node.depth) for node in found.nodes}


@pytest.mark.parametrize(
    ("name", "direction", "expected"),
    [
        # Through two images to the photo, the adapter and what trained it, an image of ours
        ("MUG-00011", "up", {
            ("image", "MUG-00002-0", -1), ("image", "MUG-00001-0", -2),
            ("picture", "photo.png", -3),
            ("adapter", "brand", -3), ("training picture", "one.png", -4),
            ("training picture", "own.png", -4), ("image", "MUG-00007-0", -5),
            ("control", "hole", -3), ("tool", "segmenter", -3), ("pack", "spring.zip", 1),
        }),
        ("MUG-00006", "up", {
            ("step", "step 1", -1), ("step", "step 2", -1), ("model", "large", -1),
            ("adapter", "word", -1), ("control", "depths", -1), ("policy", "retail 1", -1),
        }),
        ("photo.png", "down", {
            ("image", "MUG-00001-0", 1), ("image", "MUG-00002-0", 2), ("image", "MUG-00011-0", 3),
            ("pack", "spring.zip", 4),
        }),
        (PHOTO[:8], "down", {("image", "MUG-00001-0", 1)}),
        ("brand", "down", {("image", "MUG-00001-0", 1), ("image", "MUG-00011-0", 3)}),
        ("brand@a1", "up", {("training picture", "two.png", -1), ("image", "MUG-00007-0", -2)}),
        ("one.png", "down", {("adapter", "brand", 1), ("image", "MUG-00001-0", 2)}),
        ("large", "down", {("image", "MUG-00006-0", 1)}),
        ("dpt", "down", {("image", "MUG-00006-0", 1), ("image", "MUG-00001-0", 1)}),
        # An image trained an adapter that made an image
        ("MUG-00007", "down", {("adapter", "brand", 1), ("image", "MUG-00001-0", 2)}),
        ("spring.zip", "up", {("image", "MUG-00011-0", -1), ("picture", "photo.png", -4)}),
        ("MUG-00001-0", "down", {("image", "MUG-00002-0", 1), ("pack", "spring.zip", 3)}),
    ],
)  # fmt: skip
def test_both_ways_as_far_as_it_goes(
    find: Find, name: str, direction: Direction, expected: set[tuple[str, str, int]]
) -> None:
    found = find(name, [direction])
    assert expected <= told(found), told(found)
    assert not found.cut
    keys = {node.key for node in found.nodes}
    assert all({edge.source, edge.target} <= keys for edge in found.edges)
    side = -1 if direction == "up" else 1
    assert all(node.depth * side >= 0 or node.kind == "pack" for node in found.nodes)


def test_what_is_not_related_is_not_told(find: Find) -> None:
    names = {node.name for node in find("photo.png", ["down"]).nodes}
    assert names == {"photo.png", "MUG-00001-0", "MUG-00002-0", "MUG-00011-0", "spring.zip"}


def test_rows_name_the_neighbour_and_the_relation(find: Find) -> None:
    rows = find("MUG-00001", ["up"]).rows()
    relations = {(row["kind"], row["name"], row["relation"], row["of"]) for row in rows}
    assert ("picture", "photo.png", "image, step 0", "MUG-00001-0") in relations
    assert ("training picture", "two.png", "trained on", "brand") in relations
    assert ("policy", "retail 1", "judged: pass", "MUG-00001-0") in relations
    (photo,) = [row for row in rows if row["name"] == "photo.png"]
    assert photo["detail"].startswith("C2PA Trusted; training:")


@pytest.mark.parametrize(
    ("name", "told_so"),
    [
        ("nonsense", "knows nothing of that name"),
        ("pack:photo.png", "knows nothing"),
        ("abc", "knows nothing"),
        ("", "knows nothing"),
        ("' OR 1=1 --", "knows nothing"),
        ("%", "knows nothing"),
    ],
)
def test_what_is_unknown_is_refused(find: Find, name: str, told_so: str) -> None:
    with pytest.raises(InputError, match=told_so):
        find(name)


def test_a_name_of_several_kinds_asks_which(tmp_path: Path) -> None:
    one = produced_of(1, "pass", sku="brand")
    with writing(tmp_path / "catalog") as lake:
        begin(lake)
        register_training_images(lake, "brand", "a1", TRAINED_ON)
        commit_batch(lake, "run-1", "b1", [one])
    with pytest.raises(InputError, match=r"(?s)several kinds.*image:brand.*model:brand"):
        lineage(tmp_path / "catalog", "brand")
    assert told(lineage(tmp_path / "catalog", "model:brand", ["down"])) == {("adapter", "brand", 0)}


def test_a_large_lineage_is_cut_and_says_so(find: Find) -> None:
    found = find("starter/text-to-image", ["down"], most=3)
    assert found.cut and len(found.nodes) == 3


def test_dot_keeps_names_within_their_quotes(find: Find) -> None:
    text = dot(find(f"image:{HOSTILE}-0"))
    # Each line is a statement of strings: what stands outside of them is ours.
    outside = re.sub(r'"(\\.|[^"\\])*"', "", text)
    assert set(re.findall(r"[a-z]+", outside)) <= {
        "digraph", "lineage", "rankdir", "node", "shape", "box", "fontname", "label", "color",
    }  # fmt: skip
    assert text.isprintable() or set(re.findall(r"[^\x20-\U0010ffff]", text)) == {"\n"}


def test_svg_is_a_picture_whatever_things_are_called(find: Find) -> None:
    found = find(f"image:{HOSTILE}-0")
    text = svg(found)
    tree = ElementTree.fromstring(text)
    allowed = {"svg", "title", "path", "g", "rect", "text"}
    assert {element.tag.rpartition("}")[2] for element in tree.iter()} <= allowed
    assert all(not name.startswith("on") for element in tree.iter() for name in element.attrib)
    assert Tags.of(f"<body>{text}</body>") <= allowed | {"body"}
    assert "alert(1)" in "".join(tree.itertext())


class Tags(HTMLParser):
    """The tags that a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)

    @classmethod
    def of(cls, html: str) -> set[str]:
        parser = cls()
        parser.feed(html)
        return parser.seen


def test_boxes_do_not_lie_on_each_other(find: Find) -> None:
    tree = ElementTree.fromstring(svg(find("MUG-00011")))
    boxes = [
        (float(box.get("x", 0)), float(box.get("y", 0)))
        for box in tree.iter("{http://www.w3.org/2000/svg}rect")
    ]
    assert len(boxes) == len(set(boxes)) > 10
    width, height = float(tree.get("width", 0)), float(tree.get("height", 0))
    assert all(x + 190 <= width and y + 40 <= height for x, y in boxes)


def test_a_picture_of_many_says_how_many_are_not_drawn() -> None:
    from catalog.lineage import Edge, Node

    root = Node("model:m@1", "model", "m")
    nodes = [Node(f"image:{n}", "image", f"i{n}", depth=1) for n in range(DRAWN + 50)]
    edges = [Edge(root.key, node.key, "model") for node in nodes]
    found = Lineage("m", (root, *nodes), tuple(edges), True)
    assert "and 51 more, not drawn" in svg(found)
    assert dot(found).count("->") == DRAWN + 50


def test_an_image_without_kin_is_told_alone(tmp_path: Path) -> None:
    with writing(tmp_path / "catalog") as lake:
        begin(lake)
        commit_batch(lake, "run-1", "b1", [produced_of(3)])
    found = lineage(tmp_path / "catalog", request_of(3).request_id[:9])
    assert {node.kind for node in found.nodes} == {"image", "model", "policy"}
