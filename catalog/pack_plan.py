"""What a pack will hold, before a file is copied: chosen, not revoked, fitting the channel.

`platemark export --dry-run` shows this; catalog/pack.py carries it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from catalog.channel import Channel
from catalog.feeds import Listed, feed_rows
from catalog.fitting import (
    Broken,
    Fit,
    asks_file,
    broken_in_file,
    fit,
    image_context,
    refuse_channel,
    without_main,
)
from catalog.lake import Lake
from catalog.ledger_reads import read_patiently
from catalog.revocation import revoked_requests
from catalog.selection import LeftOut, Selection, left_out_because
from pipeline.errors import Fault, InputError
from pipeline.images import ImageRefused
from pipeline.licences import Licences
from pipeline.store import sha256_of
from pipeline.terms import UsageTerms


@dataclass(frozen=True)
class Asked:
    """What is exported for which channel: `items` are further columns by sku (`--items`), `values`
    what templates need besides (`--set`), `licences` the table to judge by, default
    the shipped one."""

    where: str
    terms: UsageTerms
    channel: Channel
    today: date
    items: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    licences: Licences | None = None

    def context(self, row: Mapping[str, Any], position: int) -> dict[str, Any]:
        """The names that a feed's templates may use for one image."""
        item = self.items.get(row["sku"], {})
        return {**image_context(row, position, item, self.values), "terms": self._terms}

    @cached_property
    def _terms(self) -> dict[str, Any]:
        told = self.terms.model_dump(mode="json")
        return {name: "" if value is None else value for name, value in told.items()}

    def listed(self, each: Fit, row: Mapping[str, Any]) -> Listed:
        """An image as feeds see it; `row` is the delivered file's."""
        return Listed(each.name, self.context(row, each.position), each.row["prompt"] or "")


@dataclass(frozen=True)
class Plan:
    """What goes in, as `fits`; what the channel refuses; and what may not go in at all."""

    fits: tuple[Fit, ...]
    unfit: tuple[Fit, ...]
    left_out: tuple[LeftOut, ...]

    def as_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            "fits": [
                {
                    "sku": each.row["sku"],
                    "index": each.row["index"],
                    "name": each.name,
                    "width": each.width,
                    "height": each.height,
                    "rendition": each.recipe is not None,
                }
                for each in self.fits
            ],
            "unfit": [
                {
                    "sku": each.row["sku"],
                    "index": each.row["index"],
                    "broken": [vars(one) for one in each.broken],
                }
                for each in self.unfit
            ],
            "left_out": [vars(each) for each in self.left_out],
        }


def plan_pack(lake: Lake, asked: Asked, chosen: Selection, locate: Callable[[str], Path]) -> Plan:
    """Fits what was chosen, from the catalog alone; files are read where a main image is sought.

    `locate` turns a catalogued url into its path. Raises InputError: the terms expired, the channel
    refuses AI images, a value is missing.
    """
    refuse_channel(asked.channel, asked.values)
    _refuse_expired(asked)
    asked_for = [row["request_id"] for row in chosen.images]
    taken_back = read_patiently(lake, lambda connection: revoked_requests(connection, asked_for))
    left_out = list(chosen.left_out)
    rows = []
    for row in chosen.images:
        if revocation := taken_back.get(row["request_id"]):
            left_out.append(left_out_because(row, [str(revocation)]))
        else:
            rows.append(row)

    def look(each: Fit) -> list[Broken]:
        return _broken_in_original(each, asked, locate)

    fits = fit(asked.channel, rows, asked.items, asked.values, asked.today, look)
    fits = held_to_feed(asked, fits, list(map(_expected, fits)))
    return Plan(
        tuple(each for each in fits if not each.broken),
        tuple(each for each in fits if each.broken),
        tuple(left_out),
    )


def _refuse_expired(asked: Asked) -> None:
    expires = asked.terms.expires
    if expires and expires < asked.today:
        fault = Fault(f"they expired on {expires}", f"terms {asked.terms.id}", "renew them")
        raise InputError("export", [fault])


def _broken_in_original(each: Fit, asked: Asked, locate: Callable[[str], Path]) -> list[Broken]:
    context = asked.context(each.row, each.position)
    if not asks_file(asked.channel, each.position, context, asked.today) or not each.row["url"]:
        return []
    try:
        data = locate(each.row["url"]).read_bytes()
        # What is wrong with the file itself is told when it is checked.
        if sha256_of(data) != each.row["sha256"]:
            return []
        return broken_in_file(asked.channel, each.position, context, data, asked.today, each.recipe)
    except (OSError, ImageRefused):
        return []


def unfit_because(each: Fit) -> LeftOut:
    """An image that the channel does not take, with every rule it breaks."""
    return left_out_because(each.row, [str(broken) for broken in each.broken])


def held_to_feed(asked: Asked, fits: Sequence[Fit], rows: Sequence[Mapping[str, Any]]) -> list[Fit]:
    """The fits, with the rules that their feed rows break, or that their main image is left out.

    `rows` are theirs, of the files as they will be delivered.
    """
    listed = [
        asked.listed(each, row) for each, row in zip(fits, rows, strict=True) if not each.broken
    ]
    broken = {
        image.name: row.broken for row in feed_rows(asked.channel, listed) for image in row.images
    }
    held = [
        each if each.broken else replace(each, broken=broken.get(each.name, ())) for each in fits
    ]
    return without_main(asked.channel, held)


def _expected(each: Fit) -> dict[str, Any]:
    return {**each.row, "width": each.width, "height": each.height, "mime": each.mime}
