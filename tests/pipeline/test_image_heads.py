"""Heads of images are what Pillow says they are; broken files have none, or a harmless one."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline.encode import encode
from pipeline.image_heads import head_of
from pipeline.policy_model import ImageFormat

PACKET = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
FORMATS: tuple[Any, ...] = ("jpeg", "png", "webp")


def written(kind: Any, width: int, height: int, xmp: bytes | None) -> bytes:
    picture = Image.new("RGB", (width, height), (10, 200, 30))
    return encode(picture, ImageFormat(format=kind, quality=80), xmp)[0]


def packet_of(image: Image.Image) -> Any:
    found = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    return found.encode() if isinstance(found, str) else found


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (16, 300), (1023, 5)])
@pytest.mark.parametrize("xmp", [PACKET, PACKET + b" "])
def test_size_and_packet_are_as_pillow_reads_them(
    kind: Any, width: int, height: int, xmp: bytes
) -> None:
    data = written(kind, width, height, xmp)
    found = head_of(data)
    with Image.open(io.BytesIO(data)) as image:
        assert found and (found.width, found.height) == image.size == (width, height)
        assert found.xmp == packet_of(image) == xmp


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"exif": b"Exif\0\0odd"}, {"dpi": (9, 9)}]
)
def test_other_jpegs_are_read_too(options: dict[str, Any]) -> None:
    out = io.BytesIO()
    Image.new("L", (40, 30)).save(out, "JPEG", xmp=PACKET, **options)
    found = head_of(out.getvalue())
    assert found and (found.width, found.height, found.xmp) == (40, 30, PACKET)


def test_what_is_unusual_is_left_to_pillow() -> None:
    told = PngInfo()
    told.add_itxt("XML:com.adobe.xmp", PACKET.decode(), zip=True)
    zipped, simple = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (8, 8)).save(zipped, "PNG", pnginfo=told)
    Image.new("RGB", (8, 8)).save(simple, "WEBP")
    for data in (zipped.getvalue(), simple.getvalue(), b"GIF89a", b""):
        assert head_of(data) is None


@given(st.sampled_from(FORMATS), st.integers(0, 400), st.binary(max_size=8))
def test_no_bytes_make_it_fail(kind: Any, place: int, noise: bytes) -> None:
    data = written(kind, 8, 8, PACKET)
    for broken in (data[:place], data[:place] + noise + data[place + len(noise) :], noise):
        found = head_of(broken)
        assert found is None or len(found.xmp or b"") <= len(broken)
