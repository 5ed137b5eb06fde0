"""The embedded watermark: what it survives, what it leaves alone, what its code corrects."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from c2pa import Reader
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.encode import encode
from pipeline.images import RgbImage
from pipeline.keys import Identity
from pipeline.manifest import manifest_for
from pipeline.policy import Policy
from pipeline.request import Request
from pipeline.sign import sign
from pipeline.soft_binding import bindings_of, mark
from pipeline.soft_binding.detect import read
from pipeline.soft_binding.payload import PAYLOAD_BITS, decoded, encoded, payload_hex, payload_of
from pipeline.soft_binding.watermark import ALGORITHM, embed, psnr_target

PAYLOAD = 0x0123_4567_89AB
BICUBIC, MIRROR = Image.Resampling.BICUBIC, Image.Transpose.FLIP_LEFT_RIGHT
Edit = Callable[[Image.Image], Image.Image]


def product(number: int, side: int, width: int | None = None) -> RgbImage:
    """A shaded ball with a shadow on a plain background: much flat area, few hard edges."""
    width = width or side
    rng = np.random.default_rng(number)
    y, x = np.mgrid[0:side, 0:width] / side
    cx, cy, radius = 0.5 * width / side + rng.uniform(-0.05, 0.05), 0.5, rng.uniform(0.2, 0.3)
    ball = np.clip((radius - np.hypot(x - cx, y - cy)) * side, 0, 1)[..., None]
    light = np.clip(1.2 - 2 * np.hypot(x - cx + 0.1, y - cy + 0.1), 0.2, 1)[..., None]
    ground = rng.integers(120, 240, 3) * (0.85 + 0.15 * y[..., None])
    return np.asarray(ground * (1 - ball) + rng.integers(40, 255, 3) * light * ball).astype(
        np.uint8
    )


def reencoded(fmt: str, quality: int) -> Edit:
    def edit(picture: Image.Image) -> Image.Image:
        out = io.BytesIO()
        picture.save(out, fmt, quality=quality)
        return Image.open(io.BytesIO(out.getvalue())).convert("RGB")

    return edit


def resized(width: int, height: int) -> Edit:
    return lambda picture: picture.resize((width, height), Image.Resampling.LANCZOS)


def cropped(left: float, top: float, kept: float) -> Edit:
    def edit(picture: Image.Image) -> Image.Image:
        width, height = picture.size
        box = (left * width, top * height, (left + kept) * width, (top + kept) * height)
        return picture.crop(tuple(round(edge) for edge in box))  # type: ignore[arg-type]

    return edit


@pytest.mark.parametrize("side", [128, 512])
@pytest.mark.parametrize(
    "edits",
    [
        pytest.param((), id="untouched"),
        pytest.param((reencoded("JPEG", 75),), id="JPEG 75"),
        pytest.param((reencoded("JPEG", 60),), id="JPEG 60"),
        pytest.param((resized(256, 256), reencoded("JPEG", 85)), id="resized to 256"),
        pytest.param((resized(300, 200),), id="stretched"),
        pytest.param((cropped(0.0, 0.1, 0.9), reencoded("JPEG", 75)), id="cropped at a corner"),
        pytest.param((cropped(0.05, 0.05, 0.9),), id="cropped around"),
        pytest.param((cropped(0.04, 0.0, 0.95), resized(256, 256)), id="cropped, then resized"),
    ],
)
def test_it_is_read_after(edits: tuple[Edit, ...], side: int) -> None:
    picture = Image.fromarray(embed(product(side, side), PAYLOAD))
    for edit in edits:
        picture = edit(picture)
    reading = read(np.asarray(picture))
    assert reading is not None
    assert reading.payload == PAYLOAD


@pytest.mark.parametrize(
    ("edit", "mirrored", "turned"),
    [
        pytest.param(lambda p: p.transpose(MIRROR), True, 0, id="mirrored"),
        pytest.param(lambda p: cropped(0.1, 0.0, 0.9)(p.transpose(MIRROR)), True, 0, id="a part"),
        pytest.param(lambda p: p.rotate(3, BICUBIC), False, 3, id="turned left"),
        pytest.param(lambda p: p.rotate(-3, BICUBIC), False, -3, id="turned right"),
        pytest.param(
            lambda p: cropped(0.025, 0.025, 0.95)(p.rotate(3, BICUBIC)), False, 3, id="straightened"
        ),
    ],
)
@pytest.mark.parametrize(("side", "width"), [(128, 128), (400, 600)])
def test_it_says_how_the_picture_was_turned(
    edit: Edit, mirrored: bool, turned: float, side: int, width: int
) -> None:
    picture = edit(Image.fromarray(embed(product(side, side, width), PAYLOAD)))
    reading = read(np.asarray(reencoded("JPEG", 85)(picture)))
    assert reading is not None
    assert (reading.payload, reading.mirrored) == (PAYLOAD, mirrored)
    assert reading.turned == pytest.approx(turned, abs=1)


def test_a_crop_says_which_part_it_shows() -> None:
    picture = Image.fromarray(embed(product(3, 400), PAYLOAD))
    reading = read(np.asarray(cropped(0.08, 0.02, 0.9)(picture)))
    assert reading is not None
    assert reading.window == pytest.approx((0.08, 0.02, 0.98, 0.92), abs=0.012)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (128, 128), (96, 256), (512, 512)])
def test_its_strength_is_as_stated(height: int, width: int) -> None:
    image = product(5, height, width)
    apart = np.mean((embed(image, PAYLOAD).astype(float) - image) ** 2)
    assert 10 * np.log10(255**2 / apart) == pytest.approx(psnr_target(height, width), abs=1.0)
    assert psnr_target(height, width) >= 42


def test_pure_white_stays_pure_white() -> None:
    image = product(6, 256)
    image[:, :100] = 255
    marked = embed(image, PAYLOAD)
    assert (marked[:, :100] == 255).all()
    reading = read(marked)
    assert reading is not None
    assert reading.payload == PAYLOAD


def test_the_same_pixels_and_payload_give_the_same_mark() -> None:
    image = product(7, 128)
    assert (embed(image, PAYLOAD) == embed(image, PAYLOAD)).all()


def test_unmarked_pictures_say_nothing() -> None:
    assert [read(product(number, 128)) for number in range(20)] == [None] * 20


def test_a_picture_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        embed(product(1, 63), PAYLOAD)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3_000_000), (3_000_000, 1), (3, 700)])
def test_odd_shapes_are_read_soon(height: int, width: int) -> None:
    started = time.process_time()
    assert read(np.full((height, width, 3), 90, np.uint8)) is None
    assert time.process_time() - started < 5


@pytest.mark.parametrize("value", [0, 255])
def test_flat_pictures_do_no_harm(value: int) -> None:
    image = np.full((128, 128, 3), value, np.uint8)
    embed(image, PAYLOAD)
    assert read(image) is None


@given(st.integers(0, 2**PAYLOAD_BITS - 1), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_the_code_outvotes_noise(payload: int, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.5, len(encoded(payload)))
    heard = np.stack([encoded(payload) + noise, encoded(payload ^ 1)]).astype(np.float32)
    assert decoded(heard) == [payload, payload ^ 1]


def test_the_crc_stops_noise() -> None:
    rng = np.random.default_rng(1)
    assert decoded(rng.normal(0, 1, (200, 210)).astype(np.float32)) == [None] * 200


def test_the_payload_is_how_the_request_id_begins() -> None:
    digest = hashlib.sha256(b"any").hexdigest()
    assert digest.startswith(payload_hex(payload_of(digest)))


class TestMarking:
    def test_pixels_and_bindings(self, request_of: Callable[..., Request], policy: Policy) -> None:
        request, image = request_of(), product(8, 128)
        marked = mark(image, request, policy)
        reading = read(marked.pixels)
        assert reading is not None
        assert request.request_id.startswith(payload_hex(reading.payload))
        watermark, whole, middle, *_ = marked.bindings
        assert (watermark.alg, watermark.value) == (ALGORITHM, request.request_id[:12])
        assert whole.part is None
        assert middle.part == (0.1, 0.1, 0.9, 0.9)
        assert whole.value != middle.value

    def test_small_images_are_fingerprinted_only(
        self, request_of: Callable[..., Request], policy: Policy
    ) -> None:
        image = product(9, 48)
        marked = mark(image, request_of(), policy)
        assert (marked.pixels == image).all()
        assert {each.alg for each in marked.bindings} >= {"org.platemark.pdq.1"}
        assert ALGORITHM not in {each.alg for each in marked.bindings}

    def test_the_manifest_tells_all_and_verifies(
        self,
        request_of: Callable[..., Request],
        policy: Policy,
        model: Any,
        verdict_of: Any,
        identity: Identity,
    ) -> None:
        marked = mark(product(10, 128), request_of(), policy)
        manifest = manifest_for(
            request_of(), model, policy, verdict_of(policy), bindings=marked.bindings
        )
        data, mime = encode(marked.pixels, policy.image)
        signed_file, signed = sign(data, mime, manifest, identity)
        assert bindings_of(signed.manifest) == marked.bindings
        store = json.loads(Reader(mime, io.BytesIO(signed_file)).json())
        assert store["validation_state"] in ("Valid", "Trusted")
        told = store["manifests"][store["active_manifest"]]["assertions"]
        actions = next(each for each in told if each["label"] == "c2pa.actions.v2")["data"]
        assert [each["action"] for each in actions["actions"]] == [
            "c2pa.created",
            "c2pa.watermarked.bound",
        ]


@pytest.mark.parametrize("data", [b"", b"no manifest", b"\0" * 64])
def test_what_is_no_manifest_store_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="manifest store"):
        bindings_of(data)
