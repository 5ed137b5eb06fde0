"""What a time-stamp reply is made of (CMS, RFC 5652), where pipeline/timestamp_token.py needs it.

Its verifier refuses replies as OpenSSL writes them, and of signers that it does not know it cannot
say whether they signed: here is what is missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

# TimeStampResp → timeStampToken → content [0] → SignedData (RFC 3161, 2.4.2; RFC 5652, 3).
_SIGNED_DATA = (0, 1, 1, 0)
_TAGGED_0 = 0xA0
_SET_OF = b"\x31"
# Object identifiers as DER has them (RFC 5754; RFC 8017, appendix C; RFC 5652, 11.2).
_HASHES: dict[bytes, hashes.HashAlgorithm] = {
    bytes.fromhex(identifier): algorithm
    for algorithm, identifiers in (
        (hashes.SHA256(), ("608648016503040201", "2a864886f70d01010b", "2a8648ce3d040302")),
        (hashes.SHA384(), ("608648016503040202", "2a864886f70d01010c", "2a8648ce3d040303")),
        (hashes.SHA512(), ("608648016503040203", "2a864886f70d01010d", "2a8648ce3d040304")),
    )
    for identifier in identifiers
}
_PSS = bytes.fromhex("2a864886f70d01010a")
_MESSAGE_DIGEST = bytes.fromhex("2a864886f70d010904")

Element = tuple[int, int, int]
"""Where a DER element starts, where its content does, and where both end."""


def with_sorted_certificates(reply: bytes) -> bytes:
    """The reply (a TimeStampResp) with its certificates in DER's order.

    OpenSSL and authorities built upon it write them leaf first. They are no part of what is signed
    (RFC 5652, 5.4), and CMS does not ask for DER there. Raises ValueError or IndexError when it is
    no DER.
    """
    if len(_elements(reply, *_inside(reply, 0))) < 2:
        # Refused, there is no token.
        return reply
    for first, start, end in _elements(reply, *_inside(reply, *_SIGNED_DATA)):
        if reply[first] == _TAGGED_0:
            certificates = sorted(reply[at:stop] for at, _, stop in _elements(reply, start, end))
            return reply[:start] + b"".join(certificates) + reply[end:]
    return reply


def signature_holds(reply: bytes, signer: x509.Certificate) -> bool:
    """Whether the certificate's owner signed the token of this reply (RFC 5652, 5.4 and 5.6).

    Nothing is said of who that is. Raises UnsupportedAlgorithm unless it is RSA or ECDSA with
    SHA-256, SHA-384 or SHA-512, ValueError or IndexError when it is no DER.
    """
    fields = _elements(reply, *_inside(reply, *_SIGNED_DATA))
    _, start, end = fields[2]
    content = slice(*_inside(reply[:end], 1, 0, start=start))
    _, start, end = fields[-1]
    parts = _elements(reply, *_inside(reply[:end], 0, start=start))
    _, _, digest_algorithm, attributes, signature_algorithm, signature = parts[:6]
    identifier = _identifier(reply, digest_algorithm)
    digest = _HASHES.get(identifier)
    if digest is None:
        raise UnsupportedAlgorithm(identifier.hex())
    if _attribute(reply, attributes, _MESSAGE_DIGEST) != _hashed(reply[content], digest):
        return False
    # Signed under the tag of a SET OF, not the one that they are sent with.
    signed = _SET_OF + reply[attributes[0] + 1 : attributes[2]]
    identifier = _identifier(reply, signature_algorithm)
    # A signature algorithm that names no hash, as rsaEncryption, goes with the digest's.
    algorithm = _HASHES.get(identifier, digest)
    try:
        _verify(signer, reply[slice(*signature[1:])], signed, algorithm, pss=identifier == _PSS)
    except InvalidSignature:
        return False
    return True


def _verify(
    signer: x509.Certificate,
    signature: bytes,
    signed: bytes,
    algorithm: hashes.HashAlgorithm,
    *,
    pss: bool,
) -> None:
    key = signer.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        if pss:
            scheme = padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO)
            key.verify(signature, signed, scheme, algorithm)
        else:
            key.verify(signature, signed, padding.PKCS1v15(), algorithm)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, signed, ec.ECDSA(algorithm))
    else:
        raise UnsupportedAlgorithm(type(key).__name__)


def _attribute(reply: bytes, attributes: Element, wanted: bytes) -> bytes | None:
    """The value of one signed attribute, None when it is not among them."""
    for _, start, end in _elements(reply, *attributes[1:]):
        identifier, values = _elements(reply, start, end)
        if reply[slice(*identifier[1:])] == wanted:
            return reply[slice(*_inside(reply[: values[2]], 0, start=values[1]))]
    return None


def _identifier(reply: bytes, algorithm: Element) -> bytes:
    return reply[slice(*_inside(reply[: algorithm[2]], 0, start=algorithm[1]))]


def _hashed(content: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
    return hashlib.new(algorithm.name, content).digest()


def _inside(data: bytes, *places: int, start: int = 0) -> tuple[int, int]:
    """Where the content of an element is: the first place among the outermost, and so on."""
    end = len(data)
    for place in places:
        _, start, end = _elements(data, start, end)[place]
    return start, end


def _elements(data: bytes, start: int, end: int) -> Sequence[Element]:
    found = []
    while start < end:
        content = start + 2
        length = data[start + 1]
        if length > 0x80:
            content += length & 0x7F
            length = int.from_bytes(data[start + 2 : content])
        elif length == 0x80:
            raise ValueError("a length that is not definite is no DER")
        if content + length > end:
            raise ValueError("an element is longer than what holds it")
        found.append((start, content, content + length))
        start = content + length
    return found
