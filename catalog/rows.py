"""Turns what a batch produced into Arrow tables, one for each table of the catalog."""

from __future__ import annotations

import hashlib
import secrets
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from catalog.ranks import nearness, urgency
from pipeline.records import Asset, Produced, Score, Signed, UsedInput, Verdict
from pipeline.request import Request, canonical_json
from pipeline.timestamps import is_stamped

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

    A failed image still has its row, with `error`, and the scores that were taken. `signatures` may
    be known already.
    """
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in _schemas()}
    signatures: dict[str, dict[str, Any]] = {}
    for one in produced:
        key = {"request_id": one.request.request_id, "attempt": attempt}
        signature, scores = score_set(one.scores)
        signatures[signature["signature"]] = signature
        row = {
            **key,
            "request_key": uuid.UUID(one.request.request_id[:32]).bytes,
            "run_id": run_id,
            "batch_id": batch_id,
            "state": "done" if one.error is None else "failed",
            "error": one.error,
            "recorded_at": now,
            "milliseconds": as_json(dict(one.milliseconds)),
            "generate_ms": one.milliseconds.get("generate"),
            **_request_row(one.request),
            **scores,
            "urgency": urgency(one.verdict),
        }
        rows["images"].append(row)
        rows["inputs"] += [{**key, **_input_row(used)} for used in one.used]
        if one.error is not None:
            continue
        if one.verdict is None or one.asset is None:
            raise ValueError(f"{key['request_id']} has neither an error nor a verdict and asset")
        row |= {**verdict_row(one.verdict), **_file_row(one.asset, one.perceptual_hash)}
        if one.signed is not None:
            row |= {"c2pa_label": one.signed.label, "certificate": one.signed.certificate}
            rows["manifests"].append(
                {**key, **manifest_row(one.asset, one.signed), "recorded_at": now}
            )
    rows["signatures"] = list(signatures.values())
    return {name: arrow(name, found) for name, found in rows.items() if found}


def score_set(scores: Sequence[Score]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row of raw.signatures, and an image's columns that tell of its scores.

    `detector` and `revision` are each evidence's, to be grouped by.
    """
    names = []
    for score in scores:
        revision = score.evidence.get("weights_sha256") or score.evidence.get("revision")
        named = {"check_name": score.check, "name": score.name}
        names.append({**named, "detector": score.evidence.get("detector"), "revision": revision})
    signature = hashlib.sha256(canonical_json(names)).hexdigest()[:16]
    return {"signature": signature, "scores": names}, {
        "signature": signature,
        "values": [float(score.value) for score in scores],
        "evidence": [as_json(dict(score.evidence)) for score in scores],
        **nearness(scores),
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


def later_file_row(
    asset: Asset, signed: Signed, made_by: str, perceptual_hash: str | None
) -> dict[str, Any]:
    """The columns of a file made after the run, by `made_by`: a review, a replay.

    `perceptual_hash` in hex.
    """
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
        "c2pa_label": signed.label,
        "certificate": signed.certificate,
    }


def _file_row(asset: Asset, perceptual_hash: str | None) -> dict[str, Any]:
    return {
        "sha256": asset.sha256,
        "asset_state": asset.state,
        "url": asset.url,
        "mime": asset.mime,
        "made_width": asset.width,
        "made_height": asset.height,
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
    verdict = {
        **dict.fromkeys(("outcome", "policy", "policy_version", "policy_digest"), text),
        "reasons": pa.list_(pa.struct(reason)),
    }
    score_set = {
        "signature": text,
        "values": pa.list_(real),
        "evidence": pa.list_(text),
        **dict.fromkeys(("duplicate_distance", "nearest_pdq"), real),
        **dict.fromkeys(("nearest_clip", "nearest_descriptor"), real),
    }
    columns: dict[str, dict[str, Any]] = {
        "images": {
            **key,
            "request_key": pa.uuid(),
            **dict.fromkeys(("run_id", "batch_id", "state", "error"), text),
            "recorded_at": moment,
            "milliseconds": text,
            "generate_ms": real,
            "sku": text,
            "index": whole,
            **dict.fromkeys(("campaign", "client", "mode", "model", "model_revision"), text),
            **dict.fromkeys(("prompt", "prompt_sha256", "negative_prompt"), text),
            "seed": whole,
            **dict.fromkeys(("width", "height", "steps"), small),
            "guidance": real,
            **dict.fromkeys(("scheduler", "recipe"), text),
            **terms,
            **score_set,
            **verdict,
            "urgency": pa.int8(),
            **dict.fromkeys(("sha256", "asset_state", "url", "mime"), text),
            **dict.fromkeys(("made_width", "made_height"), small),
            "size": whole,
            **dict.fromkeys(("pixels_sha256", "perceptual_hash"), text),
            **dict.fromkeys(("c2pa_label", "certificate"), text),
        },
        "signatures": {
            "signature": text,
            "scores": pa.list_(
                pa.struct(dict.fromkeys(("check_name", "name", "detector", "revision"), text))
            ),
        },
        "inputs": {
            **key,
            "step": small,
            **dict.fromkeys(("role", "source", "name", "sha256", "mime"), text),
            **dict.fromkeys(("source_request_id", "c2pa_state", "c2pa_label"), text),
            "restrictions": pa.list_(text),
        },
        "rescored": {**key, **score_set, "measured_at": moment},
        "verdicts": {**key, **verdict, "decided_at": moment},
        "later_files": {
            **key,
            **dict.fromkeys(("made_by", "sha256", "state", "url", "mime"), text),
            **dict.fromkeys(("width", "height"), small),
            "size": whole,
            **dict.fromkeys(
                ("pixels_sha256", "perceptual_hash", "c2pa_label", "certificate"), text
            ),
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


def owed_table(produced: Sequence[Produced], now: datetime) -> pa.Table | None:
    """Rows of raw.stamps_owed for what was signed without a time stamp; None when all have one.

    For runs with a configured authority: written with the batch, in its transaction.
    """
    signed = (
        (one.asset.sha256, one.signed.manifest, one.signed.label)
        for one in produced
        if one.asset and one.signed
    )
    return owed_rows(signed, now)


def owed_rows(signed: Iterable[tuple[str, bytes, str]], now: datetime) -> pa.Table | None:
    """The same for files as (SHA-256, manifest store, label)."""
    lacking = [sha256 for sha256, store, label in signed if not is_stamped(store, label)]
    return waiting_rows(lacking, now) if lacking else None


def waiting_rows(sha256s: Sequence[str], now: datetime) -> pa.Table:
    """Rows of raw.stamps_owed for files (SHA-256, hex) without a time stamp."""
    import pyarrow as pa

    moment = pa.array([now] * len(sha256s), pa.timestamp("us", tz="UTC"))
    return text_table(asset_sha256=list(sha256s)).append_column("owed_since", moment)
