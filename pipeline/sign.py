"""File bytes and a manifest in, signed file bytes out: in process, in memory, verified at once.

One C2PA context a process and identity: it neither pickles nor survives a fork, but threads share
it. The last step that touches a file: anything written afterwards breaks the signature.
"""

from __future__ import annotations

import io
import json
import os
import threading
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from pipeline.certificates import ACCEPTED_USES
from pipeline.errors import PlatemarkError
from pipeline.images import RgbImage, decode_limited
from pipeline.ingredients import Ingredient
from pipeline.keys import Identity
from pipeline.label import safe_text
from pipeline.records import Signed

THUMBNAIL_SIDE = 256
"""Longest side of the claim thumbnail in pixels; smaller images are not enlarged."""

_contexts: dict[tuple[int, Identity], Any] = {}
_lock = threading.Lock()
_raised = threading.local()


class SignError(PlatemarkError):
    """A file that could not be signed. The source is untouched and nothing was written."""


def sign(
    data: bytes,
    mime: str,
    manifest: Mapping[str, Any],
    identity: Identity,
    ingredients: Sequence[Ingredient] = (),
) -> tuple[bytes, Signed]:
    """`data` with the signed `manifest` embedded, and what the catalog keeps of it.

    `ingredients` are the pictures it was made from; their own manifests go in with them.

    The image is decoded first, since half a JPEG would sign as Trusted. Raises ImageRefused for a
    broken image, SignError otherwise; what a signing callback raises comes through as it is.
    """
    from c2pa import Builder, C2paError

    thumbnail = _thumbnail(decode_limited(data))
    label = f"urn:c2pa:{uuid.uuid4()}"
    definition = {
        **manifest,
        "label": label,
        "thumbnail": {"format": "image/jpeg", "identifier": "thumbnail.jpg"},
    }
    signed = io.BytesIO()
    _raised.error = None
    try:
        with Builder(json.dumps(definition), _context(identity)) as builder:
            builder.add_resource("thumbnail.jpg", io.BytesIO(thumbnail))
            for each in ingredients:
                builder.add_ingredient(_ingredient(each), each.mime, io.BytesIO(each.data))
            store = builder.sign(mime, io.BytesIO(data), signed)
    except C2paError as error:
        if _raised.error is not None:
            raise _raised.error from None
        raise SignError(f"signing failed: {error}") from None
    return signed.getvalue(), Signed(bytes(store), label, identity.certificate)


def _ingredient(each: Ingredient) -> str:
    told: dict[str, Any] = {
        "title": safe_text(each.title),
        "label": each.label,
        "relationship": each.relationship,
        "format": each.mime,
    }
    # Without a manifest nothing else ties the ingredient to its bytes.
    if not each.is_signed:
        told["instance_id"] = f"sha256:{each.sha256}"
    return json.dumps(told)


def reader_settings(anchors: bytes) -> dict[str, Any]:
    """SDK settings to verify by: `anchors` (PEM) are trusted, nothing is fetched from networks."""
    # Without trust_config, claimSigning and documentSigning certificates read as Invalid.
    trust = {"trust_config": "\n".join(use.dotted_string for use in ACCEPTED_USES)}
    if anchors.strip():
        trust["user_anchors"] = anchors.decode()
    # Unknown keys are ignored by the SDK without a word: tests show that each of these works.
    return {
        "builder": {"thumbnail": {"enabled": False}},
        "verify": {"verify_after_sign": True, "remote_manifest_fetch": False},
        "trust": trust,
    }


def _context(identity: Identity) -> Any:
    """The context that signs as `identity` in this process, made once."""
    key = (os.getpid(), identity)
    with _lock:
        if key not in _contexts:
            from c2pa import Context, Settings

            settings = Settings.from_dict(reader_settings(identity.anchors))
            _contexts[key] = Context(settings, _signer(identity))
        return _contexts[key]


def _forget_parent() -> None:
    """In a forked child: the parent's contexts and whatever state its lock was in are of no use."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_parent)


def _signer(identity: Identity) -> Any:
    from c2pa import C2paSignerInfo, C2paSigningAlg, Signer

    algorithm = C2paSigningAlg[identity.algorithm.upper()]
    if identity.key is not None:
        url = identity.timestamp_url.encode() if identity.timestamp_url else None
        return Signer.from_info(C2paSignerInfo(algorithm, identity.chain, identity.key, url))
    callback = identity.callback

    def stashing(data: bytes) -> bytes:
        # The SDK swallows what a callback raises; it is raised again once the call is back.
        try:
            return callback(data) if callback else b""
        except Exception as error:
            _raised.error = error
            return b""

    return Signer.from_callback(
        stashing, algorithm, identity.chain.decode(), identity.timestamp_url
    )


def _thumbnail(pixels: RgbImage) -> bytes:
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS, reducing_gap=2)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=80)
    return out.getvalue()
