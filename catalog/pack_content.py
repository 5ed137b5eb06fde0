"""What a pack holds beside its images: licence, manifests, feed, check sums, contact sheet.

Nothing here depends on clock, machine or order of threads.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catalog.audit import Answer
from catalog.channel import Channel
from catalog.croissant import CROISSANT, croissant
from catalog.feeds import FeedRow, write_feed
from catalog.pack_plan import Asked
from catalog.pack_target import Target
from catalog.results import write_csv, write_parquet
from catalog.rows import as_json
from pipeline.label import licensed_again
from pipeline.rendition import xmp_packet_of
from pipeline.terms import UsageTerms
from pipeline.terms_text import licence_text
from pipeline.verify_sums import SUMS

if TYPE_CHECKING:
    from pipeline.contact_sheet import Cell

SHEET_IMAGES = 240
"""A contact sheet shows the first images up to this number: JPEG ends at 65,535 pixels."""
_SHEET_COLUMNS = 8
_CELL = 128
_COLUMNS = (
    *("file", "sku", "index", "campaign", "client", "prompt_sha256", "model", "model_revision"),
    *("model_licence", "verdict", "policy", "policy_version", "policy_digest", "decision"),
    *("reviewer", "sha256", "original_sha256", "mime", "width", "height", "size", "c2pa_label"),
    *("terms_id", "expires", "request_id"),
)


@dataclass(frozen=True)
class Packed:
    """One image in the pack: its row of `images` with the delivered file's columns over it.

    `row` has the delivered sha256, mime, size … and `original_sha256`, which differs where the file
    is a rendition. `file` is its name in the pack.
    """

    row: Mapping[str, Any]
    file: str
    cell: Cell | None = None


def write_papers(
    target: Target,
    packed: Sequence[Packed],
    sums: dict[str, str],
    asked: Asked,
    rows: Sequence[FeedRow],
    proofs: bytes | None = None,
) -> str:
    """Adds LICENSE.txt, pack.json, feed, manifests, sheet, and SHA256SUMS over all, last.

    `sums` holds the SHA-256 of every file that is in already. `proofs` are the ledger's inclusion
    proofs of the images' rows, for who verifies without the catalog. Returns the pack's id.
    """
    terms, channel = asked.terms, asked.channel
    pack_id = pack_id_of(((one.file, one.row["sha256"]) for one in packed), terms)
    answer = _manifest(packed)
    text, table = io.StringIO(newline=""), io.BytesIO()
    write_csv(answer, text)
    write_parquet(answer, table)
    manifest = table.getvalue()
    papers = {
        "LICENSE.txt": licence_text(terms, asked.licences).encode(),
        "contact-sheet.jpg": _sheet([one.cell for one in packed if one.cell]),
        "manifest.csv": text.getvalue().encode(),
        "manifest.parquet": manifest,
        "pack.json": _head(pack_id, len(packed), terms, channel),
        **write_feed(channel, rows),
    }
    if channel.croissant:
        papers[CROISSANT] = croissant(pack_id, answer.table, manifest, terms)
    if proofs is not None:
        papers["proofs.json"] = proofs
    for name, data in papers.items():
        sums[name] = put(target, name, data)
    listed = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode()
    put(target, SUMS, listed)
    return pack_id


def put(target: Target, name: str, data: bytes) -> str:
    """Adds a file unless an interrupted export did; returns its SHA-256 (hex)."""
    sha256 = hashlib.sha256(data).hexdigest()
    if not target.holds(name, sha256, len(data)):
        target.add(name, data, sha256)
    return sha256


def sidecar(data: bytes, asked: Asked) -> bytes | None:
    """The XMP packet that goes beside an image as a file: the image's own, with the licensing
    fields of the pack's terms; None where the image has none."""
    packet = xmp_packet_of(data)
    return licensed_again(packet, asked.terms, asked.licences) if packet else None


def sheet_cell(row: Mapping[str, Any], data: bytes) -> Cell:
    """An image's cell of the contact sheet, small, so that many fit into memory.

    From the thumbnail in its manifest, which is there and takes a tenth of the time.
    """
    import numpy as np
    from PIL import Image

    from pipeline.claim_thumbnail import claim_thumbnail
    from pipeline.contact_sheet import Cell
    from pipeline.images import decode_limited

    small = claim_thumbnail(data, row["mime"])
    picture = Image.fromarray(decode_limited(data) if small is None else small)
    picture.thumbnail((_CELL, _CELL), reducing_gap=2)
    return Cell(np.asarray(picture), (f"{row['sku']}-{row['index']}",), row["outcome"])


def pack_id_of(files: Iterable[tuple[str, str]], terms: UsageTerms) -> str:
    """16 hex digits of the SHA-256 over terms, and names and SHA-256 of the images."""
    content = {"terms": terms.model_dump(mode="json"), "files": [list(each) for each in files]}
    return hashlib.sha256(as_json(content).encode()).hexdigest()[:16]


def _head(pack_id: str, images: int, terms: UsageTerms, channel: Channel) -> bytes:
    """What verifiers and asset stores read first."""
    told = {
        "format": "platemark-pack/1",
        "pack_id": pack_id,
        "channel": channel.channel,
        "images": images,
        "terms": terms.model_dump(mode="json"),
        "verify": [
            "sha256sum --check SHA256SUMS",
            "platemark verify .",
        ],
    }
    return json.dumps(told, indent=2, ensure_ascii=False).encode() + b"\n"


def _manifest(packed: Sequence[Packed]) -> Answer:
    import pyarrow as pa

    whole, day, text = pa.int64(), pa.date32(), pa.string()
    types = dict.fromkeys(("index", "width", "height", "size"), whole) | {"expires": day}
    schema = pa.schema([(name, types.get(name, text)) for name in _COLUMNS])
    rows = [{**one.row, "file": one.file, "verdict": one.row["outcome"]} for one in packed]
    table = pa.Table.from_pylist([{name: row[name] for name in _COLUMNS} for row in rows], schema)
    return Answer(table, tuple(str(kind) for kind in schema.types))


def _sheet(cells: Sequence[Cell]) -> bytes:
    from pipeline.contact_sheet import contact_sheet, jpeg

    return jpeg(contact_sheet(cells, columns=_SHEET_COLUMNS, side=_CELL))
