"""Exports a pack: a zip of signed images with licence, manifest, check sums and a contact sheet.

Every file is verified again as it goes in. The bytes depend on the content alone: the same images
under the same terms give the same pack. It appears whole under its name, or not at all.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.audit import Answer
from catalog.lake import Lake
from catalog.results import write_csv, write_parquet
from catalog.rows import as_json
from catalog.selection import EVERYTHING, LeftOut, choose, left_out_because
from catalog.write import insert_row, insert_table
from pipeline.errors import Fault, InputError, PlatemarkError, SetupError
from pipeline.terms import UsageTerms

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from pipeline.contact_sheet import Cell
    from pipeline.verify import Report

SHEET_IMAGES = 240
"""A contact sheet shows the first images up to this number: JPEG ends at 65,535 pixels."""
_SHEET_COLUMNS = 8
_CELL = 128
# The earliest time that zip can say: packs know no clock.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
_COLUMNS = (
    *("file", "sku", "index", "campaign", "client", "prompt_sha256", "model", "model_revision"),
    *("model_licence", "verdict", "policy", "policy_version", "policy_digest", "decision"),
    *("reviewer", "sha256", "mime", "width", "height", "size", "c2pa_label", "terms_id", "expires"),
    "request_id",
)


class NothingToExport(PlatemarkError):
    """No image that was asked for may go in; `left_out` says why of each."""

    def __init__(self, left_out: Sequence[LeftOut]) -> None:
        self.left_out = tuple(left_out)
        reasons = [f"  {one.sku}-{one.index}: {'; '.join(one.reasons)}" for one in left_out[:20]]
        more = [f"  … and {len(left_out) - 20} more"] if len(left_out) > 20 else []
        head = (
            f"no pack was written: none of {len(left_out)} images may go in"
            if left_out
            else "no pack was written: the condition names no image"
        )
        super().__init__("\n".join([head, *reasons, *more]))


@dataclass(frozen=True)
class Pack:
    """A written pack. `sha256` is of the zip's bytes; `pack_id` of its content and terms."""

    pack_id: str
    path: Path
    sha256: str
    size: int
    images: int
    left_out: tuple[LeftOut, ...]

    def as_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            **asdict(self),
            "path": str(self.path),
            "left_out": [asdict(one) for one in self.left_out],
        }


def export_pack(
    lake: Lake,
    out: Path,
    terms: UsageTerms,
    *,
    verify: Callable[[Path], Report],
    locate: Callable[[str], Path],
    where: str = EVERYTHING,
    today: date | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Pack:
    """Writes the images that `where` names and `terms` may be given for to the zip `out`.

    `lake` is open for writing; the pack is recorded there before it appears. `verify` reports on a
    file (pipeline.verify), `locate` turns a catalogued url into its path (pipeline.store);
    `progress` hears of each image. Raises NothingToExport, InputError (wrong condition, expired
    terms, `out` holds another pack), SetupError (disk full).
    """
    today = today or datetime.now(UTC).date()
    _refuse_arguments(out, terms, today)
    chosen = choose(lake.folder, where, terms, today)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    left_out = list(chosen.left_out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as stream:
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
                packed = _write_images(archive, chosen.images, verify, locate, left_out, progress)
                if not packed:
                    raise NothingToExport(left_out)
                _write_papers(archive, packed, terms)
            stream.flush()
            os.fsync(stream.fileno())
        with part.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        _refuse_other_pack(out, sha256)
        pack = Pack(
            _pack_id(packed, terms),
            out,
            sha256,
            part.stat().st_size,
            len(packed),
            tuple(left_out),
        )
        _record(lake, pack, where, terms, packed)
        part.replace(out)
        _flush_folder(out.parent)
    except OSError as error:
        raise SetupError(
            f"the pack {out} cannot be written ({error.strerror or error}): make room or choose "
            f"another folder; nothing of it was left behind"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return pack


@dataclass(frozen=True)
class _Packed:
    """One image in the pack: its row of `images`, its name in the zip, its cell of the sheet."""

    row: Mapping[str, Any]
    file: str
    cell: Cell | None


def _write_images(
    archive: zipfile.ZipFile,
    rows: Sequence[Mapping[str, Any]],
    verify: Callable[[Path], Report],
    locate: Callable[[str], Path],
    left_out: list[LeftOut],
    progress: Callable[[int, int], None],
) -> list[_Packed]:
    packed: list[_Packed] = []
    names: set[str] = set()

    def check(row: Mapping[str, Any]) -> tuple[bytes, list[str]]:
        return _verified(row, verify, locate)

    for done, (row, (data, faults)) in enumerate(_ahead(check, rows), start=1):
        if faults:
            left_out.append(left_out_because(row, faults))
        else:
            file = _name(row, names)
            _store(archive, file, data)
            shown = len(packed) < SHEET_IMAGES
            packed.append(_Packed(row, file, _cell(row, data) if shown else None))
        progress(done, len(rows))
    return packed


def _verified(
    row: Mapping[str, Any], verify: Callable[[Path], Report], locate: Callable[[str], Path]
) -> tuple[bytes, list[str]]:
    """The bytes that go in, and why they must not: they are what was catalogued, and Trusted."""
    if not row["url"]:
        return b"", ["the file was not kept"]
    path = locate(row["url"])
    try:
        data = path.read_bytes()
    except OSError as error:
        return b"", [f"the file {row['url']} is missing or unreadable: {error.strerror}"]
    found = hashlib.sha256(data).hexdigest()
    if found != row["sha256"]:
        return b"", [f"the file {row['url']} was altered: its SHA-256 is {found}"]
    report = verify(path)
    if report.sha256 != found:
        return b"", [f"the file {row['url']} changed while it was verified"]
    if not report.ok:
        why = "; ".join(report.why) or report.error or "its pixels do not decode"
        return b"", [f"C2PA state {report.state}: {why}"]
    if report.label != row["c2pa_label"]:
        return b"", [f"its C2PA manifest is {report.label}, catalogued was {row['c2pa_label']}"]
    return data, []


def _ahead(
    work: Callable[[Mapping[str, Any]], tuple[bytes, list[str]]], rows: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Mapping[str, Any], tuple[bytes, list[str]]]]:
    """Results in the order of `rows`, a few computed ahead by threads, never all in memory."""
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        waiting: list[tuple[Mapping[str, Any], Future[tuple[bytes, list[str]]]]] = []
        try:
            for row in rows:
                waiting.append((row, pool.submit(work, row)))
                if len(waiting) > 2 * workers:
                    first, future = waiting.pop(0)
                    yield first, future.result()
            for row, future in waiting:
                yield row, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _name(row: Mapping[str, Any], taken: set[str]) -> str:
    """`<sku>-<index>-<sha8>.<ext>` of safe characters, unique where case does not count."""
    sku = re.sub(r"[^A-Za-z0-9._-]+", "_", row["sku"]).lstrip(".-")[:80] or "image"
    suffix = _SUFFIXES.get(row["mime"], "bin")
    for digits in (8, 16, 64):
        name = f"images/{sku}-{row['index']}-{row['sha256'][:digits]}.{suffix}"
        if name.lower() not in taken:
            break
    taken.add(name.lower())
    return name


def _store(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = 3  # Unix, whatever system writes it
    entry.external_attr = 0o100644 << 16
    archive.writestr(entry, data)


def _write_papers(archive: zipfile.ZipFile, packed: Sequence[_Packed], terms: UsageTerms) -> None:
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
        _store(archive, name, data)


def _manifest(packed: Sequence[_Packed]) -> Answer:
    import pyarrow as pa

    whole, day, text = pa.int64(), pa.date32(), pa.string()
    types = dict.fromkeys(("index", "width", "height", "size"), whole) | {"expires": day}
    schema = pa.schema([(name, types.get(name, text)) for name in _COLUMNS])
    rows = [{**one.row, "file": one.file, "verdict": one.row["outcome"]} for one in packed]
    table = pa.Table.from_pylist([{name: row[name] for name in _COLUMNS} for row in rows], schema)
    return Answer(table, tuple(str(kind) for kind in schema.types))


def _cell(row: Mapping[str, Any], data: bytes) -> Cell:
    import numpy as np
    from PIL import Image

    from pipeline.contact_sheet import Cell
    from pipeline.images import decode_limited

    picture = Image.fromarray(decode_limited(data))
    picture.thumbnail((_CELL, _CELL))
    return Cell(np.asarray(picture), (f"{row['sku']}-{row['index']}",), row["outcome"])


def _sheet(cells: Sequence[Cell]) -> bytes:
    from pipeline.contact_sheet import contact_sheet, jpeg

    return jpeg(contact_sheet(cells, columns=_SHEET_COLUMNS, side=_CELL))


def _pack_id(packed: Sequence[_Packed], terms: UsageTerms) -> str:
    content = {
        "terms": terms.model_dump(mode="json"),
        "files": [[one.file, one.row["sha256"]] for one in packed],
    }
    return hashlib.sha256(as_json(content).encode()).hexdigest()[:16]


def _record(
    lake: Lake, pack: Pack, where: str, terms: UsageTerms, packed: Sequence[_Packed]
) -> None:
    """Records the pack, once: the same content under the same terms is the same pack."""
    import pyarrow as pa

    head = {
        "pack_id": pack.pack_id,
        "file": pack.path.name,
        "sha256": pack.sha256,
        "size": pack.size,
        "images": pack.images,
        "left_out": len(pack.left_out),
        "where": where,
        "terms": as_json(terms.model_dump(mode="json")),
        "terms_id": terms.id,
        "licensee": terms.licensee,
        "expires": terms.expires,
        "created_at": datetime.now(UTC),
    }

    def texts(**columns: list[str]) -> pa.Table:
        ids = [pack.pack_id] * len(next(iter(columns.values())))
        return pa.table({"pack_id": ids, **columns})

    files = texts(
        request_id=[one.row["request_id"] for one in packed],
        asset_sha256=[one.row["sha256"] for one in packed],
        file=[one.file for one in packed],
    )
    refused = texts(
        request_id=[one.request_id for one in pack.left_out],
        sku=[one.sku for one in pack.left_out],
        reason=["; ".join(one.reasons) for one in pack.left_out],
    )

    def append(connection: duckdb.DuckDBPyConnection) -> None:
        known = connection.execute(
            "SELECT 1 FROM raw.packs WHERE pack_id = ? LIMIT 1", [pack.pack_id]
        ).fetchone()
        if known:
            return
        insert_row(connection, "packs", head)
        insert_table(connection, "pack_assets", files)
        if pack.left_out:
            insert_table(connection, "pack_refusals", refused)

    lake.transact(append)


def _refuse_arguments(out: Path, terms: UsageTerms, today: date) -> None:
    faults = []
    if out.suffix.lower() != ".zip":
        faults.append(Fault("a pack is a zip file", str(out), "name it ….zip"))
    if terms.expires and terms.expires < today:
        faults.append(Fault(f"they expired on {terms.expires}", f"terms {terms.id}", "renew them"))
    if faults:
        raise InputError("export", faults)


def _refuse_other_pack(out: Path, sha256: str) -> None:
    """Leaves a pack that may have been delivered alone, unless it is the very same."""
    if not out.exists():
        return
    with out.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() == sha256:
            return
    fault = Fault("it holds another pack already", str(out), "choose another name or remove it")
    raise InputError("export", [fault])


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
