"""Decodes images from outside with limits: references, and files to verify. Nothing here encodes.

One door for foreign pixels, so that bombs, broken files and odd formats are refused in one place.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.errors import PlatemarkError

MAX_BYTES = 64 * 1024 * 1024
MAX_PIXELS = 64_000_000
FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""How files of these formats are called, in lower case."""

RgbImage = NDArray[np.uint8]
"""uint8 [height, width, 3], sRGB values as stored, top row first."""


class ImageRefused(PlatemarkError):
    """An image that is broken, of another format or over a limit; `what` and `remedy` say why."""

    exit_code = 2

    def __init__(self, what: str, remedy: str):
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what} ({remedy})")


def decode_limited(
    source: bytes | Path, *, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS
) -> RgbImage:
    """The upright RGB pixels of one still PNG, JPEG or WebP; transparency lies on white.

    The size is judged from the header, before pixels are allocated. EXIF orientation is applied,
    16-bit greys are scaled to 8, embedded colour profiles are not. Raises ImageRefused, and OSError
    when a path cannot be read.
    """
    data = read_limited(source, max_bytes) if isinstance(source, Path) else source
    if len(data) > max_bytes:
        raise _too_large(len(data), max_bytes)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageRefused(
                    f"{width}×{height} is more than {max_pixels:,} pixels", "use a smaller image"
                )
            if getattr(image, "n_frames", 1) != 1:
                raise ImageRefused("an animation", "use a still image")
            image.load()
            return np.array(_to_rgb(image), order="C")
    except ImageRefused:
        raise
    except UnidentifiedImageError:
        raise ImageRefused("not a PNG, JPEG or WebP image", "convert it to one of them") from None
    except Image.DecompressionBombError:
        raise ImageRefused(f"more than {max_pixels:,} pixels", "use a smaller image") from None
    # Decoders raise OSError, SyntaxError, ValueError, zlib and struct errors on broken files.
    except Exception as error:
        raise ImageRefused(f"broken: {error}", "replace the file") from error


def read_limited(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """A file's bytes. Raises ImageRefused when they are more than `max_bytes`, OSError as usual."""
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise _too_large(path.stat().st_size, max_bytes)
    return data


def _too_large(size: int, limit: int) -> ImageRefused:
    return ImageRefused(f"{size:,} bytes are more than {limit:,}", "use a smaller file")


def _to_rgb(image: Image.Image) -> RgbImage:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        grey = np.clip(np.asarray(upright).astype(np.int64) >> 8, 0, 255)
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))
    return np.asarray(upright.convert("RGB"))
