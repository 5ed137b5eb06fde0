"""Rows of renditions: the file and its recipe, and its manifest among those of all signed files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from catalog.rows import arrow, text_table
from catalog.verified import SDK
from catalog.write import insert_table

if TYPE_CHECKING:
    import duckdb


def insert_renditions(
    connection: duckdb.DuckDBPyConnection,
    rows: Sequence[Mapping[str, Any]],
    now: datetime,
) -> None:
    """Appends renditions made at `now`, each with its manifest `store` (bytes), in a transaction.

    The other names are the columns of raw.renditions; a manifest is kept once, in raw.manifests.
    """
    import pyarrow as pa

    connection.register("wanted", text_table(request_id=[row["request_id"] for row in rows]))
    try:
        attempts = dict(
            connection.execute(
                "SELECT request_id, attempt FROM raw.current SEMI JOIN wanted USING (request_id)"
            ).fetchall()
        )
    finally:
        connection.unregister("wanted")
    sdk = version(SDK)
    kept = [
        {name: value for name, value in row.items() if name != "store"}
        | {"sdk": sdk, "made_at": now}
        for row in rows
    ]
    stores = [
        {
            "request_id": row["request_id"],
            "attempt": attempts[row["request_id"]],
            "asset_sha256": row["sha256"],
            "label": row["label"],
            "certificate": row["certificate"],
            "manifest": row["store"],
            "recorded_at": now,
        }
        for row in rows
    ]
    insert_table(connection, "renditions", pa.Table.from_pylist(kept))
    insert_table(connection, "manifests", arrow("manifests", stores))
