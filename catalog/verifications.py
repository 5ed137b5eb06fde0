"""What verifiers said of files, with their version: a newer one may judge an old file differently.

Written by `platemark verify --record`, asked by the question verifier-drift.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from catalog.lake import Lake
from catalog.write import insert_table
from pipeline.verify import Report


def record_verifications(lake: Lake, reports: Sequence[Report]) -> int:
    """Appends a row for each report of a file that was hashed; returns how many there were.

    Reports without a SHA-256 are left out.
    """
    import pyarrow as pa

    hashed = [each for each in reports if each.sha256]
    if not hashed:
        return 0
    now, text = datetime.now(UTC), pa.string()
    columns: dict[str, Any] = {
        "sha256": pa.array([each.sha256 for each in hashed], text),
        "state": pa.array([each.state for each in hashed], text),
        "decodes": pa.array([each.decodes for each in hashed], pa.bool_()),
        "trust_list": pa.array([each.trust_list for each in hashed], text),
        "verifier": pa.array([each.verifier for each in hashed], text),
        "verified_at": pa.array([now] * len(hashed), pa.timestamp("us", tz="UTC")),
    }
    table = pa.table(columns)
    lake.transact(lambda connection: insert_table(connection, "verifications", table))
    return len(hashed)
