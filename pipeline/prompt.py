"""Prompts: a sandboxed Jinja2 template over an item's columns."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2 import TemplateSyntaxError, meta
from jinja2.exceptions import SecurityError

from pipeline.brief_table import no_text, strange_character
from pipeline.errors import Fault
from pipeline.template_sandbox import (
    MAX_VALUE,
    BoundedJoins,
    EmptyCell,
    EmptyCellError,
    Sandbox,
    refused_tags,
)

MAX_PROMPT = 4_000
MAX_TEMPLATE = 20_000
Render = Callable[[Mapping[str, Any]], str]


def compile_template(
    template: str, columns: Iterable[str], where: str, faults: list[Fault]
) -> Render | None:
    """A function from an item's columns to its prompt, or None with the template's faults added.

    The sandbox reaches neither attributes of Python objects nor files, and neither a loop nor a
    value can run away; a column that no item has is a fault here, before any prompt is rendered.
    """
    if len(template) > MAX_TEMPLATE:
        what = f"the template has {len(template)} characters"
        faults.append(Fault(what, where, f"≤ {MAX_TEMPLATE}"))
        return None
    environment = Sandbox()
    columns = set(columns)
    try:
        tree = environment.parse(template)
        refused = refused_tags(tree, where)
        names = meta.find_undeclared_variables(tree)
        compiled = environment.from_string(BoundedJoins().visit(tree))
    except TemplateSyntaxError as error:
        faults.append(
            Fault(str(error.message), f"{where}, line {error.lineno}", "mend the template")
        )
        return None
    # Compiling what people write may raise anything: too deep, too many digits, out of memory.
    except Exception as error:
        what = f"cannot be compiled: {type(error).__name__}: {error}"
        faults.append(Fault(what, where, "write a simpler template"))
        return None
    unknown = sorted(names - columns)
    for name in unknown:
        near = difflib.get_close_matches(name, columns, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"columns: {', '.join(sorted(columns))}"
        faults.append(Fault(f"column {name!r} is not in the items", where, hint))
    faults.extend(refused)
    if unknown or refused:
        return None

    def render(cells: Mapping[str, Any]) -> str:
        values = {name: _value(name, cells.get(name)) for name in names}
        pieces, length = [], 0
        for piece in compiled.generate(values):
            pieces.append(piece)
            length += len(piece)
            if length > MAX_VALUE:
                raise SecurityError(f"the prompt has more than {MAX_VALUE} characters")
        return "".join(pieces)

    return render


def render_prompt(
    render: Render, columns: Mapping[str, Any], where: str, faults: list[Fault]
) -> str:
    """One item's prompt with its white space folded; a failing or overlong one is a fault."""
    try:
        prompt = " ".join(render(columns).split())
    except _CellError as error:
        faults.append(error.fault(where))
        return ""
    except EmptyCellError as error:
        remedy = "fill it, or let the template test it: {% if … %}"
        faults.append(Fault(f"template: {error}", where, remedy))
        return ""
    # A template over any cells may raise anything (KeyError of a filter, RecursionError, …).
    except Exception as error:
        what = f"template: {error or type(error).__name__}"
        faults.append(Fault(what, where, "check this item's columns"))
        return ""
    return check_prompt(prompt, where, faults)


def check_prompt(prompt: str, where: str, faults: list[Fault]) -> str:
    """The prompt itself; an empty, overlong or unprintable one is a fault, and no text then."""
    if not prompt:
        faults.append(Fault("the prompt is empty", where, "fill the template's columns"))
    if len(prompt) > MAX_PROMPT:
        faults.append(Fault(f"the prompt has {len(prompt)} characters", where, f"≤ {MAX_PROMPT}"))
    if strange := strange_character(prompt):
        faults.append(Fault(f"the prompt holds the character {strange}", where, "take it out"))
        return ""
    return prompt


class _CellError(Exception):
    def __init__(self, column: str, what: str, remedy: str):
        super().__init__(what)
        self.column, self.remedy = column, remedy

    def fault(self, where: str) -> Fault:
        return Fault(str(self), f"{where}, column {self.column}", self.remedy)


def _value(name: str, cell: Any) -> Any:
    """A cell as the template sees it. Raises _CellError for what cannot be printed."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return EmptyCell(hint=f"column {name!r} is empty", name=name, exc=EmptyCellError)
    if problem := no_text(cell):
        raise _CellError(name, problem, "write text, in quotes")
    if isinstance(cell, str) and len(cell) > MAX_VALUE:
        raise _CellError(name, f"{len(cell)} characters", f"≤ {MAX_VALUE}")
    return cell
