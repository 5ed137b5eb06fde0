"""What the catalog keeps of images made from others: inputs, models, rights, refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from catalog_samples import begin, produced_of, request_of, sha256

from catalog.assets import asset_finder
from catalog.audit import ask
from catalog.lake import Lake, reading, writing
from catalog.release import request_of as request_of_row
from catalog.review import record_review
from catalog.story import story
from catalog.write import commit_batch, record_refused, register_model, register_training_images
from pipeline.brief import Refused
from pipeline.errors import Fault, InputError
from pipeline.records import Asset, Produced, Review, Signed, UsedInput
from pipeline.request import Adapter, Control, Input, Region, Request
from pipeline.settings import Settings

PHOTO, MASK = sha256("photo"), sha256("mask")
SAYS = "training: XMP plus:DataMining = DMI-PROHIBITED"


def used(step: int, role: str, source: str, name: str, sha: str, **more: Any) -> UsedInput:
    return UsedInput(step, role, source, name, sha, "image/png", **more)


def inpainted(number: int) -> Produced:
    """A photo with a repainted background, by a model with a ControlNet, a LoRA and a segmenter."""
    one = produced_of(
        number,
        "pass",
        mode="inpainting",
        strength=1.0,
        inputs=(
            Input("image", "file", PHOTO, "photo.png"),
            Input("mask", "file", MASK, "Maske.png"),
        ),
        region=Region("background", (), "segmenter", "s1"),
        controls=(Control("hole", "c1", "hole"), Control("lines", "c2", "depth", 1, "dpt", "d1")),
        adapters=(Adapter("brand", "a1", 0.8),),
        prompt_writer="tiny-llm",
    )
    signed = {"c2pa_state": "Trusted", "c2pa_label": "urn:c2pa:camera", "restrictions": (SAYS,)}
    return replace(
        one,
        used=(
            used(0, "image", "file", "photo.png", PHOTO, **signed),
            used(0, "mask", "file", "Maske.png", MASK),
        ),
    )


def varied(number: int, of: Produced) -> Produced:
    """A variation of a catalogued image."""
    assert of.asset
    given = Input("image", "asset", of.asset.sha256, "MUG-0")
    one = produced_of(number, "pass", mode="variation", strength=0.5, inputs=(given,))
    source = of.request.request_id
    about = used(0, "image", "asset", "MUG-0", of.asset.sha256, source_request_id=source)
    return replace(one, used=(about,))


def chained(number: int) -> Produced:
    """Text-to-image with a LoRA, then depth-guided, then enlarged by another model."""
    first = request_of(number, adapters=(Adapter("word", "w1"),), terms={})
    step = Input("image", "step", first.request_id, "step 1")
    second = request_of(
        number,
        mode="controlnet",
        terms={},
        inputs=(replace(step, role="control"),),
        controls=(Control("depths", "c3", "depth", 1.0, "dpt", "d1"),),
    )
    last = Input("image", "step", second.request_id, "step 2")
    one = produced_of(
        number, "pass", mode="upscaling", model="large", model_revision="u1", inputs=(last,),
        earlier=(first, second),
    )  # fmt: skip
    made = [sha256(f"intermediate {number} {k}") for k in (1, 2)]
    return replace(
        one,
        used=(
            used(1, "control", "step", "step 1", made[0], source_request_id=first.request_id),
            used(2, "image", "step", "step 2", made[1], source_request_id=second.request_id),
        ),
    )


INPAINTED = inpainted(1)
VARIED = varied(2, INPAINTED)
CHAINED = chained(6)
PLAIN = produced_of(7, "pass")
TRAINED_ON = [
    {"file": "one.png", "sha256": sha256("one"), "title": "Mug", "rights_holder": "Studio",
     "licence": "own", "waiver": None},
    {"file": "two.png", "sha256": sha256("two"), "title": "Vase", "rights_holder": "Ada",
     "licence": "CC-BY-4.0", "waiver": {"owner": "Ada", "date": "2026-01-01"}},
]  # fmt: skip


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog of one image of each kind, in the workspace that settings name."""
    folder = tmp_path_factory.mktemp("made") / "workspace" / "catalog"
    with writing(folder) as lake:
        begin(lake)
        for name, revision in (("starter/text-to-image", "r1"), ("large", "u1")):
            register_model(lake, name=name, revision=revision, licence="MIT", source="hub")
        register_model(lake, name="brand", revision="a1", licence="CC-BY-4.0", source="folder")
        register_training_images(lake, "brand", "a1", TRAINED_ON)
        register_training_images(lake, "brand", "a1", TRAINED_ON)
        faults = (
            Fault("no such file", "items.csv, line 3, column image", "check the path"),
            Fault("strength is too low", "items.csv, line 3, column strength", "raise it"),
        )
        refused = [Refused("MUG-X", "items.csv, line 3", faults)]
        record_refused(lake, "run-1", refused)
        record_refused(lake, "run-1", [])
        commit_batch(lake, "run-1", "b1", [INPAINTED, VARIED, CHAINED, PLAIN])
    return folder


@pytest.fixture(scope="module")
def read(shelf: Path) -> Iterator[Lake]:
    with reading(shelf) as lake:
        yield lake


def test_every_input_is_a_row_with_its_credentials(read: Lake) -> None:
    rows = read.rows(
        "SELECT * EXCLUDE (request_id) FROM inputs WHERE request_id = ? ORDER BY role",
        [INPAINTED.request.request_id],
    )
    assert rows == [
        {"step": 0, "role": "image", "source": "file", "name": "photo.png", "sha256": PHOTO,
         "mime": "image/png", "source_request_id": None, "c2pa_state": "Trusted",
         "c2pa_label": "urn:c2pa:camera", "restrictions": [SAYS]},
        {"step": 0, "role": "mask", "source": "file", "name": "Maske.png", "sha256": MASK,
         "mime": "image/png", "source_request_id": None, "c2pa_state": "None",
         "c2pa_label": None, "restrictions": []},
    ]  # fmt: skip
    assert read.rows("SELECT count(*) AS n FROM inputs") == [{"n": 5}]


@pytest.mark.parametrize("made", [INPAINTED, VARIED, CHAINED, PLAIN], ids=lambda m: m.request.mode)
def test_requests_come_back_as_they_were(made: Produced, read: Lake) -> None:
    told = story(read, made.request.request_id)
    back = request_of_row(told["request"])
    assert back.request_id == made.request.request_id
    assert replace(back, terms={}) == replace(made.request, terms={})
    assert [each.request_id for each in back.chain] == [
        each.request_id for each in made.request.chain
    ]


MODEL = ("model", "starter/text-to-image", "r1")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (PLAIN, {MODEL}),
        (VARIED, {MODEL}),
        (INPAINTED, {MODEL, ("control", "hole", "c1"), ("control", "lines", "c2"),
                     ("adapter", "brand", "a1"), ("tool", "dpt", "d1"),
                     ("tool", "segmenter", "s1")}),
        (CHAINED, {("model", "large", "u1"), MODEL, ("adapter", "word", "w1"),
                   ("control", "depths", "c3"), ("tool", "dpt", "d1")}),
    ],
    ids=["plain", "variation", "inpainting", "chain"],
)  # fmt: skip
def test_every_model_with_a_part_in_the_pixels_is_listed(
    made: Produced, expected: set[tuple[str, str, str]], read: Lake
) -> None:
    number = made.request.seed
    model = ("model", request_of(number).model, "r1")
    rows = read.rows(
        "SELECT part, model, revision FROM models_used WHERE request_id = ?",
        [made.request.request_id],
    )
    found = [(row["part"], row["model"], row["revision"]) for row in rows]
    assert set(found) == {model if each == MODEL else each for each in expected}
    assert len(found) == len(set(found))


def test_training_pictures_stand_once_a_revision_with_their_rights(read: Lake) -> None:
    rows = read.rows(
        "SELECT file, sha256, title, rights_holder, licence, waiver FROM training_images "
        "WHERE adapter = 'brand' AND revision = 'a1' ORDER BY file"
    )
    assert [row["file"] for row in rows] == ["one.png", "two.png"]
    assert rows[0] == TRAINED_ON[0]
    assert json.loads(rows[1]["waiver"]) == TRAINED_ON[1]["waiver"]


def answers(folder: Path, name: str, **given: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(folder, name, given).table.to_pylist()
    return found


def test_made_from_lists_inputs_step_by_step(shelf: Path) -> None:
    found = answers(shelf, "made-from", asset=CHAINED.request.sku)
    assert [(row["step"], row["role"], row["name"]) for row in found] == [
        (1, "control", "step 1"),
        (2, "image", "step 2"),
    ]
    assert [row["source_request_id"] for row in found] == [
        each.request_id for each in CHAINED.request.earlier
    ]
    assert INPAINTED.asset
    by_hash = answers(shelf, "made-from", asset=INPAINTED.asset.sha256[:12])
    assert [(row["role"], row["c2pa_state"], row["restrictions"]) for row in by_hash] == [
        ("image", "Trusted", [SAYS]),
        ("mask", "None", []),
    ]
    assert answers(shelf, "made-from", asset=PLAIN.request.sku) == []


@pytest.mark.parametrize(
    ("picture", "made"),
    [
        (PHOTO, INPAINTED),
        (PHOTO.upper()[:12], INPAINTED),
        ("photo", INPAINTED),
        ("MASKE", INPAINTED),
        (INPAINTED.request.request_id[:10], VARIED),
        (INPAINTED.asset.sha256 if INPAINTED.asset else "", VARIED),
        (CHAINED.request.earlier[0].request_id, CHAINED),
    ],
)
def test_made_out_of_finds_all_that_a_picture_went_into(
    picture: str, made: Produced, shelf: Path
) -> None:
    found = answers(shelf, "made-out-of", picture=picture)
    assert {row["request_id"] for row in found} == {made.request.request_id}
    assert all(row["cleared"] for row in found)


def test_trained_on_leads_from_images_to_training_pictures(shelf: Path) -> None:
    found = answers(shelf, "trained-on")
    told = [(row["adapter"], row["sku"], row["file"], row["rights_holder"]) for row in found]
    assert told == [
        ("brand", INPAINTED.request.sku, "one.png", "Studio"),
        ("brand", INPAINTED.request.sku, "two.png", "Ada"),
        # Not trained here: nothing is known of its pictures, and that is seen.
        ("word", CHAINED.request.sku, None, None),
    ]
    assert len(answers(shelf, "trained-on", adapter="brand")) == 2
    assert answers(shelf, "trained-on", adapter="bran") == []


def test_refused_items_keep_every_fault(shelf: Path) -> None:
    found = answers(shelf, "refused-items")
    assert {(row["sku"], row["fault"], row["remedy"]) for row in found} == {
        ("MUG-X", "no such file", "check the path"),
        ("MUG-X", "strength is too low", "raise it"),
    }
    assert {row["brief"] for row in found} == {"spring.csv"}
    assert answers(shelf, "refused-items", days="-1") == []


def test_the_story_has_the_inputs(read: Lake) -> None:
    told = story(read, CHAINED.request.request_id)
    json.dumps(told)
    assert [(each["step"], each["name"]) for each in told["inputs"]] == [
        (1, "step 1"),
        (2, "step 2"),
    ]
    assert [step["mode"] for step in told["request"]["recipe"]["earlier"]] == [
        "text-to-image",
        "controlnet",
    ]
    assert story(read, PLAIN.request.request_id)["inputs"] == []


def test_a_failed_image_keeps_what_it_was_to_be_made_from(lake: Lake) -> None:
    failed = Produced(INPAINTED.request, used=INPAINTED.used, error="out of memory")
    commit_batch(lake, "run-1", "b1", [failed])
    (row,) = lake.rows("SELECT state, recipe FROM requests")
    assert row["state"] == "failed" and json.loads(row["recipe"])["strength"] == 1.0
    # Made later: the attempt that counts, with its own inputs, once.
    commit_batch(lake, "run-1", "b2", [INPAINTED])
    assert lake.rows("SELECT count(*) AS n FROM inputs") == [{"n": 2}]
    assert lake.rows("SELECT count(*) AS n FROM raw.inputs") == [{"n": 4}]


def test_a_batch_that_is_sent_again_adds_no_inputs(lake: Lake) -> None:
    assert commit_batch(lake, "run-1", "b1", [INPAINTED])
    assert not commit_batch(lake, "run-1", "b1", [INPAINTED])
    assert lake.rows("SELECT count(*) AS n FROM raw.inputs") == [{"n": 2}]


# Assets as inputs


@pytest.fixture
def desk(tmp_path: Path, empty_catalog: Path) -> Settings:
    settings = Settings(workspace=tmp_path / "workspace")
    shutil.copytree(empty_catalog, settings.catalog)
    with writing(settings.catalog) as lake:
        register_model(
            lake, name="starter/text-to-image", revision="r1", licence="MIT", source="hub"
        )
        outcomes = {1: "pass", 2: "review", 3: "block", 5: "review", 6: "review"}
        images = [produced_of(number, outcome) for number, outcome in outcomes.items()]
        commit_batch(lake, "run-1", "b1", images)
        decide(lake, images[3].request, "approve")
        decide(lake, images[4].request, "reject")
    return settings


def decide(lake: Lake, request: Request, decision: str) -> None:
    files: tuple[Any, ...] = ()
    if decision == "approve":
        asset = Asset("f" * 64, "signed", "assets/ff/f.png", "image/png", 8, 8, 9, "aa")
        files = (asset, Signed(b"store", "urn:c2pa:a", "CN=dev"))
    review = Review("ada", decision, "why", datetime.now(UTC))  # type: ignore[arg-type]
    record_review(lake, request.request_id, review, *files)


def test_only_cleared_images_are_inputs(desk: Settings) -> None:
    with asset_finder(desk) as find:
        assert find is not None
        passed = find("MUG-00001")
        assert (passed.request_id, passed.name) == (request_of(1).request_id, "MUG-00001-0")
        assert passed.licences == ("MIT",)
        assert passed.path == desk.assets / passed.sha256[:2] / f"{passed.sha256}.png"
        assert find(request_of(1).request_id[:8]) == passed == find(passed.sha256[:8])
        # The signed file, not the quarantined one that was approved.
        assert find("MUG-00005").sha256 == "f" * 64
        for name, verdict in {
            "MUG-00002": "review",
            "MUG-00003": "block",
            "MUG-00006": "review",
        }.items():
            with pytest.raises(InputError) as caught:
                find(name)
            (fault,) = caught.value.faults
            assert fault.what == f"it is not cleared (verdict {verdict})"
            assert "review approve" in fault.remedy
        with pytest.raises(InputError, match="no such image"):
            find("MUG-99999")
        with pytest.raises(InputError, match="no such image"):
            find("' OR 1=1 --")


def test_licences_flow_down_from_what_an_asset_was_made_from(shelf: Path) -> None:
    with asset_finder(Settings(workspace=shelf.parent)) as find:
        assert find is not None
        # The variation itself was made by an MIT model; its input had an adapter with terms, and
        # parts of which no licence is known, which no policy lists.
        assert find(VARIED.request.sku).licences == ("", "CC-BY-4.0", "MIT")
        assert find(PLAIN.request.sku).licences == ("MIT",)


def test_without_a_catalog_there_is_nothing_to_find(tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path / "none")
    with asset_finder(settings) as find:
        assert find is None
    assert not settings.catalog.exists()


def test_used_inputs_are_what_the_schema_holds() -> None:
    # A field of UsedInput that no column keeps would be lost without a word.
    from catalog.rows import _schemas

    kept = set(_schemas()["inputs"].names) - {"request_id", "attempt"}
    assert set(asdict(used(0, "image", "file", "a", PHOTO))) - kept == {"source_types"}
