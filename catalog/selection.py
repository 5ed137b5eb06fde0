"""Chooses what may go into a pack, and says of everything else why it may not.

The caller's WHERE only names requests: whether an image is cleared, and under which terms, is read
from the catalog again, so that no text can talk an image in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from catalog.audit import Limits, isolated, select
from catalog.lake import patiently
from catalog.licensing import licence_reasons
from catalog.rows import text_table
from catalog.sold import sold_reasons
from pipeline.licences import Licences, shipped_licences
from pipeline.terms import UsageTerms

if TYPE_CHECKING:
    import duckdb

EVERYTHING = "true"
# Times take Python longer to read than all else of a row, and no pack shows them.
_IMAGES = (
    "SELECT * EXCLUDE (recorded_at, reviewed_at) FROM images SEMI JOIN wanted USING (request_id) "
    'ORDER BY sku, "index", request_id'
)


@dataclass(frozen=True)
class LeftOut:
    """An image that was asked for and does not go in, with every reason."""

    request_id: str
    sku: str
    index: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Selection:
    """What a WHERE asked for: rows of the view `images` that may go in, and what may not."""

    images: tuple[Mapping[str, Any], ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Named:
    """The catalog as it was at one moment, isolated, and the rows of `images` that a WHERE names,
    by sku, index and request id."""

    connection: duckdb.DuckDBPyConnection = field(repr=False)
    folder: Path
    rows: tuple[Mapping[str, Any], ...]


@contextmanager
def named(folder: Path, where: str) -> Iterator[Named]:
    """What `where` names: a condition over the view `images`, checked like any auditor's SQL.

    Raises InputError for a wrong condition, SetupError when there is no catalog.
    """
    limits = Limits()
    with isolated(folder, limits) as connection:
        # The line break ends a comment that the condition may finish with.
        sql = f"SELECT request_id FROM images WHERE (\n{where}\n)"
        found = select(connection, sql, {}, limits, folder).table.column("request_id")
        request_ids = [str(name) for name in found.to_pylist()]
        rows = patiently(lambda: _rows(connection, request_ids), folder)
        yield Named(connection, folder, tuple(rows))


def choose(
    found: Named, terms: UsageTerms, today: date, licences: Licences | None = None
) -> Selection:
    """Of the images that were named, those that may be given under `terms` on `today` (UTC).

    Both parts come in the order of the rows. `licences` is the table to judge by, default the
    shipped one.
    """
    judged = patiently(
        lambda: _judged(found.connection, found.rows, terms, today, licences), found.folder
    )
    return Selection(
        tuple(row for row, reasons in judged if not reasons),
        tuple(left_out_because(row, reasons) for row, reasons in judged if reasons),
    )


def judge(
    connection: duckdb.DuckDBPyConnection,
    request_ids: Iterable[str],
    terms: UsageTerms,
    today: date,
    licences: Licences | None = None,
) -> list[tuple[Mapping[str, Any], list[str]]]:
    """These requests' rows of `images`, each with why it may not be given; no reason: it may.

    Asked again in the transaction that records a pack.
    """
    return _judged(connection, _rows(connection, request_ids), terms, today, licences)


def _judged(
    connection: duckdb.DuckDBPyConnection,
    images: Sequence[Mapping[str, Any]],
    terms: UsageTerms,
    today: date,
    licences: Licences | None,
) -> list[tuple[Mapping[str, Any], list[str]]]:
    refused = {row["request_id"]: _not_cleared(row) for row in images}
    cleared = [row for row in images if not refused[row["request_id"]]]
    own = {row["request_id"]: _terms(row) for row in cleared}
    granted = {key: found for key, found in own.items() if isinstance(found, UsageTerms)}
    table = licences or shipped_licences()
    licensed = licence_reasons(connection, cleared, granted, terms, table, today)
    sold = sold_reasons(connection, cleared, terms, today)
    for row in cleared:
        key = row["request_id"]
        refused[key] = [
            *_outside(row, terms, today),
            *map(str, licensed.get(key, ())),
            *map(str, sold.get(key, ())),
        ]
    return [(row, refused[row["request_id"]]) for row in images]


def own_terms(found: Named) -> tuple[UsageTerms, ...]:
    """The different usage terms of the cleared images that were named, by their ids."""
    texts = {row["terms"] for row in found.rows if row["cleared"] and row["terms"] is not None}
    own = {terms for terms in map(_parsed, texts) if isinstance(terms, UsageTerms)}
    return tuple(sorted(own, key=UsageTerms.model_dump_json))


def without_terms(found: Named) -> tuple[LeftOut, ...]:
    """Of the images that were named, those that offer no usage terms, each with the reason."""
    told = [(row, _not_cleared(row) or _without_terms(row)) for row in found.rows]
    return tuple(left_out_because(row, reasons) for row, reasons in told if reasons)


def left_out_because(row: Mapping[str, Any], reasons: Sequence[str]) -> LeftOut:
    """A row of `images` that does not go in."""
    return LeftOut(row["request_id"], row["sku"], row["index"], tuple(reasons))


def _rows(
    connection: duckdb.DuckDBPyConnection, request_ids: Iterable[str]
) -> list[dict[str, Any]]:
    connection.register("wanted", text_table(request_id=list(request_ids)))
    try:
        rows: list[dict[str, Any]] = connection.execute(_IMAGES).to_arrow_table().to_pylist()
        return rows
    finally:
        connection.unregister("wanted")


def _not_cleared(row: Mapping[str, Any]) -> list[str]:
    if row["state"] != "done":
        return [f"it failed: {row['error']}"]
    if row["outcome"] == "block":
        texts = "; ".join(reason["text"] for reason in row["reasons"] or ())
        return [f"blocked by {row['policy']} {row['policy_version']}: {texts}"]
    if row["decision"] == "reject":
        return [f"rejected by {row['reviewer']}: {row['review_reason']}"]
    if row["outcome"] == "review" and not row["approval_holds"]:
        lapsed = f": the approval by {row['reviewer']} no longer holds" if row["decision"] else ""
        return [f"it waits for a review{lapsed}"]
    if row["prompt"] is None:
        return ["its prompt was erased"]
    if not row["cleared"]:
        return ["there is no signed file"]
    return []


def _outside(row: Mapping[str, Any], terms: UsageTerms, today: date) -> list[str]:
    granted = _terms(row)
    if isinstance(granted, str):
        return [granted]
    return terms.outside(granted, today, row["sku"])


def _without_terms(row: Mapping[str, Any]) -> list[str]:
    granted = _terms(row)
    return [granted] if isinstance(granted, str) else []


def _terms(row: Mapping[str, Any]) -> UsageTerms | str:
    """An image's usage terms, or why it has none."""
    if row["terms"] is None:
        return "it has no usage terms: name them in the brief or the policy"
    return _parsed(row["terms"])


@lru_cache(maxsize=256)
def _parsed(text: str) -> UsageTerms | str:
    """Terms from their JSON: thousands of images share a few."""
    try:
        return UsageTerms.model_validate(json.loads(text))
    except ValidationError as error:
        return f"its usage terms cannot be read: {error.errors()[0]['msg']}"
