"""`platemark train lora`: refuses before torch is loaded, trains, and says what it made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.errors import InputError, SetupError
from pipeline.settings import ROOT

CALL = (
    "import sys, typer\n"
    "from pipeline.errors import PlatemarkError\n"
    "from platemark import train_commands\n"
    "app = typer.Typer()\n"
    "train_commands.register(app)\n"
    "app.callback()(lambda: None)\n"
    "code = 0\n"
    "try: app()\n"
    "except SystemExit as stop: code = stop.code\n"
    "except PlatemarkError as error: print(error, file=sys.stderr); code = error.exit_code\n"
    "heavy = {'torch', 'diffusers', 'peft', 'prefect'} & set(sys.modules)\n"
    "print('loaded', sorted(heavy), file=sys.stderr)\n"
    "sys.exit(code)"
)
PROHIBITED = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/" '
    b'plus:DataMining="http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED"/></rdf:RDF></x:xmpmeta>'
)


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command alone, in a process of its own; stderr ends with what heavy was loaded."""
    return subprocess.run(
        [sys.executable, "-c", CALL, "train", "lora", *arguments],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, one of which forbids training in its XMP."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (64, 64), "teal").save(folder / "free.png")
    Image.new("RGB", (64, 64), "navy").save(folder / "marked.jpg", xmp=PROHIBITED)
    (folder / "rights.csv").write_text(
        "file,rights_holder,licence,training,caption\n"
        "free.png,Zorblat,owned,yes,a zorblat\nmarked.jpg,Zorblat,owned,yes,a zorblat\n"
    )
    return folder


def policy_of(folder: Path, extra: str = "") -> str:
    path = folder / "policy.yaml"
    path.write_text(f"policy: ours\nversion: '1'\nextends: starter\n{extra}")
    return str(path)


def test_help_is_light() -> None:
    done = call("--help")
    assert done.returncode == 0
    assert "rights.csv" in done.stdout
    assert done.stderr.strip() == "loaded []"


def test_it_refuses_with_all_faults_before_loading_anything(folder: Path, tmp_path: Path) -> None:
    done = call(
        str(folder), "--name", "starter-clip", "--base", "starte", "-w", str(tmp_path / "ws")
    )  # fmt: skip
    assert done.returncode == 2
    assert "did you mean 'starter'?" in done.stderr
    assert "'marked.jpg' says no to AI training: XMP plus:DataMining" in done.stderr
    assert "a model 'starter-clip' is declared (choose another name" in done.stderr
    assert done.stderr.strip().endswith("loaded []")
    assert not (tmp_path / "ws" / "adapters").exists()


def test_the_policy_gates_the_licence_of_the_base(folder: Path, tmp_path: Path) -> None:
    policy = policy_of(tmp_path, "licences: [MIT]\n")
    done = call(str(folder), "--name", "z", "--policy", policy, "-w", str(tmp_path / "ws"))
    assert done.returncode == 2
    assert "model starter: licence 'Apache-2.0' is not among those the policy lists" in done.stderr


def test_a_waiver_in_the_policy_lets_it_train(folder: Path, tmp_path: Path) -> None:
    waiver = "{rights_holder: Zorblat, document: letter.pdf, granted: 2026-01-01}"
    policy = policy_of(tmp_path, f"training: {{waivers: [{waiver}]}}\n")
    arguments = (
        str(folder), "--name", "zorblat", "--steps", "2", "--batch-size", "1", "--seed", "5",
        "--resolution", "64", "--policy", policy, "--workspace", str(tmp_path / "ws"),
    )  # fmt: skip
    done = call(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["name"], told["images"], told["waived"]) == ("zorblat", 2, 1)
    assert told["base"]["licence"] == "Apache-2.0"
    assert told["training"]["seed"] == 5
    made = tmp_path / "ws" / "adapters" / "zorblat"
    assert told["folder"] == str(made)
    card = json.loads((made / "adapter.json").read_text())
    assert card["images"][0]["waiver"] is None
    assert card["images"][1]["waiver"]["document"] == "letter.pdf"
    assert (
        "| marked.jpg | marked | Zorblat | owned | letter.pdf |" in (made / "README.md").read_text()
    )

    again = call(*arguments)
    assert again.returncode == 2
    assert "is there already (choose another name" in again.stderr
    assert again.stderr.strip().endswith("loaded []")


def test_people_read_what_was_made(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import typer

    from platemark import train_commands

    app = typer.Typer()
    train_commands.register(app)
    app.callback()(lambda: None)
    (folder / "marked.jpg").unlink()
    table = folder / "rights.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:2]))
    monkeypatch.setenv("PLATEMARK_DEVICE", "cpu")
    arguments = ["train", "lora", str(folder), "--name", "z", "--steps", "1", "--resolution", "64"]
    done = CliRunner().invoke(app, [*arguments, "-w", str(tmp_path / "ws")])
    assert done.exception is None, done.output
    assert "adapter z of starter" in done.output
    assert "Trained on 1 picture; licence owned" in done.output
    assert "Note: LoRA adapter of starter, trained on 1 picture of Zorblat." in done.output
    with pytest.raises((InputError, SetupError)):
        CliRunner().invoke(
            app, [*arguments, "-w", str(folder / "rights.csv")], catch_exceptions=False
        )
