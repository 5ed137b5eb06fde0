"""Time stamps of the ledger's checkpoints: whether they hold, how many, the last one.

A stamp is over the root, so that an authority elsewhere says when the log was as it was signed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from catalog.ledger_compare import Finding
from catalog.ledger_notes import Checkpoint
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
