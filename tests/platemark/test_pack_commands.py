from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pipeline.errors import InputError
from pipeline.settings import Settings
from platemark import display, pack_commands

sys.path.append(str(Path(__file__).parents[1] / "catalog"))

from pack_samples import product, studio

app = typer.Typer()
pack_commands.register(app)
RUNNER = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studio")
    studio(Settings(workspace=folder), [("MUG-1", product(128, 128)), ("LAMP-2", product(64, 64))])
    return folder


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of tests are long: tables must not break them."""
    monkeypatch.setattr(display.out, "width", 400)


def run(*arguments: str, code: int = 0) -> str:
    result = RUNNER.invoke(app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def test_channels_are_listed_with_their_word_on_ai_images() -> None:
    told = {
        each["channel"]: each["AI images"] for each in json.loads(run("channel", "list", "--json"))
    }
    assert (told["shutterstock"], told["google-merchant"]) == ("refused", "labelled")
    assert "adobe-stock.csv" in run("channel", "list")


def test_a_rule_is_shown_with_page_and_day() -> None:
    text = run("channel", "show", "adobe-stock")
    assert "at least 4,000,000" in text and "https://helpx.adobe.com/stock" in text
    assert "read 2026-11-25" in text and "Keywords" in text


def test_a_channel_file_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("channel: own\ntitle: Own\n")
    assert "in order" in run("channel", "check", str(path))
    path.write_text("channel: own\ntitle: Own\nrulez: []\n")
    with pytest.raises(InputError, match=r"own.yaml:3: rulez: unknown key"):
        run("channel", "check", str(path))


def test_a_dry_run_shows_what_does_not_fit_and_what_would_help(
    workspace: Path, tmp_path: Path
) -> None:
    items = tmp_path / "items.csv"
    items.write_text(
        "sku,title,description,link,availability,price\n"
        + "".join(
            f"{sku},A thing,Made well.,https://shop.example.com/{sku},in_stock,9 EUR\n"
            for sku in ("MUG-1", "LAMP-2")
        )
    )
    arguments = ("export", "-w", str(workspace), "--channel", "google-merchant", "--dry-run")
    given = ("--items", str(items), "--set", "base_url=https://cdn.example.com")
    text = run(*arguments, *given)
    assert "1 images fit, 0 of them as renditions" in text
    assert "the shortest side" in text
    assert "larger by 1.6× with an `upscaling` step" in text and "answer/6324350" in text
    told = json.loads(run(*arguments, *given, "--json"))
    assert [each["sku"] for each in told["unfit"]] == ["LAMP-2"]
    assert not list(workspace.glob("packs/*"))


def test_an_export_names_what_it_wrote(workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    told = json.loads(run("export", "-w", str(workspace), "--out", str(out), "--json"))
    assert (told["images"], told["path"]) == (2, str(out))
    assert (out / "SHA256SUMS").is_file()


def test_faulty_arguments_are_named(workspace: Path) -> None:
    with pytest.raises(InputError, match="--out: must be given"):
        run("export", "-w", str(workspace))
    with pytest.raises(InputError, match="write name=value"):
        run("export", "-w", str(workspace), "--out", "a.zip", "--set", "base_url")
    with pytest.raises(InputError, match="nothing to do"):
        run("revoke", "-w", str(workspace))


def test_what_is_revoked_goes_into_no_pack_and_onto_the_signed_list(tmp_path: Path) -> None:
    studio(Settings(workspace=tmp_path / "ws"), [("MUG-1", product(32, 32))])
    where = ("-w", str(tmp_path / "ws"))
    listed = tmp_path / "revoked.json"
    text = run(
        *("revoke", "MUG-1", *where, "--reason", "recalled", "--by", "ada"),
        *("--list", str(listed)),
    )
    assert "revoked by ada" in text and "recalled" in text
    assert json.loads(listed.read_text())["list"]["revoked"][0]["reason"] == "recalled"
    run("export", *where, "--dry-run", "--terms", "spring-web", code=1)
