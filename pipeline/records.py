"""What travels along the pipeline with one image: scores, verdict, asset, any error as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from pipeline.request import Request

Outcome = Literal["pass", "review", "block"]
Severity = Literal["low", "normal", "high", "critical"]
"""How urgent a reason is among those of one outcome: what people are shown first."""
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""From the least urgent to the most."""
AssetState = Literal["signed", "quarantined", "discarded"]


@dataclass(frozen=True)
class Score:
    """One measurement. `check` and `name` are what a policy's rule refers to, as `check.name`.

    A score against one of several reference libraries is named `name@library`.
    `value` is kept raw, so that another policy can be replayed over it. `evidence` is JSON: always
    `detector` and `revision`, and whatever lets a person see why (nearest reference, concept …).
    """

    check: str
    name: str
    value: float
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reason:
    """Why a verdict is not `pass`: the rule that spoke, the score it saw and the bound it broke.

    `declared` is the rule's place, `retail.yaml:52`; `detector` and `revision` are whose score it
    was, empty for rules without a score.
    """

    outcome: Outcome
    rule: str
    text: str
    score: float | None = None
    bound: float | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    severity: Severity = "normal"
    declared: str = ""
    detector: str = ""
    revision: str = ""


@dataclass(frozen=True)
class Verdict:
    """A policy's word on one image: the worst outcome of its reasons, `pass` without any."""

    outcome: Outcome
    reasons: tuple[Reason, ...]
    policy: str
    policy_version: str
    policy_digest: str


@dataclass(frozen=True)
class Review:
    """A person's decision on a verdict of `review`. `decided_at` is aware, in UTC."""

    reviewer: str
    decision: Literal["approve", "reject"]
    reason: str
    decided_at: datetime


@dataclass(frozen=True)
class Asset:
    """A finished file. `sha256` is of its bytes; `url` is relative to the store; None: not kept.

    `signed` lies under assets/, `quarantined` (review or block) under quarantine/ and is unsigned,
    `discarded` was not kept because the policy says so. `pixels_sha256` is of the raw RGB bytes.
    """

    sha256: str
    state: AssetState
    url: str | None
    mime: str
    width: int
    height: int
    size: int
    pixels_sha256: str


@dataclass(frozen=True)
class Signed:
    """What signing leaves beside the file: C2PA manifest store, its active label, the signer."""

    manifest: bytes
    label: str
    certificate: str


@dataclass(frozen=True)
class UsedInput:
    """A picture that an image was made from, as the catalog keeps it.

    `step` is the place in the chain of the step that used it, from 0; `source_request_id` is the
    request that made it (an asset of ours, or an earlier step). `restrictions` are what the file
    itself says against its use, `training: …` or `editing: …`.
    """

    step: int
    role: str
    source: str
    name: str
    sha256: str
    mime: str
    source_request_id: str | None = None
    c2pa_state: str = "None"
    c2pa_label: str | None = None
    source_types: tuple[str, ...] = ()
    restrictions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Produced:
    """One request's whole way through the pipeline: complete, or `error` says what failed."""

    request: Request
    scores: tuple[Score, ...] = ()
    verdict: Verdict | None = None
    asset: Asset | None = None
    signed: Signed | None = None
    perceptual_hash: str | None = None
    used: tuple[UsedInput, ...] = ()
    error: str | None = None
    milliseconds: Mapping[str, float] = field(default_factory=dict)
