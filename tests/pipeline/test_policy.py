"""Policies: what loads, what is refused and where it says the fault lies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from pipeline.errors import InputError
from pipeline.policy import SCHEMA_FILE, SHIPPED, load_policy, policy_from_text, schema_text

SHIPPED_NAMES = ("starter", "retail", "editorial")

BASE = """\
policy: base
version: "1"
checks:
  similarity: {model: clip, libraries: [protected]}
  quality: {}
rules:
  - {check: similarity, score: nearest, review: {at_least: 0.5}, block: {at_least: 0.9}}
  - {check: quality, score: contrast, block: {below: 0.01}}
licences: [Apache-2.0]
prompts: {deny: [nude]}
"""


def save(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def faults_of(path: Path | str) -> list[str]:
    with pytest.raises(InputError) as refused:
        load_policy(path)
    return [str(fault) for fault in refused.value.faults]


@pytest.mark.parametrize("name", SHIPPED_NAMES)
def test_shipped_policies_load_and_fit_the_published_schema(name: str) -> None:
    policy = load_policy(name)
    assert policy.policy == name
    assert policy.rules
    assert policy.licences
    file = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text())
    errors = list(Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).iter_errors(file))
    assert not errors


def test_the_published_schema_is_what_the_models_say() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), (
        "run `python -m pipeline.policy`"
    )


@pytest.mark.parametrize("name", SHIPPED_NAMES)
def test_the_effective_text_loads_to_the_same_digest(name: str, tmp_path: Path) -> None:
    policy = load_policy(name)
    again = load_policy(save(tmp_path, "again", policy.text))
    assert again.digest == policy.digest
    assert again.text == policy.text
    assert again.extends is None
    assert policy_from_text(policy.text).digest == policy.digest


def test_the_digest_follows_meaning_not_spelling(tmp_path: Path) -> None:
    first = load_policy(save(tmp_path, "a", BASE))
    lines = BASE.splitlines()
    lines[6], lines[7] = lines[7], lines[6]
    reordered = load_policy(save(tmp_path, "b", "# a comment\n" + "\n".join(lines)))
    tighter = load_policy(save(tmp_path, "c", BASE.replace("0.9}", "0.8}")))
    assert first.digest == reordered.digest
    assert first.digest != tighter.digest
    assert len(first.digest) == 64


def test_a_child_overrides_and_its_rules_replace_by_check_and_score(tmp_path: Path) -> None:
    save(tmp_path, "base", BASE)
    child = """\
policy: child
version: "2"
extends: base
rules:
  - {check: similarity, score: nearest, review: {at_least: 0.7}}
image: {format: webp, quality: 80}
"""
    policy = load_policy(save(tmp_path, "child", child))
    assert (policy.policy, policy.version, policy.extends) == ("child", "2", "base")
    rules = {rule.name: rule for rule in policy.rules}
    assert rules["similarity.nearest"].block is None
    assert rules["similarity.nearest"].review.at_least == 0.7
    assert rules["quality.contrast"].block.below == 0.01
    assert policy.image.format == "webp"
    assert policy.prompts.deny == ("nude",)


def test_an_inherited_check_set_to_null_goes_with_its_rules(tmp_path: Path) -> None:
    save(tmp_path, "base", BASE)
    child = 'policy: c\nversion: "1"\nextends: base\nchecks: {similarity: null}\n'
    policy = load_policy(save(tmp_path, "child", child))
    assert policy.checks.similarity is None
    assert [rule.name for rule in policy.rules] == ["quality.contrast"]


def test_extends_names_a_shipped_policy_even_from_a_file_of_that_name(tmp_path: Path) -> None:
    path = save(tmp_path, "retail", 'policy: ours\nversion: "1"\nextends: retail\n')
    assert load_policy(path).rules == load_policy("retail").rules


def test_all_faults_come_at_once_each_with_file_and_line(tmp_path: Path) -> None:
    text = """\
policy: base
version: 1.0
checks:
  similarty: {model: clip, libraries: [protected]}
  quality: {}
  nsfw:
    concepts: {model: clip, unsafe: [], safe: [a]}
rules:
  - {check: quality, score: contrasts, block: {below: 0.01}}
  - {check: quality, score: contrast, block: {below: .nan}}
  - check: quality
    score: decodes
    review: {at_least: 0.9, below: 0.1}
  - {check: quality, score: sharpness, revew: {below: 1}}
  - {check: quality, score: size_matches, review: {below: 0.2}, block: {below: 0.5}}
  - {check: similarity, score: nearest, review: {at_least: 0.5}}
labels: {xmp: "yes", promt: hash}
licenses: [MIT]
rules: []
terms: {id: t, licensor: x, expires: 2026-01-01, starts: 2027-01-01}
"""
    path = save(tmp_path, "bad", text)
    found = {
        (fault.split(":")[1], words)
        for fault in faults_of(path)
        for words in (
            "put it in quotes", "did you mean 'similarity'", "concepts.unsafe", "labels.xmp",
            "did you mean 'prompt'", "did you mean 'licences'", "licences: is missing",
            "'rules' is written", "before starts",
        )
        if words in fault
    }  # fmt: skip
    assert found == {
        ("2", "put it in quotes"),
        ("4", "did you mean 'similarity'"),
        ("7", "concepts.unsafe"),
        ("17", "labels.xmp"),
        ("17", "did you mean 'prompt'"),
        ("18", "did you mean 'licences'"),
        ("1", "licences: is missing"),
        ("19", "'rules' is written"),
        ("20", "before starts"),
    }
    assert all(fault.startswith(f"{path}:") for fault in faults_of(path))


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("{check: quality, score: contrasts, block: {below: 1}}", "did you mean 'contrast'"),
        ("{check: quality, score: contrast, block: {below: .nan}}", "finite number"),
        ("{check: quality, score: contrast, block: {below: yes}}", "valid number"),
        ("{check: quality, score: contrast, block: {below: 1, at_least: 0}}", "either"),
        ("{check: quality, score: contrast, block: {}}", "either"),
        ("{check: quality, score: contrast}", "needs a review bound"),
        ("{check: quality, score: contrast, revew: {below: 1}}", "did you mean 'review'"),
        ("{check: quality, score: contrast, review: {below: 1}, block: {at_least: 2}}", "both"),
        ("{check: quality, score: contrast, review: {below: 1}, block: {below: 2}}", "never"),
        ("{check: nsfw, score: concept, block: {at_least: 1}}", "checks.nsfw.concepts"),
        ("{check: similarty, score: nearest, block: {at_least: 1}}", "did you mean 'similarity'"),
        ("{check: quality, score: contrast, block: {below: 2}}", "written twice"),
    ],
)
def test_a_faulty_rule_is_named_by_its_line(rule: str, words: str, tmp_path: Path) -> None:
    text = BASE.replace("licences:", f"  - {rule}\nlicences:")
    faults = faults_of(save(tmp_path, "bad", text))
    assert any(":9: " in fault and words in fault for fault in faults), faults


def test_faults_of_an_inherited_file_name_that_file(tmp_path: Path) -> None:
    base = save(tmp_path, "base", BASE.replace("deny:", "denny:"))
    child = save(tmp_path, "child", 'policy: c\nversion: "1"\nextends: base\nlabel: {}\n')
    faults = faults_of(child)
    assert any(fault.startswith(f"{base}:10: ") and "'deny'" in fault for fault in faults)
    assert any(fault.startswith(f"{child}:4: ") and "'labels'" in fault for fault in faults)


@pytest.mark.parametrize(
    "extends",
    ["../base", "/etc/passwd", "sub/base", "..", "base\\x", "C:base", '"base\\0"', "[base]", "7"],
)
def test_extends_cannot_leave_its_folder(extends: str, tmp_path: Path) -> None:
    save(tmp_path, "base", BASE)
    inner = tmp_path / "inner"
    inner.mkdir()
    path = save(inner, "child", f'policy: c\nversion: "1"\nextends: {extends}\n')
    assert any(f"{path}:3" in fault for fault in faults_of(path))


def test_extends_follows_no_link_out_of_its_folder(tmp_path: Path) -> None:
    secret = save(tmp_path, "secret", BASE)
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "base.yaml").symlink_to(secret)
    path = save(inner, "child", 'policy: c\nversion: "1"\nextends: base\n')
    assert any("leads out of its folder" in fault for fault in faults_of(path))


def test_a_circle_of_extends_is_named(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        path = save(tmp_path, name, f'policy: {name}\nversion: "1"\nextends: {other}\n')
    faults = faults_of(path)
    assert any("c.yaml → a.yaml → b.yaml → c.yaml" in fault for fault in faults), faults


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("retial", "did you mean 'retail'"),
        ("nowhere/else.yaml", "No such file"),
        ("", "no such policy"),
    ],
)
def test_an_absent_policy_is_answered_with_a_remedy(name: str, words: str) -> None:
    assert any(words in fault for fault in faults_of(name))


def test_an_absent_parent_is_answered_with_what_there_is(tmp_path: Path) -> None:
    path = save(tmp_path, "child", 'policy: c\nversion: "1"\nextends: bsae\n')
    save(tmp_path, "base", BASE)
    assert any("child.yaml:3" in f and "did you mean 'base'" in f for f in faults_of(path))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"just words",
        b"policy: [",
        b"\xff\xfe\x00",
        b"policy: \xc3\x28",
        b"a: &a [*a]",
        b"x: &x [1]\ny: *x\n",
        b"policy: !!python/object/apply:os.system [ls]",
        b"? [a]\n: b",
        b"[" * 5000,
        b"a: " + b"{a: " * 5000,
        b"x: 2026-99-99",
        b"policy: \x00",
        b"a: 1\n" * 400_000,
    ],
)
def test_hostile_files_are_faults_not_crashes(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_bytes(content)
    assert faults_of(path)


def test_a_folder_in_place_of_a_file_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    assert faults_of(tmp_path / "folder.yaml")


def test_a_plugins_check_needs_the_plugin(tmp_path: Path) -> None:
    text = BASE.replace("  quality: {}", "  quality: {}\n  white_frame: {level: 250}")
    faults = faults_of(save(tmp_path, "plugged", text))
    assert any(":6: " in fault and "white_frame" in fault for fault in faults)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("{china_aigc: 5}", "labels.china_aigc"),
        ('{china_aigc: ""}', "labels.china_aigc"),
        ("{china_aigc: true, xmp: false}", "xmp must be true"),
        ("{prompt: hashed}", "'hash', 'text' or 'none'"),
        ("{training_mining: no}", "labels.training_mining"),
        ("[xmp]", "labels"),
    ],
)
def test_a_faulty_label_is_named_by_its_line(labels: str, words: str, tmp_path: Path) -> None:
    faults = faults_of(save(tmp_path, "bad", f"{BASE}labels: {labels}\n"))
    assert any(":11: " in fault and words in fault for fault in faults), faults
    assert not any("constrained" in fault or ".bool" in fault for fault in faults)


@pytest.mark.parametrize("key", ["constraints", "bool", "boolean", "str", "constrained-str"])
def test_a_key_that_sounds_like_a_type_is_an_unknown_key(key: str, tmp_path: Path) -> None:
    faults = faults_of(save(tmp_path, "bad", f"{BASE}{key}: 4\nlabels: {{{key}: 1}}\n"))
    assert sum(f"unknown key {key!r}" in fault for fault in faults) == 2
    assert [fault for fault in faults if ":11: " in fault]
    assert [fault for fault in faults if ":12: " in fault]


@pytest.mark.parametrize(
    "value", ["2027-02-30", "!!int x", "!!bool x", "!!timestamp x", "!!int ''"]
)
def test_a_value_that_cannot_be_read_is_a_fault_with_its_line(value: str, tmp_path: Path) -> None:
    faults = faults_of(save(tmp_path, "bad", f"{BASE}description: {value}\n"))
    assert any(":11: " in fault and "put the value in quotes" in fault for fault in faults)


def test_an_unknown_policys_remedy_names_policies_and_not_their_tests() -> None:
    with pytest.raises(InputError, match="shipped: editorial, marketplaces, retail, starter; or"):
        load_policy("nobodys")
