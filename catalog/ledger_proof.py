"""Proofs that an asset's record is in the log: made from the catalog, checked without it.

A proof is JSON (docs/ledger.md): the record's canonical text, its path to the root of its entry,
the entry's path to the root of the log, and the signed checkpoint. It holds no prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog.lake import Lake
from catalog.ledger import erasures
from catalog.ledger_checkpoints import recorded
from catalog.ledger_entries import Entry, entry_from_text, leaves
from catalog.ledger_forms import columns_of, row_form
from catalog.ledger_merkle import Levels, hashes_in, leaf_hash, root_of_path
from catalog.ledger_notes import Checkpoint, NoteError, Verifier, opened
from catalog.ledger_reads import read_patiently
from catalog.ledger_rows import row_parts, row_text
from catalog.rows import text_table
from pipeline.errors import Fault, InputError, PlatemarkError
from pipeline.request import canonical_json
from pipeline.timestamp_token import Stamp, StampError, read_stamp

if TYPE_CHECKING:
    from cryptography import x509

FORMAT = "platemark ledger proof v1"
DOCUMENT = "platemark ledger proofs v1"
TABLE = "manifests"
"""The record of a signed file: request, attempt, asset, manifest, certificate, time."""
_AT_ONCE = 1000


class ProofError(PlatemarkError):
    """The proof does not hold, and why."""


@dataclass(frozen=True)
class Proven:
    """What a proof shows: the log of `checkpoint` has the record of this asset.

    `entered_at` (UTC) is when the record entered the log, as the log says; `found`: it was in the
    catalog before the ledger was. `request_id` and `label` (of the C2PA manifest) as recorded.
    `time_stamp` is the checkpoint's, if it has one: the record was in the log by then.
    """

    asset_sha256: str
    request_id: str
    label: str
    entered_at: datetime
    found: bool
    checkpoint: Checkpoint
    time_stamp: Stamp | None


def inclusion_proofs(
    lake: Lake, asset_sha256s: Sequence[str], verifiers: Sequence[Verifier]
) -> dict[str, dict[str, Any]]:
    """A proof for each signed asset, by its SHA-256, from the first checkpoint that covers all.

    The same assets have the same proofs for ever, so that a pack of them is the same. Records that
    came after the last checkpoint have no proof and are left out, as are assets without a
    manifest. Raises InputError when a record or the log is not as it was signed.
    """
    # In this order, since the log grows meanwhile: what a checkpoint signs is in it then.
    notes, log = read_patiently(lake, lambda connection: (recorded(connection), leaves(connection)))
    places = [at for at, entry in enumerate(log) if entry.table == TABLE]
    ends = np.cumsum([log[at].rows for at in places])
    wanted = _records(lake, asset_sha256s, verifiers)
    reached = [which for _, rank, _ in wanted if (which := _entry_of(ends, rank)) is not None]
    needed = 1 + places[max(reached)] if reached else 0
    said, note = _covering(notes, verifiers, needed)
    if said is None:
        return {}
    tree = Levels([entry.leaf for entry in log[: said.size]])
    if len(log) < said.size or tree.root != said.root:
        raise _refused("the log is not as its checkpoint signs it", "ledger")
    found: dict[str, dict[str, Any]] = {}
    inner: dict[int, Levels] = {}
    of_rows = _row_hashes(lake, {_entry_of(ends, rank) for _, rank, _ in wanted})
    for sha256, rank, text in wanted:
        which = _entry_of(ends, rank)
        if which is None or places[which] >= said.size:
            continue
        index = rank - int(ends[which - 1]) if which else rank
        if which not in inner:
            inner[which] = Levels(hashes_in(of_rows[which]))
        if inner[which].levels[0][index : index + 1] != [leaf_hash(text)]:
            raise _refused("its record is not as it was entered", f"asset {sha256[:12]}")
        found[sha256] = {
            "format": FORMAT,
            "asset_sha256": sha256,
            "record": text.decode(),
            "record_index": index,
            "record_path": [one.hex() for one in inner[which].path(index)],
            "entry": log[places[which]].text,
            "entry_index": places[which],
            "entry_path": [one.hex() for one in tree.path(places[which])],
            "checkpoint": note,
        }
    return found


def proofs_document(proofs: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Proofs by SHA-256 as one JSON document, in which the checkpoint that they share is once."""
    notes = list(dict.fromkeys(proof["checkpoint"] for proof in proofs.values()))
    shared = {
        sha256: {**proof, "checkpoint": notes.index(proof["checkpoint"])}
        for sha256, proof in proofs.items()
    }
    return canonical_json({"format": DOCUMENT, "checkpoints": notes, "proofs": shared}) + b"\n"


def proofs_of(document: Any) -> dict[str, Mapping[str, Any]]:
    """Proofs by SHA-256 of such a document, or of a proof alone, as parsed from JSON.

    Raises LookupError, TypeError or ValueError when it is neither.
    """
    if "asset_sha256" in document:
        return {document["asset_sha256"]: document}
    if document["format"] != DOCUMENT:
        raise ValueError(f"unknown format {document['format']!r}")
    notes = document["checkpoints"]
    return {
        sha256: {**proof, "checkpoint": notes[proof["checkpoint"]]}
        for sha256, proof in document["proofs"].items()
    }


def check_proof(
    proof: Mapping[str, Any],
    asset_sha256: str,
    verifiers: Sequence[Verifier],
    authorities: Sequence[x509.Certificate] = (),
) -> Proven:
    """Checks a proof for the file with this SHA-256, with nothing but the log's verifier keys.

    `authorities` are roots of time-stamp authorities, to trust the checkpoint's stamp by. Raises
    ProofError when it is of another file, was altered, or is not signed by one of the keys.
    """
    try:
        if proof["format"] != FORMAT:
            raise ProofError(f"the proof has another format than {FORMAT!r}")
        record = fields_of(str(proof["record"]).encode())
        entry = entry_from_text(str(proof["entry"]))
        said = opened(str(proof["checkpoint"]), verifiers)
        record_path = [bytes.fromhex(one) for one in proof["record_path"]]
        entry_path = [bytes.fromhex(one) for one in proof["entry_path"]]
        at, entry_at = int(proof["record_index"]), int(proof["entry_index"])
        leaf = leaf_hash(str(proof["record"]).encode())
    except NoteError as error:
        raise ProofError(f"the proof's checkpoint does not hold: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProofError(f"the proof is damaged: {type(error).__name__} {error}") from None
    if entry.table != TABLE or record.get("asset_sha256") != asset_sha256:
        raise ProofError(f"the proof is of another file, not of {asset_sha256}")
    if root_of_path(leaf, at, entry.rows, record_path) != entry.root:
        raise ProofError("the record is not in the entry that the proof names")
    if root_of_path(entry.leaf, entry_at, said.size, entry_path) != said.root:
        raise ProofError("the entry is not in the log that the checkpoint signs")
    try:
        stamp = _stamp(said.stamp, said.root, tuple(authorities)) if said.stamp else None
    except StampError as error:
        raise ProofError(f"the time stamp of the proof's checkpoint {error}") from None
    return Proven(
        asset_sha256,
        record.get("request_id", ""),
        record.get("label", ""),
        entry.entered_at.astimezone(UTC),
        entry.kind == "found",
        said,
        stamp,
    )


def fields_of(record: bytes) -> dict[str, str]:
    """The readable fields of a canonical record; hashes and commitments are left out.

    Raises ValueError when it is not in the canonical form.
    """
    found: dict[str, str] = {}
    rest = record
    while rest:
        end = min(at for at in (rest.find(b"="), rest.find(b"#"), rest.find(b"~")) if at > 0)
        name, mark, rest = rest[:end].decode(), rest[end : end + 1], rest[end + 1 :]
        if mark == b"=":
            length, _, rest = rest.partition(b":")
            size = int(length)
            found[name], rest = rest[:size].decode(), rest[size:]
        else:
            rest = rest[64:]
        if rest[:1] != b";":
            raise ValueError("not a canonical record")
        rest = rest[1:]
    return found


@lru_cache(maxsize=16)
def _stamp(stamp: bytes, root: bytes, authorities: tuple[x509.Certificate, ...]) -> Stamp:
    """As read: the proofs of a pack have one checkpoint, and a stamp takes longer than the rest."""
    return read_stamp(stamp, root, authorities)


def _covering(
    notes: Sequence[tuple[int, Any, str]], verifiers: Sequence[Verifier], needed: int
) -> tuple[Checkpoint | None, str]:
    """The first checkpoint over so many entries, the last one when none is."""
    if not notes:
        return None, ""
    note = next((text for size, _, text in notes if size >= needed), notes[-1][2])
    try:
        return opened(note, verifiers), note
    except NoteError as error:
        raise _refused(f"its checkpoint does not hold: {error}", "ledger") from None


def _records(
    lake: Lake, asset_sha256s: Sequence[str], verifiers: Sequence[Verifier]
) -> list[tuple[str, int, bytes]]:
    """(SHA-256, place among all rows of the table, canonical text) of the first record of each."""
    types, tombstones = read_patiently(
        lake,
        lambda connection: (
            columns_of(connection, f"raw.{TABLE}"),
            erasures(connection, verifiers),
        ),
    )
    form = row_form(types)
    first = lake.read(
        f"SELECT min(rowid) AS id FROM raw.{TABLE} SEMI JOIN wanted USING (asset_sha256) "
        "GROUP BY asset_sha256 ORDER BY id",
        wanted=text_table(asset_sha256=sorted(set(asset_sha256s))),
    )
    rowids = np.asarray(
        lake.read(f"SELECT rowid FROM raw.{TABLE} ORDER BY rowid").column(0), np.int64
    )
    found: list[tuple[str, int, bytes]] = []
    # A record has its whole manifest: some are read at a time.
    for at in range(0, len(first), _AT_ONCE):
        table = lake.read(
            f"SELECT rowid, {form.select}, asset_sha256 FROM raw.{TABLE} "
            "WHERE rowid IN (SELECT id FROM wanted) ORDER BY rowid",
            wanted=first.slice(at, _AT_ONCE),
        )
        for batch in table.to_batches():
            names = batch.column(batch.num_columns - 1).to_pylist()
            ids = batch.column(0).to_pylist()
            for sha256, rowid, parts in zip(names, ids, row_parts(batch, form), strict=True):
                rank = int(np.searchsorted(rowids, rowid))
                found.append((sha256, rank, row_text(parts, tombstones)))
    return found


def _entry_of(ends: Any, rank: int) -> int | None:
    which = int(np.searchsorted(ends, rank, side="right"))
    return which if which < len(ends) else None


def _row_hashes(lake: Lake, which: set[int | None]) -> dict[int, bytes]:
    """The row hashes of the table's entries, by their place among them."""
    import pyarrow as pa

    places = sorted(one for one in which if one is not None)
    rows = lake.rows(
        "SELECT place, row_hashes FROM raw.ledger_entries "
        "JOIN (SELECT rowid AS id, row_number() OVER (ORDER BY rowid) - 1 AS place "
        "      FROM raw.ledger_entries WHERE table_name = $table) AS placed "
        "ON ledger_entries.rowid = placed.id "
        "SEMI JOIN wanted USING (place)",
        {"table": TABLE},
        wanted=pa.table({"place": pa.array(places, pa.int64())}),
    )
    return {row["place"]: row["row_hashes"] for row in rows}


def _refused(what: str, where: str) -> InputError:
    remedy = "`platemark ledger verify` names what was changed"
    return InputError("ledger proof", [Fault(what, where, remedy)])


__all__ = [
    "FORMAT",
    "Entry",
    "ProofError",
    "Proven",
    "check_proof",
    "inclusion_proofs",
    "proofs_document",
    "proofs_of",
]
