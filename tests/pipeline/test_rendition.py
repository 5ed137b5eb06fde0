from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c2pa import Reader
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.checks.pdq import pdq_bits
from pipeline.images import RgbImage, decode_limited
from pipeline.keys import Identity, signing_identity, trust_anchors
from pipeline.models import load_models, resolve
from pipeline.policy import load_policy
from pipeline.records import Verdict
from pipeline.rendition import (
    Recipe,
    Rendition,
    RenditionError,
    render,
    shape,
    source_type_of,
    xmp_packet_of,
)
from pipeline.request import Request
from pipeline.seal import seal
from pipeline.settings import Settings
from pipeline.soft_binding import bindings_of, watermark
from pipeline.soft_binding.detect import read
from pipeline.soft_binding.fingerprint import MIDDLE, PDQ, pdq_of
from pipeline.soft_binding.payload import payload_hex, payload_of
from pipeline.terms import UsageTerms
from pipeline.verify import Report, verify_bytes

MARKED = "c2pa.watermarked.bound"
AI = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


class Studio:
    """A signed original of 200×100 pixels, and the keys that signed it."""

    def __init__(self, folder: Path) -> None:
        settings = Settings(workspace=folder)
        self.identity: Identity = signing_identity(settings)
        self.anchors = trust_anchors(settings)
        policy = load_policy("starter")
        model = resolve(load_models(), "starter", "text-to-image")
        request = Request(
            sku="MUG-1",
            index=0,
            mode="text-to-image",
            model=model.name,
            model_revision=model.revision,
            prompt="a red mug",
            negative_prompt="",
            seed=1,
            width=200,
            height=100,
            steps=20,
            guidance=3.0,
            scheduler="ddim",
            campaign="spring",
            client="acme",
        )
        self.request = request
        verdict = Verdict("pass", (), policy.policy, policy.version, policy.digest)
        pixels = np.random.default_rng(3).integers(0, 256, (100, 200, 3), dtype=np.uint8)
        self.data, self.mime, self.signed, _ = seal(
            pixels, request, model, policy, verdict, self.identity
        )

    def render(self, recipe: Recipe) -> Rendition:
        return render(self.data, recipe, self.identity, self.anchors)

    def verify(self, data: bytes) -> Report:
        return verify_bytes(data, Path("rendition"), self.anchors)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("studio"))


@pytest.mark.parametrize(
    ("recipe", "size", "actions"),
    [
        (Recipe("jpeg"), (200, 100), ("c2pa.converted",)),
        (Recipe("webp", longest_side=100), (100, 50), ("c2pa.resized", "c2pa.converted")),
        (Recipe("png", pixels=5_000), (100, 50), ("c2pa.resized",)),
        (Recipe("png", aspect=1.0), (200, 200), ("c2pa.edited", MARKED)),
        (Recipe("png", aspect=1.0, fit="crop"), (100, 100), ("c2pa.cropped", MARKED)),
        (
            Recipe("jpeg", aspect=1.0, fit="crop", longest_side=50),
            (50, 50),
            ("c2pa.cropped", "c2pa.resized", "c2pa.converted"),
        ),
    ],
)
def test_a_rendition_is_signed_with_its_original_as_parent(
    studio: Studio, recipe: Recipe, size: tuple[int, int], actions: tuple[str, ...]
) -> None:
    made = studio.render(recipe)
    report = studio.verify(made.data)
    assert (report.state, report.decodes) == ("Trusted", True)
    assert (report.width, report.height) == (made.width, made.height) == size
    assert report.actions == ("c2pa.opened", *actions)
    assert made.actions == tuple(action for action in actions if action != MARKED)
    (parent,) = report.ingredients
    assert (parent["relationship"], parent["manifest"]) == ("parentOf", studio.signed.label)
    assert report.label == made.signed.label != studio.signed.label


def test_labels_and_statements_of_the_original_go_along(studio: Studio) -> None:
    made = studio.render(Recipe("jpeg", longest_side=64))
    report, original = studio.verify(made.data), studio.verify(studio.data)
    assert report.labels == original.labels
    assert source_type_of(made.data) == AI
    assert report.source_types == (AI,)
    assert report.generation and report.generation["request_id"] == studio.request.request_id
    assert report.policy == original.policy


def test_a_wide_image_is_padded_evenly(studio: Studio) -> None:
    made = studio.render(Recipe("png", aspect=1.0, background="#00ff00"))
    wanted = np.full((200, 200, 3), (0, 255, 0), np.int64)
    wanted[50:150] = decode_limited(studio.data)
    # The watermark, which padding hides, is embedded again.
    assert np.abs(decode_limited(made.data) - wanted).max() <= 12


def calm_studio(folder: Path) -> tuple[Studio, RgbImage]:
    """An original without noise, in which a watermark can be read."""
    made = Studio(folder)
    across = np.linspace(30, 220, 400)[None, :, None] * np.ones((200, 1, 3))
    pixels = across.astype(np.uint8)
    policy = load_policy("starter")
    model = resolve(load_models(), "starter", "text-to-image")
    verdict = Verdict("pass", (), policy.policy, policy.version, policy.digest)
    made.request = request = replace(made.request, width=400, height=200)
    made.data, made.mime, made.signed, _ = seal(
        pixels, request, model, policy, verdict, made.identity
    )
    return made, pixels


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("jpeg"),
        Recipe("jpeg", longest_side=256),
        Recipe("png", aspect=1.0),
        Recipe("jpeg", aspect=1.0, background="#808080", longest_side=300),
        Recipe("webp", aspect=1.0, fit="crop"),
    ],
)
def test_a_rendition_declares_and_carries_what_finds_it_again(
    tmp_path: Path, recipe: Recipe
) -> None:
    studio, _ = calm_studio(tmp_path)
    made = studio.render(recipe)
    pixels = decode_limited(made.data)
    payload = payload_of(studio.request.request_id)
    reading = read(pixels)
    assert reading and reading.payload == payload
    found = {(each.alg, each.part): each.value for each in bindings_of(made.signed.manifest)}
    assert found[watermark.ALGORITHM, None] == payload_hex(payload)
    hashes, _ = pdq_of(pixels, ((0.0, 0.0, 1.0, 1.0), MIDDLE))
    for part, seen in ((None, hashes[0]), (MIDDLE, hashes[1])):
        declared = pdq_bits(found[PDQ, part])
        apart = sum(int(a ^ b).bit_count() for a, b in zip(declared, seen, strict=True))
        assert apart <= 40, "of 256: the encoder moves a few"


def test_a_rendition_under_other_terms_says_them_and_nothing_of_the_old(tmp_path: Path) -> None:
    studio, _ = calm_studio(tmp_path)
    terms = UsageTerms(
        id="acme-2027", licensor="Acme Studio", licensee="Acme Home", credit="Acme Studio / Doe",
        web_statement="https://acme.example/terms", territories=("DE",),
    )  # fmt: skip
    made = render(studio.data, Recipe("jpeg"), studio.identity, studio.anchors, terms=terms)
    report = studio.verify(made.data)
    assert report.state == "Trusted"
    assert report.labels["photoshop:Credit"] == "Acme Studio / Doe"
    assert report.labels["xmpRights:WebStatement"] == "https://acme.example/terms"
    packet = xmp_packet_of(made.data) or b""
    assert b"Acme Home" in packet and b"plus:LicensorName" in packet
    assert report.labels["Iptc4xmpExt:DigitalSourceType"] == AI
    told = rendition_metadata(made)
    assert told["photoshop:Credit"] == "Acme Studio / Doe"
    assert told["plus:RegionConstraints"] == "Only: DE"
    assert told["Iptc4xmpExt:DigitalSourceType"] == AI
    assert set(told["@context"]) >= {"plus", "photoshop", "Iptc4xmpExt"}


def rendition_metadata(made: Rendition) -> dict[str, Any]:
    """What the manifest's cawg.metadata says."""
    with Reader("application/c2pa", io.BytesIO(made.signed.manifest)) as reader:
        store = json.loads(reader.json())
    active = store["manifests"][store["active_manifest"]]
    (found,) = (each["data"] for each in active["assertions"] if each["label"] == "cawg.metadata")
    return dict(found)


def test_quality_is_lowered_until_the_bytes_fit(studio: Studio) -> None:
    large = studio.render(Recipe("jpeg", quality=100))
    limit = len(large.data) - 5_000
    small = studio.render(Recipe("jpeg", quality=100, bytes=limit))
    assert len(small.data) < len(large.data) and len(small.data) <= limit
    with pytest.raises(RenditionError, match="at the lowest quality"):
        studio.render(Recipe("jpeg", bytes=10_000))


def test_nothing_to_do_is_no_rendition(studio: Studio) -> None:
    with pytest.raises(RenditionError, match="already"):
        studio.render(Recipe("png", longest_side=4_000))


def harmed(data: bytes) -> bytes:
    place = data.index(b"IDAT") + 400
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def stripped(data: bytes) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(("harm", "state"), [(harmed, "Invalid"), (stripped, "None")])
def test_only_a_trusted_original_is_rendered(studio: Studio, harm: object, state: str) -> None:
    data = harm(studio.data)  # type: ignore[operator]
    with pytest.raises(RenditionError, match=f"the original is {state}"):
        render(data, Recipe("jpeg"), studio.identity, studio.anchors)


def test_an_original_of_somebody_unknown_is_not_rendered(studio: Studio, tmp_path: Path) -> None:
    other = Studio(tmp_path)
    with pytest.raises(RenditionError, match="the original is Valid"):
        render(other.data, Recipe("jpeg"), studio.identity, studio.anchors)


sides = st.integers(1, 9_000)


@given(
    sides,
    sides,
    st.none() | st.floats(0.2, 5.0),
    st.sampled_from(["pad", "crop"]),
    st.none() | st.integers(1, 9_000),
    st.none() | st.integers(1, 80_000_000),
)
def test_shapes_stay_within_every_bound(
    width: int, height: int, aspect: float | None, fit: str, longest: int | None, pixels: int | None
) -> None:
    recipe = Recipe("png", aspect=aspect, fit=fit, longest_side=longest, pixels=pixels)  # type: ignore[arg-type]
    across, down = shape(width, height, recipe)
    assert across >= 1 and down >= 1
    assert longest is None or max(across, down) <= longest
    assert pixels is None or across * down <= max(pixels, across, down)
    if fit == "crop" or aspect is None:
        assert across <= width and down <= height
