"""Every file of a pack before it goes in: its bytes, its C2PA state, the channel's rules, its feed.

The same for an export and for its dry run, so that both refuse the same. An item's images are
looked at together where the channel has a feed or gives places; else one at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.feeds import FeedRow, feed_rows
from catalog.fitting import Broken, Fit, asks_file, broken_in_file
from catalog.pack_content import SHEET_IMAGES, sheet_cell
from catalog.pack_copy import Unreadable
from catalog.pack_plan import Asked, held_to_feed
from catalog.pack_target import Copy
from catalog.selection import LeftOut, left_out_because
from pipeline.errors import Fault, InputError
from pipeline.images import ImageRefused
from pipeline.store import sha256_of

if TYPE_CHECKING:
    from pipeline.contact_sheet import Cell
    from pipeline.verify import Report

Row = Mapping[str, Any]
_HELD_BYTES = 64 << 20
"""Bytes of one item that are kept in memory while the rest of it is looked at."""
_COPIERS = 8
"""Files that are copied at the same time."""


@dataclass(frozen=True)
class Files:
    """How an export gets at files. `verify` reads one with the C2PA library; `locate` turns a
    catalogued url into its path; `prepare` finds or makes renditions, by request id their columns
    or why there is none; `proven` names files that need no `verify` while their SHA-256 is the
    catalogued one; `proofs` gives the ledger's inclusion proofs of signed files, by SHA-256."""

    verify: Callable[[Path], Report]
    locate: Callable[[str], Path]
    prepare: Callable[[Sequence[Fit]], Mapping[str, Row | str]] = lambda fits: {}
    proven: Callable[[Sequence[Row]], set[str]] = lambda rows: set()
    proofs: Callable[[Sequence[str]], bytes | None] = lambda sha256s: None


@dataclass(frozen=True)
class Ready:
    """A fit and its row as it will be delivered, with `original_sha256`. `made`: false where the
    fit's rendition is still to be made, and the original is looked at in its place."""

    fit: Fit
    row: Row
    made: bool = True


@dataclass(frozen=True)
class Checked:
    """One file: why it may not go in, the channel's rules that it breaks, its cell of the contact
    sheet; its bytes, or None where they were copied already or are to be read again."""

    ready: Ready
    faults: tuple[str, ...] = ()
    broken: tuple[Broken, ...] = ()
    cell: Cell | None = None
    data: bytes | None = field(default=None, repr=False)

    @property
    def goes_in(self) -> bool:
        """Whether nothing stands in its way."""
        return not (self.faults or self.broken)

    def left_out(self) -> LeftOut:
        """It, with every reason."""
        return left_out_because(self.ready.row, [*self.faults, *map(str, self.broken)])


@dataclass(frozen=True)
class Item:
    """Images that are decided on together, and the feed's rows of those that go in."""

    images: tuple[Checked, ...]
    rows: tuple[FeedRow, ...] = ()


def check_all(
    asked: Asked, ready: Sequence[Ready], files: Files, copy: Copy | None = None
) -> Iterator[Item]:
    """Looks at every file of `ready`, in their order, a few ahead; never all are in memory.

    Where nothing but a file's hash is asked, it is not kept in memory: `copy` reads it.
    """
    proven = files.proven([each.row for each in ready])
    shown = {each.row["request_id"] for each in ready[:SHEET_IMAGES]}

    def check(one: Ready) -> Checked:
        return _checked(asked, one, files, proven, one.row["request_id"] in shown, copy)

    # Who copies waits for the disk most of the time.
    checked = _ahead(check, ready, _COPIERS if copy else min(8, os.cpu_count() or 1))
    if asked.channel.feed is None and not asked.channel.gives_places:
        yield from (Item((each,)) for each in checked)
        return
    for _, group in groupby(checked, key=lambda each: each.ready.row["sku"]):
        yield _decided(asked, list(_held(group)))


def bytes_of(checked: Checked, files: Files) -> bytes:
    """The bytes that go in. Raises InputError when the file is no longer what was checked."""
    if checked.data is not None:
        return checked.data
    row = checked.ready.row
    data, faults = _verified(row, files, {row["sha256"]}, _read)
    if faults or data is None:
        remedy = "export again: it stays out"
        raise InputError(
            "export", [Fault("; ".join(faults), f"{row['sku']}-{row['index']}", remedy)]
        )
    return data


def _checked(
    asked: Asked, one: Ready, files: Files, proven: set[str], shown: bool, copy: Copy | None
) -> Checked:
    position, context = one.fit.position, asked.context(one.row, one.fit.position)
    asks = asks_file(asked.channel, position, context, asked.today)
    kept = shown or asks or asked.channel.sidecars

    def take(path: Path) -> Taken:
        return _read(path) if kept or copy is None else (None, copy(one.fit.file, path))

    data, faults = _verified(one.row, files, proven, take)
    if faults or data is None:
        return Checked(one, tuple(faults))
    try:
        recipe = None if one.made else one.fit.recipe
        broken = broken_in_file(asked.channel, position, context, data, asked.today, recipe)
        cell = sheet_cell(one.row, data) if shown and not broken else None
    except ImageRefused as error:
        return Checked(one, (f"the file {one.row['url']} does not decode: {error}",))
    return Checked(one, (), tuple(broken), cell, data)


def _held(group: Iterable[Checked]) -> Iterator[Checked]:
    size = 0
    for each in group:
        size += len(each.data or b"")
        yield each if size <= _HELD_BYTES else replace(each, data=None)


def _decided(asked: Asked, images: list[Checked]) -> Item:
    """An item's images, with the rules that its feed rows break, or that no main image is left."""
    fits = [
        # What cannot go in counts as broken here, whatever the reason.
        replace(each.ready.fit, broken=each.broken or (_UNFIT if each.faults else ()))
        for each in images
    ]
    held = held_to_feed(asked, fits, [each.ready.row for each in images])
    images = [
        replace(each, broken=fit.broken) if each.goes_in else each
        for each, fit in zip(images, held, strict=True)
    ]
    going = [asked.listed(each.ready.fit, each.ready.row) for each in images if each.goes_in]
    return Item(tuple(images), tuple(feed_rows(asked.channel, going)))


_UNFIT = (Broken("the file", "not fit", "it must go in", "", "see its reasons"),)


Taken = tuple[bytes | None, str]


def _read(path: Path) -> Taken:
    """A file's bytes and their SHA-256 (hex)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Unreadable(error.strerror) from error
    return data, sha256_of(data)


def _verified(
    row: Row, files: Files, proven: set[str], take: Callable[[Path], Taken]
) -> tuple[bytes | None, list[str]]:
    """What `take` kept of the bytes that go in, and why they must not: they are what was
    catalogued, and Trusted."""
    if not row["url"]:
        return None, ["the file was not kept"]
    path = files.locate(row["url"])
    try:
        data, found = take(path)
    except Unreadable as error:
        return None, [f"the file {row['url']} is missing or unreadable: {error}"]
    if found != row["sha256"]:
        return None, [f"the file {row['url']} was altered: its SHA-256 is {found}"]
    if found in proven:
        return data, []
    report = files.verify(path)
    if report.sha256 != found:
        return None, [f"the file {row['url']} changed while it was verified"]
    # The bytes are those that were signed, and pixels are decoded before they are signed.
    if report.state != "Trusted":
        why = "; ".join(report.why)
        return None, [f"C2PA state {report.state}: {why}"]
    if report.label != row["c2pa_label"]:
        return None, [f"its C2PA manifest is {report.label}, catalogued was {row['c2pa_label']}"]
    return data, []


def _ahead(
    work: Callable[[Ready], Checked], ready: Sequence[Ready], workers: int
) -> Iterator[Checked]:
    """Results in the order of `ready`, a few computed ahead by threads, never all in memory."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: list[Future[Checked]] = []
        try:
            for one in ready:
                waiting.append(pool.submit(work, one))
                if len(waiting) > 2 * workers:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()
