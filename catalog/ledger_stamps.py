"""Time stamps of the ledger's checkpoints: whether they hold, how many, the last one.

A stamp is over the root, so that an authority elsewhere says when the log was as it was signed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from catalog.ledger_compare import Finding
from catalog.ledger_notes import Checkpoint
from pipeline.errors import Fault, InputError
from pipeline.settings import Settings
from pipeline.timestamp_token import Stamp, StampError, read_stamp


@dataclass(frozen=True)
class Stamps:
    """Stamps of a log. `trusted` are by authorities that a list names, `last` is the last of them.

    `unknown` are by others, their certificates' names being `authorities`: nobody vouches for them.
    """

    trusted: int = 0
    last: Stamp | None = None
    unknown: int = 0
    authorities: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            "trusted": self.trusted,
            "last": self.last and stamp_json(self.last),
            "unknown": self.unknown,
            "authorities": list(self.authorities),
        }


def stamp_json(stamp: Stamp) -> dict[str, Any]:
    """A time stamp as plain JSON values."""
    return {
        "time": stamp.time.isoformat(),
        "authority": stamp.authority,
        "trusted": stamp.trusted,
    }


def authority_roots(settings: Settings, more: Sequence[Path] = ()) -> tuple[x509.Certificate, ...]:
    """Roots of time-stamp authorities: those in `settings.trust.time_stamps` and in `more`.

    Not the workspace's own: its development key lies where the ledger's does, and could back-date.
    A file is PEM, a folder stands for its `.pem` files. Raises InputError with every fault.
    """
    faults: list[Fault] = []
    roots: list[x509.Certificate] = []
    for path in (*settings.trust.time_stamps, *more):
        for file in sorted(path.glob("*.pem")) if path.is_dir() else [path]:
            try:
                roots += x509.load_pem_x509_certificates(file.read_bytes())
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or "holds no PEM certificates"
                remedy = "name a file of PEM root certificates"
                faults.append(Fault(str(reason), str(file), remedy))
    if faults:
        raise InputError("trust lists", faults)
    return tuple(dict.fromkeys(roots))


def check_stamps(
    checkpoints: Iterable[tuple[str, Checkpoint]],
    roots: Sequence[x509.Certificate],
    findings: list[Finding],
) -> Stamps:
    """The stamps of (name, checkpoint) in the log's order; those that do not hold are findings."""
    named: dict[str, tuple[str, Checkpoint]] = {}
    for name, said in checkpoints:
        # Copies kept elsewhere come after the catalog's own.
        named.setdefault(said.digest, (name, said))
    stamps = []
    for name, said in named.values():
        if not said.stamp:
            continue
        try:
            stamps.append(read_stamp(said.stamp, said.root, roots))
        except StampError as error:
            findings.append(Finding("changed", "checkpoint", name, f"its time stamp {error}"))
    trusted = [one for one in stamps if one.trusted]
    others = dict.fromkeys(one.authority for one in stamps if not one.trusted)
    return Stamps(
        len(trusted), trusted[-1] if trusted else None, len(stamps) - len(trusted), tuple(others)
    )
