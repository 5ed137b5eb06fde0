"""The manifest satisfies C2PA 2.4 where the SDK is lax, and never speaks for a blocked image."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pipeline.label import text_sha256
from pipeline.manifest import ManifestError, manifest_for, package_url
from pipeline.policy import Policy
from pipeline.records import Reason, Review, Verdict
from pipeline.request import Request
from pipeline.settings import ROOT

RequestOf = Callable[..., Request]
VerdictOf = Callable[..., Verdict]
WHEN = datetime(2026, 11, 22, 14, 0, tzinfo=timezone(timedelta(hours=1)))
REASON = Reason("review", "similarity.nearest", "near 'Pippo' of Acme", 0.85, 0.8, {"x": 1})
APPROVED = Review("Ada Reviewer", "approve", "our own design", WHEN)


def data_of(manifest: dict[str, Any], label: str) -> dict[str, Any]:
    (found,) = [each for each in manifest["assertions"] if each["label"] == label]
    return dict(found["data"])


def test_what_the_sdk_does_not_ask_for_is_there(
    request_of: RequestOf, model: Any, policy: Policy, verdict_of: VerdictOf
) -> None:
    manifest = manifest_for(request_of(), model, policy, verdict_of(policy), when=WHEN)
    (generator,) = manifest["claim_generator_info"]
    assert generator["name"] == "Platemark"
    assert generator["specVersion"] == "2.4.0"
    created = {each["label"] for each in manifest["assertions"] if each.get("created")}
    assert created == {
        "c2pa.actions.v2",
        "c2pa.ai-disclosure",
        "org.platemark.generation",
        "org.platemark.policy",
    }
    actions = data_of(manifest, "c2pa.actions.v2")
    assert actions["allActionsIncluded"] is True
    (action,) = actions["actions"]
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"] == (
        "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    )
    assert action["when"] == "2026-11-22T13:00:00Z"
    assert action["softwareAgent"]["name"] == "diffusers"
    assert "parameters" not in action
    labels = {each["label"] for each in manifest["assertions"]}
    assert not labels & {"c2pa.actions", "c2pa.training-mining", "stds.schema-org.CreativeWork"}
    json.dumps(manifest, allow_nan=False)


def test_the_model_is_disclosed_by_package_url(
    request_of: RequestOf, model: Any, hub_model: Any, policy: Policy, verdict_of: VerdictOf
) -> None:
    assert package_url(hub_model) == (
        "pkg:huggingface/org/sd-1.5@0123456789abcdef0123456789abcdef01234567"
    )
    weights = "ab" * 32
    assert package_url(model) == f"pkg:generic/starter@{weights}?checksum=sha256:{weights}"
    manifest = manifest_for(request_of(), hub_model, policy, verdict_of(policy))
    disclosure = data_of(manifest, "c2pa.ai-disclosure")
    assert disclosure == {
        "modelType": "c2pa.types.model.pytorch",
        "modelName": "sd",
        "modelIdentifier": package_url(hub_model),
        "contentProfile": {"humanOversightLevel": "prompt_guided"},
    }


def test_generation_says_how_to_make_it_again_without_the_prompt(
    request_of: RequestOf, model: Any, policy: Policy, verdict_of: VerdictOf
) -> None:
    request = request_of()
    manifest = manifest_for(request, model, policy, verdict_of(policy))
    generation = data_of(manifest, "org.platemark.generation")
    assert generation["seed"] == "9223372036854775807"
    assert generation["request_id"] == request.request_id
    assert generation["prompt_sha256"] == text_sha256("a red mug")
    assert generation["negative_prompt_sha256"] == text_sha256("blur")
    assert generation["model"]["notice"] == "Knows only the starter world."
    assert "red mug" not in json.dumps(manifest)
    assert "acme" not in json.dumps(manifest)


@pytest.mark.parametrize(("disclosure", "keys"), [
    ("text", {"prompt", "negative_prompt"}),
    ("hash", {"prompt_sha256", "negative_prompt_sha256"}),
    ("none", set()),
])  # fmt: skip
def test_the_prompt_is_disclosed_as_the_policy_says(
    disclosure: str,
    keys: set[str],
    request_of: RequestOf,
    model: Any,
    policy: Policy,
    verdict_of: VerdictOf,
) -> None:
    labels = policy.labels.model_copy(update={"prompt": disclosure})
    telling = policy.model_copy(update={"labels": labels})
    manifest = manifest_for(request_of(), model, telling, verdict_of(policy))
    generation = data_of(manifest, "org.platemark.generation")
    assert {key for key in generation if "prompt" in key} == keys


def test_an_approved_review_is_named_and_changes_the_oversight_level(
    request_of: RequestOf, model: Any, policy: Policy, verdict_of: VerdictOf
) -> None:
    verdict = verdict_of(policy, "review", REASON)
    manifest = manifest_for(request_of(), model, policy, verdict, APPROVED)
    disclosure = data_of(manifest, "c2pa.ai-disclosure")
    assert disclosure["contentProfile"]["humanOversightLevel"] == "human_validated"
    judged = data_of(manifest, "org.platemark.policy")
    assert judged == {
        "policy": "starter",
        "version": policy.version,
        "digest": policy.digest,
        "verdict": "review",
        "reasons": [
            {"rule": "similarity.nearest", "outcome": "review", "score": 0.85, "bound": 0.8}
        ],
        "review": {
            "reviewer": "Ada Reviewer",
            "decision": "approve",
            "decided_at": "2026-11-22T13:00:00Z",
        },
    }
    assert "Pippo" not in json.dumps(manifest)


def test_a_review_of_an_image_that_passed_is_not_claimed(
    request_of: RequestOf, model: Any, policy: Policy, verdict_of: VerdictOf
) -> None:
    manifest = manifest_for(request_of(), model, policy, verdict_of(policy), APPROVED)
    assert "review" not in data_of(manifest, "org.platemark.policy")


@pytest.mark.parametrize(
    ("outcome", "review"),
    [
        ("block", None),
        ("block", APPROVED),
        ("review", None),
        ("review", replace(APPROVED, decision="reject")),
    ],
)
def test_what_is_blocked_or_not_approved_has_no_manifest(
    outcome: str,
    review: Review | None,
    request_of: RequestOf,
    model: Any,
    policy: Policy,
    verdict_of: VerdictOf,
) -> None:
    verdict = verdict_of(policy, outcome, replace(REASON, outcome=outcome))
    with pytest.raises(ManifestError):
        manifest_for(request_of(), model, policy, verdict, review)


def test_a_manifest_that_breaks_our_schema_is_refused(
    request_of: RequestOf, model: Any, policy: Policy, verdict_of: VerdictOf
) -> None:
    with pytest.raises(ManifestError, match=r"org.platemark.generation.*\$.seed"):
        manifest_for(request_of(seed=-1), model, policy, verdict_of(policy))
    with pytest.raises(ManifestError, match=r"org.platemark.policy.*\$.digest"):
        manifest_for(request_of(), model, policy, replace(verdict_of(policy), policy_digest="x"))


@pytest.mark.parametrize("name", ["generation", "policy"])
def test_assertion_schemas_are_valid_and_closed(name: str) -> None:
    file = ROOT / "pipeline" / "assertions" / f"org.platemark.{name}.schema.json"
    schema = json.loads(file.read_text())
    Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False
    assert schema["title"] == f"org.platemark.{name}"


def test_training_and_mining_are_refused_by_default(
    request_of: RequestOf, model: Any, policy: Policy, verdict_of: VerdictOf
) -> None:
    manifest = manifest_for(request_of(), model, policy, verdict_of(policy))
    entries = data_of(manifest, "cawg.training-mining")["entries"]
    assert entries["cawg.ai_generative_training"] == {"use": "notAllowed"}
    assert {entry["use"] for entry in entries.values()} == {"notAllowed"}


def test_metadata_declares_each_namespace_that_it_uses(
    request_of: RequestOf, model: Any, policy: Policy, verdict_of: VerdictOf
) -> None:
    terms = {"id": "t", "licensor": "L", "credit": "C", "web_statement": "https://x.example"}
    manifest = manifest_for(request_of(terms=terms), model, policy, verdict_of(policy))
    metadata = data_of(manifest, "cawg.metadata")
    context = metadata.pop("@context")
    assert {name.split(":")[0] for name in metadata} == set(context)
    assert metadata["photoshop:Credit"] == "C"
    assert metadata["xmpRights:WebStatement"] == "https://x.example"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    seed=st.integers(0, 2**63 - 1),
    texts=st.lists(st.text(max_size=20), min_size=3, max_size=3),
    guidance=st.floats(0, 50),
)
def test_any_request_has_a_manifest_that_is_json(
    seed: int,
    texts: list[str],
    guidance: float,
    request_of: RequestOf,
    model: Any,
    policy: Policy,
    verdict_of: VerdictOf,
) -> None:
    request = request_of(
        seed=seed, sku=texts[0], prompt=texts[1], negative_prompt=texts[2], guidance=guidance
    )
    manifest = manifest_for(request, model, policy, verdict_of(policy), when=datetime.now(UTC))
    assert data_of(manifest, "org.platemark.generation")["seed"] == str(seed)
    json.dumps(manifest, allow_nan=False).encode()
