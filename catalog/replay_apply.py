"""Records a replay: new verdicts beside the old ones, which stay as history.

After catalog/replay.py, which only asks. Images that pass now wait unsigned in the view `to_sign`
until catalog/release_queue.py signs them.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog.lake import Lake
from catalog.ledger import append_table
from catalog.replay import Replay, named, summary
from catalog.replay_evaluate import JUDGED, Evaluation, evaluate
from catalog.replay_judged import REQUESTS
from catalog.replay_reasons import decided
from catalog.rows import arrow, verdict_row
from catalog.write import insert_row, register_policy
from pipeline.policy_model import Policy
from pipeline.records import Verdict

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Applied:
    """A recorded replay: its id, what it changed, and how many images now wait to be signed."""

    replay_id: str
    replay: Replay
    to_sign: int


def apply(lake: Lake, policy: Policy, replay: Replay, by: str) -> Applied:
    """Judges again what `replay` was asked about and records it all in one transaction.

    All images get a verdict, with reasons as `decide` writes them where it is not `pass`; packs
    that were delivered stay as they are and are told in the result. Images made meanwhile keep
    their verdicts. Raises ValueError when `replay` was of another policy.
    """
    if replay.digest != policy.digest:
        raise ValueError(f"the replay is of policy {replay.digest[:12]}, not {policy.digest[:12]}")
    register_policy(
        lake,
        digest=policy.digest,
        name=policy.policy,
        version=policy.version,
        text=policy.text,
    )
    wanted = None if replay.where is None else named(lake.folder, replay.where)
    key = {
        "replay_id": str(uuid.uuid4()),
        "policy": policy.policy,
        "policy_version": policy.version,
        "policy_digest": policy.digest,
    }
    with lake.alone() as connection:
        # Every query sees a snapshot of its own: what a run commits from here on is not judged.
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE pinned AS "
            "SELECT request_id, attempt FROM raw.images WHERE state = 'done'"
        )
        found = evaluate(connection, policy, wanted)
        told = summary(connection, policy, replay.where, found, {}, len(replay.first))
        _decide(connection, policy, found)
        row = {
            **key,
            "where": replay.where,
            "judged": told.judged,
            "changed": told.changed,
            "applied_by": by,
            "applied_at": datetime.now(UTC),
        }
        _say(connection, row)
        lake.transact(lambda connection: _record(connection, row))
        return Applied(key["replay_id"], told, _to_sign(connection))


def _decide(connection: duckdb.DuckDBPyConnection, policy: Policy, found: Evaluation) -> None:
    """The verdicts that are not just `pass`, in full, in the temporary table `decisions`."""
    now = datetime.now(UTC)

    def keep(rows: list[dict[str, Any]], into: str) -> None:
        connection.register("incoming", arrow("verdicts", rows))
        try:
            connection.execute(into)
        finally:
            connection.unregister("incoming")

    keep([], "CREATE OR REPLACE TEMP TABLE decisions AS SELECT * FROM incoming")
    rows: list[dict[str, Any]] = []
    held = (
        f"(SELECT request_id, attempt FROM {REQUESTS} "
        f"SEMI JOIN (FROM {JUDGED} WHERE now > 0) USING (request_key, attempt))"
    )
    for request_id, attempt, verdict in decided(connection, policy, found.sets, held):
        rows.append(_row(request_id, attempt, verdict, now))
        if len(rows) == _AT_ONCE:
            keep(rows, "INSERT INTO temp.decisions SELECT * FROM incoming")
            rows = []
    keep(rows, "INSERT INTO temp.decisions SELECT * FROM incoming")


_AT_ONCE = 10_000


def _row(request_id: str, attempt: str, verdict: Verdict, now: datetime) -> dict[str, Any]:
    key = {"request_id": request_id, "attempt": attempt}
    return {**key, **verdict_row(verdict), "decided_at": now}


def _say(connection: duckdb.DuckDBPyConnection, row: dict[str, Any]) -> None:
    """All verdicts of the replay, in the temporary table `said`."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE said AS SELECT $replay_id AS replay_id, * REPLACE ("
        "$at AS decided_at) FROM (SELECT request_id, attempt, 'pass' AS outcome, "
        "$policy AS policy, $policy_version AS policy_version, $policy_digest AS policy_digest, "
        f"[] AS reasons, NULL::TIMESTAMPTZ AS decided_at FROM {REQUESTS} "
        "SEMI JOIN temp.pinned USING (request_id, attempt) "
        "ANTI JOIN temp.decisions USING (request_id) "
        "UNION ALL BY NAME SELECT * FROM temp.decisions "
        "SEMI JOIN temp.pinned USING (request_id, attempt))",
        {name: row[name] for name in ("replay_id", "policy", "policy_version", "policy_digest")}
        | {"at": row["applied_at"]},
    )


def _record(connection: duckdb.DuckDBPyConnection, row: dict[str, Any]) -> None:
    append_table(connection, "replayed_verdicts", "temp.said")
    insert_row(connection, "replays", row)


def _to_sign(connection: duckdb.DuckDBPyConnection) -> int:
    """How many of the images that pass now wait to be signed, as the view `to_sign` has them."""
    ((count,),) = connection.execute(
        "SELECT count(*) FROM raw.images AS r "
        f"SEMI JOIN (FROM {JUDGED} WHERE was > 0 AND now = 0) USING (request_key, attempt) "
        "ANTI JOIN (SELECT request_id FROM raw.later_files WHERE state = 'signed') "
        "USING (request_id) ANTI JOIN (SELECT request_id FROM reviews "
        "WHERE counts AND decision = 'reject') USING (request_id) "
        "WHERE r.asset_state = 'quarantined'"
    ).fetchall()
    return int(count)
