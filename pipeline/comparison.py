"""An image beside the references that its scores cite, so that a person can see what a score means.

Scores' evidence → a picture; `platemark show` writes it. Nothing is measured here.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from pipeline.images import RgbImage

COLOURS = ("#d81b60", "#1e66d0", "#00897b", "#8e24aa", "#c75300")
"""Of the references in order: a reference's frame and its region in the image have one colour."""
_SIDE, _GAP, _LINE, _COLUMNS = 360, 20, 18, 3
_INK, _PALE = "#202020", "#e4e4e4"

Region = tuple[int, int, int, int]
"""left, top, right, bottom in the image's pixels."""

_FONTS = ("DejaVuSans.ttf", "Arial.ttf")
"""Looked for among the system's; the one that Pillow brings knows English letters only."""


@dataclass(frozen=True)
class Cited:
    """A work that scores cite: which, what each score says of it, and where it was found.

    `found` are lines such as `copying.descriptor@logos 0.931`. `intended` names an own work when
    own works explain all that was found.
    """

    library: str
    sha256: str
    title: str
    rights_holder: str
    found: tuple[str, ...]
    region: Region | None
    intended: str


@dataclass(frozen=True)
class Compared:
    """A reference to draw: picture (None: it is gone), caption, and its region in the image."""

    picture: RgbImage | None
    lines: Sequence[str]
    region: Region | None = None


def cited_works(scores: Iterable[Mapping[str, Any]], limit: int = len(COLOURS)) -> list[Cited]:
    """The references in the evidence of an image's scores; those that count and the nearest first.

    Each score has `score` (its name) and `evidence`; a work's region is that of its largest cosine.
    """
    works: dict[tuple[str, str], list[_Mention]] = {}
    for score in scores:
        for kind in ("nearest", "intended"):
            listed = score["evidence"].get(kind)
            for rank, entry in enumerate(listed if isinstance(listed, list) else ()):
                if entry.get("library") and entry.get("sha256"):
                    key = entry["library"], entry["sha256"]
                    mention = _Mention(str(score["score"]), rank, entry)
                    works.setdefault(key, []).append(mention)
    return [_cited(mentions) for mentions in sorted(works.values(), key=_place)[:limit]]


def side_by_side(
    image: RgbImage, lines: Sequence[str], references: Sequence[Compared]
) -> Image.Image:
    """An RGB picture: the image with the references' regions outlined, then each reference.

    `lines` are the image's caption. Where the system has no font for a letter, its nearest ASCII
    one stands there, or a question mark.
    """
    font = _font()
    cells = [(lines, _picture(image, [each.region for each in references]))]
    cells += [(each.lines, _reference(each.picture, font)) for each in references]
    captions = [[part for line in said for part in _wrapped(line, font)] for said, _ in cells]
    columns = min(_COLUMNS, len(cells))
    height = _SIDE + max(len(caption) for caption in captions) * _LINE + 2 * _GAP
    rows = -(-len(cells) // columns)
    size = (columns * (_SIDE + _GAP) + _GAP, rows * height + _GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for number, (caption, (_, picture)) in enumerate(zip(captions, cells, strict=True)):
        x = _GAP + number % columns * (_SIDE + _GAP)
        y = _GAP + number // columns * height
        left, top = x + (_SIDE - picture.width) // 2, y + (_SIDE - picture.height) // 2
        sheet.paste(picture, (left, top))
        if number:
            frame = (left - 5, top - 5, left + picture.width + 4, top + picture.height + 4)
            draw.rectangle(frame, outline=_colour(number - 1), width=4)
        for line, text in enumerate(caption):
            draw.text((x, y + _SIDE + 12 + line * _LINE), text, fill=_INK, font=font)
    return sheet


@dataclass(frozen=True)
class _Mention:
    """A work in the evidence of one score: the score's name, its place there, what is said."""

    score: str
    rank: int
    entry: Mapping[str, Any]

    @property
    def excuse(self) -> str:
        """The own work that explains the match; empty for a match that counts."""
        own = self.entry.get("own")
        return str(own.get("title") or own.get("file")) if own else ""


def _place(mentions: Sequence[_Mention]) -> tuple[bool, int, int]:
    intended = all(each.excuse for each in mentions)
    return intended, min(each.rank for each in mentions), -len(mentions)


def _cited(mentions: Sequence[_Mention]) -> Cited:
    counting = [each for each in mentions if not each.excuse]
    entry = mentions[0].entry
    found = [
        f"{each.score} {_measured(each.entry)}" + (" (intended)" if each.excuse else "")
        for each in mentions
    ]
    return Cited(
        library=entry["library"],
        sha256=entry["sha256"],
        title=str(entry.get("title") or entry.get("file") or entry["sha256"][:12]),
        rights_holder=str(entry.get("rights_holder") or ""),
        found=tuple(found),
        region=_region([each.entry for each in counting or mentions]),
        intended="" if counting else mentions[0].excuse,
    )


def _region(entries: Sequence[Mapping[str, Any]]) -> Region | None:
    placed = [each for each in entries if each.get("region") and each.get("cosine") is not None]
    if not placed:
        return None
    left, top, right, bottom = max(placed, key=lambda each: float(each["cosine"]))["region"]
    return left, top, right, bottom


def _measured(entry: Mapping[str, Any]) -> str:
    if entry.get("distance") is not None:
        turned = ", mirrored" if entry.get("mirrored") else ""
        return f"{entry['distance']:.0f} of 256 bits apart{turned}"
    return "–" if entry.get("cosine") is None else f"{entry['cosine']:.3f}"


def _picture(image: RgbImage, regions: Sequence[Region | None]) -> Image.Image:
    picture = _fitted(image)
    scale = picture.width / image.shape[1]
    draw = ImageDraw.Draw(picture)
    for number, region in enumerate(regions):
        if region is None:
            continue
        # Of several in one place each stays visible inside the one before.
        inset = 8 * sum(region == earlier for earlier in regions[:number])
        left, top, right, bottom = (round(edge * scale) for edge in region)
        box = (left + inset, top + inset, right - 1 - inset, bottom - 1 - inset)
        if box[2] - box[0] < 8 or box[3] - box[1] < 8:
            continue
        draw.rectangle(box, outline="white", width=6)
        inside = (box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1)
        draw.rectangle(inside, outline=_colour(number), width=4)
    return picture


def _reference(picture: RgbImage | None, font: Any) -> Image.Image:
    if picture is not None:
        return _fitted(picture)
    empty = Image.new("RGB", (_SIDE, _SIDE), _PALE)
    ImageDraw.Draw(empty).text(
        (_SIDE // 2, _SIDE // 2), "reference removed", fill=_INK, font=font, anchor="mm"
    )
    return empty


def _fitted(pixels: RgbImage) -> Image.Image:
    """The picture as large as `_SIDE` × `_SIDE` holds it."""
    picture = Image.fromarray(pixels)
    scale = _SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    for name in _FONTS:
        with suppress(OSError):
            return ImageFont.truetype(name, 13)
    return ImageFont.load_default(14)


def _drawable(text: str, font: Any) -> str:
    """The text in letters that the font has."""
    missing = bytes(font.getmask("\uffff"))

    def drawn(letter: str) -> str:
        if letter.isascii() or bytes(font.getmask(letter)) != missing:
            return letter
        plain = "".join(part for part in unicodedata.normalize("NFKD", letter) if part.isascii())
        return plain or "?"

    return "".join(map(drawn, text))


def _wrapped(text: str, font: Any) -> list[str]:
    """The text in lines no wider than a cell, parted between words where there are any."""
    lines = [""]
    for word in _drawable(text, font).split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= _SIDE:
            lines[-1] = longer
            continue
        lines.append("")
        for letter in word:
            if font.getlength(lines[-1] + letter) > _SIDE:
                lines.append("")
            lines[-1] += letter
    return [line for line in lines if line]


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
