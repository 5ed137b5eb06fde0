"""Declared policies: YAML in, frozen models out, every fault with its file and line.

A policy says which checks run, what their scores mean, which model licences and prompts are
allowed, how images are labelled and encoded, and what is kept of rejects. pipeline/verdict.py
applies it. `python -m pipeline.policy` rewrites policies/policy.schema.json from the models.
"""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from pipeline.errors import Fault, InputError
from pipeline.policy_checks import BY_LIBRARY, KNOWN_SCORES, range_of
from pipeline.policy_model import Policy
from pipeline.policy_names import with_names
from pipeline.settings import ROOT
from pipeline.yaml_lines import Located, merge, read_yaml, written_path

__all__ = [
    "SCHEMA_FILE",
    "SHIPPED",
    "Policy",
    "find_policy",
    "json_schema",
    "load_policy",
    "policy_from_text",
    "read_policy",
    "schema_text",
]

SHIPPED = ROOT / "policies"
"""Folder of the policies that ship with Platemark."""
SCHEMA_FILE = SHIPPED / "policy.schema.json"


PLUGINS = "platemark.checks"
"""Entry-point group of check plugins."""
_OWN = ("policy", "version", "description", "extends")
"""Keys that a file states for itself and never inherits."""


def load_policy(name_or_path: str | Path) -> Policy:
    """A policy by shipped name (`retail`) or by path. Raises InputError with every fault's line."""
    return read_policy(name_or_path)[0]


def read_policy(name_or_path: str | Path) -> tuple[Policy, Located]:
    """The same, and its whole tree, inherited values included, each with its file and line.

    The names of `prompts.deny_lists` stand in `prompts.deny`, at the lines of their lists.
    """
    path = find_policy(str(name_or_path))
    tree, faults = _resolve(path)
    if tree is None:
        raise InputError(f"policy {name_or_path}", faults)
    tree, more = with_names(tree, path.parent, SHIPPED)
    faults = [*faults, *more, *_faults_across(tree)]
    try:
        policy = Policy.model_validate(tree.plain())
    except ValidationError as error:
        raise InputError(f"policy {name_or_path}", [*faults, *_faults_of(error, tree)]) from None
    if faults:
        raise InputError(f"policy {name_or_path}", faults)
    return policy.declared_at(_places(tree)), tree


def policy_from_text(text: str) -> Policy:
    """The policy behind an effective text (`Policy.text`), as a catalog keeps it."""
    return Policy.model_validate(yaml.safe_load(text))


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a policy file, as published for editors."""
    schema = Policy.model_json_schema()
    own = [key for key in schema["required"] if key in _OWN]
    inheritable = [key for key in schema["required"] if key not in _OWN]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Platemark policy",
        "required": own,
        "anyOf": [{"required": ["extends"]}, {"required": inheritable}],
    }


def schema_text() -> str:
    """The published file's exact content."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def find_policy(name: str) -> Path:
    """The file of a policy: a path as it is, or a shipped name. Raises InputError."""
    path = Path(name)
    if path.is_file() or path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        return path
    shipped = SHIPPED / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    known = _names_in(SHIPPED)
    remedy = f"{_nearest(name, known)}shipped: {', '.join(known)}; or write a path"
    raise InputError(f"policy {name}", [Fault("there is no such policy", name, remedy)])


def _resolve(path: Path, above: tuple[Path, ...] = ()) -> tuple[Located | None, list[Fault]]:
    """The file at `path` over everything it extends, and the faults of all of them."""
    tree, faults = read_yaml(path)
    if tree is None or "extends" not in tree.value:
        return tree, faults
    chain = (*above, path.resolve())
    extends = tree.value["extends"]
    parent, problem = _parent_of(path, extends)
    if parent is not None and parent.resolve() in chain:
        names = " → ".join(file.name for file in (*chain, parent.resolve()))
        problem = Fault(f"extends itself: {names}", extends.where, "break the circle")
    if problem or parent is None:
        return tree, [*faults, *([problem] if problem else [])]
    inherited, more = _resolve(parent, chain)
    if inherited is None:
        return tree, [*faults, *more]
    return _over(inherited, tree), [*faults, *more]


def _parent_of(path: Path, extends: Located) -> tuple[Path | None, Fault | None]:
    name = extends.value
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        remedy = "name a file in the same folder, or a shipped policy, without a path"
        return None, Fault(f"extends: {name!r} is no policy name", extends.where, remedy)
    for parent in (path.parent / name, path.parent / f"{name}.yaml", SHIPPED / f"{name}.yaml"):
        # A file that extends its own name means the shipped policy of that name.
        if parent.is_file() and not (
            parent.resolve() == path.resolve() and parent.parent != SHIPPED
        ):
            return _inside(parent, extends)
    known = sorted({*_names_in(path.parent), *_names_in(SHIPPED)})
    remedy = f"{_nearest(name, known)}there are: {', '.join(known)}"
    return None, Fault(f"extends: there is no policy {name!r}", extends.where, remedy)


def _names_in(folder: Path) -> list[str]:
    """Policies in a folder by name; their tests lie beside them."""
    names = (file.stem for file in folder.glob("*.yaml"))
    return sorted(name for name in names if not name.endswith(".tests"))


def _inside(parent: Path, extends: Located) -> tuple[Path | None, Fault | None]:
    if parent.resolve().parent == parent.parent.resolve():
        return parent, None
    what = f"extends: {extends.value!r} is a link that leads out of its folder"
    return None, Fault(what, extends.where, "put the file itself there")


def _over(parent: Located, child: Located) -> Located:
    """`child` over `parent`; a check set to null takes the inherited rules with it."""
    inherited = {key: item for key, item in parent.value.items() if key not in _OWN}
    checks = child.value.get("checks")
    off = {
        name
        for name, item in (
            checks.value.items() if checks and isinstance(checks.value, dict) else ()
        )
        if item.value is None
    }
    rules = inherited.get("rules")
    if off and rules is not None and isinstance(rules.value, list):
        kept = [item for item in rules.value if not _is_off(item, off)]
        inherited["rules"] = Located(kept, rules.file, rules.line)
    parent = Located(inherited, parent.file, parent.line)
    return merge(parent, child, {"rules": _rule_name})


def _is_off(rule: Located, off: Collection[str]) -> bool:
    """Whether all checks that the rule speaks of are switched off."""
    parts = list(_conditions(rule))
    return bool(parts) and all(_rule_name(part.plain())[0] in off for part in parts)


def _rule_name(rule: Any) -> tuple[str, ...]:
    """What makes two written rules the same one: check, score, library and channels, or a name."""
    if not isinstance(rule, dict):
        return ("", "", "", "")
    channels = rule.get("channels")
    named = ",".join(sorted(set(map(str, channels)))) if isinstance(channels, list) else ""
    if "all" in rule or "any" in rule:
        return ("", str(rule.get("name")), "", named)
    library = rule.get("library")
    return (str(rule.get("check")), str(rule.get("score")), str(library or ""), named)


def _places(tree: Located) -> dict[str, str]:
    """`file:line` of each rule, denied word and section that verdicts name."""
    places = {rule_in_words(item.plain()): item.place for item in tree.value["rules"].value}
    places |= {
        name: tree.value[name].place for name in ("licences", "inputs") if name in tree.value
    }
    prompts = tree.value.get("prompts")
    denied = prompts.value.get("deny") if prompts else None
    return places | {
        f"prompts.deny {str(word.value).strip()}": word.place
        for word in (denied.value if denied else ())
    }


def rule_in_words(rule: Mapping[str, Any]) -> str:
    """The name that a rule, as written, has in verdicts."""
    check, score, library, channels = _rule_name(rule)
    name = f"{check}.{score}" if check else score
    return f"{name}{'@' + library if library else ''}{'[' + channels + ']' if channels else ''}"


def _faults_across(tree: Located) -> list[Fault]:
    """Unknown checks, rules that no check feeds, rules written twice: what no one model sees."""
    rules, checks = tree.value.get("rules"), tree.value.get("checks")
    if rules is None or not isinstance(rules.value, list):
        return []
    if checks is None or not isinstance(checks.value, dict):
        return []
    faults = _unknown_checks(checks)
    seen: dict[tuple[str, ...], Located] = {}
    for item in rules.value:
        name = _rule_name(item.plain())
        for part in _conditions(item):
            faults += _not_measured(part, checks) or _out_of_range(part)
        if name in seen and isinstance(item.value, dict):
            what = f"the rule {rule_in_words(item.plain())} is written twice"
            faults.append(Fault(what, item.where, f"the other one is at {seen[name].where}"))
        seen[name] = item
    return faults


def _conditions(rule: Located) -> Iterator[Located]:
    """The rule itself, or all conditions of a combination."""
    inside = [rule.value.get(key) for key in ("all", "any")] if isinstance(rule.value, dict) else []
    parts = [part for part in inside if part is not None]
    if not parts:
        yield rule
    for part in parts:
        for each in part.value if isinstance(part.value, list) else ():
            yield from _conditions(each)


def _not_measured(rule: Located, checks: Located) -> list[Fault]:
    """A fault when no check measures the score that a rule or condition speaks of."""
    written = rule.plain() if isinstance(rule.value, dict) else {}
    check, score, library = (str(written.get(key) or "") for key in ("check", "score", "library"))
    declared = checks.plain().get(check)
    if declared is None:
        near = _nearest(check, checks.value)
        what = f"the rule {check}.{score} has no check that measures it"
        key = ".".join([check, *filter(None, [_SWITCHES.get((check, score))])])
        return [Fault(what, rule.where, f"{near}declare checks.{key} or drop the rule")]
    known = _scores_of(check, declared)
    if known is not None and score not in known:
        if score in KNOWN_SCORES.get(check, ()):
            what = f"the rule {check}.{score} has no check that measures it"
            remedy = f"declare checks.{check}.{_SWITCHES[check, score]} or drop the rule"
            return [Fault(what, rule.where, remedy)]
        remedy = f"{_nearest(score, known)}{check} measures: {', '.join(known)}"
        return [Fault(f"{check} has no score {score!r}", rule.at(("score",)).where, remedy)]
    if library and library not in _libraries_of(check, score, declared):
        names = ", ".join(_libraries_of(check, score, declared)) or "none"
        what = f"{check}.{score} is not measured against a library {library!r}"
        return [Fault(what, rule.at(("library",)).where, f"its libraries are: {names}")]
    return []


def _out_of_range(rule: Located) -> list[Fault]:
    """Faults of bounds that no score reaches, or that lie on the side where it is good."""
    written = rule.value if isinstance(rule.value, dict) else {}
    named = [written[key].value if key in written else None for key in ("check", "score")]
    known = range_of(str(named[0]), str(named[1]))
    if known is None:
        return []
    least, greatest, bad = known
    name = f"{named[0]}.{named[1]}"
    bounds = [written[key] for key in ("review", "block") if key in written] or [rule]
    faults = []
    for bound in (each for each in bounds if isinstance(each.value, dict)):
        for side in ("at_least", "below"):
            limit = bound.value.get(side)
            if limit is None or not isinstance(limit.value, int | float):
                continue
            if side != bad:
                what = f"{name} is bad where it is {'high' if bad == 'at_least' else 'low'}"
                faults.append(Fault(what, limit.where, f"write {bad}"))
            elif (
                limit.value > greatest
                or limit.value < least
                or (side, limit.value)
                == (
                    "below",
                    least,
                )
            ):
                what = (
                    f"{side} {limit.value:g} is out of reach: {name} is {least:g} to {greatest:g}"
                )
                faults.append(Fault(what, limit.where, "mend the bound"))
    return faults


_SWITCHES = {
    ("nsfw", "concept"): "concepts",
    ("nsfw", "classifier"): "classifier",
    ("copying", "descriptor"): "descriptor",
    ("copying", "clip"): "shortlist",
    ("copying", "concept"): "concepts",
    ("fidelity", "reference"): "reference",
    ("quality", "bytes"): "bytes",
}
"""Scores that are measured only where the check declares this key."""


def _scores_of(check: str, declared: Any) -> tuple[str, ...] | None:
    """The scores that a declared check gives; None for a plugin, which nobody here knows."""
    if check not in KNOWN_SCORES:
        return None
    if not isinstance(declared, dict):
        return KNOWN_SCORES[check]
    if check == "sensitive":
        detectors = declared.get("detectors")
        found = [
            name
            for each in (detectors.values() if isinstance(detectors, dict) else ())
            for name in (each.get("classes") or () if isinstance(each, dict) else ())
        ]
        return tuple(dict.fromkeys(map(str, found)))
    return tuple(
        score
        for score in KNOWN_SCORES[check]
        if (check, score) not in _SWITCHES or declared.get(_SWITCHES[check, score]) is not None
    )


def _libraries_of(check: str, score: str, declared: Any) -> list[str]:
    by_library = check == "copying" and score in BY_LIBRARY
    named = declared.get("libraries") if by_library and isinstance(declared, dict) else None
    return [str(name) for name in named] if isinstance(named, list) else []


def _unknown_checks(checks: Located) -> list[Fault]:
    strange = [name for name in checks.value if name not in KNOWN_SCORES]
    if not strange:
        return []
    known = [*KNOWN_SCORES, *(point.name for point in entry_points(group=PLUGINS))]
    return [
        Fault(
            f"there is no check {name!r}",
            checks.value[name].where,
            f"{_nearest(name, known)}there are: {', '.join(known)}; plugins bring more",
        )
        for name in strange
        if name not in known
    ]


def _faults_of(error: ValidationError, tree: Located) -> list[Fault]:
    faults = []
    content = tree.plain()
    places = [each["loc"] for each in error.errors()]
    for found in error.errors():
        loc = found["loc"]
        if found["type"] == "too_short" and any(
            len(place) > len(loc) and place[: len(loc)] == loc for place in places
        ):
            # What was left out for a fault of its own is no second fault.
            continue
        path = written_path(loc, content, found["type"] == "missing")
        name = ".".join(str(step) for step in path)
        what, remedy = found["msg"].removeprefix("Value error, "), ""
        if found["type"] == "extra_forbidden":
            known = _keys_at(path[:-1])
            what = f"unknown key {str(path[-1])!r}"
            remedy = f"{_nearest(str(path[-1]), known)}known here: {', '.join(known)}"
            faults.append(Fault(what, tree.at(path).where, remedy))
            continue
        if found["type"] == "missing":
            what, remedy = "is missing", "add it"
        elif found["type"] == "string_type":
            what, remedy = f"{found['input']!r} is no text", "put it in quotes"
        faults.append(Fault(f"{name}: {what}" if name else what, tree.at(path).where, remedy))
    return list(dict.fromkeys(faults))


def _keys_at(path: tuple[int | str, ...]) -> list[str]:
    """The keys that a policy file may have at `path`."""
    models: list[type[BaseModel]] = [Policy]
    for step in path:
        if isinstance(step, str):
            fields = [found for model in models if (found := _fields(model).get(step))]
            models = [each for field in fields for each in _models_in(field.annotation)] or models
    return list(dict.fromkeys(name for model in models for name in _fields(model)))


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (tuple, dict, Union, types.UnionType, Annotated):
        return [model for part in get_args(annotation) for model in _models_in(part)]
    return []


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]!r}? " if close else ""


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
