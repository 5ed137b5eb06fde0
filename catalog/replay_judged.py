"""What a replay judges: images that were made, with their scores as last measured, as one view.

A part of catalog/replay_evaluate.py, and of catalog/rescore.py, which asks what lacks.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from catalog.replay_sql import Measured, Pair, quoted
from pipeline.errors import SetupError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

REQUESTS = "temp.judged_requests"
"""Rows of raw.images that were made and count, with the score set and the outcome that count."""
LATER = "temp.said_later"
"""The rows of raw.since with what a replay asks of them, as one look at the catalog found them."""


@dataclass(frozen=True)
class Group:
    """Scores of one name by one detector, and how many images have them."""

    pair: Pair
    detector: str | None
    revision: str | None
    images: int


@dataclass(frozen=True)
class ScoreSets:
    """The signatures of the judged images, and how many images have each."""

    signatures: Mapping[str, tuple[Measured, ...]]
    images: Mapping[str, int]

    @property
    def judged(self) -> int:
        """How many images there are."""
        return sum(self.images.values())

    @property
    def groups(self) -> tuple[Group, ...]:
        """All scores by name and detector."""
        counts: dict[Measured, int] = {}
        for signature, scores in self.signatures.items():
            for each in set(scores):
                counts[each] = counts.get(each, 0) + self.images[signature]
        found = [Group(each.pair, each.detector, each.revision, n) for each, n in counts.items()]
        return tuple(
            sorted(found, key=lambda each: (each.pair, each.detector or "", each.revision or ""))
        )


def define_judged(connection: duckdb.DuckDBPyConnection, wanted: pa.Table | None) -> ScoreSets:
    """Makes the view REQUESTS and the table LATER, with as few joins as the content allows.

    `wanted` has the ids (column request_id) of those that are judged; None: all of them. Columns
    are those of raw.images; `outcome` is the last verdict's. Images of which something
    was erased cannot be judged again: they keep their verdicts.
    """
    _spill_elsewhere(connection)
    source, replaced = "raw.images AS r", []
    if wanted is not None:
        keep(connection, "wanted", wanted)
        source += " SEMI JOIN temp.wanted AS w ON w.request_id = r.request_id"
    for table, rows in (
        ("left_out", "SELECT request_key, attempt FROM raw.superseded"),
        ("measured_again", "SELECT * EXCLUDE (request_id) FROM raw.latest_rescored"),
        (
            "said_later",
            "SELECT request_key, replayed, outcome, reasons, renewed, terms, asset_state, rules, "
            "approval_holds FROM raw.since "
            "WHERE replayed OR renewed OR approval_holds OR asset_state IS NOT NULL",
        ),
    ):
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {rows}")
    if any_row(connection, "temp.left_out"):
        source += _joined("ANTI", "left_out", "o")
    if any_row(connection, "temp.measured_again"):
        source += _joined("LEFT", "measured_again", "m")
        replaced += [
            f"coalesce(m.{name}, r.{name}) AS {name}"
            for name in ("signature", '"values"', "evidence")
        ]
    if any_row(connection, f"(FROM {LATER} WHERE replayed)"):
        source += f" LEFT JOIN {LATER} AS j ON j.request_key = r.request_key"
        replaced.append("coalesce(j.outcome, r.outcome) AS outcome")
    kept = ""
    if any_row(connection, "raw.ledger_erasures"):
        # Not by looking for what is gone: reading all evidence would take ten times as long.
        kept = (
            " AND left(r.request_id, 12) NOT IN "
            "(SELECT row_key FROM raw.ledger_erasures WHERE table_name = 'images')"
        )
    columns = f"r.* REPLACE ({', '.join(replaced)})" if replaced else "r.*"
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW judged_requests AS SELECT {columns} FROM {source} "
        f"WHERE r.state = 'done'{kept}"
    )
    return _score_sets(connection)


def _joined(kind: str, table: str, alias: str) -> str:
    return (
        f" {kind} JOIN temp.{table} AS {alias} "
        f"ON {alias}.request_key = r.request_key AND {alias}.attempt = r.attempt"
    )


def _score_sets(connection: duckdb.DuckDBPyConnection) -> ScoreSets:
    images = dict(
        connection.execute(
            f"SELECT signature, count(*) FROM {REQUESTS} GROUP BY signature ORDER BY signature"
        ).fetchall()
    )
    known = connection.execute(
        "SELECT signature, any_value(scores) FROM raw.signatures GROUP BY signature"
    ).fetchall()
    if lost := images.keys() - {signature for signature, _ in known}:
        raise SetupError(
            f"the catalog does not say which scores {sum(images[each] for each in lost):,} images "
            f"have (raw.signatures lacks {', '.join(sorted(lost)[:5])}): restore it from a backup"
        )
    signatures = {
        signature: tuple(
            Measured((each["check_name"], each["name"]), each["detector"], each["revision"])
            for each in scores
        )
        for signature, scores in known
        if signature in images
    }
    return ScoreSets(signatures, images)


def _spill_elsewhere(connection: duckdb.DuckDBPyConnection) -> None:
    """DuckDB would spill into the working directory; it cannot be told otherwise once it has."""
    spill = str(Path(tempfile.gettempdir()) / f"platemark-replay-{os.getpid()}")
    ((current,),) = connection.execute("SELECT current_setting('temp_directory')").fetchall()
    if current != spill:
        connection.execute(f"SET temp_directory = {quoted(spill)}")


def near(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    """A condition on `attempt` that the rows of `table` fulfil, for tables that have it too.

    Attempts sort by time, as rows do: with it whole files are skipped that a join alone would read.
    """
    rows = connection.execute(
        f"SELECT DISTINCT attempt FROM {table} ORDER BY attempt LIMIT {_LISTED + 1}"
    ).fetchall()
    if len(rows) <= _LISTED:
        return f"attempt IN ({', '.join(quoted(row[0]) for row in rows) or 'NULL'})"
    ((first, last),) = connection.execute(
        f"SELECT min(attempt), max(attempt) FROM {table}"
    ).fetchall()
    return f"attempt BETWEEN {quoted(first)} AND {quoted(last)}"


_LISTED = 200


def keep(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    """An Arrow table as the temporary table of that name."""
    connection.register("incoming", table)
    try:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM incoming")
    finally:
        connection.unregister("incoming")


def any_row(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    """Whether the table has a row."""
    return connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is not None
