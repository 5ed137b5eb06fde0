"""What people see of a policy: each value with its origin, and how two policies differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.policy import read_policy
from pipeline.policy_values import Value, differences, effective_values

HOUSE = """\
policy: house
version: "2"
extends: starter
checks:
  copying: {libraries: [logos], descriptor: starter-copy, fresh_days: 30}
rules:
  - {check: similarity, score: nearest, review: {at_least: 0.7}, block: {at_least: 0.9}}
  - name: twice
    outcome: block
    all: [{check: copying, score: pdq, below: 32}, {any: [{check: copying, score: descriptor,
          at_least: 0.5}]}]
prompts:
  deny: [acme]
  deny_lists: [ours]
"""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    (tmp_path / "names").mkdir()
    (tmp_path / "names" / "ours.txt").write_text("# our own\n\nZanti\nMirolo\n")
    path = tmp_path / "house.yaml"
    path.write_text(HOUSE)
    return path


def values_of(path: Path | str) -> dict[str, list[Value]]:
    found: dict[str, list[Value]] = {}
    for value in effective_values(*read_policy(path)):
        found.setdefault(value.key, []).append(value)
    return found


@pytest.mark.parametrize(
    ("key", "words", "origin"),
    [
        ("policy", "house", "house.yaml:1"),
        ("checks.copying.descriptor", "starter-copy", "house.yaml:5"),
        ("checks.copying.fresh_days", "30", "house.yaml:5"),
        ("checks.nsfw.concepts.model", "starter-clip", "starter.yaml:13"),
        ("rules.similarity.nearest.review", "at_least 0.7", "house.yaml:7"),
        ("rules.nsfw.concept.block", "at_least 0.6", "starter.yaml:61"),
        (
            "rules.twice.all",
            "copying.pdq below 32, any of (copying.descriptor at_least 0.5)",
            "house.yaml:10",
        ),
        ("image.quality", "90", "default"),
        ("image.format", "png", "starter.yaml:80"),
    ],
)
def test_every_value_says_where_it_is_from(house: Path, key: str, words: str, origin: str) -> None:
    (value,) = values_of(house)[key]
    assert value.words == words
    assert value.origin.split(":")[0] == origin.split(":")[0]
    assert "starter" in origin or value.origin == origin


def test_rules_may_name_who_approves(house: Path) -> None:
    house.write_text(HOUSE.replace("review: {at_least: 0.7}", "approvers: [legal, art]"))
    (value,) = values_of(house)["rules.similarity.nearest.approvers"]
    assert value.words == "legal, art"


def test_a_check_that_is_off_takes_the_combinations_along_that_are_about_it(house: Path) -> None:
    child = house.with_name("child.yaml")
    child.write_text('policy: child\nversion: "1"\nextends: house\nchecks: {copying: null}\n')
    assert "twice" not in {rule.name for rule in read_policy(child)[0].rules}


def test_names_of_lists_stand_at_their_lines(house: Path) -> None:
    found = values_of(house)["prompts.deny"]
    assert [(each.value, each.origin) for each in found] == [
        (["acme"], "house.yaml:13"),
        (["Zanti", "Mirolo"], "ours.txt:3"),
    ]


@pytest.mark.parametrize("name", ["starter", "retail", "editorial"])
def test_every_section_of_a_shipped_policy_is_there(name: str) -> None:
    policy, _ = read_policy(name)
    shown = {key.split(".")[0] for key in values_of(name)}
    assert set(policy.effective) <= shown


def test_a_policy_does_not_differ_from_itself(house: Path) -> None:
    assert differences(*read_policy(house), *read_policy(house)) == []


@pytest.mark.parametrize(
    ("old", "new", "key", "effect"),
    [
        ("at_least: 0.9", "at_least: 0.8", "rules.similarity.nearest.block", "stricter"),
        ("at_least: 0.9", "at_least: 0.95", "rules.similarity.nearest.block", "looser"),
        (", block: {at_least: 0.9}", "", "rules.similarity.nearest.block", "looser"),
        ("[acme]", "[acme, other]", "prompts.deny", "stricter"),
        ("[acme]", "[]", "prompts.deny", "looser"),
        ("[acme]", "[other]", "prompts.deny", ""),
        ("outcome: block", "outcome: review", "rules.twice.outcome", ""),
        ("below: 32", "below: 31", "rules.twice.all", ""),
    ],
)
def test_a_difference_says_whether_it_is_stricter(
    house: Path, old: str, new: str, key: str, effect: str
) -> None:
    other = house.with_name("other.yaml")
    other.write_text(HOUSE.replace(old, new))
    (found,) = differences(*read_policy(house), *read_policy(other))
    assert (found.key, found.effect) == (key, effect)


def test_the_digest_covers_the_names_of_lists(house: Path) -> None:
    before = read_policy(house)[0].digest
    (house.parent / "names" / "ours.txt").write_text("Zanti\nMirolo\nOrvanto\n")
    assert read_policy(house)[0].digest != before
