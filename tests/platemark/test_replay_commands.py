"""replay and release as people run them, over images that are really signed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parents[1] / "catalog"))

from workspace_samples import HELD, MILD, shoot

from catalog.lake import reading
from pipeline.settings import Settings
from platemark import replay_commands

app = typer.Typer()
replay_commands.register(app)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Three images in review; `mild.yaml` lets them pass, `held.yaml` is what holds them."""
    monkeypatch.chdir(tmp_path)
    for policy in (MILD, HELD):
        (tmp_path / f"{policy.policy}.yaml").write_text(policy.text)
    settings = Settings(workspace=tmp_path / "ws")
    shoot(settings, HELD, ["review"] * 3)
    return settings


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(app, [*arguments, "--workspace", "ws"], catch_exceptions=False)
    assert done.exit_code == 0
    return done


def test_a_replay_says_what_would_change_and_records_nothing(shop: Settings) -> None:
    told = run("replay", "--policy", "mild.yaml").stdout
    assert "3 images under mild 1" in told and "3 verdicts change" in told
    assert "campaign-0" in told and "before: held" in told
    assert "Nothing is recorded: add --apply" in told
    with reading(shop.catalog) as lake:
        assert lake.rows("SELECT * FROM replays") == []


def test_applied_and_released_images_are_cleared(shop: Settings) -> None:
    told = json.loads(
        run("replay", "--policy", "mild.yaml", "--apply", "--by", "ada", "--json").stdout
    )
    assert told["changed"] == 3 and told["applied"]["to_sign"] == 3
    assert told["now"] == {"pass": 3, "review": 0, "block": 0}
    assert json.loads(run("release", "--json").stdout) == {"signed": 3, "failed": []}
    assert "0 images signed" in run("release").stdout
    with reading(shop.catalog) as lake:
        assert lake.rows("SELECT DISTINCT cleared FROM images") == [{"cleared": True}]
        (recorded,) = lake.rows("SELECT applied_by, changed FROM replays")
    assert recorded == {"applied_by": "ada", "changed": 3}
    assert "0 verdicts change" in run("replay", "--policy", "mild.yaml").stdout


def test_a_condition_narrows_it_down(shop: Settings) -> None:
    told = run("replay", "--policy", "mild.yaml", "--where", "sku = 'MUG-00001'", "--json").stdout
    assert json.loads(told)["judged"] == 1
