"""What speaks against images, a row each: scores beyond bounds or lacking, licences, words.

A part of catalog/replay_evaluate.py. That a score is there for every image is seen from sums of
hashes: ids are never grouped by the million.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from catalog.replay_judged import DETECTOR, REQUESTS, SCORES, Group, keep, quoted
from catalog.replay_sql import Compiled
from catalog.rows import text_table
from pipeline.denied import denied_in
from pipeline.policy_model import Policy
from pipeline.request import Request, request_from_json
from pipeline.verdict import prompt_refusals

if TYPE_CHECKING:
    import duckdb

_CHUNK = 100_000


def make_facts(connection: duckdb.DuckDBPyConnection) -> None:
    """Makes the table: a request, the number of a fact (Compiled), the score, how far beyond."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE facts (request_id VARCHAR, fact INTEGER, value DOUBLE, "
        "beyond DOUBLE)"
    )


def note_scores(connection: duckdb.DuckDBPyConnection, compiled: Compiled) -> None:
    """The rows that break a bound, and how far they are beyond it in parts of it."""
    import pyarrow as pa

    rows = [
        {
            "check_name": compiled.pairs[pair][0],
            "name": compiled.pairs[pair][1],
            "fact": pair,
            "below": limits.below,
            "at_least": limits.at_least,
        }
        for pair, limits in compiled.limits
    ]
    if not rows:
        return
    keep(connection, "limits", pa.Table.from_pylist(rows))
    # Joined with the limits, strings are compared once a row; a CASE over all names takes thrice
    # the time. NaN is greater than all numbers, so it is within no limits.
    connection.execute(
        "INSERT INTO temp.facts SELECT request_id, fact, value, greatest("
        "(value - at_least) / coalesce(nullif(abs(at_least), 0), 1), "
        "(below - value) / coalesce(nullif(abs(below), 0), 1)) "
        f"FROM {SCORES} JOIN temp.limits USING (check_name, name) "
        "WHERE (value < at_least AND value >= below) IS NOT TRUE"
    )


def note_missing(
    connection: duckdb.DuckDBPyConnection,
    compiled: Compiled,
    groups: Collection[Group],
    judged: int,
    hashes: int,
) -> dict[str, int]:
    """Images that lack a score which some rule needs; returns how many lack each."""
    tables: dict[Any, str] = {}
    missing: dict[str, int] = {}
    for number, (need, pairs) in enumerate(compiled.needs):
        found = [
            group
            for group in groups
            if compiled.pairs.index(group.pair) in pairs and need.detector in ("", group.detector)
        ]
        if any(
            sum(each.images for each in part) == judged
            and sum(each.hashes for each in part) == hashes
            for part in _parts(found)
        ):
            continue
        # Scores of one check lack together: what one query found serves all of them.
        same = frozenset((group.images, group.hashes) for group in found)
        if same not in tables:
            tables[same] = f"lacking_{len(tables)}"
            has = ", ".join(
                f"({quoted(check)}, {quoted(name)})"
                for check, name in (compiled.pairs[pair] for pair in sorted(pairs))
            )
            by = f"AND {DETECTOR} = {quoted(need.detector)}" if need.detector else ""
            without = (
                f"ANTI JOIN (SELECT request_id FROM {SCORES} WHERE (check_name, name) IN ({has}) "
                f"{by}) USING (request_id)"
            )
            connection.execute(
                f"CREATE OR REPLACE TEMP TABLE {tables[same]} AS SELECT request_id "
                f"FROM {REQUESTS} {without if found else ''}"
            )
        connection.execute(
            f"INSERT INTO temp.facts SELECT request_id, {compiled.missing(number)}, NULL, "
            f"'Infinity'::DOUBLE FROM temp.{tables[same]}"
        )
        ((count,),) = connection.execute(f"SELECT count(*) FROM temp.{tables[same]}").fetchall()
        if count:
            missing[need.name] = max(count, missing.get(need.name, 0))
    return missing


def _parts(found: list[Group]) -> Iterable[list[Group]]:
    """Parts of a score's groups that may be one score of every image."""
    yield from ([group] for group in found)
    yield found
    for key in (lambda group: group.pair, lambda group: (group.pair, group.detector)):
        parts: dict[Any, list[Group]] = {}
        for group in found:
            parts.setdefault(key(group), []).append(group)
        yield from parts.values()


def note_licences(
    connection: duckdb.DuckDBPyConnection, compiled: Compiled, policy: Policy
) -> None:
    """Images with a model, adapter or tool whose licence the policy does not list."""
    plain, chained = (
        "SELECT request_id, model, model_revision AS revision FROM " + REQUESTS,
        f"SELECT request_id, model, revision FROM raw.recipe_models SEMI JOIN {REQUESTS} "
        "USING (request_id, attempt)",
    )
    for source in (plain, chained):
        used = connection.execute(
            f"SELECT u.model, u.revision, coalesce(m.licence, '') FROM (SELECT DISTINCT model, "
            f"revision FROM ({source})) AS u LEFT JOIN models AS m "
            "ON m.name = u.model AND m.revision = u.revision"
        ).fetchall()
        refused = [row for row in used if not policy.allows_licence(row[2])]
        if refused:
            keys = ", ".join(f"({quoted(row[0])}, {quoted(row[1])})" for row in refused)
            connection.execute(
                f"INSERT INTO temp.facts SELECT request_id, {compiled.licences}, NULL, "
                f"'Infinity'::DOUBLE FROM ({source}) WHERE (model, revision) IN ({keys})"
            )


def note_denied(connection: duckdb.DuckDBPyConnection, compiled: Compiled, policy: Policy) -> None:
    """Images whose prompts hold a denied word, those of the steps before them too."""
    if not policy.prompts.deny:
        return
    insert = (
        f"INSERT INTO temp.facts SELECT request_id, {compiled.denied}, NULL, 'Infinity'::DOUBLE "
        f"FROM {REQUESTS} "
    )
    plain = (
        "recipe IS NULL OR ((recipe -> '$.earlier') IS NULL "
        "AND coalesce(recipe ->> '$.prompt_syntax', 'plain') = 'plain')"
    )
    result = connection.execute(f"SELECT DISTINCT prompt FROM {REQUESTS} WHERE {plain}")
    denied: list[str] = []
    while rows := result.fetchmany(_CHUNK):
        denied += denied_in(policy.prompts.deny, [prompt for (prompt,) in rows])
    if denied:
        keep(connection, "denied", text_table(prompt=denied))
        connection.execute(f"{insert} SEMI JOIN temp.denied USING (prompt) WHERE {plain}")
    chained = connection.execute(
        f"SELECT * EXCLUDE (milliseconds, recorded_at, expires) FROM {REQUESTS} WHERE NOT ({plain})"
    ).to_arrow_reader(_CHUNK)
    held = [
        row["request_id"]
        for batch in chained
        for row in batch.to_pylist()
        if prompt_refusals(policy, request_of_row(row))
    ]
    if held:
        keep(connection, "denied", text_table(request_id=held))
        connection.execute(f"{insert} SEMI JOIN temp.denied USING (request_id)")


def request_of_row(row: Mapping[str, Any]) -> Request:
    """A request from its row of raw.requests, JSON columns as text."""
    terms, recipe = (json.loads(row[name]) if row[name] else {} for name in ("terms", "recipe"))
    return request_from_json({**row, "terms": terms, **recipe})
