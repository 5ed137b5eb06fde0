"""Reads usage terms from a YAML file: every fault with its line, unknown keys refused by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, get_args

from pydantic import BaseModel, ValidationError

from pipeline.errors import Fault, InputError
from pipeline.terms import UsageTerms
from pipeline.yaml_lines import Located, read_yaml, written_path

M = TypeVar("M", bound=BaseModel)


def read_terms(path: Path) -> UsageTerms:
    """The usage terms in a YAML file. Raises InputError with every fault's file and line."""
    tree, faults = read_yaml(path)
    if tree is None or faults:
        raise InputError("terms", faults)
    found = validated(UsageTerms, tree, faults)
    if found is None or faults:
        raise InputError("terms", faults)
    return found


def validated(model: type[M], tree: Located, faults: list[Fault]) -> M | None:
    """`tree` as a `model`; None with its faults added, each at the line it was written in."""
    content = tree.plain()
    try:
        return model.model_validate(content)
    except ValidationError as error:
        for each in error.errors():
            place = written_path(each["loc"], content, each["type"] == "missing")
            name = ".".join(map(str, place))
            what, remedy = each["msg"].removeprefix("Value error, "), "see docs/licences.md"
            if each["type"] == "extra_forbidden":
                known = _keys(model, place[:-1])
                near = difflib.get_close_matches(str(place[-1]), known, 1)
                what = "there is no such key"
                remedy = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            elif each["type"] == "missing":
                what, remedy = "is missing", "add it"
            what = f"{name}: {what}" if name else what
            faults.append(Fault(what, tree.at(place).where, remedy))
        return None


def _keys(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand at `place`."""
    here: type[BaseModel] | None = model
    for step in place:
        if here is None or not isinstance(step, str):
            continue
        field = here.model_fields.get(step)
        here = _model_in(field.annotation) if field else None
    fields: Mapping[str, object] = here.model_fields if here else {}
    return list(fields)


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _model_in(each))), None)
