"""Broken images for fuzzing: real files, damaged as transports, editors and attackers do it.

`mutant(data, kind, seed)` is a pure function, so that a find is repeated by its three arguments.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from functools import cache

Damage = Callable[[bytearray, random.Random], bytes]

BOMB = (
    '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9))
    + ']><x:xmpmeta xmlns:x="adobe:ns:meta/">&j;</x:xmpmeta>'
)
DEEP = "<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + "<a>" * 20_000 + "</a>" * 20_000 + "</x:xmpmeta>"
PACKETS = (BOMB, DEEP, BOMB.encode("utf-16").decode("latin-1"), "\ud800", "", "<" * 60_000)
"""XMP packets that no reader should follow."""
HUGE = (0, 1, 7, 8, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF7)
"""Sizes that a header may claim."""


def mutant(data: bytes, kind: str, seed: int) -> bytes:
    """`data` with one kind of damage, a key of DAMAGES; the same for the same seed."""
    return DAMAGES[kind](bytearray(data), random.Random(f"{kind} {seed}"))


def _flips(data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _bytes(data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 4, 32))):
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(data)


def _head(data: bytearray, rng: random.Random) -> bytes:
    """Damage where sizes, kinds and the manifest stand."""
    for _ in range(rng.choice((1, 2, 8))):
        data[rng.randrange(min(4096, len(data)))] = rng.randrange(256)
    return bytes(data)


def _cut(data: bytearray, rng: random.Random) -> bytes:
    return bytes(data[: rng.randrange(len(data))])


def _hole(data: bytearray, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 4, 100, 5_000))]
    return bytes(data)


def _splice(data: bytearray, rng: random.Random) -> bytes:
    """A part of the file put in somewhere else, over what was there or between."""
    start, size = rng.randrange(len(data)), rng.choice((4, 64, 1024, 16_384))
    part = data[start : start + size]
    place = rng.randrange(len(data))
    data[place : place + rng.choice((0, len(part)))] = part
    return bytes(data)


def _junk(data: bytearray, rng: random.Random) -> bytes:
    place = rng.choice((0, len(data), rng.randrange(len(data))))
    data[place:place] = rng.randbytes(rng.choice((1, 16, 4096)))
    return bytes(data)


def _sizes(data: bytearray, rng: random.Random) -> bytes:
    """A four-byte size field of a PNG chunk, JPEG segment, RIFF chunk or JUMBF box that lies."""
    names = (b"IHDR", b"IDAT", b"caBX", b"iTXt", b"jumb", b"jumd", b"cbor", b"json", b"bidb",
             b"VP8 ", b"VP8L", b"VP8X", b"C2PA", b"XMP ", b"RIFF", b"JP\0")  # fmt: skip
    places = [place for name in names for place in _all(data, name)]
    if not places:
        return _head(data, rng)
    place = rng.choice(places)
    # PNG and JUMBF sizes stand before the name, big-endian; RIFF's after it, little-endian.
    before = rng.random() < 0.6 and place >= 4
    value = rng.choice(HUGE) if rng.random() < 0.7 else rng.randrange(2**32)
    start = place - 4 if before else place + 4
    data[start : start + 4] = struct.pack(">I" if before else "<I", value)
    return bytes(data)


def _dimensions(data: bytearray, rng: random.Random) -> bytes:
    """A huge picture declared in a small file."""
    wide = struct.pack(">II", *(rng.choice((0, 1, 65_535, 1_000_000, 0x7FFFFFFF)) for _ in "wh"))
    place = data.find(b"IHDR")
    if place >= 0:
        data[place + 4 : place + 12] = wide
        crc = struct.pack(">I", zlib.crc32(data[place : place + 17]))
        data[place + 17 : place + 21] = crc
    elif (frame := data.find(b"\xff\xc0")) >= 0:
        data[frame + 5 : frame + 9] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0"))
    elif (frame := data.find(b"VP8X")) >= 0:
        data[frame + 12 : frame + 18] = rng.choice((b"\xff" * 6, b"\0" * 6))
    return bytes(data)


def _xmp(data: bytearray, rng: random.Random) -> bytes:
    """A packet that explodes, nests, or is none, where each format keeps XMP."""
    packet = rng.choice(PACKETS).encode("utf-8", "surrogatepass")
    if data.startswith(b"\x89PNG"):
        text = b"XML:com.adobe.xmp\0\0\0\0\0" + packet
        if rng.random() < 0.3:
            text = b"XML:com.adobe.xmp\0\1\0\0\0" + _zeros()
        return bytes(data[:33]) + _png_chunk(b"iTXt", text) + bytes(data[33:])
    if data.startswith(b"\xff\xd8"):
        body = (b"http://ns.adobe.com/xap/1.0/\0" + packet)[:65_533]
        segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
        return bytes(data[:2]) + segment + bytes(data[2:])
    chunk = b"XMP " + struct.pack("<I", len(packet)) + packet + b"\0" * (len(packet) % 2)
    return bytes(data) + chunk


@cache
def _zeros() -> bytes:
    """50 MB in 50 kB."""
    return zlib.compress(b"\0" * 50_000_000, 6)


def _jumbf(data: bytearray, rng: random.Random) -> bytes:
    """Garbage within the manifest: boxes, CBOR, certificates."""
    places = list(_all(data, b"jum")) or [0]
    first, last = places[0], min(places[-1] + 4_096, len(data))
    for _ in range(rng.choice((1, 3, 20))):
        start = rng.randrange(first, last)
        size = rng.choice((1, 2, 8, 200))
        filler = rng.choice((b"\0", b"\xff", b"\x9f", b"\xbf", b"\x5b\xff\xff\xff\xff", b"{"))
        made = rng.randbytes(size) if rng.random() < 0.5 else filler * size
        data[start : start + size] = made[:size]
    return bytes(data)


def _nested(data: bytearray, rng: random.Random) -> bytes:
    """A manifest of boxes in boxes, or of CBOR arrays in arrays, thousands deep."""
    if rng.random() < 0.5:
        inner = b""
        for _ in range(rng.choice((50, 2_000))):
            inner = struct.pack(">I", len(inner) + 8) + b"jumb" + inner
    else:
        inner = struct.pack(">I", 60_008) + b"cbor" + b"\x81" * 60_000
    return _with_manifest(data, inner)


def _garbage(data: bytearray, rng: random.Random) -> bytes:
    """A manifest that is none."""
    return _with_manifest(data, rng.randbytes(rng.choice((0, 8, 500, 20_000))))


def _with_manifest(data: bytearray, store: bytes) -> bytes:
    if data.startswith(b"\x89PNG"):
        return bytes(data[:33]) + _png_chunk(b"caBX", store) + bytes(data[33:])
    if data.startswith(b"\xff\xd8"):
        body = (b"JP\0\1\0\0\0\1" + store)[:65_533]
        segment = b"\xff\xeb" + struct.pack(">H", len(body) + 2) + body
        return bytes(data[:2]) + segment + bytes(data[2:])
    return bytes(data) + b"C2PA" + struct.pack("<I", len(store)) + store


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _all(data: bytearray, name: bytes) -> list[int]:
    places, place = [], data.find(name)
    while place >= 0 and len(places) < 200:
        places.append(place)
        place = data.find(name, place + 1)
    return places


DAMAGES: dict[str, Damage] = {
    "flips": _flips,
    "bytes": _bytes,
    "head": _head,
    "cut": _cut,
    "hole": _hole,
    "splice": _splice,
    "junk": _junk,
    "sizes": _sizes,
    "dimensions": _dimensions,
    "xmp": _xmp,
    "jumbf": _jumbf,
    "nested": _nested,
    "garbage": _garbage,
}
"""Kinds of damage by name."""


def text_mutant(text: str, seed: int) -> bytes:
    """A brief's or table's text, damaged: characters, lines, quotes, numbers, encodings."""
    rng = random.Random(f"text {seed}")
    out = text
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.randrange(len(out) + 1)
        out = rng.choice(_TEXT)(out, place, rng)
    data = out.encode(rng.choice(("utf-8", "utf-8", "utf-8", "utf-16", "latin-1")), "replace")
    return mutant(data, "flips", seed) if data and rng.random() < 0.2 else data


_TOKENS = (
    '"', "'", "{", "}", "[", "]", ":", "- ", "\n", "\r", "\t", "\0", "\ufeff", "\u202e", ",", "#",
    "&a ", "*a", "!!python/object:os.system ", "!!int x", "<<: ", "---\n", "{{ ", " }}",
    "{% for i in range(10**9) %}", "1e999", "-1", "99999999999999999999", "0x7fffffff", ".nan",
    "null", "~", "true", "2027-02-30", "../../etc/passwd", "http://127.0.0.1/", "a" * 5_000,
    "[" * 2_000,
)  # fmt: skip
_TEXT: tuple[Callable[[str, int, random.Random], str], ...] = (
    lambda text, place, rng: text[:place] + rng.choice(_TOKENS) + text[place:],
    lambda text, place, rng: text[:place] + text[place + rng.choice((1, 3, 20)) :],
    lambda text, place, rng: text[:place] + chr(rng.randrange(0xD7FF)) + text[place:],
    lambda text, place, rng: text + text[place:],
    lambda text, place, rng: text[:place],
    lambda text, place, rng: "\n".join(rng.sample(lines := text.split("\n"), len(lines))),
)
