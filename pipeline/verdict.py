"""Policy and scores in, verdict out: a pure function, so that years of images can be judged again.

Fails closed: a score that a rule needs and that is absent or not a number blocks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.denied import denied_words
from pipeline.errors import Fault
from pipeline.inputs import Picture
from pipeline.policy_model import Policy
from pipeline.policy_rules import AllOf, AnyOf, Bound, Combination, Condition, Rule, conditions
from pipeline.records import SEVERITIES, Outcome, Reason, Score, Verdict
from pipeline.request import Request

RESTRICTED, PRESERVED = "inputs.restricted", "inputs.preserved"
"""Scores of images made from others: how many restrictions their inputs carry, and the PSNR in dB
of what lies outside the repainted region."""
DENIED = "the prompt holds the denied word"
"""How a reason begins that quotes a word of the prompt."""
_WORST: dict[Outcome, int] = {"block": 0, "review": 1, "pass": 2}


def decide(
    policy: Policy,
    request: Request,
    model_licence: str | Sequence[str],
    scores: Sequence[Score],
) -> Verdict:
    """The policy's word on one image: the worst of its reasons, `pass` without any.

    `model_licence` is that of the model, or those of all models, adapters and tools that were used.
    Neither the order of rules nor that of scores matters; of two scores with one name each counts.
    Worse scores never give a milder verdict. Reasons come by outcome, then by severity. A rule for
    some channels speaks when the request's usage terms allow one of them.
    """
    licences = [model_licence] if isinstance(model_licence, str) else model_licence
    reasons = [
        *(reason for each in dict.fromkeys(licences) for reason in _licence_reasons(policy, each)),
        *(reason for text in _prompts(request) for reason in _prompt_reasons(policy, text)),
        *_input_reasons(policy, scores),
    ]
    channels = _channels(request)
    for rule in policy.rules:
        if not rule.speaks_of(channels):
            continue
        said = (
            _combined(policy, rule, scores)
            if isinstance(rule, Combination)
            else _alone(policy, rule, scores)
        )
        reasons += [_signed(policy, rule, reason) for reason in said]
    reasons.sort(key=_place)
    return Verdict(
        outcome=reasons[0].outcome if reasons else "pass",
        reasons=tuple(reasons),
        policy=policy.policy,
        policy_version=policy.version,
        policy_digest=policy.digest,
    )


def model_refusals(
    policy: Policy, models: Mapping[str, int], licences: Mapping[str, str]
) -> list[Fault]:
    """A fault for each model whose licence the policy does not list; before anything is generated.

    `models` maps names to how many images use them, `licences` names to licence ids.
    """
    remedy = "choose another model, or list the licence in the policy"
    return [
        Fault(reason.text, f"model {model} ({count} images)", remedy)
        for model, count in models.items()
        for reason in _licence_reasons(policy, licences.get(model, ""))
    ]


def prompt_refusals(policy: Policy, request: Request) -> list[Fault]:
    """A fault for each denied word in the prompts of a request's steps."""
    return [
        Fault(reason.text, f"sku {request.sku}", "reword the prompt or drop the item")
        for text in _prompts(request)
        for reason in _prompt_reasons(policy, text)
    ]


def picture_refusals(policy: Policy, picture: Picture) -> list[str]:
    """What the policy has against an input before it is used: its own marks, and for an asset of
    ours the licences of the models that made it."""
    licences = picture.asset.licences if picture.asset else ()
    against = [reason.text for each in licences for reason in _licence_reasons(policy, each)]
    if policy.inputs.restricted == "refuse":
        against += picture.credentials.forbids("editing")
    return against


# Weights of `prompt_syntax: compel` part the words of a phrase.
_WEIGHTS = re.compile(r'[)"]\d*\.?\d*|[("]|[+-]+(?=[\s,.)"]|$)')


def without_weights(request: Request) -> str:
    """The request's prompt in plain words."""
    return plain_words(request.prompt, request.prompt_syntax)


def plain_words(prompt: str, syntax: str) -> str:
    """A prompt of that `prompt_syntax` without its weights."""
    return prompt if syntax == "plain" else _WEIGHTS.sub(" ", prompt)


def _prompts(request: Request) -> list[str]:
    """The prompts of all steps, weighted ones also without their weights."""
    texts = [step.prompt for step in request.chain]
    return list(dict.fromkeys([*texts, *map(without_weights, request.chain)]))


def _input_reasons(policy: Policy, scores: Sequence[Score]) -> list[Reason]:
    """What the policy says of an image's inputs: their own restrictions, and whether the part of a
    photo that was to be kept was kept."""
    outcome: Outcome = "review" if policy.inputs.restricted == "review" else "block"
    reasons = []
    for score in scores:
        name, evidence = f"{score.check}.{score.name}", dict(score.evidence)
        if name == RESTRICTED and policy.inputs.restricted != "ignore" and not score.value <= 0:
            text = f"{name}: {evidence.get('says', 'not known')} ({outcome})"
            reasons.append(_of_inputs(policy, outcome, text, score, 0.0))
        if name == PRESERVED and not score.value >= policy.inputs.preserved_db:
            bound = policy.inputs.preserved_db
            text = f"{name} {score.value:.1f} dB is below {bound:g} (block): the part of the input "
            text += "that was to be kept has changed"
            reasons.append(_of_inputs(policy, "block", text, score, bound))
    return reasons


def _of_inputs(policy: Policy, outcome: Outcome, text: str, score: Score, bound: float) -> Reason:
    return Reason(
        outcome,
        _name(score),
        text,
        _number(score.value),
        bound,
        dict(score.evidence),
        declared=policy.declared("inputs"),
        detector=_of(score, "detector"),
        revision=_revision(score),
    )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _licence_reasons(policy: Policy, licence: str) -> list[Reason]:
    if policy.allows_licence(licence):
        return []
    named = f"the model's licence {licence!r}" if licence else "the model names no licence, which"
    text = f"{named} is not among those the policy lists: {', '.join(policy.licences)} (block)"
    return [Reason("block", "licences", text, declared=policy.declared("licences"))]


def _prompt_reasons(policy: Policy, prompt: str) -> list[Reason]:
    return [
        Reason(
            "block",
            "prompts.deny",
            f"{DENIED} {word!r} (block)",
            declared=policy.declared(f"prompts.deny {word}"),
        )
        for word in denied_words(policy.prompts.deny, prompt)
    ]


def matching(policy: Policy, part: Rule | Condition, scores: Sequence[Score]) -> list[Score]:
    """The scores that a rule or condition is about, whoever measured them."""
    meant, left_out = policy.measurements(part), policy.left_out(part)
    return [
        score
        for score in scores
        if any(each.covers(_name(score)) for each in meant)
        and score.name.partition("@")[2] not in left_out
    ]


def _missing(
    policy: Policy, part: Rule | Condition, scores: Sequence[Score]
) -> Iterator[tuple[str, str]]:
    """Name and words for each score that a part is about and that was not measured."""
    for each in policy.measurements(part):
        found = [score for score in scores if each.covers(_name(score))]
        if each.detector:
            found = [score for score in found if _of(score, "detector") == each.detector]
        if not found:
            by = f" by {each.detector}" if each.detector else ""
            yield each.name, f"was not measured{by}"


def _alone(policy: Policy, rule: Rule, scores: Sequence[Score]) -> list[Reason]:
    lacking = [
        Reason("block", name + rule.suffix, f"{name}{rule.suffix} {words} (block)")
        for name, words in _missing(policy, rule, scores)
    ]
    found = matching(policy, rule, scores)
    return [*lacking, *(reason for score in found if (reason := _spoken(rule, score)))]


def _combined(policy: Policy, rule: Combination, scores: Sequence[Score]) -> list[Reason]:
    """One reason with all scores that made the combination hold; one a score that is missing."""
    faults = [
        Reason("block", rule.name, f"{rule.name}: {name} {what} (block)")
        for condition in conditions(rule.whole)
        for name, what in _unusable(policy, condition, scores)
    ]
    if faults:
        return list({fault.text: fault for fault in faults}.values())
    broken = _broken(policy, rule.whole, scores)
    if not broken:
        return []
    unique = list(
        {_key(condition, score): (condition, score) for condition, score in broken}.values()
    )
    told = "; ".join(sorted(_compared(score, condition) for condition, score in unique))
    text = f"{rule.name} ({rule.outcome}): {told}"
    signals = [
        {
            "score": _name(score),
            "value": score.value,
            "bound": condition.value,
            "words": condition.words,
            "evidence": dict(score.evidence),
        }
        for condition, score in sorted(unique, key=lambda each: _name(each[1]))
    ]
    who = sorted({(_of(score, "detector"), _revision(score)) for _, score in unique})
    return [
        Reason(
            rule.outcome,
            rule.name,
            f"{text}: {rule.reason}" if rule.reason else text,
            evidence={"signals": signals},
            detector=", ".join(detector for detector, _ in who),
            revision=", ".join(revision for _, revision in who),
        )
    ]


Broken = list[tuple[Condition, Score]]


def _broken(policy: Policy, part: Condition | AllOf | AnyOf, scores: Sequence[Score]) -> Broken:
    """The scores that make a part hold; none when it does not."""
    if isinstance(part, Condition):
        found = matching(policy, part, scores)
        return [(part, score) for score in found if part.broken_by(score.value)]
    parts = part.all if isinstance(part, AllOf) else part.any
    inside = [_broken(policy, each, scores) for each in parts]
    if isinstance(part, AllOf) and not all(inside):
        return []
    return [pair for each in inside for pair in each]


def _unusable(
    policy: Policy, condition: Condition, scores: Sequence[Score]
) -> Iterator[tuple[str, str]]:
    yield from _missing(policy, condition, scores)
    for score in matching(policy, condition, scores):
        if not math.isfinite(score.value):
            yield _name(score), "is not a number"


def _signed(policy: Policy, rule: Rule | Combination, reason: Reason) -> Reason:
    """The reason with what its rule says of itself."""
    return replace(reason, severity=rule.severity or "normal", declared=policy.declared(rule.name))


def _place(reason: Reason) -> tuple[int, int, str, str]:
    return _WORST[reason.outcome], -SEVERITIES.index(reason.severity), reason.rule, reason.text


def _channels(request: Request) -> Sequence[str]:
    return [str(channel) for channel in request.terms.get("channels") or ()]


def _name(score: Score) -> str:
    return f"{score.check}.{score.name}"


def _key(condition: Condition, score: Score) -> tuple[str, str, float, float]:
    return _name(score), _of(score, "detector"), score.value, condition.value


def _of(score: Score, name: str) -> str:
    return str(score.evidence.get(name) or "")


def _revision(score: Score) -> str:
    return _of(score, "weights_sha256") or _of(score, "revision")


def _spoken(rule: Rule, score: Score) -> Reason | None:
    evidence = dict(score.evidence)
    detector, revision = _of(score, "detector"), _revision(score)
    name = _name(score) + rule.suffix
    if not math.isfinite(score.value):
        text = f"{name} is not a number (block)"
        return Reason("block", name, text, evidence=evidence, detector=detector, revision=revision)
    bounds: list[tuple[Outcome, Bound | None]] = [("block", rule.block), ("review", rule.review)]
    for outcome, bound in bounds:
        if bound is not None and bound.broken_by(score.value):
            text = f"{_compared(score, bound, rule.suffix)} ({outcome})"
            why = rule.reason or _why(score)
            text = f"{text}: {why}" if why else text
            return Reason(
                outcome,
                name,
                text,
                score.value,
                bound.value,
                evidence,
                detector=detector,
                revision=revision,
            )
    return None


def _compared(score: Score, bound: Bound, suffix: str = "") -> str:
    value, limit = _readable(float(score.value), bound.value)
    return f"{_name(score)}{suffix} {value} is {bound.words} {limit}"


def _readable(value: float, bound: float) -> tuple[str, str]:
    """Both numbers with the fewest decimals (two at least) that keep them apart."""
    if value.is_integer() and bound.is_integer():
        return f"{value:.0f}", f"{bound:.0f}"
    for digits in range(2, 7):
        if value == bound or f"{value:.{digits}f}" != f"{bound:.{digits}f}":
            break
    return f"{value:.{digits}f}", f"{bound:.{digits}f}"


def _why(score: Score) -> str:
    """What the evidence says to a person: nearest reference or image, concept, label."""
    evidence = score.evidence
    nearest: Any = evidence.get("nearest") or evidence.get("duplicate_of")
    if isinstance(nearest, list | tuple) and nearest:
        nearest = nearest[0]
    if isinstance(nearest, Mapping) and nearest.get("file"):
        holder = nearest.get("rights_holder")
        return f"nearest reference {nearest['file']!r}" + (f" of {holder}" if holder else "")
    if isinstance(nearest, Mapping) and nearest.get("sku"):
        return f"nearest image of sku {nearest['sku']!r}"
    for key in ("concept", "label"):
        if evidence.get(key):
            return f"likeliest {key} {evidence[key]!r}"
    return ""
