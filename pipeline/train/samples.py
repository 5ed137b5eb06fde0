"""A team's folder of pictures and its rights.csv → samples that may be trained on, or every fault.

The table is that of a reference library (pipeline/checks/rights.py) with the column `training`:
`yes` when whoever holds the rights allows AI training, and an optional `caption`. What the picture
itself says against training (pipeline/restrictions.py) counts more than the table, unless the
policy holds the owner's written waiver. Imports no torch.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from pipeline.errors import Fault, InputError
from pipeline.images import ImageRefused, decode_limited, read_limited
from pipeline.restrictions import Credentials, read_credentials

# pipeline.checks.rights is imported where it is used: its package imports the policy's models,
# which name `Waiver`.

REQUIRED = ("file", "rights_holder", "licence", "training")
OPTIONAL = ("title", "caption", "role", "note")
"""`title` is the file's name without one; `role` and `note` are a library's and do not count."""
RIGHTS = "rights.csv"

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Waiver(BaseModel):
    """A rights holder's written permission to train on pictures whose metadata says no.

    It covers all pictures that name exactly this `rights_holder`, from `granted` until `expires`
    (both included). `sha256` is of the document, so that an auditor can tell which one was meant.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rights_holder: Text
    document: Text
    """Path or reference of the written waiver."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    granted: date
    expires: date | None = None

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if self.expires is not None and self.expires < self.granted:
            raise ValueError("the waiver expires before it is granted")
        return self

    def holds(self, day: date) -> bool:
        """Whether the waiver counts on `day`."""
        return self.granted <= day and (self.expires is None or day <= self.expires)


@dataclass(frozen=True)
class Sample:
    """One picture that may be trained on. `file` is relative to its folder, with slashes.

    `caption` is empty when the table has none. `credentials` is what the file says of itself, and
    `waiver` the one that let it through, None when it needed none.
    """

    path: Path
    file: str
    sha256: str
    title: str
    rights_holder: str
    licence: str
    caption: str
    width: int
    height: int
    credentials: Credentials
    waiver: Waiver | None = None


def load_samples(
    folder: Path, anchors: bytes, waivers: Sequence[Waiver] = (), today: date | None = None
) -> list[Sample]:
    """The pictures of `folder` in the table's order; `anchors` are PEM roots for C2PA.

    Raises InputError with all faults at once: of the table, rows without a picture and pictures
    without a row, missing rights, broken, too large or doubled pictures, and those that say no to
    AI training when no waiver of their rights holder counts `today` (default: the current day).
    """
    from pipeline.checks.rights import unlisted

    table = folder / RIGHTS
    subject = f"training pictures in {folder}"
    text = _read(table, subject)
    samples: list[Sample] = []
    faults: list[Fault] = []
    rows: dict[str, int] = {}
    pixels: dict[str, int] = {}
    reader = _reader(text, table, subject)
    terms = _Terms(folder, anchors, waivers, today or date.today())
    try:
        for row in reader:
            line, where = reader.line_num, f"{table}, row {reader.line_num}"
            fields, wrong = _fields(row, where)
            name = Path((row.get("file") or "").strip()).as_posix()
            if name != "." and rows.setdefault(name, line) != line:
                wrong.append(_twice(f"{name!r} is listed in row {rows[name]} already", where))
            elif fields.get("file") and (found := _sample(terms, fields, where, wrong)):
                sample, digest = found
                first = pixels.setdefault(digest, line)
                if first != line:
                    wrong.append(_twice(f"{name!r} is the same picture as row {first}", where))
                samples.append(sample)
            faults += wrong
    except csv.Error as error:
        faults.append(Fault(str(error), f"{table}, row {reader.line_num}", "mend the quotes"))
    faults += unlisted(folder, rows)
    if not rows and not faults:
        faults.append(Fault("no pictures", str(table), "add a row for each picture"))
    if faults:
        raise InputError(subject, faults)
    return samples


def _read(table: Path, subject: str) -> str:
    try:
        return table.read_bytes().decode("utf-8-sig")
    except OSError as error:
        remedy = f"columns: {','.join(REQUIRED)}; optional: {','.join(OPTIONAL)}"
        fault = Fault(error.strerror or str(error), str(table), remedy)
    except UnicodeDecodeError:
        fault = Fault("not UTF-8", str(table), "save it as UTF-8")
    raise InputError(subject, [fault])


def _reader(text: str, table: Path, subject: str) -> csv.DictReader[str]:
    from pipeline.checks.rights import delimiter_of

    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=delimiter_of(text), strict=True
    )
    header = [name.strip() for name in reader.fieldnames or ()]
    reader.fieldnames = header
    remedy = f"columns: {','.join(REQUIRED)}; optional: {','.join(OPTIONAL)}"
    faults = [
        Fault(f"no column {name!r}", str(table), remedy) for name in REQUIRED if name not in header
    ]
    known = {*REQUIRED, *OPTIONAL}
    faults += [
        Fault(f"unknown column {name!r}", str(table), remedy)
        for name in header
        if name not in known
    ]
    faults += [
        Fault(f"column {name!r} stands there twice", str(table), "keep one")
        for name in sorted(known)
        if header.count(name) > 1
    ]
    if faults:
        raise InputError(subject, faults)
    return reader


def _fields(row: dict[str, str | None], where: str) -> tuple[dict[str, str], list[Fault]]:
    """A row's fields, stripped; empty when their number is wrong."""
    if None in row or None in row.values():
        return {}, [Fault("not as many fields as columns", where, "quote fields that hold commas")]
    fields = {name: (value or "").strip() for name, value in row.items()}
    faults = [
        Fault("empty", f"{where}, {name}", "fill it in: without it there is no right of use")
        for name in ("file", "rights_holder", "licence")
        if not fields[name]
    ]
    if fields["training"].casefold() != "yes":
        what = f"{fields['training']!r} is no permission to train"
        remedy = "write yes when the rights holder allows AI training, or move the picture away"
        faults.append(Fault(what, f"{where}, training", remedy))
    return fields, faults


@dataclass(frozen=True)
class _Terms:
    """What every row is judged by."""

    folder: Path
    anchors: bytes
    waivers: Sequence[Waiver]
    day: date


def _sample(
    terms: _Terms, fields: dict[str, str], where: str, faults: list[Fault]
) -> tuple[Sample, str] | None:
    """The row's sample and the hash of its pixels; what is wrong with it is added to `faults`."""
    name = Path(fields["file"]).as_posix()
    try:
        data = _bytes(terms.folder, name)
        image = decode_limited(data)
    except ImageRefused as refused:
        faults.append(Fault(refused.what, f"{where}, file", refused.remedy))
        return None
    credentials = read_credentials(data, None, terms.anchors)
    waiver = None
    if against := credentials.forbids("training"):
        waiver = _waiver(terms, fields["rights_holder"])
        if waiver is None:
            what = f"{name!r} says no to AI training: {'; '.join(against)}"
            faults.append(Fault(what, f"{where}, file", _remedy(terms, fields["rights_holder"])))
    sample = Sample(
        path=terms.folder / name,
        file=name,
        sha256=hashlib.sha256(data).hexdigest(),
        title=fields.get("title") or Path(name).stem,
        rights_holder=fields["rights_holder"],
        licence=fields["licence"],
        caption=fields.get("caption", ""),
        width=image.shape[1],
        height=image.shape[0],
        credentials=credentials,
        waiver=waiver,
    )
    # Of the pixels: a copy with other metadata is the same picture.
    return sample, hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest()


def _bytes(folder: Path, name: str) -> bytes:
    path = folder / name
    if Path(name).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
        raise ImageRefused(f"{name!r} leaves the folder", "name a file inside it")
    try:
        return read_limited(path)
    except FileNotFoundError:
        raise ImageRefused(f"{name!r} is missing", "put the file there, or drop the row") from None
    except (OSError, ValueError) as error:
        raise ImageRefused(f"{name!r} cannot be read: {error}", "check the file") from None


def _waiver(terms: _Terms, rights_holder: str) -> Waiver | None:
    of_theirs = (each for each in terms.waivers if each.rights_holder == rights_holder)
    return next((each for each in of_theirs if each.holds(terms.day)), None)


def _remedy(terms: _Terms, rights_holder: str) -> str:
    lapsed = [
        f"{each.document}: {each.granted} to {each.expires or 'open end'}"
        for each in terms.waivers
        if each.rights_holder == rights_holder
    ]
    remedy = (
        "leave it out, or have its rights holder waive this in writing and name the waiver in the "
        "policy (training: waivers)"
    )
    if not lapsed:
        return remedy
    return f"{remedy}; what the policy has does not count on {terms.day}: {', '.join(lapsed)}"


def _twice(what: str, where: str) -> Fault:
    return Fault(what, f"{where}, file", "keep one row a picture")
