"""Verdicts of a replay in full, as `decide` writes them, for the images that do not just pass.

A part of catalog/replay.py, after catalog/replay_evaluate.py, which has said which images these
are. They are few, so each is decided again from its own scores with all their evidence.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from catalog.replay_facts import REQUEST_COLUMNS, request_of_row
from catalog.replay_judged import LATER, REQUESTS, ScoreSets, near
from pipeline.policy_model import Policy
from pipeline.records import Score, Verdict
from pipeline.verdict import decide

if TYPE_CHECKING:
    import duckdb

AT_ONCE = 20_000
"""Images whose scores are in memory at once."""


def decided(
    connection: duckdb.DuckDBPyConnection, policy: Policy, sets: ScoreSets, images: str
) -> Iterator[tuple[str, str, Verdict]]:
    """Request id, attempt and verdict of each request of the table `images`, which has both ids.

    For connections on which `evaluate` has defined what is judged, and found these `sets`.
    """
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE to_decide AS SELECT request_id, attempt, "
        f"(row_number() OVER (ORDER BY attempt, request_id) - 1) // {AT_ONCE} AS part FROM {images}"
    )
    ((parts,),) = connection.execute("SELECT max(part) FROM temp.to_decide").fetchall()
    for part in range(-1 if parts is None else parts + 1):
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE deciding AS "
            "SELECT request_id, attempt FROM temp.to_decide WHERE part = ?",
            [part],
        )
        yield from _part(connection, policy, sets)


def _part(
    connection: duckdb.DuckDBPyConnection, policy: Policy, sets: ScoreSets
) -> Iterator[tuple[str, str, Verdict]]:
    here = near(connection, "temp.deciding")
    licences: defaultdict[str, list[str]] = defaultdict(list)
    for request_id, licence in connection.execute(
        "SELECT DISTINCT u.request_id, coalesce(m.licence, '') FROM ("
        f"SELECT request_id, model, model_revision AS revision FROM {REQUESTS} "
        f"SEMI JOIN temp.deciding USING (request_id) WHERE {here} UNION ALL "
        f"SELECT request_id, model, revision FROM (FROM raw.recipe_models WHERE {here}) "
        "SEMI JOIN temp.deciding USING (request_id, attempt)) AS u "
        "LEFT JOIN models AS m ON m.name = u.model AND m.revision = u.revision ORDER BY ALL"
    ).fetchall():
        licences[request_id].append(licence)
    for row in _requests(connection, here):
        request_id = row["request_id"]
        places = zip(sets.signatures[row["signature"]], row["values"], row["evidence"], strict=True)
        scores = [
            Score(*each.pair, value, json.loads(evidence)) for each, value, evidence in places
        ]
        verdict = decide(policy, request_of_row(row), licences[request_id], scores)
        yield request_id, row["attempt"], verdict


def _requests(connection: duckdb.DuckDBPyConnection, here: str) -> Iterator[Mapping[str, Any]]:
    """Rows of raw.images with the score set and the terms that count now."""
    found = connection.execute(
        f'SELECT {REQUEST_COLUMNS}, signature, "values", evidence FROM (SELECT r.* REPLACE ('
        "CASE WHEN t.renewed THEN t.terms ELSE r.terms END AS terms) "
        f"FROM (FROM {REQUESTS} WHERE {here}) AS r SEMI JOIN temp.deciding USING (request_id) "
        f"LEFT JOIN {LATER} AS t USING (request_key))"
    ).to_arrow_table()
    for batch in found.to_batches():
        yield from batch.to_pylist()
