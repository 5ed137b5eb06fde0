"""Finds the record of an image that lost its metadata, and says how sure that is.

File bytes in, matches out: by exact bytes, by the manifest it still carries, by the watermark, by
fingerprint. Only reads; needs no stored files, and torch only for images marked with TrustMark.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from catalog.aligned import WHOLE, Picture, aligned, difference_of, turned_back
from catalog.lake import Lake
from catalog.nearest import Candidate, nearest
from pipeline.claim_thumbnail import claim_thumbnail
from pipeline.errors import SetupError
from pipeline.images import RgbImage, decode_limited
from pipeline.soft_binding.fingerprint import Window, iscc_of
from pipeline.soft_binding.watermarks import BY_ALGORITHM, WATERMARKS, Watermark
from pipeline.store import sha256_of
from pipeline.verify_c2pa import offline_context

Kind = Literal["bytes", "manifest", "watermark", "fingerprint"]

LIKE = 12.0
"""Colour difference (0..255) from the stored thumbnail up to which a picture looks like it."""
SAME, SAME_BITS = 5.0, 20
"""The same, and bits of 256 that the PDQ hashes differ in, up to which a fingerprint names it.

Measured (bench/recovery.py): strong JPEG and WebP leave our images within 2.5 and 14 bits; other
pictures of the same objects in the same colours come within 6 and 20, one in a thousand."""
PART = 4.0
"""The same for a part of our image, of which the fingerprint alone is never sure."""
_ROUGHLY = 20.0
"""The same for a guess at the part, beyond which no better one comes near.

Measured: 18 at most for crops of ours; 24 and more for 95 of 100 other pictures."""
FOUND = 50
"""The least `score` of a match that names the record; what is less is only possible."""
_CANDIDATES = 20
_LABELS = 100
"""Manifests of one file that are looked up, the active one first: files are from anywhere."""


@dataclass(frozen=True)
class Match:
    """A record that an image belongs to. All of it is JSON (`as_json`).

    `kind` is the strongest sign of it: the very `bytes`; the `manifest` that the file still
    carries; the `watermark`; the `fingerprint`. `score` is 0..100 as the C2PA API has it.
    `distance` is that of the PDQ hashes, in bits of 256. `difference` is the root mean square
    colour difference, 0..255, from the thumbnail in the stored manifest, None without one.
    `window` is the part of our image that the picture shows: left, top, right, bottom, 0..1;
    `mirrored` pictures show it left to right, `turned` is by how many degrees counter-clockwise.
    """

    kind: Kind
    score: int
    request_id: str
    asset_sha256: str
    label: str
    sure: str
    distance: int | None = None
    difference: float | None = None
    window: Window = WHOLE
    mirrored: bool = False
    turned: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The match as plain JSON values."""
        return {**self.__dict__, "window": list(self.window)}


@dataclass(frozen=True)
class Recovered:
    """What was found of a file, best first.

    `watermark` is the value by which its watermark names a record. `unread` says why a watermark
    that the catalog's images bear could not be looked for here; None when all were.
    """

    sha256: str
    matches: tuple[Match, ...]
    watermark: str | None = None
    unread: str | None = None

    @property
    def found(self) -> Match | None:
        """The record that the image belongs to, None where all matches are doubtful or possible."""
        best = self.matches[0] if self.matches else None
        return best if best and best.score >= FOUND else None


def recover(lake: Lake, data: bytes, kinds: Sequence[Kind] | None = None) -> Recovered:
    """The records that the image in `data` belongs to; `kinds` are the signs to go by, all if None.

    Fingerprints are only asked when nothing surer was found. Raises ImageRefused when it is no
    image that can be decoded.
    """
    sha256 = sha256_of(data)
    wanted = set(kinds or ("bytes", "manifest", "watermark", "fingerprint"))
    picture = Picture(decode_limited(data))
    if "bytes" in wanted and (rows := _rows(lake, "asset_sha256", [sha256])):
        return Recovered(sha256, tuple(_match("bytes", row, 100) for row in rows))
    matches: list[Match] = []
    if "manifest" in wanted and (labels := labels_in(data)):
        for row in _rows(lake, "label", labels[:_LABELS]):
            matches.append(_match("manifest", row, 99, difference=_difference(lake, row, picture)))
    value, unread = None, None
    if "watermark" in wanted:
        named, value, unread = _by_watermark(lake, picture)
        matches += named
    if "fingerprint" in wanted and not matches:
        matches += _by_fingerprint(lake, picture)
    best = {match.label: match for match in reversed(matches)}
    return Recovered(sha256, tuple(sorted(best.values(), key=_rank)), value, unread)


def by_binding(lake: Lake, alg: str, value: str) -> list[Match]:
    """The records of a soft binding's value, as manifests have it. Raises ValueError if unfit."""
    from catalog.nearest import nearest_hash
    from pipeline.checks.pdq import pdq_bits
    from pipeline.soft_binding.fingerprint import ISCC, PDQ

    if watermark := BY_ALGORITHM.get(alg):
        rows = _rows(lake, "watermark", [watermark.payload_in(value)])
        return [_match("watermark", row, 98) for row in rows]
    if alg == ISCC:
        return [_match("fingerprint", row, 90) for row in _rows(lake, "iscc", [value])]
    if alg == PDQ:
        found = nearest_hash(lake, pdq_bits(value), _CANDIDATES)
        return [_of_candidate(each) for each in found]
    raise ValueError(f"unknown algorithm {alg!r}")


def manifest_store(lake: Lake, label: str) -> bytes | None:
    """The stored C2PA manifest store whose active manifest has this label, byte for byte."""
    return _stores(lake, [label]).get(label)


def labels_in(data: bytes) -> list[str]:
    """Labels of all manifests that a file carries, the active one first; none if unreadable."""
    from c2pa import C2paError, Reader
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            mime = Image.MIME.get(image.format or "", "")
        with Reader(mime, io.BytesIO(data), context=offline_context()) as reader:
            store = json.loads(reader.json())
    # Decoders and readers raise what they like on broken files: such a file names no manifest.
    except (C2paError, OSError, ValueError, SyntaxError):
        return []
    active = store.get("active_manifest")
    return [active, *(each for each in store.get("manifests", {}) if each != active)]


def _by_watermark(lake: Lake, picture: Picture) -> tuple[list[Match], str | None, str | None]:
    """The records that a watermark names, its value, and why one could not be looked for."""
    unread = None
    for each in WATERMARKS.values():
        if each.needs_model and not _bears(lake, each):
            continue
        try:
            reading = each.read(picture.pixels)
        # Other signs are left to find it by.
        except SetupError as error:
            unread = str(error)
            continue
        rows = _rows(lake, "watermark", [reading.payload]) if reading else []
        if reading and rows:
            upright, part = turned_back(picture, reading.turned, reading.window)
            upright = upright.mirrored if reading.mirrored else upright
            found = [
                _match(
                    "watermark",
                    row,
                    98,
                    window=reading.window,
                    difference=_difference(lake, row, upright, part),
                    mirrored=reading.mirrored,
                    turned=reading.turned,
                )
                for row in rows
            ]
            return found, each.value_of(reading.payload), None
    return [], None, unread


def _bears(lake: Lake, watermark: Watermark) -> bool:
    """Whether any signed file bears it: TrustMark's model is not loaded where none does."""
    bounds = {"least": watermark.payloads.start, "end": watermark.payloads.stop}
    # Of the column's own type, so that files are passed over by their bounds.
    rows = lake.rows(
        "SELECT 1 FROM fingerprints "
        "WHERE watermark >= $least::UBIGINT AND watermark < $end::UBIGINT LIMIT 1",
        bounds,
    )
    return bool(rows)


def _by_fingerprint(lake: Lake, picture: Picture) -> list[Match]:
    found = []
    candidates = nearest(lake, picture.pixels, _CANDIDATES)
    thumbnails = _thumbnails(lake, [each.row for each in candidates])
    for candidate in candidates:
        thumbnail = thumbnails.get(candidate.row["label"])
        upright = picture.mirrored if candidate.mirrored else picture
        whole = candidate.window == WHOLE and candidate.distance <= SAME_BITS
        # PDQ is blind to colour and to small shapes; the thumbnail is not.
        if thumbnail is None:
            found += [_of_candidate(candidate)] if whole else []
        elif whole and (apart := difference_of(thumbnail, upright)) <= SAME:
            found.append(_of_candidate(candidate, apart))
        elif difference_of(thumbnail, upright, candidate.window) <= _ROUGHLY:
            part = aligned(thumbnail, upright, candidate.window)
            if part.difference <= PART and part.distance <= SAME_BITS:
                shown = replace(candidate, window=part.window, distance=part.distance)
                found.append(_possibly(_of_candidate(shown, part.difference)))
    for row in _rows(lake, "iscc", [iscc_of(picture.pixels)]):
        seen = _difference(lake, row, picture)
        if seen is not None and seen <= SAME:
            found.append(_match("fingerprint", row, 90, difference=seen))
    return found


def _possibly(match: Match) -> Match:
    sure = f"possible: a part of this image looks like it, {match.distance} of 256 bits apart"
    return replace(match, score=match.score // 2, sure=f"{sure}; so may others: compare them")


def _of_candidate(candidate: Candidate, difference: float | None = None) -> Match:
    return _match(
        "fingerprint",
        candidate.row,
        round(100 * (1 - candidate.distance / 256)),
        distance=candidate.distance,
        difference=difference,
        window=candidate.window,
        mirrored=candidate.mirrored,
    )


def _match(
    kind: Kind,
    row: Mapping[str, Any],
    score: int,
    *,
    distance: int | None = None,
    difference: float | None = None,
    window: Window = WHOLE,
    mirrored: bool = False,
    turned: float = 0.0,
) -> Match:
    alike = difference is None or difference <= LIKE
    way = ", mirrored" * mirrored + f", turned by {turned:.0f}°" * bool(turned)
    return Match(
        kind,
        score if alike else score // 2,
        row["request_id"],
        row["asset_sha256"],
        row["label"],
        _sure(kind, alike, difference, distance) + way,
        distance,
        None if difference is None else round(difference, 2),
        window,
        mirrored,
        turned,
    )


def _sure(kind: Kind, alike: bool, difference: float | None, distance: int | None) -> str:
    other = "but the picture looks different from the stored thumbnail: do not rely on it"
    seen = "" if difference is None else ", and the picture looks like the stored thumbnail"
    match kind:
        case "bytes":
            return "certain: the very file that was signed"
        case "manifest":
            return f"claimed: the file carries this manifest{seen if alike else f', {other}'}"
        case "watermark":
            if not alike:
                return f"doubtful: its watermark names this record, {other}"
            return f"near certain: its watermark names this record{seen}"
    bits = "" if distance is None else f", {distance} of 256 bits apart"
    return f"likely: it looks like this image{bits}{seen}"


def _rank(match: Match) -> tuple[Any, ...]:
    return (-match.score, match.difference or 0.0, match.label)


def _rows(lake: Lake, column: str, values: Sequence[Any]) -> list[dict[str, Any]]:
    # Constants of the column's type, so that files are passed over by their bounds.
    kind = "UBIGINT" if column == "watermark" else "VARCHAR"
    places = ", ".join([f"?::{kind}"] * len(values))
    return lake.rows(
        f"SELECT DISTINCT request_id, asset_sha256, label, recorded_at FROM fingerprints "
        f"WHERE {column} IN ({places}) ORDER BY label LIMIT {_CANDIDATES}",
        list(values),
    )


def _difference(
    lake: Lake, row: Mapping[str, Any], picture: Picture, window: Window = WHOLE
) -> float | None:
    """How far a picture is from the part of a stored thumbnail it shows, None without one."""
    thumbnail = _thumbnails(lake, [row]).get(row["label"])
    return None if thumbnail is None else difference_of(thumbnail, picture, window)


def _thumbnails(lake: Lake, rows: Sequence[Mapping[str, Any]]) -> dict[str, RgbImage]:
    """The thumbnails in the stored manifests of rows of the index, by label; not all have one."""
    labels, times = [row["label"] for row in rows], [row["recorded_at"] for row in rows]
    found = {}
    for label, store in _stores(lake, labels, times).items():
        thumbnail = claim_thumbnail(store, "application/c2pa")
        if thumbnail is not None:
            found[label] = thumbnail
    return found


def _stores(lake: Lake, labels: Sequence[str], times: Sequence[datetime] = ()) -> dict[str, bytes]:
    """Stored manifest stores by label; `times` are when they were recorded, where that is known.

    Not from the view, which numbers all manifests before it looks for these: that reads every one.
    """
    if not labels:
        return {}
    # Files hold what was recorded at one time: most are passed over.
    when = f" AND recorded_at IN ({', '.join('?' * len(times))})" if times else ""
    rows = lake.rows(
        f"SELECT label, manifest FROM raw.manifests "
        f"WHERE label IN ({', '.join('?' * len(labels))}){when}",
        [*labels, *times],
    )
    return {row["label"]: bytes(row["manifest"]) for row in rows if row["manifest"] is not None}
