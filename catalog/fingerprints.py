"""The index that finds records again: soft bindings out of stored manifests, a row a signed file.

Filled from the manifests themselves, so it can be made anew at any time, for images of any age.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from catalog.lake import Lake
from catalog.write import insert_table
from pipeline.checks.pdq import pdq_bits
from pipeline.soft_binding.assertion import bindings_of
from pipeline.soft_binding.fingerprint import ISCC, MIDDLE, PDQ
from pipeline.soft_binding.watermarks import BY_ALGORITHM

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_AT_ONCE = 1_000
_LATE = timedelta(hours=1)
"""Commits that waited for other writers bear an earlier time than what was indexed before them."""
_WORDS = range(4)

_PENDING = """
    SELECT {what} FROM raw.manifests AS m
    WHERE recorded_at >= $since AND manifest IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM fingerprints AS f WHERE f.label = m.label AND f.recorded_at >= $since)
"""


def index_signed(lake: Lake) -> int:
    """Index every signed file that is not indexed yet; returns how many were added.

    A thousand a transaction; what another process indexed meanwhile is recognised.
    """
    added = 0
    while True:
        since = _since(lake)
        rows = lake.rows(
            _PENDING.format(what="request_id, asset_sha256, label, manifest, recorded_at")
            + f"ORDER BY recorded_at, label LIMIT {_AT_ONCE}",
            {"since": since},
        )
        if not rows:
            return added
        table = fingerprint_rows(rows)

        def append(
            connection: duckdb.DuckDBPyConnection,
            table: pa.Table = table,
            since: datetime = since,
        ) -> int:
            return _append(connection, table, since)

        added += lake.transact(append)


def unindexed(lake: Lake) -> int:
    """How many signed files are not indexed yet, and so cannot be found by what they look like."""
    (row,) = lake.rows(_PENDING.format(what="count(*) AS files"), {"since": _since(lake)})
    return int(row["files"])


def fingerprint_rows(signed: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows of raw.fingerprints for rows of the view manifests, each read from its manifest.

    A manifest that cannot be read, or declares no soft binding, has a row without any.
    """
    import pyarrow as pa

    key = ("request_id", "asset_sha256", "label")
    rows = [
        {name: one[name] for name in key}
        | _values(bytes(one["manifest"]))
        | {"recorded_at": one["recorded_at"]}
        for one in signed
    ]
    hashes = [f"{part}_{word}" for part in ("pdq", "middle") for word in _WORDS]
    columns = {
        **dict.fromkeys(key, pa.string()),
        **dict.fromkeys(("watermark", *hashes), pa.uint64()),
        "iscc": pa.string(),
        "recorded_at": pa.timestamp("us", tz="UTC"),
    }
    return pa.Table.from_pylist(rows, schema=pa.schema(list(columns.items())))


def _values(manifest: bytes) -> dict[str, Any]:
    try:
        bindings = bindings_of(manifest)
    except ValueError:
        return {}
    found: dict[str, Any] = {}
    for each in bindings:
        try:
            if watermark := BY_ALGORITHM.get(each.alg):
                found["watermark"] = watermark.payload_in(each.value)
            elif each.alg == PDQ and each.part in (None, MIDDLE):
                part = "middle" if each.part else "pdq"
                words = pdq_bits(each.value)
                found |= {f"{part}_{word}": int(words[word]) for word in _WORDS}
            elif each.alg == ISCC:
                found["iscc"] = each.value
        # A value that is no value of its algorithm: the file is found by its others.
        except ValueError:
            continue
    return found


def _since(lake: Lake) -> datetime:
    (row,) = lake.rows("SELECT max(recorded_at) AS last FROM fingerprints")
    last = row["last"]
    return last - _LATE if last else datetime(1970, 1, 1, tzinfo=UTC)


def _append(connection: duckdb.DuckDBPyConnection, table: pa.Table, since: datetime) -> int:
    known = connection.execute(
        "SELECT label FROM raw.fingerprints WHERE recorded_at >= ?", [since]
    ).fetchall()
    labels = {label for (label,) in known}
    fresh = table.filter([label not in labels for label in table.column("label").to_pylist()])
    if fresh.num_rows:
        insert_table(connection, "fingerprints", fresh)
    return int(fresh.num_rows)
