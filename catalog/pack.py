"""Exports a pack: a zip of signed images with licence, manifest, check sums and a contact sheet.

Every file is verified again as it goes in. The bytes depend on the content alone: the same images
under the same terms give the same pack. It appears whole under its name, or not at all.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.lake import writing
from catalog.pack_content import (
    SHEET_IMAGES,
    Packed,
    file_name,
    pack_id_of,
    sheet_cell,
    store,
    write_papers,
)
from catalog.rows import as_json
from catalog.selection import EVERYTHING, LeftOut, choose, judge, left_out_because
from catalog.write import insert_row, insert_table
from pipeline.errors import Fault, InputError, PlatemarkError, SetupError
from pipeline.store import flush_folder
from pipeline.terms import UsageTerms

if TYPE_CHECKING:
    import duckdb

    from pipeline.verify import Report


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
    folder: Path,
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

    The pack is recorded in the catalog in `folder` before it appears; only then is the catalog
    open for writing. `verify` reports on a file (pipeline.verify), `locate` turns a catalogued url
    into its path (pipeline.store); `progress` hears of each image. Raises NothingToExport,
    InputError (wrong condition, expired terms, `out` holds another pack, an image was rejected or
    given away meanwhile), SetupError (disk full).
    """
    today = today or datetime.now(UTC).date()
    _refuse_arguments(out, terms, today)
    chosen = choose(folder, where, terms, today)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    left_out = list(chosen.left_out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as stream:
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
                packed = _write_images(archive, chosen.images, verify, locate, left_out, progress)
                if not packed:
                    raise NothingToExport(left_out)
                write_papers(archive, packed, terms)
            stream.flush()
            os.fsync(stream.fileno())
        with part.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        _refuse_other_pack(out, sha256)
        pack = Pack(
            pack_id_of(packed, terms),
            out,
            sha256,
            part.stat().st_size,
            len(packed),
            tuple(left_out),
        )
        _record(folder, pack, where, terms, packed, today)
        part.replace(out)
        flush_folder(out.parent)
    except OSError as error:
        raise SetupError(
            f"the pack {out} cannot be written ({error.strerror or error}): make room or choose "
            f"another folder; nothing of it was left behind"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return pack


def _write_images(
    archive: zipfile.ZipFile,
    rows: Sequence[Mapping[str, Any]],
    verify: Callable[[Path], Report],
    locate: Callable[[str], Path],
    left_out: list[LeftOut],
    progress: Callable[[int, int], None],
) -> list[Packed]:
    packed: list[Packed] = []
    names: set[str] = set()

    def check(row: Mapping[str, Any]) -> tuple[bytes, list[str]]:
        return _verified(row, verify, locate)

    for done, (row, (data, faults)) in enumerate(_ahead(check, rows), start=1):
        if faults:
            left_out.append(left_out_because(row, faults))
        else:
            file = file_name(row, names)
            store(archive, file, data)
            shown = len(packed) < SHEET_IMAGES
            packed.append(Packed(row, file, sheet_cell(row, data) if shown else None))
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
    # The bytes are those that were signed, and pixels are decoded before they are signed.
    if report.state != "Trusted":
        why = "; ".join(report.why)
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


def _record(
    folder: Path,
    pack: Pack,
    where: str,
    terms: UsageTerms,
    packed: Sequence[Packed],
    today: date,
) -> None:
    """Records the export: what the pack holds once, its name and what was left out each time."""
    import pyarrow as pa

    key = {"pack_id": pack.pack_id, "created_at": datetime.now(UTC)}
    head = {
        **key,
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
    }
    files = [
        {
            "pack_id": pack.pack_id,
            "request_id": one.row["request_id"],
            "asset_sha256": one.row["sha256"],
            "file": one.file,
        }
        for one in packed
    ]
    refused = [
        {
            **key,
            "request_id": one.request_id,
            "sku": one.sku,
            "reason": "; ".join(one.reasons),
        }
        for one in pack.left_out
    ]

    def append(connection: duckdb.DuckDBPyConnection) -> None:
        _refuse_what_changed(connection, packed, terms, today)
        known = connection.execute(
            "SELECT 1 FROM raw.packs WHERE pack_id = ? LIMIT 1", [pack.pack_id]
        ).fetchone()
        insert_row(connection, "packs", head)
        if not known:
            insert_table(connection, "pack_assets", pa.Table.from_pylist(files))
        if refused:
            insert_table(connection, "pack_refusals", pa.Table.from_pylist(refused))

    with writing(folder) as lake:
        lake.transact(append)


def _refuse_what_changed(
    connection: duckdb.DuckDBPyConnection,
    packed: Sequence[Packed],
    terms: UsageTerms,
    today: date,
) -> None:
    """Packing takes minutes: in them an image may be rejected, or given to somebody else."""
    sha256s = {one.row["request_id"]: one.row["sha256"] for one in packed}
    faults = []
    for row, reasons in judge(connection, sha256s, terms, today):
        if row["sha256"] != sha256s[row["request_id"]]:
            reasons.append("another file of it was signed")
        if reasons:
            where = f"{row['sku']}-{row['index']}"
            faults.append(Fault("; ".join(reasons), where, "export again: it stays out"))
    if faults:
        raise InputError("export, no pack was written: the catalog changed meanwhile", faults)


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
