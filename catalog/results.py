"""Writes an audit's answer as CSV, JSON or Parquet, for pipes and files."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import IO, Any
from uuid import UUID

from catalog.isolated import Answer

# A spreadsheet runs a cell that begins so as a formula, in full width too where it reads Chinese or
# Japanese (OWASP, "CSV Injection", owasp.org, read 2026-11).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_CHUNK_ROWS = 10_000


def write_csv(answer: Answer, stream: IO[str]) -> None:
    """RFC 4180 with a header line; nested values as JSON, bytes as base64, times as ISO 8601.

    Text that a spreadsheet would run as a formula, column names too, gets an apostrophe before it.
    """
    write_csv_rows(_rows(answer), stream, answer.columns)


def write_csv_rows(
    rows: Iterable[Mapping[str, Any]], stream: IO[str], columns: Sequence[str]
) -> None:
    """The same of rows that are no answer."""
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow([_cell(name) for name in columns])
    for row in rows:
        writer.writerow([_cell(row[name]) for name in columns])


def write_json(answer: Answer, stream: IO[str]) -> None:
    """One JSON array of objects, one line a row; JSON columns are nested, bytes are base64."""
    parsed = {
        name for name, kind in zip(answer.columns, answer.types, strict=True) if kind == "JSON"
    }
    separator = "[\n"
    for row in _rows(answer):
        plain = {
            name: json.loads(value) if name in parsed and value else _plain(value)
            for name, value in row.items()
        }
        stream.write(separator + json.dumps(plain, ensure_ascii=False, allow_nan=False))
        separator = ",\n"
    stream.write("[]\n" if separator == "[\n" else "\n]\n")


def write_parquet(answer: Answer, stream: IO[bytes]) -> None:
    """Parquet with the answer's own types, zstd."""
    import pyarrow.parquet as pq

    pq.write_table(answer.table, stream, compression="zstd")


def _rows(answer: Answer) -> Iterator[dict[str, Any]]:
    for batch in answer.table.to_batches(max_chunksize=_CHUNK_ROWS):
        yield from batch.to_pylist()


def _cell(value: Any) -> Any:
    value = _plain(value)
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return "" if value is None else value


def _plain(value: Any) -> Any:
    if value is None or type(value) in (str, int, bool):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta | Decimal | UUID):
        return str(value)
    if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        return str(value)
    return value
