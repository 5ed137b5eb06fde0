"""Channels as data: what a marketplace, agency or asset store accepts, rule by rule, with sources.

YAML in, frozen models out, every fault with its file and line. catalog/fitting.py applies a channel
to images, catalog/feeds.py writes its feed.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from datetime import date
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from jinja2 import ChainableUndefined, Template, TemplateError
from jinja2.meta import find_undeclared_variables
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import Fault, InputError
from pipeline.template_sandbox import BoundedJoins, Sandbox, refused_tags
from pipeline.yaml_lines import Located, each_mapping, read_yaml, written_path

SHIPPED = Path(__file__).parent / "channels"
"""Folder of the channels that ship with Platemark."""

Measure = Literal[
    "shortest_side",
    "longest_side",
    "pixels",
    "bytes",
    "aspect",
    "format",
    "white_border",
    "frame_share",
    "source_type",
    "file_name",
]
"""What a rule bounds. Sides in pixels, `aspect` width over height, `white_border` the least value
(0–255) of the outermost pixels, `frame_share` the longer side of what is not white over the frame's
(0–1), `source_type` the IPTC digital source type in the file's XMP, `file_name` its characters."""
MEASURED_IN_PIXELS = ("white_border", "frame_share")
"""Measures that need the picture decoded."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Source(_Data):
    """Where rules were read: a page, and the day somebody last compared it."""

    page: str = Field(pattern=r"^https://[^\s]+$")
    checked: date
    note: str = ""


def in_digits(value: float) -> str:
    """A number for people: `4,000,000`, `0.85`."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.3g}"


class Limit(_Data):
    """Bounds, inclusive, and the name of their source."""

    at_least: float | None = None
    at_most: float | None = None
    source: str

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if None not in (self.at_least, self.at_most) and self.at_least > self.at_most:  # type: ignore[operator]
            raise ValueError("at_least lies above at_most")
        return self

    def in_words(self) -> str:
        """`at least 100 and at most 5,000`."""
        bounds = (("at least", self.at_least), ("at most", self.at_most))
        told = [f"{word} {in_digits(bound)}" for word, bound in bounds if bound is not None]
        return " and ".join(told)

    def holds(self, value: float) -> bool:
        """Whether `value` lies within."""
        above = self.at_least is None or value >= self.at_least
        return above and (self.at_most is None or value <= self.at_most)


class Rule(Limit):
    """One rule on images: bounds, or the values that are allowed (`one_of`)."""

    measure: Measure
    one_of: tuple[str, ...] = ()
    images: Literal["every", "main"] = "every"
    """`main`: the first image of an item only."""
    when: str | None = None
    """A Jinja expression over `item` and the image's columns; without it the rule always holds."""
    starts: date | None = Field(default=None, alias="from")
    """The day it comes into force."""
    remedy: str = ""
    """What puts it right, where a rendition cannot."""

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        textual = self.measure in ("format", "source_type")
        if textual != bool(self.one_of):
            what = "`one_of`" if textual else "`at_least` or `at_most`"
            raise ValueError(f"{self.measure} needs {what}")
        if not textual and self.at_least is None and self.at_most is None:
            raise ValueError(f"{self.measure} needs `at_least` or `at_most`")
        return self


class AiRule(_Data):
    """Whether the channel takes images that a model made."""

    rule: Literal["accepted", "labelled", "refused"]
    says: str
    source: str


class Delivery(_Data):
    """How an image that does not fit is brought into shape: format, and padding or cropping."""

    format: Literal["png", "jpeg", "webp"] = "jpeg"
    quality: int = Field(default=90, ge=1, le=100)
    fit: Literal["pad", "crop"] = "pad"
    background: str = Field(default="#ffffff", pattern=r"^#[0-9a-f]{6}$")


class Column(_Data):
    """One column of a feed. `value` is a Jinja template over the row's names (docs/channels.md)."""

    name: str = Field(min_length=1)
    value: str
    required: bool = False
    at_most: int | None = None
    """Characters."""
    without: str = ""
    """Characters that must not occur."""
    list_of: int | None = None
    """At most so many entries, separated by `separator`."""
    separator: str = ","
    links: bool = False
    """It holds links to images of the pack."""
    source: str | None = None


class Feed(_Data):
    """The table that goes with the images."""

    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    format: Literal["tsv", "csv"]
    row: Literal["image", "item"] = "image"
    columns: tuple[Column, ...] = Field(min_length=1)
    rows: Limit | None = None
    """More rows make several files."""
    bytes: Limit | None = None


class DeniedNames(_Data):
    """Names that neither prompt nor feed may hold: lists of policies/names."""

    lists: tuple[Literal["artists", "persons", "characters", "brands"], ...] = Field(min_length=1)
    source: str


class Channel(_Data):
    """What one channel accepts, and how a pack for it looks."""

    channel: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    description: str = ""
    sources: dict[str, Source] = Field(default_factory=dict)
    ai: AiRule | None = None
    rules: tuple[Rule, ...] = ()
    denied_names: DeniedNames | None = None
    delivery: Delivery | None = None
    """Without it images go out as they are, and what does not fit stays out."""
    name: str | None = None
    """Template of file names without folder; default `<sku>-<index>-<hash>.<ext>`."""
    needs: tuple[str, ...] = ()
    """Values that `--set` must give, such as `base_url`."""
    feed: Feed | None = None
    sidecars: bool = False
    """Each image's XMP packet beside it as a file."""
    croissant: bool = False
    """A Croissant description of the pack."""

    @model_validator(mode="after")
    def _templates_are_read(self) -> Self:
        for text in filter(None, [self.name, *(each.value for each in self._columns())]):
            _refuse_template(text)
        for rule in self.rules:
            if rule.when:
                _refuse_template(_condition(rule.when))
        return self

    def _columns(self) -> tuple[Column, ...]:
        return self.feed.columns if self.feed else ()

    @cached_property
    def gives_places(self) -> bool:
        """Whether an item's first image is special: by a rule of its own, or by its file's name."""
        named = find_undeclared_variables(_SANDBOX.parse(self.name)) if self.name else ()
        return "position" in named or any(rule.images == "main" for rule in self.rules)

    def cited(self, source: str) -> str:
        """A source for people: its page and the day it was read."""
        return f"{self.sources[source].page}, read {self.sources[source].checked}"


def load_channel(name_or_path: str) -> Channel:
    """A channel by shipped name (`shopify`) or by path. Raises InputError, a line a fault."""
    path = _find(name_or_path)
    tree, faults = read_yaml(path)
    if tree is None:
        raise InputError(f"channel {name_or_path}", faults)
    faults = [*faults, *_unknown_sources(tree)]
    try:
        channel = Channel.model_validate(tree.plain())
    except ValidationError as error:
        raise InputError(f"channel {name_or_path}", [*faults, *_faults(error, tree)]) from None
    if faults:
        raise InputError(f"channel {name_or_path}", faults)
    return channel


def shipped_channels() -> list[Channel]:
    """The channels that ship with Platemark, by name."""
    return [load_channel(path.stem) for path in sorted(SHIPPED.glob("*.yaml"))]


_SANDBOX = Sandbox()
# An item's table need not have every column: what is required says so itself.
_SANDBOX.undefined = ChainableUndefined


@lru_cache(maxsize=512)
def _template(text: str) -> Template:
    return _SANDBOX.from_string(BoundedJoins().visit(_SANDBOX.parse(text)))


def rendered(text: str, context: Mapping[str, Any]) -> str:
    """A channel's template over `context`, in the sandbox of prompt templates.

    Unknown names print nothing. Raises InputError when a value cannot be worked with.
    """
    try:
        return _template(text).render(context)
    # What a template's arithmetic and filters raise on values of the wrong kind.
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        fault = Fault(f"{text!r}: {error}", str(context.get("sku", "")), "mend template or table")
        raise InputError("channel template", [fault]) from None


def holds(expression: str, context: Mapping[str, Any]) -> bool:
    """Whether a rule's `when` holds. Raises as `rendered` does."""
    return rendered(_condition(expression), context) == "yes"


def _condition(expression: str) -> str:
    return "{{ 'yes' if (" + expression + ") else '' }}"


def _refuse_template(text: str) -> None:
    try:
        tree = _SANDBOX.parse(text)
        _template(text)
    except TemplateError as error:
        raise ValueError(f"the template {text!r}: {error}") from None
    if found := refused_tags(tree, "template"):
        raise ValueError(f"the template {text!r}: {found[0].what}")


def _find(name: str) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        return path
    shipped = SHIPPED / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    known = sorted(file.stem for file in SHIPPED.glob("*.yaml"))
    near = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean {near[0]!r}? " if near else ""
    remedy += f"shipped: {', '.join(known)}; or write a path"
    raise InputError(f"channel {name}", [Fault("there is no such channel", name, remedy)])


def _unknown_sources(tree: Located) -> list[Fault]:
    """Rules that cite a source which the file does not declare."""
    sources = tree.value.get("sources")
    known = list(sources.value) if sources and isinstance(sources.value, dict) else []
    cited = [mapping.value["source"] for mapping in each_mapping(tree) if "source" in mapping.value]
    return [
        Fault(f"there is no source {each.value!r}", each.where, f"known: {', '.join(known)}")
        for each in cited
        if each.value not in known
    ]


def _faults(error: ValidationError, tree: Located) -> list[Fault]:
    content = tree.plain()
    found = []
    for each in error.errors():
        path = written_path(each["loc"], content, each["type"] == "missing")
        name = ".".join(str(step) for step in path)
        what, remedy = _told(each)
        found.append(Fault(f"{name}: {what}" if name else what, tree.at(path).where, remedy))
    return list(dict.fromkeys(found))


def _told(error: Any) -> tuple[str, str]:
    if error["type"] == "extra_forbidden":
        return "unknown key", "see docs/channels.md"
    if error["type"] == "missing":
        return "is missing", "add it"
    return error["msg"].removeprefix("Value error, "), ""
