"""Read a brief's item table (CSV, JSONL, Parquet, YAML) into rows that know where they stand."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import Fault

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet", ".yaml", ".yml")
MAX_BYTES = 1 << 30


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
            item = json.loads(line)
        except (ValueError, RecursionError) as error:
            faults.append(Fault(f"broken JSON: {error}", where, "one JSON object a line"))
            continue
        if isinstance(item, dict):
            yield Row(item, where)
        else:
            faults.append(Fault("not a JSON object", where, "one JSON object a line"))


def _yaml(name: str, text: str, faults: list[Fault]) -> Iterator[Row]:
    try:
        items = yaml.safe_load(text)
    except yaml.YAMLError as error:
        faults.append(yaml_fault(name, error))
        return
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


def yaml_fault(name: str, error: yaml.YAMLError) -> Fault:
    """A YAML syntax error as a fault with its line."""
    mark = getattr(error, "problem_mark", None)
    where = f"{name}, line {mark.line + 1}" if mark else name
    return Fault(f"broken YAML: {getattr(error, 'problem', None) or error}", where, "mend the YAML")
