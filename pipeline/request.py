"""A request: one image to make, fully resolved. Briefs become requests, requests batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

# What makes the pixels; a derived seed depends on these and on whose image it is, nothing else.
_SEEDED_BY = (
    "mode", "model", "model_revision", "prompt", "negative_prompt",
    "width", "height", "steps", "guidance", "scheduler", "sku", "index",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """One image to make. Equal requests have equal ids, and on one machine equal pixels.

    `seed` is in [0, 2**63); `width` and `height` are pixels, multiples of 8; `guidance` is the
    classifier-free guidance scale (1 switches it off). `terms` is the JSON form of the usage terms
    (pipeline/terms.py); it is not part of the identity: new terms need no new image.
    """

    sku: str
    index: int
    mode: str
    model: str
    model_revision: str
    prompt: str
    negative_prompt: str
    seed: int
    width: int
    height: int
    steps: int
    guidance: float
    scheduler: str
    campaign: str
    client: str
    terms: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @cached_property
    def request_id(self) -> str:
        """SHA-256 (hex) of the canonical JSON: the key of idempotency."""
        identity = {name: getattr(self, name) for name in _IDENTITY}
        return hashlib.sha256(canonical_json(identity)).hexdigest()


_IDENTITY = tuple(each.name for each in fields(Request) if each.name != "terms")


def canonical_json(value: Any) -> bytes:
    """The one UTF-8 form of a JSON value: sorted keys, no spaces, no NaN (after RFC 8785)."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def derived_seed(content: Mapping[str, Any]) -> int:
    """A seed in [0, 2**63) from a request's content: the same brief makes the same images."""
    seeded = {key: content[key] for key in _SEEDED_BY}
    return int.from_bytes(hashlib.sha256(canonical_json(seeded)).digest()[:8], "big") >> 1
