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
from catalog.fitting import Fit, broken_in_file, fit, image_context, refuse_channel
from catalog.lake import reading
from catalog.revocation import revoked_requests
from catalog.selection import LeftOut, choose, left_out_because
from pipeline.licences import Licences
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


def plan_pack(folder: Path, asked: Asked) -> Plan:
    """Chooses and fits, from the catalog in `folder` alone.

    Raises InputError: the channel refuses AI images, a value is missing, the condition is wrong.
    """
    refuse_channel(asked.channel, asked.values)
    chosen = choose(folder, asked.where, asked.terms, asked.today, asked.licences)
    with reading(folder) as lake:
        taken_back = revoked_requests(lake.connection, [row["request_id"] for row in chosen.images])
    left_out = list(chosen.left_out)
    rows = []
    for row in chosen.images:
        if revocation := taken_back.get(row["request_id"]):
            left_out.append(left_out_because(row, [str(revocation)]))
        else:
            rows.append(row)
    fits = fit(asked.channel, rows, asked.items, asked.values, asked.today)
    fits = _held_to_feed(asked, fits)
    return Plan(
        tuple(each for each in fits if not each.broken),
        tuple(each for each in fits if each.broken),
        tuple(left_out),
    )


def look_into_files(plan: Plan, asked: Asked, locate: Callable[[str], Path]) -> Plan:
    """The plan with what only the files can tell, for a dry run; originals stand for renditions."""
    fits, unfit = [], list(plan.unfit)
    for each in plan.fits:
        try:
            data = locate(each.row["url"]).read_bytes()
        except OSError:
            fits.append(each)  # the export itself says what is wrong with the file
            continue
        context = asked.context(each.row, each.position)
        broken = broken_in_file(asked.channel, each.position, context, data, asked.today)
        (unfit if broken else fits).append(replace(each, broken=tuple(broken)))
    return replace(plan, fits=tuple(fits), unfit=tuple(unfit))


def unfit_because(each: Fit) -> LeftOut:
    """An image that the channel does not take, with every rule it breaks."""
    return left_out_because(each.row, [str(broken) for broken in each.broken])


def _held_to_feed(asked: Asked, fits: Sequence[Fit]) -> list[Fit]:
    """The fits, with the rules that their feed rows break."""
    if asked.channel.feed is None:
        return list(fits)
    listed = [asked.listed(each, _expected(each)) for each in fits if not each.broken]
    broken: dict[str, tuple[Any, ...]] = {}
    for row in feed_rows(asked.channel, listed):
        for image in row.images if row.broken else ():
            broken[image.name] = row.broken
    return [replace(each, broken=(*each.broken, *broken.get(each.name, ()))) for each in fits]


def _expected(each: Fit) -> dict[str, Any]:
    return {**each.row, "width": each.width, "height": each.height, "mime": each.mime}
