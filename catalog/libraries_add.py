"""Works into a library: chunk by chunk, what is derived first, then the rows in one transaction.

Killed anywhere and run again, it goes on where it stopped: works are known by their SHA-256.
"""

from __future__ import annotations

import hashlib
import os
from collections import ChainMap
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from catalog.lake import Lake
from catalog.libraries import Progress, library_row
from catalog.libraries_rows import enter_works
from pipeline.checks.rights import Listed
from pipeline.errors import Fault, InputError
from pipeline.images import ImageRefused, read_limited
from pipeline.references.derive import Derived, derive
from pipeline.references.hashes import RECORD, append_hashes
from pipeline.references.place import Place, changing, content_id, keep_only, place_of
from pipeline.store import write_file

CHUNK = 256
"""Works in one transaction."""
_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Added:
    """How many works are new, changed (a right, or the place of the file) and known already.

    `faults` are those of pictures that were left out.
    """

    new: int
    changed: int
    known: int
    faults: tuple[Fault, ...] = ()


def add_works(
    lake: Lake,
    name: str,
    works: Sequence[Listed],
    *,
    by: str,
    folder: Path = Path("/"),
    skip_faulty: bool = False,
    progress: Progress | None = None,
) -> Added:
    """Adds works to a library; a picture that is in it is one work, however often it is listed.

    A known picture under changed rights gets a new entry in place of the old one, and keeps its
    embeddings. Files of entries that are not absolute start at `folder`. At a picture that cannot
    be read nothing more is added, the rest is only looked at, and InputError tells of all (what was
    added before it stays); with `skip_faulty` it is left out. Raises BusyError when another process
    changes the library, SetupError when there is no such library or no room.
    """
    library_row(lake, name)
    place = place_of(lake.folder, name)
    with changing(place), ThreadPoolExecutor(_THREADS) as pool:
        entries = live_entries(lake, name)
        # What a killed writer left.
        keep_only(place, entries)
        seen: dict[str, Listed] = {}
        known: ChainMap[str, Any] = ChainMap(entries, seen)
        faults: list[Fault] = []
        counts = {"new": 0, "changed": 0, "known": 0}
        for start in range(0, len(works), CHUNK):
            chunk = works[start : start + CHUNK]
            read = pool.map(partial(_read, known=known), chunk)
            found = list(_sound(zip(chunk, read, strict=True), seen, faults))
            if not faults or skip_faulty:
                _add_chunk(lake, name, place, found, entries, folder, by, counts)
            if progress:
                progress(start + len(chunk), len(works))
    if faults and not skip_faulty:
        added = counts["new"] + counts["changed"]
        before = f", {added:,} works before these were added" if added else ""
        raise InputError(f"library {name!r}{before}", faults)
    return Added(**counts, faults=tuple(faults))


def live_entries(lake: Lake, name: str) -> dict[str, dict[str, Any]]:
    """The entries of a library by the SHA-256 of their files."""
    rows = lake.rows('SELECT * FROM "references" WHERE library = ? ORDER BY work_id', [name])
    return {row["sha256"]: row for row in rows}


def differs(work: Listed, entry: Mapping[str, Any], folder: Path) -> bool:
    """Whether a work is to be entered anew: its rights changed, or its file is elsewhere now."""
    columns = ("title", "rights_holder", "licence", "role", "expires")
    if work.rights != tuple(entry[column] for column in columns):
        return True
    if work.note != entry["note"]:
        return True
    # The same picture may lie in several places: the one that is entered stays while it is there.
    return work.file != entry["file"] and not _holds(folder / entry["file"], entry["sha256"])


def agree(work: Listed, sha256: str, seen: dict[str, Listed], faults: list[Fault]) -> bool:
    """Whether a work is the first of its picture among those `seen`; others must say the same."""
    first = seen.setdefault(sha256, work)
    if first is not work and first.rights != work.rights:
        what = f"the same picture as in {first.where}, under other rights"
        faults.append(Fault(what, work.where, "keep one row a picture"))
    return first is work


def _holds(path: Path, sha256: str) -> bool:
    try:
        return hashlib.sha256(read_limited(path)).hexdigest() == sha256
    except (OSError, ImageRefused):
        return False


_Read = tuple[str, Derived | None]


def _read(work: Listed, known: Container[str]) -> _Read | Fault:
    try:
        return derive(work.path, known)
    except ImageRefused as refused:
        return Fault(refused.what, f"{work.where}, {work.path.name}", refused.remedy)
    except OSError as error:
        what = error.strerror or str(error)
        return Fault(what, f"{work.where}, {work.path.name}", "check the file")


def _sound(
    read: Iterator[tuple[Listed, _Read | Fault]], seen: dict[str, Listed], faults: list[Fault]
) -> Iterator[tuple[Listed, _Read]]:
    for work, found in read:
        if isinstance(found, Fault):
            faults.append(found)
        elif agree(work, found[0], seen, faults):
            yield work, found


def _add_chunk(
    lake: Lake,
    name: str,
    place: Place,
    found: Sequence[tuple[Listed, _Read]],
    entries: dict[str, dict[str, Any]],
    folder: Path,
    by: str,
    counts: dict[str, int],
) -> None:
    """Adds what of a chunk is new or changed, and counts; the catalog comes last."""
    fresh = [(work, sha256) for work, (sha256, _) in found if sha256 not in entries]
    changed = [
        (work, sha256)
        for work, (sha256, _) in found
        if sha256 in entries and differs(work, entries[sha256], folder)
    ]
    keep_derived(place, [derived for _, (_, derived) in found if derived is not None])
    if fresh or changed:
        old = [entries[sha256]["work_id"] for _, sha256 in changed]
        enter_works(lake, name, [*fresh, *changed], old, by)
    counts["new"] += len(fresh)
    counts["changed"] += len(changed)
    counts["known"] += len(found) - len(fresh) - len(changed)


def keep_derived(place: Place, derived: Sequence[Derived]) -> None:
    """Keeps hashes and small pictures. For the holder of `changing`."""
    if not derived:
        return
    for each in derived:
        write_file(place.picture(each.sha256), each.jpeg)
    rows = [(content_id(each.sha256), each.hash, each.quality) for each in derived]
    append_hashes(place.hashes, np.array(rows, RECORD))
