"""Which images fit a channel, as they are or as a rendition, and what would make the others fit.

Decided from catalog rows alone, before a file is read; what only the file can tell is asked by
`broken_in_file` when the file goes in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from itertools import groupby
from typing import Any, get_args

from catalog.channel import MEASURED_IN_PIXELS, Channel, Measure, Rule, holds, in_digits, rendered
from pipeline.denied import denied_words, read_names
from pipeline.errors import Fault, InputError
from pipeline.images import RgbImage, decode_limited
from pipeline.rendition import Recipe, shape, shaped, source_type_of
from pipeline.settings import ROOT
from pipeline.store import EXTENSIONS

_FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}
_MIMES = {name: mime for mime, name in _FORMATS.items()}
_SHRINKS: tuple[Measure, ...] = ("longest_side", "pixels", "bytes")
_NAMES = {
    "longest_side": "the longest side",
    "shortest_side": "the shortest side",
    "pixels": "the number of pixels",
    "bytes": "the file's bytes",
    "aspect": "width over height",
    "format": "the format",
    "white_border": "the border's darkest value",
    "frame_share": "the product's share of the frame",
    "source_type": "the IPTC digital source type",
    "file_name": "the file name's length",
}
assert set(_NAMES) == set(get_args(Measure))
_IN_FILE = ("source_type", *MEASURED_IN_PIXELS)


@dataclass(frozen=True)
class Broken:
    """A rule that an image breaks: what was found, what is asked, by whom, and what helps."""

    rule: str
    found: str
    asked: str
    source: str
    remedy: str

    def __str__(self) -> str:
        source = f" ({self.source})" if self.source else ""
        return f"{self.rule} is {self.found}, {self.asked}{source}: {self.remedy}"


@dataclass(frozen=True)
class Fit:
    """One image and its channel: how it will be delivered, or the rules it breaks.

    `recipe` is None where the file goes out as it is; `width`, `height` and `mime` are what it will
    have; `position` counts the images of its item from 1.
    """

    row: Mapping[str, Any]
    position: int
    name: str
    width: int
    height: int
    mime: str
    recipe: Recipe | None = None
    broken: tuple[Broken, ...] = ()

    @property
    def file(self) -> str:
        """Its place in the pack."""
        return f"images/{self.name}"


WITHOUT_MAIN = Broken(
    "the item's main image",
    "left out",
    "an item without one is not delivered",
    "",
    "put right what the main image lacks",
)


def refuse_channel(channel: Channel, values: Mapping[str, str]) -> None:
    """Raises InputError when the channel takes no AI images, or a value it needs is missing."""
    if channel.ai and channel.ai.rule == "refused":
        cited = channel.cited(channel.ai.source)
        fault = Fault(
            f"the rule on AI images: {channel.ai.says} ({cited})",
            channel.title,
            "choose a channel that takes them: `platemark channel list`",
        )
        raise InputError(f"channel {channel.channel} refuses AI images", [fault])
    missing = [name for name in channel.needs if not values.get(name)]
    if missing:
        faults = [Fault("must be given", name, f"--set {name}=…") for name in missing]
        raise InputError(f"channel {channel.channel}", faults)


Look = Callable[[Fit], Sequence[Broken]]
"""What only an image's file tells: the rules that it breaks in its place."""


def fit(
    channel: Channel,
    rows: Iterable[Mapping[str, Any]],
    items: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, str],
    today: date,
    look: Look = lambda each: (),
) -> list[Fit]:
    """Each row of `images` (ordered by sku and index) as the channel would take it on `today`.

    `items` are further columns by sku, `values` what `--set` gave. Where the channel gives places,
    an item's first one goes to the first image that keeps all rules there, `look` asked as well,
    and the others follow; where none does, the item is refused.
    """
    fits: list[Fit] = []
    taken: set[str] = set()

    def tried(row: Mapping[str, Any], position: int) -> Fit:
        context = image_context(row, position, items.get(row["sku"], {}), values)
        return _fit(channel, row, position, context, taken, today)

    def placed(row: Mapping[str, Any], position: int) -> Fit:
        found = tried(row, position)
        return found if found.broken else replace(found, broken=tuple(look(found)))

    for _, group in groupby(rows, key=lambda row: row["sku"]):
        item = list(group)
        if channel.gives_places:
            found = _in_places(item, placed)
        else:
            found = (tried(row, position) for position, row in enumerate(item, start=1))
        for each in found:
            fits.append(each)
            if not each.broken:
                taken.add(each.name.lower())
    return fits


def _in_places(
    item: Sequence[Mapping[str, Any]], placed: Callable[[Mapping[str, Any], int], Fit]
) -> Iterator[Fit]:
    """The main image first; places are counted over the images that fit."""
    first: list[Fit] = []
    for row in item:
        first.append(placed(row, 1))
        if not first[-1].broken:
            break
    main = first[-1]
    if main.broken:
        yield from first
        return
    yield main
    position = 2
    for row in item:
        if row is not main.row:
            found = placed(row, position)
            position += not found.broken
            yield found


def without_main(channel: Channel, fits: Sequence[Fit]) -> list[Fit]:
    """The fits; where the channel gives places and an item's first image broke a rule since, so
    that the item would go without one, its others are refused too."""
    if not channel.gives_places:
        return list(fits)
    held = {each.row["sku"] for each in fits if each.position == 1 and not each.broken}
    return [
        each if each.broken or each.row["sku"] in held else replace(each, broken=(WITHOUT_MAIN,))
        for each in fits
    ]


def image_context(
    row: Mapping[str, Any], position: int, item: Mapping[str, Any], values: Mapping[str, str]
) -> dict[str, Any]:
    """The names that templates on one image may use."""
    names = ("sku", "index", "campaign", "client", "model", "sha256", "width", "height", "mime")
    told = {name: row[name] for name in names}
    return {
        **values,
        **{name: "" if value is None else value for name, value in told.items()},
        "c2pa_label": row.get("c2pa_label") or "",
        "position": position,
        "item": {str(key): _text(cell) for key, cell in item.items()},
    }


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell)


def asks_file(channel: Channel, position: int, context: Mapping[str, Any], today: date) -> bool:
    """Whether a rule in force needs the file of an image in this place."""
    return any(rule.measure in _IN_FILE for rule in _in_force(channel, position, context, today))


def broken_in_file(
    channel: Channel,
    position: int,
    context: Mapping[str, Any],
    data: bytes,
    today: date,
    recipe: Recipe | None = None,
) -> list[Broken]:
    """The rules that only the file can tell about: its label, its border, its frame.

    With a `recipe`, `data` is the original that a rendition will be made of, and its pixels are
    measured in the shape that they will have. Raises ImageRefused when it does not decode.
    """
    rules = _in_force(channel, position, context, today)
    asked = [rule for rule in rules if rule.measure in _IN_FILE]
    if not asked:
        return []
    measured: dict[str, Any] = {"source_type": source_type_of(data) or "none"}
    if any(rule.measure in MEASURED_IN_PIXELS for rule in asked):
        pixels = decode_limited(data)
        measured |= _looked_at(shaped(pixels, recipe) if recipe else pixels)
    return [
        _broken(channel, rule, measured[rule.measure])
        for rule in asked
        if not _holds(rule, measured[rule.measure])
    ]


def denied(channel: Channel, texts: Sequence[str]) -> list[Broken]:
    """Names that the channel wants in neither prompt nor feed, where `texts` hold them."""
    if channel.denied_names is None:
        return []
    found = denied_words(_denied_names(channel.denied_names.lists), "\n".join(texts))
    return [
        Broken(
            "prompt, title or keywords",
            f"naming {', '.join(found)}",
            "names of artists, people, characters and brands are not allowed",
            channel.cited(channel.denied_names.source),
            "write it without the name",
        )
    ] * bool(found)


@lru_cache(maxsize=8)
def _denied_names(lists: tuple[str, ...]) -> tuple[str, ...]:
    names: list[str] = []
    for name in lists:
        read, faults = read_names(ROOT / "policies" / "names" / f"{name}.txt")
        if faults:
            raise InputError(f"names {name}", faults)
        names += [each for each, _ in read]
    return tuple(names)


def _fit(
    channel: Channel,
    row: Mapping[str, Any],
    position: int,
    context: Mapping[str, Any],
    taken: set[str],
    today: date,
) -> Fit:
    rules = _in_force(channel, position, context, today)
    recipe = _recipe(channel, rules, row)
    width, height, mime = row["width"], row["height"], row["mime"]
    if recipe:
        (width, height), mime = shape(width, height, recipe), _MIMES[recipe.format]
    measured = {
        "longest_side": max(width, height),
        "shortest_side": min(width, height),
        "pixels": width * height,
        "aspect": width / height,
        "format": _FORMATS.get(mime, mime),
    }
    # A rendition's bytes are known only when it is made, and held to the rule then.
    if not recipe:
        measured["bytes"] = row["size"]
    name = _name(channel, rules, context, mime, taken)
    measured["file_name"] = len(name)
    broken = tuple(
        _broken(channel, rule, measured[rule.measure])
        for rule in rules
        if rule.measure in measured and not _holds(rule, measured[rule.measure])
    )
    return Fit(row, position, name, width, height, mime, recipe, broken)


def _in_force(
    channel: Channel, position: int, context: Mapping[str, Any], today: date
) -> list[Rule]:
    return [
        rule
        for rule in channel.rules
        if (rule.images == "every" or position == 1)
        and (rule.starts is None or rule.starts <= today)
        and (rule.when is None or holds(rule.when, context))
    ]


def _recipe(channel: Channel, rules: Sequence[Rule], row: Mapping[str, Any]) -> Recipe | None:
    """What makes the image fit, None where it fits as it is or nothing can be done."""
    if channel.delivery is None:
        return None
    width, height = row["width"], row["height"]
    measured = {
        "longest_side": max(width, height),
        "pixels": width * height,
        "bytes": row["size"],
        "aspect": width / height,
        "format": _FORMATS.get(row["mime"], row["mime"]),
    }
    broken = [
        rule
        for rule in rules
        if rule.measure in measured
        and not _holds(rule, measured[rule.measure])
        and (rule.measure not in _SHRINKS or _above(rule, measured[rule.measure]))
    ]
    if not broken:
        return None
    delivery = channel.delivery
    # Its own format where that is allowed and small enough; PNG cannot be made smaller.
    names = {rule.measure for rule in broken}
    keeps = not names & {"format", "bytes"}
    recipe = Recipe(
        format=measured["format"] if keeps else delivery.format,
        quality=delivery.quality,
        fit=delivery.fit,
        background=delivery.background,
    )
    bounds: dict[str, Any] = {}
    for rule in rules:
        if rule.measure in _SHRINKS and rule.at_most is not None:
            most = int(rule.at_most)
            bounds[rule.measure] = min(bounds.get(rule.measure, most), most)
        if rule.measure == "aspect" and rule in broken:
            wanted = rule.at_most if _above(rule, measured["aspect"]) else rule.at_least
            bounds["aspect"] = wanted
    return replace(recipe, **bounds)


def _above(rule: Rule, value: float) -> bool:
    return rule.at_most is not None and value > rule.at_most


def _holds(rule: Rule, value: Any) -> bool:
    return value in rule.one_of if rule.one_of else rule.holds(value)


def _broken(channel: Channel, rule: Rule, value: Any) -> Broken:
    if rule.one_of:
        found, asked = str(value), f"one of {', '.join(rule.one_of)} is asked"
    else:
        found, asked = in_digits(value), f"{rule.in_words()} is asked"
    remedy = rule.remedy or _remedy(channel, rule, value)
    return Broken(_NAMES[rule.measure], found, asked, channel.cited(rule.source), remedy)


def _remedy(channel: Channel, rule: Rule, value: Any) -> str:
    sides = ("longest_side", "shortest_side", "pixels")
    if rule.measure in sides and rule.at_least is not None and value < rule.at_least:
        factor = rule.at_least / value
        factor = factor**0.5 if rule.measure == "pixels" else factor
        return f"make it larger by {factor:.2g}× with an `upscaling` step (docs/modes.md)"
    if channel.delivery is None:
        return "give the channel a `delivery`, so that renditions are made"
    return "make the image anew"


def _name(
    channel: Channel,
    rules: Sequence[Rule],
    context: Mapping[str, Any],
    mime: str,
    taken: set[str],
) -> str:
    """The file's name: the channel's template, or a short one of its hash where that is too long.

    Safe characters only, unique where case does not count.
    """
    ext, sha256 = EXTENSIONS.get(mime, "bin"), context["sha256"]
    text = channel.name or "{{ sku }}-{{ index }}-{{ sha256[:8] }}.{{ ext }}"
    # A path from a table must not lead anywhere: separators go with all that is not plain.
    written = re.sub(r"[^A-Za-z0-9._-]+", "_", rendered(text, {**context, "ext": ext}))
    stem = written.removesuffix(f".{ext}").lstrip(".-")[:96] or "image"
    most = min(
        [rule.at_most for rule in rules if rule.measure == "file_name" and rule.at_most] or [160]
    )
    choices = [f"{stem}.{ext}", *(f"{stem}-{sha256[:n]}.{ext}" for n in (8, 16, 64))]
    choices += [f"{sha256[:n]}.{ext}" for n in (16, 24, 64)]
    free = (each for each in choices if len(each) <= most and each.lower() not in taken)
    return next(free, choices[-1])


def _looked_at(pixels: RgbImage) -> dict[str, float]:
    """The border's darkest value (0–255), and the frame's share of what is not white (0–1)."""
    import numpy as np

    edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    inked = np.any(pixels < 250, axis=2)
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    shares = [
        (found[-1] - found[0] + 1) / length if len(found) else 0.0
        for found, length in ((rows, pixels.shape[0]), (columns, pixels.shape[1]))
    ]
    return {"white_border": int(min(edge.min() for edge in edges)), "frame_share": max(shares)}
