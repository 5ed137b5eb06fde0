"""Exports a pack: signed images for a channel with licence, manifest, feed, check sums and sheet.

Every file is checked as it goes in. The bytes depend on the content alone: the same images under
the same terms give the same pack. It appears whole under its name, or not at all; interrupted, it
goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.feeds import FeedRow
from catalog.fitting import Fit
from catalog.lake import Lake
from catalog.ledger_reads import read_patiently
from catalog.pack_check import Checked, Files, Ready, bytes_of, check_all
from catalog.pack_content import Packed, pack_id_of, put, sidecar, write_papers
from catalog.pack_copy import read_once
from catalog.pack_plan import Asked, Plan, plan_pack, unfit_because
from catalog.pack_target import Target, open_target, plan_of
from catalog.revocation import Revocation, revoked_pack, revoked_requests
from catalog.rows import as_json
from catalog.selection import LeftOut, Selection, judge, left_out_because
from catalog.write import insert_row, insert_table
from pipeline.errors import Fault, InputError, PlatemarkError, SetupError

if TYPE_CHECKING:
    import duckdb

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


def export_pack(
    lake: Lake,
    out: Path | str,
    asked: Asked,
    chosen: Selection,
    files: Files,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Pack:
    """Writes what was `chosen` of what is `asked` for, if its channel takes it, to `out`.

    `out` is a `….zip`, a `….tar`, a folder, or a store's address. The pack is recorded in the
    catalog before it appears. `progress` hears of each image. Raises NothingToExport, InputError
    (expired terms, a revoked pack, `out` holds another pack, the channel refuses AI images, an
    image was rejected or given away meanwhile), SetupError (disk full), BusyError (another export
    writes to `out`).
    """
    plan = plan_pack(lake, asked, chosen, files.locate)
    left_out = [*plan.left_out, *map(unfit_because, plan.unfit)]
    ready = _with_renditions(plan.fits, files, left_out)
    if not ready:
        raise NothingToExport(left_out)
    refuse_revoked(lake, asked, ready)
    told = [(each.fit.name, each.row["sha256"]) for each in ready]
    target = _opened(
        out,
        plan_of(
            [
                asked.terms.model_dump(mode="json"),
                asked.channel.model_dump(mode="json"),
                asked.items,
                asked.values,
                told,
            ]
        ),
    )
    try:
        pack, packed = _written(target, str(out), asked, ready, files, left_out, progress)
        _record(lake, pack, asked, packed)
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


def plan_checked(lake: Lake, asked: Asked, chosen: Selection, files: Files) -> Plan:
    """What `export_pack` would write, from the same checks of the same files; writes nothing.

    `files.prepare` gives the renditions that are there already; the originals stand for those still
    to be made. Raises InputError as `export_pack` does.
    """
    plan = plan_pack(lake, asked, chosen, files.locate)
    known = files.prepare(plan.fits)
    ready = [_ready(each, known.get(each.row["request_id"])) for each in plan.fits]
    if all(each.made for each in ready):
        refuse_revoked(lake, asked, ready)
    fits, unfit, left_out = [], list(plan.unfit), list(plan.left_out)
    for item in check_all(asked, ready, files, lambda name, file: read_once(file)[0]):
        for each in item.images:
            if each.faults:
                left_out.append(each.left_out())
            elif each.broken:
                unfit.append(replace(each.ready.fit, broken=each.broken))
            else:
                fits.append(each.ready.fit)
    return Plan(tuple(fits), tuple(unfit), tuple(left_out))


def refuse_revoked(lake: Lake, asked: Asked, ready: Sequence[Ready]) -> None:
    """Raises InputError when the pack that these images make was taken back."""
    pack_id = pack_id_of(((each.fit.file, each.row["sha256"]) for each in ready), asked.terms)
    revocation = read_patiently(lake, lambda connection: revoked_pack(connection, pack_id))
    if revocation:
        raise _revoked(revocation, "")


def _revoked(revocation: Revocation, where: str) -> InputError:
    remedy = "export other images, or under other terms"
    return InputError("export", [Fault(str(revocation), where, remedy)])


def _written(
    target: Target,
    out: str,
    asked: Asked,
    ready: Sequence[Ready],
    files: Files,
    left_out: list[LeftOut],
    progress: Callable[[int, int], None],
) -> tuple[Pack, list[Packed]]:
    sums: dict[str, str] = {}
    packed: list[Packed] = []
    rows: list[FeedRow] = []
    done = 0
    for item in check_all(asked, ready, files, target.copy):
        rows += item.rows
        for each in item.images:
            if each.goes_in:
                packed.append(_put(target, asked, each, files, sums))
            else:
                left_out.append(each.left_out())
            done += 1
            progress(done, len(ready))
    if not packed:
        raise NothingToExport(left_out)
    proofs = files.proofs([one.row["sha256"] for one in packed])
    pack_id = write_papers(target, packed, sums, asked, rows, proofs)
    sha256, size = target.complete()
    name = asked.channel.channel
    return Pack(pack_id, out, sha256, size, len(packed), tuple(left_out), name), packed


def _put(target: Target, asked: Asked, each: Checked, files: Files, sums: dict[str, str]) -> Packed:
    row, file = each.ready.row, each.ready.fit.file
    sums[file] = row["sha256"]
    if not target.holds(file, row["sha256"], row["size"]):
        target.add(file, bytes_of(each, files), row["sha256"])
    if asked.channel.sidecars and (packet := sidecar(bytes_of(each, files), asked)):
        sums[f"{file}.xmp"] = put(target, f"{file}.xmp", packet)
    return Packed(row, file, each.cell)


def _with_renditions(fits: Sequence[Fit], files: Files, left_out: list[LeftOut]) -> list[Ready]:
    """Each fit with its row as it will be delivered."""
    made = files.prepare(fits)
    ready: list[Ready] = []
    for each in fits:
        found = made.get(each.row["request_id"], "no rendition was made of it")
        if each.recipe is not None and isinstance(found, str):
            left_out.append(left_out_because(each.row, [found]))
        else:
            ready.append(_ready(each, found))
    return ready


def _ready(each: Fit, rendition: Row | str | None) -> Ready:
    row = {**each.row, "original_sha256": each.row["sha256"]}
    if each.recipe is None:
        return Ready(each, row)
    if rendition is None or isinstance(rendition, str):
        return Ready(each, row, made=False)
    return Ready(each, row | {**rendition, "c2pa_label": rendition["label"]})


def _record(lake: Lake, pack: Pack, asked: Asked, packed: Sequence[Packed]) -> None:
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

    lake.transact(append)


def _refuse_what_changed(
    connection: duckdb.DuckDBPyConnection,
    pack: Pack,
    packed: Sequence[Packed],
    asked: Asked,
) -> None:
    """Packing takes minutes: in them an image may be rejected, revoked, or given away."""
    if revocation := revoked_pack(connection, pack.pack_id):
        raise _revoked(revocation, pack.path)
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
