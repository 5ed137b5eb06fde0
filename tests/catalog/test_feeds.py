from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.channel import Channel
from catalog.feeds import Listed, feed_rows, write_feed
from catalog.fitting import image_context
from pipeline.errors import InputError


def channel(columns: list[dict[str, Any]], **feed: Any) -> Channel:
    told = {"file": "feed.csv", "format": "csv", "columns": columns, **feed}
    source = {"page": "https://a.example/rules", "checked": "2026-11-01"}
    return Channel.model_validate(
        {"channel": "own", "title": "Own", "sources": {"a": source}, "feed": told}
    )


def listed(sku: str, index: int, position: int, **item: Any) -> Listed:
    row = dict.fromkeys(("campaign", "client", "model", "mime"), "") | {
        "sku": sku,
        "index": index,
        "sha256": "ab" * 32,
        "width": 10,
        "height": 10,
    }
    context = image_context(row, position, item, {"base_url": "https://cdn.example/"})
    return Listed(f"{sku}-{index}.png", context)


SHOTS = [listed("MUG", 0, 1), listed("MUG", 2, 2), listed("LAMP", 0, 1)]


def read(data: bytes, delimiter: str = ",") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline=""), delimiter=delimiter))


def test_a_row_an_image_counts_the_images_that_are_in() -> None:
    own = channel(
        [{"name": "at", "value": "{{ position }}"}, {"name": "url", "value": "{{ url }}"}]
    )
    # The first image of MUG was left out: the second one moves up.
    rows = read(write_feed(own, feed_rows(own, SHOTS[1:]))["feed.csv"])
    assert rows == [
        {"at": "1", "url": "https://cdn.example/MUG-2.png"},
        {"at": "1", "url": "https://cdn.example/LAMP-0.png"},
    ]


def test_a_row_an_item_lists_its_images_and_sets_lifestyle_apart() -> None:
    own = channel(
        [
            {"name": "id", "value": "{{ sku }}"},
            {"name": "image_link", "value": "{{ images[0].url }}", "links": True},
            {
                "name": "more",
                "value": "{{ images[1:] | map(attribute='url') | join(',') }}",
                "list_of": 10,
                "links": True,
            },
            {"name": "lifestyle", "value": "{{ lifestyle.url }}", "links": True},
        ],
        row="item",
    )
    shots = [listed("MUG", n, n + 1, lifestyle_index=1) for n in range(4)]
    rows = feed_rows(own, shots)
    (cells,) = read(write_feed(own, rows)["feed.csv"])
    assert cells["image_link"].endswith("MUG-0.png")
    more = [url.rpartition("/")[2] for url in cells["more"].split(",")]
    assert more == ["MUG-2.png", "MUG-3.png"]
    assert cells["lifestyle"].endswith("MUG-1.png")


@pytest.mark.parametrize(
    ("column", "cell", "told"),
    [
        ({"required": True}, "", "it is required"),
        ({"required": True}, "x", ""),
        ({"at_most": 3}, "four", "4 characters, at most 3"),
        ({"at_most": 4}, "four", ""),
        ({"without": ",;"}, "a;b", "holding ';'"),
        ({"list_of": 2}, "a, b, c", "3 entries, at most 2"),
        ({"list_of": 2}, "a, b,", ""),
        ({}, "=1+1", "a spreadsheet would run that"),
        ({}, "@SUM(A1)", "a spreadsheet would run that"),
        ({}, "-cmd", "a spreadsheet would run that"),
        ({}, "-19.00 EUR", ""),
        ({}, "+4", ""),
    ],
)
def test_a_cell_is_held_to_its_columns_limits(column: dict[str, Any], cell: str, told: str) -> None:
    own = channel([{"name": "text", "value": "{{ item.text }}", "source": "a", **column}])
    (row,) = feed_rows(own, [listed("MUG", 0, 1, text=cell)])
    found = "; ".join(str(each) for each in row.broken)
    assert bool(found) == bool(told) and told in found
    if found:
        assert "https://a.example/rules, read 2026-11-01" in found


@pytest.mark.parametrize(
    ("bounds", "files"),
    [
        ({}, {"feed.csv": 5}),
        ({"rows": {"at_most": 5, "source": "a"}}, {"feed.csv": 5}),
        (
            {"rows": {"at_most": 2, "source": "a"}},
            {"feed-1.csv": 2, "feed-2.csv": 2, "feed-3.csv": 1},
        ),
        ({"bytes": {"at_most": 40, "source": "a"}}, {"feed-1.csv": 3, "feed-2.csv": 2}),
    ],
)
def test_a_feed_too_long_for_one_file_becomes_several(
    bounds: dict[str, Any], files: dict[str, int]
) -> None:
    own = channel([{"name": "text", "value": "{{ sku }}"}], **bounds)
    rows = feed_rows(own, [listed(f"MUG-{n:04d}", 0, 1) for n in range(5)])
    written = write_feed(own, rows)
    assert {name: len(read(data)) for name, data in written.items()} == files
    if "bytes" in bounds:
        assert all(len(data) <= 40 for data in written.values())


@pytest.mark.parametrize(("length", "fits"), [(15, True), (16, False)])
def test_a_row_larger_than_a_file_breaks_the_rule(length: int, fits: bool) -> None:
    # Head and row with their line ends: 3 + 15 + 2 bytes.
    own = channel([{"name": "t", "value": "{{ item.t }}"}], bytes={"at_most": 20, "source": "a"})
    (row,) = feed_rows(own, [listed("MUG", 0, 1, t="x" * length)])
    assert (not row.broken) == fits
    if not fits:
        assert "the feed's row is 21 bytes with the head, at most 20" in str(row.broken[0])


@given(st.text(), st.sampled_from(["csv", "tsv"]))
def test_any_text_comes_back_as_one_line(text: str, kind: str) -> None:
    own = channel([{"name": "text", "value": "{{ item.text }}"}], format=kind)
    try:
        rows = feed_rows(own, [listed("MUG", 0, 1, text=text)])
    except InputError:
        return  # control characters are no text
    data = write_feed(own, rows)["feed.csv"]
    (row,) = read(data, "\t" if kind == "tsv" else ",")
    assert row["text"] == " ".join(text.split())
    assert data.count(b"\r\n") == 2
