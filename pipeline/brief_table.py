"""Read a brief's item table (CSV, JSONL, Parquet, YAML) into rows that know where they stand."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import Fault
from pipeline.yaml_lines import SCALAR_ERRORS

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet", ".yaml", ".yml")
MAX_BYTES = 1 << 30
_MAX_MERGED = 10_000
_TAG = "tag:yaml.org,2002:"
_AS_TEXT = tuple(_TAG + kind for kind in ("bool", "int", "float", "timestamp", "value"))
_STRANGE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Row:
    """One item: its cells by column, and its place (`items.csv, line 7`) for messages."""

    cells: Mapping[str, Any]
    where: str


def read_table(path: Path, faults: list[Fault]) -> list[Row]:
    """All rows of the table at `path`; whatever cannot be read is added to `faults`."""
    if path.suffix.lower() not in FORMATS:
        faults.append(Fault("unknown format", path.name, f"use one of {', '.join(FORMATS)}"))
        return []
    try:
        if path.stat().st_size > MAX_BYTES:
            faults.append(Fault("larger than 1 GiB", path.name, "split the brief"))
            return []
        data = path.read_bytes()
    except OSError as error:
        faults.append(Fault(error.strerror or str(error), str(path), "check the path"))
        return []
    if path.suffix.lower() == ".parquet":
        return _parquet(path, data, faults)
    text = decode_text(path.name, data, faults)
    if text is None:
        return []
    match path.suffix.lower():
        case ".jsonl":
            return list(_jsonl(path.name, text, faults))
        case ".yaml" | ".yml":
            return list(_yaml(path.name, text, faults))
        case _:
            return list(_csv(path.name, text, faults))


def decode_text(name: str, data: bytes, faults: list[Fault]) -> str | None:
    """UTF-8 text without its BOM, or None and a fault that names the line of the first bad byte."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        where = f"{name}, line {line}"
        faults.append(Fault(f"byte 0x{data[error.start]:02x} is not UTF-8", where, "save as UTF-8"))
        return None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        faults.append(Fault("a NUL byte", f"{name}, line {line}", "save as plain UTF-8 text"))
        return None
    return text


def strange_character(text: str, but: str = "") -> str:
    """The first control character or lone surrogate of `text` (`U+0007`), or an empty string.

    No file, catalog or label can keep them. Those in `but` are let through.
    """
    found = (each for each in _STRANGE.findall(text) if each not in but)
    return next((f"U+{ord(each):04X}" for each in found), "")


def no_text(cell: Any) -> str:
    """Why a cell cannot be printed (`a list is no text`); empty when it can."""
    if type(cell) is str:
        return ""
    if isinstance(cell, bool) or not isinstance(cell, str | int | float | Decimal | date | time):
        kind = {bool: "true or false", list: "a list", dict: "a mapping", bytes: "bytes"}
        return f"{kind.get(type(cell), type(cell).__name__)} is no text"
    if isinstance(cell, float) and math.isnan(cell):
        return "NaN is no text"
    return ""


def load_yaml(name: str, text: str, faults: list[Fault], items_as_text: bool = False) -> Any:
    """The plain data of a YAML text, or None and its faults with their lines where known.

    Faults are whatever YAML or Python cannot read (broken syntax, impossible dates, nesting too
    deep), a key written twice, a control character, and an empty document. With `items_as_text`
    scalars of the list (of the whole text, or of its key `items`) stay as written: `12:30`, `0010`.
    """
    before = len(faults)
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None:
            if items_as_text:
                _keep_items_as_text(node)
            faults.extend(_node_faults(name, loader, node))
        if len(faults) > before:
            return None
        content = None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        faults.append(yaml_fault(name, error, text))
        return None
    except RecursionError:
        where = f"{name}, line {loader.line + 1}" if loader else name
        faults.append(Fault("nests too deep", where, "write it flatter"))
        return None
    if content is None:
        faults.append(Fault("the file is empty", name, "write YAML into it"))
    return content


def _keep_items_as_text(root: yaml.Node) -> None:
    items: yaml.Node | None = root
    if isinstance(root, yaml.MappingNode):
        named = (value for key, value in root.value if key.value == "items")
        items = next(named, None)
    if isinstance(items, yaml.SequenceNode):
        for node in _nodes(items):
            if isinstance(node, yaml.ScalarNode) and node.tag in _AS_TEXT:
                node.tag = _TAG + "str"


def _nodes(root: yaml.Node) -> Iterator[yaml.Node]:
    """Every node once, in the order of the text, however often aliases name it."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.MappingNode):
            waiting.extend(each for pair in reversed(node.value) for each in reversed(pair))
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend(reversed(node.value))


def _node_faults(name: str, loader: yaml.SafeLoader, root: yaml.Node) -> Iterator[Fault]:
    sizes: dict[int, int] = {}
    for node in _nodes(root):
        where = f"{name}, line {node.start_mark.line + 1}"
        if isinstance(node, yaml.ScalarNode):
            if strange := strange_character(node.value, but="\t\n\r\x85"):
                yield Fault(f"the character {strange}", where, "take it out")
            elif node.tag not in (_TAG + "str", _TAG + "null", _TAG + "merge"):
                try:
                    loader.construct_object(node)
                except SCALAR_ERRORS as error:
                    what = f"{node.value[:80]!r}: {getattr(error, 'problem', None) or error}"
                    yield Fault(what, where, "mend the value, or put it in quotes")
        elif isinstance(node, yaml.MappingNode):
            keys: set[tuple[str, str]] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if (key.tag, key.value) in keys:
                        line = f"{name}, line {key.start_mark.line + 1}"
                        yield Fault(f"{key.value[:80]!r} is written twice", line, "keep one")
                    keys.add((key.tag, key.value))
            if _merged_size(node, sizes) > _MAX_MERGED:
                yield Fault("`<<` merges too many keys", where, "write them out")
                return


def _merged_size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many keys a mapping has once its `<<` are merged: aliases of aliases multiply."""
    if id(node) not in sizes:
        sizes[id(node)] = 0
        inside: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inside = [value for key, value in node.value if key.tag == _TAG + "merge"]
            sizes[id(node)] = len(node.value)
        elif isinstance(node, yaml.SequenceNode):
            inside = node.value
        sizes[id(node)] += sum(_merged_size(each, sizes) for each in inside)
    return sizes[id(node)]


def rows_of(name: str, items: Any, faults: list[Fault]) -> Iterator[Row]:
    """Rows of an already parsed list of mappings (a YAML or Parquet table)."""
    if not isinstance(items, list):
        faults.append(Fault("items is not a list", name, "write one mapping an item"))
        return
    for number, item in enumerate(items, 1):
        where = f"{name}, item {number}"
        if isinstance(item, dict) and all(isinstance(key, str) for key in item):
            yield Row(item, where)
        else:
            faults.append(Fault("not a mapping of columns to values", where, "write `sku: …`"))


def _csv(name: str, text: str, faults: list[Fault]) -> Iterator[Row]:
    header_line = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        if not any(header):
            faults.append(Fault("the file is empty", name, "the first line names the columns"))
            return
        for column in sorted({column for column in header if header.count(column) > 1}):
            named = f"column {column!r} stands twice" if column else "a column has no name"
            faults.append(Fault(named, f"{name}, line 1", "give each column a name of its own"))
        for cells in reader:
            where = f"{name}, line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                what = f"{len(cells)} cells where the header has {len(header)}"
                faults.append(Fault(what, where, "quote cells that contain the separator"))
                continue
            yield Row(dict(zip(header, (cell.strip() for cell in cells), strict=True)), where)
    except csv.Error as error:
        where = f"{name}, line {reader.line_num}"
        faults.append(Fault(f"broken CSV: {error}", where, "close the quotes of this line"))


def _jsonl(name: str, text: str, faults: list[Fault]) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            item = json.loads(line, parse_float=_JsonNumber, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            faults.append(Fault(f"broken JSON: {error}", where, "one JSON object a line"))
            continue
        if isinstance(item, dict):
            yield Row(item, where)
        else:
            faults.append(Fault("not a JSON object", where, "one JSON object a line"))


class _JsonNumber(float):
    """A JSON number that prints as it was written: `1.10` stays `1.10`."""

    _text: str

    def __new__(cls, text: str) -> _JsonNumber:
        number = super().__new__(cls, text)
        number._text = text
        return number

    def __str__(self) -> str:
        return self._text


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _yaml(name: str, text: str, faults: list[Fault]) -> Iterator[Row]:
    before = len(faults)
    items = load_yaml(name, text, faults, items_as_text=True)
    if len(faults) == before:
        yield from rows_of(name, items, faults)


def _parquet(path: Path, data: bytes, faults: list[Fault]) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        items = pq.read_table(pa.BufferReader(data)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        faults.append(Fault(f"not readable as Parquet: {error}", path.name, "write it again"))
        return []
    return list(rows_of(path.name, items, faults))


def yaml_fault(name: str, error: yaml.YAMLError, text: str = "") -> Fault:
    """A YAML syntax error as a fault with its line, where the error or `text` tells it."""
    mark = getattr(error, "problem_mark", None)
    where = f"{name}, line {mark.line + 1}" if mark else name
    if isinstance(error, yaml.reader.ReaderError) and text:
        line = text.count("\n", 0, error.position) + 1
        what = f"the character U+{error.character:04X}"
        return Fault(what, f"{name}, line {line}", "take it out")
    return Fault(f"broken YAML: {getattr(error, 'problem', None) or error}", where, "mend the YAML")
