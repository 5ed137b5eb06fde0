"""What a C2PA signing certificate must be, checked before anything is signed.

The rules are those of C2PA 2.4, 14.5 (certificate profile), as far as the SDK enforces them late or
with messages that do not help. Used by pipeline/keys.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pipeline.errors import Fault

CLAIM_SIGNING = x509.ObjectIdentifier("1.3.6.1.4.1.62558.2.1")
ACCEPTED_USES = (
    CLAIM_SIGNING,
    ExtendedKeyUsageOID.EMAIL_PROTECTION,
    x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36"),  # documentSigning
)
DEVELOPMENT_NAME = "Platemark development certificate"
_CURVES = {"es256": ec.SECP256R1, "es384": ec.SECP384R1, "es512": ec.SECP521R1}
_HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "256": hashes.SHA256,
    "384": hashes.SHA384,
    "512": hashes.SHA512,
}


def is_development(certificate: x509.Certificate) -> bool:
    """Whether Platemark minted this certificate itself: good for trying out, worth no trust."""
    return common_name(certificate) == DEVELOPMENT_NAME


def common_name(certificate: x509.Certificate) -> str:
    """The subject's common name, or the whole subject when it has none."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string()


def pem(certificate: x509.Certificate) -> bytes:
    """The certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def described(certificate: x509.Certificate) -> str:
    """`common name (sha256:fingerprint)`: how catalog and reports name a certificate."""
    return f"{common_name(certificate)} (sha256:{certificate.fingerprint(hashes.SHA256()).hex()})"


def chain_faults(chain: Sequence[x509.Certificate], algorithm: str, where: str) -> list[Fault]:
    """Every reason why `chain` (leaf first) cannot sign claims with `algorithm`."""
    leaf = chain[0]
    faults = _leaf_faults(leaf, where)
    if not _suits(leaf.public_key(), algorithm):
        faults.append(
            Fault(f"the certificate's key is not for {algorithm}", where, "set signing.algorithm")
        )
    for below, above in itertools.pairwise(chain):
        try:
            below.verify_directly_issued_by(above)
        except (ValueError, TypeError, InvalidSignature):
            what = f"{common_name(below)!r} is not issued by {common_name(above)!r}"
            faults.append(Fault(what, where, "order the chain leaf first, each under its issuer"))
    return faults


def _leaf_faults(leaf: x509.Certificate, where: str) -> list[Fault]:
    faults = []
    now = datetime.now(UTC)
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        what = (
            f"the certificate is valid from {leaf.not_valid_before_utc:%Y-%m-%d} "
            f"to {leaf.not_valid_after_utc:%Y-%m-%d}, not now"
        )
        faults.append(Fault(what, where, "renew it, or set this machine's clock"))
    if leaf.issuer == leaf.subject:
        faults.append(
            Fault("the certificate is self-signed", where, "C2PA needs one issued by a CA")
        )
    basic = _extension(leaf, x509.BasicConstraints)
    if basic is not None and basic.ca:
        faults.append(Fault("the first certificate is a CA", where, "put the leaf first"))
    if _extension(leaf, x509.AuthorityKeyIdentifier) is None:
        faults.append(Fault("no authority key identifier", where, "have it issued with one"))
    usage = _extension(leaf, x509.KeyUsage)
    if usage is None or not usage.digital_signature:
        faults.append(Fault("key usage lacks digitalSignature", where, "have it issued with it"))
    uses = list(_extension(leaf, x509.ExtendedKeyUsage) or ())
    if ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in uses:
        faults.append(Fault("extended key usage `any`", where, "C2PA forbids it; name the use"))
    elif not any(use in ACCEPTED_USES for use in uses):
        wanted = "claimSigning (1.3.6.1.4.1.62558.2.1), emailProtection or documentSigning"
        faults.append(
            Fault("no extended key usage for C2PA", where, f"have it issued with {wanted}")
        )
    return faults


def _extension(certificate: x509.Certificate, kind: type[Any]) -> Any:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except (x509.ExtensionNotFound, ValueError):
        return None


def _suits(public_key: Any, algorithm: str) -> bool:
    if algorithm in _CURVES:
        return isinstance(public_key, ec.EllipticCurvePublicKey) and isinstance(
            public_key.curve, _CURVES[algorithm]
        )
    if algorithm.startswith("ps"):
        return isinstance(public_key, rsa.RSAPublicKey) and public_key.key_size >= 2048
    return isinstance(public_key, ed25519.Ed25519PublicKey)


def signature_belongs(
    certificate: x509.Certificate, algorithm: str, data: bytes, sig: bytes
) -> bool:
    """Whether `sig` over `data` was made with the certificate's key (DER or raw for ECDSA)."""
    key: Any = certificate.public_key()
    if not _suits(key, algorithm):
        return False
    try:
        if algorithm in _CURVES:
            size = (key.curve.key_size + 7) // 8
            if len(sig) == 2 * size:
                r, s = int.from_bytes(sig[:size], "big"), int.from_bytes(sig[size:], "big")
                sig = utils.encode_dss_signature(r, s)
            key.verify(sig, data, ec.ECDSA(_HASHES[algorithm[2:]]()))
        elif algorithm.startswith("ps"):
            digest = _HASHES[algorithm[2:]]()
            salt = padding.PSS(padding.MGF1(digest), digest.digest_size)
            key.verify(sig, data, salt, digest)
        else:
            key.verify(sig, data)
    except InvalidSignature:
        return False
    return True
