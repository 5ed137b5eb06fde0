"""Decoding with limits: what is right comes out exact, everything else is refused with a remedy."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.images import ImageRefused, decode_limited

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def encoded(image, kind="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(
        buffer, kind, **options
    )
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_pixels_come_out_exactly(kind, options):
    decoded = decode_limited(encoded(PIXELS, kind, **options))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, PIXELS)


def test_a_path_is_read(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(PIXELS, "JPEG", quality=95))
    assert decode_limited(path).shape == (20, 30, 3)


def test_transparency_lies_on_white():
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[0, 0] = (10, 20, 30, 255)
    decoded = decode_limited(encoded(clear))
    assert decoded[0, 0].tolist() == [10, 20, 30]
    assert (decoded[1:] == 255).all()


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(np.repeat(PIXELS[:, :1], 30, axis=1), "JPEG", exif=exif)
    assert decode_limited(data).shape == (30, 20, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "I;16", "CMYK"])
def test_every_mode_becomes_rgb(mode):
    if mode == "I;16":
        image = Image.fromarray(np.full((5, 6), 0x8000, np.uint16))
        assert (decode_limited(encoded(image)) == 0x80).all()
    else:
        image = Image.fromarray(PIXELS).convert(mode)
        decoded = decode_limited(encoded(image, "JPEG" if mode == "CMYK" else "PNG"))
        assert decoded.shape == PIXELS.shape


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (bomb(8100, 8100), "more than 64,000,000 pixels"),
        (bomb(60000, 60000), "more than 64,000,000 pixels"),
        (bomb(100, 100), "broken"),
        (encoded(PIXELS)[:-200], "broken"),
        (encoded(PIXELS, "JPEG")[:-200], "broken"),
        (encoded(PIXELS, "WEBP", lossless=True)[:-200], "broken"),
        (encoded(PIXELS, "GIF"), "not a PNG, JPEG or WebP"),
        (encoded(PIXELS, "TIFF"), "not a PNG, JPEG or WebP"),
        (b"", "not a PNG, JPEG or WebP"),
        (b"hello", "not a PNG, JPEG or WebP"),
    ],
)
def test_what_is_broken_huge_or_foreign_is_refused(data, said):
    with pytest.raises(ImageRefused, match=said):
        decode_limited(data)


def test_an_animation_is_refused():
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageRefused, match="an animation"):
        decode_limited(data)


def test_limits_can_be_set(tmp_path):
    data = encoded(PIXELS)
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for source in (data, path):
        with pytest.raises(ImageRefused, match="bytes are more than"):
            decode_limited(source, max_bytes=len(data) - 1)
    with pytest.raises(ImageRefused, match="more than 599 pixels"):
        decode_limited(data, max_pixels=599)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.data())
def test_damaged_files_are_decoded_or_refused_but_never_crash(kind, data):
    content = bytearray(encoded(PIXELS, kind))
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    try:
        assert decode_limited(bytes(content)).shape[2] == 3
    except ImageRefused as refused:
        assert refused.remedy
