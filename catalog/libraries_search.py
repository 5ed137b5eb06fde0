"""The works of a library nearest to a picture or to words, for people: rows and a contact sheet."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.libraries_open import ROLES, Library
from pipeline.checks.references import Embedder, Near
from pipeline.checks.rights import Reference
from pipeline.contact_sheet import Cell, contact_sheet, jpeg, thumbnail
from pipeline.images import RgbImage

_NO_PICTURE = np.full((96, 96, 3), 224, np.uint8)


def search(
    library: Library,
    embedder: Embedder,
    vector: NDArray[np.float32],
    hashes: NDArray[np.uint64] | None,
    top: int,
) -> list[tuple[Reference, dict[str, Any]]]:
    """The `top` nearest works of each role by embedding and by PDQ hash, nearest cosine first.

    `vector` is the query's unit embedding [D] by a model that the library is prepared for, `hashes`
    its PDQ hash [4]. Rows hold `cosine` and `pdq` (Hamming distance), None where a work is among
    the nearest by the other alone.
    """
    found: dict[str, tuple[Reference, dict[str, Any]]] = {}

    def note(near: Near, role: str, measure: str, value: float) -> None:
        rights = {"counts_as": role, **asdict(near.reference)}
        row = {"cosine": None, "pdq": None, **rights}
        found.setdefault(near.reference.sha256, (near.reference, row))[1][measure] = value

    for role in ROLES:
        for near in library.nearest(embedder, vector[None], top, role)[0]:
            note(near, role, "cosine", near.value)
        if hashes is not None:
            for near in library.nearest_hashes(hashes[None], top, role)[0]:
                note(near, role, "pdq", int(near.value))

    def order(each: tuple[Reference, dict[str, Any]]) -> tuple[float, float]:
        row = each[1]
        distance = 257 if row["pdq"] is None else row["pdq"]
        return (-2 if row["cosine"] is None else row["cosine"]), -distance

    return sorted(found.values(), key=order, reverse=True)


def search_sheet(
    library: Library,
    query: str,
    picture: RgbImage | None,
    found: list[tuple[Reference, dict[str, Any]]],
) -> bytes:
    """A JPEG of the query's picture and the works found, with their rights; `own` framed green."""
    cells = [] if picture is None else [Cell(thumbnail(picture), ("searched for", query))]
    for reference, row in found:
        small = library.picture(reference)
        near = "" if row["cosine"] is None else f"cosine {row['cosine']:.3f}"
        distance = "" if row["pdq"] is None else f"PDQ {row['pdq']}"
        lines = (
            reference.title,
            f"{row['counts_as']}: {reference.rights_holder}",
            ", ".join(filter(None, (near, distance))),
        )
        frame = "pass" if row["counts_as"] == "own" else "review"
        cells.append(Cell(_NO_PICTURE if small is None else small, lines, frame))
    return jpeg(contact_sheet(cells, columns=5, side=160))
