"""One image from pixels to signed bytes: encode with its label, manifest, sign. Nothing is stored.

Called for every image that passes, and again, from quarantine, when a person approves one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from PIL import Image

from pipeline.encode import encode
from pipeline.images import RgbImage, decode_limited
from pipeline.ingredients import WORDS_ALONE, Made, source_type
from pipeline.keys import Identity
from pipeline.label import MakerModel, xmp_packet
from pipeline.licences import Licences
from pipeline.manifest import manifest_for, refuse_unsignable
from pipeline.policy_model import Policy
from pipeline.records import Review, Signed, Verdict
from pipeline.request import Request
from pipeline.sign import sign
from pipeline.soft_binding import mark


class Sealed(NamedTuple):
    """A finished file and what the catalog keeps of it; `milliseconds` of `encode` and `sign`."""

    data: bytes
    mime: str
    signed: Signed
    milliseconds: Mapping[str, float]


def seal(
    image: Image.Image | RgbImage,
    request: Request,
    model: MakerModel,
    policy: Policy,
    verdict: Verdict,
    identity: Identity,
    review: Review | None = None,
    when: datetime | None = None,
    made: Made = WORDS_ALONE,
    licences: Licences | None = None,
) -> Sealed:
    """The image encoded as the policy says, labelled and signed. `when` it was made: default now.

    `made` holds the pictures that it was made from; `licences` is the table that tells of the
    licences in the terms, default the shipped one.

    Raises ManifestError when the verdict forbids signing, EncodeError, ImageRefused or SignError
    when a step fails.
    """
    when = when or datetime.now(UTC)
    start = time.perf_counter()
    # First, so that what must not be signed costs neither marking nor encoding.
    refuse_unsignable(verdict, review)
    marked = mark(image, request, policy)
    manifest = manifest_for(
        request,
        model,
        policy,
        verdict,
        review,
        when,
        identity.producer,
        made,
        marked.bindings,
        licences,
    )
    described = time.perf_counter()
    kind = source_type(request, made)
    packet = xmp_packet(request, model, policy, identity.producer, when, kind, licences)
    data, mime = encode(marked.pixels, policy.image, packet if policy.labels.xmp else None)
    encoded = time.perf_counter()
    data, signed = sign(data, mime, manifest, identity, made.ingredients)
    done = time.perf_counter()
    milliseconds = {
        "encode": (encoded - described) * 1000,
        "sign": (done - encoded + described - start) * 1000,
    }
    return Sealed(data, mime, signed, milliseconds)


def release(
    quarantined: bytes,
    request: Request,
    model: MakerModel,
    policy: Policy,
    verdict: Verdict,
    identity: Identity,
    review: Review,
    made_at: datetime | None = None,
    made: Made = WORDS_ALONE,
    licences: Licences | None = None,
) -> Sealed:
    """An approved image from its quarantined PNG bytes, sealed with the review in its manifest.

    `policy` and `verdict` are those it was judged by, `licences` as for `seal`. Raises as `seal`
    does, and ImageRefused when the quarantined file is broken.
    """
    pixels = decode_limited(quarantined)
    return seal(pixels, request, model, policy, verdict, identity, review, made_at, made, licences)
