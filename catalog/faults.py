"""Tells what an error of DuckDB or SQLite means for a person: try again, or put something right."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.errors import SetupError

_MASKED = "cannot rollback - no transaction is active"
_CONTENTION = (
    "database is locked",
    "database table is locked",
    "transaction conflict",
    "conflict on",
    "conflicting",
    "has been altered by another transaction",
    "has been changed by another transaction",
    # SQLite has rolled back by itself and DuckLake reports that instead of the cause.
    _MASKED,
)
_TOO_LITTLE = 2**20
_DISK_FULL = ("no space left on device", "database or disk is full", "disk quota exceeded")
_DAMAGED = ("disk image is malformed", "file is not a database", "file is encrypted")
_NOT_ALLOWED = ("readonly database", "read-only file system", "permission denied")
_DATA_MISSING = ("no such file or directory", "cannot open file", "no files found that match")


def is_contention(error: Exception) -> bool:
    """Whether another writer was in the way, so that the same transaction may succeed later."""
    text = str(error).lower()
    return any(sign in text for sign in _CONTENTION)


def setup_error(error: Exception, folder: Path) -> SetupError | None:
    """The set-up fault behind an error on the catalog in `folder`; None if it is another kind."""
    text = str(error).lower()
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
    full = _MASKED in text and _free(folder) < _TOO_LITTLE
    if full or any(sign in text for sign in _DISK_FULL):
        return SetupError(
            f"the disk of the catalog {folder} is full ({_free(folder) / 2**20:.0f} MiB free): "
            f"make room and run again; what was committed is kept, the rest is made again"
        )
    if any(sign in text for sign in _DAMAGED):
        return SetupError(
            f"the catalog's metadata in {folder} is damaged ({first_line}): restore "
            f"catalog.sqlite from a backup; the Parquet files in data/ need no repair"
        )
    if any(sign in text for sign in _NOT_ALLOWED):
        return SetupError(
            f"the catalog {folder} may not be written ({first_line}): give this user write "
            f"permission, or choose another folder in `catalog_url`"
        )
    if any(sign in text for sign in _DATA_MISSING):
        return SetupError(
            f"data of the catalog {folder} is missing ({first_line}): restore the folder data/ "
            f"from the same backup as catalog.sqlite"
        )
    return None


def _free(folder: Path) -> int:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free
