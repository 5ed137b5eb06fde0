"""Licences of what images were made of, from the catalog, held against a pack's terms.

Called by catalog/selection.py for the images that a pack asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from catalog.ingredients import Row, ingredients_of, select_wanted
from pipeline.licence_conflicts import Ingredient, licence_conflicts
from pipeline.licence_marks import licence_of_file
from pipeline.licences import Licences
from pipeline.terms import Conflict, UsageTerms

if TYPE_CHECKING:
    import duckdb

    from catalog.lake import Lake


def record_input_licences(lake: Lake, pictures: Mapping[str, Path]) -> int:
    """Records the licences that input pictures, by SHA-256, name in their XMP; returns how many.

    One transaction; what is recorded already is recognised.
    """
    from catalog.write import insert_row

    marks = {sha256: licence_of_file(path) for sha256, path in pictures.items()}
    now = datetime.now(UTC)
    rows = [
        {"sha256": sha256, "licence": mark.licence, "credit": mark.credit, "says": mark.says}
        for sha256, mark in marks.items()
        if mark is not None
    ]

    def append(connection: duckdb.DuckDBPyConnection) -> int:
        found = select_wanted(
            connection,
            "SELECT sha256, licence, credit, says FROM input_licences SEMI JOIN wanted "
            "USING (sha256)",
            sha256=[row["sha256"] for row in rows],
        )
        new = [row for row in rows if row not in found]
        for row in new:
            insert_row(connection, "input_licences", {**row, "registered_at": now})
        return len(new)

    return lake.transact(append) if rows else 0


def licence_reasons(
    connection: duckdb.DuckDBPyConnection,
    rows: Sequence[Row],
    terms: Mapping[str, UsageTerms],
    pack: UsageTerms,
    licences: Licences,
    today: date,
) -> dict[str, list[Conflict]]:
    """By request id, why the licences behind these images keep them out of `pack`.

    `terms` are the images' own, by request id; rows without are left out. An input that says no to
    its use counts unless a person approved the image.
    """
    rows = [row for row in rows if row["request_id"] in terms]
    found: dict[str, list[Conflict]] = {}
    known: dict[tuple[str, tuple[Ingredient, ...]], tuple[Conflict, ...]] = {}
    behind = ingredients_of(connection, rows) if rows else {}
    for row in rows:
        request_id = row["request_id"]
        ingredients = behind[request_id]
        if row.get("approval_holds"):
            ingredients = tuple(_approved(each) for each in ingredients)
        key = (row["terms"], ingredients)
        if key not in known:
            known[key] = licence_conflicts(pack, terms[request_id], ingredients, licences, today)
        if known[key]:
            found[request_id] = list(known[key])
    return found


def _approved(one: Ingredient) -> Ingredient:
    """What a person has looked at and allowed is no refusal any more; the licence still counts."""
    return Ingredient(one.kind, one.name, one.licence, one.credit) if one.refuses else one
