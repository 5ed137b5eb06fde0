"""Which files of a pack need the C2PA library again, and which are proven by their hash.

A file's C2PA state follows from its bytes, the library's version, the roots that are trusted, and,
through the signing certificate, the day. Signing ends with reading the file back and verifying it,
so bytes with the catalogued SHA-256 are known to verify while library and certificate are the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.lake import Lake
from catalog.rows import text_table

if TYPE_CHECKING:
    from pipeline.verify import Report

SDK = "c2pa-python"
# Verified by the library that is installed now: when a run or an export signed it, or since. From
# the tables themselves: attempts that do not count were signed and verified like others.
_VERIFIED_BY_THIS_SDK = """
SELECT i.sha256 FROM wanted JOIN raw.images AS i USING (sha256)
WHERE i.asset_state = 'signed' AND i.run_id IN (
    SELECT run_id FROM raw.runs WHERE json_extract_string(versions, $path) = $version)
UNION
SELECT n.sha256 FROM wanted JOIN raw.renditions AS n USING (sha256) WHERE n.sdk = $version
UNION
SELECT v.sha256 FROM wanted JOIN raw.verifications AS v USING (sha256)
WHERE v.state = 'Trusted' AND v.verifier = $verifier
"""


def proven_by_hash(
    lake: Lake,
    rows: Sequence[Mapping[str, Any]],
    verify: Callable[[Path], Report],
    locate: Callable[[str], Path],
    now: datetime | None = None,
) -> set[str]:
    """The SHA-256 of those files that need no full reading as long as their bytes have it.

    `rows` have sha256, url and certificate. Of each signing certificate one file is read in full
    here: unless it is Trusted today under today's roots, and the certificate still runs, none of
    its files is proven.
    """
    from c2pa import sdk_version

    wanted = text_table(sha256=[row["sha256"] for row in rows if row["sha256"]])
    given = {
        "path": f'$."{SDK}"',
        "version": version(SDK),
        "verifier": f"c2pa-rs {sdk_version()}",
    }
    found = lake.rows(_VERIFIED_BY_THIS_SDK, given, wanted=wanted)
    signed = {row["sha256"] for row in found}
    by_certificate: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["sha256"] in signed and row["url"] and row["certificate"]:
            by_certificate.setdefault(row["certificate"], []).append(row)
    moment = now or datetime.now(UTC)
    return {
        row["sha256"]
        for certificate, same in by_certificate.items()
        if _runs(certificate, locate(same[0]["url"]), verify, moment)
        for row in same
    }


def _runs(certificate: str, path: Path, verify: Callable[[Path], Report], now: datetime) -> bool:
    """Whether a file of this certificate is Trusted today, and the certificate has not expired."""
    try:
        report, data = verify(path), path.read_bytes()
    except OSError:
        return False
    until = _valid_until(data, certificate)
    return report.state == "Trusted" and until is not None and now < until


def _valid_until(data: bytes, certificate: str) -> datetime | None:
    """The end of the certificate that a signed file holds, known by its fingerprint.

    `certificate` is as catalogued, `name (sha256:fingerprint)`. The file holds it in DER, whole:
    a SEQUENCE with a length of two bytes.
    """
    from cryptography import x509

    fingerprint = certificate.rpartition("sha256:")[2].rstrip(")")
    start = data.find(b"\x30\x82")
    while start >= 0:
        end = start + 4 + int.from_bytes(data[start + 2 : start + 4], "big")
        if hashlib.sha256(data[start:end]).hexdigest() == fingerprint:
            return x509.load_der_x509_certificate(data[start:end]).not_valid_after_utc
        start = data.find(b"\x30\x82", start + 1)
    return None
