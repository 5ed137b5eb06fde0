"""Judges everything catalogued under a policy in SQL, into one table of what does not just pass.

A part of catalog/replay.py. One scan of the scores counts them by name, one keeps the rows that
break a bound; only those, and what did not pass before, are joined with anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalog.replay_facts import make_facts, note_denied, note_licences, note_missing, note_scores
from catalog.replay_judged import REQUESTS, Group, any_row, count, define_judged, groups_of, quoted
from catalog.replay_sql import Compiled, Word, compile_policy
from pipeline.policy_model import Policy

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

JUDGED = "temp.judged"
"""The images that did not pass before or do not pass now. Columns: request_id, attempt, sku, index,
campaign, was and now (0 pass, 1 review, 2 block), severity (0..3), beyond (the bound, in parts of
it), approved (a review cleared it), w0, w1 … (what each word of the policy says, or NULL)."""


@dataclass(frozen=True)
class Evaluation:
    """What came out, beside the table `JUDGED`. `missing`: images without a needed score."""

    compiled: Compiled
    judged: int
    groups: tuple[Group, ...]
    missing: Mapping[str, int]


def evaluate(
    connection: duckdb.DuckDBPyConnection, policy: Policy, wanted: pa.Table | None = None
) -> Evaluation:
    """Judges the requests of `wanted` (column request_id), or all, on a connection of their own.

    Leaves the tables and views named above in the connection. Nothing is written to the catalog.
    """
    define_judged(connection, wanted)
    judged, hashes = count(connection)
    groups = groups_of(connection)
    compiled = compile_policy(policy, list(dict.fromkeys(group.pair for group in groups)))
    make_facts(connection)
    note_scores(connection, compiled)
    missing = note_missing(connection, compiled, groups, judged, hashes)
    note_licences(connection, compiled, policy)
    note_denied(connection, compiled, policy)
    _note_verdicts_before(connection)
    _judge(connection, compiled)
    return Evaluation(compiled, judged, tuple(groups), missing)


def _note_verdicts_before(connection: duckdb.DuckDBPyConnection) -> None:
    """What did not pass so far, by the verdict that counts."""
    if not any_row(connection, "raw.replayed_verdicts"):
        left = "ANTI JOIN temp.left_out USING (request_id, attempt)"
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE before AS SELECT request_id, {_CODE} AS was "
            f"FROM (FROM raw.verdicts WHERE outcome <> 'pass') {left}"
        )
        return
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE suspects AS SELECT DISTINCT request_id FROM ("
        "SELECT request_id FROM raw.verdicts WHERE outcome <> 'pass' UNION ALL "
        "SELECT request_id FROM raw.replayed_verdicts WHERE outcome <> 'pass')"
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE before AS SELECT request_id, {_CODE} AS was FROM ("
        "SELECT request_id, attempt, outcome, decided_at, replay_id FROM raw.replayed_verdicts "
        "SEMI JOIN temp.suspects USING (request_id) UNION ALL "
        "SELECT request_id, attempt, outcome, NULL, NULL FROM raw.verdicts "
        f"SEMI JOIN temp.suspects USING (request_id)) SEMI JOIN {REQUESTS} "
        "USING (request_id, attempt) QUALIFY row_number() OVER (PARTITION BY request_id "
        "ORDER BY decided_at DESC NULLS LAST, replay_id) = 1"
    )
    connection.execute("DELETE FROM temp.before WHERE was = 0")


_CODE = "CASE outcome WHEN 'block' THEN 2 WHEN 'review' THEN 1 ELSE 0 END"


def _judge(connection: duckdb.DuckDBPyConnection, compiled: Compiled) -> None:
    """All facts of an image together, beside what was said of it before: the table JUDGED."""
    there = {
        row[0] for row in connection.execute("SELECT DISTINCT fact FROM temp.facts").fetchall()
    }
    words = [
        f"{'NULL::INTEGER' if word.facts.isdisjoint(there) else word.sql} AS w{number}"
        for number, word in enumerate(compiled.words)
    ]
    # Terms are JSON, which takes long to read: only where a rule for some channels speaks.
    for_some = [
        f"either.w{number} > 0"
        for number, word in enumerate(compiled.words)
        if word.rule and word.rule.channels
    ]
    terms = "CASE WHEN t.request_id IS NULL THEN r.terms ELSE t.terms END -> '$.channels'"
    channels = f"CASE WHEN {' OR '.join(for_some)} THEN ({terms})::VARCHAR END"
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE candidates AS "
        f"WITH spoken AS (SELECT request_id, {', '.join(words)}, max(beyond) AS beyond "
        "FROM temp.facts GROUP BY request_id), "
        "either AS (FROM spoken FULL JOIN temp.before USING (request_id)) "
        'SELECT r.request_id, r.attempt, r.sku, r."index", r.campaign, '
        f"{channels if for_some else 'NULL'} AS channels, "
        f"either.* EXCLUDE (request_id) FROM {REQUESTS} AS r JOIN either USING (request_id) "
        + ("LEFT JOIN raw.latest_terms AS t USING (request_id)" if for_some else "")
    )
    said = [
        f"CASE WHEN c.w{number} > 0 AND {_speaks(word, number)} THEN c.w{number} END AS w{number}"
        for number, word in enumerate(compiled.words)
    ]
    _channels(connection, compiled)
    names = [f"w{number}" for number in range(len(words))]
    severities = [
        f"CASE WHEN w{number} = now THEN {word.severity} END"
        for number, word in enumerate(compiled.words)
    ]
    asked = [
        f"CASE WHEN w{number} = 1 THEN {quoted(word.name)} END"
        for number, word in enumerate(compiled.words)
    ] or ["NULL"]
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE judged AS WITH said AS (SELECT c.* EXCLUDE "
        f"(channels, {', '.join(names)}), {', '.join(said)} FROM temp.candidates AS c "
        "JOIN temp.spoken_of AS m ON m.channels IS NOT DISTINCT FROM c.channels), "
        f"judged AS (SELECT * REPLACE (coalesce(was, 0) AS was), "
        f"coalesce(greatest({', '.join(names)}), 0) AS now, "
        f"list_filter([{', '.join(asked)}], lambda one: one IS NOT NULL) AS asked FROM said) "
        "SELECT judged.* EXCLUDE (asked), "
        f"coalesce(greatest({', '.join(severities)}), 0) AS severity, "
        # As in raw.decisions: an approval holds for the rules that it was given for.
        "a.request_id IS NOT NULL AS approved, coalesce(list_has_all(a.rules, asked), false) "
        "AS holds FROM judged LEFT JOIN (SELECT request_id, rules FROM raw.decisions "
        "WHERE approval_holds) AS a USING (request_id) WHERE was > 0 OR now > 0"
    )


def _speaks(word: Word, number: int) -> str:
    return f"m.s{number}" if word.rule and word.rule.channels else "true"


def _channels(connection: duckdb.DuckDBPyConnection, compiled: Compiled) -> None:
    """Which words speak of images with these channels, as the rules themselves say."""
    found = connection.execute("SELECT DISTINCT channels FROM temp.candidates").fetchall()
    rules = {
        f"s{number}": word.rule
        for number, word in enumerate(compiled.words)
        if word.rule and word.rule.channels
    }
    columns = ", ".join(["channels VARCHAR", *(f"{name} BOOLEAN" for name in rules)])
    connection.execute(f"CREATE OR REPLACE TEMP TABLE spoken_of ({columns})")
    marks = ", ".join("?" for _ in range(len(rules) + 1))
    for (text,) in found:
        channels = [str(each) for each in (json.loads(text) if text else None) or ()]
        speaks = [rule.speaks_of(channels) for rule in rules.values()]
        connection.execute(f"INSERT INTO temp.spoken_of VALUES ({marks})", [text, *speaks])
