"""Sets of references and queries that copy detection is measured on, read from folders.

Own folders, the DISC21 layout (Douze et al., "The 2021 Image Similarity Dataset and Challenge") and
the Copydays layout (Jégou et al., "Hamming Embedding and Weak Geometry Consistency", ECCV 2008).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.errors import Fault, InputError
from pipeline.images import RgbImage, decode_limited

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class Picture:
    """A picture that is decoded when it is needed: uint8 RGB [H, W, 3]."""

    name: str
    load: Callable[[], RgbImage]


@dataclass(frozen=True)
class Query:
    """A picture, what was done to it, and the references (by index) that it copies, if any.

    Queries of one `group` come from one original: they are calibrated on, or reported, together.
    """

    picture: Picture
    kind: str
    group: str
    copies: frozenset[int] = frozenset()


@dataclass(frozen=True)
class CopySet:
    """What is searched and what is searched for."""

    references: Sequence[Picture]
    queries: Sequence[Query]


def own_folders(references: Path, queries: Path, truth: Path | None = None) -> CopySet:
    """Two folders of pictures, searched with their subfolders.

    Which reference a query copies is said by the CSV `truth` (columns `query` and `reference`, file
    names without ending; several rows a query may be; blank: none), or else by its own name: a
    reference's, alone or followed by `-`, `_` or `.` and anything. Subfolders of `queries` name
    what was done. Raises InputError for empty folders and for names in `truth` that do not exist.
    """
    works, asked = _pictures(references), _pictures(queries)
    places = {path.stem: index for index, path in enumerate(works)}
    if truth:
        known = _truth(truth, {path.stem for path in asked}, places)
    else:
        known = {path.stem: _by_name(path.stem, places) for path in asked}
    asking = []
    for path in asked:
        copied = known.get(path.stem, frozenset())
        folder = path.parent.relative_to(queries)
        kind = folder.as_posix() if folder.parts else "queries"
        group = works[min(copied)].stem if copied else path.stem
        asking.append(Query(_picture(path), kind, group, copied))
    return CopySet([_picture(path) for path in works], asking)


def disc21(folder: Path) -> CopySet:
    """`references/`, `queries/` and a `*ground_truth*.csv` of `query_id,reference_id`."""
    tables = sorted(folder.glob("*ground_truth*.csv"))
    if len(tables) != 1:
        remedy = "put the one table of query_id,reference_id there"
        raise InputError(
            "DISC21", [Fault(f"{len(tables)} *ground_truth*.csv", str(folder), remedy)]
        )
    return own_folders(folder / "references", folder / "queries", tables[0])


def copydays(folder: Path) -> CopySet:
    """`original/`, and copies in `jpeg/<quality>/`, `crops/<percent>/` and `strong/`.

    The number in a file's name without its last two digits is its block: 200301 copies 200300. The
    set has no queries that copy nothing.
    """
    works = _pictures(folder / "original")
    blocks = {int(path.stem) // 100: index for index, path in enumerate(works)}
    queries = []
    for part in ("jpeg", "crops", "strong"):
        for path in _pictures(folder / part) if (folder / part).is_dir() else ():
            block = int(path.stem) // 100
            kind = path.parent.relative_to(folder).as_posix().replace("/", " ")
            copied = frozenset({blocks[block]} if block in blocks else ())
            queries.append(Query(_picture(path), kind, str(block), copied))
    return CopySet([_picture(path) for path in works], queries)


def _pictures(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(
            "pictures", [Fault("no pictures", str(folder), "put PNG, JPEG or WebP there")]
        )
    return found


def _picture(path: Path) -> Picture:
    return Picture(path.name, partial(decode_limited, path))


def _by_name(stem: str, places: Mapping[str, int]) -> frozenset[int]:
    """The reference with the longest name that the query's begins with."""
    fits = [name for name in places if f"{stem}-".startswith(tuple(name + end for end in "-_."))]
    return frozenset({places[max(fits, key=len)]} if fits else ())


def _truth(table: Path, queries: set[str], places: Mapping[str, int]) -> dict[str, frozenset[int]]:
    found: dict[str, frozenset[int]] = {}
    faults: list[Fault] = []
    with table.open(encoding="utf-8-sig", newline="") as handle:
        for number, row in enumerate(csv.DictReader(handle), 2):
            where = f"{table.name}, line {number}"
            query = Path(row.get("query") or row.get("query_id") or "").stem
            reference = Path(row.get("reference") or row.get("reference_id") or "").stem
            if query not in queries:
                faults.append(Fault(f"no query {query!r}", where, "mend the name, or add the file"))
            if reference and reference not in places:
                faults.append(
                    Fault(f"no reference {reference!r}", where, "mend the name, or add the file")
                )
            if not faults:
                more = frozenset({places[reference]} if reference else ())
                found[query] = found.get(query, frozenset()) | more
    if faults:
        raise InputError("truth", faults)
    return found
