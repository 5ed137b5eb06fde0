"""Feeds: the tables that go with a channel's images, as TSV or CSV, held to the channel's limits.

Checked before an image is packed, written when it is known which images are in.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from urllib.parse import quote

from catalog.channel import Channel, Column, Feed, rendered
from catalog.fitting import Broken, denied

# A spreadsheet runs a cell that begins so as a formula (OWASP, CSV injection); numbers may.
_FORMULA = re.compile(r"^(=|@|[+-](?![\d.,]+( [A-Z]{3})?$))")


@dataclass(frozen=True)
class Listed:
    """One image in a feed: `context` holds the names that templates may use, `name` its file's."""

    name: str
    context: Mapping[str, Any]
    prompt: str = ""


@dataclass(frozen=True)
class FeedRow:
    """One row: its images, its cells by column, and the rules it breaks."""

    images: tuple[Listed, ...]
    cells: Mapping[str, str]
    broken: tuple[Broken, ...]


def feed_rows(channel: Channel, listed: Iterable[Listed]) -> list[FeedRow]:
    """The rows of the channel's feed for images in the order of items; none without a feed."""
    if channel.feed is None:
        return []
    found = []
    for _, group in groupby(listed, key=lambda each: each.context["sku"]):
        found += _item_rows(channel, channel.feed, list(group))
    return found


def write_feed(channel: Channel, rows: Sequence[FeedRow]) -> dict[str, bytes]:
    """The feed's files by name, UTF-8: one, or several where the channel bounds rows or bytes.

    `rows` are those that break no rule.
    """
    feed = channel.feed
    if feed is None:
        return {}
    head = _head(feed)
    most_rows = feed.rows.at_most if feed.rows else None
    most_bytes = feed.bytes.at_most if feed.bytes else None
    files: list[list[bytes]] = [[]]
    size = len(head)
    for row in rows:
        line = _line(feed, [row.cells[column.name] for column in feed.columns])
        full = (most_rows is not None and len(files[-1]) >= most_rows) or (
            most_bytes is not None and size + len(line) > most_bytes
        )
        if full:
            files.append([])
            size = len(head)
        files[-1].append(line)
        size += len(line)
    stem, _, suffix = feed.file.rpartition(".")
    names = [feed.file] if len(files) == 1 else [f"{stem}-{n}.{suffix}" for n in _from_1(files)]
    return {name: head + b"".join(lines) for name, lines in zip(names, files, strict=True)}


def _from_1(files: Sequence[Any]) -> range:
    return range(1, len(files) + 1)


def _item_rows(channel: Channel, feed: Feed, images: list[Listed]) -> list[FeedRow]:
    told = [
        {**each.context, "name": each.name, "url": _url(each)}
        # Files that are named for their places keep them.
        | ({} if channel.gives_places else {"position": place})
        for place, each in enumerate(images, start=1)
    ]
    if feed.row == "image":
        return [
            _row(channel, feed, (image,), context)
            for image, context in zip(images, told, strict=True)
        ]
    apart = str(told[0]["item"].get("lifestyle_index", ""))
    shown = [each for each in told if str(each["index"]) != apart]
    lifestyle = next((each for each in told if str(each["index"]) == apart), {})
    short = [{"name": each["name"], "url": each["url"]} for each in shown]
    context = {**(shown or told)[0], "images": short, "lifestyle": lifestyle}
    return [_row(channel, feed, tuple(images), context)]


def _row(
    channel: Channel, feed: Feed, images: tuple[Listed, ...], context: Mapping[str, Any]
) -> FeedRow:
    cells = {column.name: _clean(rendered(column.value, context)) for column in feed.columns}
    broken = [each for column in feed.columns for each in _held(channel, column, cells)]
    texts = [cells[column.name] for column in feed.columns if not column.links]
    broken += denied(channel, [*(image.prompt for image in images), *texts])
    broken += _too_long(channel, feed, cells)
    return FeedRow(images, cells, tuple(broken))


def _too_long(channel: Channel, feed: Feed, cells: Mapping[str, str]) -> Iterable[Broken]:
    """A row that no file of the feed can hold, however many there are."""
    if feed.bytes is None or feed.bytes.at_most is None:
        return
    size = len(_head(feed)) + len(_line(feed, [cells[column.name] for column in feed.columns]))
    if size > feed.bytes.at_most:
        yield Broken(
            "the feed's row",
            f"{size:,} bytes with the head",
            f"{feed.bytes.in_words()} are allowed",
            channel.cited(feed.bytes.source),
            "shorten its texts in the table that --items names",
        )


def _held(channel: Channel, column: Column, cells: Mapping[str, str]) -> Iterable[Broken]:
    cell, entries = cells[column.name], _entries(column, cells[column.name])
    source = channel.cited(column.source) if column.source else ""
    remedy = "put it right in the table that --items names"

    def broken(found: str, asked: str) -> Broken:
        return Broken(f"column {column.name}", found, asked, source, remedy)

    if column.required and not cell:
        yield broken("empty", "it is required")
    if column.at_most is not None and len(cell) > column.at_most:
        yield broken(f"{len(cell):,} characters", f"at most {column.at_most:,} are allowed")
    if column.list_of is not None and len(entries) > column.list_of:
        yield broken(f"{len(entries)} entries", f"at most {column.list_of} are allowed")
    if strange := sorted({each for each in cell if each in column.without}):
        yield broken(f"holding {' '.join(map(repr, strange))}", "that is not allowed")
    if _FORMULA.match(cell):
        yield broken(f"{cell[:20]!r}", "a spreadsheet would run that as a formula")


def _entries(column: Column, cell: str) -> list[str]:
    if column.list_of is None:
        return [cell]
    return [each.strip() for each in cell.split(column.separator) if each.strip()]


def _url(image: Listed) -> str:
    base = str(image.context.get("base_url", "")).rstrip("/")
    return f"{base}/{quote(image.name)}" if base else image.name


def _clean(text: str) -> str:
    # One line a row, also for readers that know no quotes.
    return re.sub(r"\s+", " ", text).strip()


def _head(feed: Feed) -> bytes:
    return _line(feed, [column.name for column in feed.columns])


def _line(feed: Feed, cells: Sequence[str]) -> bytes:
    stream = io.StringIO(newline="")
    delimiter = "\t" if feed.format == "tsv" else ","
    csv.writer(stream, delimiter=delimiter, lineterminator="\r\n").writerow(cells)
    return stream.getvalue().encode()
