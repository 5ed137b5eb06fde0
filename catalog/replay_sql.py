"""Compiles a policy into SQL over stored scores: which rows speak, and what they mean together.

A part of catalog/replay_evaluate.py. `pipeline/verdict.py::decide` is the law; this says the same
of millions at once, and a property test holds the two together.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pipeline.policy_model import Policy
from pipeline.policy_rules import (
    AllOf,
    AnyOf,
    Bound,
    Combination,
    Condition,
    Measurement,
    Rule,
    conditions,
    score_name,
)
from pipeline.records import SEVERITIES, Outcome
from pipeline.verdict import PRESERVED, RESTRICTED

CODES: tuple[Outcome, ...] = ("pass", "review", "block")
"""Outcomes by their number in SQL: the greater the worse."""
LICENCES, DENIED = "licences", "prompts.deny"
NORMAL = SEVERITIES.index("normal")

Pair = tuple[str, str]
"""A score as the table has it: check_name and name. Its place in `Compiled.pairs` is its number."""


@dataclass(frozen=True)
class Word:
    """One way in which a policy speaks. `sql` is its outcome's number for a request, or NULL.

    It is an aggregate over the rows (fact, value) that speak of the request.
    """

    name: str
    """As in `Reason.rule`."""
    sql: str
    severity: int
    facts: frozenset[int]
    """Without a row of one of these it is silent."""
    rule: Rule | Combination | None = None


@dataclass(frozen=True)
class Limits:
    """Values in [`below`, `at_least`) break no bound that there is on a score."""

    below: float = -sys.float_info.max
    at_least: float = math.inf

    def narrowed(self, bound: Bound) -> Limits:
        """With one more bound."""
        if bound.at_least is not None:
            return replace(self, at_least=min(self.at_least, bound.at_least))
        return replace(self, below=max(self.below, bound.value))


@dataclass(frozen=True)
class Compiled:
    """A policy over scores of these names. Facts are numbered: a pair, or what is `missing` …"""

    pairs: tuple[Pair, ...]
    words: tuple[Word, ...]
    limits: tuple[tuple[int, Limits], ...]
    """Pairs that matter, and between which limits their values do not."""
    needs: tuple[tuple[Measurement, frozenset[int]], ...]
    """Scores that must have been measured, and the pairs that are each."""
    checks: tuple[str, ...]
    """The check that measures each of them."""

    def missing(self, need: int) -> int:
        """The fact that a request lacks a needed score."""
        return len(self.pairs) + need

    @property
    def licences(self) -> int:
        """The fact that a model's licence is not listed."""
        return len(self.pairs) + len(self.needs)

    @property
    def denied(self) -> int:
        """The fact that a prompt holds a denied word."""
        return self.licences + 1


@dataclass
class _Writing:
    """What has been compiled so far."""

    policy: Policy
    pairs: tuple[Pair, ...]
    words: list[Word] = field(default_factory=list)
    limits: dict[int, Limits] = field(default_factory=dict)
    needs: dict[Measurement, frozenset[int]] = field(default_factory=dict)

    def missing(self, need: Measurement) -> int:
        return len(self.pairs) + list(self.needs).index(need)


def compile_policy(policy: Policy, pairs: Sequence[Pair]) -> Compiled:
    """The policy in SQL over scores of these names; names that no rule speaks of do not matter."""
    writing = _Writing(policy, tuple(pairs))
    checks = {need: part.check for part in _parts(policy) for need in policy.measurements(part)}
    for need in checks:
        writing.needs[need] = frozenset(
            number for number, pair in enumerate(pairs) if need.covers(score_name(*pair, None))
        )
    for rule in policy.rules:
        if isinstance(rule, Rule):
            _rule(writing, rule)
        else:
            _combination(writing, rule)
    _inputs(writing)
    facts = len(pairs) + len(writing.needs)
    for number, name in enumerate((LICENCES, DENIED)):
        writing.words.append(_word(name, facts + number))
    return Compiled(
        writing.pairs,
        tuple(writing.words),
        tuple(sorted(writing.limits.items())),
        tuple(writing.needs.items()),
        tuple(checks[need] for need in writing.needs),
    )


def _parts(policy: Policy) -> list[Rule | Condition]:
    found: list[Rule | Condition] = []
    for rule in policy.rules:
        found += [rule] if isinstance(rule, Rule) else list(conditions(rule.whole))
    return found


def _about(writing: _Writing, part: Rule | Condition) -> list[int]:
    """The pairs that a rule or condition is about, as `decide` has it."""
    meant = writing.policy.measurements(part)
    found = sorted({pair for need in meant for pair in writing.needs[need]})
    left_out = writing.policy.left_out(part)
    return [pair for pair in found if writing.pairs[pair][1].partition("@")[2] not in left_out]


def _rule(writing: _Writing, rule: Rule) -> None:
    severity = _severity(rule)
    for need in writing.policy.measurements(rule):
        name = need.name + rule.suffix
        writing.words.append(_word(name, writing.missing(need), severity, rule))
    for pair in _about(writing, rule):
        outcomes = [
            f"WHEN {_broken(bound)} THEN {code}"
            for code, bound in ((2, rule.block), (1, rule.review))
            if bound
        ]
        sql = f"max(CASE WHEN {_UNUSABLE} THEN 2 {' '.join(outcomes)} END) FILTER (fact = {pair})"
        name = score_name(*writing.pairs[pair], None) + rule.suffix
        writing.words.append(Word(name, sql, severity, frozenset({pair}), rule))
        for bound in (rule.review, rule.block):
            if bound:
                _note(writing, pair, bound)


def _word(name: str, fact: int, severity: int = NORMAL, rule: Rule | None = None) -> Word:
    """A fact that blocks by itself."""
    return Word(name, f"max(2) FILTER (fact = {fact})", severity, frozenset({fact}), rule)


def _combination(writing: _Writing, rule: Combination) -> None:
    parts = list(conditions(rule.whole))
    pairs = {pair for part in parts for pair in _about(writing, part)}
    needs = {need for part in parts for need in writing.policy.measurements(part)}
    missing = {writing.missing(need) for need in needs}
    for part in parts:
        for pair in _about(writing, part):
            _note(writing, pair, part)
    faults = f"bool_or({_in(missing)} OR ({_in(pairs)} AND {_UNUSABLE}))"
    holds = _holds(writing, rule.whole)
    sql = f"CASE WHEN {faults} THEN 2 WHEN {holds} THEN {CODES.index(rule.outcome)} END"
    facts = frozenset(pairs | missing)
    writing.words.append(Word(rule.name, sql, _severity(rule), facts, rule))


def _holds(writing: _Writing, part: Condition | AllOf | AnyOf) -> str:
    if isinstance(part, Condition):
        broken = f"{_in(_about(writing, part))} AND {_broken(part)}"
        return f"coalesce(bool_or({broken}), false)"
    inside = part.all if isinstance(part, AllOf) else part.any
    link = " AND " if isinstance(part, AllOf) else " OR "
    return "(" + link.join(_holds(writing, each) for each in inside) + ")"


def _inputs(writing: _Writing) -> None:
    """What a policy says of images made from others, without a rule of its own."""
    inputs = writing.policy.inputs
    least = inputs.preserved_db
    spoken = {PRESERVED: (f"isnan(value) OR value < {_number(least)}", 2, Bound(below=least))}
    if inputs.restricted != "ignore":
        # NaN is greater than all numbers in SQL: a count that is not known is a restriction.
        code = 1 if inputs.restricted == "review" else 2
        spoken[RESTRICTED] = ("NOT value <= 0", code, Bound(at_least=_LEAST))
    for number, pair in enumerate(writing.pairs):
        name = score_name(*pair, None)
        if name in spoken:
            broken, code, bound = spoken[name]
            sql = f"max(CASE WHEN {broken} THEN {code} END) FILTER (fact = {number})"
            writing.words.append(Word(name, sql, NORMAL, frozenset({number})))
            _note(writing, number, bound)


_UNUSABLE = "coalesce(NOT isfinite(value), true)"
_LEAST = 5e-324
"""The least number above 0."""


def _note(writing: _Writing, pair: int, bound: Bound) -> None:
    writing.limits[pair] = writing.limits.get(pair, Limits()).narrowed(bound)


def _broken(bound: Bound) -> str:
    return f"value {'>=' if bound.at_least is not None else '<'} {_number(bound.value)}"


def _number(value: float) -> str:
    return f"'{value!r}'::DOUBLE"


def _in(facts: set[int] | list[int]) -> str:
    return f"fact IN ({', '.join(map(str, sorted(facts)))})" if facts else "false"


def _severity(rule: Rule | Combination) -> int:
    return SEVERITIES.index(rule.severity or "normal")
