"""The command line as people and scripts use it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import platemark
from warm_platemark import Warm

from pipeline.settings import ROOT


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, warm_platemark: Warm) -> Path:
    """A workspace after one run: two images that pass, and two (another brief) that wait."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "items.csv").write_text("sku,thing\nA,red mug\nB,blue vase\n")
    for policy, bound in (("plain", "block: {below: 0}"), ("held", "review: {at_least: 0}")):
        (folder / f"{policy}.yaml").write_text(
            f"policy: {policy}\nversion: '1'\nchecks: {{quality: {{}}}}\nlicences: [Apache-2.0]\n"
            f"rules:\n- {{check: quality, score: sharpness, {bound}}}\n"
        )
        (folder / f"{policy}-brief.yaml").write_text(
            f"template: 'a {{{{ thing }}}}'\nitems: items.csv\nsteps: 1\ncampaign: {policy}\n"
            "terms: {id: t1, licensor: Acme, channels: [web], expires: 2099-01-01}\n"
        )
        done = warm_platemark(
            "run", str(folder / f"{policy}-brief.yaml"), "--policy", str(folder / f"{policy}.yaml"),
            "--workspace", str(folder / "ws"), "--json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["made"] == 2
    return folder / "ws"


@pytest.mark.parametrize("command", ["--help", "audit", "verify README.md", "export --help"])
def test_light_commands_load_neither_torch_nor_prefect(command: str) -> None:
    code = (
        "import sys; from platemark.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'diffusers', 'prefect', 'open_clip'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split()], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_every_command_and_page_is_documented() -> None:
    readme = (ROOT / "README.md").read_text()
    docs = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    listed = re.findall(r"^│ ([a-z]+) ", platemark("--help").stdout, re.MULTILINE)
    assert {"run", "plan", "audit", "verify", "export", "review", "keys"} <= set(listed)
    for command in listed:
        assert f"platemark {command}" in readme
    for target in re.findall(r"\]\(((?:docs|starter)/[^)#]+)\)", readme):
        assert (ROOT / target).exists(), target
    from pipeline.settings import Settings

    for setting in Settings.model_fields:
        assert f"`{setting}`" in docs, setting


def test_plan_says_what_is_done_and_what_is_to_do(workspace: Path) -> None:
    folder = workspace.parent
    (folder / "more.csv").write_text("sku,prompt\nC,a red book\n")
    done = platemark(
        "plan", str(folder / "more.csv"), "--policy", str(folder / "plain.yaml"),
        "--workspace", str(workspace), "--json",
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert (told["images"], told["done"], told["to_make"], told["batches"]) == (1, 0, 1, 1)
    assert told["seconds"] > 0
    assert told["models"][0]["licence"] == "Apache-2.0"
    assert "starter world" in told["notices"][0]
    brief = str(folder / "plain-brief.yaml")
    again = platemark("plan", brief, "--policy", str(folder / "plain.yaml"), "-w", str(workspace))
    assert "2 already done" in again.stdout
    assert "starter world" in again.stderr


def test_audit_answers_on_every_way_out(workspace: Path) -> None:
    sql = "SELECT sku, outcome FROM images ORDER BY sku, outcome"
    wanted = [("A", "pass"), ("A", "review"), ("B", "pass"), ("B", "review")]
    ask = ("audit", "--sql", sql, "-w", str(workspace))
    assert platemark(*ask).stdout.split() == ["sku,outcome", *(f"{s},{o}" for s, o in wanted)]
    told = json.loads(platemark(*ask, "--format", "json").stdout)
    assert [(row["sku"], row["outcome"]) for row in told] == wanted
    table = platemark(*ask, "--format", "table").stdout
    assert all(word in table for word in ("sku", "review"))
    named = platemark("audit", "assets-of-sku", "-P", "sku=A", "-w", str(workspace), "-f", "json")
    assert len(json.loads(named.stdout)) >= 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["audit", "--sql", "DROP TABLE images"], 2, "one SELECT"),
        (["audit", "--sql", "SELECT * FROM read_text('/etc/passwd')"], 2, "read_text"),
        (["audit", "no-such-question"], 2, "no such question"),
        (["audit", "expiring", "-P", "days"], 2, "name=value"),
        (["audit", "--format", "xml"], 2, "unknown format"),
        (["show", "nothing"], 2, "no such image"),
        (["review", "approve", "A", "--reason", "x"], 2, "A-0 pass"),
        (["verify", "missing.png"], 1, ""),
        (["run", "missing.csv"], 2, "No such file"),
        (["run", "missing.csv", "--policy", "retial"], 2, "did you mean 'retail'"),
        (["export", "--out", "p.tar.gz"], 2, "not compressed"),
        (["export", "--out", "p.zip", "--where", "1 = ) OR ("], 2, "Parser Error"),
        (["export", "--out", "p.zip", "--terms", "unknown"], 2, "unknown"),
    ],
)
def test_wrong_use_is_told_in_a_line_with_its_exit_code(
    workspace: Path, arguments: list[str], code: int, said: str
) -> None:
    done = platemark(*arguments, "-w", str(workspace))
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_settings_faults_name_the_key(tmp_path: Path) -> None:
    (tmp_path / "platemark.toml").write_text("devise = 'cpu'\nbatch_size = 0\n")
    done = platemark("audit", "runs", PLATEMARK_CONFIG=str(tmp_path / "platemark.toml"))
    assert done.returncode == 2
    assert "devise" in done.stderr
    assert "batch_size" in done.stderr


def test_approval_signs_and_export_takes_what_may_go(
    workspace: Path, tmp_path: Path, warm_platemark: Warm
) -> None:
    waiting = json.loads(warm_platemark("review", "list", "-w", str(workspace), "--json").stdout)
    by_sku = {row["sku"]: row["request_id"][:16] for row in waiting}
    assert set(by_sku) == {"A", "B"}
    early = warm_platemark(
        "export", "-w", str(workspace), "--where", "campaign = 'held'", "-o", "x.zip"
    )
    assert early.returncode == 1
    assert "waits for a review" in early.stderr
    why = ("--reason", "our own design", "--reviewer", "Ada", "-w", str(workspace), "--json")
    approved = json.loads(warm_platemark("review", "approve", by_sku["A"], *why).stdout)
    verified = warm_platemark("verify", approved["file"], "-w", str(workspace), "--json")
    report = json.loads(verified.stdout)[0]
    assert (report["state"], report["catalog"]["decision"]) == ("Trusted", "approve")
    assert report["policy"]["review"]["reviewer"] == "Ada"
    assert warm_platemark("review", "reject", by_sku["B"], *why).returncode == 0
    assert warm_platemark("review", "approve", by_sku["A"], *why).returncode == 2
    pack = tmp_path / "pack.zip"
    told = json.loads(
        warm_platemark("export", "-w", str(workspace), "-o", str(pack), "--json").stdout
    )
    assert told["images"] == 3
    assert [left["sku"] for left in told["left_out"]] == ["B"]
    assert "rejected by Ada: our own design" in told["left_out"][0]["reasons"][0]
    story = json.loads(warm_platemark("show", by_sku["A"], "-w", str(workspace), "--json").stdout)
    assert story["packs"]
    assert story["reviews"][0]["reason"] == "our own design"
    assert "Ada" in warm_platemark("show", by_sku["A"], "-w", str(workspace)).stdout


def test_an_altered_file_does_not_verify_and_is_left_out(
    workspace: Path, tmp_path: Path, warm_platemark: Warm
) -> None:
    sql = "SELECT url FROM images WHERE cleared ORDER BY sku LIMIT 1"
    url = warm_platemark("audit", "--sql", sql, "-w", str(workspace)).stdout.split()[1]
    file = workspace / url
    good = file.read_bytes()
    try:
        file.write_bytes(good[:-40] + b"\0" + good[-39:])
        assert warm_platemark("verify", str(file), "-w", str(workspace)).returncode == 1
        out = str(tmp_path / "p.zip")
        told = json.loads(
            warm_platemark("export", "-w", str(workspace), "-o", out, "--json").stdout
        )
        assert any("was altered" in left["reasons"][0] for left in told["left_out"])
    finally:
        file.write_bytes(good)


def test_keys_are_minted_once_and_kept_private(tmp_path: Path) -> None:
    first = json.loads(platemark("keys", "init", "-w", str(tmp_path), "--json").stdout)
    second = json.loads(platemark("keys", "init", "-w", str(tmp_path), "--json").stdout)
    assert (first["minted"], second["minted"]) == (True, False)
    modes = {path.stat().st_mode & 0o777 for path in Path(first["folder"]).iterdir()}
    assert modes == {0o600}
    assert "development" in platemark("keys", "init", "-w", str(tmp_path)).stderr


def test_a_schedule_is_kept_and_a_wrong_one_refused(workspace: Path) -> None:
    folder = workspace.parent
    brief, policy = str(folder / "plain-brief.yaml"), str(folder / "plain.yaml")
    options = ("--policy", policy, "-w", str(workspace))
    assert platemark("schedule", brief, "--cron", "every day", *options).returncode == 2
    assert platemark("schedule", brief, "--cron", "0 6 * * *", *options).returncode == 0
    assert "0 6 * * *" in (workspace / "schedules.yaml").read_text()
