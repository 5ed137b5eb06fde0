"""Who signs: configured keys, a callback (KMS, HSM), or a development CA minted on first use.

Everything is checked here, before the first image; pipeline/sign.py uses the result.
"""

from __future__ import annotations

import importlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pipeline.certificates import (
    chain_faults,
    described,
    is_development,
    pem,
    signature_belongs,
)
from pipeline.development import CA_FILE, CHAIN_FILE, KEY_FILE, init_development_keys
from pipeline.errors import Fault, InputError, SetupError
from pipeline.settings import Settings, Signing
from pipeline.timestamps import check_timestamp_authority

__all__ = [
    "Identity",
    "init_development_keys",
    "is_development",
    "signing_identity",
    "trust_anchors",
]

SignCallback = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Identity:
    """A checked signer. `key` (PKCS#8 PEM) or `callback` signs; neither is shown in messages.

    `chain` is PEM, leaf first; `anchors` PEM roots that its signatures are verified against after
    signing; `certificate` names the leaf for the catalog; `producer` names who makes the images.
    """

    chain: bytes = field(repr=False)
    algorithm: str
    anchors: bytes = field(repr=False)
    certificate: str
    development: bool
    producer: str
    key: bytes | None = field(default=None, repr=False)
    callback: SignCallback | None = field(default=None, repr=False)
    timestamp_url: str | None = None


def signing_identity(settings: Settings) -> Identity:
    """The signer that `settings` asks for, checked; mints the development one when none is set.

    Raises InputError with every fault of configured keys, SetupError when the development keys are
    damaged or the time-stamp authority does not answer.
    """
    signing = settings.signing
    if not (signing.certificates or signing.key or signing.callback):
        if signing.algorithm != "es256":
            remedy = "set signing.certificates and signing.key too"
            raise InputError(
                "signing",
                [Fault("the development certificate is es256", "signing.algorithm", remedy)],
            )
        return _development(settings)
    faults = _combination_faults(signing)
    chain = _read_chain(signing, faults)
    key = _read_key(signing.key, faults) if signing.key else None
    callback = _load_callback(signing.callback, faults) if signing.callback else None
    if chain:
        certificates = x509.load_pem_x509_certificates(chain)
        faults += chain_faults(certificates, signing.algorithm, str(signing.certificates))
        faults += _belonging_faults(certificates[0], signing, key, callback)
    if faults:
        raise InputError("signing keys", faults)
    if signing.timestamp_url:
        check_timestamp_authority(signing.timestamp_url)
    return Identity(
        chain=chain,
        algorithm=signing.algorithm,
        anchors=b"".join(map(pem, certificates[1:])) + _configured_anchors(settings),
        certificate=described(certificates[0]),
        development=is_development(certificates[0]),
        producer=settings.producer,
        key=key,
        callback=callback,
        timestamp_url=signing.timestamp_url,
    )


def trust_anchors(settings: Settings) -> bytes:
    """PEM roots that verification trusts: the development CA, if minted, and configured ones.

    The top of the configured signing chain is one of them, so that our own files are Trusted here.
    Raises InputError when a configured file is unusable.
    """
    own = settings.keys / CA_FILE
    anchors = own.read_bytes() if own.is_file() else b""
    if settings.signing.certificates:
        faults: list[Fault] = []
        chain = _read_chain(settings.signing, faults)
        if faults:
            raise InputError("signing keys", faults)
        anchors += b"\n" + pem(x509.load_pem_x509_certificates(chain)[-1])
    return anchors + _configured_anchors(settings)


def _development(settings: Settings) -> Identity:
    folder = settings.keys
    init_development_keys(folder)
    faults: list[Fault] = []
    key = _read_key(folder / KEY_FILE, faults)
    chain = (folder / CHAIN_FILE).read_bytes()
    leaf, *_ = certificates = x509.load_pem_x509_certificates(chain)
    faults += chain_faults(certificates, "es256", str(folder / CHAIN_FILE))
    if key and not _key_belongs(leaf, key):
        faults.append(_mismatch(str(folder)))
    if faults:
        listed = "; ".join(map(str, faults))
        raise SetupError(
            f"the development keys cannot be used: {listed}; to mint new ones move {folder} away "
            f"(keep its {CA_FILE} as signing.trust_anchors, files signed so far verify with it)"
        )
    if settings.signing.timestamp_url:
        check_timestamp_authority(settings.signing.timestamp_url)
    return Identity(
        chain=chain,
        algorithm="es256",
        anchors=(folder / CA_FILE).read_bytes(),
        certificate=described(leaf),
        development=True,
        producer=settings.producer,
        key=key,
        timestamp_url=settings.signing.timestamp_url,
    )


def _combination_faults(signing: Signing) -> list[Fault]:
    faults = []
    if not signing.certificates:
        remedy = "name the PEM chain, leaf first"
        faults.append(Fault("is missing", "signing.certificates", remedy))
    if signing.key and signing.callback:
        faults.append(Fault("both are set", "signing.key, signing.callback", "keep one of them"))
    if not (signing.key or signing.callback):
        remedy = "name the key that belongs to signing.certificates, or a callback"
        faults.append(Fault("is missing", "signing.key", remedy))
    return faults


def _read_chain(signing: Signing, faults: list[Fault]) -> bytes:
    if signing.certificates is None:
        return b""
    try:
        chain = signing.certificates.read_bytes()
        x509.load_pem_x509_certificates(chain)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        faults.append(Fault(what, str(signing.certificates), "check path and rights"))
        return b""
    except ValueError:
        what = "holds no PEM certificates"
        faults.append(Fault(what, str(signing.certificates), "give a PEM chain, leaf first"))
        return b""
    return chain


def _read_key(path: Path, faults: list[Fault]) -> bytes | None:
    """A private key's PEM. Its text never reaches a message."""
    where = str(path)
    try:
        key = path.read_bytes()
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        faults.append(Fault(f"cannot be read: {error.strerror}", where, "check path and rights"))
        return None
    if os.name == "posix" and mode & 0o077:
        what = f"others than its owner may use this key (mode {mode:04o})"
        faults.append(Fault(what, where, f"chmod 600 {path}"))
    if b"BEGIN ENCRYPTED PRIVATE KEY" in key:
        remedy = "store it decrypted, mode 0600, or sign through a callback"
        faults.append(Fault("the key is protected by a passphrase", where, remedy))
        return None
    if b"BEGIN PRIVATE KEY" not in key:
        remedy = f"openssl pkcs8 -topk8 -nocrypt -in {path} -out pkcs8.pem"
        faults.append(Fault("is no PKCS#8 PEM key", where, remedy))
        return None
    return key


def _load_callback(name: str, faults: list[Fault]) -> SignCallback | None:
    module, _, function = name.partition(":")
    try:
        callback = getattr(importlib.import_module(module), function)
    except Exception as error:  # importing someone's module may raise anything
        what = f"cannot be imported: {type(error).__name__}: {error}"
        faults.append(Fault(what, "signing.callback", "write it as module:function"))
        return None
    if not callable(callback):
        faults.append(Fault(f"{name} is no function", "signing.callback", "name a function"))
        return None
    found: SignCallback = callback
    return found


def _belonging_faults(
    leaf: x509.Certificate, signing: Signing, key: bytes | None, callback: SignCallback | None
) -> list[Fault]:
    if key and not _key_belongs(leaf, key):
        return [_mismatch(str(signing.key))]
    if callback:
        probe = b"Platemark asks whether this key belongs to the certificate"
        try:
            signature = callback(probe)
        except Exception as error:  # a KMS client may raise anything
            what = f"does not sign: {type(error).__name__}: {error}"
            return [Fault(what, "signing.callback", "check its credentials and its network")]
        if not signature_belongs(leaf, signing.algorithm, probe, signature):
            return [_mismatch("signing.callback")]
    return []


def _key_belongs(leaf: x509.Certificate, key: bytes) -> bool:
    try:
        public = serialization.load_pem_private_key(key, password=None).public_key()
    except (ValueError, TypeError):
        return False
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return public.public_bytes(*form) == leaf.public_key().public_bytes(*form)


def _mismatch(where: str) -> Fault:
    remedy = "use the key that the certificate was issued for"
    return Fault("the key does not belong to the certificate", where, remedy)


def _configured_anchors(settings: Settings) -> bytes:
    path = settings.signing.trust_anchors
    if path is None:
        return b""
    try:
        anchors = path.read_bytes()
        x509.load_pem_x509_certificates(anchors)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "holds no PEM certificates"
        fault = Fault(str(reason), str(path), "name a file of PEM root certificates")
        raise InputError("signing.trust_anchors", [fault]) from None
    return b"\n" + anchors
