"""`platemark show`: why a verdict is what it is, and the image beside its references."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import platemark
from PIL import Image, ImageOps

from catalog.lake import writing
from catalog.libraries import create_library
from catalog.libraries_add import add_works
from catalog.libraries_open import open_library
from catalog.libraries_remove import remove_works
from catalog.write import commit_batch, start_run
from pipeline.checks import ImageBatch
from pipeline.checks.copying import Copying
from pipeline.checks.rights import read_rights
from pipeline.encode import lossless_png
from pipeline.policy import load_policy
from pipeline.records import Asset, Produced
from pipeline.request import Request
from pipeline.settings import ROOT, Settings
from pipeline.store import place, stage
from pipeline.verdict import decide

STARTER = ROOT / "starter" / "references"
POLICY = """policy: shop
version: "7"
checks:
  copying: {libraries: [figures], crops: 0}
rules:
  - check: copying
    score: pdq
    severity: critical
    block: {below: 31}
licences: [Apache-2.0]
"""


def request_of(sku: str) -> Request:
    return Request(
        sku=sku, index=0, mode="text-to-image", model="starter", model_revision="ab" * 32,
        prompt="a bear", negative_prompt="", seed=1, width=128, height=128, steps=2, guidance=3.0,
        scheduler="ddim", campaign="", client="",
    )  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with COPY, a mirrored protected work, which was blocked, and VASE, which passed.

    PLAIN lies where its file is gone.
    """
    folder = tmp_path_factory.mktemp("show")
    (folder / "shop.yaml").write_text(POLICY)
    policy = load_policy(folder / "shop.yaml")
    settings = Settings(workspace=folder / "ws")
    copy = ImageOps.mirror(Image.open(STARTER / "mirolo-1.png").convert("RGB"))
    vase = Image.open(ROOT / "starter" / "demo" / "pictures" / "vase.png").convert("RGB")
    plain = Image.new("RGB", (128, 128), "#d0d0d0")
    images = np.stack([np.asarray(each) for each in (copy, vase, plain)])
    requests = tuple(request_of(sku) for sku in ("COPY", "VASE", "PLAIN"))
    with writing(settings.catalog) as lake:
        create_library(lake, "figures")
        works, _ = read_rights("figures", STARTER)
        add_works(lake, "figures", works, by="Ada")
        check = Copying(
            [open_library(lake, "figures")],
            descriptor=None, crops=0, shortlist=None, concepts=None, top=2, fresh_days=None,
        )  # fmt: skip
        produced = []
        for request, image, scores in zip(
            requests, images, check(ImageBatch(images, requests)), strict=True
        ):
            data = lossless_png(image)
            sha256, url = stage(settings, "quarantine", data, "image/png")
            asset = Asset(sha256, "quarantined", url, "image/png", 128, 128, len(data), sha256)
            verdict = decide(policy, request, "Apache-2.0", scores)
            produced.append(Produced(request, scores, verdict, asset))
        start_run(
            lake, "run-1", brief="b", brief_sha256="0" * 64, policy="shop", policy_version="7",
            policy_digest=policy.digest, requested=3, host="h", device="cpu", versions={},
        )  # fmt: skip
        commit_batch(lake, "run-1", "batch-1", produced)
        place(settings, [each.asset.url for each in produced])
    (settings.root / produced[2].asset.url).unlink()
    return settings.root


def show(workspace: Path, sku: str) -> dict:
    done = platemark("show", sku, "-w", str(workspace), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_reason_names_its_rule_file_line_score_bound_and_detector(workspace: Path) -> None:
    told = platemark("show", "COPY", "-w", str(workspace)).stdout
    assert "block by shop 7" in told
    assert "copying.pdq@figures 0 is below 31 (block): nearest reference" in told
    assert (
        "rule copying.pdq@figures at shop.yaml:6, critical severity, score 0, bound 31, "
        "detector pdq @ 2019"
    ) in told
    assert "nearest: Mirolo (Atelier Fennimore (invented)), mirrored" in told
    assert f"compare   {workspace}/comparisons/" in told


def test_the_image_is_drawn_beside_its_references(workspace: Path) -> None:
    told = show(workspace, "COPY")
    path = Path(told["comparison"])
    assert path == workspace / "comparisons" / f"{told['request']['request_id'][:16]}.jpg"
    with Image.open(path) as drawn:
        cells = [
            np.asarray(drawn.convert("RGB").crop((left, 20, left + 360, 380)).resize((64, 64)))
            for left in (20, 400, 780)
        ]
    unlike = np.abs(cells[0][4:-4, 4:-4].astype(int) - cells[1][4:-4, 4:-4]).mean()
    mirrored = np.abs(cells[0][4:-4, 4:-4].astype(int) - cells[1][4:-4, 4:-4][:, ::-1]).mean()
    assert mirrored < 3 < unlike
    assert [each["policy"] for each in told["verdict_history"]] == ["shop"]


def test_a_plain_image_says_that_it_was_not_compared_and_is_not_drawn(workspace: Path) -> None:
    assert show(workspace, "PLAIN")["comparison"] is None
    assert "too plain to be compared" in platemark("show", "PLAIN", "-w", str(workspace)).stdout


def test_where_nothing_can_be_written_the_story_is_told_all_the_same(workspace: Path) -> None:
    folder = workspace / "comparisons"
    kept = folder.rename(workspace / "kept") if folder.exists() else None
    folder.symlink_to(workspace / "nowhere")
    try:
        done = platemark("show", "VASE", "-w", str(workspace))
    finally:
        folder.unlink()
        if kept:
            kept.rename(folder)
    assert done.returncode == 0
    assert "no picture beside its references" in done.stderr
    assert "pass by shop 7" in done.stdout


def test_show_loads_no_model_code(workspace: Path) -> None:
    code = (
        "import sys; from platemark.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'diffusers', 'prefect', 'open_clip', 'faiss'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    command = [sys.executable, "-c", code, "show", "COPY", "-w", str(workspace)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_a_removed_reference_is_still_named_but_no_longer_drawn(workspace: Path) -> None:
    cited = show(workspace, "COPY")["scores"][0]["evidence"]["nearest"]
    settings = Settings(workspace=workspace)

    def remove(sha256s: set[str]) -> None:
        with writing(settings.catalog) as lake:
            rows = lake.rows('SELECT work_id, sha256 FROM "references"')
            gone = [row["work_id"] for row in rows if row["sha256"] in sha256s]
            remove_works(lake, "figures", gone, "licence given", "Ada")

    remove({cited[0]["sha256"]})
    told = show(workspace, "COPY")
    with Image.open(told["comparison"]) as drawn:
        pale = np.asarray(drawn.convert("RGB").crop((420, 40, 560, 150)))
    assert np.ptp(pale) < 8, "the place of a reference that is gone is empty"
    remove({each["sha256"] for each in cited})
    told = show(workspace, "COPY")
    assert told["comparison"] is None
    assert told["scores"][0]["evidence"]["nearest"] == cited
