"""Settings: where they come from, which comes first, and everything that can be wrong with them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.development import init_development_keys
from pipeline.errors import InputError, SetupError
from pipeline.lock import workspace_lock
from pipeline.settings import Settings, load_settings


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file in a folder beside the working directory."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PLATEMARK_CONFIG", "../there/own.toml")
    path = tmp_path / "there" / "own.toml"
    path.touch()
    return path


def told(workspace: Path | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load_settings(workspace)
    return str(caught.value)


def test_paths_in_the_file_start_at_its_folder_all_others_here(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text(
        "workspace = 'w'\nmodels = 'm.yaml'\nproducer = 'p'\n[libraries]\na = 'lib'\n"
        "[signing]\nkey = '/k.pem'\ncertificates = 'c.pem'\n"
    )
    there = config.absolute().parent
    settings = load_settings()
    assert settings.root == (there / "w").resolve()
    assert os.path.normpath(str(settings.models)) == str(there / "m.yaml")
    assert os.path.normpath(settings.libraries["a"]) == str(there / "lib")
    assert os.path.normpath(str(settings.signing.certificates)) == str(there / "c.pem")
    assert (settings.signing.key, settings.producer) == (Path("/k.pem"), "p")
    monkeypatch.setenv("PLATEMARK_MODELS", "mine.yaml")
    assert load_settings().models == Path("mine.yaml")
    assert load_settings(Path("v")).root == (Path.cwd() / "v").resolve()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"devise = 'cpu'", "devise"),
        (b"batch_size = 0", "batch_size"),
        (b"a = ", "own.toml: "),
        (b"a = 2027-02-30", "own.toml: "),
        (b"a = " + b"[" * 5000, "own.toml: "),
        (b"\xff", "own.toml: not UTF-8"),
        (b'workspace = "a\\u0000"', "null byte"),
    ],
)
def test_a_faulty_file_is_named(config: Path, content: bytes, said: str) -> None:
    config.write_bytes(content)
    assert said in told()


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_a_named_file_must_be_one(config: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATEMARK_CONFIG", name)
    assert f"{name}: " in told()


def test_the_default_file_may_be_absent(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLATEMARK_CONFIG")
    assert load_settings().producer == "Platemark"
    Path("platemark.toml").write_text("producer = 'Acme'")
    assert load_settings().producer == "Acme"


def test_wrong_variables_are_faults_together(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATEMARK_HOME", "x")
    load_settings()
    monkeypatch.setenv("PLATEMARK_WORKSPCE", "x")
    monkeypatch.setenv("PLATEMARK_DEVICE", "abacus")
    message = told()
    assert (
        "PLATEMARK_WORKSPCE: there is no such setting (did you mean PLATEMARK_WORKSPACE?)"
        in message
    )
    assert "device" in message
    monkeypatch.setenv("PLATEMARK_LIBRARIES", "notjson")
    assert "PLATEMARK_LIBRARIES: is no JSON" in told()


def test_a_workspace_that_cannot_be_one_is_a_fault(config: Path, tmp_path: Path) -> None:
    assert "is no folder" in told(config)
    assert "Not a directory" in told(config / "x")
    assert "File name too long" in told(tmp_path / ("x" * 300))


def test_a_workspace_that_cannot_be_made_is_told_before_anything_is_written(
    config: Path, tmp_path: Path
) -> None:
    settings = Settings(workspace=config / "x")
    with pytest.raises(SetupError, match="cannot be made"), workspace_lock(settings):
        pass
    with pytest.raises(SetupError, match="cannot be put"):
        init_development_keys(settings.keys)
    assert Settings(workspace=tmp_path / "new").make_root().is_dir()
