"""The main job, as `make demo` runs it: what was asked for is made, the rest is caught."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from command_line import platemark
from warm_platemark import Warm

from catalog.lake import reading
from pipeline.settings import load_settings


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, prefect_api: str) -> tuple[Path, dict[str, Any]]:
    workspace = tmp_path_factory.mktemp("demo") / "ws"
    done = platemark("demo", "--workspace", str(workspace), "--json")
    assert done.returncode == 0, done.stderr
    return workspace, json.loads(done.stdout)


def images(workspace: Path) -> dict[str, dict[str, Any]]:
    with reading(load_settings(workspace).catalog) as lake:
        rows = lake.rows("SELECT * FROM images")
    return {f"{row['sku']}-{row['index']}": row for row in rows}


def test_what_must_not_pass_is_caught_for_the_right_reason(demo: tuple[Path, Any]) -> None:
    made = images(demo[0])
    assert len(made) == 40
    for index in (0, 1):
        bare = made[f"MANNEQUIN-BARE-{index}"]
        assert bare["outcome"] == "block"
        assert any(reason["rule"].startswith("nsfw.") for reason in bare["reasons"])
        for sku, work in (("TOY-BEAR", "Mirolo"), ("SIGN-LOGO", "Orvanto")):
            copied = made[f"{sku}-{index}"]
            assert copied["outcome"] == "block"
            (reason,) = [r for r in copied["reasons"] if r["rule"] == "similarity.nearest"]
            assert json.loads(reason["evidence"])["nearest"][0]["title"].startswith(work)
        twin = made[f"TWIN-B-{index}"]
        assert twin["outcome"] == "review"
        assert "duplicates.exact" in {reason["rule"] for reason in twin["reasons"]}
        for sku in ("MUG-RED", "LAMP-ORANGE", "CHAIR-BLUE", "DRESS-RED", "SUIT-BLACK", "TWIN-A"):
            assert made[f"{sku}-{index}"]["outcome"] == "pass", sku


def test_the_pack_holds_what_passed_and_verifies(demo: tuple[Path, Any]) -> None:
    workspace, told = demo
    pack = told["pack"]
    passed = {name for name, row in images(workspace).items() if row["outcome"] == "pass"}
    assert pack["images"] == len(passed)
    assert {f"{left['sku']}-{left['index']}" for left in pack["left_out"]} == (
        images(workspace).keys() - passed
    )
    with zipfile.ZipFile(pack["path"]) as archive:
        assert "acme-web-2027" in archive.read("LICENSE.txt").decode()
        archive.extractall(workspace / "unpacked")
    checked = platemark("verify", str(workspace / "unpacked" / "images"), "-w", str(workspace))
    assert checked.returncode == 0, checked.stdout
    assert "development certificate" in checked.stdout


def test_the_tour_may_be_taken_again(demo: tuple[Path, Any], warm_platemark: Warm) -> None:
    again = warm_platemark("demo", "--workspace", str(demo[0]))
    assert again.returncode == 0, again.stderr
    assert "40 of 40 were done before" in again.stdout
    assert "starter world" in again.stderr
