"""What a pack holds: image names, licence, manifests, check sums and contact sheet, byte for byte.

Nothing here depends on clock, machine or order of threads.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catalog.audit import Answer
from catalog.results import write_csv, write_parquet
from catalog.rows import as_json
from pipeline.store import EXTENSIONS
from pipeline.terms import UsageTerms

if TYPE_CHECKING:
    from pipeline.contact_sheet import Cell

SHEET_IMAGES = 240
"""A contact sheet shows the first images up to this number: JPEG ends at 65,535 pixels."""
_SHEET_COLUMNS = 8
_CELL = 128
# The earliest time that zip can say: packs know no clock.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_COLUMNS = (
    *("file", "sku", "index", "campaign", "client", "prompt_sha256", "model", "model_revision"),
    *("model_licence", "verdict", "policy", "policy_version", "policy_digest", "decision"),
    *("reviewer", "sha256", "mime", "width", "height", "size", "c2pa_label", "terms_id", "expires"),
    "request_id",
)


@dataclass(frozen=True)
class Packed:
    """One image in the pack: its row of `images`, its name in the zip, its cell of the sheet."""

    row: Mapping[str, Any]
    file: str
    cell: Cell | None


def file_name(row: Mapping[str, Any], taken: set[str]) -> str:
    """`<sku>-<index>-<sha8>.<ext>` of safe characters, unique where case does not count."""
    sku = re.sub(r"[^A-Za-z0-9._-]+", "_", row["sku"]).lstrip(".-")[:80] or "image"
    suffix = EXTENSIONS.get(row["mime"], "bin")
    for digits in (8, 16, 64):
        name = f"images/{sku}-{row['index']}-{row['sha256'][:digits]}.{suffix}"
        if name.lower() not in taken:
            break
    taken.add(name.lower())
    return name


def store(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Adds one file as it is, under a fixed time and mode."""
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = 3  # Unix, whatever system writes it
    entry.external_attr = 0o100644 << 16
    archive.writestr(entry, data)


def write_papers(archive: zipfile.ZipFile, packed: Sequence[Packed], terms: UsageTerms) -> None:
    """Adds LICENSE.txt, contact-sheet.jpg, manifest.csv and .parquet, and SHA256SUMS over all."""
    answer = _manifest(packed)
    text, table = io.StringIO(newline=""), io.BytesIO()
    write_csv(answer, text)
    write_parquet(answer, table)
    papers = {
        "LICENSE.txt": terms.licence_text().encode(),
        "contact-sheet.jpg": _sheet([one.cell for one in packed if one.cell]),
        "manifest.csv": text.getvalue().encode(),
        "manifest.parquet": table.getvalue(),
    }
    sums = {one.file: one.row["sha256"] for one in packed}
    sums |= {name: hashlib.sha256(data).hexdigest() for name, data in papers.items()}
    papers["SHA256SUMS"] = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode()
    for name, data in papers.items():
        store(archive, name, data)


def sheet_cell(row: Mapping[str, Any], data: bytes) -> Cell:
    """An image's cell of the contact sheet, small, so that many fit into memory."""
    import numpy as np
    from PIL import Image

    from pipeline.contact_sheet import Cell
    from pipeline.images import decode_limited

    picture = Image.fromarray(decode_limited(data))
    picture.thumbnail((_CELL, _CELL))
    return Cell(np.asarray(picture), (f"{row['sku']}-{row['index']}",), row["outcome"])


def pack_id_of(packed: Sequence[Packed], terms: UsageTerms) -> str:
    """16 hex digits of the SHA-256 over terms, file names and the files' SHA-256."""
    content = {
        "terms": terms.model_dump(mode="json"),
        "files": [[one.file, one.row["sha256"]] for one in packed],
    }
    return hashlib.sha256(as_json(content).encode()).hexdigest()[:16]


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
