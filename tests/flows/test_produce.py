"""The produce flow on the real starter models: made once, resumed, refused, never half done."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from warm_platemark import Run as Started
from warm_platemark import Warm

from catalog.lake import reading
from catalog.metadata import exists
from pipeline.errors import BusyError, InputError, SetupError
from pipeline.keys import trust_anchors
from pipeline.lock import workspace_lock
from pipeline.settings import load_settings
from pipeline.store import path_of
from pipeline.verify import verify_file

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(shop: Path, prefect_api: str) -> Run:
    from flows.produce import produce

    def run(
        brief: str = "brief.yaml", policy: str = "plain.yaml", **options: Any
    ) -> dict[str, Any]:
        return produce(brief, policy, workspace="ws", **options)

    return run


def rows(sql: str, workspace: str = "ws") -> list[dict[str, Any]]:
    with reading(load_settings(Path(workspace)).catalog) as lake:
        return lake.rows(sql)


def files(workspace: str, folder: str) -> set[str]:
    root = Path(workspace) / folder
    return {path.stem for path in root.rglob("*") if path.is_file()}


def assert_whole(workspace: str, requested: int) -> None:
    """Nothing missing, nothing twice, nothing half-written, every signed file Trusted."""
    settings = load_settings(Path(workspace))
    made = rows("SELECT request_id, state, url, sha256 FROM images", workspace)
    assert len(made) == requested
    assert len({row["request_id"] for row in made}) == requested
    assert {row["state"] for row in made} == {"done"}
    assert files(workspace, "assets") == {row["sha256"] for row in made}
    assert files(workspace, "staging") == set()
    anchors = trust_anchors(settings)
    for row in made:
        report = verify_file(path_of(settings, row["url"]), anchors)
        assert report.state == "Trusted"
        assert report.decodes
        assert report.sha256 == row["sha256"]


def test_a_run_makes_signs_and_indexes_and_a_second_run_makes_nothing(run: Run) -> None:
    summary = run()
    assert summary["outcomes"] == {"pass": 3, "review": 0, "block": 0, "failed": 0}
    assert Path(summary["contact_sheet"]).stat().st_size > 1000
    assert_whole("ws", 3)
    again = run()
    assert (again["made"], again["done_before"]) == (0, 3)
    assert_whole("ws", 3)


def test_new_items_are_added_and_old_pixels_stay(run: Run, shop: Path) -> None:
    run()
    before = {row["sku"]: row["pixels_sha256"] for row in rows("SELECT * FROM images")}
    (shop / "items.csv").write_text(
        "sku,thing\nD,red book\nA,red mug\nB,blue vase\nC,green lamp\nE,pink bowl\n"
    )
    assert run()["made"] == 2
    after = {row["sku"]: row["pixels_sha256"] for row in rows("SELECT * FROM images")}
    assert before.items() <= after.items()
    # Made anew, in other company, an image has the same pixels.
    from flows.produce import produce

    produce("brief.yaml", "plain.yaml", workspace="other")
    alone = {row["sku"]: row["pixels_sha256"] for row in rows("SELECT * FROM images", "other")}
    assert alone == after


def test_what_is_held_or_barred_is_not_signed(run: Run) -> None:
    assert run(policy="held.yaml")["outcomes"]["review"] == 3
    assert files("ws", "assets") == set()
    assert len(files("ws", "quarantine")) == 3
    assert {row["asset_state"] for row in rows("SELECT * FROM images")} == {"quarantined"}


def test_rejects_are_not_kept_when_the_policy_says_so(run: Run, shop: Path) -> None:
    text = (shop / "barred.yaml").read_text()
    (shop / "barred.yaml").write_text(f"{text}rejects: {{keep: none}}\n")
    assert run(policy="barred.yaml")["outcomes"]["block"] == 3
    assert files("ws", "quarantine") == set()
    assert {row["asset_state"] for row in rows("SELECT * FROM images")} == {"discarded"}
    assert rows("SELECT count(*) AS n FROM scores")[0]["n"] > 0


def test_two_runs_at_once_are_refused(run: Run) -> None:
    settings = load_settings(Path("ws"))
    code = (
        "import sys; from pathlib import Path; from pipeline.lock import workspace_lock;"
        "from pipeline.settings import load_settings;"
        "lock = workspace_lock(load_settings(Path('ws'))); lock.__enter__();"
        "print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(BusyError, match=str(holder.pid)):
            run()
    finally:
        holder.kill()
        holder.wait()
    with workspace_lock(settings):
        pass


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model", "folder .* is absent"),
        ("weights", "declares 0000"),
        ("library", "no library 'mine'"),
        ("detector", "no image-classifier model 'gone'"),
        ("corrupt reference", "bad.png"),
        ("watermark", "TrustMark cannot be imported"),
    ],
)
def test_a_set_up_that_cannot_run_stops_before_the_first_image(
    run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch, change: str, said: str
) -> None:
    models = shop / "models.yaml"
    entry = "kind: text-to-image, licence: Apache-2.0"
    if change == "model":
        models.write_text(f"models:\n  starter: {{{entry}, folder: nowhere}}\n")
        monkeypatch.setenv("PLATEMARK_MODELS", str(models))
    elif change == "weights":
        from pipeline.settings import ROOT

        folder = ROOT / "starter" / "weights" / "text-to-image"
        digest = "0" * 64
        models.write_text(
            f"models:\n  starter: {{{entry}, folder: {folder}, weights_sha256: '{digest}'}}\n"
        )
        monkeypatch.setenv("PLATEMARK_MODELS", str(models))
    elif change == "watermark":
        monkeypatch.setitem(sys.modules, "trustmark", None)
        text = (shop / "plain.yaml").read_text()
        (shop / "plain.yaml").write_text(f"{text}labels: {{watermark: trustmark}}\n")
    else:
        checks = {
            "library": "similarity: {model: starter-clip, libraries: [mine]}",
            "corrupt reference": "similarity: {model: starter-clip, libraries: [mine]}",
            "detector": "nsfw: {classifier: {model: gone, unsafe_labels: [nsfw]}}",
        }[change]
        text = (shop / "plain.yaml").read_text().replace("quality: {}", f"quality: {{}}, {checks}")
        (shop / "plain.yaml").write_text(text)
    if change == "corrupt reference":
        (shop / "mine").mkdir()
        (shop / "mine" / "bad.png").write_bytes(b"\x89PNG broken")
        (shop / "mine" / "rights.csv").write_text(
            "file,title,rights_holder,licence,role,note\nbad.png,Bad,Acme,none,protected,\n"
        )
        monkeypatch.setenv("PLATEMARK_LIBRARIES", f'{{"mine": "{shop / "mine"}"}}')
    with pytest.raises((SetupError, InputError), match=said):
        run()
    assert files("ws", "assets") == set()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_loses_nothing_that_was_made(run: Run, shop: Path) -> None:
    run()
    disk = shop / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    (shop / "items.csv").write_text("sku,thing\nA,red mug\nB,blue vase\nC,green lamp\nD,red book\n")
    try:
        (shop / "ws" / "staging").rename(shop / "ws" / "staging-old")
        (shop / "ws" / "staging").symlink_to(disk)
        with pytest.raises(SetupError, match="no room left"):
            run()
        assert_whole("ws", 3)
    finally:
        (shop / "ws" / "staging").unlink()
        subprocess.run(["umount", str(disk)], check=True)
    assert run()["made"] == 1
    assert_whole("ws", 4)


KILLS, LEFT = 12, 24
"""Kills, and images that each run has to make."""


def test_killed_at_any_moment_a_run_goes_on_where_it_stopped(
    shop: Path, warm_platemark: Warm
) -> None:
    """kill -9 at random moments; after each the catalog is whole, at the end nothing is missing."""
    run = ("run", "brief.yaml", "--policy", "plain.yaml", "--workspace", "ws")
    moments = random.Random(7)
    done, killed_at_work, killed_between = 0, 0, 0
    for _ in range(KILLS):
        # However fast the machine is, there is work at every moment.
        skus = "\n".join(f"S{number},red mug" for number in range(done + LEFT))
        (shop / "items.csv").write_text(f"sku,thing\n{skus}\n")
        process = warm_platemark.start(*run, PLATEMARK_BATCH_SIZE="2")
        _wait_for_files(process, len(files("ws", "assets")) + moments.randrange(6))
        process.ended(moments.uniform(0, 1))
        process.kill()
        killed = process.wait().returncode == -signal.SIGKILL
        killed_at_work += killed
        if not exists(Path("ws/catalog")):
            continue
        counts = rows("SELECT count(*) AS n, count(DISTINCT request_id) AS d FROM images")[0]
        assert counts["n"] == counts["d"]
        assert rows("SELECT count(*) AS n FROM attempts WHERE NOT counts")[0]["n"] == 0
        killed_between += killed and done < counts["n"]
        done = counts["n"]
    last = warm_platemark(*run, PLATEMARK_BATCH_SIZE="2")
    assert last.returncode == 0, last.stderr
    assert killed_at_work >= KILLS // 2
    assert killed_between >= KILLS // 4
    assert_whole("ws", skus.count("\n") + 1)


def _wait_for_files(process: Started, count: int) -> None:
    """Until the run is at work, and so many images are in place."""
    lock = Path("ws/.lock")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not process.ended(0.02):
        at_work = lock.exists() and lock.read_text() == str(process.pid)
        if at_work and len(files("ws", "assets")) >= count:
            return
