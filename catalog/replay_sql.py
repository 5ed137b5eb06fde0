"""Compiles a policy into SQL over stored score sets: what each of its rules says of an image.

A part of catalog/replay_evaluate.py. `pipeline/verdict.py::decide` is the law; this says the same
of millions at once, and a property test holds the two together.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

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
"""A score as the catalog has it: check_name and name."""


@dataclass(frozen=True)
class Measured:
    """One place of a score set: which score it is, and whose."""

    pair: Pair
    detector: str | None
    revision: str | None


Signatures = Mapping[str, Sequence[Measured]]
"""What the scores of images are, by the images' column `signature`; of `values` the first is 1."""


@dataclass(frozen=True)
class Word:
    """One way in which a policy speaks. `sql` is its outcome's number for an image, or NULL.

    It is a scalar over the columns `signature`, `values`, `unlicensed` and `denied`.
    """

    name: str
    """As in `Reason.rule`."""
    sql: str
    severity: int
    rule: Rule | Combination | None = None


@dataclass(frozen=True)
class Limits:
    """Values in [`below`, `at_least`) break no bound that there is on a score; None: no such."""

    below: float | None = None
    at_least: float | None = None

    def narrowed(self, bound: Bound) -> Limits:
        """With one more bound."""
        if bound.at_least is not None:
            return replace(self, at_least=min([bound.value, *_given(self.at_least)]))
        return replace(self, below=max([bound.value, *_given(self.below)]))

    def kept(self, value: str) -> str:
        """Whether the SQL `value` is a number within them; not true where it is none."""
        least = -sys.float_info.max if self.below is None else self.below
        limit = math.inf if self.at_least is None else self.at_least
        # NaN is greater than all numbers, so it is within no limits.
        return f"({value} < {_number(limit)} AND {value} >= {_number(least)})"

    def beyond(self, value: str) -> list[str]:
        """How far the SQL `value` is beyond each, in parts of it."""
        upper = [
            f"({value} - {_number(m)}) / {_number(abs(m) or 1)}" for m in _given(self.at_least)
        ]
        lower = [f"({_number(m)} - {value}) / {_number(abs(m) or 1)}" for m in _given(self.below)]
        return upper + lower


@dataclass(frozen=True)
class Compiled:
    """A policy over score sets of these signatures, in SQL over the columns that `Word` names."""

    words: tuple[Word, ...]
    speaks: str
    """Whether anything may speak of an image: cheaper than the words, and true where one does."""
    beyond: str
    """How far an image is beyond its bounds, in parts of them; infinite where a score lacks."""
    needs: tuple[tuple[Measurement, frozenset[Pair]], ...]
    """Scores that must have been measured, and the pairs that are each."""
    checks: tuple[str, ...]
    """The check that measures each of them."""


def quoted(value: str) -> str:
    """Text as a literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


def compile_policy(policy: Policy, signatures: Signatures) -> Compiled:
    """The policy in SQL; scores that no rule speaks of do not matter."""
    return _Compiler(policy, signatures).compiled()


def has(need: Measurement, scores: Iterable[Measured]) -> bool:
    """Whether a set of scores holds one that a rule needs."""
    return any(
        need.covers(score_name(*each.pair, None)) and need.detector in ("", each.detector)
        for each in scores
    )


class _Compiler:
    def __init__(self, policy: Policy, signatures: Signatures) -> None:
        self._policy, self._signatures = policy, signatures
        self._pairs = list(
            dict.fromkeys(each.pair for scores in signatures.values() for each in scores)
        )
        self._words: list[Word] = []
        self._limits: dict[Pair, Limits] = {}
        self._rules_limits: dict[Pair, Limits] = {}
        self._combined: list[Callable[[str], str]] = []
        self._checks = {
            need: part.check for part in _parts(policy) for need in policy.measurements(part)
        }

    def compiled(self) -> Compiled:
        for rule in self._policy.rules:
            if isinstance(rule, Rule):
                self._rule(rule)
            else:
                self._combination(rule)
        self._inputs()
        self._words.append(Word(LICENCES, "CASE WHEN unlicensed THEN 2 END", NORMAL))
        self._words.append(Word(DENIED, "CASE WHEN denied THEN 2 END", NORMAL))
        needs = {
            need: frozenset(pair for pair in self._pairs if need.covers(score_name(*pair, None)))
            for need in self._checks
        }
        return Compiled(
            tuple(self._words),
            f"unlicensed OR denied OR {self._by_signature(self._speaks)}",
            f"CASE WHEN unlicensed OR denied THEN 'Infinity'::DOUBLE "
            f"ELSE {self._by_signature(self._beyond)} END",
            tuple(needs.items()),
            tuple(self._checks.values()),
        )

    def _add(self, word: Word) -> None:
        """Words that no image can be told are left out."""
        if word.sql != _NOTHING:
            self._words.append(word)

    def _by_signature(self, sql: Callable[[str], str | None]) -> str:
        """One expression that is `sql` of the image's own signature, NULL where that is None."""
        alike: dict[str, list[str]] = {}
        for signature in self._signatures:
            if said := sql(signature):
                alike.setdefault(said, []).append(signature)
        if not alike:
            return _NOTHING
        if len(self._signatures) == 1:
            return f"({next(iter(alike))})"
        cases = (
            f"WHEN signature IN ({', '.join(map(quoted, found))}) THEN {said}"
            for said, found in alike.items()
        )
        return f"(CASE {' '.join(cases)} END)"

    def _values(self, signature: str, pair: Pair) -> list[str]:
        """The values of a score, one for each detector that measured it."""
        return [
            f'"values"[{place}]'
            for place, each in enumerate(self._signatures[signature], 1)
            if each.pair == pair
        ]

    def _about(self, part: Rule | Condition) -> list[Pair]:
        """The pairs that a rule or condition is about, as `decide` has it."""
        meant = self._policy.measurements(part)
        left_out = self._policy.left_out(part)
        return [
            pair
            for pair in self._pairs
            if any(need.covers(score_name(*pair, None)) for need in meant)
            and pair[1].partition("@")[2] not in left_out
        ]

    def _lacks(self, signature: str, needs: Iterable[Measurement]) -> bool:
        scores = self._signatures[signature]
        return any(not has(need, scores) for need in needs)

    def _rule(self, rule: Rule) -> None:
        severity = _severity(rule)
        for need in self._policy.measurements(rule):

            def missing(signature: str, need: Measurement = need) -> str | None:
                return "2" if self._lacks(signature, [need]) else None

            name = need.name + rule.suffix
            self._add(Word(name, self._by_signature(missing), severity, rule))
        outcomes = [(2, rule.block), (1, rule.review)]
        for pair in self._about(rule):

            def says(signature: str, pair: Pair = pair) -> str | None:
                broken = [
                    f"CASE WHEN {_unusable(value)} THEN 2 "
                    + " ".join(
                        f"WHEN {_broken(value, bound)} THEN {code}"
                        for code, bound in outcomes
                        if bound
                    )
                    + " END"
                    for value in self._values(signature, pair)
                ]
                return _greatest(broken)

            name = score_name(*pair, None) + rule.suffix
            self._add(Word(name, self._by_signature(says), severity, rule))
            for bound in (rule.review, rule.block):
                if bound:
                    self._note(pair, bound)

    def _combination(self, rule: Combination) -> None:
        parts = list(conditions(rule.whole))
        pairs = {pair: None for part in parts for pair in self._about(part)}
        needs = {need: None for part in parts for need in self._policy.measurements(part)}
        for part in parts:
            for pair in self._about(part):
                self._limits[pair] = self._limits.get(pair, Limits()).narrowed(part)

        def says(signature: str) -> str:
            values = [value for pair in pairs for value in self._values(signature, pair)]
            lacks = "true" if self._lacks(signature, needs) else "false"
            faults = " OR ".join([lacks, *map(_unusable, values)])
            holds = self._holds(signature, rule.whole)
            return f"CASE WHEN {faults} THEN 2 WHEN {holds} THEN {CODES.index(rule.outcome)} END"

        self._combined.append(says)
        self._add(Word(rule.name, self._by_signature(says), _severity(rule), rule))

    def _holds(self, signature: str, part: Condition | AllOf | AnyOf) -> str:
        if isinstance(part, Condition):
            broken = [
                _broken(value, part)
                for pair in self._about(part)
                for value in self._values(signature, pair)
            ]
            return f"({' OR '.join(broken)})" if broken else "false"
        inside = part.all if isinstance(part, AllOf) else part.any
        link = " AND " if isinstance(part, AllOf) else " OR "
        return "(" + link.join(self._holds(signature, each) for each in inside) + ")"

    def _inputs(self) -> None:
        """What a policy says of images made from others, without a rule of its own."""
        inputs = self._policy.inputs
        least = inputs.preserved_db
        spoken = {PRESERVED: (f"isnan({{0}}) OR {{0}} < {_number(least)}", 2, Bound(below=least))}
        if inputs.restricted != "ignore":
            # NaN is greater than all numbers in SQL: a count that is not known is a restriction.
            code = 1 if inputs.restricted == "review" else 2
            spoken[RESTRICTED] = ("NOT {0} <= 0", code, Bound(at_least=_LEAST))
        for pair in self._pairs:
            name = score_name(*pair, None)
            if name not in spoken:
                continue
            broken, code, bound = spoken[name]

            def says(
                signature: str, pair: Pair = pair, broken: str = broken, code: int = code
            ) -> str | None:
                values = self._values(signature, pair)
                return _greatest([f"CASE WHEN {broken.format(v)} THEN {code} END" for v in values])

            self._add(Word(name, self._by_signature(says), NORMAL))
            self._note(pair, bound)

    def _note(self, pair: Pair, bound: Bound) -> None:
        for limits in (self._limits, self._rules_limits):
            limits[pair] = limits.get(pair, Limits()).narrowed(bound)

    def _speaks(self, signature: str) -> str:
        if self._lacks(signature, self._checks):
            return "true"
        spoken = [
            f"{limits.kept(value)} IS NOT TRUE"
            for pair, limits in self._rules_limits.items()
            for value in self._values(signature, pair)
        ]
        spoken += [f"({says(signature)}) IS NOT NULL" for says in self._combined]
        return " OR ".join(spoken) or "false"

    def _beyond(self, signature: str) -> str:
        if self._lacks(signature, self._checks):
            return "'Infinity'::DOUBLE"
        parts = [
            part
            for pair, limits in self._limits.items()
            for value in self._values(signature, pair)
            for part in limits.beyond(value)
        ]
        return f"greatest({', '.join(parts)})" if parts else "NULL::DOUBLE"


def _parts(policy: Policy) -> list[Rule | Condition]:
    found: list[Rule | Condition] = []
    for rule in policy.rules:
        found += [rule] if isinstance(rule, Rule) else list(conditions(rule.whole))
    return found


_NOTHING = "NULL"
_LEAST = 5e-324
"""The least number above 0."""


def _given(limit: float | None) -> list[float]:
    return [] if limit is None else [limit]


def _unusable(value: str) -> str:
    return f"coalesce(NOT isfinite({value}), true)"


def _broken(value: str, bound: Bound) -> str:
    return f"{value} {'>=' if bound.at_least is not None else '<'} {_number(bound.value)}"


def _greatest(sqls: Sequence[str]) -> str | None:
    return f"greatest({', '.join(sqls)})" if len(sqls) > 1 else next(iter(sqls), None)


def _number(value: float) -> str:
    return f"'{value!r}'::DOUBLE"


def _severity(rule: Rule | Combination) -> int:
    return SEVERITIES.index(rule.severity or "normal")
