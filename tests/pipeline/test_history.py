"""What signed files of every mode say of how they came to be, read back by verify and the SDK."""

from __future__ import annotations

import io
import json
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from c2pa import Context, Reader
from c2pa import Settings as SdkSettings
from histories import (
    COMPOSITE,
    HISTORIES,
    MARKED,
    REGION,
    TRAINED,
    History,
    Studio,
    request,
    tampered,
)
from jsonschema import Draft202012Validator
from test_restrictions import signed as signed_by_camera

from pipeline.encode import lossless_png
from pipeline.images import decode_limited
from pipeline.ingredients import made_from
from pipeline.inputs import InputStore
from pipeline.keys import Identity
from pipeline.policy import load_policy
from pipeline.request import Request
from pipeline.settings import ROOT, Settings
from pipeline.sign import SignError, reader_settings, sign
from pipeline.store import sha256_of
from pipeline.verify import Report

SCHEMA = json.loads(
    (ROOT / "pipeline" / "assertions" / "org.platemark.generation.schema.json").read_text()
)
BOX = ("x", "y", "width", "height")
SIDES = ("left", "top", "right", "bottom")
EVERY = pytest.mark.parametrize("name", HISTORIES)


class Shelf:
    """Every history's image, made and signed once."""

    def __init__(self, studio: Studio):
        self.studio = studio
        self.of = cache(self._of)

    def _of(self, name: str) -> tuple[Request, Report, dict[str, Any], dict[str, Any]]:
        """Request, report, the whole manifest store and its active manifest."""
        made = HISTORIES[name].build(self.studio)
        data, mime = self.studio.sealed(made)
        settings = SdkSettings.from_dict(reader_settings(self.studio.identity.anchors))
        with Reader(mime, io.BytesIO(data), context=Context(settings)) as reader:
            store = json.loads(reader.json())
        return made, self.studio.report(data), store, store["manifests"][store["active_manifest"]]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, identity: Identity) -> Studio:
    settings = Settings(workspace=tmp_path_factory.mktemp("studio"))
    return Studio(settings, identity, load_policy("starter"))


@pytest.fixture(scope="module")
def shelf(studio: Studio) -> Shelf:
    return Shelf(studio)


def assertion(manifest: dict[str, Any], label: str) -> dict[str, Any]:
    (found,) = [each for each in manifest["assertions"] if each["label"] == label]
    return dict(found["data"])


def actions(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    data = assertion(manifest, "c2pa.actions.v2")
    assert data["allActionsIncluded"] is True
    return list(data["actions"])


@EVERY
def test_every_mode_tells_its_actions_and_ingredients(name: str, shelf: Shelf) -> None:
    expected: History = HISTORIES[name]
    _, report, _, manifest = shelf.of(name)
    assert (report.state, report.ok) == ("Trusted", True)
    told = actions(manifest)
    assert tuple((a["action"], a.get("digitalSourceType")) for a in told) == (
        *expected.actions, MARKED,
    )  # fmt: skip
    found = [(i["relationship"], i["title"]) for i in manifest.get("ingredients", [])]
    assert tuple(found) == expected.ingredients
    # `verify` says the same.
    assert report.actions == tuple(action for action, _ in (*expected.actions, MARKED))
    assert report.source_types == (expected.source_type,)
    assert [(i["relationship"], i["title"]) for i in report.ingredients] == found


@EVERY
def test_actions_name_ingredients_that_are_there_or_none(name: str, shelf: Shelf) -> None:
    _, _, _, manifest = shelf.of(name)
    there = {each["label"] for each in manifest.get("ingredients", [])}
    named: list[str] = []
    for action in actions(manifest):
        if action["action"] == "c2pa.opened":
            assert "digitalSourceType" not in action
            assert len(action["parameters"]["ingredients"]) == 1
        if "parameters" in action:
            uris = [each["url"] for each in action["parameters"]["ingredients"]]
            assert uris
            named += [uri.rsplit("/", 1)[-1] for uri in uris]
    # Each picture was used by some action, and by no action twice over.
    assert set(named) == there
    assert len(named) == len(there)


@EVERY
def test_pictures_are_bound_by_hash_or_by_their_own_manifest(name: str, shelf: Shelf) -> None:
    request_, _, store, manifest = shelf.of(name)
    studio = shelf.studio
    found = {each["title"]: each for each in manifest.get("ingredients", [])}
    pictures = {each.name: each for each in studio.pictures.values()}
    for title, each in found.items():
        if title in HISTORIES[name].signed:
            label = pictures[title].credentials.manifest
            assert each["active_manifest"] == label
            # Theirs goes in whole, with all that it descends from.
            assert label in store["manifests"]
            assert not str(each.get("instance_id", "")).startswith("sha256:")
        elif title in pictures:
            assert each["instance_id"] == f"sha256:{pictures[title].sha256}"
            assert "active_manifest" not in each
        else:
            kept = InputStore(studio.settings)
            hashes = {f"sha256:{kept.step(step.request_id)}" for step in request_.earlier}
            assert each["instance_id"] in hashes
    if not HISTORIES[name].signed:
        assert len(store["manifests"]) == 1


@EVERY
def test_labels_say_what_the_manifest_says(name: str, shelf: Shelf) -> None:
    _, report, _, manifest = shelf.of(name)
    field = "Iptc4xmpExt:DigitalSourceType"
    assert report.labels[field] == HISTORIES[name].source_type
    assert assertion(manifest, "cawg.metadata")[field] == HISTORIES[name].source_type


@EVERY
def test_the_generation_assertion_holds_to_its_schema(name: str, shelf: Shelf) -> None:
    made, report, _, _ = shelf.of(name)
    told = json.loads(json.dumps(report.generation))
    Draft202012Validator(SCHEMA).validate(told)
    assert told["request_id"] == made.request_id
    steps = [*told.get("earlier", []), told]
    assert [each["request_id"] for each in steps] == [each.request_id for each in made.chain]
    for step, said in zip(made.chain, steps, strict=True):
        assert [i["role"] for i in said.get("inputs", [])] == [i.role for i in step.inputs]
        assert said.get("strength") == step.strength
        assert [c["model"] for c in said.get("controls", [])] == [c.model for c in step.controls]
        assert [a["weight"] for a in said.get("adapters", [])] == [a.weight for a in step.adapters]
        assert said.get("region", {}).get("kind") == (step.region and step.region.kind)
        repainted = dict(zip(BOX, REGION.box, strict=True)) if step.region else None
        assert said.get("repainted") == repainted
        if step.region and step.region.box:
            names = SIDES if step.region.kind == "border" else BOX
            assert said["region"]["box"] == dict(zip(names, step.region.box, strict=True))
        assert "prompt" not in said and "prompt_sha256" in said


@EVERY
def test_repainted_regions_are_changes_of_their_edit(name: str, shelf: Shelf) -> None:
    made, _, _, manifest = shelf.of(name)
    told = [each for each in actions(manifest) if "changes" in each]
    assert len(told) == sum(step.region is not None for step in made.chain)
    for action in told:
        assert action["action"] == "c2pa.edited"
        ((region,),) = [change["region"] for change in action["changes"]]
        shape = region["shape"]
        assert (region["type"], shape["type"], shape["unit"]) == ("spatial", "rectangle", "pixel")
        found = (shape["origin"]["x"], shape["origin"]["y"], shape["width"], shape["height"])
        assert found == REGION.box


def test_own_images_are_named_by_the_request_that_made_them(shelf: Shelf) -> None:
    _, report, _, _ = shelf.of("variation")
    assert report.generation
    (given,) = report.generation["inputs"]
    assert (given["source"], given["request_id"]) == ("asset", request().request_id)
    assert given["sha256"] == sha256_of((shelf.studio.folder / "own.png").read_bytes())


def test_a_composite_stays_one_through_generations(shelf: Shelf) -> None:
    _, report, store, _ = shelf.of("variation of a composite")
    assert report.source_types == (COMPOSITE,)
    assert len(store["manifests"]) == 2


def test_prompts_by_a_language_model_are_labelled_so(shelf: Shelf) -> None:
    field = "Iptc4xmpExt:AIPromptWriterName"
    _, by_model, _, _ = shelf.of("adapters")
    _, by_hand, _, _ = shelf.of("text-to-image")
    assert by_model.labels[field] == "tiny-llm (AI)"
    assert by_hand.labels[field] == "Studio & Söhne <1>"
    assert by_model.generation and by_model.generation["prompt_writer"] == "tiny-llm"
    assert by_hand.generation and "prompt_writer" not in by_hand.generation
    assert "look" in str(by_model.labels["Iptc4xmpExt:AISystemUsed"])


def test_plain_images_are_told_as_they_were_before_there_were_other_modes(shelf: Shelf) -> None:
    _, report, store, manifest = shelf.of("text-to-image")
    action, mark = actions(manifest)
    assert mark["action"] == MARKED[0]
    assert set(action) == {"action", "digitalSourceType", "when", "softwareAgent"}
    assert report.generation and not {"inputs", "strength", "earlier"} & set(report.generation)
    assert len(store["manifests"]) == 1 and not manifest.get("ingredients")


@pytest.mark.parametrize("damage", ["pixels", "manifest", "remote"])
def test_a_picture_whose_manifest_does_not_hold_still_goes_in(damage: str, studio: Studio) -> None:
    # Where the policy ignores or a person approves that, its image must still be signed.
    whole = studio.photo_with_credentials("camera.png")
    data = bytearray((studio.folder / whole.name).read_bytes())
    if damage == "pixels":
        data = bytearray(tampered(bytes(data)))
    elif damage == "manifest":
        start = data.index(b"caBX")
        data[start + 60 : start + 90] = bytes(30)
        length = int.from_bytes(data[start - 4 : start], "big")
        check = zlib.crc32(data[start : start + 4 + length])
        data[start + 4 + length : start + 8 + length] = check.to_bytes(4, "big")
        decode_limited(bytes(data))
    else:
        data = bytearray(_remote(lossless_png(studio.pixels(9)), studio))
    given = studio.file(f"{damage}.png", "image", bytes(data))
    credentials = studio.pictures[given.sha256].credentials
    assert credentials.state in ("Invalid", "None") and credentials.forbids("editing")
    edit = request(mode="image-to-image", strength=0.3, inputs=(given,))
    report = studio.report(studio.sealed(edit)[0])
    assert report.state == "Trusted"
    assert report.source_types == (COMPOSITE,)
    assert [each["title"] for each in report.ingredients] == [f"{damage}.png"]


def _remote(png: bytes, studio: Studio) -> bytes:
    return bytes(signed_by_camera(studio.identity, png, remote=True))


def test_a_lost_region_or_input_is_never_made_up(studio: Studio, tmp_path: Path) -> None:
    made = HISTORIES["inpainting of a photo"].build(studio)
    found = studio.made(made)
    assert set(found.regions) == {made.request_id}
    assert [each.step for each in found.used] == [0, 0]
    assert made_from(replace(made, seed=1), InputStore(studio.settings)).regions == {}


def test_an_ingredient_that_the_sdk_refuses_is_an_error_of_this_image(studio: Studio) -> None:
    made = HISTORIES["image-to-image, weak"].build(studio)
    (ingredient,) = studio.made(made).ingredients
    png = lossless_png(studio.pixels(1))
    broken = replace(ingredient, mime="image/nonsense")
    manifest = {"claim_generator_info": [{"name": "x", "version": "1"}], "assertions": []}
    with pytest.raises(SignError):
        sign(png, "image/png", manifest, studio.identity, [broken])


def test_trained_is_the_word_for_all_that_a_model_made() -> None:
    assert TRAINED.endswith("/trainedAlgorithmicMedia")
    assert COMPOSITE.endswith("/compositeWithTrainedAlgorithmicMedia")
