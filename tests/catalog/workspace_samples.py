"""A workspace of images of noise, really checked, signed or quarantined, and catalogued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from catalog_samples import begin, request_of
from numpy.typing import NDArray

from catalog.lake import writing
from catalog.write import commit_batch, register_model, register_policy
from pipeline.checks.protocol import ImageBatch, run_checks
from pipeline.checks.quality import Quality
from pipeline.encode import lossless_png
from pipeline.keys import signing_identity
from pipeline.models import load_models, resolve
from pipeline.policy_model import Policy
from pipeline.records import Asset, Outcome, Produced, Reason, Signed, Verdict
from pipeline.request import Request
from pipeline.seal import seal
from pipeline.settings import Settings
from pipeline.store import place, sha256_of, stage

SIDE = 64


def policy_named(name: str, rules: Sequence[dict[str, object]] = (), **more: object) -> Policy:
    return Policy.model_validate(
        {
            "policy": name,
            "version": "1",
            "checks": {"quality": {}},
            "rules": list(rules),
            "licences": ["Apache-2.0"],
        }
        | more
    )


HELD = policy_named("held", [{"check": "quality", "score": "sharpness", "review": {"at_least": 0}}])
MILD = policy_named("mild", [{"check": "quality", "score": "decodes", "block": {"below": 1}}])


def noise(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def shoot(
    settings: Settings, policy: Policy, outcomes: Sequence[Outcome | None], first: int = 0
) -> list[Request]:
    """One image an outcome, with the scores of `quality`; None: blocked, and not kept."""
    model = resolve(load_models(), "starter", "text-to-image")
    requests = [
        request_of(
            number,
            model=model.name,
            model_revision=model.revision,
            width=SIDE,
            height=SIDE,
        )
        for number in range(first, first + len(outcomes))
    ]
    images = np.stack([noise(number) for number in range(first, first + len(outcomes))])
    batch = ImageBatch(images, tuple(requests))
    checked = run_checks([Quality(None)], batch)
    produced, urls = [], []
    for index, outcome in enumerate(outcomes):
        reasons = (
            (Reason(outcome or "block", "quality.sharpness", "held", 1.0, 0.0),)
            if outcome != "pass"
            else ()
        )
        verdict = Verdict(outcome or "block", reasons, policy.policy, policy.version, policy.digest)
        folder, state, signed = "quarantine", "quarantined", None
        data, mime = lossless_png(images[index]), "image/png"
        if outcome == "pass":
            folder, state = "assets", "signed"
            data, mime, signed, _ = seal(
                images[index], requests[index], model, policy, verdict, signing_identity(settings)
            )
        sha256, url = sha256_of(data), None
        if outcome is not None:
            sha256, url = stage(settings, folder, data, mime)
            urls.append(url)
        produced.append(
            Produced(
                requests[index],
                checked[index].scores,
                verdict,
                Asset(
                    sha256,
                    state if url else "discarded",  # type: ignore[arg-type]
                    url,
                    mime,
                    SIDE,
                    SIDE,
                    len(data),
                    batch.pixels_sha256[index],
                ),
                signed if isinstance(signed, Signed) else None,
                batch.perceptual_hashes[index],
            )
        )
    with writing(settings.catalog) as lake:
        begin(lake)
        register_policy(
            lake,
            digest=policy.digest,
            name=policy.policy,
            version=policy.version,
            text=policy.text,
        )
        register_model(
            lake,
            name=model.name,
            revision=model.revision,
            licence=model.licence,
            source=model.source,
            weights_sha256=model.weights_sha256,
            details=asdict(model),
        )
        commit_batch(lake, "run-1", f"b{first}-{policy.policy}", produced)
    place(settings, urls)
    return requests
