"""verify and stamp on the command line: output, exit codes, packs, markets, lists, records."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from catalog.lake import reading, writing
from pipeline.keys import signing_identity
from pipeline.settings import ROOT, Settings
from platemark import display, verify_commands

FILES = ROOT / "tests" / "c2pa_files"
SIGNED, LIST = str(FILES / "signed.png"), str(FILES / "trufo_root.pem")
app = typer.Typer()
verify_commands.register(app)


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of tests are long: tables must not break them."""
    monkeypatch.setattr(display.out, "width", 400)


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, arguments)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    signing_identity(Settings(workspace=tmp_path / "ws"))
    return tmp_path / "ws"


def test_one_file_is_told_in_words_and_a_list_makes_it_trusted(workspace: Path) -> None:
    code, said = run("verify", SIGNED, "-w", str(workspace))
    assert code == 1
    assert "Valid" in said and "no configured root vouches" in said
    code, said = run("verify", SIGNED, "--trust", LIST, "-w", str(workspace))
    assert code == 0
    assert "'OpenAI Media Service' signed it" in said
    assert "time stamp of 2026-07-07" in said
    code, said = run("verify", SIGNED, "--trust-stamps", LIST, "-w", str(workspace))
    assert code == 1
    assert "is one of time-stamp authorities" in said


def test_a_market_is_told_by_file_and_as_a_table_and_decides_the_exit_code(workspace: Path) -> None:
    trusted = ("verify", SIGNED, "--trust", LIST, "-w", str(workspace))
    assert run(*trusted, "--market", "eu")[0] == 0
    code, said = run(*trusted, "-m", "eu", "-m", "google-merchant")
    assert code == 1
    assert "eu: yes that mark is digitally signed" in said
    assert "google-merchant: missing" in said
    assert "0 of 1" in said and "people decide" in said
    code, said = run(*trusted, "-m", "china", "--json")
    (row,) = json.loads(said)
    assert [each["met"] for each in row["markets"]["china"]] == [False, False, None]
    assert (code, row["ok"], row["state"]) == (1, False, "Trusted")


def test_folders_and_packs_give_a_line_of_json_a_file(workspace: Path, tmp_path: Path) -> None:
    pack = tmp_path / "pack.zip"
    with zipfile.ZipFile(pack, "w") as archive:
        archive.write(FILES / "A.jpg", "images/A.jpg")
        archive.write(FILES / "tampered.png", "images/tampered.png")
    code, said = run("verify", str(pack), str(FILES), "--jsonl", "-w", str(workspace))
    rows = [json.loads(line) for line in said.splitlines()]
    images = [path for path in FILES.iterdir() if path.suffix in (".jpg", ".png")]
    assert (code, len(rows)) == (1, 2 + len(images))
    assert rows[0]["path"] == f"{pack}/images/A.jpg"
    assert [row["state"] for row in rows[:2]] == ["None", "Invalid"]


def test_many_files_are_a_table_of_what_is_not_well(workspace: Path, tmp_path: Path) -> None:
    for number in range(25):
        (tmp_path / f"{number}.png").write_bytes((FILES / "compressed_boxhash.png").read_bytes())
    (tmp_path / "bad.png").write_bytes((FILES / "compressed_boxhash.png").read_bytes()[:-9])
    chain = str(FILES / "es256_certs.pem")
    code, said = run("verify", str(tmp_path), "--trust", chain, "-w", str(workspace))
    assert code == 1
    assert "bad.png" in said and "24.png" not in said
    assert "Trusted 25" in said
    code, said = run("verify", str(tmp_path), "--table", "--trust", chain, "-w", str(workspace))
    assert said.count("C2PA") == 25


def test_nothing_to_verify_is_no_yes(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run("verify", str(tmp_path / "empty"), "-w", str(workspace))[0] == 1


def test_what_was_found_is_recorded_when_asked(workspace: Path) -> None:
    settings = Settings(workspace=workspace)
    with writing(settings.catalog):
        pass
    run("verify", SIGNED, "-w", str(workspace))
    run("verify", SIGNED, str(FILES / "A.jpg"), "--record", "-w", str(workspace))
    with reading(settings.catalog) as lake:
        rows = lake.rows("SELECT state, verifier FROM verifications ORDER BY state")
    assert [row["state"] for row in rows] == ["None", "Valid"]
    assert all(row["verifier"].startswith("c2pa-rs ") for row in rows)


def test_stamping_nothing_says_so_and_without_an_authority_how_to_name_one(workspace: Path) -> None:
    from pipeline.errors import SetupError

    with pytest.raises(SetupError, match=r"signing\.timestamp_url"):
        run("stamp", "-w", str(workspace))


def test_names_in_a_strangers_pack_act_on_no_terminal(tmp_path: Path, workspace: Path) -> None:
    pack = tmp_path / "pack.zip"
    with zipfile.ZipFile(pack, "w") as archive:
        archive.writestr("a\x1b[2J\x9b2J.png\nTrusted  spring/images/b.png", b"x")
        archive.writestr("c\u202egnp.png", b"x")
    for style in ((), ("--table",)):
        code, told = run("verify", str(pack), "--workspace", str(workspace), *style)
        assert code == 1 and not {"\x1b", "\x9b", "\u202e"} & set(told)
        assert not any(line.startswith("Trusted") for line in told.splitlines())
