"""The C2PA manifest of one image as JSON, before signing: what the spec asks, not only the SDK.

The SDK signs manifests that break C2PA 2.4 and calls them Trusted, so everything it is lax about is
settled here: created assertions, allActionsIncluded, source types, our own assertions' schemas.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.errors import PlatemarkError
from pipeline.history import actions, generation
from pipeline.ingredients import WORDS_ALONE, Made, source_type
from pipeline.label import (
    NAMESPACES,
    MakerModel,
    metadata,
    plain,
    platemark_version,
    safe_text,
    timestamp,
)
from pipeline.licences import Licences
from pipeline.policy_model import Policy
from pipeline.records import Review, Verdict
from pipeline.request import Request
from pipeline.soft_binding.assertion import SoftBinding, assertions, watermark_action

GENERATION = "org.platemark.generation"
POLICY = "org.platemark.policy"
SPEC_VERSION = "2.4.0"
_SCHEMAS = Path(__file__).parent / "assertions"
# CAWG training and data mining 1.1; inference (search, captions) is left to the reader's judgement.
_MINING_USES = ("cawg.ai_generative_training", "cawg.ai_training", "cawg.data_mining")


class ManifestError(PlatemarkError):
    """A manifest that must not be signed."""


def refuse_unsignable(verdict: Verdict, review: Review | None) -> None:
    """Raises ManifestError when the verdict forbids signing: blocked, or review unapproved."""
    if verdict.outcome == "block":
        raise ManifestError("the policy blocks this image; it is never signed")
    if verdict.outcome == "review" and (review is None or review.decision != "approve"):
        raise ManifestError("this image waits for a review; it is signed when a person approves")


def manifest_for(
    request: Request,
    model: MakerModel,
    policy: Policy,
    verdict: Verdict,
    review: Review | None = None,
    when: datetime | None = None,
    producer: str = "Platemark",
    made: Made = WORDS_ALONE,
    bindings: Sequence[SoftBinding] = (),
    licences: Licences | None = None,
) -> dict[str, Any]:
    """The manifest definition for `request`'s image, made at `when` (aware; default now).

    `made` holds the inputs and intermediates that its actions name as ingredients; `bindings` what
    finds the manifest again when the file has lost it; `licences` is the table that tells of the
    licences in the terms, default the shipped one.
    Raises ManifestError when the verdict forbids signing: blocked, or review without approval.
    """
    refuse_unsignable(verdict, review)
    if verdict.outcome == "pass":
        review = None
    made_at = timestamp(when or datetime.now(UTC))
    done = actions(request, made, made_at)
    done["actions"] += watermark_action(bindings, made_at)
    stated = [
        _created("c2pa.actions.v2", done),
        _created("c2pa.ai-disclosure", _disclosure(model, reviewed=review is not None)),
        _created(GENERATION, generation(request, model, policy, made)),
        _created(POLICY, _judgement(verdict, review)),
        {"label": "cawg.training-mining", "data": _training_mining(policy)},
        {
            "label": "cawg.metadata",
            "data": _metadata(request, model, policy, producer, made, licences),
        },
        *assertions(bindings),
    ]
    for assertion in stated:
        if assertion["label"] in (GENERATION, POLICY):
            _hold_to_schema(assertion["label"], assertion["data"])
    return {
        "claim_generator_info": [
            {"name": "Platemark", "version": platemark_version(), "specVersion": SPEC_VERSION}
        ],
        "title": safe_text(f"{request.sku} {request.index}"),
        "assertions": stated,
    }


def package_url(model: MakerModel) -> str:
    """The model as a package URL: `pkg:huggingface/org/name@commit`, or `pkg:generic/…` by hash."""
    revision = quote(model.revision, safe="")
    if not model.is_folder:
        return f"pkg:huggingface/{quote(model.source)}@{revision}"
    checksum = f"?checksum=sha256:{model.weights_sha256}" if model.weights_sha256 else ""
    return f"pkg:generic/{quote(model.name, safe='')}@{revision}{checksum}"


def _created(label: str, data: dict[str, Any]) -> dict[str, Any]:
    # Without `created` the SDK files an assertion under those it gathered from others.
    return {"label": label, "created": True, "data": data}


def _disclosure(model: MakerModel, reviewed: bool) -> dict[str, Any]:
    return {
        "modelType": "c2pa.types.model.pytorch",
        "modelName": model.name,
        "modelIdentifier": package_url(model),
        "contentProfile": {
            "humanOversightLevel": "human_validated" if reviewed else "prompt_guided"
        },
    }


def _judgement(verdict: Verdict, review: Review | None) -> dict[str, Any]:
    # Reasons' texts stay in the catalog: they may name other people's works.
    judgement: dict[str, Any] = {
        "policy": verdict.policy,
        "version": verdict.policy_version,
        "digest": verdict.policy_digest,
        "verdict": verdict.outcome,
        "reasons": [
            {
                key: value
                for key, value in (
                    ("rule", reason.rule),
                    ("outcome", reason.outcome),
                    ("score", reason.score),
                    ("bound", reason.bound),
                )
                if value is not None
            }
            for reason in verdict.reasons
        ],
    }
    if review is not None:
        judgement["review"] = {
            "reviewer": safe_text(review.reviewer),
            "decision": review.decision,
            "decided_at": timestamp(review.decided_at),
        }
    return judgement


def _training_mining(policy: Policy) -> dict[str, Any]:
    return {"entries": {use: {"use": policy.labels.training_mining} for use in _MINING_USES}}


def _metadata(
    request: Request,
    model: MakerModel,
    policy: Policy,
    producer: str,
    made: Made,
    licences: Licences | None,
) -> dict[str, Any]:
    fields = metadata(request, model, policy, producer, source_type(request, made), licences)
    used = sorted({name.split(":")[0] for name in fields})
    texts = {name: _safe(plain(value)) for name, value in fields.items()}
    return {"@context": {prefix: NAMESPACES[prefix] for prefix in used}, **texts}


def _safe(value: str | list[str]) -> str | list[str]:
    return safe_text(value) if isinstance(value, str) else [safe_text(item) for item in value]


@cache
def _validator(label: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads((_SCHEMAS / f"{label}.schema.json").read_text()))


def _hold_to_schema(label: str, data: dict[str, Any]) -> None:
    faults = [
        f"{fault.json_path}: {fault.message}" for fault in _validator(label).iter_errors(data)
    ]
    if faults:
        raise ManifestError(f"{label} breaks its schema: {'; '.join(sorted(faults))}")
