"""Which images lack a score that a policy needs, or have it from other weights than today's.

A part of catalog/rescore.py, beside catalog/replay_evaluate.py, whose pieces it uses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from catalog.replay_facts import make_facts, note_missing
from catalog.replay_judged import DETECTOR, REVISION, SCORES, count, define_judged, groups_of
from catalog.replay_sql import compile_policy
from pipeline.policy_model import Policy

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

LACKING = "temp.lacking"
"""The table that `lacking` leaves: request_id, and the names of the checks to run, a list."""


def lacking(
    connection: duckdb.DuckDBPyConnection,
    policy: Policy,
    expected: Mapping[str, Collection[str]],
    wanted: pa.Table | None = None,
) -> None:
    """Finds the images that lack a score which some rule needs, or have it from other weights.

    Leaves the table LACKING in the connection, and the views of catalog/replay_judged.py.

    `expected` are the weights of today by `check.score`; scores that it does not name may be from
    any.
    """
    define_judged(connection, wanted)
    judged, hashes = count(connection)
    groups = groups_of(connection)
    compiled = compile_policy(policy, list(dict.fromkeys(group.pair for group in groups)))
    make_facts(connection)
    note_missing(connection, compiled, groups, judged, hashes)
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE lacks (request_id VARCHAR, check_name VARCHAR)"
    )
    for number, check in enumerate(compiled.checks):
        connection.execute(
            "INSERT INTO temp.lacks SELECT request_id, ? FROM temp.facts WHERE fact = ?",
            [check, compiled.missing(number)],
        )
    needed = {compiled.pairs[pair] for _, pairs in compiled.needs for pair in pairs}
    for group in groups:
        today = expected.get(".".join(group.pair).partition("@")[0])
        if today and group.pair in needed and group.revision not in today:
            connection.execute(
                f"INSERT INTO temp.lacks SELECT request_id, check_name FROM {SCORES} "
                f"WHERE check_name = ? AND name = ? AND {DETECTOR} IS NOT DISTINCT FROM ? "
                f"AND {REVISION} IS NOT DISTINCT FROM ?",
                [*group.pair, group.detector, group.revision],
            )
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE lacking AS SELECT request_id, "
        "list(DISTINCT check_name ORDER BY check_name) AS checks FROM temp.lacks "
        "GROUP BY request_id"
    )
