"""A time stamp (RFC 3161) as evidence: of what it is, when it was given, by whom, if it holds.

For the ledger's checkpoints (catalog/ledger_stamps.py); stamps in C2PA manifests are the SDK's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from pipeline.certificates import common_name
from pipeline.timestamp_cms import signature_holds, with_sorted_certificates

if TYPE_CHECKING:
    from rfc3161_client import TimeStampResponse

_SHA256 = "2.16.840.1.101.3.4.2.1"


@dataclass(frozen=True)
class Stamp:
    """What a time stamp says: `time` (UTC) and the `authority`, by its certificate's name.

    `trusted`: one of the reader's roots vouches for the authority. If none does, anybody may have
    made the stamp.
    """

    time: datetime
    authority: str
    trusted: bool


class StampError(ValueError):
    """Why a time stamp does not hold, or was not given, in words."""


def read_stamp(
    reply: bytes, imprint: bytes, roots: Sequence[x509.Certificate], nonce: int | None = None
) -> Stamp:
    """Reads a TimeStampResp (DER) and checks that it is of `imprint`, a SHA-256 of 32 bytes.

    `roots` are the authorities' that the reader trusts; certificates need to be valid at the
    stamp's time only. Raises StampError when it is damaged, not granted, of something else, answers
    another request than that with `nonce`, or when its signature does not hold.
    """
    from rfc3161_client import decode_timestamp_response

    try:
        found = decode_timestamp_response(with_sorted_certificates(reply))
        if why := _refusal(found):
            raise StampError(f"is refused {why}")
        info = found.tst_info
        of = info.message_imprint
        if (of.hash_algorithm.dotted_string, of.message) != (_SHA256, imprint):
            raise StampError("is of something else")
        if nonce is not None and info.nonce != nonce:
            raise StampError("answers another request")
        signer = _signer_of(found)
        # Whether the signature of a stranger holds the verifier does not say.
        trusted = bool(roots) and _vouched_for(found, imprint, roots)
        if not trusted and not signature_holds(reply, signer):
            raise StampError("has a signature that does not hold")
        # A name comes from outside, and goes to terminals.
        name = "".join(filter(str.isprintable, common_name(signer)))
        return Stamp(info.gen_time.astimezone(UTC), name, trusted)
    except StampError:
        raise
    except UnsupportedAlgorithm:
        raise StampError("is signed with an algorithm that is not known here") from None
    # Whatever parsers raise on bytes of any kind: ValueError, InvalidVersion, …
    except Exception:
        raise StampError("is damaged") from None


def refusal(reply: bytes) -> str | None:
    """The status with which a TimeStampResp (DER) refuses; None when it does not, or is none."""
    from rfc3161_client import decode_timestamp_response

    try:
        return _refusal(decode_timestamp_response(with_sorted_certificates(reply)))
    # Whatever parsers raise on bytes of any kind.
    except Exception:
        return None


def _refusal(found: TimeStampResponse) -> str | None:
    told = " ".join(found.status_string)[:200]
    return f"with status {found.status} {told!r}" if found.status != 0 else None


def _vouched_for(
    found: TimeStampResponse, imprint: bytes, roots: Sequence[x509.Certificate]
) -> bool:
    """Whether it holds, by a certificate for time stamps that leads to one of the roots."""
    from rfc3161_client import VerificationError, VerifierBuilder

    try:
        return VerifierBuilder(roots=list(roots)).build().verify(found, imprint)
    except VerificationError:
        return False


def _signer_of(found: TimeStampResponse) -> x509.Certificate:
    (signer,) = found.signed_data.signer_infos
    for each in map(x509.load_der_x509_certificate, found.signed_data.certificates):
        if (each.issuer, each.serial_number) == (signer.issuer, signer.serial_number):
            return each
    raise StampError("lacks its signer's certificate")
