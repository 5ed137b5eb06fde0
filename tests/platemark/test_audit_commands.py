"""audit, lineage and report as people call them."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
import typer
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "catalog"))

from catalog_samples import begin, produced_of
from test_made_from import INPAINTED, VARIED

from catalog.lake import writing
from catalog.write import commit_batch
from pipeline.errors import PlatemarkError
from platemark import audit_commands, lineage_commands, report_commands

Call = Callable[..., Result]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A workspace, and a moment before its last commit."""
    root = tmp_path_factory.mktemp("asked")
    with writing(root / "catalog") as lake:
        begin(lake)
        commit_batch(lake, "run-1", "b1", [INPAINTED, VARIED, produced_of(4), produced_of(7)])
        then = datetime.now(UTC).isoformat()
        commit_batch(lake, "run-1", "b2", [produced_of(8, sku="=1+1")])
    return root, then


@pytest.fixture(scope="module")
def call(workspace: tuple[Path, str]) -> Call:
    app = typer.Typer()
    for commands in (audit_commands, lineage_commands, report_commands):
        commands.register(app)
    return lambda *arguments: CliRunner().invoke(app, [*arguments, "-w", str(workspace[0])])


def refused(result: Result) -> str:
    """The message of an error that people get."""
    assert isinstance(result.exception, PlatemarkError), result.output
    return str(result.exception)


def test_questions_are_asked_now_and_as_of_then(call: Call, workspace: tuple[Path, str]) -> None:
    ask = ("audit", "pass-rate-by-campaign", "-f", "json")
    now, then = (call(*ask), call(*ask, "--as-of", workspace[1]))
    assert [sum(row["images"] for row in json.loads(each.stdout)) for each in (now, then)] == [5, 4]
    sql = ("audit", "--sql", "SELECT count(*) AS n FROM images", "-f", "json")
    assert json.loads(call(*sql, "--as-of", workspace[1]).stdout) == [{"n": 4}]
    assert "yet to come" in refused(call(*ask, "--as-of", "2999-01-01"))


def test_an_answer_that_was_cut_says_so(call: Call) -> None:
    ask = ("audit", "why-not-passed", "-f", "json")
    whole = call(*ask)
    count = len(json.loads(whole.stdout))
    assert count > 1 and "there may be more" not in whole.stderr
    cut = call(*ask, "-P", "limit=1")
    assert len(json.loads(cut.stdout)) == 1
    assert "the first 1 rows, there may be more: -P limit=10" in cut.stderr


def test_explain_prints_the_sql_with_its_parameters(call: Call) -> None:
    told = call("audit", "expiring", "-P", "days=7", "--explain").stdout
    assert told.startswith("-- Cleared images whose") and "current_date + 7::INTEGER" in told
    assert "$" not in told
    planned = call("audit", "expiring", "--plan").stdout
    assert planned.startswith("-- Cleared") and "FILTER" in planned
    assert "PROJECTION" in call("audit", "--sql", "SELECT sku FROM images", "--plan").stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["audit", "packs", "--sql", "SELECT 1"], "give one of them"),
        (["audit", "packs", "-f", "xml"], "unknown format 'xml'"),
        (["audit", "packs", "-P", "limit"], "has no value"),
        (["audit", "packs", "-P", "limit=many", "--explain"], "'many' is not a number"),
        (["audit", "--sql", "COPY (SELECT 1) TO 'x'", "--explain"], "one SELECT, this is COPY"),
        (["audit", "--sql", "SELECT getenv('HOME')", "--plan"], "the function getenv"),
        (["lineage", "nobody"], "knows nothing of that name"),
        (["lineage", "MUG-00001", "-f", "pdf"], "unknown format 'pdf'"),
        (["lineage", "MUG-00001", "--as-of", "then"], "is no time"),
        (["report"], "give --campaign, or --from and --to"),
        (["report", "--from", "November"], "'November' is no day"),
        (["report", "--from", "2026-02-01", "--to", "2026-01-01"], "is after"),
        (["report", "--campaign", "c", "--as-of", "1999-01-01"], "knows nothing"),
    ],
)
def test_what_is_wrong_is_said(call: Call, arguments: list[str], told: str) -> None:
    assert told in refused(call(*arguments))


def test_lineage_is_a_table_a_list_and_a_graph(call: Call, tmp_path: Path) -> None:
    table = call("lineage", "MUG-00002", "--up").stdout
    assert (
        "what it was made of" in table and "photo.png" in table and "made of it" not in table[60:]
    )
    rows = list(csv.DictReader(io.StringIO(call("lineage", "photo.png", "-f", "csv").stdout)))
    assert [(row["depth"], row["name"]) for row in rows] == [
        ("1", "MUG-00001-0"),
        ("2", "MUG-00002-0"),
    ]
    told = json.loads(call("lineage", "photo.png", "--down", "-f", "json").stdout)
    assert {node["depth"] for node in told["nodes"]} == {0, 1, 2} and not told["cut"]
    assert call("lineage", "brand", "-f", "dot").stdout.startswith("digraph lineage {")
    drawn = tmp_path / "graph.svg"
    assert call("lineage", "MUG-00002", "-o", str(drawn)).exit_code == 0
    assert ElementTree.parse(drawn).getroot().tag.endswith("svg")


def test_a_file_is_found_by_its_bytes(call: Call, tmp_path: Path) -> None:
    """Sample number 7 is the file of these bytes, whatever it is called now."""
    (tmp_path / "renamed.bin").write_bytes(b"file 7")
    told = json.loads(call("lineage", str(tmp_path / "renamed.bin"), "-f", "json").stdout)
    assert "MUG-00007-0" in {node["name"] for node in told["nodes"] if node["depth"] == 0}


def test_formulas_do_not_run_in_lineage_tables(call: Call) -> None:
    rows = list(csv.reader(io.StringIO(call("lineage", "retail", "-f", "csv").stdout or "")))
    rows += list(csv.reader(io.StringIO(call("lineage", "=1+1", "-f", "csv").stdout)))
    assert rows and not [cell for row in rows for cell in row if cell.startswith("=")]


def test_a_report_is_a_file(call: Call, tmp_path: Path) -> None:
    page = tmp_path / "out" / "report.html"
    told = call("report", "--campaign", "campaign-1", "--out", str(page), "--json")
    assert json.loads(told.stdout) == {"files": [str(page)], "images": 3}
    assert "campaign campaign-1" in page.read_text()


def test_a_report_without_a_browser_is_html_all_the_same(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin/nowhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    page = tmp_path / "report.html"
    told = call("report", "--from", "2020-01-01", "-o", str(page), "--pdf")
    assert "a PDF needs a browser" in refused(told)
    assert page.exists() and not page.with_suffix(".pdf").exists()


def test_the_story_can_be_told_as_of_then(call: Call, workspace: tuple[Path, str]) -> None:
    told = call("show", "MUG-00007", "--as-of", workspace[1], "--json")
    assert json.loads(told.stdout)["request"]["sku"] == "MUG-00007"
    assert "no such image" in refused(call("show", "=1+1", "--as-of", workspace[1]))
