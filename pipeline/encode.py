"""Pixels in, file bytes out: PNG, JPEG or WebP with the label (XMP) inside. Signing comes after.

The way back is pipeline/images.py.
"""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from pipeline.errors import PlatemarkError
from pipeline.images import RgbImage
from pipeline.policy_model import ImageFormat

MIME = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
XMP_KEYWORD = "XML:com.adobe.xmp"


class EncodeError(PlatemarkError):
    """An image that cannot be encoded as asked."""


def encode(
    image: Image.Image | RgbImage, fmt: ImageFormat, xmp: bytes | None = None
) -> tuple[bytes, str]:
    """An RGB image as (file bytes, MIME type), with `xmp` embedded where readers look for it.

    PNG is lossless at the compression that costs least time for its size (level 1, run lengths:
    a third of level 6's time). JPEG keeps full chroma. Raises EncodeError when that fails.
    """
    picture = as_rgb(image)
    out = io.BytesIO()
    try:
        picture.save(out, format=fmt.format.upper(), **_options(fmt, xmp))
    except (OSError, ValueError) as error:
        width, height = picture.size
        raise EncodeError(
            f"a {width}×{height} image cannot be encoded as {fmt.format}: {error}"
        ) from None
    return out.getvalue(), MIME[fmt.format]


def lossless_png(image: Image.Image | RgbImage) -> bytes:
    """The image as unlabelled PNG bytes: what waits in quarantine."""
    return encode(image, ImageFormat(format="png"))[0]


def as_rgb(image: Image.Image | RgbImage) -> Image.Image:
    """A Pillow RGB image of either form. Raises EncodeError on another shape or dtype."""
    if isinstance(image, Image.Image):
        return image if image.mode == "RGB" else image.convert("RGB")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise EncodeError(f"pixels are {image.dtype}{list(image.shape)}, not uint8[H, W, 3]")
    return Image.fromarray(np.ascontiguousarray(image))


def _options(fmt: ImageFormat, xmp: bytes | None) -> dict[str, Any]:
    if fmt.format == "png":
        info = PngImagePlugin.PngInfo()
        if xmp is not None:
            info.add_itxt(XMP_KEYWORD, xmp.decode())
        return {"pnginfo": info, "compress_level": 1, "compress_type": zlib.Z_RLE}
    options: dict[str, Any] = {"quality": fmt.quality}
    if xmp is not None:
        options["xmp"] = xmp
    return options | ({"subsampling": 0} if fmt.format == "jpeg" else {"method": 2})
