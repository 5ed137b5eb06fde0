"""Contact sheets: many images at a glance, captioned, framed in the colour of their verdicts."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

FRAMES = {"pass": "#2e7d32", "review": "#ef8f00", "block": "#c62828", "": "#9e9e9e"}
_GAP = 12
_LINE = 15


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet: RGB pixels [H, W, 3], lines of text below, and a frame by verdict."""

    pixels: NDArray[np.uint8]
    lines: tuple[str, ...]
    verdict: str = ""


def contact_sheet(cells: Sequence[Cell], columns: int = 6, side: int = 128) -> Image.Image:
    """An RGB sheet of `columns` cells a row, each picture fitted into `side` × `side` pixels.

    Small pictures are enlarged. Deterministic: the same cells give the same pixels.
    """
    columns = max(1, min(columns, len(cells)))
    rows = -(-len(cells) // columns)
    lines = max((len(cell.lines) for cell in cells), default=0)
    width, height = side + _GAP, side + _GAP + lines * _LINE
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)
    for number, cell in enumerate(cells):
        x = _GAP + number % columns * width
        y = _GAP + number // columns * height
        picture = Image.fromarray(cell.pixels)
        scale = side / max(picture.size)
        size = (round(picture.width * scale), round(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
        at = (x + (side - picture.width) // 2, y + (side - picture.height) // 2)
        sheet.paste(picture, at)
        box = (at[0] - 3, at[1] - 3, at[0] + picture.width + 2, at[1] + picture.height + 2)
        draw.rectangle(box, outline=FRAMES.get(cell.verdict, FRAMES[""]), width=3)
        for line, text in enumerate(cell.lines):
            place = (x, y + side + 5 + line * _LINE)
            draw.text(place, _fitted(text, font, side), fill="#202020", font=font)
    return sheet


def thumbnail(pixels: NDArray[np.uint8], side: int = 320) -> NDArray[np.uint8]:
    """The picture within `side` × `side` pixels: sixty photos in full would fill the memory."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side))
    return np.asarray(picture)


def jpeg(image: Image.Image, quality: int = 85) -> bytes:
    """The sheet as JPEG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _fitted(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
