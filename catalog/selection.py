"""Chooses what may go into a pack, and says of everything else why it may not.

The caller's WHERE only names requests: whether an image is cleared, and under which terms, is read
from the catalog again, so that no text can talk an image in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from catalog.audit import Limits, isolated, select
from catalog.lake import patiently
from catalog.rows import text_table
from pipeline.terms import UsageTerms

EVERYTHING = "true"


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


def choose(folder: Path, where: str, terms: UsageTerms, today: date) -> Selection:
    """Of the images that `where` names, those that may be given under `terms` on `today` (UTC).

    `where` is a condition over the view `images`, checked like any auditor's SQL. Both parts come
    by sku, index and request id. Raises InputError for a wrong condition.
    """
    limits = Limits()
    with isolated(folder, limits) as connection:
        # The line break ends a comment that the condition may finish with.
        sql = f"SELECT request_id FROM images WHERE (\n{where}\n)"
        named = select(connection, sql, {}, limits, folder).table.column("request_id")
        wanted = text_table(request_id=[str(name) for name in named.to_pylist()])
        connection.register("wanted", wanted)
        rows = patiently(
            lambda: connection.execute(
                "SELECT * FROM images SEMI JOIN wanted USING (request_id) "
                'ORDER BY sku, "index", request_id'
            ).to_arrow_table(),
            folder,
        )
        earlier = connection.execute(
            "SELECT a.request_id, p.pack_id, p.licensee, p.expires, p.terms FROM pack_assets AS a "
            "JOIN packs AS p USING (pack_id) SEMI JOIN wanted USING (request_id) "
            "ORDER BY p.created_at"
        ).to_arrow_table()
    grants: dict[str, list[dict[str, Any]]] = {}
    for grant in earlier.to_pylist():
        grants.setdefault(grant["request_id"], []).append(grant)
    images, left_out = [], []
    for row in rows.to_pylist():
        reasons = _not_cleared(row) or [
            *_outside(row, terms, today),
            *_exclusive(grants.get(row["request_id"], ()), terms, today),
        ]
        if reasons:
            left_out.append(left_out_because(row, reasons))
        else:
            images.append(row)
    return Selection(tuple(images), tuple(left_out))


def left_out_because(row: Mapping[str, Any], reasons: Sequence[str]) -> LeftOut:
    """A row of `images` that does not go in."""
    return LeftOut(row["request_id"], row["sku"], row["index"], tuple(reasons))


def _not_cleared(row: Mapping[str, Any]) -> list[str]:
    if row["state"] != "done":
        return [f"it failed: {row['error']}"]
    if row["outcome"] == "block":
        texts = "; ".join(reason["text"] for reason in row["reasons"] or ())
        return [f"blocked by {row['policy']} {row['policy_version']}: {texts}"]
    if row["outcome"] == "review" and row["decision"] is None:
        return ["it waits for a review"]
    if row["outcome"] == "review" and row["decision"] != "approve":
        return [f"rejected by {row['reviewer']}: {row['review_reason']}"]
    if not row["cleared"]:
        return ["there is no signed file"]
    return []


def _outside(row: Mapping[str, Any], terms: UsageTerms, today: date) -> list[str]:
    if row["terms"] is None:
        return ["it has no usage terms: name them in the brief or the policy"]
    try:
        granted = UsageTerms.model_validate(json.loads(row["terms"]))
    except ValidationError as error:
        return [f"its usage terms cannot be read: {error.errors()[0]['msg']}"]
    return terms.outside(granted, today)


def _exclusive(earlier: Sequence[Mapping[str, Any]], terms: UsageTerms, today: date) -> list[str]:
    """Earlier packs for somebody else, still running, where either side is exclusive."""
    return [
        f"pack {grant['pack_id']} gave it to {grant['licensee']} until "
        f"{grant['expires'] or 'no end'}, and one of the two is exclusive"
        for grant in earlier
        if grant["licensee"] != terms.licensee
        and (grant["expires"] is None or grant["expires"] >= today)
        and (terms.exclusive or json.loads(grant["terms"]).get("exclusive"))
    ]
