"""A policy laid out flat, each value with the file and line it comes from, and how two differ.

Reads what pipeline/policy.py loads; `platemark policy show` and `diff` print it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.policy import Policy, rule_in_words
from pipeline.policy_rules import Rule
from pipeline.yaml_lines import Located

_SHOWN = 6
"""Items of a list that are spelled out."""


@dataclass(frozen=True)
class Value:
    """One value of an effective policy. `file` is None for what nobody wrote: a default.

    `key` is its place, `rules.similarity.nearest.block`; a list of words is one value.
    """

    key: str
    value: Any
    file: Path | None = None
    line: int = 0

    @property
    def origin(self) -> str:
        """`retail.yaml:52`, or `default`."""
        return f"{self.file.name}:{self.line}" if self.file else "default"

    @property
    def words(self) -> str:
        """The value as a person reads it; long lists are cut short, with their count."""
        if isinstance(self.value, list):
            more = len(self.value) - _SHOWN
            shown = ", ".join(str(each) for each in self.value[:_SHOWN])
            return f"{shown}, … ({len(self.value)})" if more > 0 else shown
        return json.dumps(self.value, ensure_ascii=False) if self.value == "" else str(self.value)


def effective_values(policy: Policy, tree: Located) -> list[Value]:
    """All values of a policy, written and default ones, in the order of its sections.

    `tree` is what `read_policy` gives beside the policy. Lists whose words come from several files
    are one value a file.
    """
    written = {
        (value.key, value.file): value
        for name, item in tree.value.items()
        for value in _flat(name, item)
    }
    keys = {key for key, _ in written}
    given = [
        Value(key, value)
        for name, inside in policy.effective.items()
        for key, value in _plain(name, inside)
        if key not in keys and not any(each.startswith(f"{key}.") for each in keys)
    ]
    order = [*Policy.model_fields]
    return sorted([*written.values(), *given], key=lambda each: order.index(each.key.split(".")[0]))


def _flat(key: str, item: Located) -> Iterator[Value]:
    if key == "rules" and isinstance(item.value, list):
        for rule in item.value:
            yield from _rule(rule)
    elif isinstance(item.value, dict):
        for name, inside in item.value.items():
            yield from _flat(f"{key}.{name}", inside)
    elif isinstance(item.value, list):
        files: dict[Path, list[Located]] = {}
        for each in item.value:
            files.setdefault(each.file, []).append(each)
        for file, words in files.items() or [(item.file, [])]:
            line = words[0].line if words else item.line
            yield Value(key, [each.plain() for each in words], file, line)
    else:
        yield Value(key, item.value, item.file, item.line)


def _rule(rule: Located) -> Iterator[Value]:
    name = rule_in_words(rule.plain())
    for key, item in rule.value.items():
        if key not in ("check", "score", "library", "channels", "name"):
            yield Value(f"rules.{name}.{key}", _bound(item.plain()), item.file, item.line)


def _bound(value: Any) -> Any:
    """A bound in words: `at_least 0.8`. Conditions of combinations likewise."""
    if isinstance(value, list):
        return [_condition(part) if isinstance(part, dict) else part for part in value]
    if isinstance(value, dict):
        return " ".join(f"{word} {limit:g}" for word, limit in value.items() if limit is not None)
    return value


def _condition(part: Mapping[str, Any]) -> str:
    for kind in ("all", "any"):
        if part.get(kind):
            return f"{kind} of ({'; '.join(_condition(each) for each in part[kind])})"
    bound = {word: part[word] for word in ("at_least", "below") if part.get(word) is not None}
    return f"{rule_in_words(part)} {_bound(bound)}"


def _plain(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if key == "rules":
        return
    if isinstance(value, dict):
        for name, inside in value.items():
            yield from _plain(f"{key}.{name}", inside)
    else:
        yield key, value


@dataclass(frozen=True)
class Difference:
    """A value that two policies do not share; None where one has none.

    `effect` says of a bound whether the new policy holds back more or fewer images.
    """

    key: str
    old: Value | None
    new: Value | None
    effect: Literal["stricter", "looser", ""] = ""


def differences(old: Policy, old_tree: Located, new: Policy, new_tree: Located) -> list[Difference]:
    """What is other in `new` than in `old`, names and versions aside."""
    sides = [
        {value.key: value for value in _joined(effective_values(policy, tree))}
        for policy, tree in ((old, old_tree), (new, new_tree))
    ]
    keys = dict.fromkeys([*sides[0], *sides[1]])
    found = []
    for key in keys:
        before, after = (side.get(key) for side in sides)
        if key in ("policy", "version", "description", "extends"):
            continue
        if before is None or after is None or before.value != after.value:
            found.append(Difference(key, before, after, _effect(key, before, after, old, new)))
    return found


def _joined(values: list[Value]) -> Iterator[Value]:
    """Lists that came from several files as one value again."""
    lists: dict[str, Value] = {}
    for value in values:
        if isinstance(value.value, list) and value.key in lists:
            first = lists[value.key]
            joined = [*first.value, *value.value]
            lists[value.key] = Value(value.key, joined, first.file, first.line)
        else:
            lists[value.key] = value
    yield from lists.values()


def _effect(
    key: str, before: Value | None, after: Value | None, old: Policy, new: Policy
) -> Literal["stricter", "looser", ""]:
    if key.startswith("prompts.deny"):
        gone, come = (
            set(a.value if a else ()) - set(b.value if b else ())
            for a, b in ((before, after), (after, before))
        )
        return "stricter" if come and not gone else "looser" if gone and not come else ""
    if not key.startswith("rules."):
        return ""
    name, _, bound = key.removeprefix("rules.").rpartition(".")
    if before is None or after is None:
        # A rule for one library takes the place of the general one: more strict or less.
        if bound not in ("review", "block", "outcome") or "@" in name:
            return ""
        return "stricter" if before is None else "looser"
    limits = [
        limit
        for policy in (old, new)
        for rule in policy.rules
        if isinstance(rule, Rule) and rule.name == name and bound in ("review", "block")
        if (limit := getattr(rule, bound)) is not None
    ]
    if len(limits) != 2 or limits[0].words != limits[1].words:
        return ""
    raised = limits[1].value > limits[0].value
    return "stricter" if raised == (limits[0].words == "below") else "looser"
