"""A workspace of marked, signed and catalogued pictures, and what happens to files outside."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
from catalog_samples import begin, request_of
from PIL import Image
from workspace_samples import MILD

from catalog.lake import writing
from catalog.write import commit_batch, register_policy
from pipeline.encode import encode
from pipeline.images import RgbImage
from pipeline.keys import signing_identity
from pipeline.manifest import manifest_for
from pipeline.models import load_models, resolve
from pipeline.policy_model import ImageFormat, Policy
from pipeline.records import Asset, Produced, Verdict
from pipeline.request import Request
from pipeline.settings import Settings
from pipeline.sign import sign
from pipeline.soft_binding import Marked, mark
from pipeline.store import place, stage


def picture(number: int, side: int = 160) -> RgbImage:
    """Soft colours with hard-edged boxes, uint8 [side, side, 3]; each number another picture."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(30, 225, (6, 6, 3), dtype=np.uint8))
    made = np.array(small.resize((side, side), Image.Resampling.BICUBIC))
    for _ in range(8):
        top, left = rng.integers(0, side * 3 // 4, 2)
        height, width = rng.integers(side // 8, side // 3, 2)
        made[top : top + height, left : left + width] = rng.integers(20, 235, 3)
    return made


def shoot_marked(
    settings: Settings,
    numbers: Sequence[int],
    policy: Policy = MILD,
    mark: Callable[[RgbImage, Request, Policy], Marked] = mark,
) -> list[tuple[str, bytes]]:
    """Pictures of these numbers as a run leaves them: (request id, signed file) of each."""
    model = resolve(load_models(), "starter", "text-to-image")
    identity = signing_identity(settings)
    verdict = Verdict("pass", (), policy.policy, policy.version, policy.digest)
    made, produced, urls = [], [], []
    for number in numbers:
        pixels = picture(number)
        side = len(pixels)
        request = request_of(
            number, model=model.name, model_revision=model.revision, width=side, height=side
        )
        marked = mark(pixels, request, policy)
        manifest = manifest_for(request, model, policy, verdict, bindings=marked.bindings)
        data, mime = encode(marked.pixels, ImageFormat())
        data, signed = sign(data, mime, manifest, identity)
        sha256, url = stage(settings, "assets", data, mime)
        asset = Asset(sha256, "signed", url, mime, side, side, len(data), sha256)
        produced.append(Produced(request, (), verdict, asset, signed))
        made.append((request.request_id, data))
        urls.append(url)
    with writing(settings.catalog) as lake:
        begin(lake)
        register_policy(
            lake, digest=policy.digest, name=policy.policy, version=policy.version, text=policy.text
        )
        commit_batch(lake, "run-1", f"b{numbers[0]}", produced)
    place(settings, urls)
    return made


def stripped(data: bytes, fmt: str = "JPEG", quality: int = 80, kept: float = 1.0) -> bytes:
    """The picture saved anew without metadata, its lower right `kept` share of each side."""
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        box = (round(width * (1 - kept)), round(height * (1 - kept)), width, height)
        out = io.BytesIO()
        image.convert("RGB").crop(box).save(out, fmt, quality=quality)
    return out.getvalue()


def unmarked(number: int) -> bytes:
    """The same picture as it was before it was marked, as a JPEG."""
    out = io.BytesIO()
    Image.fromarray(picture(number)).save(out, "JPEG", quality=90)
    return out.getvalue()
