"""One image's whole story as plain data: what `platemark show` prints."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Any

from catalog.lake import Lake
from pipeline.errors import Fault, InputError

_JSON_COLUMNS = ("terms", "milliseconds", "evidence", "details", "versions", "recipe")


def story(lake: Lake, request_id: str) -> dict[str, Any]:
    """Everything the catalog holds on one request, as a JSON-able dict.

    Keys: request, model, inputs, run, scores, verdict, policy, reviews, assets, manifests (their
    size, not their bytes), attempts, packs. Raises InputError when the request is unknown.
    """
    requests = _rows(lake, "SELECT * FROM requests WHERE request_id = $id", request_id)
    if not requests:
        raise InputError(request_id, [Fault("the catalog has no such request")])
    request = requests[0]
    verdict = _one(_rows(lake, "SELECT * FROM verdicts WHERE request_id = $id", request_id))
    return {
        "request": request,
        "model": _one(
            _rows(
                lake,
                "SELECT m.* FROM models AS m JOIN requests AS r "
                "ON m.name = r.model AND m.revision = r.model_revision WHERE request_id = $id",
                request_id,
            )
        ),
        "inputs": _rows(
            lake, "SELECT * FROM inputs WHERE request_id = $id ORDER BY step, role", request_id
        ),
        "run": _one(_rows(lake, "SELECT * FROM runs WHERE run_id = $id", request["run_id"])),
        "scores": _rows(
            lake, "SELECT * FROM scores WHERE request_id = $id ORDER BY score", request_id
        ),
        "verdict": verdict,
        "policy": _one(
            _rows(lake, "SELECT * FROM policies WHERE digest = $id", verdict["policy_digest"])
            if verdict
            else []
        ),
        "reviews": _rows(
            lake, "SELECT * FROM reviews WHERE request_id = $id ORDER BY decided_at", request_id
        ),
        "assets": _rows(
            lake, "SELECT * FROM assets WHERE request_id = $id ORDER BY recorded_at", request_id
        ),
        "manifests": _rows(
            lake,
            "SELECT * EXCLUDE (manifest), octet_length(manifest) AS bytes FROM manifests "
            "WHERE request_id = $id ORDER BY recorded_at",
            request_id,
        ),
        "attempts": _rows(
            lake, "SELECT * FROM attempts WHERE request_id = $id ORDER BY attempt", request_id
        ),
        "packs": _rows(
            lake,
            "SELECT p.*, a.asset_sha256, a.file AS name_in_pack FROM packs AS p "
            "JOIN pack_assets AS a USING (pack_id) WHERE a.request_id = $id ORDER BY created_at",
            request_id,
        ),
    }


def _one(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    return rows[0] if rows else None


def _rows(lake: Lake, sql: str, key: str) -> list[dict[str, Any]]:
    return [_plain(row) for row in lake.rows(sql, {"id": key})]


def _plain(value: Any, column: str = "") -> Any:
    """JSON columns parsed, times as ISO 8601, so that the whole is JSON-able."""
    if isinstance(value, dict):
        return {key: _plain(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    if column in _JSON_COLUMNS and isinstance(value, str):
        return json.loads(value)
    return value
