"""Whom verification trusts: named lists of PEM roots, for signers and for time stamps.

Read from the settings and from files that people point at; pipeline/verify_c2pa.py checks by them.
Nothing is fetched: C2PA's own lists (C2PA-TRUST-LIST.pem, C2PA-TSA-TRUST-LIST.pem) are files that
change every few weeks, and an auditor wants to say which day's list he used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryptography import x509

from pipeline.certificates import pem as pem_of
from pipeline.errors import Fault, InputError
from pipeline.keys import trust_anchors
from pipeline.settings import Settings

Kind = Literal["signers", "time-stamps"]


@dataclass(frozen=True)
class TrustList:
    """A named list of roots. One of `time-stamps` vouches for no signer of a manifest.

    `pem` holds certificates; `name` is what a report calls the list that vouched.
    """

    name: str
    kind: Kind
    pem: bytes = field(repr=False)

    @property
    def address(self) -> str:
        """Its name for the SDK: one file may be a list of both kinds."""
        return f"{self.kind}:{self.name}"


Trust = tuple[TrustList, ...]

OWN = "workspace"
"""Name of the list of this workspace's own roots: development, signing chain, `trust_anchors`."""


def as_trust(anchors: bytes | Trust) -> Trust:
    """PEM roots at hand as one list of signers; lists stay as they are."""
    return (TrustList(OWN, "signers", anchors),) if isinstance(anchors, bytes) else anchors


def trust_lists(
    settings: Settings, signers: Sequence[Path] = (), time_stamps: Sequence[Path] = ()
) -> Trust:
    """The workspace's own roots, the settings' lists, then the given files, in this order.

    A file is PEM, with any text between certificates, as C2PA publishes its lists; a folder stands
    for all its `.pem` files. Raises InputError with every fault of every file.
    """
    faults: list[Fault] = []
    read = [
        *_lists("signers", (*settings.trust.signers, *signers), faults),
        *_lists("time-stamps", (*settings.trust.time_stamps, *time_stamps), faults),
    ]
    if faults:
        raise InputError("trust lists", faults)
    own = trust_anchors(settings)
    first = [TrustList(OWN, "signers", own)] if own.strip() else []
    return _without_repeats([*first, *read])


def authority_roots(settings: Settings, more: Sequence[Path] = ()) -> tuple[x509.Certificate, ...]:
    """Roots of time-stamp authorities: those in `settings.trust.time_stamps` and in `more`.

    For the ledger's checkpoints. Not the workspace's own: its development key lies where the
    ledger's does, and could back-date. Raises InputError as `trust_lists` does.
    """
    faults: list[Fault] = []
    read = _lists("time-stamps", (*settings.trust.time_stamps, *more), faults)
    if faults:
        raise InputError("trust lists", faults)
    roots = (root for each in read for root in x509.load_pem_x509_certificates(each.pem))
    return tuple(dict.fromkeys(roots))


def _without_repeats(lists: Sequence[TrustList]) -> Trust:
    """Each root in one list, those of signers before those of time stamps.

    C2PA's two lists share most roots, and a root of signers vouches for time stamps as well.
    """
    seen: set[bytes] = set()
    kept = []
    for each in sorted(lists, key=lambda one: one.kind != "signers"):
        roots = x509.load_pem_x509_certificates(each.pem)
        new = [pem_of(root) for root in roots if pem_of(root) not in seen]
        seen.update(new)
        if new:
            kept.append(TrustList(each.name, each.kind, b"".join(new)))
    return tuple(kept)


def _lists(kind: Kind, paths: Iterable[Path], faults: list[Fault]) -> list[TrustList]:
    files = (file for path in paths for file in _files(path, faults))
    return [found for file in files if (found := _read(kind, file, faults))]


def _files(path: Path, faults: list[Fault]) -> Iterable[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.pem"))
    if not found:
        faults.append(Fault("holds no .pem file", str(path), "name a file or folder of PEM lists"))
    return found


def _read(kind: Kind, path: Path, faults: list[Fault]) -> TrustList | None:
    try:
        pem = path.read_bytes()
        certificates = x509.load_pem_x509_certificates(pem)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "holds no PEM certificates"
        faults.append(Fault(str(reason), str(path), "name a file of PEM root certificates"))
        return None
    # Only the certificates: texts between them are not always UTF-8.
    return TrustList(path.name, kind, b"".join(pem_of(each) for each in certificates))
