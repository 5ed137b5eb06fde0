"""A signed image in another size, shape or format for a channel: made, signed and checked again.

The original goes in as parent, so a reader of the rendition sees both signatures and what was done.
Sources: C2PA 2.4, "Actions" (opened, resized, cropped, converted, edited) and "Ingredients".
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from PIL import Image, ImageOps

from pipeline.encode import XMP_KEYWORD, encode
from pipeline.errors import PlatemarkError
from pipeline.images import decode_limited
from pipeline.ingredients import Ingredient
from pipeline.keys import Identity
from pipeline.label import LabelError, platemark_version, read_packet, timestamp
from pipeline.manifest import GENERATION, POLICY, SPEC_VERSION
from pipeline.policy_model import ImageFormat
from pipeline.records import Signed
from pipeline.sign import reader_settings, sign
from pipeline.store import sha256_of
from pipeline.verify import Report, verify_bytes
from pipeline.verify_c2pa import before_updates

PARENT = "parent"
# What the original says of its making holds for its renditions as well.
_CARRIED = ("c2pa.ai-disclosure", GENERATION, POLICY)
_GATHERED = ("cawg.training-mining", "cawg.metadata")
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
    data: bytes, recipe: Recipe, identity: Identity, anchors: bytes, when: datetime | None = None
) -> Rendition:
    """The signed file `data` as `recipe` says, signed by `identity` at `when` (aware; default now).

    Its labels (XMP) go along unchanged. Raises RenditionError when the original is not Trusted
    under `anchors` (PEM), when its bytes cannot be made to fit, or when the rendition does not
    decode and verify as Trusted; ImageRefused and SignError as `sign` does.
    """
    parent = verify_bytes(data, Path("original"), anchors)
    if parent.state != "Trusted" or parent.mime is None:
        raise RenditionError(f"the original is {parent.state}: {'; '.join(parent.why)}")
    pixels = decode_limited(data)
    picture, done = _shaped(Image.fromarray(pixels), recipe)
    packet = xmp_packet_of(data)
    encoded, mime, changed = _encoded(picture, recipe, packet)
    if mime != parent.mime:
        done.append(("c2pa.converted", f"from {parent.mime} to {mime}"))
    elif changed or (not done and recipe.bytes is not None and len(data) > recipe.bytes):
        done.append(("c2pa.edited", "encoded at a lower quality"))
    if not done:
        raise RenditionError("the original is already as the recipe asks")
    manifest = _manifest(parent, data, anchors, done, when or datetime.now(UTC), packet)
    ingredient = Ingredient(
        PARENT, "parentOf", "the original", parent.mime, str(parent.sha256), data, True
    )
    signed_data, signed = sign(encoded, mime, manifest, identity, [ingredient])
    _refuse_what_does_not_hold(signed_data, picture.size, mime, recipe, anchors)
    width, height = picture.size
    names = tuple(action for action, _ in done)
    return Rendition(signed_data, mime, sha256_of(signed_data), width, height, signed, names)


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


def _shaped(picture: Image.Image, recipe: Recipe) -> tuple[Image.Image, list[tuple[str, str]]]:
    done: list[tuple[str, str]] = []
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


def _manifest(
    parent: Report,
    data: bytes,
    anchors: bytes,
    done: list[tuple[str, str]],
    when: datetime,
    packet: bytes | None,
) -> dict[str, Any]:
    made_at = timestamp(when)
    stated = digital_source_type(packet) or next(reversed(parent.source_types), None)
    opened: dict[str, Any] = {
        "action": "c2pa.opened",
        "when": made_at,
        "parameters": {"ingredientIds": [PARENT]},
    }
    agent = {"name": "Platemark", "version": platemark_version()}
    actions = [
        {
            "action": action,
            "when": made_at,
            "softwareAgent": agent,
            "description": what,
            **({"digitalSourceType": stated} if stated else {}),
        }
        for action, what in done
    ]
    told = _assertions(data, str(parent.mime), anchors)
    return {
        "claim_generator_info": [{**agent, "specVersion": SPEC_VERSION}],
        "title": f"{told.pop('title')}, rendition",
        "assertions": [
            {
                "label": "c2pa.actions.v2",
                "created": True,
                "data": {"allActionsIncluded": True, "actions": [opened, *actions]},
            },
            *(
                {"label": each, "created": True, "data": told[each]}
                for each in _CARRIED
                if each in told
            ),
            *({"label": each, "data": told[each]} for each in _GATHERED if each in told),
        ],
    }


def _assertions(data: bytes, mime: str, anchors: bytes) -> dict[str, Any]:
    """The active manifest's assertions by label, and its `title`."""
    from c2pa import Context, Reader, Settings

    context = Context(Settings.from_dict(reader_settings(anchors)))
    with Reader(mime, io.BytesIO(data), context=context) as reader:
        store: Mapping[str, Any] = json.loads(reader.json())
    active = before_updates(store["manifests"][store["active_manifest"]], store["manifests"])
    found = {each["label"]: each["data"] for each in active.get("assertions", [])}
    return {**found, "title": active.get("title") or "image"}


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
