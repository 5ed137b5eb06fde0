"""Export of a pack from a workspace: terms found, files located and verified, the pack recorded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from catalog.channel import load_channel
from catalog.fitting import Fit
from catalog.lake import Lake, exists, reading, writing
from catalog.ledger import place_of
from catalog.ledger_checkpoints import write_checkpoint
from catalog.ledger_notes import verifier_in
from catalog.ledger_proof import inclusion_proofs, proofs_document
from catalog.pack import NothingToExport, Pack, export_pack, plan_checked
from catalog.pack_check import Files, Row
from catalog.pack_plan import Asked, Plan
from catalog.renditions import Maker, known_renditions, prepare_renditions
from catalog.selection import EVERYTHING, Named, Selection, choose, named, own_terms, without_terms
from catalog.verifications import record_verifications
from catalog.verified import proven_by_hash
from pipeline.brief_table import read_table
from pipeline.errors import Fault, InputError
from pipeline.keys import signing_identity, trust_anchors
from pipeline.licences import load_licences
from pipeline.settings import Settings
from pipeline.store import MIMES, path_of
from pipeline.terms import UsageTerms
from pipeline.terms_file import read_terms
from pipeline.verify import Report, verify_signature

_MANY = 500
"""From so many files to be read in full on, and three cores, processes read them: inside one
process the C2PA library gains no more than two or three times."""


def export(
    settings: Settings,
    out: Path | str,
    where: str = EVERYTHING,
    terms: str | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
    *,
    channel: str = "plain",
    items: Path | None = None,
    values: Mapping[str, str] | None = None,
) -> Pack:
    """Write the pack `out` from the images that `where` names, under `terms`, for `channel`.

    `terms` is a YAML file or the id of terms that some of these images have; without it the
    images' own, if all that are cleared have the same. `channel` is a shipped name or a YAML file,
    `items` a table with a column `sku` for its feed, `values` what its templates need besides.
    Raises as export_pack does, and InputError for unusable terms or tables.
    """
    asked, chosen = _asked(settings, where, terms, channel, items, values)
    # Whoever writes makes a catalog where there is none; whoever reads says so.
    opened = writing if exists(settings.catalog) else reading
    with opened(settings.catalog) as lake:
        with _files(settings, lake, asked) as files:
            pack = export_pack(lake, out, asked, chosen, files, progress)
        occasion = f"export {pack.pack_id}"
        write_checkpoint(
            lake,
            place_of(settings),
            occasion,
            settings.ledger_witnesses,
            settings.signing.timestamp_url,
        )
    return pack


def dry_run(
    settings: Settings,
    where: str = EVERYTHING,
    terms: str | None = None,
    *,
    channel: str = "plain",
    items: Path | None = None,
    values: Mapping[str, str] | None = None,
) -> Plan:
    """What `export` would write: what fits, as it is or as a rendition, and what does not and why.

    Reads and checks every file as `export` does; writes nothing. Raises as `export` does.
    """
    asked, chosen = _asked(settings, where, terms, channel, items, values)
    with reading(settings.catalog) as lake, _files(settings, lake, asked, dry=True) as files:
        return plan_checked(lake, asked, chosen, files)


def _asked(
    settings: Settings,
    where: str,
    terms: str | None,
    channel: str,
    items: Path | None,
    values: Mapping[str, str] | None,
) -> tuple[Asked, Selection]:
    """What is asked for, and the images that may be given: both from the catalog of one moment."""
    read = load_channel(channel)
    from_file = read_terms(Path(terms)) if terms is not None and _is_file(terms) else None
    table = _read_items(items) if items else {}
    licences = load_licences(settings.licences)
    today = datetime.now(UTC).date()
    with named(settings.catalog, where) as found:
        granted = from_file or _catalogued_terms(found, terms)
        chosen = choose(found, granted, today, licences)
    return Asked(where, granted, read, today, table, values or {}, licences), chosen


@contextmanager
def _files(settings: Settings, lake: Lake, asked: Asked, dry: bool = False) -> Iterator[Files]:
    """The workspace's files. `dry`: nothing is made or recorded."""
    anchors = trust_anchors(settings)
    locate = partial(path_of, settings)
    verify: Callable[[Path], Report] = partial(_verify, anchors)
    pools: list[ProcessPoolExecutor] = []
    reports: list[Report] = []

    def proven(rows: Sequence[Row]) -> set[str]:
        found = proven_by_hash(lake, rows, verify, locate)
        cores = os.cpu_count() or 1
        if len(rows) - len(found) >= _MANY and cores > 2:
            pools.append(ProcessPoolExecutor(min(8, cores), mp_context=get_context("spawn")))
        return found

    def verified(path: Path) -> Report:
        report = pools[0].submit(_verify, anchors, path).result() if pools else verify(path)
        reports.append(report)
        return report

    def prepare(fits: Sequence[Fit]) -> Mapping[str, Mapping[str, Any] | str]:
        if not any(each.recipe for each in fits):
            return {}
        maker = Maker(settings, signing_identity(settings), anchors, asked.terms, asked.licences)
        return (known_renditions if dry else prepare_renditions)(lake, fits, maker)

    try:
        yield Files(verified, locate, prepare, proven, partial(_proofs, settings, lake))
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)
        if reports and not dry:
            # The next export need not read them in full again.
            record_verifications(lake, reports)


def _proofs(settings: Settings, lake: Lake, sha256s: Sequence[str]) -> bytes | None:
    """The ledger's proofs that these files are in it; a checkpoint is signed where one lacks."""
    place = place_of(settings)
    verifier = verifier_in(place)
    found = inclusion_proofs(lake, sha256s, [verifier]) if verifier else {}
    if len(found) < len(set(sha256s)):
        write_checkpoint(
            lake, place, "export", settings.ledger_witnesses, settings.signing.timestamp_url
        )
        verifier = verifier_in(place)
        found = inclusion_proofs(lake, sha256s, [verifier]) if verifier else {}
    return proofs_document(found) if found else None


def _verify(anchors: bytes, path: Path) -> Report:
    return verify_signature(path, MIMES[path.suffix], anchors)


def _read_items(path: Path) -> dict[str, Mapping[str, Any]]:
    """The table's rows by sku."""
    faults: list[Fault] = []
    items: dict[str, Mapping[str, Any]] = {}
    for row in read_table(path, faults):
        sku = str(row.cells.get("sku") or "")
        if not sku:
            faults.append(Fault("has no sku", row.where, "add a column sku"))
        elif sku in items:
            faults.append(Fault(f"the sku {sku!r} stands there twice", row.where, "keep one row"))
        items[sku] = row.cells
    if faults:
        raise InputError(f"items {path.name}", faults)
    return items


def _is_file(terms: str) -> bool:
    return Path(terms).suffix in (".yaml", ".yml") or Path(terms).is_file()


def _catalogued_terms(images: Named, terms_id: str | None) -> UsageTerms:
    found = [each for each in own_terms(images) if terms_id in (None, each.id)]
    if len(found) == 1:
        return found[0]
    if not found and terms_id is None:
        raise NothingToExport(without_terms(images))
    ids = list(dict.fromkeys(each.id for each in found))
    remedy = "name a YAML file of usage terms: --terms FILE"
    if not found:
        what = f"no cleared image that the condition names has terms {terms_id!r}"
    elif len(ids) > 1:
        what = f"the images have different terms: {', '.join(ids)}"
        remedy = "name one of them, or a YAML file, with --terms"
    else:
        what = f"terms {ids[0]} differ from image to image: {'; '.join(_differences(found))}"
    raise InputError("export", [Fault(what, "--terms", remedy)])


def _differences(terms: Sequence[UsageTerms]) -> list[str]:
    """Each field that is not the same in all, with its values."""
    fields = [each.model_dump(mode="json") for each in terms]
    names = dict.fromkeys(name for each in fields for name in each)
    values = {name: list(dict.fromkeys(str(each.get(name)) for each in fields)) for name in names}
    return [f"{name} {' or '.join(found)}" for name, found in values.items() if len(found) > 1]
