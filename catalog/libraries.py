"""Reference libraries in the catalog: made, confirmed, listed. What works say is in its tables.

Whatever is derived from pictures lies beside it (pipeline/references/place.py). Works come and go
by libraries_add.py and libraries_remove.py; checks read them by libraries_open.py.
"""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.lake import Lake
from catalog.write import insert_row
from pipeline.errors import Fault, InputError, SetupError
from pipeline.references.index import VectorIndex
from pipeline.references.place import Place, place_of
from pipeline.settings import ROOT, Settings

if TYPE_CHECKING:
    import duckdb

Progress = Callable[[int, int], None]
"""Called with how many works are done, and of how many."""

FOLDER = "rights.csv"
"""Who confirms a library that is kept equal to a folder: its table."""
_NAME = re.compile(r"[^\W_][\w .-]{0,63}")


def library_folders(settings: Settings) -> Mapping[str, Path]:
    """The libraries that are folders, by name: the shipped one and those of the settings."""
    return {"starter-protected": ROOT / "starter" / "references"} | settings.libraries


def create_library(lake: Lake, name: str, note: str = "") -> None:
    """Makes an empty library. Raises InputError: no such name is possible, or there is one."""
    check_name(name)

    def create(connection: duckdb.DuckDBPyConnection) -> None:
        if is_known(connection, name):
            remedy = "add works to it, or choose another name"
            raise InputError("library create", [Fault(f"there is a library {name!r}", "", remedy)])
        record_library(connection, name, note)

    lake.transact(create)


def confirm_library(lake: Lake, name: str, by: str | None = None) -> datetime:
    """Records that somebody (default: the login name) found its works and rights still right."""
    now = datetime.now(UTC)
    row = {"library": name, "checked_by": by or getpass.getuser(), "checked_at": now}

    def confirm(connection: duckdb.DuckDBPyConnection) -> None:
        insert_row(connection, "library_checks", row)

    library_row(lake, name)
    lake.transact(confirm)
    return now


def library_rows(lake: Lake) -> list[dict[str, Any]]:
    """One row a library: works and what they count as today, models embedded, bytes, who knows.

    `models` has for each model, by name and first digits of its weights' digest, how many works are
    embedded. `bytes` is what is derived from the pictures.
    """
    rows = lake.rows("SELECT * FROM libraries ORDER BY library")
    for row in rows:
        place = place_of(lake.folder, row["library"])
        row["models"] = _models(place)
        row["bytes"] = place.size()
    return rows


def library_works(lake: Lake, name: str) -> list[dict[str, Any]]:
    """One row a work that is in the library. Raises SetupError when there is no such library."""
    library_row(lake, name)
    return lake.rows('SELECT * FROM "references" WHERE library = ? ORDER BY work_id', [name])


def library_row(lake: Lake, name: str, others: Collection[str] = ()) -> dict[str, Any]:
    """A library's row of the view `libraries`.

    Raises SetupError, naming those there are and `others`, when no library has that name.
    """
    rows = {row["library"]: row for row in lake.rows("SELECT * FROM libraries")}
    if name not in rows:
        named = ", ".join(sorted({*rows, *others})) or "none"
        raise SetupError(
            f"there is no library {name!r} (there are: {named}); make one with "
            f"`platemark library create`, or name a folder for it in `libraries` of the settings"
        )
    return rows[name]


def check_name(name: str) -> None:
    """Raises InputError when a library cannot have that name: files and scores are called by it."""
    if not _NAME.fullmatch(name) or name != name.strip():
        what = f"{name[:80]!r} cannot name a library"
        remedy = "begin with a letter or digit; then also spaces, dots, dashes; 64 at most"
        raise InputError("library", [Fault(what, "", remedy)])


def is_known(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Whether there is a library of that name, inside a transaction."""
    found = connection.execute("SELECT 1 FROM raw.libraries WHERE library = ? LIMIT 1", [name])
    return found.fetchone() is not None


def record_library(connection: duckdb.DuckDBPyConnection, name: str, note: str) -> None:
    """Records a new library inside a transaction."""
    row = {"library": name, "note": note or None, "created_at": datetime.now(UTC)}
    insert_row(connection, "libraries", row)


def _models(place: Place) -> dict[str, int]:
    counts: dict[str, int] = {}
    for digest, _, folder in place.indexes():
        try:
            name = json.loads(place.model(digest).read_text(encoding="utf-8"))["model"]
        except (OSError, ValueError, KeyError, TypeError):
            name = "model"
        label = f"{name} {digest[:8]}"
        try:
            count = len(VectorIndex.open(folder, digest))
        # Who searches it is told how to mend it.
        except SetupError:
            label, count = f"{label} (damaged)", 0
        counts[label] = counts.get(label, 0) + count
    return counts
