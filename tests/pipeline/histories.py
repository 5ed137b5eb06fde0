"""One image of every mode, from real small inputs, with what its manifest must say of its history.

The pixels are any pixels: what is tested is what is said of them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.encode import lossless_png
from pipeline.images import RgbImage
from pipeline.ingredients import COMPOSITE, Made, made_from
from pipeline.inputs import CatalogAsset, InputStore, Picture, RepaintedRegion, open_picture
from pipeline.keys import Identity
from pipeline.label import SOURCE_TYPE as TRAINED
from pipeline.policy import Policy
from pipeline.policy_model import ImageFormat
from pipeline.records import Verdict
from pipeline.request import Adapter, Control, Input, Region, Request
from pipeline.seal import seal
from pipeline.settings import Settings
from pipeline.sign import sign
from pipeline.verify import Report, verify_bytes

CAPTURE = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
REGION = RepaintedRegion((8, 16, 32, 24), 100.0)
_FIELDS: dict[str, Any] = {
    "sku": "MUG-1", "index": 0, "mode": "text-to-image", "model": "starter",
    "model_revision": "ab" * 32, "prompt": "a red mug", "negative_prompt": "", "seed": 2**63 - 1,
    "width": 96, "height": 64, "steps": 20, "guidance": 7.5, "scheduler": "DDIMScheduler",
    "campaign": "spring", "client": "acme",
}  # fmt: skip


@dataclass(frozen=True)
class StarterModel:
    """What labels and manifests say of the model."""

    name: str = "starter"
    source: str = "/somewhere/starter/weights/text-to-image"
    revision: str = "ab" * 32
    licence: str = "Apache-2.0"
    weights_sha256: str | None = "ab" * 32
    notice: str = "Knows only the starter world."
    is_folder: bool = True


class Studio:
    """Makes images as a run does, without an engine: inputs kept, history told, file signed."""

    def __init__(self, settings: Settings, identity: Identity, policy: Policy):
        self.settings, self.identity, self.policy = settings, identity, policy
        self.folder = settings.make_root() / "brief"
        self.folder.mkdir(exist_ok=True)
        self.pictures: dict[str, Picture] = {}

    def pixels(self, seed: int) -> RgbImage:
        rng = np.random.default_rng(seed)
        return rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)

    def file(self, name: str, role: str = "image", data: bytes | None = None) -> Input:
        """A picture beside the brief; by its name always the same one."""
        if not (self.folder / name).exists():
            own = lossless_png(self.pixels(sum(name.encode())))
            (self.folder / name).write_bytes(data or own)
        return self._input(name, role, "file", None)

    def photo_with_credentials(self, name: str) -> Input:
        """What a camera that signs gives."""
        created = {"action": "c2pa.created", "digitalSourceType": CAPTURE}
        actions = {"label": "c2pa.actions.v2", "created": True, "data": {"actions": [created]}}
        generator = [{"name": "Camera", "version": "3"}]
        manifest = {"claim_generator_info": generator, "title": name, "assertions": [actions]}
        png = lossless_png(self.pixels(9))
        return self.file(name, "image", sign(png, "image/png", manifest, self.identity)[0])

    def asset(self, name: str, request: Request, role: str = "image") -> Input:
        """A signed image of our own catalog, made by `request`."""
        if not (self.folder / name).exists():
            (self.folder / name).write_bytes(self.sealed(request)[0])
        return self._input(name, role, "asset", request)

    def _input(self, name: str, role: str, source: str, maker: Request | None) -> Input:
        found = open_picture(self.folder, name, name, self.identity.anchors, [])
        assert found is not None
        if maker is not None:
            own = CatalogAsset(maker.request_id, found.sha256, found.path, name, ("Apache-2.0",))
            found = replace(found, asset=own)
        self.pictures[found.sha256] = found
        return Input(role, source, found.sha256, name)  # type: ignore[arg-type]

    def made(self, request: Request) -> Made:
        """The inputs of a request and its steps, as a run leaves and reads them."""
        store = InputStore(self.settings, self.pictures)
        store.keep(request)
        for number, step in enumerate(request.chain):
            if step.region:
                store.keep_region(step.request_id, REGION)
            if step is not request:
                store.keep_step(step.request_id, lossless_png(self.pixels(100 + number)))
        return made_from(request, InputStore(self.settings))

    def sealed(self, request: Request, format: str = "png") -> tuple[bytes, str]:
        """The signed file and its MIME type."""
        image = ImageFormat(format=format)  # type: ignore[arg-type]
        policy = self.policy.model_copy(update={"image": image})
        verdict = Verdict("pass", (), policy.policy, policy.version, policy.digest)
        made = self.made(request)
        sealed = seal(
            self.pixels(1), request, StarterModel(), policy, verdict, self.identity, made=made
        )
        return sealed.data, sealed.mime

    def report(self, data: bytes) -> Report:
        return verify_bytes(data, Path("image"), self.identity.anchors)


def tampered(data: bytes) -> bytes:
    """One pixel other than what was signed; the PNG itself is whole again."""
    start = data.index(b"IDAT") - 4
    (length,) = struct.unpack(">I", data[start : start + 4])
    pixels = bytearray(zlib.decompress(data[start + 8 : start + 8 + length]))
    pixels[5] ^= 1
    body = zlib.compress(bytes(pixels), 0)
    chunk = b"IDAT" + body
    check = struct.pack(">I", zlib.crc32(chunk))
    return data[:start] + struct.pack(">I", len(body)) + chunk + check + data[start + length + 12 :]


def request(**changes: Any) -> Request:
    return Request(**(_FIELDS | changes))


def step_of(earlier: Request) -> Input:
    return Input("image", "step", earlier.request_id, f"step: {earlier.mode}")


MARKED = ("c2pa.watermarked.bound", None)
"""What every image's manifest says last: that its pixels carry the watermark."""


@dataclass(frozen=True)
class History:
    """A request and what must be said of it: actions with their source types, ingredients by
    relationship and title. `signed` are the ingredients that carry manifests of their own."""

    build: Callable[[Studio], Request]
    actions: tuple[tuple[str, str | None], ...]
    """Those of its making; the mark in its pixels follows them (`MARKED`)."""
    ingredients: tuple[tuple[str, str], ...] = ()
    signed: tuple[str, ...] = ()

    @property
    def source_type(self) -> str:
        return next(kind for _, kind in self.actions if kind)


def _inpainting(studio: Studio) -> Request:
    return request(
        mode="inpainting", strength=1.0, region=Region("file"),
        inputs=(studio.file("photo.png"), studio.file("mask.png", "mask")),
        controls=(Control("hole", "r1", "hole"),),
    )  # fmt: skip


def _chain(studio: Studio) -> Request:
    first = request(prompt="a mug")
    second = request(
        mode="inpainting", strength=1.0, region=Region("box", (8, 16, 32, 24)),
        inputs=(step_of(first),), prompt="a label",
    )  # fmt: skip
    return request(
        mode="upscaling", model="starter", inputs=(step_of(second),), earlier=(first, second)
    )


def _photo_chain(studio: Studio) -> Request:
    first = request(
        mode="inpainting", strength=1.0, region=Region("background", (), "seg", "r1"),
        inputs=(studio.file("photo.png"),),
    )  # fmt: skip
    return request(mode="upscaling", inputs=(step_of(first),), earlier=(first,))


def _variation(of: Callable[[Studio], Request], name: str) -> Callable[[Studio], Request]:
    def build(studio: Studio) -> Request:
        made = studio.asset(name, of(studio))
        return request(mode="variation", strength=0.5, inputs=(made,))

    return build


def _edit(kind: str, *more: tuple[str, str | None]) -> tuple[tuple[str, str | None], ...]:
    return (("c2pa.opened", None), ("c2pa.edited", kind), *more)


CREATED = (("c2pa.created", TRAINED),)
HISTORIES: dict[str, History] = {
    "text-to-image": History(lambda studio: request(), CREATED),
    "adapters": History(
        lambda studio: request(
            adapters=(Adapter("look", "r1", 0.8),), prompt_syntax="compel", prompt_writer="tiny-llm"
        ),
        CREATED,
    ),
    "image-to-image, strong": History(
        lambda studio: request(
            mode="image-to-image", strength=0.8, inputs=(studio.file("photo.png"),)
        ),
        CREATED,
        (("inputTo", "photo.png"),),
    ),
    "image-to-image, weak": History(
        lambda studio: request(
            mode="image-to-image", strength=0.5, inputs=(studio.file("photo.png"),)
        ),
        _edit(COMPOSITE),
        (("parentOf", "photo.png"),),
    ),
    "inpainting of a photo": History(
        _inpainting, _edit(COMPOSITE), (("parentOf", "photo.png"), ("inputTo", "mask.png"))
    ),
    "inpainting of an asset": History(
        lambda studio: request(
            mode="inpainting", strength=1.0, region=Region("object", (), "seg", "r1"),
            inputs=(studio.asset("own.png", request()),),
        ),
        _edit(TRAINED), (("parentOf", "own.png"),), ("own.png",),
    ),
    "outpainting": History(
        lambda studio: request(
            mode="outpainting", strength=1.0, region=Region("border", (0, 0, 32, 0)),
            inputs=(studio.file("photo.png"),),
        ),
        _edit(COMPOSITE), (("parentOf", "photo.png"),),
    ),
    "depth-to-image": History(
        lambda studio: request(
            mode="depth-to-image", strength=1.0,
            inputs=(studio.file("photo.png"), studio.file("depth.png", "depth")),
        ),
        CREATED, (("inputTo", "photo.png"), ("inputTo", "depth.png")),
    ),
    "controlnet": History(
        lambda studio: request(
            mode="controlnet",
            inputs=(studio.file("lines.png", "control"), studio.file("pose.png", "control")),
            controls=(Control("lines", "r1", "edges", 0.7),
                      Control("pose", "r1", "depth", 1.0, "dpt", "r2")),
        ),
        CREATED, (("inputTo", "lines.png"), ("inputTo", "pose.png")),
    ),
    "controlnet, one picture for two": History(
        lambda studio: request(
            mode="controlnet", inputs=(studio.file("photo.png", "control"),) * 2,
            controls=(Control("lines", "r1", "edges"), Control("pose", "r1", "depth")),
        ),
        CREATED, (("inputTo", "photo.png"),),
    ),
    "upscaling": History(
        lambda studio: request(mode="upscaling", inputs=(studio.file("photo.png"),)),
        _edit(COMPOSITE, ("c2pa.resized", COMPOSITE)), (("parentOf", "photo.png"),),
    ),
    "variation": History(
        _variation(lambda studio: request(), "own.png"),
        _edit(TRAINED), (("parentOf", "own.png"),), ("own.png",),
    ),
    "variation of a composite": History(
        _variation(_inpainting, "composite.png"),
        _edit(COMPOSITE), (("parentOf", "composite.png"),), ("composite.png",),
    ),
    "chain": History(
        _chain,
        (*CREATED, ("c2pa.edited", TRAINED), ("c2pa.edited", TRAINED), ("c2pa.resized", TRAINED)),
        (("inputTo", "step: text-to-image"), ("inputTo", "step: inpainting")),
    ),
    "chain from a photo": History(
        _photo_chain,
        _edit(COMPOSITE, ("c2pa.edited", COMPOSITE), ("c2pa.resized", COMPOSITE)),
        (("parentOf", "photo.png"), ("inputTo", "step: inpainting")),
    ),
    "edit of a signed photo": History(
        lambda studio: request(
            mode="image-to-image", strength=0.3,
            inputs=(studio.photo_with_credentials("camera.png"),),
        ),
        _edit(COMPOSITE), (("parentOf", "camera.png"),), ("camera.png",),
    ),
    "image after a signed photo": History(
        lambda studio: request(
            mode="image-to-image", strength=0.9,
            inputs=(studio.photo_with_credentials("camera.png"),),
        ),
        CREATED, (("inputTo", "camera.png"),), ("camera.png",),
    ),
}  # fmt: skip
