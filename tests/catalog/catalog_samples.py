"""Produced records made up from a number, as a pipeline would hand them to the catalog."""

from __future__ import annotations

import hashlib

from catalog.lake import Lake
from catalog.write import start_run
from pipeline.records import Asset, Produced, Reason, Score, Signed, Verdict
from pipeline.request import Request

TERMS = {
    "id": "spring-web",
    "licensor": "Studio",
    "licensee": "any",
    "territories": ["DE", "FR"],
    "channels": ["web", "print"],
    "expires": "2030-12-31",
}
OUTCOMES = ("pass", "pass", "pass", "review", "block")


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def request_of(number: int, **changes: object) -> Request:
    values: dict[str, object] = {
        "sku": f"MUG-{number:05d}",
        "index": 0,
        "mode": "text-to-image",
        "model": "starter/text-to-image" if number % 4 else "hub/other",
        "model_revision": "r1",
        "prompt": f"a blue mug number {number}",
        "negative_prompt": "",
        "seed": number,
        "width": 128,
        "height": 128,
        "steps": 20,
        "guidance": 3.0,
        "scheduler": "ddim",
        "campaign": f"campaign-{number % 3}",
        "client": "acme",
        "terms": TERMS,
    }
    return Request(**{**values, **changes})  # type: ignore[arg-type]


def produced_of(
    number: int,
    outcome: str | None = None,
    content: bytes | None = None,
    **changes: object,
) -> Produced:
    """One image's way: by number three in five pass, one is in review, one blocked."""
    request = request_of(number, **changes)
    outcome = outcome or OUTCOMES[number % 5]
    content = content if content is not None else f"file {number}".encode()
    digest = hashlib.sha256(content).hexdigest()
    evidence = {
        "detector": "open-clip",
        "revision": "r1",
        "nearest": [
            {
                "library": "protected",
                "file": f"logo-{number % 7}.png",
                "title": f"Logo {number % 7}",
                "rights_holder": "Rival",
            }
        ],
    }
    scores = (
        Score("similarity", "nearest", 0.5 + (number % 50) / 100, evidence),
        Score("nsfw", "unclothed", (number % 10) / 10, {"detector": "nsfw", "revision": "r1"}),
        Score("quality", "sharpness", 0.9, {"detector": "laplace", "revision": "1"}),
    )
    reasons = (
        ()
        if outcome == "pass"
        else (
            Reason(
                outcome,  # type: ignore[arg-type]
                "similarity.nearest",
                "too near to a protected work",
                scores[0].value,
                0.5,
                evidence,
            ),
        )
    )
    signed = outcome == "pass"
    folder, state = ("assets", "signed") if signed else ("quarantine", "quarantined")
    return Produced(
        request,
        scores,
        Verdict(outcome, reasons, "retail", "1", sha256("policy")),  # type: ignore[arg-type]
        Asset(
            digest,
            state,  # type: ignore[arg-type]
            f"{folder}/{digest[:2]}/{digest}.png",
            "image/png",
            128,
            128,
            len(content),
            sha256(f"pixels {number}"),
        ),
        Signed(b"manifest" * 16, f"urn:c2pa:{number}", "CN=dev") if signed else None,
        sha256(f"hash {number}"),
        milliseconds={"generate": 100.0, "checks": 10.0, "encode": 5.0, "sign": 6.0},
    )


def failed_of(number: int, error: str = "out of memory") -> Produced:
    return Produced(request_of(number), error=error)


def begin(lake: Lake, run_id: str = "run-1") -> None:
    start_run(
        lake,
        run_id,
        brief="spring.csv",
        brief_sha256=sha256("brief"),
        policy="retail",
        policy_version="1",
        policy_digest=sha256("policy"),
        requested=10,
        host="studio",
        device="cpu",
        versions={"python": "3.11"},
    )
