"""Input pictures: kept, read back, trusted or refused; and whether edits kept what they should."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from histories import tampered
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from pipeline.checks.inputs import IDENTICAL_DB, input_scores, preserved_db
from pipeline.encode import lossless_png
from pipeline.errors import Fault, InputError, SetupError
from pipeline.generate import Kept
from pipeline.images import RgbImage
from pipeline.ingredients import Made, made_from
from pipeline.inputs import (
    CatalogAsset,
    InputStore,
    Picture,
    RepaintedRegion,
    open_asset,
    open_picture,
)
from pipeline.keys import Identity
from pipeline.plan import Plan, make_plan
from pipeline.policy_model import Policy
from pipeline.records import Score, UsedInput
from pipeline.request import Input, Region, Request
from pipeline.settings import Settings
from pipeline.sign import sign
from pipeline.store import sha256_of
from pipeline.verdict import decide, picture_refusals

RequestOf = Callable[..., Request]
CAPTURE = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
NO_EDITING = {"cawg.ai_inference": {"use": "notAllowed"}}
WHERE = "brief.yaml, item 1, column image"


def signed(png: bytes, identity: Identity, entries: dict[str, Any] | None = None) -> bytes:
    """A camera's picture: signed, and with a say on its use."""
    created = {"action": "c2pa.created", "digitalSourceType": CAPTURE}
    actions = {"label": "c2pa.actions.v2", "created": True, "data": {"actions": [created]}}
    assertions: list[dict[str, Any]] = [actions]
    if entries:
        assertions.append({"label": "cawg.training-mining", "data": {"entries": entries}})
    generator = [{"name": "Camera", "version": "3"}]
    manifest = {"claim_generator_info": generator, "title": "photo", "assertions": assertions}
    return sign(png, "image/png", manifest, identity)[0]


def licensed(pixels: RgbImage) -> bytes:
    """A PNG whose XMP names a licence without derivatives."""
    licence = "https://creativecommons.org/licenses/by-nd/4.0/"
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:xmpRights="http://ns.adobe.com/xap/1.0/rights/">'
        f"<xmpRights:WebStatement>{licence}</xmpRights:WebStatement>"
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", packet)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", pnginfo=info)
    return out.getvalue()


@pytest.fixture
def desk(tmp_path: Path) -> Settings:
    return Settings(workspace=tmp_path / "workspace")


@pytest.fixture
def photo(tmp_path: Path, picture: RgbImage) -> Picture:
    (tmp_path / "photo.png").write_bytes(lossless_png(picture))
    return opened(tmp_path, "photo.png")


def opened(folder: Path, name: str, anchors: bytes = b"") -> Picture:
    faults: list[Fault] = []
    found = open_picture(folder, name, WHERE, anchors, faults)
    assert found is not None and faults == []
    return found


def of(picture: Picture, role: str = "image") -> Input:
    return Input(role, "file", picture.sha256, picture.name)  # type: ignore[arg-type]


# The store


def test_pictures_are_kept_under_their_hash_and_read_back(
    desk: Settings, photo: Picture, request_of: RequestOf, picture: RgbImage
) -> None:
    store = InputStore(desk, {photo.sha256: photo})
    store.keep(request_of(inputs=(of(photo),)))
    photo.path.unlink()  # the brief's folder may go
    later = InputStore(desk)
    data, mime = later.read(photo.sha256)
    assert (sha256_of(data), mime) == (photo.sha256, "image/png")
    assert np.array_equal(later.pixels(photo.sha256), picture)
    assert later.facts(photo.sha256)["name"] == "photo.png"
    assert later.path(photo.sha256, mime).is_relative_to(desk.inputs)


def test_inputs_of_earlier_steps_are_kept_too(
    desk: Settings, photo: Picture, request_of: RequestOf
) -> None:
    first = request_of(inputs=(of(photo),))
    step = Input("image", "step", first.request_id, "step 1")
    last = request_of(inputs=(step,), earlier=(first,))
    InputStore(desk, {photo.sha256: photo}).keep(last)
    assert InputStore(desk).read(photo.sha256)


def test_a_kept_picture_that_was_changed_is_not_used(
    desk: Settings, photo: Picture, request_of: RequestOf
) -> None:
    store = InputStore(desk, {photo.sha256: photo})
    store.keep(request_of(inputs=(of(photo),)))
    path = store.path(photo.sha256, "image/png")
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(SetupError, match="was changed"):
        store.read(photo.sha256)
    path.unlink()
    with pytest.raises(SetupError, match="is not in"):
        store.read(photo.sha256)
    with pytest.raises(SetupError, match="run the brief again"):
        store.facts("0" * 64)


@pytest.mark.parametrize("change", ["edit", "delete", "empty"])
def test_a_picture_that_changed_after_planning_stops_the_run(
    change: str, desk: Settings, photo: Picture, request_of: RequestOf
) -> None:
    if change == "delete":
        photo.path.unlink()
    else:
        photo.path.write_bytes(b"" if change == "empty" else photo.path.read_bytes() + b"x")
    with pytest.raises(SetupError, match=r"photo\.png.*run again"):
        InputStore(desk, {photo.sha256: photo}).keep(request_of(inputs=(of(photo),)))
    assert not list(desk.inputs.rglob("*.part"))


def test_steps_are_found_by_request_and_made_again_when_their_file_is_gone(
    desk: Settings, picture: RgbImage
) -> None:
    store, png = InputStore(desk), lossless_png(picture)
    assert store.step("1" * 64) is None and not store.has_step("1" * 64)
    sha256 = store.keep_step("1" * 64, png)
    assert store.keep_step("1" * 64, png) == sha256 == InputStore(desk).step("1" * 64)
    assert store.has_step("1" * 64) and np.array_equal(store.pixels(sha256), picture)
    store.path(sha256, "image/png").unlink()
    assert not store.has_step("1" * 64)


def test_regions_are_remembered_by_request(desk: Settings) -> None:
    store = InputStore(desk)
    assert store.region("1" * 64) is None
    store.keep_region("1" * 64, RepaintedRegion((8, 8, 16, 24), 71.25))
    assert InputStore(desk).region("1" * 64) == RepaintedRegion((8, 8, 16, 24), 71.25)


def test_a_lost_intermediate_is_told_not_made_up(desk: Settings, request_of: RequestOf) -> None:
    first = request_of()
    last = request_of(
        mode="upscaling", earlier=(first,),
        inputs=(Input("image", "step", first.request_id, "step 1"),),
    )  # fmt: skip
    with pytest.raises(SetupError, match="is not in"):
        made_from(last, InputStore(desk))


# Looking at files


def refused(folder: Path, name: str) -> Fault:
    faults: list[Fault] = []
    assert open_picture(folder, name, WHERE, b"", faults) is None
    (fault,) = faults
    assert fault.where == WHERE and fault.remedy
    return fault


def test_files_that_are_no_pictures_beside_the_brief_are_faults(
    tmp_path: Path, picture: RgbImage
) -> None:
    folder = tmp_path / "brief"
    (folder / "sub").mkdir(parents=True)
    png = lossless_png(picture)
    (tmp_path / "secret.png").write_bytes(png)
    (folder / "text.png").write_text("no picture")
    (folder / "half.png").write_bytes(png[: len(png) // 2])
    (folder / "empty.png").touch()
    (folder / "large.png").write_bytes(b"\x89PNG" + bytes(64 * 1024 * 1024))
    (folder / "out.png").symlink_to("../secret.png")
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "dangling.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "pipe.png")
    animation = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    animation[0].save(folder / "moving.webp", save_all=True, append_images=animation[1:])
    for name, what in {
        "absent.png": "No such file",
        "dangling.png": "No such file",
        "text.png": "not a PNG, JPEG or WebP",
        "empty.png": "not a PNG, JPEG or WebP",
        "half.png": "broken",
        "large.png": "bytes are more than",
        "moving.webp": "an animation",
        "sub": "not a regular file",
        "pipe.png": "not a regular file",
        "circle.png": "ymlink loop",
        "out.png": "leaves the folder",
        "../secret.png": "leaves the folder",
        "sub/../../secret.png": "leaves the folder",
        str(tmp_path / "secret.png"): "leaves the folder",
        "a\0b.png": "null byte",
        "x" * 300: "too long",
    }.items():
        assert what in refused(folder, name).what, name


def test_links_and_detours_within_the_folder_are_fine(tmp_path: Path, picture: RgbImage) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "photo.png").write_bytes(lossless_png(picture))
    (tmp_path / "link.png").symlink_to("photo.png")
    assert opened(tmp_path, "link.png").sha256 == opened(tmp_path, "sub/../photo.png").sha256


def test_a_picture_is_seen_upright_and_by_its_bytes(tmp_path: Path, picture: RgbImage) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(picture).save(tmp_path / "turned.png", "JPEG", exif=exif)
    found = opened(tmp_path, "turned.png")
    assert (found.width, found.height, found.mime) == (64, 96, "image/jpeg")


def test_a_file_that_is_replaced_is_looked_at_again(tmp_path: Path, picture: RgbImage) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(lossless_png(picture))
    first = opened(tmp_path, "photo.png")
    path.write_bytes(lossless_png(picture[:32]))
    assert opened(tmp_path, "photo.png").height == 32 != first.height


def test_an_asset_must_be_the_file_that_was_signed(photo: Picture) -> None:
    def found(sha256: str, path: Path) -> tuple[Picture | None, list[Fault]]:
        faults: list[Fault] = []
        asset = CatalogAsset("1" * 64, sha256, path, "MUG-0", ("MIT",))
        return open_asset("MUG", lambda name: asset, WHERE, b"", faults), faults

    picture, faults = found(photo.sha256, photo.path)
    assert picture and picture.asset and faults == []
    assert picture.as_json()["asset_request_id"] == "1" * 64
    picture, faults = found("0" * 64, photo.path)
    assert picture is None and "is not the file that was signed" in faults[0].what
    picture, faults = found(photo.sha256, photo.path.with_name("gone.png"))
    assert picture is None and faults[0].remedy == "restore the file"


# Credentials, and what the policy makes of them


def test_credentials_of_a_signed_input_are_seen_and_kept(
    tmp_path: Path, desk: Settings, identity: Identity, picture: RgbImage, request_of: RequestOf
) -> None:
    (tmp_path / "photo.png").write_bytes(signed(lossless_png(picture), identity, NO_EDITING))
    found = opened(tmp_path, "photo.png", identity.anchors)
    assert found.credentials.state == "Trusted"
    assert found.credentials.source_types == (CAPTURE,)
    assert found.credentials.forbids("editing") and not found.credentials.forbids("training")
    request = request_of(mode="image-to-image", strength=0.4, inputs=(of(found),))
    store = InputStore(desk, {found.sha256: found})
    store.keep(request)
    (used,) = made_from(request, InputStore(desk)).used
    assert (used.c2pa_state, used.c2pa_label) == ("Trusted", found.credentials.manifest)
    assert used.source_types == (CAPTURE,)
    (says,) = used.restrictions
    assert says.startswith("editing: C2PA cawg.training-mining says ai_inference notAllowed")


RESTRICTED = ["signed.png", "licence.png", "tampered.png"]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, identity: Identity) -> Path:
    """A brief's folder with a free photo and three that speak against such use."""
    folder = tmp_path_factory.mktemp("studio")
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    png = lossless_png(pixels)
    (folder / "free.png").write_bytes(png)
    (folder / "trained.png").write_bytes(
        signed(png, identity, {"cawg.ai_training": {"use": "notAllowed"}})
    )
    (folder / "signed.png").write_bytes(signed(png, identity, NO_EDITING))
    (folder / "licence.png").write_bytes(licensed(pixels))
    (folder / "tampered.png").write_bytes(tampered(signed(png, identity)))
    (folder / "models.yaml").write_text(
        "models:\n  paint:\n    kind: text-to-image\n    hub: org/paint\n"
        f"    revision: '{'a' * 40}'\n    licence: Apache-2.0\n    width: 64\n    height: 64\n"
    )
    return folder


def plan(studio: Path, workspace: Settings, restricted: str | None, *images: str) -> Plan:
    items = [{"sku": f"S{n}", "prompt": "a mug", "image": name} for n, name in enumerate(images, 1)]
    brief = {"model": "paint", "mode": "image-to-image", "items": items}
    (studio / "brief.yaml").write_text(yaml.safe_dump(brief))
    said = f"inputs: {{restricted: {restricted}}}\n" if restricted else ""
    (studio / "policy.yaml").write_text(
        "policy: p\nversion: '1'\nchecks: {}\nlicences: [Apache-2.0]\nrules: []\n" + said
    )
    settings = workspace.model_copy(update={"models": studio / "models.yaml"})
    return make_plan(settings, studio / "brief.yaml", studio / "policy.yaml")


def judged(plan: Plan, settings: Settings) -> tuple[Any, Score]:
    """The verdict on the plan's one image, and the score of its inputs."""
    (request,) = plan.requests
    store = InputStore(settings, plan.pictures)
    store.keep(request)
    (score,) = input_scores(request, made_from(request, store))
    return decide(plan.policy, request, "Apache-2.0", [score]), score


def test_restricted_inputs_are_refused_by_default_before_any_work(
    studio: Path, workspace: Settings
) -> None:
    with pytest.raises(InputError) as caught:
        plan(studio, workspace, None, "free.png", *RESTRICTED)
    told = {fault.where: fault for fault in caught.value.faults}
    assert set(told) == {f"brief.yaml, item {n}, column image" for n in (2, 3, 4)}
    for fault, name, words in zip(
        told.values(), RESTRICTED, ("ai_inference notAllowed", "by-nd", "does not hold"),
        strict=True,
    ):  # fmt: skip
        assert fault.what.startswith(f"{name}: ") and words in fault.what
        assert "inputs.restricted" in fault.remedy
    # A word against training is none against editing.
    assert len(plan(studio, workspace, "refuse", "free.png", "trained.png").requests) == 2


@pytest.mark.parametrize(("restricted", "outcome"), [("review", "review"), ("ignore", "pass")])
@pytest.mark.parametrize("name", RESTRICTED)
def test_restricted_inputs_are_reviewed_or_ignored_as_the_policy_says(
    name: str, restricted: str, outcome: str, studio: Path, workspace: Settings, desk: Settings
) -> None:
    verdict, score = judged(plan(studio, workspace, restricted, name), desk)
    assert score.value == 1.0 and name in score.evidence["says"]
    assert verdict.outcome == outcome
    if outcome == "review":
        (reason,) = verdict.reasons
        assert reason.rule == "inputs.restricted" and name in reason.text
        assert json.loads(json.dumps(reason.evidence))["restrictions"][0]["file"] == name


def test_assets_bring_their_licences_with_them(photo: Picture, policy_of: Any) -> None:
    def against(*licences: str) -> list[str]:
        asset = CatalogAsset("1" * 64, photo.sha256, photo.path, "MUG-0", licences)
        return picture_refusals(policy_of(), replace(photo, asset=asset))

    assert against("Apache-2.0") == []
    assert len(against("Apache-2.0", "NC-Only")) == 1
    # Of a model that nobody registered no licence is known: that is none.
    assert len(against("")) == 1


def test_a_free_input_passes_and_says_so(studio: Path, workspace: Settings, desk: Settings) -> None:
    verdict, score = judged(plan(studio, workspace, None, "free.png"), desk)
    assert (verdict.outcome, score.value) == ("pass", 0.0)


# What an edit must leave alone

CENTRE = np.zeros((64, 96), np.float32)
CENTRE[16:48, 32:64] = 1


def test_equal_pixels_are_a_hundred_decibels(picture: RgbImage) -> None:
    kept = Kept(picture, CENTRE)
    assert preserved_db(picture, kept) == IDENTICAL_DB
    inside = picture.copy()
    inside[20:40, 40:60] = 255 - inside[20:40, 40:60]
    assert preserved_db(inside, kept) == IDENTICAL_DB
    # Where everything may change, nothing can be lost; where the mask is no number, all counts.
    assert preserved_db(255 - picture, Kept(picture, np.ones_like(CENTRE))) == IDENTICAL_DB
    assert preserved_db(255 - picture, Kept(picture, np.full_like(CENTRE, np.nan))) < 40


@given_settings(max_examples=30)
@given(st.integers(1, 100), st.integers(1, 100))
def test_more_change_outside_is_fewer_decibels(first: int, second: int) -> None:
    grey = np.full((64, 96, 3), 100, np.uint8)
    kept = Kept(grey, CENTRE)
    low, high = sorted((first, second))
    found = [preserved_db(grey + np.uint8(change), kept) for change in (low, high)]
    assert found[0] >= found[1] and (low == high or found[0] > found[1])
    assert found[0] == pytest.approx(20 * math.log10(255 / low))


def test_one_changed_pixel_is_seen(picture: RgbImage) -> None:
    changed = picture.copy()
    changed[0, 0] ^= 255
    assert preserved_db(changed, Kept(picture, CENTRE)) < IDENTICAL_DB


@pytest.fixture
def edit(request_of: RequestOf) -> Request:
    return request_of(mode="inpainting", region=Region("box", (32, 16, 32, 32)), strength=1.0)


def preserved(request: Request, *found: float) -> Score:
    """The score of a chain of edits, in which step k kept its input as `found[k]` says."""
    regions = {
        step.request_id: RepaintedRegion((32, 16, 32, 32), value)
        for step, value in zip(request.chain, found, strict=False)
    }
    (score,) = input_scores(request, Made(regions=regions))
    return score


@pytest.mark.parametrize(
    ("found", "bound", "outcome"),
    [
        (100.0, 40, "pass"),
        (40.0, 40, "pass"),
        (39.99, 40, "block"),
        (0.0, 40, "block"),
        (-5.0, 40, "block"),
        (45.0, 50, "block"),
        (math.nan, 40, "block"),
        (math.nan, 0, "block"),
    ],
)
def test_an_edit_that_changed_the_rest_is_blocked(
    found: float, bound: float, outcome: str, edit: Request, policy_of: Callable[..., Policy]
) -> None:
    policy = policy_of(inputs={"preserved_db": bound})
    verdict = decide(policy, edit, "Apache-2.0", [preserved(edit, found)])
    assert verdict.outcome == outcome
    if outcome == "block":
        (reason,) = verdict.reasons
        assert reason.rule == "inputs.preserved" and "has changed" in reason.text
        json.dumps(reason.score, allow_nan=False)


@pytest.mark.parametrize(
    "found",
    [(100.0, 30.0), (30.0, 100.0), (100.0, math.nan), (math.nan, 100.0), (100.0,), ()],
    ids=str,
)
def test_the_worst_step_counts_and_one_that_was_not_measured_blocks(
    found: tuple[float, ...], edit: Request, policy_of: Callable[..., Policy]
) -> None:
    last = replace(edit, seed=1, earlier=(edit,))
    score = preserved(last, *found)
    assert not score.value >= 40
    assert decide(policy_of(), last, "Apache-2.0", [score]).outcome == "block"


def test_images_from_words_alone_have_no_such_scores(request_of: RequestOf) -> None:
    assert input_scores(request_of(), Made()) == ()
    step = UsedInput(0, "image", "step", "step 1", "a" * 64, "image/png")
    assert input_scores(request_of(mode="upscaling"), Made(used=(step,))) == ()


def test_scores_of_inputs_that_are_no_number_block_or_wait(
    request_of: RequestOf, policy_of: Callable[..., Policy]
) -> None:
    score = Score("inputs", "restricted", math.nan)
    for restricted, outcome in (("refuse", "block"), ("review", "review"), ("ignore", "pass")):
        policy = policy_of(inputs={"restricted": restricted})
        assert decide(policy, request_of(), "Apache-2.0", [score]).outcome == outcome


@pytest.fixture
def policy_of() -> Callable[..., Policy]:
    def make(**changes: Any) -> Policy:
        fields: dict[str, Any] = {
            "policy": "p", "version": "1", "checks": {}, "rules": [], "licences": ["Apache-2.0"],
        }  # fmt: skip
        return Policy.model_validate(fields | changes)

    return make


def test_where_no_object_was_found_nothing_is_known_to_be_kept() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    whole = np.ones((8, 8), np.float32)
    assert preserved_db(picture, Kept(picture, whole)) == 100
    assert preserved_db(picture, Kept(picture, whole, nothing_found=True)) == 0
