"""Policy and scores in, verdict out: a pure function, so that years of images can be judged again.

Fails closed: a score that a rule needs and that is absent or not a number blocks.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from pipeline.errors import Fault
from pipeline.inputs import Picture
from pipeline.policy_model import Bound, Policy, Rule
from pipeline.records import Outcome, Reason, Score, Verdict
from pipeline.request import Request

RESTRICTED, PRESERVED = "inputs.restricted", "inputs.preserved"
"""Scores of images made from others: how many restrictions their inputs carry, and the PSNR in dB
of what lies outside the repainted region."""
_SEVERITY: dict[Outcome, int] = {"block": 0, "review": 1, "pass": 2}


def decide(
    policy: Policy,
    request: Request,
    model_licence: str | Sequence[str],
    scores: Sequence[Score],
) -> Verdict:
    """The policy's word on one image: the worst of its reasons, `pass` without any.

    `model_licence` is that of the model, or those of all models, adapters and tools that were used.
    Neither the order of rules nor that of scores matters; of two scores with one name each counts.
    Worse scores never give a milder verdict.
    """
    licences = [model_licence] if isinstance(model_licence, str) else model_licence
    reasons = [
        *(reason for each in dict.fromkeys(licences) for reason in _licence_reasons(policy, each)),
        *(reason for text in _prompts(request) for reason in _prompt_reasons(policy, text)),
        *_input_reasons(policy, scores),
    ]
    for rule in policy.rules:
        found = [score for score in scores if f"{score.check}.{score.name}" == rule.name]
        if not found:
            text = f"{rule.name} was not measured (block)"
            reasons.append(Reason("block", rule.name, text))
        reasons += [reason for score in found if (reason := _spoken(rule, score))]
    reasons.sort(key=lambda reason: (_SEVERITY[reason.outcome], reason.rule, reason.text))
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


def _prompts(request: Request) -> list[str]:
    """The prompts of all steps, weighted ones also without their weights."""
    texts = [step.prompt for step in request.chain]
    weighted = [step.prompt for step in request.chain if step.prompt_syntax != "plain"]
    return list(dict.fromkeys([*texts, *(_WEIGHTS.sub(" ", text) for text in weighted)]))


def _input_reasons(policy: Policy, scores: Sequence[Score]) -> list[Reason]:
    """What the policy says of an image's inputs: their own restrictions, and whether the part of a
    photo that was to be kept was kept."""
    outcome: Outcome = "review" if policy.inputs.restricted == "review" else "block"
    reasons = []
    for score in scores:
        name, evidence = f"{score.check}.{score.name}", dict(score.evidence)
        if name == RESTRICTED and policy.inputs.restricted != "ignore" and not score.value <= 0:
            text = f"{name}: {evidence.get('says', 'not known')} ({outcome})"
            reasons.append(Reason(outcome, name, text, _number(score.value), 0.0, evidence))
        if name == PRESERVED and not score.value >= policy.inputs.preserved_db:
            bound = policy.inputs.preserved_db
            text = f"{name} {score.value:.1f} dB is below {bound:g} (block): the part of the input "
            text += "that was to be kept has changed"
            reasons.append(Reason("block", name, text, _number(score.value), bound, evidence))
    return reasons


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def denied_words(deny: tuple[str, ...], prompt: str) -> list[str]:
    """The denied words that `prompt` holds as whole words, after NFKC, casefold and whitespace.

    Scripts that write without spaces have no whole words: there, any occurrence counts.
    """
    folded = _folded(prompt)
    return [word for word, pattern in _patterns(deny) if pattern.search(folded)]


@lru_cache(maxsize=32)
def _patterns(deny: tuple[str, ...]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((word, _whole_word(_folded(word))) for word in deny)


# Han, kana, Hangul (particles are glued on), Thai, Lao, Myanmar, Khmer.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)


def _whole_word(word: str) -> re.Pattern[str]:
    def edge(character: str, look: str) -> str:
        # An underscore parts words in prompts, so it is no letter here.
        spaced = character.isalnum() and not _UNSPACED.match(character)
        return look if spaced else ""

    return re.compile(
        edge(word[:1], r"(?<![^\W_])") + re.escape(word) + edge(word[-1:], r"(?![^\W_])")
    )


def _folded(text: str) -> str:
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    # Invisible characters (zero-width space, soft hyphen) would hide a word.
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    return " ".join(text.split())


def _licence_reasons(policy: Policy, licence: str) -> list[Reason]:
    if policy.allows_licence(licence):
        return []
    named = f"the model's licence {licence!r}" if licence else "the model names no licence, which"
    text = f"{named} is not among those the policy lists: {', '.join(policy.licences)} (block)"
    return [Reason("block", "licences", text)]


def _prompt_reasons(policy: Policy, prompt: str) -> list[Reason]:
    return [
        Reason("block", "prompts.deny", f"the prompt holds the denied word {word!r} (block)")
        for word in denied_words(policy.prompts.deny, prompt)
    ]


def _spoken(rule: Rule, score: Score) -> Reason | None:
    evidence = dict(score.evidence)
    if not math.isfinite(score.value):
        text = f"{rule.name} is not a number (block)"
        return Reason("block", rule.name, text, evidence=evidence)
    bounds: list[tuple[Outcome, Bound | None]] = [("block", rule.block), ("review", rule.review)]
    for outcome, bound in bounds:
        if bound is not None and bound.broken_by(score.value):
            value, limit = _readable(score.value, bound.value)
            text = f"{rule.name} {value} is {bound.words} {limit} ({outcome})"
            why = rule.reason or _why(score)
            text = f"{text}: {why}" if why else text
            return Reason(outcome, rule.name, text, score.value, bound.value, evidence)
    return None


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
