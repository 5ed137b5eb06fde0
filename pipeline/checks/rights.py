"""Reads a reference library's rights.csv and files: references, or every fault there is at once."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import Fault, InputError
from pipeline.images import ImageRefused, read_limited

RIGHTS = "rights.csv"
COLUMNS = ("file", "title", "rights_holder", "licence", "role", "note")
ROLES = ("protected", "own")
_UNLISTED = (RIGHTS, "readme", "license", "licence", "notice")
"""Names (beginnings, lower case) of files that need no row; hidden files need none either."""


@dataclass(frozen=True)
class Reference:
    """A work of a library. `file` is relative to its folder, with slashes; `sha256` is the file's.

    `role` is `protected` (likeness counts) or `own` (likeness is intended and only reported).
    """

    library: str
    file: str
    sha256: str
    title: str
    rights_holder: str
    licence: str
    role: str
    note: str = ""


def read_rights(library: str, folder: Path) -> tuple[list[Reference], list[Fault]]:
    """The references that could be read, and all faults of table and files, pictures aside.

    Faults name file, row (as a text editor counts) and column. Raises InputError when there is no
    folder or no table to read.
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
    faults = _header_faults(reader.fieldnames or (), table)
    if faults:
        raise InputError(f"library {library!r}", faults)
    references: list[Reference] = []
    rows_of: dict[str, int] = {}
    try:
        for row in reader:
            found, wrong = _reference(library, folder, row, f"{table}, row {reader.line_num}")
            name = Path((row["file"] or "").strip()).as_posix()
            first = rows_of.setdefault(name, reader.line_num)
            if first != reader.line_num:
                wrong.append(
                    Fault(
                        f"{name!r} is listed in row {first} already",
                        f"{table}, row {reader.line_num}, file",
                        "keep one row a file",
                    )
                )
            faults.extend(wrong)
            if found is not None and not wrong:
                references.append(found)
    except csv.Error as error:
        faults.append(Fault(str(error), f"{table}, row {reader.line_num}", "mend the quotes"))
    return references, faults + unlisted(folder, rows_of)


def delimiter_of(text: str) -> str:
    """What separates the fields: a semicolon where the header has some and no comma."""
    header = text.partition("\n")[0]
    return ";" if ";" in header and "," not in header else ","


def _header_faults(header: Sequence[str], table: Path) -> list[Fault]:
    remedy = f"the header is {','.join(COLUMNS)}"
    missing = [Fault(f"no column {name!r}", str(table), remedy) for name in COLUMNS]
    faults = [fault for name, fault in zip(COLUMNS, missing, strict=True) if name not in header]
    unknown = [name for name in header if name not in COLUMNS]
    return faults + [Fault(f"unknown column {name!r}", str(table), remedy) for name in unknown]


def _reference(
    library: str, folder: Path, row: dict[str, str | None], where: str
) -> tuple[Reference | None, list[Fault]]:
    if None in row or None in row.values():
        return None, [Fault(f"not {len(COLUMNS)} fields", where, "quote fields that hold commas")]
    fields = {name: (row[name] or "").strip() for name in COLUMNS}
    faults = [
        Fault("empty", f"{where}, {name}", "fill it in")
        for name in COLUMNS
        if not fields[name] and name != "note"
    ]
    if fields["role"] and fields["role"] not in ROLES:
        faults.append(
            Fault(f"{fields['role']!r} is no role", f"{where}, role", f"write {' or '.join(ROLES)}")
        )
    digest = None
    if fields["file"]:
        try:
            digest = _sha256(folder, fields["file"])
        except ImageRefused as refused:
            faults.append(Fault(refused.what, f"{where}, file", refused.remedy))
    return (None if digest is None else Reference(library, sha256=digest, **fields)), faults


def _sha256(folder: Path, name: str) -> str:
    path = folder / name
    if Path(name).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
        raise ImageRefused(f"{name!r} leaves the library's folder", "name a file inside it")
    try:
        return hashlib.sha256(read_limited(path)).hexdigest()
    except FileNotFoundError:
        raise ImageRefused(f"{name!r} is missing", "put the file there, or drop the row") from None
    except (OSError, ValueError) as error:
        raise ImageRefused(f"{name!r} cannot be read: {error}", "check the file") from None


def unlisted(folder: Path, listed: dict[str, int]) -> list[Fault]:
    """Files without a row: whoever put them there believes them protected."""
    names = (
        file.relative_to(folder)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.lower().startswith(_UNLISTED)
    )
    return [
        Fault(f"{name.as_posix()!r} has no row", str(folder / RIGHTS), "add one, or move the file")
        for name in names
        if name.as_posix() not in listed and not any(part.startswith(".") for part in name.parts)
    ]
