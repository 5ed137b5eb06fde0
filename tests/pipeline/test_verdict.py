"""Verdicts: what passes, what does not and why, and that worse scores are never judged milder."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.denied import denied_words
from pipeline.policy import Policy
from pipeline.policy_model import KNOWN_SCORES
from pipeline.records import Score
from pipeline.request import Request
from pipeline.verdict import decide, model_refusals, prompt_refusals

RequestOf = Callable[..., Request]
SEVERITY = {"pass": 0, "review": 1, "block": 2}
NAMES = [f"{check}.{score}" for check, scores in KNOWN_SCORES.items() for score in scores]
LICENCE = "Apache-2.0"

REQUEST = Request(
    sku="A", index=0, mode="text-to-image", model="m", model_revision="r", prompt="a red mug",
    negative_prompt="nude", seed=1, width=64, height=64, steps=1, guidance=1.0, scheduler="",
    campaign="", client="",
)  # fmt: skip

number = st.floats(-300, 300, allow_nan=False)


@st.composite
def rules(draw: st.DrawFn, name: str) -> dict[str, Any]:
    low, high = sorted(draw(st.lists(number, min_size=2, max_size=2, unique=True)))
    side = draw(st.sampled_from(["at_least", "below"]))
    review, block = (low, high) if side == "at_least" else (high, low)
    check, score = name.split(".")
    rule: dict[str, Any] = {"check": check, "score": score}
    kept = draw(st.sampled_from(["review", "block", "both"]))
    if kept != "block":
        rule["review"] = {side: review}
    if kept != "review":
        rule["block"] = {side: block}
    return rule


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    return policy_of([draw(rules(name)) for name in names])


def policy_of(rules: list[dict[str, Any]], **changes: Any) -> Policy:
    fields: dict[str, Any] = {
        "policy": "p", "version": "1", "checks": {}, "rules": rules, "licences": [LICENCE],
    }  # fmt: skip
    return Policy.model_validate(fields | changes)


def scores_of(values: dict[str, float]) -> list[Score]:
    return [Score(*name.split("."), value) for name, value in values.items()]


values = st.fixed_dictionaries(dict.fromkeys(NAMES, number))


@given(policies(), values, st.data())
def test_worse_scores_never_get_a_milder_verdict(
    policy: Policy, found: dict[str, float], data: st.DataObject
) -> None:
    before = decide(policy, REQUEST, LICENCE, scores_of(found))
    worse = dict(found)
    for rule in policy.rules:
        step = data.draw(st.floats(0, 100))
        bound = rule.review or rule.block
        worse[rule.name] += step if bound.at_least is not None else -step
    after = decide(policy, REQUEST, LICENCE, scores_of(worse))
    assert SEVERITY[after.outcome] >= SEVERITY[before.outcome]


@given(policies(), values, st.randoms(use_true_random=False))
def test_order_of_rules_and_scores_is_irrelevant(
    policy: Policy, found: dict[str, float], random: Any
) -> None:
    rules = [rule.model_dump(exclude_none=True) for rule in policy.rules]
    random.shuffle(rules)
    shuffled = scores_of(found)
    random.shuffle(shuffled)
    other = policy_of(rules)
    assert other.digest == policy.digest
    assert decide(other, REQUEST, LICENCE, shuffled) == decide(
        policy, REQUEST, LICENCE, scores_of(found)
    )


@given(policies(), values)
def test_the_verdict_is_the_worst_of_its_reasons(policy: Policy, found: dict[str, float]) -> None:
    verdict = decide(policy, REQUEST, LICENCE, scores_of(found))
    worst = max((SEVERITY[reason.outcome] for reason in verdict.reasons), default=0)
    assert SEVERITY[verdict.outcome] == worst
    for reason in verdict.reasons:
        rule = next(rule for rule in policy.rules if rule.name == reason.rule)
        assert getattr(rule, reason.outcome).broken_by(reason.score)
        assert reason.bound == getattr(rule, reason.outcome).value


@given(
    policies(),
    values,
    st.sampled_from([math.nan, math.inf, -math.inf, None]),
    st.data(),
)
def test_a_score_that_is_missing_or_no_number_blocks(
    policy: Policy, found: dict[str, float], broken: float | None, data: st.DataObject
) -> None:
    if not policy.rules:
        return
    name = data.draw(st.sampled_from([rule.name for rule in policy.rules]))
    values = {**found, name: broken}
    given = [s for s in scores_of(values) if s.value is not None]
    verdict = decide(policy, REQUEST, LICENCE, given)
    assert verdict.outcome == "block"
    assert any(r.rule == name and r.outcome == "block" and r.text for r in verdict.reasons)


def test_of_two_scores_of_one_name_the_worse_counts() -> None:
    policy = policy_of([{"check": "nsfw", "score": "concept", "block": {"at_least": 0.5}}])
    for pair in ((0.9, 0.1), (0.1, 0.9)):
        scores = [Score("nsfw", "concept", value) for value in pair]
        assert decide(policy, REQUEST, LICENCE, scores).outcome == "block"


@pytest.mark.parametrize(
    ("value", "outcome"),
    [(0.4999, "pass"), (0.5, "review"), (0.8999, "review"), (0.9, "block"), (1.0, "block")],
)
def test_bounds_are_inclusive_from_below(value: float, outcome: str) -> None:
    bounds = {"review": {"at_least": 0.5}, "block": {"at_least": 0.9}}
    rule = {"check": "nsfw", "score": "concept", **bounds}
    scores = [Score("nsfw", "concept", value)]
    assert decide(policy_of([rule]), REQUEST, LICENCE, scores).outcome == outcome


def test_a_reason_reads_as_a_sentence_and_keeps_the_evidence() -> None:
    rule = {"check": "similarity", "score": "nearest", "block": {"at_least": 0.9}}
    evidence = {
        "detector": "clip",
        "revision": "1",
        "nearest": [{"file": "pippo-2.png", "rights_holder": "Acme Toys", "cosine": 0.93}],
    }
    verdict = decide(
        policy_of([rule]), REQUEST, LICENCE, [Score("similarity", "nearest", 0.93, evidence)]
    )
    (reason,) = verdict.reasons
    assert reason.text == (
        "similarity.nearest 0.93 is at least 0.90 (block): "
        "nearest reference 'pippo-2.png' of Acme Toys"
    )
    assert reason.evidence == evidence
    assert (reason.score, reason.bound) == (0.93, 0.9)


@pytest.mark.parametrize(
    ("score", "bound", "words"),
    [
        (Score("duplicates", "near", 12.0, {"nearest": {"sku": "M-2", "request_id": "r"}}), 32,
         "duplicates.near 12 is below 32 (review): nearest image of sku 'M-2'"),
        (Score("quality", "contrast", 0.02996), 0.03, "quality.contrast 0.02996 is below 0.03000"),
        (Score("nsfw", "concept", 0.1, {"concept": "nude"}), 0.5, "likeliest concept 'nude'"),
    ],
)  # fmt: skip
def test_reasons_show_numbers_that_differ(score: Score, bound: float, words: str) -> None:
    rule = {"check": score.check, "score": score.name, "review": {"below": bound}}
    (reason,) = decide(policy_of([rule]), REQUEST, LICENCE, [score]).reasons
    assert words in reason.text


def test_a_rules_own_words_are_used() -> None:
    rule = {
        "check": "quality", "score": "decodes", "block": {"below": 1}, "reason": "broken file",
    }  # fmt: skip
    (reason,) = decide(
        policy_of([rule]), REQUEST, LICENCE, [Score("quality", "decodes", 0.0)]
    ).reasons
    assert reason.text == "quality.decodes 0 is below 1 (block): broken file"


def test_the_starter_policy_passes_good_scores(
    policy: Policy, request_of: RequestOf, good_scores: list[Score]
) -> None:
    verdict = decide(policy, request_of(), "Apache-2.0", good_scores)
    assert (verdict.outcome, verdict.reasons) == ("pass", ())
    assert verdict.policy_digest == policy.digest


@pytest.mark.parametrize(
    ("licence", "outcome"),
    [("Apache-2.0", "pass"), ("apache-2.0", "pass"), ("AGPL-3.0", "block"), ("", "block")],
)
def test_only_listed_model_licences_pass(licence: str, outcome: str) -> None:
    verdict = decide(policy_of([]), REQUEST, licence, [])
    assert verdict.outcome == outcome


@pytest.mark.parametrize(
    ("prompt", "denied"),
    [
        ("a NUDE figure", True),
        ("nude", True),
        ("(nude:1.3), studio", True),
        ("nude_figure", True),
        ("ｎｕｄｅ figure", True),
        ("nu\u00adde figure", True),
        ("nu\u200bde figure", True),
        ("a denuded hill", False),
        ("nudes", False),
        ("a STRASSE at night", True),
        ("a straße at night", True),
        ("mickey   \n Mouse", True),
        ("mickey mousepad", False),
        ("CAFÉ", True),
        ("cafe\u0301", True),
        ("一个裸体模特", True),
        ("미키마우스는", True),
        ("", False),
    ],
)
def test_denied_words_match_whole_words_in_any_form(prompt: str, denied: bool) -> None:
    deny = ("nude", "straße", "Mickey Mouse", "café", "裸体", "미키마우스")
    policy = policy_of([], prompts={"deny": deny})
    verdict = decide(policy, Request(**{**REQUEST.__dict__, "prompt": prompt}), LICENCE, [])
    assert (verdict.outcome == "block") is denied
    assert bool(denied_words(deny, prompt)) is denied


def test_the_negative_prompt_may_hold_denied_words() -> None:
    assert decide(policy_of([], prompts={"deny": ["nude"]}), REQUEST, LICENCE, []).outcome == "pass"


@given(st.text(max_size=30), st.text(max_size=10))
def test_any_text_may_be_searched_for_any_word(prompt: str, word: str) -> None:
    denied_words((word,), prompt)


@given(st.text(alphabet=st.characters(categories=["Ll", "Lu", "Nd"]), min_size=1, max_size=8))
def test_a_word_is_always_found_standing_alone(word: str) -> None:
    assert denied_words((word,), f"a {word.upper()}, please") or word.upper().lower() != word


def test_refusals_name_model_and_sku_before_anything_is_made(request_of: RequestOf) -> None:
    policy = policy_of([], prompts={"deny": ["logo"]})
    requests = [request_of(index=index) for index in range(3)] + [
        request_of(sku="BAD-1", prompt="a mug with a logo", index=index, model="other")
        for index in range(2)
    ]
    licences = {"starter": "Apache-2.0", "other": "research-only"}
    (fault,) = model_refusals(policy, {"starter": 3, "other": 2}, licences)
    assert fault.where == "model other (2 images)"
    assert "research-only" in fault.what
    (denied,) = prompt_refusals(policy, requests[-1])
    assert denied.where == "sku BAD-1"
    assert "'logo'" in denied.what
    assert prompt_refusals(policy, requests[0]) == []
    assert model_refusals(policy, {"starter": 1}, {"starter": "Apache-2.0"}) == []
    assert model_refusals(policy, {"starter": 1}, {})


def test_refusals_of_a_large_brief_take_seconds_at_most(request_of: RequestOf) -> None:
    policy = policy_of([], prompts={"deny": ["logo", "nude", "in the style of"]})
    requests = [request_of(sku=f"S{i}", prompt=f"a mug number {i}") for i in range(20_000)]
    assert not any(prompt_refusals(policy, each) for each in requests)


@pytest.mark.parametrize(
    "prompt", ["a mug in the (style)1.3 of monet", "mickey++ mouse", '("in the style of")0.5 x']
)
def test_weights_do_not_hide_denied_phrases(request_of: RequestOf, prompt: str) -> None:
    policy = policy_of([], prompts={"deny": ["in the style of", "mickey mouse"]})
    weighted = request_of(prompt=prompt, prompt_syntax="compel")
    assert prompt_refusals(policy, weighted)
    assert decide(policy, weighted, LICENCE, []).outcome == "block"
