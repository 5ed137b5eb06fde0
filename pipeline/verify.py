"""What any file says of its origin, and whether that holds: C2PA state, labels, decoding.

Works on files of ours and of others, whole or broken; a bad file is a report, never an exception.
"""

from __future__ import annotations

import hashlib
import io
import json
import mimetypes
import os
import stat
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pipeline.certificates import DEVELOPMENT_NAME
from pipeline.label import LabelError, read_packet
from pipeline.manifest import GENERATION, POLICY

State = Literal["Trusted", "Valid", "Invalid", "None"]

MAX_BYTES = 512 * 1024 * 1024
"""Larger files are hashed, but neither decoded nor searched for a manifest."""
MAX_PIXELS = 200_000_000

_MEANINGS = {
    "signingCredential.untrusted": "no configured root vouches for the signing certificate",
    "signingCredential.expired": "the signing certificate had expired and there is no time stamp",
    "signingCredential.invalid": "the signing certificate may not sign claims",
    "assertion.dataHash.mismatch": "the file was changed after it was signed",
    "assertion.hashedURI.mismatch": "a statement in the manifest was changed after signing",
    "assertion.missing": "a statement that the manifest names is missing",
    "claimSignature.mismatch": "the signature does not fit the manifest",
    "claimSignature.missing": "the manifest's signature is missing",
    "claimSignature.outsideValidity": "it was signed outside the certificate's validity",
    "timeStamp.mismatch": "the time stamp belongs to something else",
    "timeStamp.untrusted": "no configured root vouches for the time stamp",
}


@dataclass(frozen=True)
class Report:
    """What was found in one file. All of it is JSON (`as_json`).

    `state` is the C2PA validation state: Trusted (valid, and a configured root vouches for the
    signer), Valid, Invalid, or None without a manifest; `why` says so in words. `error` says why a
    file could not be looked at in full.
    """

    path: str
    state: State = "None"
    why: tuple[str, ...] = ()
    error: str | None = None
    sha256: str | None = None
    size: int | None = None
    mime: str | None = None
    width: int | None = None
    height: int | None = None
    decodes: bool = False
    development: bool = False
    signer: str | None = None
    signed_at: str | None = None
    claim_generator: str | None = None
    label: str | None = None
    source_types: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    ingredients: tuple[Mapping[str, Any], ...] = ()
    """What it was made from: title, relationship, instance id, and their own manifests' labels."""
    generation: Mapping[str, Any] | None = None
    policy: Mapping[str, Any] | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)
    verifier: str = ""

    @property
    def ok(self) -> bool:
        """Trusted, and every pixel decodes: what a script may take for a yes."""
        return self.state == "Trusted" and self.decodes

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON values, `ok` included."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return {"ok": self.ok, **plain}


def verify_file(path: Path, anchors: bytes) -> Report:
    """Everything that `path` says of its origin, checked against `anchors` (PEM roots).

    Never raises for a file, whatever it holds or lacks. Reads nothing but that file: a manifest
    that lies elsewhere is reported, not fetched.
    """
    found: dict[str, Any] = {"path": str(path), "verifier": _verifier()}
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Report(**found, error="is not a regular file", why=("there is no file to read",))
        with path.open("rb") as file:
            found["size"] = status.st_size
            found["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
            if status.st_size > MAX_BYTES:
                limit = f"is larger than {MAX_BYTES >> 20} MiB"
                return Report(**found, error=limit, why=("it was hashed only",))
            file.seek(0)
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Report(**found, error=reason, why=("it could not be read",))
    return verify_bytes(data, path, anchors, found)


def verify_bytes(
    data: bytes, path: Path, anchors: bytes, found: Mapping[str, Any] | None = None
) -> Report:
    """As `verify_file`, for bytes at hand; `path` names them in the report."""
    known = dict(found or {})
    known |= {"path": str(path), "verifier": _verifier(), "size": len(data)}
    known["sha256"] = known.get("sha256") or hashlib.sha256(data).hexdigest()
    picture = _look_at(data)
    known |= picture
    mime = picture.get("mime") or mimetypes.guess_type(path.name)[0]
    return Report(**{**known, "mime": mime, **_manifest(data, mime, anchors)})


def verify_signature(path: Path, mime: str, anchors: bytes) -> Report:
    """The C2PA part of `verify_file` alone, for a file whose SHA-256 is known to be unchanged.

    Neither decodes the pixels nor reads other labels: both were seen to when the file was signed.
    Raises OSError when it cannot be read.
    """
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    found = _manifest(data, mime, anchors)
    return Report(
        str(path), mime=mime, size=len(data), sha256=sha256, verifier=_verifier(), **found
    )


def _look_at(data: bytes) -> dict[str, Any]:
    """Decodes the whole image; what of it is known when that fails stays."""
    from PIL import Image, UnidentifiedImageError

    found: dict[str, Any] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                # Many phones' JPEGs hold a second picture; to everybody else they are JPEGs.
                kind = "JPEG" if image.format == "MPO" else image.format or ""
                found["mime"] = Image.MIME.get(kind)
                found["width"], found["height"] = image.size
                if image.width * image.height > MAX_PIXELS:
                    found["error"] = f"has more than {MAX_PIXELS:,} pixels and was not decoded"
                    found["labels"] = _labels(image.info)
                    return found
                try:
                    image.load()
                    found["decodes"] = True
                finally:
                    # After loading: PNG text may stand behind the pixels.
                    found["labels"] = _labels(image.info)
    except UnidentifiedImageError:
        found["error"] = "is no image that can be decoded"
    except Exception as error:  # decoders raise anything on broken files
        found["error"] = f"does not decode: {str(error) or type(error).__name__}"
    return found


def _labels(info: Mapping[Any, Any]) -> dict[str, Any]:
    packet = info.get("xmp") or info.get("XML:com.adobe.xmp")
    if not isinstance(packet, bytes | str) or not packet:
        return {}
    try:
        return dict(read_packet(packet))
    except LabelError as error:
        return {"unreadable": str(error)}


def _manifest(data: bytes, mime: str | None, anchors: bytes) -> dict[str, Any]:
    from c2pa import C2paError, Reader

    nothing = {"state": "None", "why": ("it carries no C2PA manifest",)}
    if mime is None or mime not in Reader.get_supported_mime_types():
        return {**nothing, "why": ("it is of no kind that carries a C2PA manifest here",)}
    try:
        with Reader(mime, io.BytesIO(data), context=_context(os.getpid(), anchors)) as reader:
            store = json.loads(reader.json())
    except C2paError as error:
        return _unread(str(error), nothing)
    except ValueError as error:
        return {"state": "Invalid", "why": (f"its manifest cannot be read: {error}",)}
    return _told(store)


def _unread(message: str, nothing: dict[str, Any]) -> dict[str, Any]:
    # The SDK has one exception; its message's prefix tells the kind.
    kind = message.split(":")[0]
    if kind == "ManifestNotFound":
        return nothing
    if kind in ("Remote", "RemoteManifest"):
        return {"state": "None", "why": (f"its manifest lies elsewhere: {message}",)}
    if kind in ("NotSupported", "Io", "Other") and "jumbf" not in message.lower():
        return {"state": "None", "why": (f"no manifest could be read: {message}",)}
    return {"state": "Invalid", "why": (f"its manifest cannot be read: {message}",)}


def _told(store: Mapping[str, Any]) -> dict[str, Any]:
    """What the active manifest says, and how the SDK judges it."""
    label = store.get("active_manifest")
    active = store.get("manifests", {}).get(label, {})
    signature = active.get("signature_info") or {}
    generator = (active.get("claim_generator_info") or [{}])[0]
    data = {each.get("label"): each.get("data") for each in active.get("assertions", [])}
    actions = [
        each for key in data if str(key).startswith("c2pa.actions") for each in _acts(data[key])
    ]
    state: State = store.get("validation_state") or "Invalid"
    return {
        "state": state,
        "why": _why(state, store, signature),
        "development": signature.get("common_name") == DEVELOPMENT_NAME,
        "signer": signature.get("common_name") or signature.get("issuer"),
        "signed_at": signature.get("time"),
        "claim_generator": " ".join(
            str(generator[key]) for key in ("name", "version") if generator.get(key)
        )
        or active.get("claim_generator"),
        "label": label,
        "source_types": tuple(
            dict.fromkeys(a["digitalSourceType"] for a in actions if a.get("digitalSourceType"))
        ),
        "actions": tuple(str(a.get("action")) for a in actions),
        "ingredients": tuple(
            {
                "title": each.get("title"),
                "relationship": each.get("relationship"),
                "instance_id": each.get("instance_id"),
                "manifest": each.get("active_manifest"),
            }
            for each in active.get("ingredients") or []
        ),
        "generation": data.get(GENERATION),
        "policy": data.get(POLICY),
    }


def _acts(data: Any) -> list[dict[str, Any]]:
    acts = data.get("actions") if isinstance(data, dict) else None
    return [act for act in acts or [] if isinstance(act, dict)]


def _why(state: State, store: Mapping[str, Any], signature: Mapping[str, Any]) -> tuple[str, ...]:
    words = list(dict.fromkeys(_worded(fault) for fault in _failures(store)))
    if state == "Trusted":
        name = signature.get("common_name") or signature.get("issuer")
        signer = f"the file is as {name!r} signed it, and a configured root vouches for that"
        if name == DEVELOPMENT_NAME:
            signer += "; it is a development certificate, worth no trust outside this workspace"
        return (signer, *words)
    if state == "Valid":
        return ("the file is as it was signed", *words)
    return tuple(words) or ("the manifest does not hold",)


def _failures(store: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    results = store.get("validation_results") or {}
    yield from (results.get("activeManifest") or {}).get("failure") or []
    # One failing ingredient alone can make a file Invalid.
    for delta in results.get("ingredientDeltas") or []:
        for fault in (delta.get("validationDeltas") or {}).get("failure") or []:
            yield {**fault, "ingredient": True}


def _worded(fault: Mapping[str, Any]) -> str:
    code = str(fault.get("code"))
    meaning = _MEANINGS.get(code) or str(fault.get("explanation") or "not further explained")
    return f"{'an ingredient: ' if fault.get('ingredient') else ''}{meaning} ({code})"


@lru_cache(maxsize=8)
def _context(pid: int, anchors: bytes) -> Any:
    from c2pa import Context, Settings

    from pipeline.sign import reader_settings

    return Context(Settings.from_dict(reader_settings(anchors)))


@lru_cache(maxsize=1)
def _verifier() -> str:
    """An SDK upgrade can judge old files differently, so reports name it."""
    from c2pa import sdk_version

    return f"c2pa-rs {sdk_version()}"
