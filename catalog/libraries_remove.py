"""Works out of a library for good: embeddings, hash and picture go, the record of it stays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.lake import Lake
from catalog.libraries import library_row, library_works
from catalog.libraries_add import live_entries
from catalog.libraries_rows import removal_rows
from catalog.write import insert_table
from pipeline.errors import Fault, InputError
from pipeline.references.place import changing, keep_only, place_of
from pipeline.references.sources import expanded

if TYPE_CHECKING:
    import duckdb


def find_works(
    lake: Lake, name: str, works: Sequence[str], rights_holder: str | None = None
) -> list[dict[str, Any]]:
    """The entries meant: by work_id, file, 6 or more digits of the SHA-256, or all of a holder.

    Raises InputError with every one that is not in the library or could be several.
    """
    rows = library_works(lake, name)
    chosen: dict[int, dict[str, Any]] = {}
    faults: list[Fault] = []
    for work in works:
        found = _matches(rows, work)
        if len(found) == 1:
            chosen[found[0]["work_id"]] = found[0]
        else:
            what = (
                f"{work!r} could be {len(found)} works" if found else f"there is no work {work!r}"
            )
            remedy = "name it by its work_id or file; `platemark library list NAME` has them"
            faults.append(Fault(what, f"library {name!r}", remedy))
    if rights_holder is not None:
        theirs = [row for row in rows if row["rights_holder"] == rights_holder]
        chosen |= {row["work_id"]: row for row in theirs}
        if not theirs:
            holders = ", ".join(sorted({row["rights_holder"] for row in rows})[:20])
            what = f"there is no work of {rights_holder!r}"
            faults.append(Fault(what, f"library {name!r}", f"rights holders: {holders or 'none'}"))
    if not works and rights_holder is None:
        faults.append(Fault("no work is named", "", "name works, or a --rights-holder"))
    if faults:
        raise InputError("library remove", faults)
    return list(chosen.values())


def remove_works(lake: Lake, name: str, work_ids: Sequence[int], reason: str, by: str) -> int:
    """Removes works and records why; returns how many were still there.

    What is derived goes first: a removal that is on record is done. Killed in between, the works
    are still in the library, and it is to be run again.
    """
    library_row(lake, name)
    place = place_of(lake.folder, name)
    with changing(place):
        entries = live_entries(lake, name)
        going = {row["work_id"] for row in entries.values()} & set(work_ids)
        if not going:
            return 0
        keep_only(place, [sha for sha, row in entries.items() if row["work_id"] not in going])
        table = removal_rows(name, sorted(going), reason, by)

        def remove(connection: duckdb.DuckDBPyConnection) -> None:
            insert_table(connection, "library_removals", table)

        lake.transact(remove)
    return len(going)


def _matches(rows: Sequence[dict[str, Any]], work: str) -> list[dict[str, Any]]:
    paths = (work, str(expanded(Path(work)).absolute()))
    tests = (
        lambda row: str(row["work_id"]) == work,
        lambda row: row["file"] in paths,
        lambda row: bool(re.fullmatch("[0-9a-f]{6,64}", work)) and row["sha256"].startswith(work),
    )
    return next((found for test in tests if (found := [row for row in rows if test(row)])), [])
