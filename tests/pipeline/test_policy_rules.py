"""Rules that combine scores, speak of one library or one channel, and say who is urgent and where.

The properties that a legal department relies on: worse scores never get a milder verdict, order
means nothing, what is missing blocks.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.policy import Policy, load_policy, policy_from_text
from pipeline.records import Score
from pipeline.request import Request
from pipeline.verdict import decide

LICENCE = "Apache-2.0"
WORST = {"pass": 0, "review": 1, "block": 2}
REQUEST = Request(
    sku="A", index=0, mode="text-to-image", model="m", model_revision="r", prompt="a red mug",
    negative_prompt="", seed=1, width=64, height=64, steps=1, guidance=1.0, scheduler="",
    campaign="", client="",
)  # fmt: skip
LIBRARIES = ("logos", "toys")
BAD_WHEN_HIGH = ("copying.descriptor", "copying.clip", "sensitive.people")
BAD_WHEN_LOW = ("copying.pdq", "quality.contrast")
BY_LIBRARY = ("copying.descriptor", "copying.clip", "copying.pdq")


def measured() -> list[str]:
    """All scores of an image, those against a library once a library."""
    return [
        f"{name}@{library}" if library else name
        for name in (*BAD_WHEN_HIGH, *BAD_WHEN_LOW)
        for library in (LIBRARIES if name in BY_LIBRARY else ("",))
    ]


values = st.fixed_dictionaries(dict.fromkeys(measured(), st.floats(-10, 10)))
channels = st.lists(st.sampled_from(["web", "amazon", "any"]), unique=True, max_size=2)


@st.composite
def speaks(draw: st.DrawFn) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if draw(st.booleans()):
        said["channels"] = draw(st.sampled_from([["amazon"], ["Web", "print"]]))
    if draw(st.booleans()):
        said["severity"] = draw(st.sampled_from(["low", "critical"]))
    return said


@st.composite
def about(draw: st.DrawFn) -> tuple[dict[str, Any], str]:
    """A score, and the side on which it is bad."""
    name = draw(st.sampled_from([*BAD_WHEN_HIGH, *BAD_WHEN_LOW]))
    check, score = name.split(".")
    said: dict[str, Any] = {"check": check, "score": score}
    if name in BY_LIBRARY and draw(st.booleans()):
        said["library"] = draw(st.sampled_from(LIBRARIES))
    return said, "at_least" if name in BAD_WHEN_HIGH else "below"


@st.composite
def simple(draw: st.DrawFn) -> dict[str, Any]:
    said, side = draw(about())
    low, high = sorted(draw(st.lists(st.floats(-10, 10), min_size=2, max_size=2, unique=True)))
    review, block = (low, high) if side == "at_least" else (high, low)
    kept = draw(st.sampled_from(["review", "block", "both"]))
    bounds = {"review": {side: review}, "block": {side: block}}
    return (
        said | draw(speaks()) | {name: at for name, at in bounds.items() if kept in (name, "both")}
    )


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    said, side = draw(about())
    return {**said, side: draw(st.floats(-10, 10))}


parts = st.recursive(
    conditions(),
    lambda inner: st.builds(
        lambda kind, inside: {kind: inside},
        st.sampled_from(["all", "any"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=5,
)


@st.composite
def combination(draw: st.DrawFn, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "outcome": draw(st.sampled_from(["review", "block"])),
        draw(st.sampled_from(["all", "any"])): draw(st.lists(parts, min_size=1, max_size=3)),
        **draw(speaks()),
    }


def policy_of(rules: list[dict[str, Any]], **changes: Any) -> Policy:
    fields: dict[str, Any] = {
        "policy": "p", "version": "1", "checks": {}, "rules": rules, "licences": [LICENCE],
    }  # fmt: skip
    return Policy.model_validate(fields | changes)


@st.composite
def written(draw: st.DrawFn) -> list[dict[str, Any]]:
    count = draw(st.integers(0, 3))
    return draw(st.lists(simple(), max_size=4)) + [draw(combination(f"c{n}")) for n in range(count)]


def scores_of(found: dict[str, float]) -> list[Score]:
    return [Score(*name.split(".", 1), value, {"detector": "d"}) for name, value in found.items()]


def request_for(named: list[str]) -> Request:
    return replace(REQUEST, terms={"channels": named} if named else {})


@given(written(), values, channels, st.data())
def test_worse_scores_never_get_a_milder_verdict(
    rules: list[dict[str, Any]], found: dict[str, float], named: list[str], data: st.DataObject
) -> None:
    policy, request = policy_of(rules), request_for(named)
    before = decide(policy, request, LICENCE, scores_of(found))
    worse = {
        name: value
        + data.draw(st.floats(0, 20)) * (1 if name.split("@")[0] in BAD_WHEN_HIGH else -1)
        for name, value in found.items()
    }
    after = decide(policy, request, LICENCE, scores_of(worse))
    assert WORST[after.outcome] >= WORST[before.outcome]


@given(written(), values, channels, st.randoms(use_true_random=False))
def test_order_means_nothing(
    rules: list[dict[str, Any]], found: dict[str, float], named: list[str], random: Any
) -> None:
    def turned(part: Any) -> Any:
        if isinstance(part, list):
            mixed = [turned(each) for each in part]
            random.shuffle(mixed)
            return mixed
        if isinstance(part, dict):
            return {key: turned(inside) for key, inside in part.items()}
        return part

    scores = scores_of(found)
    before = decide(policy_of(rules), request_for(named), LICENCE, scores)
    random.shuffle(scores)
    after = decide(policy_of(turned(rules)), request_for(named), LICENCE, scores)
    assert after.outcome == before.outcome
    assert {(r.rule, r.outcome, r.severity) for r in after.reasons} == {
        (r.rule, r.outcome, r.severity) for r in before.reasons
    }


@given(written(), values, channels)
def test_the_catalogued_policy_decides_alike(
    rules: list[dict[str, Any]], found: dict[str, float], named: list[str]
) -> None:
    policy = policy_of(rules)
    again = policy_from_text(policy.text)
    assert again.digest == policy.digest
    assert decide(again, request_for(named), LICENCE, scores_of(found)) == decide(
        policy, request_for(named), LICENCE, scores_of(found)
    )


@given(combination("c"), values, st.data(), st.sampled_from([None, math.nan, math.inf, -math.inf]))
def test_a_combination_that_lacks_a_score_blocks(
    rule: dict[str, Any], found: dict[str, float], data: st.DataObject, broken: float | None
) -> None:
    rule.pop("channels", None)
    policy = policy_of([rule])
    asked = sorted(
        {
            name
            for name in found
            for condition in _leaves(rule)
            if name.split("@")[0] == f"{condition['check']}.{condition['score']}"
            and condition.get("library", name.partition("@")[2]) == name.partition("@")[2]
        }
    )
    gone = data.draw(st.sampled_from(asked))
    # A condition for all libraries still has the other one when a score is missing, not when it is
    # no number.
    names = [name for name in asked if name.split("@")[0] == gone.split("@")[0]]
    for name in names:
        if broken is None:
            del found[name]
        else:
            found[name] = broken
    verdict = decide(policy, REQUEST, LICENCE, scores_of(found))
    assert verdict.outcome == "block"
    assert any("not measured" in r.text or "not a number" in r.text for r in verdict.reasons)


def _leaves(part: dict[str, Any]) -> list[dict[str, Any]]:
    inside = part.get("all") or part.get("any")
    return [leaf for each in inside for leaf in _leaves(each)] if inside else [part]


ANY = {"check": "copying", "score": "descriptor", "block": {"at_least": 0.75}}
LOGOS = {"check": "copying", "score": "descriptor", "library": "logos", "block": {"at_least": 0.5}}


@pytest.mark.parametrize(
    ("rules", "logos", "toys", "outcome"),
    [
        ([ANY], 0.8, 0.1, "block"),
        ([ANY], 0.1, 0.8, "block"),
        ([ANY], 0.7, 0.7, "pass"),
        ([ANY, LOGOS], 0.6, 0.1, "block"),
        ([ANY, LOGOS], 0.1, 0.6, "pass"),
        # A library with a rule of its own is left out of the general one, for better or worse.
        ([ANY, LOGOS | {"block": {"at_least": 0.9}}], 0.8, 0.1, "pass"),
        # A rule for a channel adds to the general one.
        ([ANY, LOGOS | {"block": {"at_least": 0.9}, "channels": ["web"]}], 0.8, 0.1, "block"),
    ],
)
def test_a_rule_is_for_all_libraries_that_have_none_of_their_own(
    rules: list[dict[str, Any]], logos: float, toys: float, outcome: str
) -> None:
    scores = scores_of({"copying.descriptor@logos": logos, "copying.descriptor@toys": toys})
    assert decide(policy_of(rules), REQUEST, LICENCE, scores).outcome == outcome


COPYING = {"copying": {"libraries": ["logos", "toys"], "descriptor": "d"}}
TWO_DETECTORS = {
    "sensitive": {
        "detectors": {
            name: {"kind": "classifier", "model": name, "classes": {"nudity": ["nsfw"]}}
            for name in ("m1", "m2")
        }
    }
}


@pytest.mark.parametrize(
    ("rules", "found", "lacks"),
    [
        ([ANY], ["logos", "toys"], None),
        ([ANY], ["logos"], "copying.descriptor@toys"),
        ([ANY], [], "copying.descriptor@logos"),
        ([ANY, LOGOS], ["logos"], "copying.descriptor@toys"),
        ([ANY, LOGOS], ["toys"], "copying.descriptor@logos"),
        ([LOGOS], ["logos"], None),
        ([{"name": "c", "outcome": "review", "any": [
            {"check": "copying", "score": "descriptor", "at_least": 0.9}]}], ["logos"],
         "copying.descriptor@toys"),
    ],
)  # fmt: skip
def test_every_library_that_is_declared_must_have_been_measured(
    rules: list[dict[str, Any]], found: list[str], lacks: str | None
) -> None:
    scores = scores_of({f"copying.descriptor@{library}": 0.1 for library in found})
    verdict = decide(policy_of(rules, checks=COPYING), REQUEST, LICENCE, scores)
    assert verdict.outcome == ("block" if lacks else "pass")
    assert lacks is None or any(f"{lacks} was not measured" in r.text for r in verdict.reasons)


def test_scores_against_a_library_that_is_no_longer_declared_say_nothing() -> None:
    found = {"copying.descriptor@logos": 0.1, "copying.descriptor@toys": 0.1}
    scores = scores_of({**found, "copying.descriptor@old": 0.99})
    assert decide(policy_of([ANY], checks=COPYING), REQUEST, LICENCE, scores).outcome == "pass"


def test_every_detector_of_a_class_must_have_measured_it() -> None:
    rule = {"check": "sensitive", "score": "nudity", "block": {"at_least": 0.5}}
    policy = policy_of([rule], checks=TWO_DETECTORS)
    scores = [Score("sensitive", "nudity", 0.1, {"detector": name}) for name in ("m1", "m2")]
    assert decide(policy, REQUEST, LICENCE, scores).outcome == "pass"
    (reason,) = decide(policy, REQUEST, LICENCE, scores[:1]).reasons
    assert reason.text == "sensitive.nudity was not measured by m2 (block)"


def test_a_rule_for_a_channel_leaves_a_library_to_a_rule_of_the_same_channel() -> None:
    general = ANY | {"channels": ["amazon"], "review": {"at_least": 0.5}}
    logos = {**LOGOS, "channels": ["amazon"], "block": {"at_least": 0.9}}
    scores = scores_of({"copying.descriptor@logos": 0.6, "copying.descriptor@toys": 0.1})
    policy = policy_of([general, logos], checks=COPYING)
    assert decide(policy, REQUEST, LICENCE, scores).outcome == "pass"


def test_a_rule_for_any_channel_is_for_all_images() -> None:
    rule = {"check": "quality", "score": "fill", "block": {"below": 1}, "channels": ["any"]}
    scores = scores_of({"quality.fill": 0.5})
    assert decide(policy_of([rule]), request_for(["web"]), LICENCE, scores).outcome == "block"


def test_a_library_that_was_not_measured_blocks() -> None:
    scores = scores_of({"copying.descriptor@toys": 0.1})
    verdict = decide(policy_of([LOGOS]), REQUEST, LICENCE, scores)
    assert verdict.reasons[0].text == "copying.descriptor@logos was not measured (block)"


@pytest.mark.parametrize(
    ("named", "outcome"),
    [
        (["amazon"], "block"),
        (["Amazon", "web"], "block"),
        (["web"], "pass"),
        (["any"], "block"),
        ([], "block"),
    ],
)
def test_a_rule_for_a_channel_is_for_images_that_may_go_there(
    named: list[str], outcome: str
) -> None:
    rule = {
        "check": "quality", "score": "background", "block": {"below": 1}, "channels": ["amazon"],
    }  # fmt: skip
    scores = scores_of({"quality.background": 0.5})
    verdict = decide(policy_of([rule]), request_for(named), LICENCE, scores)
    assert verdict.outcome == outcome
    if outcome == "block":
        assert verdict.reasons[0].rule == "quality.background[amazon]"


def test_a_combination_tells_all_signals_that_spoke() -> None:
    policy = policy_of(
        [
            {
                "name": "likely-copy",
                "outcome": "review",
                "severity": "high",
                "reason": "several signals agree",
                "all": [
                    {"check": "copying", "score": "descriptor", "at_least": 0.5},
                    {"any": [
                        {"check": "copying", "score": "clip", "at_least": 0.8},
                        {"check": "copying", "score": "pdq", "below": 64},
                    ]},
                ],
            }
        ]
    )  # fmt: skip
    found = {"copying.descriptor@toys": 0.6, "copying.clip@toys": 0.7, "copying.pdq@toys": 40}
    (reason,) = decide(policy, REQUEST, LICENCE, scores_of(found)).reasons
    assert reason.text == (
        "likely-copy (review): copying.descriptor@toys 0.60 is at least 0.50; "
        "copying.pdq@toys 40 is below 64: several signals agree"
    )
    assert (reason.severity, reason.rule, reason.detector) == ("high", "likely-copy", "d")
    assert [each["score"] for each in reason.evidence["signals"]] == [
        "copying.descriptor@toys",
        "copying.pdq@toys",
    ]
    found["copying.pdq@toys"] = 64
    assert decide(policy, REQUEST, LICENCE, scores_of(found)).outcome == "pass"


def test_reasons_come_by_outcome_then_by_severity() -> None:
    policy = policy_of(
        [
            {"check": "quality", "score": "contrast", "review": {"below": 1}, "severity": "low"},
            {"check": "quality", "score": "fill", "review": {"below": 1}, "severity": "critical"},
            {"check": "quality", "score": "banding", "review": {"below": 1}},
            {"check": "quality", "score": "aspect", "block": {"below": 1}, "severity": "low"},
        ]
    )
    names = ("contrast", "fill", "banding", "aspect")
    scores = scores_of({f"quality.{name}": 0 for name in names})
    verdict = decide(policy, REQUEST, LICENCE, scores)
    assert [r.rule.split(".")[1] for r in verdict.reasons] == [
        "aspect", "fill", "banding", "contrast",
    ]  # fmt: skip


POLICY = """\
policy: house
version: "1"
extends: starter
checks:
  copying: {libraries: [logos, toys], descriptor: starter-copy}
rules:
  - {check: copying, score: descriptor, review: {at_least: 0.5}}
  - {check: quality, score: contrast, block: {below: 0.2}}
  - name: twice
    outcome: block
    all:
      - {check: copying, score: pdq, library: toys, below: 32}
"""


def saved(folder: Path, text: str) -> Path:
    path = folder / "house.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_reason_says_where_its_rule_was_declared(tmp_path: Path) -> None:
    policy, request = load_policy(saved(tmp_path, POLICY)), replace(REQUEST, prompt="a nude")
    found = {"copying.descriptor@toys": 0.6, "copying.pdq@toys": 3, "quality.contrast": 0.1}
    reasons = {
        reason.rule: reason for reason in decide(policy, request, "None", scores_of(found)).reasons
    }
    assert reasons["copying.descriptor@toys"].declared == "house.yaml:7"
    assert reasons["quality.contrast"].declared == "house.yaml:8"
    assert reasons["twice"].declared == "house.yaml:9"
    assert reasons["nsfw.concept"].declared.startswith("starter.yaml:")
    assert reasons["licences"].declared.startswith("starter.yaml:")
    assert reasons["prompts.deny"].declared.startswith("starter.yaml:")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{check: copying, score: descriptor, library: logo, block: {below: 1}}", "library 'logo'"),
        ("{check: quality, score: contrast, library: toys, block: {below: 1}}", "library 'toys'"),
        ("{check: copying, score: clip, block: {below: 1}}", "checks.copying.shortlist"),
        ("{name: x, outcome: pass, all: [{check: quality, score: fill, below: 1}]}", "outcome"),
        ("{name: x, outcome: block, all: [{check: quality, score: fil, below: 1}]}", "'fill'"),
        (
            "{name: x, outcome: block, all: [{any: [{check: qality, score: a, below: 1}]}]}",
            "quality",
        ),
        ("{name: x, outcome: block, any: []}", "at least 1"),
        ("{name: x, outcome: block, all: [{check: quality, score: fill}]}", "either"),
        ("{name: x, outcome: block, severty: low, all: []}", "did you mean 'severity'"),
        ("{name: twice, outcome: block, any: [{check: quality, score: fill, below: 1}]}", "twice"),
        ("{check: quality, score: fill, block: {below: 1}, channels: []}", "at least 1"),
        ("{check: quality, score: fill, block: {below: 1}, severity: mild}", "severity"),
        ("{check: nsfw, score: concept, block: {at_least: 45}}", "out of reach"),
        ("{check: copying, score: pdq, block: {at_least: 32}}", "write below"),
        ("{check: copying, score: descriptor, library: toys, block: {below: 1}}", "write at_least"),
        ("{check: copying, score: pdq, block: {below: 0}}", "out of reach"),
        ("{name: x, outcome: block, all: [{check: copying, score: pdq, at_least: 3}]}", "below"),
        ("{check: copying, score: pdq, review: {below: 32}, block: {below: 32}}", "never reached"),
        ("[a, b]", "valid dictionary"),
    ],
)
def test_a_faulty_rule_is_named_by_its_line(line: str, words: str, tmp_path: Path) -> None:
    path = saved(tmp_path, f"{POLICY}  - {line}\n")
    with pytest.raises(InputError) as refused:
        load_policy(path)
    faults = [str(fault) for fault in refused.value.faults]
    assert any(":13: " in fault and words in fault for fault in faults), faults


def test_rules_are_inherited_by_score_library_and_channels(tmp_path: Path) -> None:
    saved(tmp_path, POLICY)
    child = tmp_path / "child.yaml"
    child.write_text(
        'policy: child\nversion: "1"\nextends: house\nrules:\n'
        "  - {check: copying, score: descriptor, library: toys, block: {at_least: 0.9}}\n"
        "  - {check: quality, score: contrast, channels: [web], block: {below: 0.3}}\n"
        "  - {name: twice, outcome: review, any: [{check: copying, score: pdq, below: 9}]}\n"
    )
    names = [rule.name for rule in load_policy(child).rules]
    assert names.count("twice") == 1
    assert {"copying.descriptor", "copying.descriptor@toys"} <= set(names)
    assert {"quality.contrast", "quality.contrast[web]"} <= set(names)
