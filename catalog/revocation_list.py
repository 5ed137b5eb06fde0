"""revoked.json: a signed list of what was taken back, for people who have packs but no catalog.

Signed like the images, by the same certificate: whoever trusts those can trust the list.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding

from catalog.lake import Lake
from catalog.revocation import Revocation, as_json
from pipeline.certificates import ACCEPTED_USES, described, signature_belongs
from pipeline.errors import Fault, InputError
from pipeline.keys import Identity
from pipeline.request import canonical_json

FORMAT = "platemark-revocations/1"
MAX_BYTES = 64 << 20
_UNUSABLE = (
    *(ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error),
    UnsupportedAlgorithm,
)
"""What reading raises on a document of any kind."""
_HASHES: dict[str, Any] = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}

_LISTED = """
SELECT r.kind, r.pack_id, r.request_id, r.asset_sha256, r.reason, r.revoked_by, r.revoked_at,
       list_sort(list_distinct(list_concat(
           coalesce(list(a.sha256) FILTER (a.sha256 IS NOT NULL), []),
           coalesce(list(n.sha256) FILTER (n.sha256 IS NOT NULL), []),
           coalesce(list(f.asset_sha256) FILTER (f.asset_sha256 IS NOT NULL), []),
           coalesce(list(p.sha256) FILTER (p.sha256 IS NOT NULL), [])))) AS files
FROM revocations AS r
LEFT JOIN assets AS a ON r.kind = 'asset' AND a.request_id = r.request_id
LEFT JOIN renditions AS n ON r.kind = 'asset' AND n.request_id = r.request_id
LEFT JOIN pack_assets AS f ON r.kind = 'pack' AND f.pack_id = r.pack_id
LEFT JOIN packs AS p ON r.kind = 'pack' AND p.pack_id = r.pack_id
GROUP BY ALL ORDER BY r.revoked_at
"""


@dataclass(frozen=True)
class RevocationList:
    """A list whose signature holds: who signed it, when, and what it revokes by SHA-256 (hex)."""

    signer: str
    issued_at: datetime
    by_sha256: dict[str, list[Revocation]]


def write_revocation_list(lake: Lake, identity: Identity, now: datetime | None = None) -> bytes:
    """The list of all that was revoked, signed by `identity`: one JSON document, UTF-8."""
    listed = []
    for row in lake.rows(_LISTED):
        files = row.pop("files")
        listed.append({**as_json(Revocation(**row)), "files": files})
    told = {
        "format": FORMAT,
        "issued_at": (now or datetime.now(UTC)).isoformat(),
        "revoked": listed,
    }
    signature = base64.b64encode(_signed(canonical_json(told), identity)).decode()
    chain = identity.chain.decode()
    document = {"list": told, "algorithm": identity.algorithm, "chain": chain}
    return json.dumps({**document, "signature": signature}, indent=1).encode() + b"\n"


def read_revocation_list(data: bytes, anchors: bytes) -> RevocationList:
    """The list, if a certificate that `anchors` (PEM roots) vouch for has signed just these bytes.

    Raises InputError when it is no such list, was changed, or is signed by somebody else.
    """
    try:
        if len(data) > MAX_BYTES:
            raise ValueError("it is too large")
        document = json.loads(data)
        told, algorithm = document["list"], str(document["algorithm"])
        chain = x509.load_pem_x509_certificates(str(document["chain"]).encode())
        signature = base64.b64decode(document["signature"], validate=True)
        if told["format"] != FORMAT:
            raise ValueError(f"its format is {told['format']!r}")
        issued_at = datetime.fromisoformat(told["issued_at"])
        if not signature_belongs(chain[0], algorithm, canonical_json(told), signature):
            raise ValueError("its signature does not hold: it was changed")
        _refuse_stranger(chain, anchors, issued_at)
        return RevocationList(described(chain[0]), issued_at, _by_sha256(told["revoked"]))
    except _UNUSABLE as error:
        what = f"{type(error).__name__} {error}" if isinstance(error, KeyError) else str(error)
        fault = Fault(what, "", "get it again from whoever delivered the pack")
        raise InputError("revocation list", [fault]) from None


def _by_sha256(listed: list[dict[str, Any]]) -> dict[str, list[Revocation]]:
    found: dict[str, list[Revocation]] = {}
    for each in listed:
        files = [str(file) for file in each.pop("files")]
        moment = datetime.fromisoformat(each.pop("revoked_at"))
        revocation = Revocation(**each, revoked_at=moment)
        for file in files:
            found.setdefault(file, []).append(revocation)
    return found


def _refuse_stranger(chain: list[x509.Certificate], anchors: bytes, when: datetime) -> None:
    """Path validation (RFC 5280, 6.1) as far as C2PA's certificates need it. Raises ValueError."""
    roots = x509.load_pem_x509_certificates(anchors) if anchors.strip() else []
    if not all(each.not_valid_before_utc <= when <= each.not_valid_after_utc for each in chain):
        raise ValueError("it was signed outside its certificate's validity")
    _refuse_leaf(chain[0])
    for place, (child, parent) in enumerate(pairwise(chain)):
        if not _issued(child, parent, below=place):
            raise ValueError("its chain of certificates does not hold")
    below = len(chain) - 1
    if not any(chain[-1] == root or _issued(chain[-1], root, below) for root in roots):
        raise ValueError(f"no configured root vouches for its signer, {described(chain[0])}")


def _refuse_leaf(leaf: x509.Certificate) -> None:
    """Only what may sign images may sign lists."""
    basic = _extension(leaf, x509.BasicConstraints)
    usage = _extension(leaf, x509.KeyUsage)
    uses = _extension(leaf, x509.ExtendedKeyUsage) or ()
    signs = usage is not None and usage.digital_signature
    if (basic and basic.ca) or not signs or not any(use in ACCEPTED_USES for use in uses):
        raise ValueError(f"its certificate is not one that signs images: {described(leaf)}")


def _issued(child: x509.Certificate, parent: x509.Certificate, below: int) -> bool:
    """Whether `parent` may issue certificates, has issued `child`, and allows as many
    intermediate ones below itself."""
    basic = _extension(parent, x509.BasicConstraints)
    if basic is None or not basic.ca:
        return False
    if basic.path_length is not None and basic.path_length < below:
        return False
    usage = _extension(parent, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        return False
    try:
        child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _extension(certificate: x509.Certificate, kind: type[Any]) -> Any:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise ValueError(f"a certificate of its signer cannot be read: {error}") from None


def _signed(data: bytes, identity: Identity) -> bytes:
    if identity.key is None:
        assert identity.callback is not None
        return identity.callback(data)
    key: Any = serialization.load_pem_private_key(identity.key, None)
    digest = _HASHES.get(identity.algorithm[2:], hashes.SHA256)()
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(digest))
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    signature: bytes = key.sign(data, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    return signature
