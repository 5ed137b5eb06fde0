"""Prompts: a sandboxed Jinja2 template over an item's columns."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.errors import Fault

MAX_PROMPT = 4_000

Render = Callable[[Mapping[str, Any]], str]


def compile_template(
    template: str, columns: Iterable[str], where: str, faults: list[Fault]
) -> Render | None:
    """A function from an item's columns to its prompt, or None with the template's faults added.

    The sandbox reaches neither attributes of Python objects nor files; a column that no item has
    is a fault here, before any prompt is rendered.
    """
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    columns = set(columns)
    try:
        names = meta.find_undeclared_variables(environment.parse(template))
        compiled = environment.from_string(template)
    except TemplateSyntaxError as error:
        faults.append(
            Fault(str(error.message), f"{where}, line {error.lineno}", "mend the template")
        )
        return None
    unknown = sorted(names - columns - set(environment.globals))
    for name in unknown:
        near = difflib.get_close_matches(name, columns, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"columns: {', '.join(sorted(columns))}"
        faults.append(Fault(f"column {name!r} is not in the items", where, hint))
    return None if unknown else compiled.render


def render_prompt(
    render: Render, columns: Mapping[str, Any], where: str, faults: list[Fault]
) -> str:
    """One item's prompt with its white space folded; a failing or overlong one is a fault."""
    try:
        prompt = " ".join(render(columns).split())
    except (TemplateError, TypeError, ValueError, ArithmeticError, OverflowError) as error:
        faults.append(Fault(f"template: {error}", where, "check this item's columns"))
        return ""
    return check_prompt(prompt, where, faults)


def check_prompt(prompt: str, where: str, faults: list[Fault]) -> str:
    """The prompt itself; an empty or overlong one is a fault."""
    if not prompt:
        faults.append(Fault("the prompt is empty", where, "fill the template's columns"))
    if len(prompt) > MAX_PROMPT:
        faults.append(Fault(f"the prompt has {len(prompt)} characters", where, f"≤ {MAX_PROMPT}"))
    return prompt
