"""What a market asks of an AI-made image's marks, as data, and which of it a file carries.

One YAML file a market in pipeline/markets/, each rule with its source and the day it was read.
Works on reports of pipeline/verify.py; it measures marks and gives no legal advice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import Fault, InputError
from pipeline.verify import Report
from pipeline.yaml_lines import Located, read_yaml, written_path

SHIPPED = Path(__file__).parent / "markets"
"""Folder of the markets that ship with Platemark."""
_FACTS = {each.name for each in fields(Report)}


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Mark(_Data):
    """One way to meet a requirement: a fact of the report that is there and as it should be.

    `fact` is a field of the report, then keys below it, with dots: `state`, `generation.seed`,
    `labels.xmp:CreateDate`. Without a condition anything but nothing will do. `one_of`: the value,
    or one of a list's, is one of these. `matches`: its text fits this pattern, as a whole. `holds`:
    it is a mapping, or JSON text of one, with something under each of these keys.
    """

    fact: str
    one_of: tuple[str, ...] = ()
    matches: str | None = None
    holds: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.fact.partition(".")[0] not in _FACTS:
            raise ValueError(f"no report has {self.fact!r}; known: {', '.join(sorted(_FACTS))}")
        if sum(map(bool, (self.one_of, self.matches, self.holds))) > 1:
            raise ValueError("give one of one_of, matches and holds")
        if self.matches is not None:
            try:
                re.compile(self.matches)
            except re.error as error:
                raise ValueError(f"matches is no pattern: {error}") from None
        return self


class Requirement(_Data):
    """One thing that a market asks for. Met by any of the marks; without one only people can tell.

    `rule` is the article, section or page that says so; `remedy` what makes it true here.
    """

    id: str = Field(pattern=r"^[a-z0-9-]+$")
    text: str
    rule: str
    level: Literal["required", "recommended"] = "required"
    any: tuple[Mark, ...] = ()
    remedy: str = ""


class Market(_Data):
    """A market's requirements, with where and when they were read."""

    market: str = Field(pattern=r"^[a-z0-9-]+$")
    title: str
    source: str = Field(pattern=r"^https://\S+$")
    checked: date
    applies: str
    """Since when, and to whom."""
    requirements: tuple[Requirement, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> Self:
        ids = [each.id for each in self.requirements]
        if twice := sorted({each for each in ids if ids.count(each) > 1}):
            raise ValueError(f"requirements named twice: {', '.join(twice)}")
        return self


@dataclass(frozen=True)
class Finding:
    """One requirement, and whether a file meets it; `met` None: no file can tell.

    `found` is the fact that met it, as `fact = value`, shortened.
    """

    requirement: Requirement
    met: bool | None
    found: str | None = None


def markets(folder: Path = SHIPPED) -> dict[str, Market]:
    """Every shipped market by name. Raises InputError when a file is faulty."""
    loaded = [read_market(path) for path in sorted(folder.glob("*.yaml"))]
    return {each.market: each for each in loaded}


def find_market(name_or_path: str) -> Market:
    """A shipped market by name, or one of your own by path. Raises InputError."""
    if Path(name_or_path).suffix in (".yaml", ".yml"):
        return read_market(Path(name_or_path))
    known = markets()
    if name_or_path not in known:
        remedy = f"one of {', '.join(known)}, or a YAML file"
        raise InputError("market", [Fault(f"there is no {name_or_path!r}", "--market", remedy)])
    return known[name_or_path]


def read_market(path: Path) -> Market:
    """A market's file. Raises InputError with every fault, each with its line."""
    tree, faults = read_yaml(path)
    if tree is None:
        raise InputError(f"market {path.name}", faults)
    try:
        market = Market.model_validate(tree.plain())
    except ValidationError as error:
        raise InputError(f"market {path.name}", [*faults, *_faults(error, tree)]) from None
    if faults:
        raise InputError(f"market {path.name}", faults)
    return market


def check(report: Report, market: Market) -> tuple[Finding, ...]:
    """Each requirement of the market, as the report of one AI-made image meets it."""
    return tuple(_finding(report, each) for each in market.requirements)


def meets(findings: Sequence[Finding]) -> bool:
    """Whether nothing required is missing, as far as a file can tell."""
    return all(each.met is not False or each.requirement.level != "required" for each in findings)


def _finding(report: Report, requirement: Requirement) -> Finding:
    for mark in requirement.any:
        value = _fact(report, mark.fact)
        if value not in (None, "", (), [], {}, False) and _fits(mark, value):
            return Finding(requirement, True, f"{mark.fact} = {_short(value)}")
    return Finding(requirement, False if requirement.any else None)


def _fact(report: Report, path: str) -> Any:
    first, *rest = path.split(".")
    value: Any = getattr(report, first)
    for key in rest:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _fits(mark: Mark, value: Any) -> bool:
    if mark.one_of:
        values = value if isinstance(value, list | tuple) else [value]
        return any(str(each) in mark.one_of for each in values)
    if mark.matches is not None:
        return re.fullmatch(mark.matches, str(value), re.DOTALL) is not None
    if mark.holds:
        held = _mapping(value)
        return all(held.get(key) not in (None, "") for key in mark.holds)
    return True


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, Mapping) else {}


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _faults(error: ValidationError, tree: Located) -> list[Fault]:
    faults = []
    for each in error.errors():
        path = written_path(each["loc"], tree.plain(), each["type"] == "missing")
        name = ".".join(map(str, path))
        what = each["msg"].removeprefix("Value error, ")
        where = tree.at(path).where
        faults.append(Fault(f"{name}: {what}" if name else what, where, "see docs/verify.md"))
    return faults
