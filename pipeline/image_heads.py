"""Size and XMP packet of an image from its first chunks, without setting up a decoder.

For files that the C2PA library has found whole; what is unusual is left to Pillow. Sources: RFC
9649, 2.3 to 2.7 (WebP); PNG, third edition, 5 and 11.3.3.4; ITU-T T.81, annex B (JPEG); XMP
specification, part 3, 1.1.3 and 1.1.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_XMP_IN_JPEG = b"http://ns.adobe.com/xap/1.0/\0"
# Keyword, then: not compressed, no language, no translated keyword.
_XMP_IN_PNG = b"XML:com.adobe.xmp\0\0\0\0\0"
# Start of frame: all but the tables (DHT, DAC) and an extension among them.
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_MOST = 10_000


@dataclass(frozen=True)
class ImageHead:
    """Width and height in pixels, and the XMP packet, None without one."""

    width: int
    height: int
    xmp: bytes | None


def head_of(data: bytes) -> ImageHead | None:
    """The head of a JPEG, PNG or WebP; None for others, unusual and broken ones. Never raises."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if data.startswith(b"RIFF") and data[8:16] == b"WEBPVP8X":
        return _webp(data)
    return None


def _jpeg(data: bytes) -> ImageHead | None:
    size, xmp = None, None
    for marker, start, end in _segments(data):
        if marker == 0xE1 and xmp is None and data.startswith(_XMP_IN_JPEG, start):
            xmp = data[start + len(_XMP_IN_JPEG) : end]
        elif marker in _FRAMES and end - start >= 6:
            height = int.from_bytes(data[start + 1 : start + 3])
            size = int.from_bytes(data[start + 3 : start + 5]), height
        elif marker == 0xDA:
            # A height of 0 stands behind the pixels.
            return ImageHead(*size, xmp) if size and all(size) else None
    return None


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment's content, up to the first that is not whole."""
    place = 2
    for _ in range(_MOST):
        if place + 4 > len(data) or data[place] != 0xFF:
            return
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4])
        if end < place + 4 or end > len(data):
            return
        yield data[place + 1], place + 4, end
        place = end


def _png(data: bytes) -> ImageHead | None:
    size, xmp, place = None, None, 8
    for _ in range(_MOST):
        kind, start = data[place + 4 : place + 8], place + 8
        end = start + int.from_bytes(data[place : place + 4])
        if end + 4 > len(data):
            return None
        if kind == b"IHDR" and end - start == 13:
            width = int.from_bytes(data[start : start + 4])
            size = width, int.from_bytes(data[start + 4 : start + 8])
        elif kind == b"iTXt" and data.startswith(b"XML:com.adobe.xmp\0", start):
            if not data.startswith(_XMP_IN_PNG, start):
                return None
            xmp = data[start + len(_XMP_IN_PNG) : end]
        elif kind == b"IDAT":
            return ImageHead(*size, xmp) if size and all(size) else None
        place = end + 4
    return None


def _webp(data: bytes) -> ImageHead | None:
    if len(data) < 30:
        return None
    width = 1 + int.from_bytes(data[24:27], "little")
    height = 1 + int.from_bytes(data[27:30], "little")
    place = 12
    for _ in range(_MOST):
        end = place + 8 + int.from_bytes(data[place + 4 : place + 8], "little")
        if place + 8 > len(data) or end > len(data):
            break
        if data[place : place + 4] == b"XMP ":
            return ImageHead(width, height, data[place + 8 : end])
        # Chunks are padded to even sizes.
        place = end + (end - place) % 2
    return ImageHead(width, height, None)
