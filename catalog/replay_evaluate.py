"""Judges everything catalogued under a policy in SQL, into one table of what does not just pass.

A part of catalog/replay.py. One scan over the images' rows says it all; nothing is joined but what
some images have and most have not: new terms, reviews.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalog.replay_facts import denied, unlicensed
from catalog.replay_judged import LATER, REQUESTS, ScoreSets, any_row, define_judged
from catalog.replay_sql import Compiled, compile_policy, has, quoted
from pipeline.policy_model import Policy

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

JUDGED = "temp.judged"
"""The images that did not pass before, or of which a word may speak. Columns: request_key, attempt,
campaign, was and now (0 pass, 1 review, 2 block), severity (0..3), beyond (the bound, in parts of
it), approved (a review cleared it), holds (and clears what the policy asks now), w0, w1 … (what
each word of the policy says, or NULL)."""


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
    facts = (
        f"SELECT *, ({unlicensed(connection, policy)}) AS unlicensed, "
        f"({denied(connection, policy)}) AS denied FROM {REQUESTS}"
    )
    if any_row(connection, f"(FROM {LATER} WHERE renewed)"):
        facts = (
            "SELECT f.* REPLACE (CASE WHEN t.renewed THEN t.terms ELSE f.terms END AS terms) "
            f"FROM ({facts}) AS f LEFT JOIN {LATER} AS t ON t.request_key = f.request_key"
        )
    _judge(connection, compiled, facts)
    return Evaluation(compiled, sets)


_CODE = "CASE outcome WHEN 'block' THEN 2 WHEN 'review' THEN 1 ELSE 0 END"
# Terms are JSON, which takes long to read: asked of few.
_CHANNELS = "coalesce((terms -> '$.channels')::VARCHAR, '')"


def _judge(connection: duckdb.DuckDBPyConnection, compiled: Compiled, facts: str) -> None:
    """What the words say of each image of `facts`, beside what was said before: the table JUDGED.

    In one scan; words are asked only of images that did not pass so far, or that one may speak of.
    """
    spoken = _spoken_words(connection, compiled)
    words = [f"w{number}" for number in range(len(spoken))]
    columns = [f"({sql})::TINYINT AS {name}" for name, sql in zip(words, spoken, strict=True)]
    severities = [
        f"CASE WHEN {name} = now THEN {word.severity} END"
        for name, word in zip(words, compiled.words, strict=True)
    ]
    asked = [
        f"CASE WHEN {name} = 1 THEN {quoted(word.name)} END"
        for name, word in zip(words, compiled.words, strict=True)
    ]
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE judged AS "
        f"SELECT j.*, coalesce(greatest({', '.join(severities)}), 0)::TINYINT AS severity, "
        # As in raw.since: an approval holds for the rules that it was given for.
        "coalesce(a.approval_holds, false) AS approved, CASE WHEN a.approval_holds THEN "
        f"coalesce(list_has_all(a.rules, list_filter([{', '.join(asked)}], "
        "lambda one: one IS NOT NULL)), false) ELSE false END AS holds "
        f"FROM (SELECT *, coalesce(greatest({', '.join(words)}), 0) AS now FROM ("
        f"SELECT request_key, attempt, campaign, ({_CODE})::TINYINT AS was, "
        f"{compiled.beyond} AS beyond, {', '.join(columns)} FROM ({facts}) "
        f"WHERE outcome <> 'pass' OR {compiled.speaks})) AS j "
        f"LEFT JOIN (FROM {LATER} WHERE approval_holds) AS a USING (request_key)"
    )


def _spoken_words(connection: duckdb.DuckDBPyConnection, compiled: Compiled) -> list[str]:
    """The SQL of all words; of those for some channels, where the rules themselves say so."""
    if not any(word.rule and word.rule.channels for word in compiled.words):
        return [word.sql for word in compiled.words]
    # Also terms that no longer count: to find them out would take longer.
    found = connection.execute(
        f"SELECT DISTINCT {_CHANNELS} FROM (SELECT DISTINCT terms FROM raw.images "
        f"UNION ALL SELECT DISTINCT terms FROM {LATER})"
    ).fetchall()
    named = {text: [str(each) for each in json.loads(text or "[]") or ()] for (text,) in found}
    spoken = []
    for word in compiled.words:
        if word.rule and word.rule.channels:
            meant = [text for text, names in named.items() if word.rule.speaks_of(names)]
            there = f"{_CHANNELS} IN ({', '.join(map(quoted, meant)) or 'NULL'})"
            spoken.append(f"CASE WHEN ({word.sql}) > 0 AND {there} THEN {word.sql} END")
        else:
            spoken.append(word.sql)
    return spoken
