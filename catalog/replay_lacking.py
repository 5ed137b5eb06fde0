"""Which images lack a score that a policy needs, or have it from other weights than today's.

A part of catalog/rescore.py, beside catalog/replay_evaluate.py, whose pieces it uses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from catalog.replay_judged import REQUESTS, define_judged, keep
from catalog.replay_sql import compile_policy, has
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
    import pyarrow as pa

    sets = define_judged(connection, wanted)
    compiled = compile_policy(policy, sets.signatures)
    rows = []
    for signature, scores in sets.signatures.items():
        checks = {
            check
            for (need, _), check in zip(compiled.needs, compiled.checks, strict=True)
            if not has(need, scores)
        }
        for each in scores:
            today = expected.get(".".join(each.pair).partition("@")[0])
            needed = any(each.pair in pairs for _, pairs in compiled.needs)
            if today and needed and each.revision not in today:
                checks.add(each.pair[0])
        if checks:
            rows.append({"signature": signature, "checks": sorted(checks)})
    schema = pa.schema([("signature", pa.string()), ("checks", pa.list_(pa.string()))])
    keep(connection, "lacking_sets", pa.Table.from_pylist(rows, schema=schema))
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE lacking AS SELECT request_id, checks "
        f"FROM {REQUESTS} JOIN temp.lacking_sets USING (signature)"
    )
