"""Answers questions about the catalog: named ones, and any SELECT that somebody types.

Each audit has a DuckDB of its own over a private copy of the metadata: it works while a flow
writes, and nothing it does can reach the catalog itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path

from catalog.isolated import Answer, Limits, Value, isolated, plan, select
from pipeline.errors import Fault, InputError

__all__ = [
    "Answer",
    "Explained",
    "Limits",
    "Parameter",
    "Question",
    "Value",
    "ask",
    "ask_sql",
    "explain",
    "explain_sql",
    "isolated",
    "questions",
    "select",
]

QUESTIONS = Path(__file__).parent / "questions"
_PARAMETER = re.compile(r"-- \$(?P<name>\w+)(?: = (?P<default>[^:]+?))?: (?P<about>.+)")


@dataclass(frozen=True)
class Parameter:
    """A question's parameter; without a default it must be given."""

    name: str
    about: str
    default: Value
    required: bool


@dataclass(frozen=True)
class Question:
    """A named question: what it answers, what it takes, and its SQL."""

    name: str
    title: str
    parameters: tuple[Parameter, ...]
    sql: str


@dataclass(frozen=True)
class Explained:
    """The SQL of an audit with its parameters in it, which --sql takes as it is; DuckDB's plan."""

    sql: str
    plan: str | None


@cache
def questions() -> Mapping[str, Question]:
    """All named questions, by name."""
    return {path.stem: _question(path) for path in sorted(QUESTIONS.glob("*.sql"))}


def ask(
    folder: Path,
    name: str,
    arguments: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    as_of: datetime | None = None,
) -> Answer:
    """Answers a named question over the catalog in `folder`; arguments come as text.

    `as_of` (aware): of the catalog as it was at that moment. Raises InputError for an unknown
    question, for missing, unknown or ill-typed arguments, and for a moment that is not kept.
    """
    question = _named(name)
    values, limits = _arguments(question, arguments or {}), limits or Limits()
    with isolated(folder, limits, as_of) as connection:
        answer = select(connection, question.sql, values, limits, folder)
    limit = values.get("limit")
    return replace(answer, limit=limit if isinstance(limit, int) else None)


def ask_sql(
    folder: Path, sql: str, limits: Limits | None = None, as_of: datetime | None = None
) -> Answer:
    """Answers one SELECT that anybody may have typed, over the catalog in `folder`.

    It runs in a process of its own. Raises InputError when it is not one SELECT over the catalog,
    is wrong, takes longer than the limits allow or returns more; nothing is ever cut off silently.
    """
    from catalog.sandbox import answered_apart

    return answered_apart(folder, sql, limits or Limits(), as_of)


def explain(
    folder: Path,
    name: str,
    arguments: Mapping[str, str] | None = None,
    *,
    planned: bool = False,
    as_of: datetime | None = None,
) -> Explained:
    """The SQL that a named question runs with these arguments; with `planned` DuckDB's plan too.

    Raises what `ask` raises; only a plan needs a catalog.
    """
    question, limits = _named(name), Limits()
    values = _arguments(question, arguments or {})
    if not planned:
        return Explained(_filled_in(question, values), None)
    with isolated(folder, limits, as_of) as connection:
        told = plan(connection, question.sql, values, limits, folder)
    return Explained(_filled_in(question, values), told)


def explain_sql(folder: Path, sql: str, as_of: datetime | None = None) -> Explained:
    """The same for a SELECT that somebody typed. Raises what `ask_sql` raises; nothing is run."""
    from catalog.sandbox import planned_apart

    return Explained(sql, planned_apart(folder, sql, Limits(), as_of))


def _named(name: str) -> Question:
    question = questions().get(name)
    if question is None:
        fault = Fault("there is no such question", remedy=f"one of: {', '.join(questions())}")
        raise InputError(f"audit {name}", [fault])
    return question


def _filled_in(question: Question, values: Mapping[str, Value]) -> str:
    """The question's SQL with each `$name` replaced by its value as a literal of SQL."""
    lines = [line for line in question.sql.splitlines() if not _PARAMETER.fullmatch(line)]
    sql = "\n".join(lines)
    if not values:
        return sql
    names = "|".join(map(re.escape, values))
    return re.sub(rf"\$({names})\b", lambda found: _literal(values[found[1]]), sql)


def _literal(value: Value) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return "NULL" if value is None else repr(value)


def _question(path: Path) -> Question:
    """Reads a question's file: comment lines (title, `-- $name = default: about`), then SQL."""
    sql = path.read_text(encoding="utf-8")
    comments = [line for line in sql.splitlines() if line.startswith("-- ")]
    parameters = []
    for line in comments[1:]:
        if found := _PARAMETER.fullmatch(line):
            default = found["default"]
            value = None if default is None else json.loads(default)
            parameters.append(Parameter(found["name"], found["about"], value, default is None))
    return Question(path.stem, comments[0].removeprefix("-- "), tuple(parameters), sql)


def _arguments(question: Question, given: Mapping[str, str]) -> dict[str, Value]:
    known = {parameter.name: parameter for parameter in question.parameters}
    faults = [
        Fault("there is no such parameter", name, f"known: {', '.join(known) or 'none'}")
        for name in given
        if name not in known
    ]
    values: dict[str, Value] = {}
    for name, parameter in known.items():
        try:
            values[name] = _typed(given[name], parameter) if name in given else parameter.default
        except ValueError:
            faults.append(Fault(f"{given[name]!r} is not a number", name, parameter.about))
        if parameter.required and not given.get(name):
            faults.append(Fault("it must be given", name, parameter.about))
    if faults:
        raise InputError(f"audit {question.name}", faults)
    return values


def _typed(text: str, parameter: Parameter) -> Value:
    if isinstance(parameter.default, int):
        return int(text)
    if isinstance(parameter.default, float):
        return float(text)
    return text
