"""Turns what a batch produced into Arrow tables, one for each table of the catalog."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from pipeline.records import Asset, Produced, Score, Signed, UsedInput, Verdict
from pipeline.request import Request, canonical_json

if TYPE_CHECKING:
    import pyarrow as pa


def new_attempt() -> str:
    """A key that sorts by time: microseconds since 1970, then 64 random bits, both in hex."""
    return f"{time.time_ns() // 1000:014x}{secrets.token_hex(8)}"


def as_json(value: Any) -> str:
    """Canonical JSON text; numbers that JSON cannot say (NaN, infinity) become their names."""
    try:
        return canonical_json(value).decode()
    except ValueError:
        return canonical_json(_finite(value)).decode()


def expiry(terms: Mapping[str, Any]) -> date | None:
    """The last day of usage terms in JSON form, None without end."""
    until = terms.get("expires")
    return date.fromisoformat(until) if isinstance(until, str) else until


def batch_tables(
    run_id: str, batch_id: str, attempt: str, produced: Sequence[Produced], now: datetime
) -> dict[str, pa.Table]:
    """The rows of one batch by table name, without the tables that would get none.

    A failed image still has its request row, with `error`, and the scores that were taken.
    """
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in _schemas()}
    for one in produced:
        key = {"request_id": one.request.request_id, "attempt": attempt}
        rows["requests"].append(
            {
                **key,
                "run_id": run_id,
                "batch_id": batch_id,
                "state": "done" if one.error is None else "failed",
                "error": one.error,
                "recorded_at": now,
                "milliseconds": as_json(dict(one.milliseconds)),
                **_request_row(one.request),
            }
        )
        rows["inputs"] += [{**key, **_input_row(used)} for used in one.used]
        rows["scores"] += [{**key, **score_row(score)} for score in one.scores]
        if one.error is not None:
            continue
        if one.verdict is None or one.asset is None:
            raise ValueError(f"{key['request_id']} has neither an error nor a verdict and asset")
        rows["verdicts"].append({**key, **verdict_row(one.verdict), "decided_at": now})
        rows["assets"].append(
            {**key, **asset_row(one.asset, "run", one.perceptual_hash), "recorded_at": now}
        )
        if one.signed is not None:
            rows["manifests"].append(
                {**key, **manifest_row(one.asset, one.signed), "recorded_at": now}
            )
    return {name: arrow(name, found) for name, found in rows.items() if found}


def score_row(score: Score) -> dict[str, Any]:
    """A score's columns; `detector` and `revision` are its evidence's, to be grouped by."""
    evidence = dict(score.evidence)
    return {
        "check_name": score.check,
        "name": score.name,
        "value": float(score.value),
        "evidence": as_json(evidence),
        "detector": evidence.get("detector"),
        "revision": evidence.get("weights_sha256") or evidence.get("revision"),
    }


def verdict_row(verdict: Verdict) -> dict[str, Any]:
    """A verdict's columns."""
    reasons = [
        {**asdict(reason), "evidence": as_json(dict(reason.evidence))} for reason in verdict.reasons
    ]
    return {
        "outcome": verdict.outcome,
        "policy": verdict.policy,
        "policy_version": verdict.policy_version,
        "policy_digest": verdict.policy_digest,
        "reasons": reasons,
    }


def asset_row(asset: Asset, made_by: str, perceptual_hash: str | None) -> dict[str, Any]:
    """An asset's columns; `made_by` is `run` or `review`, `perceptual_hash` hex."""
    return {
        "made_by": made_by,
        "sha256": asset.sha256,
        "state": asset.state,
        "url": asset.url,
        "mime": asset.mime,
        "width": asset.width,
        "height": asset.height,
        "size": asset.size,
        "pixels_sha256": asset.pixels_sha256,
        "perceptual_hash": perceptual_hash,
    }


def manifest_row(asset: Asset, signed: Signed) -> dict[str, Any]:
    """A manifest's columns."""
    return {
        "asset_sha256": asset.sha256,
        "label": signed.label,
        "certificate": signed.certificate,
        "manifest": signed.manifest,
    }


def arrow(table: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows for one of the batch's tables, typed as the schema has them (JSON as text)."""
    import pyarrow as pa

    return pa.Table.from_pylist(list(rows), schema=_schemas()[table])


def text_table(**columns: Sequence[str]) -> pa.Table:
    """An Arrow table of text columns, to be joined with."""
    import pyarrow as pa

    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def _request_row(request: Request) -> dict[str, Any]:
    terms = dict(request.terms)
    return {
        "sku": request.sku,
        "index": request.index,
        "campaign": request.campaign,
        "client": request.client,
        "mode": request.mode,
        "model": request.model,
        "model_revision": request.model_revision,
        "prompt": request.prompt,
        "prompt_sha256": hashlib.sha256(request.prompt.encode()).hexdigest(),
        "negative_prompt": request.negative_prompt,
        "seed": request.seed,
        "width": request.width,
        "height": request.height,
        "steps": request.steps,
        "guidance": request.guidance,
        "scheduler": request.scheduler,
        "recipe": as_json(request.recipe) if request.recipe else None,
        **terms_row(terms),
    }


def _input_row(used: UsedInput) -> dict[str, Any]:
    return {
        "step": used.step,
        "role": used.role,
        "source": used.source,
        "name": used.name,
        "sha256": used.sha256,
        "mime": used.mime,
        "source_request_id": used.source_request_id,
        "c2pa_state": used.c2pa_state,
        "c2pa_label": used.c2pa_label,
        "restrictions": list(used.restrictions),
    }


def terms_row(terms: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of usage terms; without terms all are null."""
    if not terms:
        return {"terms": None, "terms_id": None, "expires": None}
    return {"terms": as_json(dict(terms)), "terms_id": terms.get("id"), "expires": expiry(terms)}


def _finite(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


@cache
def _schemas() -> dict[str, pa.Schema]:
    import pyarrow as pa

    text, whole, real = pa.string(), pa.int64(), pa.float64()
    small, day, moment = pa.int32(), pa.date32(), pa.timestamp("us", tz="UTC")
    key = {"request_id": text, "attempt": text}
    terms = {"terms": text, "terms_id": text, "expires": day}
    reason = {
        **dict.fromkeys(("outcome", "rule", "text"), text),
        **dict.fromkeys(("score", "bound"), real),
        **dict.fromkeys(("evidence", "severity", "declared", "detector", "revision"), text),
    }
    columns: dict[str, dict[str, Any]] = {
        "requests": {
            **key,
            **dict.fromkeys(("run_id", "batch_id", "state", "error"), text),
            "recorded_at": moment,
            **dict.fromkeys(("milliseconds", "sku"), text),
            "index": whole,
            **dict.fromkeys(("campaign", "client", "mode", "model", "model_revision"), text),
            **dict.fromkeys(("prompt", "prompt_sha256", "negative_prompt"), text),
            "seed": whole,
            **dict.fromkeys(("width", "height", "steps"), small),
            "guidance": real,
            **dict.fromkeys(("scheduler", "recipe"), text),
            **terms,
        },
        "inputs": {
            **key,
            "step": small,
            **dict.fromkeys(("role", "source", "name", "sha256", "mime"), text),
            **dict.fromkeys(("source_request_id", "c2pa_state", "c2pa_label"), text),
            "restrictions": pa.list_(text),
        },
        "scores": {
            **key,
            **dict.fromkeys(("check_name", "name"), text),
            "value": real,
            **dict.fromkeys(("evidence", "detector", "revision"), text),
        },
        "verdicts": {
            **key,
            **dict.fromkeys(("outcome", "policy", "policy_version", "policy_digest"), text),
            "reasons": pa.list_(pa.struct(reason)),
            "decided_at": moment,
        },
        "assets": {
            **key,
            **dict.fromkeys(("made_by", "sha256", "state", "url", "mime"), text),
            **dict.fromkeys(("width", "height"), small),
            "size": whole,
            **dict.fromkeys(("pixels_sha256", "perceptual_hash"), text),
            "recorded_at": moment,
        },
        "manifests": {
            **key,
            **dict.fromkeys(("asset_sha256", "label", "certificate"), text),
            "manifest": pa.binary(),
            "recorded_at": moment,
        },
        "terms": {"request_id": text, **terms, "recorded_at": moment},
    }
    return {name: pa.schema(list(fields.items())) for name, fields in columns.items()}
