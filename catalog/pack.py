"""Exports a pack: signed images for a channel with licence, manifest, feed, check sums and sheet.

Every file is checked as it goes in. The bytes depend on the content alone: the same images under
the same terms give the same pack. It appears whole under its name, or not at all; interrupted, it
goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.channel import Channel, load_channel
from catalog.feeds import feed_rows
from catalog.fitting import Fit, broken_in_file
from catalog.lake import writing
from catalog.pack_content import (
    SHEET_IMAGES,
    Packed,
    pack_id_of,
    put,
    sheet_cell,
    sidecar,
    write_papers,
)
from catalog.pack_plan import Asked, plan_pack, unfit_because
from catalog.pack_target import Target, open_target, plan_of
from catalog.revocation import revoked_pack, revoked_requests
from catalog.rows import as_json
from catalog.selection import EVERYTHING, LeftOut, judge, left_out_because
from catalog.write import insert_row, insert_table
from pipeline.errors import Fault, InputError, PlatemarkError, SetupError
from pipeline.licences import Licences
from pipeline.terms import UsageTerms

if TYPE_CHECKING:
    import duckdb

    from pipeline.contact_sheet import Cell
    from pipeline.verify import Report

Row = Mapping[str, Any]


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
    """A written pack. `path` is a path or a store's address; `sha256` is of the archive's bytes, or
    of SHA256SUMS where the pack is no single file; `pack_id` is of its content and terms."""

    pack_id: str
    path: str
    sha256: str
    size: int
    images: int
    left_out: tuple[LeftOut, ...]
    channel: str

    @property
    def name(self) -> str:
        """The file's or folder's own name."""
        return self.path.rstrip("/").rpartition("/")[2]

    def as_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Checked:
    """One file's bytes, why they may not go in, and its cell of the contact sheet."""

    data: bytes
    faults: tuple[str, ...]
    cell: Cell | None


@dataclass(frozen=True)
class Files:
    """How an export gets at files. `verify` reads one with the C2PA library; `locate` turns a
    catalogued url into its path; `prepare` makes renditions, by request id their columns or why
    there is none; `proven` names files that need no `verify` while their SHA-256 is the
    catalogued one; `proofs` gives the ledger's inclusion proofs of signed assets, by SHA-256."""

    verify: Callable[[Path], Report]
    locate: Callable[[str], Path]
    prepare: Callable[[Sequence[Fit]], Mapping[str, Row | str]] = lambda fits: {}
    proven: Callable[[Sequence[Row]], set[str]] = lambda rows: set()
    proofs: Callable[[Sequence[str]], bytes | None] = lambda sha256s: None


def export_pack(
    folder: Path,
    out: Path | str,
    terms: UsageTerms,
    files: Files,
    *,
    where: str = EVERYTHING,
    channel: Channel | None = None,
    items: Mapping[str, Row] | None = None,
    values: Mapping[str, str] | None = None,
    licences: Licences | None = None,
    today: date | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Pack:
    """Writes the images that `where` names, `terms` may be given for and `channel` takes to `out`.

    `out` is a `….zip`, a `….tar`, a folder, or a store's address. The pack is recorded in the
    catalog in `folder` before it appears; only then is the catalog open for writing. `progress`
    hears of each image. Raises NothingToExport, InputError (wrong condition, expired terms, `out`
    holds another pack, the channel refuses AI images, an image was rejected or given away
    meanwhile), SetupError (disk full), BusyError (another export writes to `out`).
    """
    today = today or datetime.now(UTC).date()
    _refuse_expired(terms, today)
    channel = channel or load_channel("plain")
    asked = Asked(where, terms, channel, today, items or {}, values or {}, licences)
    plan = plan_pack(folder, asked)
    left_out = [*plan.left_out, *map(unfit_because, plan.unfit)]
    ready = _with_renditions(plan.fits, files, left_out)
    if not ready:
        raise NothingToExport(left_out)
    told = [(each.name, row["sha256"]) for each, row in ready]
    target = _opened(
        out,
        plan_of(
            [
                terms.model_dump(mode="json"),
                channel.model_dump(mode="json"),
                asked.items,
                asked.values,
                told,
            ]
        ),
    )
    try:
        pack, packed = _written(target, str(out), asked, ready, files, left_out, progress)
        _record(folder, pack, asked, packed)
        target.publish()
    except PlatemarkError:
        target.discard()
        raise
    except OSError as error:
        with suppress(OSError):
            target.close()
        raise _disk_fault(out, error) from error
    except BaseException:
        target.close()
        raise
    return pack


def _written(
    target: Target,
    out: str,
    asked: Asked,
    ready: Sequence[tuple[Fit, Row]],
    files: Files,
    left_out: list[LeftOut],
    progress: Callable[[int, int], None],
) -> tuple[Pack, list[Packed]]:
    sums: dict[str, str] = {}
    packed = _write_images(target, asked, ready, files, left_out, sums, progress)
    if not packed:
        raise NothingToExport(left_out)
    rows = feed_rows(asked.channel, [one.listed for one in packed])
    proofs = files.proofs([one.row["original_sha256"] for one in packed])
    write_papers(target, packed, sums, asked.terms, asked.channel, rows, proofs)
    sha256, size = target.complete()
    pack_id = pack_id_of(packed, asked.terms)
    name = asked.channel.channel
    return Pack(pack_id, out, sha256, size, len(packed), tuple(left_out), name), packed


def _with_renditions(
    fits: Sequence[Fit], files: Files, left_out: list[LeftOut]
) -> list[tuple[Fit, Row]]:
    """Each fit with its row as it will be delivered."""
    made = files.prepare(fits)
    ready: list[tuple[Fit, Row]] = []
    for each in fits:
        row = {**each.row, "original_sha256": each.row["sha256"]}
        if each.recipe is not None:
            found = made.get(each.row["request_id"], "no rendition was made of it")
            if isinstance(found, str):
                left_out.append(left_out_because(each.row, [found]))
                continue
            row |= {**found, "c2pa_label": found["label"]}
        ready.append((each, row))
    return ready


def _write_images(
    target: Target,
    asked: Asked,
    ready: Sequence[tuple[Fit, Row]],
    files: Files,
    left_out: list[LeftOut],
    sums: dict[str, str],
    progress: Callable[[int, int], None],
) -> list[Packed]:
    proven = files.proven([row for _, row in ready])
    packed: list[Packed] = []

    shown = {row["request_id"] for _, row in ready[:SHEET_IMAGES]}

    def check(one: tuple[Fit, Row]) -> Checked:
        each, row = one
        data, faults = _verified(row, files, proven)
        if not faults and asked.channel.rules:
            context = asked.context(row, each.position)
            broken = broken_in_file(asked.channel, each.position, context, data, asked.today)
            faults = [str(one) for one in broken]
        cell = sheet_cell(row, data) if row["request_id"] in shown and not faults else None
        return Checked(data, tuple(faults), cell)

    for done, ((each, row), checked) in enumerate(_ahead(check, ready), start=1):
        data, faults = checked.data, checked.faults
        if faults:
            left_out.append(left_out_because(row, faults))
        else:
            file = f"images/{each.name}"
            sums[file] = put(target, file, data, row["sha256"])
            if asked.channel.sidecars and (packet := sidecar(data, asked.terms)):
                sums[f"{file}.xmp"] = put(target, f"{file}.xmp", packet)
            packed.append(Packed(row, file, asked.listed(each, row), checked.cell))
        progress(done, len(ready))
    return packed


def _verified(row: Row, files: Files, proven: set[str]) -> tuple[bytes, list[str]]:
    """The bytes that go in, and why they must not: they are what was catalogued, and Trusted."""
    if not row["url"]:
        return b"", ["the file was not kept"]
    path = files.locate(row["url"])
    try:
        data = path.read_bytes()
    except OSError as error:
        return b"", [f"the file {row['url']} is missing or unreadable: {error.strerror}"]
    found = hashlib.sha256(data).hexdigest()
    if found != row["sha256"]:
        return b"", [f"the file {row['url']} was altered: its SHA-256 is {found}"]
    if found in proven:
        return data, []
    report = files.verify(path)
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
    work: Callable[[tuple[Fit, Row]], Checked], ready: Sequence[tuple[Fit, Row]]
) -> Iterator[tuple[tuple[Fit, Row], Checked]]:
    """Results in the order of `ready`, a few computed ahead by threads, never all in memory."""
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        waiting: list[tuple[tuple[Fit, Row], Future[Checked]]] = []
        try:
            for one in ready:
                waiting.append((one, pool.submit(work, one)))
                if len(waiting) > 2 * workers:
                    first, future = waiting.pop(0)
                    yield first, future.result()
            for one, future in waiting:
                yield one, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _record(folder: Path, pack: Pack, asked: Asked, packed: Sequence[Packed]) -> None:
    """Records the export: what the pack holds once, its name and what was left out each time."""
    import pyarrow as pa

    terms = asked.terms
    key = {"pack_id": pack.pack_id, "created_at": datetime.now(UTC)}
    head = {
        **key,
        "file": pack.name,
        "sha256": pack.sha256,
        "size": pack.size,
        "images": pack.images,
        "left_out": len(pack.left_out),
        "where": asked.where,
        "terms": as_json(terms.model_dump(mode="json")),
        "terms_id": terms.id,
        "licensee": terms.licensee,
        "expires": terms.expires,
        "channel": pack.channel,
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
        _refuse_what_changed(connection, pack, packed, asked)
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
    pack: Pack,
    packed: Sequence[Packed],
    asked: Asked,
) -> None:
    """Packing takes minutes: in them an image may be rejected, revoked, or given away."""
    if revocation := revoked_pack(connection, pack.pack_id):
        remedy = "export other images, or under other terms"
        raise InputError("export", [Fault(str(revocation), pack.path, remedy)])
    sha256s = {one.row["request_id"]: one.row["original_sha256"] for one in packed}
    taken_back = revoked_requests(connection, sha256s)
    faults = []
    for row, reasons in judge(connection, sha256s, asked.terms, asked.today, asked.licences):
        if row["sha256"] != sha256s[row["request_id"]]:
            reasons.append("another file of it was signed")
        if revocation := taken_back.get(row["request_id"]):
            reasons.append(str(revocation))
        if reasons:
            where = f"{row['sku']}-{row['index']}"
            faults.append(Fault("; ".join(reasons), where, "export again: it stays out"))
    if faults:
        raise InputError("export, no pack was written: the catalog changed meanwhile", faults)


def _refuse_expired(terms: UsageTerms, today: date) -> None:
    if terms.expires and terms.expires < today:
        fault = Fault(f"they expired on {terms.expires}", f"terms {terms.id}", "renew them")
        raise InputError("export", [fault])


def _opened(out: Path | str, plan: str) -> Target:
    try:
        return open_target(str(out), plan)
    except OSError as error:
        raise _disk_fault(out, error) from error


def _disk_fault(out: Path | str, error: OSError) -> SetupError:
    return SetupError(
        f"the pack {out} cannot be written ({error.strerror or error}): make room or choose "
        f"another place. Nothing of it is visible; the same command goes on where it stopped"
    )
