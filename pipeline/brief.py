"""A brief: what a client wants. The first step of the way of data: brief → requests.

A brief is a YAML file with settings and items (inline or a table beside it), or a bare table with a
prompt template. Everything wrong with it is reported at once, before any work.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from pipeline.brief_table import (
    Row,
    decode_text,
    load_yaml,
    no_text,
    read_table,
    rows_of,
    strange_character,
)
from pipeline.errors import Fault, InputError
from pipeline.image_settings import ImageSettings
from pipeline.terms import UsageTerms
from pipeline.yaml_lines import written_path

_SPACES = "\t\n\r"


class BriefFile(ImageSettings):
    """The keys of a YAML brief."""

    template: str | None = Field(default=None, max_length=20_000)
    """Jinja2 over the columns; without it the items need a `prompt` column."""
    templates: dict[str, Annotated[str, Field(max_length=20_000)]] = Field(default_factory=dict)
    """Templates by locale, for items whose column `locale` names one."""
    write_prompts: str | None = Field(default=None, min_length=1, max_length=20_000)
    """An instruction to the configured language model, which writes each item's prompt from its
    columns; the template is what is used when it cannot be reached."""
    faulty_items: Literal["refuse", "skip"] = "refuse"
    """What a fault of one item does: nothing starts, or the other items are made without it."""
    campaign: str | None = None
    client: str = ""
    terms: UsageTerms | None = None
    """Usage terms of these images; without them the policy's."""
    items: str | list[Any]
    """The items, or the path of a table beside the brief."""


@dataclass(frozen=True)
class Item:
    """One row, validated: its settings, its columns for the template, its place for messages."""

    sku: str
    settings: ImageSettings
    columns: Mapping[str, Any]
    where: str


@dataclass(frozen=True)
class Refused:
    """An item that a brief with `faulty_items: skip` goes on without, and all that is wrong."""

    sku: str
    where: str
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class Brief:
    """A brief that was read whole. `digest` is the SHA-256 of brief, table and template.

    `folder` is where its input pictures lie; `refused` are the items it goes on without.
    """

    name: str
    folder: Path
    campaign: str
    client: str
    template: str | None
    terms: UsageTerms | None
    items: tuple[Item, ...]
    digest: str
    templates: Mapping[str, str]
    write_prompts: str | None
    skip_faulty: bool
    refused: tuple[Refused, ...]


def load_brief(path: Path, template: str | None = None) -> Brief:
    """Read a brief. `template` replaces the brief's own, and makes a bare table a brief.

    Raises InputError with every fault of the brief and its table.
    """
    faults: list[Fault] = []
    table, head = path, None
    if path.suffix.lower() in (".yaml", ".yml"):
        head = _read_head(path, faults)
    if head is None and not faults:
        rows, head = read_table(path, faults), BriefFile(items=[])
    elif head is None:
        rows = []
    elif isinstance(head.items, str):
        table = path.parent / head.items
        rows = []
        if table.resolve().is_relative_to(path.parent.resolve()):
            rows = read_table(table, faults)
        else:
            remedy = "keep the table in the brief's folder"
            faults.append(Fault(f"items {head.items!r} leaves the folder", path.name, remedy))
    else:
        rows = list(rows_of(path.name, head.items, faults))
    refused: list[Refused] = []
    items = _items(rows, head, faults, refused) if head else []
    if head:
        template = template if template is not None else head.template
        faults.extend(_strange(path, head, template))
    if head and not rows and not faults:
        faults.append(Fault("no items", table.name, "add a row an item"))
    if refused and not items:
        faults.extend(fault for each in refused for fault in each.faults)
    if faults or head is None:
        raise InputError(f"brief {path}", faults)
    digest = hashlib.sha256(path.read_bytes())
    for part in (table.read_bytes() if table != path else b"", (template or "").encode()):
        digest.update(b"\0" + part)
    return Brief(
        name=path.stem,
        folder=path.parent,
        campaign=head.campaign or path.stem,
        client=head.client,
        template=template,
        terms=head.terms,
        items=tuple(items),
        digest=digest.hexdigest(),
        templates=head.templates,
        write_prompts=head.write_prompts,
        skip_faulty=head.faulty_items == "skip",
        refused=tuple(refused),
    )


def _read_head(path: Path, faults: list[Fault]) -> BriefFile | None:
    try:
        text = decode_text(path.name, path.read_bytes(), faults)
    except OSError as error:
        faults.append(Fault(error.strerror or str(error), str(path), "check the path"))
        return None
    if text is None:
        return None
    content = load_yaml(path.name, text, faults, items_as_text=True)
    if content is None or isinstance(content, list):
        return None
    if not isinstance(content, dict):
        faults.append(Fault("not a brief", path.name, "write `template: …` and `items: …`"))
        return None
    try:
        return BriefFile.model_validate(content)
    except ValidationError as error:
        faults.extend(_faults_of(error, path.name, BriefFile, content))
        return None


def _items(
    rows: list[Row], head: BriefFile, faults: list[Fault], refused: list[Refused]
) -> list[Item]:
    common = {
        name: getattr(head, name)
        for name in ImageSettings.model_fields
        if name in head.model_fields_set
    }
    shared = ImageSettings.model_validate(common)
    items: list[Item] = []
    seen: dict[str, str] = {}
    if rows and "sku" not in rows[0].cells:
        columns = ", ".join(rows[0].cells)
        faults.append(
            Fault(f"no column `sku` among {columns}", rows[0].where, "name the key `sku`")
        )
        return items
    for row in rows:
        own: list[Fault] = []
        item = _item(row, shared, common, seen, own)
        if not own:
            items.append(item)
        elif head.faulty_items == "skip":
            refused.append(Refused(item.sku, item.where, tuple(own)))
        else:
            faults.extend(own)
    return items


def _item(
    row: Row,
    shared: ImageSettings,
    common: Mapping[str, Any],
    seen: dict[str, str],
    faults: list[Fault],
) -> Item:
    """One row's item; `seen` are the skus so far and their places."""
    value = row.cells.get("sku")
    sku = "" if value is None or no_text(value) else str(value).strip()
    if value is not None and (problem := no_text(value)):
        faults.append(Fault(problem, f"{row.where}, column sku", "write the sku in quotes"))
    elif not sku or len(sku) > 100 or not sku.isprintable():
        what = f"sku {sku[:20]!r} is empty, longer than 100 or not printable"
        faults.append(Fault(what, f"{row.where}, column sku", "give each item a short key"))
    elif sku in seen:
        what = f"sku {sku!r} stands already at {seen[sku]}"
        faults.append(Fault(what, f"{row.where}, column sku", "use `count` for more images"))
    seen.setdefault(sku, row.where)
    own = {
        name: row.cells[name]
        for name in ImageSettings.model_fields
        if row.cells.get(name) not in (None, "")
    }
    settings = shared
    if own:
        # An item's size in one form replaces the brief's in the other.
        sizes = {"size"} if {"width", "height"} & own.keys() else {"width", "height"}
        dropped = sizes if {"width", "height", "size"} & own.keys() else set()
        inherited = {key: value for key, value in common.items() if key not in dropped}
        try:
            settings = ImageSettings.model_validate({**inherited, **own})
        except ValidationError as error:
            faults.extend(_faults_of(error, row.where, ImageSettings, own, "column "))
    negative = own.get("negative_prompt")
    if isinstance(negative, str) and (strange := strange_character(negative, but=_SPACES)):
        place = f"{row.where}, column negative_prompt"
        faults.append(Fault(f"holds the character {strange}", place, "take it out"))
    return Item(sku, settings, row.cells, row.where)


def _strange(path: Path, head: BriefFile, template: str | None) -> Iterator[Fault]:
    """Texts of the brief as a whole that hold what neither files nor the catalog can keep."""
    texts = {
        "negative_prompt": (head.negative_prompt, _SPACES),
        "template": (template or "", _SPACES),
        "write_prompts": (head.write_prompts or "", _SPACES),
        **{f"templates.{name}": (text, _SPACES) for name, text in head.templates.items()},
        "campaign": (head.campaign or "", ""),
        "client": (head.client, ""),
        "the file's name": (path.stem, ""),
    }
    for place, (text, spaces) in texts.items():
        if strange := strange_character(text, but=spaces):
            where = f"{ascii(path.name)[1:-1]}, {place}"
            yield Fault(f"holds the character {strange}", where, "take it out")


def _faults_of(
    error: ValidationError,
    where: str,
    model: type[BaseModel],
    content: Mapping[str, Any],
    place: str = "",
) -> list[Fault]:
    faults = []
    for fault in error.errors():
        path = written_path(fault["loc"], content, fault["type"] == "missing")
        field = ".".join(map(str, path))
        what, remedy = fault["msg"].removeprefix("Value error, "), "see docs/briefs.md"
        if fault["type"] == "extra_forbidden":
            near = difflib.get_close_matches(field, model.model_fields, 1)
            what = f"unknown key {field!r}"
            remedy = (
                f"did you mean {near[0]!r}?" if near else f"known: {', '.join(model.model_fields)}"
            )
        elif "input" in fault and isinstance(fault["input"], str | int | float):
            what = f"{what}, not {fault['input']!r}"
        faults.append(Fault(what, f"{where}, {place}{field}" if field else where, remedy))
    return faults
