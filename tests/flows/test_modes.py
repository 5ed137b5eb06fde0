"""Every mode by every family through a run: made, signed, catalogued, resumed, never twice."""

from __future__ import annotations

import io
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from warm_platemark import Warm

from catalog.assets import asset_finder
from catalog.lake import reading
from catalog.release import approve
from flows.production import open_production
from pipeline.errors import InputError, SetupError
from pipeline.generate.engine import Diffusers
from pipeline.keys import trust_anchors
from pipeline.plan import Batch, make_plan
from pipeline.settings import Settings
from pipeline.store import path_of
from pipeline.verify import verify_file

Item = dict[str, Any]
FAMILIES = ("sd1", "sd2", "sdxl", "sd3", "flux", "schnell")


@pytest.fixture
def settings(shop: Path, small_models: Path) -> Settings:
    """A workspace beside pictures that items use: two photos, a mask, control pictures."""
    rng = np.random.default_rng(3)
    for name in ("photo", "second", "control", "depth"):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        coarse.resize((80, 64), Image.Resampling.BICUBIC).save(shop / f"{name}.png")
    Image.open(shop / "photo.png").resize((16, 16)).save(shop / "small.png")
    mask = np.zeros((64, 80), np.uint8)
    mask[16:48, 16:64] = 255
    Image.fromarray(mask).save(shop / "mask.png")
    return Settings(workspace=shop / "ws", models=small_models, batch_size=2, device="cpu")


def write_brief(shop: Path, items: list[Item], **common: Any) -> Path:
    path = shop / "modes.yaml"
    terms = {"id": "t1", "licensor": "Acme", "expires": "2099-12-31", "channels": ["web"]}
    path.write_text(yaml.safe_dump({"terms": terms, "items": items, **common}))
    return path


def run(
    settings: Settings, brief: Path, policy: str = "plain.yaml", stop: int | None = None
) -> dict[str, Any]:
    """What the produce flow does, without Prefect; `stop` breaks off after so many batches."""
    with asset_finder(settings) as find_asset:
        plan = make_plan(settings, brief, policy, None, find_asset)
    with open_production(settings, plan) as production:
        for number in range(len(production.batches)):
            if number == stop:
                raise KeyboardInterrupt
            images: Any
            try:
                images = production.generate(number)
            except SetupError:
                raise
            except Exception as error:
                images = error
            production.seal(number, images)
        return production.summary()


def rows(settings: Settings, sql: str) -> list[dict[str, Any]]:
    with reading(settings.catalog) as lake:
        return lake.rows(sql)


def pixels(settings: Settings) -> dict[str, str]:
    found = rows(settings, "SELECT sku, \"index\", pixels_sha256 FROM images WHERE state = 'done'")
    return {f"{row['sku']}-{row['index']}": row["pixels_sha256"] for row in found}


def assert_whole(settings: Settings, images: int) -> None:
    """Nothing missing, nothing twice, every file Trusted."""
    made = rows(settings, "SELECT request_id, state, url, sha256 FROM images")
    assert len(made) == images
    assert len({row["request_id"] for row in made}) == images
    assert {row["state"] for row in made} == {"done"}
    stored = {path.stem for path in settings.assets.rglob("*") if path.is_file()}
    assert stored == {row["sha256"] for row in made}
    anchors = trust_anchors(settings)
    for row in made:
        report = verify_file(path_of(settings, row["url"]), anchors)
        assert (report.state, report.decodes) == ("Trusted", True), report


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """The batches that the engine was asked for."""
    seen: list[Batch] = []
    own = Diffusers.__call__

    def noted(engine: Diffusers, batch: Batch) -> Any:
        seen.append(batch)
        return own(engine, batch)

    monkeypatch.setattr(Diffusers, "__call__", noted)
    return seen


def every_mode() -> list[Item]:
    photo = {"image": "photo.png"}
    box = {"mode": "inpainting", "mask": "box 8 8 24 24", **photo}
    beside = {"mode": "outpainting", "expand": "16 0 0 8", "width": 72, "height": 64, **photo}
    items: list[Item] = []
    for name in FAMILIES:
        own = {"model": name}
        items += [
            {"sku": f"words-{name}", **own},
            {"sku": f"photo-{name}", "mode": "image-to-image", "steps": 3, **photo, **own},
            {"sku": f"box-{name}", **box, **own},
        ]
    items += [
        {"sku": "border", "model": "sd1", **beside},
        {"sku": "border-9", "model": "in9", **beside},
        {"sku": "mask-9", "model": "in9", "mode": "inpainting", "mask": "mask.png", **photo},
        {"sku": "hole", "model": "sd1-whole", **box},
        {"sku": "background", "model": "sd1-whole", **box, "mask": "background"},
        {"sku": "depth", "model": "depth", "mode": "depth-to-image", **photo},
        {
            "sku": "depth-picture", "model": "depth", "mode": "depth-to-image", **photo,
            "depth_image": "depth.png",
        },
        {"sku": "depth-control", "model": "sd1-whole", "mode": "depth-to-image", **photo},
        {
            "sku": "segments", "model": "sd1-whole", "mode": "controlnet",
            "controls": "sd1-control:segmentation", **photo,
        },
    ]  # fmt: skip
    for name in ("sd1", "sdxl"):
        control = f"{name}-control"
        own = {"model": name, "mode": "controlnet"}
        items += [
            {"sku": f"edges-{name}", "controls": f"{control}:edges", **photo, **own},
            {"sku": f"ready-{name}", "controls": control, "control_image": "control.png", **own},
            {
                "sku": f"two-{name}", "controls": f"{control}:none:0.5, {control}:edges",
                "control_image": "control.png | photo.png", **own,
            },
            {"sku": f"look-{name}", "model": name, "adapters": f"{name}-look:0.7"},
        ]  # fmt: skip
    items += [
        {"sku": "word", "model": "sd1", "adapters": "sd1-word", "prompt": "a <brand> mug"},
        {"sku": "weighted", "model": "sdxl", "prompt": "a (red)1.5 mug", "prompt_syntax": "compel"},
        {"sku": "few", "model": "sd1-few"},
        {"sku": "larger-4", "model": "up4", "mode": "upscaling", "steps": 1, "image": "small.png"},
        {"sku": "larger-2", "model": "up2", "mode": "upscaling", "steps": 1, "image": "small.png"},
        {"sku": "large", "model": "sd1-whole", "width": 256, "height": 256},
        {
            "sku": "chain", "model": "sd1-whole", "then": [
                {"mode": "inpainting", "model": "sd1-whole", "mask": "background",
                 "prompt": "a {{ sku }} on the green background"},
                {"mode": "upscaling", "model": "up4", "steps": 1},
            ],
        },
    ]  # fmt: skip
    return [{"prompt": "a red mug", "count": 1, **item} for item in items]


def test_every_mode_by_every_family(settings: Settings, shop: Path, passes: list[Batch]) -> None:
    items = every_mode()
    brief = write_brief(shop, items)
    summary = run(settings, brief)
    assert summary["errors"] == {}
    assert summary["outcomes"] == {"pass": len(items), "review": 0, "block": 0, "failed": 0}
    assert_whole(settings, len(items))
    # One model after another: 12 of them, some for steps and finals both.
    assert summary["model_loads"] <= 14

    varied = [{"sku": f"of-{each}", "prompt": "a blue vase", "mode": "variation", "asset": each,
               "model": "sd1"} for each in ("words-sd1", "chain")]  # fmt: skip
    second = write_brief(shop, [*items, *varied])
    summary = run(settings, second)
    assert (summary["made"], summary["done_before"]) == (2, len(items))
    assert summary["outcomes"]["pass"] == 2
    assert_whole(settings, len(items) + 2)

    before = len(passes)
    again = run(settings, second)
    assert (again["made"], again["done_before"]) == (0, len(items) + 2)
    assert len(passes) == before

    images = {row["sku"]: row for row in rows(settings, "SELECT * FROM images")}
    assert {row["mode"] for row in images.values()} == {
        "text-to-image", "image-to-image", "inpainting", "outpainting", "depth-to-image",
        "controlnet", "upscaling", "variation",
    }  # fmt: skip
    assert images["words-sd1"]["recipe"] is None
    recipe = json.loads(images["chain"]["recipe"])
    assert [step["mode"] for step in recipe["earlier"]] == ["text-to-image", "inpainting"]
    assert recipe["earlier"][1]["prompt"] == "a chain on the green background"
    assert json.loads(images["look-sd1"]["recipe"])["adapters"][0]["weight"] == 0.7
    assert json.loads(images["box-sd3"]["recipe"])["region"]["box"] == [8, 8, 24, 24]
    sizes = {sku: (row["width"], row["height"]) for sku, row in images.items()}
    assert sizes["border"] == (72, 64)
    assert sizes["larger-4"] == (64, 64)
    assert sizes["larger-2"] == (32, 32)
    assert sizes["chain"] == sizes["large"] == (256, 256)

    check_inputs(settings)
    check_models(settings)
    kept = rows(settings, "SELECT value FROM scores WHERE score = 'inputs.preserved'")
    # All that inpaint or outpaint, the chain, and no other.
    assert [row["value"] for row in kept] == [100.0] * 12


def check_inputs(settings: Settings) -> None:
    found: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows(settings, "SELECT i.*, sku FROM inputs AS i JOIN images USING (request_id)"):
        told = (row["step"], row["role"], row["source"], row["name"])
        found.setdefault(row["sku"], []).append(told)
    assert not any(sku.startswith(("words", "look", "word", "weighted")) for sku in found)
    assert found["photo-flux"] == [(0, "image", "file", "photo.png")]
    assert sorted(found["mask-9"]) == [
        (0, "image", "file", "photo.png"), (0, "mask", "file", "mask.png"),
    ]  # fmt: skip
    assert sorted(found["depth-picture"])[0] == (0, "depth", "file", "depth.png")
    assert {(role, name) for _, role, _, name in found["two-sdxl"]} == {
        ("control", "control.png"), ("control", "photo.png"),
    }  # fmt: skip
    assert [(step, source) for step, _, source, _ in sorted(found["chain"])] == [
        (1, "step"), (2, "step"),
    ]  # fmt: skip
    assert found["of-chain"][0][1:3] == ("image", "asset")
    origin = rows(
        settings,
        "SELECT o.sku FROM inputs AS i JOIN images AS v USING (request_id) "
        "JOIN images AS o ON o.request_id = i.source_request_id WHERE v.sku = 'of-chain'",
    )
    assert [row["sku"] for row in origin] == ["chain"]


def check_models(settings: Settings) -> None:
    used: dict[str, set[tuple[str, str]]] = {}
    sql = "SELECT u.*, sku FROM models_used AS u JOIN images USING (request_id)"
    for row in rows(settings, sql):
        used.setdefault(row["sku"], set()).add((row["part"], row["model"]))
        assert len(row["revision"]) == 64
    assert used["words-sd3"] == {("model", "sd3")}
    assert used["look-sdxl"] == {("model", "sdxl"), ("adapter", "sdxl-look")}
    assert used["word"] == {("model", "sd1"), ("adapter", "sd1-word")}
    assert used["hole"] == {("model", "sd1-whole"), ("control", "sd1-control")}
    assert used["depth-control"] == {
        ("model", "sd1-whole"), ("control", "sd1-control"), ("tool", "dpt"),
    }  # fmt: skip
    assert used["large"] == {("model", "sd1-whole"), ("model", "up4")}
    assert used["chain"] == {
        ("model", "sd1-whole"), ("model", "up4"), ("control", "sd1-control"),
        ("tool", "segformer"),
    }  # fmt: skip


def chains(count: int = 3) -> list[Item]:
    """Words, repainted, repainted again by another model."""
    things = ("red mug", "blue vase", "green lamp", "black chair")
    then = [
        {"mode": "image-to-image", "model": "sd1", "steps": 3},
        {"mode": "image-to-image", "model": "sdxl", "steps": 3},
    ]
    return [
        {"sku": f"S{n}", "prompt": f"a {things[n]}", "model": "sd1", "steps": 1, "then": then}
        for n in range(count)
    ]


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_chain_that_was_interrupted_goes_on(
    stop: int, settings: Settings, shop: Path, passes: list[Batch]
) -> None:
    """Two batches a level: broken off among the first steps, the second, and the finals."""
    brief = write_brief(shop, chains())
    other = settings.model_copy(update={"workspace": shop / "other"})
    run(other, brief)
    whole = pixels(other)
    once = [each.request_id for batch in passes for each in batch.requests]
    assert len(once) == len(set(once)) == 9
    passes.clear()
    with pytest.raises(KeyboardInterrupt):
        run(settings, brief, stop=stop)
    assert len(passes) == stop
    summary = run(settings, brief)
    assert summary["outcomes"]["failed"] == 0
    ids = [each.request_id for batch in passes for each in batch.requests]
    assert sorted(ids) == sorted(once)
    assert pixels(settings) == whole
    assert_whole(settings, 3)


def test_a_step_that_fails_takes_only_its_own_images_with_it(
    settings: Settings, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brief = write_brief(shop, chains())
    settings = settings.model_copy(update={"batch_size": 1})
    own = Diffusers.__call__

    def failing(engine: Diffusers, batch: Batch) -> Any:
        first = batch.requests[0]
        if (first.prompt, first.model, first.mode) == ("a blue vase", "sd1", "image-to-image"):
            raise RuntimeError("no vase today")
        return own(engine, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Diffusers, "__call__", failing)
        summary = run(settings, brief)
    assert summary["outcomes"] == {"pass": 2, "review": 0, "block": 0, "failed": 1}
    assert summary["errors"] == {"RuntimeError: no vase today": 1}
    (lost,) = rows(settings, "SELECT sku, error FROM images WHERE state = 'failed'")
    assert lost == {"sku": "S1", "error": "RuntimeError: no vase today"}
    assert set(pixels(settings)) == {"S0-0", "S2-0"}
    again = run(settings, brief)
    assert (again["made"], again["done_before"]) == (1, 2)
    assert_whole(settings, 3)


def test_faulty_items_are_skipped_or_refuse_the_brief(settings: Settings, shop: Path) -> None:
    (shop / "broken.png").write_bytes(b"\x89PNG broken")
    photo = {"prompt": "a red mug", "model": "sd1", "mode": "image-to-image"}
    items = [
        {"sku": "good", **photo, "image": "photo.png"},
        {"sku": "gone", **photo, "image": "nowhere.png"},
        {"sku": "broken", **photo, "image": "broken.png"},
        {"sku": "outside", **photo, "image": "../photo.png"},
        {"sku": "maskless", **photo, "image": "photo.png", "mode": "inpainting"},
        {"sku": "misfit", "prompt": "a mug", "model": "sd1", "adapters": "sdxl-lok"},
        {"sku": "words", "prompt": "a blue vase", "model": "sd1"},
    ]
    with pytest.raises(InputError) as refused:
        run(settings, write_brief(shop, items))
    assert len(refused.value.faults) == 5
    summary = run(settings, write_brief(shop, items, faulty_items="skip"))
    assert summary["outcomes"] == {"pass": 2, "review": 0, "block": 0, "failed": 0}
    names = {each["sku"] for each in summary["refused_items"]}
    assert names == {"gone", "broken", "outside", "maskless", "misfit"}
    assert any("5 items are refused" in notice for notice in summary["notices"])
    found = {row["sku"]: row for row in rows(settings, "SELECT * FROM refused_items")}
    assert set(found) == names
    assert "nowhere.png" in found["gone"]["fault"]
    assert found["misfit"]["remedy"] == "did you mean 'sdxl-look'?"
    assert_whole(settings, 2)


def test_an_approved_image_has_its_ingredients(settings: Settings, shop: Path) -> None:
    photo = {"prompt": "a red mug", "model": "sd1", "image": "photo.png"}
    items = [
        {"sku": "edit", "mode": "image-to-image", "strength": 0.5, **photo},
        {"sku": "chained", "mode": "inpainting", "mask": "mask.png", **photo,
         "then": [{"mode": "image-to-image", "model": "sdxl", "steps": 3}]},
    ]  # fmt: skip
    summary = run(settings, write_brief(shop, items), policy="held.yaml")
    assert summary["outcomes"]["review"] == 2
    parts = {}
    for sku in ("edit", "chained"):
        done = approve(settings, sku, "ada", "looks right")
        report = verify_file(Path(done["file"]), trust_anchors(settings))
        assert report.state == "Trusted"
        parts[sku] = ingredients(Path(done["file"]))
    assert parts["edit"] == [("photo.png", "parentOf")]
    assert [part[0] for part in parts["chained"]][:2] == ["photo.png", "mask.png"]
    assert parts["chained"][2][0].startswith("step 1")
    assert {part[1] for part in parts["chained"][1:]} == {"inputTo"}
    cleared = rows(settings, "SELECT sku FROM images WHERE cleared")
    assert {row["sku"] for row in cleared} == {"edit", "chained"}


def ingredients(path: Path) -> list[tuple[str, str]]:
    from c2pa import Reader

    mime = "image/png" if path.suffix == ".png" else "image/jpeg"
    with Reader(mime, io.BytesIO(path.read_bytes())) as reader:
        store = json.loads(reader.json())
    found = store["manifests"][store["active_manifest"]]["ingredients"]
    return [(each["title"], each["relationship"]) for each in found]


# Dies by SIGKILL at the n-th call of one function, before or after it did its work.
KILLED = """
import importlib, os, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
import test_modes
from pipeline.settings import Settings
where, name, when, count = {at!r}
owner = importlib.import_module(where)
for part in name.split(".")[:-1]:
    owner = getattr(owner, part)
own = getattr(owner, name.split(".")[-1])
calls = 0
def dying(*given, **named):
    global calls
    calls += 1
    if calls == count and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    made = own(*given, **named)
    if calls == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return made
setattr(owner, name.split(".")[-1], dying)
settings = Settings(workspace=Path("ws"), models=Path({models!r}), batch_size=2, device="cpu")
test_modes.run(settings, Path("modes.yaml"))
"""


@pytest.mark.timeout(600)
def test_killed_between_steps_nothing_is_missing_and_nothing_twice(
    settings: Settings, shop: Path, small_models: Path, passes: list[Batch], warm_platemark: Warm
) -> None:
    brief = write_brief(shop, chains(4))
    other = settings.model_copy(update={"workspace": shop / "other"})
    # As in the killed processes: with more, sums are rounded in another way.
    torch.set_num_threads(1)
    run(other, brief)
    passes.clear()
    # The first of a batch's two pictures kept; a step made and not noted; committed, not in place.
    path = [str(folder) for folder in Path(__file__).parents[:2]]
    for at in (
        ("pipeline.inputs", "InputStore.keep_step", "after", 1),
        ("pipeline.inputs", "InputStore.keep_step", "before", 4),
        ("flows.production", "commit_batch", "after", 1),
    ):
        code = KILLED.format(path=path, at=at, models=str(small_models))
        process = warm_platemark.python(code)
        assert process.returncode == -signal.SIGKILL, process.stderr
    summary = run(settings, brief)
    assert (summary["made"], summary["done_before"]) == (2, 2)
    # What was whole before the kills was not made again: the finals of one batch are left.
    assert [batch.final for batch in passes] == [True]
    assert pixels(settings) == pixels(other)
    assert_whole(settings, 4)


def test_the_flow_itself_makes_a_chain(
    settings: Settings, shop: Path, small_models: Path, prefect_api: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from flows.produce import produce

    monkeypatch.setenv("PLATEMARK_MODELS", str(small_models))
    monkeypatch.setenv("PLATEMARK_DEVICE", "cpu")
    brief = write_brief(shop, chains(2))
    summary = produce(str(brief), "plain.yaml", workspace="ws")
    assert summary["outcomes"] == {"pass": 2, "review": 0, "block": 0, "failed": 0}
    assert Path(summary["contact_sheet"]).stat().st_size > 1000
    assert_whole(settings, 2)
