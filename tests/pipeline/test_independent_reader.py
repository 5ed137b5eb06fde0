"""The same files through a C2PA reader of other make (c2pa-ts, TypeScript), as JPEG and as PNG.

It knows no trusted roots and does not validate the manifests of ingredients: `valid` means that
hashes and signature of the active manifest hold.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from histories import HISTORIES, MARKED, Studio

from pipeline.keys import Identity
from pipeline.policy import load_policy
from pipeline.settings import ROOT, Settings

pytestmark = pytest.mark.skipif(which("node") is None, reason="node is not installed")
READER = ROOT / "tests" / "c2pa_ts"


def read(path: Path) -> dict[str, Any]:
    if not (READER / "node_modules" / "@trustnxt" / "c2pa-ts").is_dir():
        pytest.fail(f"{READER} has no node_modules: `make test` installs them")
    done = subprocess.run(
        ["node", str(READER / "read.mjs"), str(path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, identity: Identity) -> Studio:
    settings = Settings(workspace=tmp_path_factory.mktemp("studio"))
    return Studio(settings, identity, load_policy("starter"))


@pytest.fixture
def saved(studio: Studio, tmp_path: Path) -> Callable[[str, str], Path]:
    def save(name: str, format: str) -> Path:
        data, _ = studio.sealed(HISTORIES[name].build(studio), format)
        path = tmp_path / f"image.{format}"
        path.write_bytes(data)
        return path

    return save


@pytest.mark.parametrize("format", ["png", "jpeg"])
@pytest.mark.parametrize("name", HISTORIES)
def test_another_reader_sees_the_same_history(
    name: str, format: str, saved: Callable[[str, str], Path]
) -> None:
    expected = HISTORIES[name]
    found = read(saved(name, format))
    assert found["valid"], found["failure"]
    assert found["claim"]["generator"] == "Platemark"
    told = tuple((a["action"], a.get("digital_source_type")) for a in found["actions"])
    assert told == (*expected.actions, MARKED)
    ingredients = tuple((i["relationship"], i["title"]) for i in found["ingredients"])
    assert ingredients == expected.ingredients
    for each in found["ingredients"]:
        if each["title"] in expected.signed:
            assert each["manifest"] in found["manifests"]
        else:
            assert each["instance_id"].startswith("sha256:") and each["manifest"] is None
    named = [
        uri.rsplit("/", 1)[-1]
        for action in found["actions"]
        for uri in (action["parameters"] or {}).get("ingredients") or []
    ]
    assert set(named) == {each["label"] for each in found["ingredients"]}


@pytest.mark.parametrize("format", ["png", "jpeg"])
def test_the_other_reader_notices_a_change(format: str, saved: Callable[[str, str], Path]) -> None:
    path = saved("text-to-image", format)
    data = bytearray(path.read_bytes())
    data[-30] ^= 1
    path.write_bytes(data)
    assert not read(path)["valid"]


def test_a_file_without_a_manifest_is_not_valid(studio: Studio) -> None:
    studio.file("photo.png")
    found = read(studio.folder / "photo.png")
    assert (found["valid"], found["active_manifest"]) == (False, None)
