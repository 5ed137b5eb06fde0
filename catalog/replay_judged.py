"""What a replay judges: requests that were made, and their scores as last measured, as views.

A part of catalog/replay_evaluate.py, and of catalog/rescore.py, which asks what lacks.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from catalog.replay_sql import Pair

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

REQUESTS, SCORES = "temp.judged_requests", "temp.judged_scores"
"""Rows of raw.requests that were made and count, and their rows of raw.scores or raw.rescores."""


DETECTOR = "coalesce(detector, evidence ->> '$.detector')"
REVISION = "coalesce(revision, evidence ->> '$.weights_sha256', evidence ->> '$.revision')"
"""Whose score it is; catalogs of earlier versions have it in the evidence alone."""


@dataclass(frozen=True)
class Group:
    """Scores of one name by one detector: how many, and the sum of their images' hashes."""

    pair: Pair
    detector: str | None
    revision: str | None
    images: int
    hashes: int


def define_judged(connection: duckdb.DuckDBPyConnection, wanted: pa.Table | None) -> None:
    """The views of what is judged, with as few joins as the catalog's content allows."""
    _spill_elsewhere(connection)
    asked = ""
    if wanted is not None:
        keep(connection, "wanted", wanted)
        asked = "SEMI JOIN temp.wanted USING (request_id) "
    # A request with several attempts, or whose attempt failed, is looked at one by one.
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE left_out AS WITH tried AS (SELECT request_id, attempt, state "
        "FROM raw.requests WHERE hash(request_id) IN (SELECT hash(request_id) FROM raw.requests "
        "GROUP BY 1 HAVING count(*) > 1 OR bool_or(state <> 'done'))), "
        "counts AS (SELECT request_id, "
        "coalesce(min(attempt) FILTER (state = 'done'), max(attempt)) AS attempt FROM tried "
        "GROUP BY request_id) SELECT t.request_id, t.attempt FROM tried AS t "
        "JOIN counts AS c USING (request_id) WHERE t.attempt <> c.attempt OR t.state <> 'done'"
    )
    if any_row(connection, "temp.left_out"):
        asked += "ANTI JOIN temp.left_out USING (request_id, attempt) "
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW judged_requests AS SELECT * FROM raw.requests {asked}"
    )
    columns = "request_id, attempt, check_name, name, value, detector, revision, evidence"
    scores = f"SELECT {columns} FROM raw.scores {asked}"
    if any_row(connection, "raw.rescores"):
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE rescored AS SELECT DISTINCT check_name, name "
            "FROM raw.rescores"
        )
        again = f"SELECT {columns} FROM raw.latest_rescores {asked}"
        names = "(check_name, name) IN (SELECT (check_name, name) FROM temp.rescored)"
        scores = (
            f"{scores} WHERE NOT {names} UNION ALL SELECT {columns} FROM (SELECT * FROM raw.scores "
            f"WHERE {names}) ANTI JOIN raw.rescores USING (request_id, attempt, check_name, name) "
            f"{asked} UNION ALL {again}"
        )
    connection.execute(f"CREATE OR REPLACE TEMP VIEW judged_scores AS {scores}")


def _spill_elsewhere(connection: duckdb.DuckDBPyConnection) -> None:
    """DuckDB would spill into the working directory; it cannot be told otherwise once it has."""
    spill = str(Path(tempfile.gettempdir()) / f"platemark-replay-{os.getpid()}")
    ((current,),) = connection.execute("SELECT current_setting('temp_directory')").fetchall()
    if current != spill:
        connection.execute(f"SET temp_directory = {quoted(spill)}")


def count(connection: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """How many images are judged, and the sum of their ids' hashes."""
    ((images, hashes),) = connection.execute(
        f"SELECT count(*), coalesce(sum(hash(request_id)), 0) FROM {REQUESTS}"
    ).fetchall()
    return images, hashes


def groups_of(connection: duckdb.DuckDBPyConnection) -> list[Group]:
    """All scores by name and detector."""
    # Reading the evidence of all scores would take longer than all else.
    rows = [
        row
        for recorded, detector, revision in (
            ("IS NOT NULL", "detector", "revision"),
            ("IS NULL", DETECTOR, REVISION),
        )
        for row in connection.execute(
            f"SELECT check_name, name, {detector}, {revision}, count(*), sum(hash(request_id)) "
            f"FROM {SCORES} WHERE detector {recorded} GROUP BY ALL"
        ).fetchall()
    ]
    groups: dict[tuple[Pair, str | None, str | None], tuple[int, int]] = {}
    for check, name, detector, revision, images, hashes in rows:
        key = ((check, name), detector, revision)
        before = groups.get(key, (0, 0))
        groups[key] = (before[0] + images, before[1] + hashes)
    found = [Group(*key, *sums) for key, sums in groups.items()]
    return sorted(found, key=lambda each: (each.pair, each.detector or "", each.revision or ""))


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


def quoted(value: str) -> str:
    """Text as a literal of SQL."""
    return "'" + value.replace("'", "''") + "'"
