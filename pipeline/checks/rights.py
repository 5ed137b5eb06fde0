"""What a library's table says of its works: rights.csv of a folder → works listed, or all faults.

Fields are judged in one place, for folders and for tables of paths (pipeline/references/sources).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from pipeline.brief_table import strange_character
from pipeline.errors import Fault, InputError
from pipeline.images import SUFFIXES

RIGHTS = "rights.csv"
COLUMNS = ("file", "title", "rights_holder", "licence", "role", "note")
OPTIONAL = ("expires",)
ROLES = ("protected", "own")
_UNLISTED = (RIGHTS, "readme", "license", "licence", "notice")
"""Names (beginnings, lower case) of files that need no row, pictures aside; hidden files need none
either."""


@dataclass(frozen=True)
class Reference:
    """A work of a library. `file` is relative to its folder, with slashes, or absolute; `sha256` is
    the file's.

    `role` is `protected` (likeness counts) or `own` (likeness is intended and only reported).
    `expires` is the last day on which it is.
    """

    library: str
    file: str
    sha256: str
    title: str
    rights_holder: str
    licence: str
    role: str
    note: str = ""
    expires: date | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A work as a table lists it: the picture's path, what to call it, where the table says so."""

    path: Path
    file: str
    where: str
    title: str
    rights_holder: str
    licence: str
    role: str
    note: str = ""
    expires: date | None = None

    @property
    def rights(self) -> tuple[Any, ...]:
        """What must agree where two rows list the same picture."""
        return self.title, self.rights_holder, self.licence, self.role, self.expires


def read_rights(
    library: str, folder: Path, defaults: Mapping[str, str] | None = None
) -> tuple[list[Listed], list[Fault]]:
    """The works of a folder, and all faults of its table; pictures are not opened yet.

    `defaults` fill cells that are empty. Faults name file, row (as a text editor counts) and
    column. Raises InputError when there is no folder or no table to read.
    """
    table = folder / RIGHTS
    try:
        text = table.read_bytes().decode("utf-8-sig")
    except OSError as error:
        fault = Fault(error.strerror or str(error), str(table), f"columns: {','.join(COLUMNS)}")
        raise InputError(f"library {library!r}", [fault]) from None
    except UnicodeDecodeError:
        fault = Fault("not UTF-8", str(table), "save it as UTF-8")
        raise InputError(f"library {library!r}", [fault]) from None
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=delimiter_of(text), strict=True
    )
    header = reader.fieldnames or ()
    faults = _header_faults(header, table)
    if faults:
        raise InputError(f"library {library!r}", faults)
    works: list[Listed] = []
    rows_of: dict[str, int] = {}
    try:
        for row in reader:
            where = f"{table}, row {reader.line_num}"
            if None in row or None in row.values():
                faults.append(Fault(f"not {len(header)} fields", where, "quote fields with commas"))
                continue
            name = Path(row["file"].strip()).as_posix() if row["file"].strip() else ""
            path = folder / name
            found, wrong = listed_work(path, name, {**row, "file": name}, where, defaults)
            wrong += _place_faults(folder, name, f"{where}, file") if name else []
            first = rows_of.setdefault(name, reader.line_num)
            if name and first != reader.line_num:
                what = f"{name!r} is listed in row {first} already"
                wrong.append(Fault(what, f"{where}, file", "keep one row a file"))
            faults.extend(wrong)
            if found is not None and not wrong:
                works.append(found)
    except csv.Error as error:
        faults.append(Fault(str(error), f"{table}, row {reader.line_num}", "mend the quotes"))
    return works, faults + unlisted(folder, rows_of)


def listed_work(
    path: Path,
    file: str,
    cells: Mapping[str, Any],
    where: str,
    defaults: Mapping[str, str] | None = None,
) -> tuple[Listed | None, list[Fault]]:
    """A work of a row's cells, all but a note being needed; or None and the faults of its fields.

    `expires` is a day as `2027-12-31` (or a date, from Parquet), empty: without end.
    """
    values = {
        name: _text(cells.get(name)) or (defaults or {}).get(name, "")
        for name in (*COLUMNS, *OPTIONAL)
    }
    faults = [
        Fault("empty", f"{where}, {name}", "fill it in")
        for name in COLUMNS
        if not values[name] and name != "note"
    ]
    for name, value in values.items():
        if strange := strange_character(value, but="\t\n\r"):
            faults.append(Fault(f"the character {strange}", f"{where}, {name}", "take it out"))
    role = values["role"]
    if role and role not in ROLES:
        what = f"{role!r} is no role"
        faults.append(Fault(what, f"{where}, role", f"write {' or '.join(ROLES)}"))
    expires = None
    if day := values.pop("expires"):
        try:
            expires = date.fromisoformat(day)
        except ValueError:
            what = f"{day!r} is no day"
            faults.append(Fault(what, f"{where}, expires", "write it as 2027-12-31"))
    if faults:
        return None, faults
    return Listed(path, where=where, expires=expires, **{**values, "file": file}), []


def delimiter_of(text: str) -> str:
    """What separates the fields: a semicolon where the header has some and no comma."""
    header = text.partition("\n")[0]
    return ";" if ";" in header and "," not in header else ","


def _text(cell: Any) -> str:
    if isinstance(cell, datetime):
        return cell.date().isoformat()
    return "" if cell is None else str(cell).strip()


def _header_faults(header: Sequence[str], table: Path) -> list[Fault]:
    remedy = f"the header is {','.join(COLUMNS)} and, if you like, {','.join(OPTIONAL)}"
    faults = [Fault(f"no column {name!r}", str(table), remedy) for name in COLUMNS]
    faults = [fault for name, fault in zip(COLUMNS, faults, strict=True) if name not in header]
    unknown = [name for name in header if name not in (*COLUMNS, *OPTIONAL)]
    twice = sorted({name for name in header if header.count(name) > 1})
    return [
        *faults,
        *(Fault(f"unknown column {name!r}", str(table), remedy) for name in unknown),
        *(Fault(f"column {name!r} stands twice", str(table), "keep one") for name in twice),
    ]


def _place_faults(folder: Path, name: str, where: str) -> list[Fault]:
    path = folder / name
    try:
        if Path(name).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
            what = f"{name!r} leaves the library's folder"
            return [Fault(what, where, "name a file inside it")]
        if path.is_file():
            return []
    # A name with a NUL, or one that is too long.
    except (OSError, ValueError) as error:
        return [Fault(f"{name!r} cannot be read: {error}", where, "check the file")]
    return [Fault(f"{name!r} is missing", where, "put the file there, or drop the row")]


def unlisted(folder: Path, listed: Mapping[str, int]) -> list[Fault]:
    """Files without a row: whoever put them there believes them protected."""
    return [
        Fault(f"{name!r} has no row", str(folder / RIGHTS), "add one, or move the file")
        for name in picture_names(folder)
        if name not in listed
    ]


def _is_about(file: Path) -> bool:
    return file.name.lower().startswith(_UNLISTED) and file.suffix.lower() not in SUFFIXES


def picture_names(folder: Path) -> list[str]:
    """All files below a folder that are not hidden and not about it (a readme, a licence)."""
    names = (
        file.relative_to(folder)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not _is_about(file)
    )
    return [
        name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts)
    ]
