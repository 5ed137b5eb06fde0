"""Everything under a licence that had a part in catalogued images: models, training and input
pictures, and those of the images that they were made from.

Starts from the rows of the images asked for, never from a whole table of the catalog.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catalog.rows import text_table
from pipeline.licence_conflicts import Ingredient, Kind
from pipeline.licences import creative_commons_in

if TYPE_CHECKING:
    import duckdb

Row = Mapping[str, Any]


@dataclass(frozen=True)
class _Step:
    """One step of a request: the models in it, by kind, and its input pictures."""

    models: tuple[tuple[Kind, str, str], ...]
    inputs: tuple[tuple[str, str, str], ...]
    """Source, name and SHA-256 of each."""


def ingredients_of(
    connection: duckdb.DuckDBPyConnection, rows: Sequence[Row]
) -> dict[str, tuple[Ingredient, ...]]:
    """Everything under a licence that had a part in each image, by request id.

    `rows` have the columns request_id, model, model_revision, recipe and terms of `images` or
    `requests`. Inputs that are images of this catalog bring in what those were made of. A model
    that the catalog has no record of is left out: nothing is known of its licence.
    """
    family = _with_ancestors(connection, rows)
    steps = {request_id: tuple(_steps(row)) for request_id, row in family.rows.items()}
    models = {part[1:] for own in steps.values() for step in own for part in step.models}
    licences = _model_licences(connection, models)
    trained = _training_licences(
        connection, {part[1:] for own in steps.values() for s in own for part in s.models}
    )
    marks = _input_marks(connection, steps.values())
    own: dict[str, tuple[Ingredient, ...]] = {}
    for request_id, row in family.rows.items():
        found: list[Ingredient] = []
        for step in steps[request_id]:
            for kind, name, revision in step.models:
                if licence := licences.get((name, revision)):
                    found.append(Ingredient(kind, name, licence))
                found += trained.get((name, revision), ())
            found += _inputs(row, step, family.restrictions.get(request_id, {}), marks)
        own[request_id] = tuple(dict.fromkeys(found))
    return {
        row["request_id"]: tuple(
            dict.fromkeys(
                each
                for request_id in family.line_of(row["request_id"])
                for each in own.get(request_id, ())
            )
        )
        for row in rows
    }


@dataclass(frozen=True)
class _Family:
    """Rows of requests by id, the images each was made from, and what its inputs say of
    themselves by SHA-256."""

    rows: dict[str, Row]
    parents: dict[str, set[str]]
    restrictions: dict[str, dict[str, tuple[str, ...]]]

    def line_of(self, request_id: str) -> list[str]:
        """The request and all that its image was made from, itself first."""
        found, todo = [], [request_id]
        while todo:
            each = todo.pop()
            if each not in found:
                found.append(each)
                todo += sorted(self.parents.get(each, ()))
        return found


def _with_ancestors(connection: duckdb.DuckDBPyConnection, rows: Sequence[Row]) -> _Family:
    family = _Family({row["request_id"]: row for row in rows}, {}, {})
    todo: Sequence[Row] = list(family.rows.values())
    while made_from := [row["request_id"] for row in todo if row["recipe"]]:
        used = select_wanted(
            connection,
            "SELECT request_id, source, sha256, source_request_id, restrictions FROM inputs "
            "SEMI JOIN wanted USING (request_id) WHERE source <> 'step'",
            request_id=made_from,
        )
        for each in used:
            if each["source"] == "asset" and each["source_request_id"]:
                family.parents.setdefault(each["request_id"], set()).add(each["source_request_id"])
            says = family.restrictions.setdefault(each["request_id"], {})
            says[each["sha256"]] = tuple(each["restrictions"] or ())
        parents = {parent for row in todo for parent in family.parents.get(row["request_id"], ())}
        todo = select_wanted(
            connection,
            "SELECT request_id, model, model_revision, recipe, terms FROM requests "
            "SEMI JOIN wanted USING (request_id)",
            request_id=sorted(parents - set(family.rows)),
        )
        family.rows.update({row["request_id"]: row for row in todo})
    return family


def _steps(row: Row) -> Iterator[_Step]:
    """The steps of a request, read from its recipe as view models_used does."""
    recipe = json.loads(row["recipe"]) if row["recipe"] else {}
    last = {**recipe, "model": row["model"], "model_revision": row["model_revision"]}
    for step in (*(recipe.get("earlier") or ()), last):
        yield _Step(
            tuple(dict.fromkeys(_models(step))),
            tuple(
                (str(each["source"]), str(each["name"]), str(each["sha256"]))
                for each in step.get("inputs") or ()
            ),
        )


def _models(step: Mapping[str, Any]) -> Iterator[tuple[Kind, str, str]]:
    yield "model", str(step["model"]), str(step["model_revision"])
    kinds: tuple[tuple[Kind, str], ...] = (("control", "controls"), ("adapter", "adapters"))
    for kind, key in kinds:
        for each in step.get(key) or ():
            yield kind, str(each["model"]), str(each["model_revision"])
    for each in (*(step.get("controls") or ()), step.get("region") or {}):
        if each.get("tool"):
            yield "tool", str(each["tool"]), str(each["tool_revision"])


def _model_licences(
    connection: duckdb.DuckDBPyConnection, models: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], str]:
    pairs = sorted(models)
    found = select_wanted(
        connection,
        "SELECT name, revision, licence FROM models SEMI JOIN wanted USING (name, revision)",
        name=[name for name, _ in pairs],
        revision=[revision for _, revision in pairs],
    )
    return {(each["name"], each["revision"]): each["licence"] for each in found if each["licence"]}


def _training_licences(
    connection: duckdb.DuckDBPyConnection, models: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], list[Ingredient]]:
    """The licences of the pictures that adapters were trained on, one entry a licence."""
    pairs = sorted(models)
    rows = select_wanted(
        connection,
        "SELECT adapter, revision, licence, count(*) AS pictures, min(title) AS title "
        "FROM training_images SEMI JOIN wanted USING (adapter, revision) "
        "WHERE licence IS NOT NULL GROUP BY ALL ORDER BY ALL",
        adapter=[name for name, _ in pairs],
        revision=[revision for _, revision in pairs],
    )
    found: dict[tuple[str, str], list[Ingredient]] = {}
    for row in rows:
        more = f" and {row['pictures'] - 1} more" if row["pictures"] > 1 else ""
        name = f"{row['title']}{more} of adapter {row['adapter']}"
        found.setdefault((row["adapter"], row["revision"]), []).append(
            Ingredient("training picture", name, row["licence"])
        )
    return found


def _input_marks(
    connection: duckdb.DuckDBPyConnection, steps: Iterable[tuple[_Step, ...]]
) -> dict[str, Row]:
    files = {
        sha256
        for own in steps
        for step in own
        for source, _, sha256 in step.inputs
        if source == "file"
    }
    rows = select_wanted(
        connection,
        "SELECT sha256, licence, credit FROM input_licences SEMI JOIN wanted USING (sha256)",
        sha256=sorted(files),
    )
    return {row["sha256"]: row for row in rows}


def _inputs(
    row: Row,
    step: _Step,
    restrictions: Mapping[str, tuple[str, ...]],
    marks: Mapping[str, Row],
) -> Iterator[Ingredient]:
    """Input files with what is known of their licences: declared in the terms, or in the file."""
    for source, name, sha256 in step.inputs:
        if source != "file":
            continue
        against = [
            says.removeprefix("editing: ")
            for says in restrictions.get(sha256, ())
            if says.startswith("editing: ")
        ]
        named = [licence for says in against if (licence := creative_commons_in(says))]
        refuses = tuple(says for says in against if not creative_commons_in(says))
        declared = next((m for m in _materials(row) if _is_of(m, name, sha256)), None)
        known = declared or marks.get(sha256)
        licence = known["licence"] if known else (named[0] if named else "")
        if licence or refuses:
            credit = (known or {}).get("credit") or ""
            yield Ingredient("input", name, licence, credit, refuses)


def _materials(row: Row) -> list[Mapping[str, Any]]:
    terms = json.loads(row["terms"]) if row["terms"] else {}
    found = terms.get("materials") if isinstance(terms, dict) else None
    return found if isinstance(found, list) else []


def _is_of(material: Mapping[str, Any], name: str, sha256: str) -> bool:
    if material.get("sha256"):
        return bool(material["sha256"] == sha256)
    return bool(material.get("name") == name)


def select_wanted(
    connection: duckdb.DuckDBPyConnection, sql: str, **wanted: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of a query in which `wanted` is the table of these text columns; none for no row."""
    if not next(iter(wanted.values())):
        return []
    connection.register("wanted", text_table(**wanted))
    try:
        found: list[dict[str, Any]] = connection.execute(sql).to_arrow_table().to_pylist()
        return found
    finally:
        connection.unregister("wanted")
