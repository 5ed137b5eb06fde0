"""The sandbox that prompt templates run in: no reach, and no work or value that runs away."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from jinja2 import StrictUndefined, Undefined, UndefinedError, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from pipeline.brief_table import no_text
from pipeline.errors import Fault

MAX_VALUE = 16_000
"""Characters or elements of any value in a template, and of a prompt before it is folded."""
_MAX_WORK = 4_000_000
_MAX_BITS = 256

_REFUSED_FILTERS = ("random", "format", "xmlattr", "pprint", "attr")
_REFUSED_TAGS: dict[type[nodes.Node], str] = {
    nodes.Macro: "macro", nodes.CallBlock: "call", nodes.FilterBlock: "filter",
    nodes.AssignBlock: "set … endset", nodes.With: "with", nodes.Block: "block",
    nodes.Extends: "extends", nodes.Include: "include", nodes.Import: "import",
    nodes.FromImport: "from",
}  # fmt: skip
_METHODS = (
    "capitalize", "casefold", "count", "endswith", "find", "isalpha", "isdigit", "isnumeric",
    "lower", "lstrip", "removeprefix", "removesuffix", "replace", "rsplit", "rstrip", "split",
    "splitlines", "startswith", "strip", "swapcase", "title", "upper", "cycle",
)  # fmt: skip
_JOINED = "~"


class EmptyCellError(UndefinedError):
    """A template printed an empty cell."""


class EmptyCell(StrictUndefined):
    """An empty cell: a template may ask whether it is one, and fails when it prints it."""

    __slots__ = ()

    def __bool__(self) -> bool:  # type: ignore[override]
        return False

    def __eq__(self, other: object) -> bool:  # type: ignore[override]
        return other == "" or isinstance(other, EmptyCell)

    def __ne__(self, other: object) -> bool:  # type: ignore[override]
        return not self == other

    def __hash__(self) -> int:  # type: ignore[override]
        return hash("")

    def __contains__(self, part: object) -> bool:  # type: ignore[override]
        return False


class Sandbox(ImmutableSandboxedEnvironment):
    """A sandbox in which every operation is bounded by the size of what goes in and comes out."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=False, finalize=_printable)
        self.globals.clear()
        for name in _REFUSED_FILTERS:
            del self.filters[name]
        self.filters = {name: _bounded(function) for name, function in self.filters.items()}
        self.filters[_JOINED] = _bounded(
            lambda parts: "".join(str(_printable(part)) for part in parts)
        )

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`+ * ** %` between values that stay small."""
        if isinstance(left, int | float) and isinstance(right, int | float):
            if operator == "**" and left.__class__ is int and right.__class__ is int:
                if left.bit_length() * right > _MAX_BITS:
                    raise SecurityError("a power is too large")
            elif any(isinstance(n, int) and n.bit_length() > _MAX_BITS for n in (left, right)):
                raise SecurityError("a number is too large")
            return super().call_binop(context, operator, left, right)
        if operator == "%":
            raise SecurityError("% formats no text here; use ~")
        return _bounded(self.binop_table[operator], adds=operator == "+")(left, right)

    def call(self, context: Context, method: Any, *args: Any, **kwargs: Any) -> Any:
        """A call of one of the methods of text that cannot run away."""
        if getattr(method, "__name__", "") not in _METHODS:
            raise SecurityError("only plain methods of text can be called")
        inside = getattr(method, "__self__", "")
        _check_work((inside, *args, *kwargs.values()))
        return _checked(super().call(context, method, *args, **kwargs))


def refused_tags(tree: nodes.Template, where: str) -> list[Fault]:
    """Tags with which work could multiply: loops in loops, macros, captured blocks, includes."""
    faults = []

    def refuse(node: nodes.Node, what: str, remedy: str) -> None:
        faults.append(Fault(what, f"{where}, line {node.lineno}", remedy))

    for tag in tree.find_all(tuple(_REFUSED_TAGS)):
        refuse(tag, f"the tag `{_REFUSED_TAGS[type(tag)]}` is not allowed", "write it out")
    for loop in tree.find_all(nodes.For):
        if loop.recursive or any(loop.find_all(nodes.For)):
            refuse(loop, "a loop within a loop", "loop once")
    for assignment in tree.find_all(nodes.Assign):
        if any(assignment.find_all((nodes.List, nodes.Tuple, nodes.Dict))):
            refuse(assignment, "set makes a list", "set one value, or loop over the list itself")
    return faults


class BoundedJoins(NodeTransformer):
    """Turns `a ~ b` into a filter, which is bounded like every other."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        """Parts of the concatenation as a list that a filter joins."""
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, _JOINED, [], [], None, None, lineno=node.lineno)


def _bounded(function: Callable[..., Any], adds: bool = False) -> Callable[..., Any]:
    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if adds:
            _checked(args)
        else:
            _check_work((*args, *kwargs.values()))
        return _checked(function(*args, **kwargs))

    return checked


def _check_work(values: Sequence[Any]) -> None:
    if any(callable(each) and not isinstance(each, Undefined) for each in values):
        raise SecurityError("a method is no value: call it")
    sizes = (abs(each) if isinstance(each, int) else _size(each) for each in values)
    if math.prod(max(1, size) for size in sizes) > _MAX_WORK:
        raise SecurityError("a value of the template is too large")


def _checked(value: Any) -> Any:
    if isinstance(value, Iterator):
        value = list(islice(value, MAX_VALUE + 1))
    if _size(value) > MAX_VALUE:
        raise SecurityError(f"a value of the template has more than {MAX_VALUE} characters")
    return value


def _size(value: Any) -> int:
    """Characters and elements of a value, counted no further than needed."""
    total, waiting = 0, [value]
    while waiting and total <= _MAX_WORK:
        each = waiting.pop()
        if isinstance(each, str):
            total += len(each)
        elif isinstance(each, list | tuple):
            total += 1
            waiting.extend(each)
        elif isinstance(each, dict):
            total += 1
            waiting.extend((*each, *each.values()))
        else:
            total += 1
    return total


def _printable(value: Any) -> Any:
    if not isinstance(value, Undefined) and (problem := no_text(value)):
        raise SecurityError(problem)
    return value
