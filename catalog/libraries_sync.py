"""Libraries that are folders: made equal to their rights.csv before a run, cheaply when they are.

A file is read again only when its size, times or inode changed since it was last hashed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.lake import Lake
from catalog.libraries import (
    FOLDER,
    Progress,
    check_name,
    confirm_library,
    is_known,
    library_folders,
    library_row,
    record_library,
)
from catalog.libraries_add import add_works, agree, differs, live_entries
from catalog.libraries_open import Library, open_library
from catalog.libraries_remove import remove_works
from catalog.write import insert_row
from pipeline.checks.rights import Listed, read_rights
from pipeline.errors import Fault, InputError, SetupError
from pipeline.images import ImageRefused, read_limited
from pipeline.references.place import place_of
from pipeline.settings import Settings
from pipeline.store import write_file

if TYPE_CHECKING:
    import duckdb

VANISHED = "no longer in the library's folder"
_SETTLED_NS = 2_000_000_000
"""A file that changed less than this before it was hashed may change again unseen."""


def open_libraries(
    lake: Lake, settings: Settings, device: str = "cpu", progress: Progress | None = None
) -> Callable[[str], Library]:
    """Opens libraries by name, each once; those that are folders are made equal to them first.

    For a catalog that is open for writing. The function raises SetupError, naming those there are,
    when no library has that name, InputError with all faults of a folder.
    """
    folders = library_folders(settings)

    @cache
    def library(name: str) -> Library:
        if name in folders:
            sync_folder(lake, name, folders[name], progress)
        else:
            library_row(lake, name, folders)
        return open_library(lake, name, folders.get(name, Path("/")), device)

    return library


def sync_folder(lake: Lake, name: str, folder: Path, progress: Progress | None = None) -> None:
    """Makes a library equal to a folder: adds, enters changed rights anew, removes, confirms.

    Raises InputError with all faults of its table and files, SetupError when a library of that name
    was made by hand, BusyError when another process changes it.
    """
    check_name(name)
    folder = folder.expanduser().absolute()
    works, faults = read_rights(name, folder)
    files = _hashed(lake, name, works, faults)
    if faults:
        raise InputError(f"library {name!r}", faults)
    confirmed = _make(lake, name, folder)
    entries = live_entries(lake, name)
    lacking = [
        work
        for sha256, work in files.items()
        if sha256 not in entries or differs(work, entries[sha256], folder)
    ]
    if lacking:
        add_works(lake, name, lacking, by=FOLDER, folder=folder, progress=progress)
    vanished = [row["work_id"] for sha256, row in entries.items() if sha256 not in files]
    if vanished:
        remove_works(lake, name, vanished, VANISHED, FOLDER)
    # Once a day says as much as once a run.
    if lacking or vanished or confirmed.date() < datetime.now(UTC).date():
        confirm_library(lake, name, FOLDER)


def _make(lake: Lake, name: str, folder: Path) -> datetime:
    """When the folder last spoke for the library; from now on, when it never did."""
    checks = "SELECT max(checked_at) AS at FROM raw.library_checks "
    (last,) = lake.rows(f"{checks} WHERE library = ? AND checked_by = ?", [name, FOLDER])
    before: datetime | None = last["at"]
    if before:
        return before
    now = datetime.now(UTC)

    def make(connection: duckdb.DuckDBPyConnection) -> None:
        works = 'SELECT 1 FROM "references" WHERE library = ? LIMIT 1'
        if connection.execute(works, [name]).fetchone():
            raise SetupError(
                f"the settings name the folder {folder} for the library {name!r}, but works were "
                f"added to a library of that name by hand: choose another name in `libraries`, or "
                f"remove those works first"
            )
        if not is_known(connection, name):
            record_library(connection, name, f"as {folder} has it")
        row = {"library": name, "checked_by": FOLDER, "checked_at": now}
        insert_row(connection, "library_checks", row)

    lake.transact(make)
    return now


def _hashed(
    lake: Lake, name: str, works: Sequence[Listed], faults: list[Fault]
) -> dict[str, Listed]:
    """The works by the SHA-256 of their files, each picture once."""
    stamps = place_of(lake.folder, name).stamps
    known = _known(stamps)
    now: dict[str, list[Any]] = {}
    files: dict[str, Listed] = {}
    for work in works:
        key = str(work.path)
        try:
            started = time.time_ns()
            stamp = _stamp(work.path)
            held = known.get(key, [])
            unchanged = held[:-1] == stamp
            data = b"" if unchanged else read_limited(work.path)
            sha256 = held[-1] if unchanged else hashlib.sha256(data).hexdigest()
            if unchanged or stamp[0] < started - _SETTLED_NS:
                now[key] = [*stamp, sha256]
        except ImageRefused as refused:
            faults.append(Fault(refused.what, f"{work.where}, file", refused.remedy))
            continue
        except OSError as error:
            what = error.strerror or str(error)
            faults.append(Fault(what, f"{work.where}, file", "check the file"))
            continue
        agree(work, sha256, files, faults)
    if now != known:
        write_file(stamps, json.dumps(now).encode())
    return files


def _stamp(path: Path) -> list[int]:
    """What changes with a file's bytes. Nobody sets the first, the time of its change, back."""
    found = path.stat()
    times = [found.st_ctime_ns, found.st_mtime_ns]
    return [*times, found.st_size, found.st_ino, found.st_dev]


def _known(stamps: Path) -> dict[str, list[Any]]:
    try:
        known = json.loads(stamps.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
