"""Judges everything catalogued under a policy in SQL, into one table of what does not just pass.

A part of catalog/replay.py. One scan over the images' rows says it all; nothing is joined but what
some images have and most have not: new terms, reviews.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalog.replay_facts import denied, unlicensed
from catalog.replay_judged import REQUESTS, ScoreSets, any_row, define_judged
from catalog.replay_sql import Compiled, Word, compile_policy, has, quoted
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
    """What came out, beside the table `JUDGED`."""

    compiled: Compiled
    sets: ScoreSets

    @property
    def missing(self) -> dict[str, int]:
        """How many images lack each score that some rule needs."""
        counts: dict[str, int] = {}
        for need, _ in self.compiled.needs:
            without = sum(
                self.sets.images[signature]
                for signature, scores in self.sets.signatures.items()
                if not has(need, scores)
            )
            if without:
                counts[need.name] = max(without, counts.get(need.name, 0))
        return counts


def evaluate(
    connection: duckdb.DuckDBPyConnection, policy: Policy, wanted: pa.Table | None = None
) -> Evaluation:
    """Judges the requests of `wanted` (column request_id), or all, on a connection of their own.

    Leaves the tables and views named above in the connection. Nothing is written to the catalog.
    """
    sets = define_judged(connection, wanted)
    compiled = compile_policy(policy, sets.signatures)
    _find_candidates(
        connection, compiled, unlicensed(connection, policy), denied(connection, policy)
    )
    _judge(connection, compiled)
    return Evaluation(compiled, sets)


_CODE = "CASE outcome WHEN 'block' THEN 2 WHEN 'review' THEN 1 ELSE 0 END"


def _find_candidates(
    connection: duckdb.DuckDBPyConnection, compiled: Compiled, unlicensed: str, denied: str
) -> None:
    """What did not pass so far, and what some word may speak of, with all words, unless by channel.

    Into the table `candidates`.
    """
    words = [f"{word.sql} AS w{number}" for number, word in enumerate(compiled.words)]
    # Terms are JSON, which takes long to read: only where a rule for some channels speaks.
    for_some = [
        f"c.w{number} > 0"
        for number, word in enumerate(compiled.words)
        if word.rule and word.rule.channels
    ]
    terms = "c.terms"
    joined = ""
    if for_some and any_row(connection, "raw.terms"):
        terms = "CASE WHEN t.renewed THEN t.terms ELSE c.terms END"
        joined = "LEFT JOIN raw.since AS t ON t.request_id = c.request_id"
    channels = f"CASE WHEN {' OR '.join(for_some)} THEN ({terms} -> '$.channels')::VARCHAR END"
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE candidates AS SELECT "
        f"{channels if for_some else 'NULL'} AS channels, c.* EXCLUDE (terms) FROM ("
        f'SELECT request_id, attempt, sku, "index", campaign, terms, {_CODE} AS was, '
        f"{compiled.beyond} AS beyond, {', '.join(words)} FROM ("
        f"SELECT *, ({unlicensed}) AS unlicensed, ({denied}) AS denied FROM {REQUESTS}) "
        f"WHERE outcome <> 'pass' OR {compiled.speaks}) AS c {joined}"
    )


def _judge(connection: duckdb.DuckDBPyConnection, compiled: Compiled) -> None:
    """What the words of each candidate come to, beside what was said before: the table JUDGED."""
    said = [
        f"CASE WHEN c.w{number} > 0 AND {_speaks(word, number)} THEN c.w{number} END AS w{number}"
        for number, word in enumerate(compiled.words)
    ]
    _channels(connection, compiled)
    names = [f"w{number}" for number in range(len(compiled.words))]
    severities = [
        f"CASE WHEN w{number} = now THEN {word.severity} END"
        for number, word in enumerate(compiled.words)
    ]
    asked = [
        f"CASE WHEN w{number} = 1 THEN {quoted(word.name)} END"
        for number, word in enumerate(compiled.words)
    ]
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE judged AS WITH said AS (SELECT c.* EXCLUDE "
        f"(channels, {', '.join(names)}), {', '.join(said)} FROM temp.candidates AS c "
        "JOIN temp.spoken_of AS m ON m.channels IS NOT DISTINCT FROM c.channels), "
        f"judged AS (SELECT *, coalesce(greatest({', '.join(names)}), 0) AS now, "
        f"list_filter([{', '.join(asked)}], lambda one: one IS NOT NULL) AS asked FROM said) "
        "SELECT judged.* EXCLUDE (asked), "
        f"coalesce(greatest({', '.join(severities)}), 0) AS severity, "
        # As in raw.since: an approval holds for the rules that it was given for.
        "a.request_id IS NOT NULL AS approved, coalesce(list_has_all(a.rules, asked), false) "
        "AS holds FROM judged LEFT JOIN (SELECT request_id, rules FROM raw.since "
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
