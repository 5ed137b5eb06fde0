"""What `library add` is given: folders, tables of paths, pictures → works listed, or all faults.

Rights come from the tables; options of the command fill what a table leaves open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.brief_table import Row, read_table
from pipeline.checks.rights import (
    COLUMNS,
    OPTIONAL,
    RIGHTS,
    Listed,
    listed_work,
    picture_names,
    read_rights,
)
from pipeline.errors import Fault, InputError
from pipeline.images import SUFFIXES

TABLES = (".csv", ".tsv", ".parquet")
_PATHS = ("file", "path")


def read_sources(
    library: str, sources: Iterable[Path], defaults: Mapping[str, str]
) -> tuple[list[Listed], list[Fault]]:
    """The works of all sources, in order, and all their faults; pictures are not opened yet.

    A folder has a rights.csv, which names files inside it alone; without one, all its files are
    works under the defaults. A table (CSV, TSV, Parquet) names paths, relative ones from its own
    folder. `defaults` are values of columns, for cells that are empty. Works' files are absolute.
    """
    works: list[Listed] = []
    faults: list[Fault] = []
    for source in sources:
        place = expanded(source).absolute()
        if place.is_dir() and (place / RIGHTS).exists():
            found = _rights(library, place, defaults)
        elif place.is_dir():
            found = _pictures(place, picture_names(place), defaults)
        elif place.suffix.lower() in TABLES:
            found = _table(place, defaults)
        elif place.suffix.lower() in SUFFIXES:
            found = _pictures(place.parent, [place.name], defaults)
        else:
            remedy = f"name a folder, a table ({', '.join(TABLES)}) or a picture"
            found = [], [Fault("no source of works", str(source), remedy)]
        works += found[0]
        faults += found[1]
    return works, faults


def _rights(
    library: str, folder: Path, defaults: Mapping[str, str]
) -> tuple[list[Listed], list[Fault]]:
    try:
        works, faults = read_rights(library, folder, defaults)
    except InputError as error:
        return [], list(error.faults)
    return [replace(work, file=str(work.path)) for work in works], faults


def _pictures(
    folder: Path, names: Iterable[str], defaults: Mapping[str, str]
) -> tuple[list[Listed], list[Fault]]:
    """Pictures without a table: every one under the same rights, titled by its name."""
    rows = [Row({"file": str(folder / name)}, str(folder / name)) for name in names]
    works, faults = _works(rows, folder, defaults)
    lacking = sorted({fault.where.rsplit(", ", 1)[1] for fault in faults if fault.what == "empty"})
    if not lacking:
        return works, faults
    # Once, not once a picture.
    options = ", ".join(f"--{name.replace('_', '-')}" for name in lacking)
    remedy = f"write a {RIGHTS}, or give {options}"
    return works, [Fault(f"nothing says the {' and '.join(lacking)}", str(folder), remedy)]


def _table(table: Path, defaults: Mapping[str, str]) -> tuple[list[Listed], list[Fault]]:
    faults: list[Fault] = []
    rows = read_table(table, faults)
    named = dict.fromkeys(name for row in rows for name in row.cells)
    remedy = f"columns are file (or path), {', '.join((*COLUMNS[1:], *OPTIONAL))}"
    faults += [
        Fault(f"unknown column {name!r}", table.name, remedy)
        for name in named
        if name not in (*_PATHS, *COLUMNS, *OPTIONAL)
    ]
    if rows and not any(name in named for name in _PATHS):
        faults.append(Fault("no column 'file' or 'path'", table.name, remedy))
    if faults:
        return [], faults
    return _works(rows, table.parent, defaults)


def expanded(path: Path) -> Path:
    """The path with `~` as a home folder, where there is such a user."""
    try:
        return path.expanduser()
    # No such user: a name like any other.
    except RuntimeError:
        return path


def _works(
    rows: Iterable[Row], folder: Path, defaults: Mapping[str, str]
) -> tuple[list[Listed], list[Fault]]:
    works: list[Listed] = []
    faults: list[Fault] = []
    for row in rows:
        given = next((row.cells[name] for name in _PATHS if row.cells.get(name)), "")
        name = str(given).strip()
        path = folder / expanded(Path(name)) if name else folder
        cells = {"title": path.stem, **{key: cell for key, cell in row.cells.items() if cell}}
        cells["file"] = str(path) if name else ""
        found, wrong = listed_work(path, str(path), cells, row.where, defaults)
        if name and not _is_file(path):
            remedy = "put the file there, or drop the row"
            wrong.append(Fault(f"{name!r} is missing", f"{row.where}, file", remedy))
        faults += wrong
        if found is not None and not wrong:
            works.append(found)
    return works, faults


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    # A NUL in the name, or a name that is too long.
    except (OSError, ValueError):
        return False
