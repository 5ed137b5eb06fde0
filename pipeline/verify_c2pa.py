"""The C2PA part of a report: state, why, and what the manifest says of the file's making.

The SDK judges hashes, signatures and trust; here its answer becomes words and fields. Used by
pipeline/verify.py.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal

from pipeline.certificates import DEVELOPMENT_NAME
from pipeline.manifest import GENERATION, POLICY
from pipeline.trust import Trust, as_trust

State = Literal["Trusted", "Valid", "Invalid", "None"]

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
NOTHING: dict[str, Any] = {"state": "None", "why": ("it carries no C2PA manifest",)}
_MAX_UPDATES = 32
_NOT_FOR_SIGNERS = "the list that vouches for the signer, {}, is one of time-stamp authorities"


def judged(data: bytes, mime: str | None, trust: Trust) -> dict[str, Any]:
    """Fields of a Report from the manifest in `data`, checked against `trust`. Never raises."""
    from c2pa import Reader

    if mime is None or mime not in Reader.get_supported_mime_types():
        return {**NOTHING, "why": ("it is of no kind that carries a C2PA manifest here",)}
    found = _read(data, mime, trust)
    vouching = next((each for each in trust if each.address == found.get("trust_list")), None)
    if vouching is None or vouching.kind == "signers":
        return {**found, "trust_list": vouching.name if vouching else None}
    # The SDK lets roots of time-stamp authorities vouch for signers too: without them, once more.
    again = judged(data, mime, tuple(each for each in trust if each.kind == "signers"))
    why = again["why"]
    if again["state"] != "Trusted":
        why = (*why, _NOT_FOR_SIGNERS.format(vouching.name))
    return {**again, "why": why, "time_stamp": found["time_stamp"]}


def _read(data: bytes, mime: str, trust: Trust) -> dict[str, Any]:
    from c2pa import C2paError, Reader

    try:
        with Reader(mime, io.BytesIO(data), context=_context(os.getpid(), trust)) as reader:
            store = json.loads(reader.json())
        return _told(store)
    except C2paError as error:
        return _unread(str(error))
    # JSON of any shape, from a manifest that anybody may have written.
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        return {"state": "Invalid", "why": (f"its manifest cannot be read: {error}",)}


@lru_cache(maxsize=1)
def verifier() -> str:
    """An SDK upgrade can judge old files differently, so reports name it."""
    from c2pa import sdk_version

    return f"c2pa-rs {sdk_version()}"


def _unread(message: str) -> dict[str, Any]:
    # The SDK has one exception; its message's prefix tells the kind.
    kind = message.split(":")[0]
    if kind == "ManifestNotFound":
        return NOTHING
    if kind in ("Remote", "RemoteManifest"):
        return {"state": "None", "why": (f"its manifest lies elsewhere: {message}",)}
    if kind in ("NotSupported", "Io", "Other") and "jumbf" not in message.lower():
        return {"state": "None", "why": (f"no manifest could be read: {message}",)}
    return {"state": "Invalid", "why": (f"its manifest cannot be read: {message}",)}


def _told(store: Mapping[str, Any]) -> dict[str, Any]:
    """What the active manifest says, and how the SDK judges it."""
    label = store.get("active_manifest")
    manifests = store.get("manifests") or {}
    active = manifests.get(label) or {}
    signature = active.get("signature_info") or {}
    state: State = store.get("validation_state") or "Invalid"
    results = store.get("validation_results") or {}
    return {
        "state": state,
        "why": _why(state, store, signature),
        "trust_list": results.get("trustListUri") if state == "Trusted" else None,
        "time_stamp": _time_stamp(results),
        "development": signature.get("common_name") == DEVELOPMENT_NAME,
        "signer": signature.get("common_name") or signature.get("issuer"),
        "signed_at": signature.get("time"),
        "label": label,
        **_making(before_updates(active, manifests)),
    }


def before_updates(manifest: Mapping[str, Any], manifests: Mapping[str, Any]) -> Any:
    """The manifest that tells the making: below those that only bring a time stamp."""
    for _ in range(_MAX_UPDATES):
        if not any(each.get("label") == "c2pa.time-stamp" for each in _assertions(manifest)):
            break
        parents = [
            each.get("active_manifest")
            for each in manifest.get("ingredients") or []
            if each.get("relationship") == "parentOf"
        ]
        if len(parents) != 1 or parents[0] not in manifests:
            break
        manifest = manifests[parents[0]]
    return manifest


def _making(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What one manifest says of how the file was made."""
    generator = (manifest.get("claim_generator_info") or [{}])[0]
    data = {str(each.get("label")): each.get("data") for each in _assertions(manifest)}
    actions = [each for key in data if key.startswith("c2pa.actions") for each in _acts(data[key])]
    return {
        "claim_generator": " ".join(
            str(generator[key]) for key in ("name", "version") if generator.get(key)
        )
        or manifest.get("claim_generator"),
        "source_types": tuple(
            dict.fromkeys(a["digitalSourceType"] for a in actions if a.get("digitalSourceType"))
        ),
        "actions": tuple(str(a.get("action")) for a in actions),
        "assertions": tuple(data),
        "ingredients": tuple(
            {
                "title": each.get("title"),
                "relationship": each.get("relationship"),
                "instance_id": each.get("instance_id"),
                "manifest": each.get("active_manifest"),
            }
            for each in manifest.get("ingredients") or []
        ),
        "disclosure": _mapping(data.get("c2pa.ai-disclosure")),
        "generation": _mapping(data.get(GENERATION)),
        "policy": _mapping(data.get(POLICY)),
    }


def _assertions(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [each for each in manifest.get("assertions") or [] if isinstance(each, dict)]


def _mapping(data: Any) -> dict[str, Any] | None:
    return data if isinstance(data, dict) else None


def _acts(data: Any) -> list[dict[str, Any]]:
    acts = data.get("actions") if isinstance(data, dict) else None
    return [act for act in acts or [] if isinstance(act, dict)]


def _time_stamp(results: Mapping[str, Any]) -> str | None:
    found = (results.get("activeManifest") or {}).get("success") or []
    codes = {each.get("code") for each in found}
    if "timeStamp.validated" not in codes:
        return None
    return "Trusted" if "timeStamp.trusted" in codes else "Valid"


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


def offline_context() -> Any:
    """A C2PA context that trusts nobody and fetches nothing from wherever a file says."""
    return _context(os.getpid(), as_trust(b""))


@lru_cache(maxsize=8)
def _context(pid: int, trust: Trust) -> Any:
    from c2pa import Context, Settings

    from pipeline.sign import reader_settings

    return Context(Settings.from_dict(reader_settings(trust)))
