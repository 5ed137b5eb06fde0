"""Proofs of a ledger on the command line: files of them, the log's key, and what each shows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import Fault, InputError
from pipeline.settings import Settings

if TYPE_CHECKING:
    from cryptography import x509

    from catalog.ledger_notes import Verifier


@dataclass(frozen=True)
class Proofs:
    """Proofs by the SHA-256 of their assets, and the keys of the logs that may have signed them.

    `authorities` are roots of time-stamp authorities, to trust the logs' stamps by.
    """

    by_sha256: Mapping[str, Mapping[str, Any]]
    verifiers: Sequence[Verifier]
    authorities: Sequence[x509.Certificate] = ()

    def of(self, sha256: str | None) -> dict[str, Any]:
        """What the proof of this file shows: `holds`, then when and as what, or why not."""
        from catalog.ledger_proof import ProofError, check_proof
        from catalog.ledger_stamps import stamp_json

        proof = self.by_sha256.get(sha256 or "")
        if proof is None or sha256 is None:
            return {"holds": False, "why": "there is no proof of this file"}
        try:
            shown = check_proof(proof, sha256, self.verifiers, self.authorities)
        except ProofError as error:
            return {"holds": False, "why": str(error)}
        return {
            "holds": True,
            "entered_at": shown.entered_at.isoformat(),
            "request_id": shown.request_id,
            "label": shown.label,
            "time_stamp": shown.time_stamp and stamp_json(shown.time_stamp),
        }


def proofs_in(
    path: Path, key: str | None, settings: Settings, time_stamps: Sequence[Path] = ()
) -> Proofs:
    """The proof or the proofs that a JSON file holds.

    `key` is the log's verifier key or a file of it; without it the workspace's own. `time_stamps`
    are lists of authorities besides the settings'. Raises InputError when the file holds no proof,
    a list is unusable or no key is known, SetupError for a damaged key.
    """
    from catalog.ledger import place_of
    from catalog.ledger_notes import verifier_from_text, verifier_in
    from catalog.ledger_proof import proofs_of
    from pipeline.trust import authority_roots

    if key is not None:
        text = Path(key).read_text("utf-8") if Path(key).is_file() else key
        verifiers = [verifier_from_text(text)]
    elif own := verifier_in(place_of(settings)):
        verifiers = [own]
    else:
        remedy = "name the log's verifier key, or a file of it: --ledger-key"
        raise InputError("verify", [Fault("no key of a ledger is known here", "--proof", remedy)])
    try:
        by_sha256 = proofs_of(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "holds no proof"
        remedy = "give a file that `platemark ledger prove` or a pack holds"
        raise InputError("verify", [Fault(str(reason), str(path), remedy)]) from None
    return Proofs(by_sha256, verifiers, authority_roots(settings, time_stamps))
