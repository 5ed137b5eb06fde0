"""Licences at planning: what a brief's terms could never give is refused before any image is made.

The same rules as at export (pipeline/licence_conflicts.py), with the brief's own terms as the pack.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path

from pipeline.errors import Fault
from pipeline.inputs import Picture
from pipeline.licence_conflicts import Ingredient, Kind, licence_conflicts
from pipeline.licence_marks import licence_of_file
from pipeline.licences import Licences
from pipeline.models import Model
from pipeline.request import Request
from pipeline.terms import Conflict, UsageTerms

_SHOWN = 3


def licence_refusals(
    terms: UsageTerms,
    requests: Iterable[Request],
    models: Mapping[str, Model],
    pictures: Mapping[str, Picture],
    licences: Licences,
    today: date,
) -> list[Fault]:
    """What stands between `terms` and the images of these requests, each conflict once.

    `models` and `pictures` are those of the plan, by name and by SHA-256. Releases that are over,
    and terms that are, count as well.
    """
    known: dict[tuple[Ingredient, ...], tuple[Conflict, ...]] = {}
    found: dict[Conflict, list[str]] = {}
    marks: dict[str, Ingredient | None] = {}
    for request in requests:
        ingredients = tuple(_ingredients(request, terms, models, pictures, marks))
        if ingredients not in known:
            known[ingredients] = licence_conflicts(terms, terms, ingredients, licences, today)
        for conflict in (*terms.conflicts(terms, today, request.sku), *known[ingredients]):
            found.setdefault(conflict, []).append(request.sku)
    return [
        Fault(f"{conflict.says} [{conflict.rule}]", _where(terms, skus), conflict.fix)
        for conflict, skus in found.items()
    ]


def _ingredients(
    request: Request,
    terms: UsageTerms,
    models: Mapping[str, Model],
    pictures: Mapping[str, Picture],
    marks: dict[str, Ingredient | None],
) -> Iterator[Ingredient]:
    for kind, name in _parts(request):
        model = models[name]
        yield Ingredient(kind, name, model.licence)
        if model.kind == "lora" and model.is_folder:
            from pipeline.train.card import trained_on

            for licence in sorted(
                {str(each["licence"]) for each in trained_on(Path(model.source))}
            ):
                yield Ingredient("training picture", f"of adapter {name}", licence)
    for step in request.chain:
        for each in step.inputs:
            picture = pictures.get(each.sha256)
            if each.source != "file" or picture is None:
                continue
            if each.sha256 not in marks:
                marks[each.sha256] = _input(picture, terms)
            if (found := marks[each.sha256]) is not None:
                yield found


def _parts(request: Request) -> Iterator[tuple[Kind, str]]:
    for step in request.chain:
        yield "model", step.model
        for control in step.controls:
            yield "control", control.model
            if control.tool:
                yield "tool", control.tool
        for adapter in step.adapters:
            yield "adapter", adapter.model
        if step.region and step.region.tool:
            yield "tool", step.region.tool


def _input(picture: Picture, terms: UsageTerms) -> Ingredient | None:
    """What is declared of an input picture counts more than what its file says."""
    for work in terms.materials:
        if work.is_of(picture.name, picture.sha256):
            return Ingredient("input", picture.name, work.licence, work.credit or "")
    mark = licence_of_file(picture.path)
    return Ingredient("input", picture.name, mark.licence, mark.credit) if mark else None


def _where(terms: UsageTerms, skus: list[str]) -> str:
    names = list(dict.fromkeys(skus))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"terms {terms.id}, {', '.join(names[:_SHOWN])}{more}"
