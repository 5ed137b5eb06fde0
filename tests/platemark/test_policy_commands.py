"""policy show, check, diff, test and calibrate, through the command line on real checks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import yaml
from PIL import Image
from warm_platemark import Warm, warm

from pipeline.settings import ROOT

Call = Callable[..., CompletedProcess[str]]
REFERENCES = ROOT / "starter" / "references"
POLICY = """\
policy: house
version: "1"
extends: starter
checks: {nsfw: null, duplicates: null}
rules:
  - {check: quality, score: contrast, block: {below: 0.02}, reason: blank}
prompts: {deny: [acme]}
"""
TESTS = """\
examples:
  - {image: good/grey.png, outcome: block, rules: [quality.contrast]}
  - {prompt: an acme mug, outcome: block, rules: [prompts.deny]}
  - {prompt: a red mug, outcome: pass}
folders:
  - {folder: bad, outcome: block, rules: [similarity.nearest]}
"""


@pytest.fixture(scope="module")
def platemark() -> Iterator[Warm]:
    with warm("open_clip", "catalog.checking", "duckdb") as started:
        yield started


@pytest.fixture
def house(tmp_path: Path) -> Path:
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()
    Image.new("RGB", (128, 128), (120, 120, 120)).save(tmp_path / "good" / "grey.png")
    for file in sorted(REFERENCES.glob("*.png"))[:3]:
        (tmp_path / "bad" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "house.yaml").write_text(POLICY)
    (tmp_path / "house.tests.yaml").write_text(TESTS)
    return tmp_path


@pytest.fixture
def run(platemark: Warm) -> Call:
    """A command with its workspace in the folder that is given first."""
    return lambda folder, *arguments: platemark(*arguments, "--workspace", folder / "workspace")


def test_show_gives_each_value_and_the_file_it_is_from(house: Path, platemark: Warm) -> None:
    done = platemark("policy", "show", house / "house.yaml", "--effective", "--json")
    values = {each["key"]: each for each in json.loads(done.stdout)["values"]}
    assert values["rules.quality.contrast.block"]["value"] == "below 0.02"
    assert Path(values["rules.quality.contrast.block"]["file"]) == house / "house.yaml"
    assert values["rules.quality.contrast.block"]["line"] == 6
    assert Path(values["licences"]["file"]).name == "starter.yaml"
    assert "rules.nsfw.concept.block" not in values
    shown = platemark("policy", "show", house / "house.yaml")
    assert yaml.safe_load(shown.stdout)["policy"] == "house"


def test_check_names_every_fault_with_its_line_and_tells_what_is_lacking(
    house: Path, run: Call
) -> None:
    bad = house / "bad.yaml"
    bad.write_text(POLICY.replace("block: {below: 0.02}", "blok: {below: 0.02}"))
    done = run(house, "policy", "check", "retail", house / "house.yaml", bad)
    assert done.returncode == 2
    assert f"{bad}:6: unknown key 'blok' (did you mean 'block'?" in done.stderr
    assert "house 1 is right" in done.stdout
    assert "no library 'protected'" in done.stdout


def test_diff_says_what_is_stricter(house: Path, platemark: Warm) -> None:
    other = house / "other.yaml"
    other.write_text(POLICY.replace("0.02", "0.04"))
    done = platemark("policy", "diff", house / "house.yaml", other, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == [
        {
            "key": "rules.quality.contrast.block",
            "old": "below 0.02",
            "new": "below 0.04",
            "effect": "stricter",
        }
    ]
    assert platemark("policy", "diff", "starter", "starter").returncode == 0


def test_a_policy_is_tested_on_labelled_examples(house: Path, run: Call) -> None:
    done = run(house, "policy", "test", house / "house.yaml")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "6 of 6 are as stated" in done.stdout


@pytest.mark.parametrize("name", ["starter", "retail", "editorial", "marketplaces"])
def test_every_shipped_policy_says_of_its_examples_what_it_should(
    name: str, tmp_path: Path, run: Call
) -> None:
    done = run(tmp_path, "policy", "test", name)
    assert done.returncode == 0, done.stderr + done.stdout


def test_each_shipped_policy_has_examples() -> None:
    files = {file.name for file in (ROOT / "policies").glob("*.yaml")}
    policies = {name for name in files if not name.endswith(".tests.yaml")}
    assert files - policies == {name.replace(".yaml", ".tests.yaml") for name in policies}


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("outcome: pass}", "outcome: review}", 1, "pass, not review: no rule spoke"),
        ("[quality.contrast]", "[quality.fill]", 1, "the rule quality.fill did not speak"),
        ("good/grey.png", "good/gray.png", 2, "does not exist"),
        ("good/grey.png", "../grey.png", 2, "leaves the tests' folder"),
        ("outcome: pass}", "outcome: fine}", 2, ":4"),
        ("folder: bad", "folder: good, colour: red", 2, "colour"),
    ],
)
def test_what_is_not_as_stated_is_told(
    house: Path, old: str, new: str, code: int, words: str, run: Call
) -> None:
    tests = house / "house.tests.yaml"
    tests.write_text(TESTS.replace(old, new, 1))
    done = run(house, "policy", "test", house / "house.yaml")
    assert done.returncode == code, done.stderr
    assert words in done.stdout + done.stderr


@pytest.fixture
def samples(tmp_path: Path) -> Callable[[], tuple[Path, Path]]:
    """Known-bad: the references, a little brighter. Known-good: noise of several kinds."""

    def make() -> tuple[Path, Path]:
        bad, good = tmp_path / "known-bad", tmp_path / "known-good"
        bad.mkdir()
        good.mkdir()
        for file in sorted(REFERENCES.glob("*.png")):
            with Image.open(file) as image:
                image.convert("RGB").point(lambda v: min(255, v + 12)).save(bad / file.name)
        generator = np.random.default_rng(1)
        for number in range(24):
            small = generator.integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(small).resize((128, 128)).save(good / f"{number}.png")
        return bad, good

    return make


def test_calibrate_gives_bounds_a_plot_and_yaml(
    tmp_path: Path, samples: Callable[[], tuple[Path, Path]], run: Call
) -> None:
    bad, good = samples()
    plot = tmp_path / "plot.png"
    done = run(
        tmp_path, "calibrate", "similarity", "--known-bad", bad, "--known-good", good,
        "--review-rate", "0.1", "--block-rate", "0.01", "--plot", plot,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the sample is too small for 0.01 false alarms an image" in done.stderr
    text = done.stdout[done.stdout.index("rules:") : done.stdout.rindex("\n\n")]
    (rule,) = yaml.safe_load(text)["rules"]
    assert (rule["check"], rule["score"]) == ("similarity", "nearest")
    assert 0 < rule["review"]["at_least"] <= rule["block"]["at_least"] < 1
    with Image.open(plot) as image:
        assert image.width > 1000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["similarty"], "declares no check 'similarty'"),
        (["similarity.farthest"], "similarity.farthest was not measured"),
        (["quality", "--library", "x"], "quality compares with no library"),
        (["similarity", "--review-rate", "0"], "0 is no rate"),
        (["similarity", "--review-rate", "0.01", "--block-rate", "0.1"], "larger than"),
    ],
)
def test_calibrate_refuses_what_it_cannot_do(
    tmp_path: Path,
    samples: Callable[[], tuple[Path, Path]],
    arguments: list[str],
    words: str,
    run: Call,
) -> None:
    bad, good = samples()
    done = run(tmp_path, "calibrate", *arguments, "--known-bad", bad, "--known-good", good)
    assert done.returncode == 2
    assert words in done.stderr


def test_fidelity_is_calibrated_on_what_each_image_was_to_show(
    tmp_path: Path, samples: Callable[[], tuple[Path, Path]], run: Call
) -> None:
    bad, good = samples()
    asked = ["calibrate", "fidelity.text", "--known-bad", bad, "--known-good", good]
    done = run(tmp_path, *asked)
    assert done.returncode == 2
    assert "--words" in done.stderr and "a CSV with the columns file and words" in done.stderr
    words = tmp_path / "words.csv"
    things = ("a red mug", "a blue vase", "a green lamp")
    files = [*sorted(bad.iterdir()), *sorted(good.iterdir())]
    rows = [f"{file.name},{things[number % 3]}" for number, file in enumerate(files)]
    words.write_text("\n".join(["file,words", *rows[1:]]))
    done = run(tmp_path, *asked, "--words", words)
    assert done.returncode == 2 and f"says nothing of {files[0].name}" in done.stderr
    words.write_text("\n".join(["file,words", *rows]))
    done = run(
        tmp_path, *asked, "--words", words, "--review-rate", "0.2", "--block-rate", "0.1",
        "--plot", tmp_path / "plot.png", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["errors"] == []
    (found,) = told["scores"]
    assert (found["score"], found["known_good"], found["known_bad"]) == ("fidelity.text", 24, 18)
    (rule,) = yaml.safe_load(f"rules:\n{found['yaml']}")["rules"]
    assert (rule["check"], rule["score"]) == ("fidelity", "text")
    # A block bound that equals the review bound is left out.
    assert 0 <= rule.get("block", rule["review"])["below"] <= rule["review"]["below"] <= 1


@pytest.mark.parametrize("plot", ["x.jpg", "plot", "folder.png"])
def test_a_plot_that_cannot_be_written_is_told_before_anything_is_measured(
    tmp_path: Path, samples: Callable[[], tuple[Path, Path]], plot: str, run: Call
) -> None:
    bad, good = samples()
    (tmp_path / "folder.png").mkdir()
    done = run(
        tmp_path, "calibrate", "similarity", "--known-bad", bad, "--known-good", good,
        "--plot", tmp_path / plot,
    )  # fmt: skip
    assert done.returncode == 2
    assert "is no PNG file to write" in done.stderr and "name a .png" in done.stderr
    assert not (tmp_path / "workspace").exists()
