"""A signed image in another size, shape or format for a channel: made, signed and checked again.

The original goes in as parent, so a reader of the rendition sees both signatures and what was done.
pipeline/rendition_manifest.py says so; catalog/renditions.py keeps what is made here.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from pipeline.encode import XMP_KEYWORD, encode
from pipeline.errors import PlatemarkError
from pipeline.images import RgbImage, decode_limited
from pipeline.ingredients import Ingredient
from pipeline.keys import Identity
from pipeline.label import LabelError, licensed_again, read_packet
from pipeline.licences import Licences
from pipeline.policy_model import ImageFormat
from pipeline.records import Signed
from pipeline.rendition_manifest import PARENT, Done, read_original, rendition_manifest
from pipeline.rendition_marks import mark_again
from pipeline.sign import sign
from pipeline.store import sha256_of
from pipeline.terms import UsageTerms
from pipeline.verify import verify_bytes

_QUALITIES = (90, 85, 80, 75, 70)
_MANIFEST_ROOM = 64_000
"""Bytes that two thumbnails and two manifests take beside the pixels; measured: 8 to 40 kB."""


class RenditionError(PlatemarkError):
    """A rendition that cannot be made, or that does not hold after it was made."""


@dataclass(frozen=True)
class Recipe:
    """What to make of an image. Sizes in pixels; nothing is ever enlarged.

    The image is brought to an `aspect` (width over height) by padding with `background` or by
    cropping its middle, then shrunk until neither the `longest_side` nor the number of `pixels` is
    exceeded, then encoded; JPEG and WebP at lower quality, down to 70, until `bytes` fit.
    """

    format: Literal["png", "jpeg", "webp"]
    quality: int = 90
    aspect: float | None = None
    fit: Literal["pad", "crop"] = "pad"
    background: str = "#ffffff"
    longest_side: int | None = None
    pixels: int | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class Rendition:
    """A finished rendition; `actions` are C2PA's names of what was done to the original."""

    data: bytes
    mime: str
    sha256: str
    width: int
    height: int
    signed: Signed
    actions: tuple[str, ...]


def render(
    data: bytes,
    recipe: Recipe,
    identity: Identity,
    anchors: bytes,
    when: datetime | None = None,
    terms: UsageTerms | None = None,
    licences: Licences | None = None,
) -> Rendition:
    """The signed file `data` as `recipe` says, signed by `identity` at `when` (aware; default now).

    Its labels (XMP) go along, the licensing fields as `terms` have them, told by the table of
    `licences` (default: the shipped one); without `terms` as they are. It says how it is found
    again (soft bindings); the original's watermark is embedded anew where the new shape has lost
    it. Raises RenditionError when the original is not Trusted under `anchors` (PEM), when its bytes
    cannot be made to fit, or when the rendition does not decode and verify as Trusted; ImageRefused
    and SignError as `sign` does.
    """
    parent = verify_bytes(data, Path("original"), anchors)
    if parent.state != "Trusted" or parent.mime is None:
        raise RenditionError(f"the original is {parent.state}: {'; '.join(parent.why)}")
    original = read_original(data, parent.mime, anchors)
    picture, done = _shaped(Image.fromarray(decode_limited(data)), recipe)
    marked = mark_again(np.asarray(picture), original.watermark, reshaped=bool(done))
    packet = _packet(data, terms, licences)
    encoded, mime, changed = _encoded(Image.fromarray(marked.pixels), recipe, packet)
    if mime != parent.mime:
        done.append(("c2pa.converted", f"from {parent.mime} to {mime}"))
    elif changed or (not done and recipe.bytes is not None and len(data) > recipe.bytes):
        done.append(("c2pa.edited", "encoded at a lower quality"))
    if not done:
        raise RenditionError("the original is already as the recipe asks")
    manifest = rendition_manifest(
        original,
        done,
        when or datetime.now(UTC),
        digital_source_type(packet) or next(reversed(parent.source_types), None),
        marked.bindings,
        embedded=marked.embedded,
        terms=terms,
        licences=licences,
    )
    ingredient = Ingredient(
        PARENT, "parentOf", "the original", parent.mime, str(parent.sha256), data, True
    )
    signed_data, signed = sign(encoded, mime, manifest, identity, [ingredient])
    _refuse_what_does_not_hold(signed_data, picture.size, mime, recipe, anchors)
    width, height = picture.size
    names = tuple(action for action, _ in done)
    return Rendition(signed_data, mime, sha256_of(signed_data), width, height, signed, names)


def shaped(pixels: RgbImage, recipe: Recipe) -> RgbImage:
    """Pixels uint8 [H, W, 3] in the recipe's shape and size, as they are before encoding."""
    return np.asarray(_shaped(Image.fromarray(pixels), recipe)[0])


def _packet(data: bytes, terms: UsageTerms | None, licences: Licences | None) -> bytes | None:
    packet = xmp_packet_of(data)
    if packet is None or terms is None:
        return packet
    try:
        return licensed_again(packet, terms, licences)
    except LabelError as error:
        raise RenditionError(f"its label cannot be rewritten: {error}") from None


def shape(width: int, height: int, recipe: Recipe) -> tuple[int, int]:
    """The size in pixels that an image of this size will have."""
    box = _box(width, height, recipe)
    scale = _scale(*box, recipe)
    return max(1, int(box[0] * scale)), max(1, int(box[1] * scale))


def _box(width: int, height: int, recipe: Recipe) -> tuple[int, int]:
    """The size after padding or cropping to the aspect."""
    if recipe.aspect is None or abs(width / height - recipe.aspect) < 1e-9:
        return width, height
    wider = width / height > recipe.aspect
    if wider == (recipe.fit == "pad"):
        return width, max(1, round(width / recipe.aspect))
    return max(1, round(height * recipe.aspect)), height


def _scale(width: int, height: int, recipe: Recipe) -> float:
    bounds = [1.0]
    if recipe.longest_side:
        bounds.append(recipe.longest_side / max(width, height))
    if recipe.pixels:
        bounds.append((recipe.pixels / (width * height)) ** 0.5)
    return min(bounds)


def _shaped(picture: Image.Image, recipe: Recipe) -> tuple[Image.Image, list[Done]]:
    done: list[Done] = []
    box = _box(*picture.size, recipe)
    if box != picture.size and recipe.fit == "crop":
        picture = ImageOps.fit(picture, box, Image.Resampling.LANCZOS)
        done.append(("c2pa.cropped", f"to its middle, {box[0]}×{box[1]}"))
    elif box != picture.size:
        canvas = Image.new("RGB", box, recipe.background)
        canvas.paste(picture, ((box[0] - picture.size[0]) // 2, (box[1] - picture.size[1]) // 2))
        picture = canvas
        done.append(("c2pa.edited", f"padded with {recipe.background} to {box[0]}×{box[1]}"))
    size = shape(*picture.size, recipe)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3)
        done.append(("c2pa.resized", f"to {size[0]}×{size[1]}"))
    return picture, done


def _encoded(picture: Image.Image, recipe: Recipe, packet: bytes | None) -> tuple[bytes, str, bool]:
    """The file, its MIME type, and whether its quality had to be lowered."""
    ladder = [recipe.quality, *(each for each in _QUALITIES if each < recipe.quality)]
    if recipe.format == "png":
        ladder = ladder[:1]
    for quality in ladder:
        data, mime = encode(picture, ImageFormat(format=recipe.format, quality=quality), packet)
        # The manifest holds the original's, a thumbnail each, and comes on top.
        if recipe.bytes is None or len(data) + _MANIFEST_ROOM <= recipe.bytes:
            return data, mime, quality != recipe.quality
    raise RenditionError(
        f"{len(data):,} bytes at the lowest quality are more than {recipe.bytes:,}"
    )


def xmp_packet_of(data: bytes) -> bytes | None:
    """The XMP packet in a PNG, JPEG or WebP, None without one; pixels are not decoded."""
    with Image.open(io.BytesIO(data)) as image:
        found = image.info.get("xmp") or image.info.get(XMP_KEYWORD)
    return found.encode() if isinstance(found, str) else found


def digital_source_type(packet: bytes | str | None) -> str | None:
    """The IPTC digital source type (full URI) that an XMP packet states, None without one."""
    if not packet:
        return None
    try:
        value = read_packet(packet).get("Iptc4xmpExt:DigitalSourceType")
    except LabelError:
        return None
    return value if isinstance(value, str) else None


def source_type_of(data: bytes) -> str | None:
    """The IPTC digital source type in a file's XMP, None without one; pixels are not decoded."""
    try:
        return digital_source_type(xmp_packet_of(data))
    except (OSError, ValueError, SyntaxError):
        return None


def _refuse_what_does_not_hold(
    data: bytes, size: tuple[int, int], mime: str, recipe: Recipe, anchors: bytes
) -> None:
    report = verify_bytes(data, Path("rendition"), anchors)
    if report.state != "Trusted":
        raise RenditionError(f"the rendition is {report.state}: {'; '.join(report.why)}")
    if not report.decodes or (report.width, report.height) != size or report.mime != mime:
        raise RenditionError(f"the rendition does not decode as {mime} of {size[0]}×{size[1]}")
    if recipe.bytes is not None and len(data) > recipe.bytes:
        raise RenditionError(f"{len(data):,} bytes with its manifest, at most {recipe.bytes:,}")
