"""A workspace of really signed and catalogued images, of given items and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version

import numpy as np
from catalog_samples import TERMS, produced_of, sha256

from catalog.lake import writing
from catalog.write import commit_batch, start_run
from pipeline.images import RgbImage
from pipeline.keys import signing_identity
from pipeline.models import load_models, resolve
from pipeline.policy import load_policy
from pipeline.policy_model import Policy
from pipeline.records import Asset
from pipeline.seal import seal
from pipeline.settings import Settings
from pipeline.store import place, stage

OPEN = {**TERMS, "channels": ["any"], "territories": ["worldwide"]}


def product(width: int, height: int, share: float = 0.9, background: int = 255) -> RgbImage:
    """A grey square that takes `share` of a plain frame's sides."""
    pixels = np.full((height, width, 3), background, np.uint8)
    across, down = round(width * share), round(height * share)
    left, top = (width - across) // 2, (height - down) // 2
    pixels[top : top + down, left : left + across] = 120
    return pixels


def studio(
    settings: Settings,
    images: Sequence[tuple[str, RgbImage]],
    *,
    policy: Policy | None = None,
    library: str = "",
    run_id: str = "run-1",
    first: int = 0,
) -> None:
    """Each (sku, pixels) signed and catalogued as passed; an item's images count from index 0.

    `library` is the C2PA library's version that the run is said to have signed with.
    """
    identity, policy = signing_identity(settings), policy or load_policy("starter")
    model = resolve(load_models(), "starter", "text-to-image")
    counts: dict[str, int] = {}
    batch = []
    for number, (sku, pixels) in enumerate(images, start=first):
        height, width = pixels.shape[:2]
        index = counts[sku] = counts.get(sku, -1) + 1
        one = produced_of(
            number, "pass", sku=sku, index=index, width=width, height=height, terms=OPEN
        )
        assert one.verdict
        data, mime, signed, _ = seal(pixels, one.request, model, policy, one.verdict, identity)
        digest, url = stage(settings, "assets", data, mime)
        asset = Asset(digest, "signed", url, mime, width, height, len(data), sha256(sku))
        batch.append(replace(one, asset=asset, signed=signed))
    with writing(settings.catalog) as lake:
        start_run(
            lake,
            run_id,
            brief="spring.csv",
            brief_sha256=sha256("brief"),
            policy=policy.policy,
            policy_version=policy.version,
            policy_digest=policy.digest,
            requested=len(batch),
            host="studio",
            device="cpu",
            versions={"c2pa-python": library or version("c2pa-python")},
        )
        commit_batch(lake, run_id, f"b{first}", batch)
    place(settings, [str(one.asset.url) for one in batch if one.asset])
