"""File bytes and a manifest in, signed file bytes out: in process, in memory, verified at once.

Time stamps come with the signature where an authority is configured, or later, through `stamp`.

One C2PA context a process and identity: it neither pickles nor survives a fork, but threads share
it. The last step that touches a file: anything written afterwards breaks the signature.
"""

from __future__ import annotations

import io
import json
import os
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from pipeline.certificates import ACCEPTED_USES
from pipeline.errors import PlatemarkError
from pipeline.images import RgbImage, decode_limited
from pipeline.ingredients import Ingredient
from pipeline.keys import Identity
from pipeline.label import platemark_version, safe_text
from pipeline.records import Signed
from pipeline.timestamps import is_out, is_stamped, note_outage
from pipeline.trust import Trust, as_trust

THUMBNAIL_SIDE = 256
"""Longest side of the claim thumbnail in pixels; smaller images are not enlarged."""

_contexts: dict[tuple[int, Identity, str], Any] = {}
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

    The image is decoded first, since half a JPEG would sign as Trusted. When the time-stamp
    authority fails, the file is signed without a stamp (`is_stamped`) and the authority is left
    alone for a while. Raises ImageRefused for a broken image, SignError otherwise; what a signing
    callback raises comes through as it is.
    """
    from c2pa import Builder

    thumbnail = _thumbnail(decode_limited(data))
    label = f"urn:c2pa:{uuid.uuid4()}"
    definition = {
        **manifest,
        "label": label,
        "thumbnail": {"format": "image/jpeg", "identifier": "thumbnail.jpg"},
    }

    def build(signer: Identity) -> tuple[bytes, bytes]:
        signed = io.BytesIO()
        with Builder(json.dumps(definition), _context(signer)) as builder:
            builder.add_resource("thumbnail.jpg", io.BytesIO(thumbnail))
            for each in ingredients:
                builder.add_ingredient(_ingredient(each), each.mime, io.BytesIO(each.data))
            store = builder.sign(mime, io.BytesIO(data), signed)
        return signed.getvalue(), bytes(store)

    signed, store = _stamped_or_not(build, identity)
    return signed, Signed(store, label, identity.certificate)


def stamp(data: bytes, mime: str, identity: Identity) -> tuple[bytes, Signed]:
    """A signed file with a time stamp given later, in a manifest over the one that it has.

    The stamp proves when the earlier signature existed, so that it holds after its certificate
    ends (C2PA 2.4, time-stamp assertion). Pixels and other statements stay as they are. Raises
    SignError when the file carries no manifest that holds, or the authority gives no stamp.
    """
    from c2pa import Builder, C2paBuilderIntent

    from pipeline.verify_c2pa import judged

    if not identity.timestamp_url:
        raise SignError("no time-stamp authority is configured: set signing.timestamp_url")
    trust = as_trust(identity.anchors)

    def refuse_unless_it_holds(file: bytes) -> None:
        found = judged(file, mime, trust)
        if found["state"] not in ("Trusted", "Valid"):
            raise SignError(f"it cannot be stamped: {'; '.join(found['why'])}")

    # The SDK would stamp a changed file, and does not verify what it stamped.
    refuse_unless_it_holds(data)
    label = f"urn:c2pa:{uuid.uuid4()}"
    generator = {"name": "Platemark", "version": platemark_version(), "specVersion": "2.4.0"}
    definition = {"label": label, "claim_generator_info": [generator]}
    # An update manifest changes a RIFF file's size field, which the first hash covers: WebP gets a
    # manifest with a hash of its own instead.
    intent = "edit" if mime == "image/webp" else "update"

    def build(signer: Identity) -> tuple[bytes, bytes]:
        signed = io.BytesIO()
        with Builder(json.dumps(definition), _context(signer, intent)) as builder:
            builder.set_intent(C2paBuilderIntent[intent.upper()])
            store = builder.sign(mime, io.BytesIO(data), signed)
        return signed.getvalue(), bytes(store)

    signed, store = _signing(build, identity)
    refuse_unless_it_holds(signed)
    if not is_stamped(store, label):
        raise SignError("the time-stamp authority gave no stamp")
    return signed, Signed(store, label, identity.certificate)


Build = Callable[[Identity], tuple[bytes, bytes]]


def _stamped_or_not(build: Build, identity: Identity) -> tuple[bytes, bytes]:
    url = identity.timestamp_url
    if url is None:
        return _signing(build, identity)
    unstamped = replace(identity, timestamp_url=None)
    if is_out(url):
        return _signing(build, unstamped)
    try:
        return _signing(build, identity)
    except SignError:
        # Any fault of an authority looks alike here; what signs without one was its fault.
        made = _signing(build, unstamped)
        note_outage(url)
        return made


def _signing(build: Build, identity: Identity) -> tuple[bytes, bytes]:
    from c2pa import C2paError

    _raised.error = None
    try:
        return build(identity)
    except C2paError as error:
        if _raised.error is not None:
            raise _raised.error from None
        raise SignError(f"signing failed: {error}") from None


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


def reader_settings(anchors: bytes | Trust) -> dict[str, Any]:
    """SDK settings to verify by: `anchors` (PEM, or named lists of them) are trusted.

    Nothing is fetched from networks.
    """
    # Without trust_config, claimSigning and documentSigning certificates read as Invalid.
    uses = "\n".join(use.dotted_string for use in ACCEPTED_USES)
    trust: dict[str, Any] = {"trust_config": uses}
    # Lists of signers first: the SDK names the first one that holds a root.
    lists = sorted(as_trust(anchors), key=lambda each: each.kind != "signers")
    trust["anchors"] = [
        {
            "trust_anchors": each.pem.decode(),
            "trust_uri": each.address,
            "trust_kind": "manifest" if each.kind == "signers" else "tsa",
            "trust_config": uses,
        }
        for each in lists
        if each.pem.strip()
    ]
    # Unknown keys are ignored by the SDK without a word: tests show that each of these works.
    return {
        "builder": {"thumbnail": {"enabled": False}},
        "verify": {"verify_after_sign": True, "remote_manifest_fetch": False},
        "trust": trust,
    }


def _context(identity: Identity, intent: str = "") -> Any:
    """The context that signs as `identity` in this process, made once for each intent."""
    key = (os.getpid(), identity, intent)
    with _lock:
        if key not in _contexts:
            from c2pa import Context, Settings

            settings = reader_settings(identity.anchors)
            if intent:
                # Both the new signature and that of the manifest before it are stamped.
                stamps = {"enabled": True, "skip_existing": True, "fetch_scope": "parent"}
                settings["builder"] |= {"intent": intent, "auto_timestamp_assertion": stamps}
            _contexts[key] = Context(Settings.from_dict(settings), _signer(identity))
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
