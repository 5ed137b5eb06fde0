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
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.errors import Fault, InputError
from pipeline.policy_model import KNOWN_SCORES, Policy
from pipeline.settings import ROOT
from pipeline.yaml_lines import Located, merge, read_yaml, written_path

__all__ = [
    "SCHEMA_FILE",
    "SHIPPED",
    "Policy",
    "json_schema",
    "load_policy",
    "policy_from_text",
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
    path = _find(str(name_or_path))
    tree, faults = _resolve(path)
    if tree is None:
        raise InputError(f"policy {name_or_path}", faults)
    faults = [*faults, *_faults_across(tree)]
    try:
        policy = Policy.model_validate(tree.plain())
    except ValidationError as error:
        raise InputError(f"policy {name_or_path}", [*faults, *_faults_of(error, tree)]) from None
    if faults:
        raise InputError(f"policy {name_or_path}", faults)
    return policy


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


def _find(name: str) -> Path:
    path = Path(name)
    if path.is_file() or path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        return path
    shipped = SHIPPED / f"{name}.yaml"
    if shipped.is_file():
        return shipped
    known = sorted(file.stem for file in SHIPPED.glob("*.yaml"))
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
    known = sorted({f.stem for folder in (path.parent, SHIPPED) for f in folder.glob("*.yaml")})
    remedy = f"{_nearest(name, known)}there are: {', '.join(known)}"
    return None, Fault(f"extends: there is no policy {name!r}", extends.where, remedy)


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
        kept = [item for item in rules.value if _rule_name(item.plain())[0] not in off]
        inherited["rules"] = Located(kept, rules.file, rules.line)
    parent = Located(inherited, parent.file, parent.line)
    return merge(parent, child, {"rules": _rule_name})


def _rule_name(rule: Any) -> tuple[str, str]:
    return (str(rule.get("check")), str(rule.get("score"))) if isinstance(rule, dict) else ("", "")


def _faults_across(tree: Located) -> list[Fault]:
    """Unknown checks, rules that no check feeds, rules written twice: what no one model sees."""
    rules, checks = tree.value.get("rules"), tree.value.get("checks")
    if rules is None or not isinstance(rules.value, list):
        return []
    if checks is None or not isinstance(checks.value, dict):
        return []
    faults = _unknown_checks(checks)
    seen: dict[tuple[str, str], Located] = {}
    for item in rules.value:
        check, score = name = _rule_name(item.plain())
        if check in KNOWN_SCORES and score not in KNOWN_SCORES[check]:
            known = KNOWN_SCORES[check]
            remedy = f"{_nearest(score, known)}{check} measures: {', '.join(known)}"
            where = item.at(("score",)).where
            faults.append(Fault(f"{check} has no score {score!r}", where, remedy))
        elif not _measures(checks.plain(), check, score):
            part = {"concept": "nsfw.concepts", "classifier": "nsfw.classifier"}.get(score, check)
            what = f"the rule {check}.{score} has no check that measures it"
            near = _nearest(check, checks.value)
            faults.append(Fault(what, item.where, f"{near}declare checks.{part} or drop the rule"))
        if name in seen:
            what = f"the rule {check}.{score} is written twice"
            faults.append(Fault(what, item.where, f"the other one is at {seen[name].where}"))
        seen[name] = item
    return faults


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


def _measures(checks: dict[str, Any], check: str, score: str) -> bool:
    declared = checks.get(check)
    if check != "nsfw":
        return declared is not None
    part = "concepts" if score == "concept" else "classifier"
    return isinstance(declared, dict) and declared.get(part) is not None


def _faults_of(error: ValidationError, tree: Located) -> list[Fault]:
    faults = []
    content = tree.plain()
    for found in error.errors():
        path = written_path(found["loc"], content, found["type"] == "missing")
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
    model: type[BaseModel] = Policy
    for step in path:
        if isinstance(step, str) and step in model.model_fields:
            model = _model_in(model.model_fields[step].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (tuple, Union, types.UnionType, Annotated):
        return next((m for part in get_args(annotation) if (m := _model_in(part))), None)
    return None


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]!r}? " if close else ""


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
