"""Appends to the catalog: runs, batches of produced images, and what they refer to.

Every function is one transaction and may be sent again: what is recorded already is recognised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog.lake import Lake
from catalog.ledger import append_rows
from catalog.rows import arrow, as_json, batch_tables, new_attempt, owed_table, terms_row
from catalog.upkeep import merge_small_files
from pipeline.brief import Refused
from pipeline.records import Produced
from pipeline.request import Request

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

MERGE_EVERY = 100
"""Batches of one process between two merges of small files."""


def start_run(
    lake: Lake,
    run_id: str,
    *,
    brief: str,
    brief_sha256: str,
    policy: str,
    policy_version: str,
    policy_digest: str,
    requested: int,
    host: str,
    device: str,
    versions: Mapping[str, str],
) -> None:
    """Records that a run began; `requested` counts the brief's images, done ones included."""
    row = {
        "run_id": run_id,
        "started_at": datetime.now(UTC),
        "host": host,
        "device": device,
        "versions": as_json(dict(versions)),
        "brief": brief,
        "brief_sha256": brief_sha256,
        "policy": policy,
        "policy_version": policy_version,
        "policy_digest": policy_digest,
        "requested": requested,
    }
    _insert_unless_known(lake, "runs", row, ("run_id",))


def finish_run(lake: Lake, run_id: str, status: str, detail: str | None = None) -> None:
    """Records how a run ended (`completed`, `failed`, `interrupted` …) and merges small files."""
    row = {
        "run_id": run_id,
        "status": status,
        "finished_at": datetime.now(UTC),
        "detail": detail,
    }
    lake.transact(lambda connection: insert_row(connection, "run_ends", row))
    if lake.unmerged:
        merge_small_files(lake)


def commit_batch(
    lake: Lake,
    run_id: str,
    batch_id: str,
    produced: Sequence[Produced],
    *,
    stamps_expected: bool = False,
) -> bool:
    """Appends all that a batch produced, or nothing; False if this batch is recorded already.

    With `stamps_expected`, files that were signed without a time stamp are noted as owed one.

    A batch is known by (`run_id`, `batch_id`): one that was committed but not acknowledged may be
    sent again. To try failed images again in the same run, use another `batch_id`. Raises
    BusyError when other writers hold the catalog too long, SetupError when the disk is full.
    """
    attempt = new_attempt()
    now = datetime.now(UTC)
    owed = owed_table(produced, now) if stamps_expected else None
    tables = batch_tables(run_id, batch_id, attempt, produced, now)
    batch = {
        "run_id": run_id,
        "batch_id": batch_id,
        "attempt": attempt,
        "images": len(produced),
        "failed": sum(one.error is not None for one in produced),
        "committed_at": now,
    }

    def append(connection: duckdb.DuckDBPyConnection) -> bool:
        known = connection.execute(
            "SELECT 1 FROM raw.batches WHERE run_id = ? AND batch_id = ? LIMIT 1",
            [run_id, batch_id],
        ).fetchone()
        if known:
            return False
        for name, table in tables.items():
            if name == "signatures":
                insert_signatures(connection, table)
            else:
                insert_table(connection, name, table)
        if owed is not None:
            insert_table(connection, "stamps_owed", owed)
        insert_row(connection, "batches", batch)
        return True

    written = lake.transact(append)
    lake.unmerged += written
    if lake.unmerged >= MERGE_EVERY:
        merge_small_files(lake)
    return written


def record_terms(lake: Lake, requests: Sequence[Request]) -> int:
    """Records the usage terms of catalogued requests where they changed; returns how many did.

    Terms are not part of a request's identity: a brief with new terms makes no new image, but its
    images are exported under the new ones.
    """
    now = datetime.now(UTC)
    table = arrow(
        "terms",
        [
            {"request_id": one.request_id, **terms_row(one.terms), "recorded_at": now}
            for one in requests
        ],
    )

    def append(connection: duckdb.DuckDBPyConnection) -> int:
        connection.register("incoming", table)
        try:
            changed = connection.execute(
                "SELECT incoming.* FROM incoming JOIN requests USING (request_id) "
                "WHERE incoming.terms IS DISTINCT FROM requests.terms::VARCHAR"
            ).to_arrow_table()
        finally:
            connection.unregister("incoming")
        if len(changed):
            insert_table(connection, "terms", changed)
        return len(changed)

    return lake.transact(append) if requests else 0


def register_policy(lake: Lake, *, digest: str, name: str, version: str, text: str) -> None:
    """Keeps a policy's full text under its digest, once."""
    row = {
        "digest": digest,
        "name": name,
        "version": version,
        "text": text,
        "registered_at": datetime.now(UTC),
    }
    _insert_unless_known(lake, "policies", row, ("digest",))


def register_model(
    lake: Lake,
    *,
    name: str,
    revision: str,
    licence: str,
    source: str,
    weights_sha256: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Records a model as requests name it; again only when something about it changed."""
    row = {
        "name": name,
        "revision": revision,
        "licence": licence,
        "source": source,
        "weights_sha256": weights_sha256,
        "details": as_json(dict(details or {})),
        "registered_at": datetime.now(UTC),
    }
    same = tuple(column for column in row if column != "registered_at")
    # Compared with the latest one only: a licence that changes and changes back is two changes.
    _insert_unless_known(lake, "models", row, same, among="models")


def register_training_images(
    lake: Lake, adapter: str, revision: str, images: Sequence[Mapping[str, Any]]
) -> None:
    """Records what an adapter was trained on, once for its revision.

    `images` as its card lists them: file, sha256, title, rights_holder, licence, waiver.
    """
    import pyarrow as pa

    now = datetime.now(UTC)
    names = ("file", "sha256", "title", "rights_holder", "licence", "waiver")
    columns: dict[str, Any] = {
        "adapter": pa.array([adapter] * len(images), pa.string()),
        "revision": pa.array([revision] * len(images), pa.string()),
        **{
            name: pa.array([_text(image.get(name)) for image in images], pa.string())
            for name in names
        },
        "registered_at": pa.array([now] * len(images), pa.timestamp("us", tz="UTC")),
    }
    table = pa.table(columns)

    def append(connection: duckdb.DuckDBPyConnection) -> None:
        known = connection.execute(
            "SELECT 1 FROM raw.training_images WHERE adapter = ? AND revision = ? LIMIT 1",
            [adapter, revision],
        ).fetchone()
        if not known:
            insert_table(connection, "training_images", table)

    lake.transact(append)


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else as_json(value)


def record_refused(lake: Lake, run_id: str, refused: Sequence[Refused]) -> None:
    """Records the items that a run goes on without, a row a fault."""
    import pyarrow as pa

    now = datetime.now(UTC)
    rows = [
        {
            "run_id": run_id,
            "sku": each.sku,
            "place": fault.where,
            "fault": fault.what,
            "remedy": fault.remedy,
            "refused_at": now,
        }
        for each in refused
        for fault in each.faults
    ]
    if rows:
        table = pa.Table.from_pylist(rows)
        lake.transact(lambda connection: insert_table(connection, "refused_items", table))


def insert_table(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    """Appends an Arrow table to raw.`name`, and to the ledger, inside a transaction."""
    append_rows(connection, name, table)


def insert_signatures(connection: duckdb.DuckDBPyConnection, table: pa.Table) -> None:
    """Appends rows of raw.signatures that are not known, inside a transaction."""
    rows = connection.execute("SELECT DISTINCT signature FROM raw.signatures").fetchall()
    known = {signature for (signature,) in rows}
    new = [row for row in table.to_pylist() if row["signature"] not in known]
    if new:
        insert_table(connection, "signatures", arrow("signatures", new))


def insert_row(connection: duckdb.DuckDBPyConnection, name: str, row: Mapping[str, Any]) -> None:
    """Appends one row to raw.`name` inside a transaction."""
    import pyarrow as pa

    given = {column: value for column, value in row.items() if value is not None}
    append_rows(connection, name, pa.Table.from_pylist([given]))


def _insert_unless_known(
    lake: Lake, name: str, row: Mapping[str, Any], key: Sequence[str], among: str | None = None
) -> None:
    condition = " AND ".join(f'"{column}"::VARCHAR IS NOT DISTINCT FROM ?' for column in key)

    def append(connection: duckdb.DuckDBPyConnection) -> None:
        known = connection.execute(
            f"SELECT 1 FROM {among or 'raw.' + name} WHERE {condition} LIMIT 1",
            [row[column] for column in key],
        ).fetchone()
        if not known:
            insert_row(connection, name, row)

    lake.transact(append)
