from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog.audit import Answer
from catalog.results import write_csv, write_json, write_parquet

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TABLE = pa.table(
    {
        "sku": ["=cmd|' /C calc'!A0", 'a "b", c\nd'],
        "n": [-1, None],
        "real": [0.5, float("nan")],
        "at": [MOMENT, None],
        "day": [date(2026, 1, 2), None],
        "bytes": [b"\x00\xff", b""],
        "terms": ['{"id":"web"}', None],
        "reasons": [[{"rule": "a", "score": 0.5}], []],
        "exact": [Decimal("1.50"), None],
    }
)
ANSWER = Answer(
    TABLE,
    ("VARCHAR", "BIGINT", "DOUBLE", "TIMESTAMP", "DATE", "BLOB", "JSON", "STRUCT[]", "DECIMAL"),
)
EMPTY = Answer(TABLE.slice(0, 0), ANSWER.types)


def test_csv_is_quoted_and_runs_no_formula() -> None:
    stream = io.StringIO(newline="")
    write_csv(ANSWER, stream)
    header, first, second = csv.reader(io.StringIO(stream.getvalue(), newline=""))
    assert header == TABLE.column_names
    assert first[0] == "'=cmd|' /C calc'!A0"
    assert first[1:6] == ["-1", "0.5", "2026-01-02T03:04:05+00:00", "2026-01-02", "AP8="]
    assert json.loads(first[7]) == [{"rule": "a", "score": 0.5}]
    assert second[0] == 'a "b", c\nd' and second[1] == ""


def test_json_is_json_with_json_columns_nested() -> None:
    stream = io.StringIO()
    write_json(ANSWER, stream)
    first, second = json.loads(stream.getvalue())
    assert first["terms"] == {"id": "web"} and first["bytes"] == "AP8="
    assert first["at"] == "2026-01-02T03:04:05+00:00" and first["exact"] == "1.50"
    assert second["real"] == "nan" and second["terms"] is None


def test_parquet_keeps_types_and_values() -> None:
    stream = io.BytesIO()
    write_parquet(ANSWER, stream)
    stream.seek(0)
    back = pq.read_table(stream)
    assert back.schema.field("at").type == TABLE.schema.field("at").type
    assert back.column("reasons").to_pylist() == TABLE.column("reasons").to_pylist()


def test_an_empty_answer_is_still_a_whole_file() -> None:
    text, table = io.StringIO(newline=""), io.StringIO()
    write_csv(EMPTY, text)
    write_json(EMPTY, table)
    assert text.getvalue().count("\r\n") == 1
    assert json.loads(table.getvalue()) == []


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1", "＋1", "－1", "＠SUM(A1)"],
)
def test_neither_cells_nor_names_of_columns_run_as_formulas(text: str) -> None:
    stream = io.StringIO(newline="")
    write_csv(Answer(pa.table({text: [text]}), ("VARCHAR",)), stream)
    header, cell = csv.reader(io.StringIO(stream.getvalue(), newline=""))
    assert header == cell == ["'" + text]
