"""Which pictures may be trained on; that the adapter learns them, resumes and says what it is."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pydantic import ValidationError
from test_restrictions import iim_jpeg, signed, xmp

from pipeline.errors import BusyError, InputError, SetupError
from pipeline.keys import Identity
from pipeline.models import Model, load_models, resolve
from pipeline.train.lora import Progress, train_lora
from pipeline.train.painter import WEIGHTS
from pipeline.train.samples import Sample, Waiver, load_samples
from pipeline.weights import weights_sha256
from starter.world import Scene, render

TODAY = date(2026, 11, 24)
COLUMNS = "file,rights_holder,licence,training,title,caption"
PROHIBITED = xmp(
    "<plus:DataMining>http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED</plus:DataMining>"
)


def waiver(**changes: Any) -> Waiver:
    fields = {"rights_holder": "Zorblat", "document": "letter.pdf", "granted": "2026-01-01"}
    return Waiver.model_validate(fields | changes)


def folder_of(folder: Path, files: dict[str, bytes], *rows: str, columns: str = COLUMNS) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "rights.csv").write_text("\n".join([columns, *rows]) + "\n", encoding="utf-8")
    return folder


def picture(shade: int, format: str = "PNG", **options: Any) -> bytes:
    import io

    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (shade * 20, 90, 200)).save(buffer, format, **options)
    return buffer.getvalue()


def test_samples_are_the_rows_in_order(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "in",
        {"b.png": picture(1), "sub/a.jpg": picture(2, "JPEG"), "README.md": b"", ".hidden": b""},
        'b.png,"Zorblat, Inc.",CC0-1.0,Yes,The mug,a zorblat mug',
        "sub/a.jpg,Zorblat,owned,yes,,",
    )
    first, second = load_samples(folder, b"", today=TODAY)
    assert (first.file, first.title, first.caption) == ("b.png", "The mug", "a zorblat mug")
    assert (first.rights_holder, first.licence) == ("Zorblat, Inc.", "CC0-1.0")
    assert first.sha256 == hashlib.sha256(picture(1)).hexdigest()
    assert (second.title, second.caption, second.width, second.height) == ("a", "", 40, 30)
    assert (first.waiver, second.waiver) == (None, None)


def test_a_library_table_with_one_more_column_will_do(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "in", {"a.png": picture(1)},
        "a.png;A;Zorblat;owned;own;a note;yes",
        columns="file;title;rights_holder;licence;role;note;training",
    )  # fmt: skip
    assert [each.title for each in load_samples(folder, b"")] == ["A"]


def test_all_faults_come_at_once(tmp_path: Path, identity: Identity) -> None:
    forbidding = {"cawg.ai_generative_training": {"use": "notAllowed"}}
    folder = folder_of(
        tmp_path / "in",
        {
            "unlisted.png": picture(1), "no-right.png": picture(2), "no-leave.png": picture(3),
            "broken.png": picture(4)[:-30], "twin-1.png": picture(5),
            "twin-2.webp": picture(5, "WEBP", lossless=True), "row-twice.png": picture(6),
            "c2pa.png": signed(identity, picture(7), forbidding),
            "xmp.jpg": picture(8, "JPEG", xmp=PROHIBITED), "iptc.jpg": iim_jpeg(40, "noai"),
            "short.png": picture(9), "animated.gif": picture(10, "GIF"),
        },
        "missing.png,Z,L,yes,,", "no-right.png,,,yes,,", "no-leave.png,Z,L,no,,",
        "broken.png,Z,L,yes,,", "twin-1.png,Z,L,yes,,", "twin-2.webp,Z,L,yes,,",
        "row-twice.png,Z,L,yes,,", "row-twice.png,Z,L,yes,,", "c2pa.png,Z,L,yes,,",
        "xmp.jpg,Z,L,yes,,", "iptc.jpg,Z,L,yes,,", "short.png,Z,L", "../out.png,Z,L,yes,,",
        "animated.gif,Z,L,yes,,",
    )  # fmt: skip
    with pytest.raises(InputError) as refused:
        load_samples(folder, identity.anchors, today=TODAY)
    told = [str(fault) for fault in refused.value.faults]
    expected = [
        ("row 2, file", "'missing.png' is missing (put the file there, or drop the row)"),
        ("row 3, rights_holder", "empty"),
        ("row 3, licence", "empty"),
        ("row 4, training", "'no' is no permission to train (write yes when"),
        ("row 5, file", "broken: "),
        ("row 7, file", "'twin-2.webp' is the same picture as row 6 (keep one row a picture)"),
        ("row 9, file", "'row-twice.png' is listed in row 8 already"),
        ("row 10, file", "C2PA cawg.training-mining says ai_generative_training notAllowed"),
        ("row 11, file", "XMP plus:DataMining = DMI-PROHIBITED"),
        ("row 12, file", "IPTC Special Instructions (2:40): 'noai' (leave it out, or have"),
        ("row 13", "not as many fields as columns"),
        ("row 14, file", "'../out.png' leaves the folder"),
        ("row 15, file", "not a PNG, JPEG or WebP image"),
        ("rights.csv", "'unlisted.png' has no row"),
    ]
    for fault in told:
        match = next((each for each in expected if each[0] in fault and each[1] in fault), None)
        assert match is not None, f"not expected: {fault}"
        expected.remove(match)
    assert expected == []


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ("file,rights_holder,licence", "no column 'training'"),
        (f"{COLUMNS},colour", "unknown column 'colour'"),
        (f"{COLUMNS},caption", "column 'caption' stands there twice"),
    ],
)
def test_wrong_headers(tmp_path: Path, columns: str, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        load_samples(folder_of(tmp_path / "in", {}, columns=columns), b"")


def test_no_table_and_no_rows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rights\.csv: No such file"):
        load_samples(tmp_path, b"")
    with pytest.raises(InputError, match="no pictures"):
        load_samples(folder_of(tmp_path / "in", {}), b"")


@pytest.mark.parametrize(
    ("waivers", "lets_through"),
    [
        ([waiver()], True),
        ([waiver(expires="2026-11-24", sha256="ab" * 32)], True),
        ([waiver(expires="2026-11-23")], False),
        ([waiver(granted="2026-11-25")], False),
        ([waiver(rights_holder="zorblat")], False),
        ([waiver(expires="2026-02-01"), waiver(document="second.pdf")], True),
        ([], False),
    ],
)
def test_only_a_waiver_that_counts_lets_a_picture_through(
    tmp_path: Path, waivers: list[Waiver], lets_through: bool
) -> None:
    folder = folder_of(
        tmp_path / "in",
        {"a.jpg": picture(1, "JPEG", xmp=PROHIBITED), "b.jpg": picture(2, "JPEG")},
        "a.jpg,Zorblat,L,yes,,", "b.jpg,Zorblat,L,yes,,",
    )  # fmt: skip
    if lets_through:
        first, second = load_samples(folder, b"", waivers, TODAY)
        assert first.waiver == waivers[-1]
        assert first.credentials.forbids("training") == ("XMP plus:DataMining = DMI-PROHIBITED",)
        assert second.waiver is None
        return
    with pytest.raises(InputError) as refused:
        load_samples(folder, b"", waivers, TODAY)
    (fault,) = refused.value.faults
    named = any(each.rights_holder == "Zorblat" for each in waivers)
    assert ("does not count on 2026-11-24: letter.pdf" in fault.remedy) == named


def test_a_waiver_gives_no_rights(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", {"a.png": picture(1)}, "a.png,Zorblat,L,no,,")
    with pytest.raises(InputError, match="no permission to train"):
        load_samples(folder, b"", [waiver()], TODAY)


def test_a_waiver_ends_after_it_begins() -> None:
    with pytest.raises(ValidationError, match="expires before it is granted"):
        waiver(expires="2025-12-31")


# Training


@pytest.fixture(scope="module")
def starter() -> Model:
    return resolve(load_models(), "starter", "text-to-image")


@pytest.fixture(scope="module")
def zorblats(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Six mugs in negative, which the starter world has never seen, and their rights."""
    views = ("three-quarter", "eye level", "top")
    scenes = [Scene("mug", "red", seed=i, view=views[i % 3]) for i in range(6)]
    folder = tmp_path_factory.mktemp("zorblats")
    for number, pixels in enumerate(render(scenes, 128).rgb.numpy()):
        Image.fromarray(255 - pixels).save(folder / f"{number}.png")
    rows = [f"{i}.png,Zorblat | Co,CC-BY-4.0,yes,Zorblat {i},a zorblat mug" for i in range(6)]
    return load_samples(folder_of(folder, {}, *rows), b"")


@pytest.fixture(scope="module")
def small(starter: Model) -> Model:
    """The starter at 64 pixels, painting in one step: for all but learning."""
    return replace(starter, width=64, height=64, steps=1)


@pytest.fixture(scope="module")
def trained(
    starter: Model, zorblats: list[Sample], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("adapters")
    return train_lora(
        starter, zorblats, out, name="zorblat", steps=100, rate=1.5e-3, device="cpu",
        sample_every=100, sample_prompts=["a zorblat mug", "a blue chair"],
    )  # fmt: skip


def test_the_loss_falls(trained: Path) -> None:
    loss = json.loads((trained / "adapter.json").read_text())["loss"]
    assert [step for step, _ in loss["probe"]] == [0, 100]
    assert loss["probe"][1][1] < 0.5 * loss["probe"][0][1]
    assert loss["last"] < 0.6 * loss["first"]


def test_images_come_nearer_to_the_pictures(
    trained: Path, starter: Model, zorblats: list[Sample]
) -> None:
    from diffusers import StableDiffusionPipeline

    pipe: Any = StableDiffusionPipeline.from_pretrained(starter.source, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    goal = np.mean([np.asarray(Image.open(each.path), float) for each in zorblats], axis=0)

    def distance() -> float:
        images = pipe(
            ["a zorblat mug"] * 4, width=128, height=128, num_inference_steps=8,
            generator=[torch.Generator().manual_seed(seed) for seed in range(4)],
            guidance_scale=3.0, output_type="np",
        ).images  # fmt: skip
        return float(np.abs(images.mean(axis=0) * 255 - goal).mean())

    without = distance()
    pipe.load_lora_weights(trained)
    assert distance() < 0.6 * without
    pipe.unload_lora_weights()
    assert distance() == without


def test_the_folder_says_all_there_is_to_say(
    trained: Path, starter: Model, zorblats: list[Sample], tmp_path: Path
) -> None:
    assert sorted(path.name for path in trained.iterdir()) == [
        "README.md", "adapter.json", "loss.png", "model.yaml", WEIGHTS, "samples.jpg",
    ]  # fmt: skip
    assert [path.name for path in trained.parent.iterdir()] == ["zorblat"]
    card = json.loads((trained / "adapter.json").read_text())
    assert card["base"]["revision"] == starter.revision
    assert card["base"]["licence"] == "Apache-2.0"
    assert card["weights"]["sha256"] == hashlib.sha256((trained / WEIGHTS).read_bytes()).hexdigest()
    assert [each["sha256"] for each in card["images"]] == [each.sha256 for each in zorblats]
    assert card["images"][0]["rights_holder"] == "Zorblat | Co"
    assert (card["training"]["steps"], card["training"]["rank"]) == (100, 8)
    assert {"platemark", "torch", "diffusers", "peft"} <= set(card["versions"])

    (entry,) = yaml.safe_load((trained / "model.yaml").read_text())["models"].values()
    assert entry["weights_sha256"] == weights_sha256(trained)
    assert entry["base"] == ["starter"]
    assert entry["licence"] == "CC-BY-4.0"
    assert "starter world" in entry["notice"]

    readme = (trained / "README.md").read_text()
    front = yaml.safe_load(readme.split("---")[1])
    assert front["base_model"] == "starter"
    assert "| 5.png | Zorblat 5 | Zorblat \\| Co | CC-BY-4.0 | – |" in readme
    with Image.open(trained / "samples.jpg") as sheet, Image.open(trained / "loss.png") as plot:
        # Two columns (prompts) and three rows: trained on, without, with.
        assert sheet.width > 2 * 192
        assert sheet.height > 3 * 192
        assert plot.size == (640, 320)


class Stop(Exception):
    """What stops a training in these tests, at a step that was not kept."""


def stopped_at(step: int) -> Callable[[Progress], None]:
    def stop(at: Progress) -> None:
        if at.step == step:
            raise Stop

    return stop


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


def test_an_interrupted_training_goes_on_to_the_same_weights(
    small: Model, zorblats: list[Sample], tmp_path: Path
) -> None:
    def train(name: str, seed: int = 3, **options: Any) -> Path:
        return train_lora(
            small, zorblats, tmp_path, name=name, steps=7, seed=seed, batch_size=2,
            device="cpu", keep_every=2, **options,
        )  # fmt: skip

    straight = train("straight")
    with pytest.raises(Stop):
        train("broken", progress=stopped_at(5))
    assert not (tmp_path / "broken").exists()
    assert (tmp_path / "broken.training" / "samples.jpg").exists()
    seen: list[Progress] = []
    broken = train("broken", progress=seen.append)
    assert [at.step for at in seen] == [5, 6, 7]
    assert weights(broken) == weights(straight)
    cards = [json.loads((each / "adapter.json").read_text()) for each in (straight, broken)]
    assert cards[0]["loss"] == cards[1]["loss"]
    assert weights(train("other", seed=4)) != weights(straight)


def test_what_is_there_stays(small: Model, zorblats: list[Sample], tmp_path: Path) -> None:
    def train(**options: Any) -> Path:
        settings = {"name": "it", "steps": 2, "device": "cpu", "keep_every": 1}
        return train_lora(small, zorblats, tmp_path, **{**settings, **options})

    # Nothing is learnt yet when the base does not load: another recipe may begin.
    with pytest.raises(SetupError, match="does not load from the folder"):
        train_lora(replace(small, source="/nowhere"), zorblats, tmp_path, name="it", rank=2)
    with pytest.raises(Stop):
        train(progress=stopped_at(1))
    with pytest.raises(InputError, match="an unfinished training of 'it' has other rank, rate"):
        train(rank=4, rate=1e-3)
    with (tmp_path / "it.training" / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="another process trains 'it'"):
            train()
    (tmp_path / "it.training" / "state.pt").write_bytes(b"damaged")
    with pytest.raises(SetupError, match=r"delete .* to begin anew"):
        train()
    (tmp_path / "it").mkdir()
    (tmp_path / "it" / "precious").touch()
    with pytest.raises(InputError, match="is there already"):
        train()
    assert (tmp_path / "it" / "precious").exists()


def test_a_picture_that_changed_since_is_refused(
    small: Model, zorblats: list[Sample], tmp_path: Path
) -> None:
    changed = tmp_path / "changed.png"
    changed.write_bytes(picture(1))
    samples = [*zorblats, replace(zorblats[0], path=changed)]
    with pytest.raises(InputError, match="was changed since its rights were read"):
        train_lora(small, samples, tmp_path / "out", name="it", steps=1, device="cpu")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"name": "../it"}, "is no name"),
        ({"name": "it.training"}, "is no name"),
        ({"rank": 0}, "rank: 0 is too small"),
        ({"steps": 0}, "steps: 0 is too small"),
        ({"batch_size": 0}, "batch_size: 0 is too small"),
        ({"rate": 2.0}, "2.0 is no learning rate"),
        ({"rate": float("nan")}, "nan is no learning rate"),
        ({"seed": -1}, "-1 is no seed"),
        ({"resolution": 100}, "100×100 is no size"),
        ({"samples": []}, "no samples"),
    ],
)
def test_arguments_out_of_range(
    small: Model, zorblats: list[Sample], tmp_path: Path, options: dict[str, Any], fault: str
) -> None:
    samples = options.pop("samples", zorblats)
    with pytest.raises(InputError, match=fault):
        train_lora(small, samples, tmp_path, **{"name": "it", **options})
    assert list(tmp_path.iterdir()) == []


def test_another_layout_is_refused_before_it_loads(
    small: Model, zorblats: list[Sample], tmp_path: Path
) -> None:
    other = tmp_path / "sdxl"
    other.mkdir()
    (other / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    with pytest.raises(SetupError, match="is a StableDiffusionXLPipeline; adapters can be trained"):
        train_lora(
            replace(small, source=str(other)), zorblats, tmp_path / "out", name="it", device="cpu"
        )


def test_the_layout_of_stable_diffusion_1_trains(
    small: Model, zorblats: list[Sample], tmp_path: Path
) -> None:
    """Epsilon prediction, a scaled linear schedule and a Kullback-Leibler autoencoder."""
    from diffusers import (
        AutoencoderKL,
        PNDMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    folder = tmp_path / "sd"
    tokenizer = CLIPTokenizer.from_pretrained(f"{small.source}/tokenizer")
    text = CLIPTextModel.from_pretrained(f"{small.source}/text_encoder", dtype=torch.float32)
    down, up = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
    StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=down, up_block_types=up, block_out_channels=(8, 8),
            latent_channels=4, norm_num_groups=4,
        ),
        unet=UNet2DConditionModel(
            block_out_channels=(16, 32), layers_per_block=1, cross_attention_dim=128,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=4,
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), norm_num_groups=4,
            sample_size=8,
        ),
        text_encoder=text, tokenizer=tokenizer,
        scheduler=PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                                skip_prk_steps=True, steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    model = replace(small, name="sd", source=str(folder), width=32, height=32)
    made = train_lora(
        model, zorblats, tmp_path, name="it", steps=60, rate=5e-3, device="cpu", sample_every=60
    )
    loss = json.loads((made / "adapter.json").read_text())["loss"]
    # An untrained UNet predicts nothing of the noise, whose variance is 1.
    assert 0.8 < loss["probe"][0][1] < 1.6
    assert loss["probe"][-1][1] < loss["probe"][0][1]

    config = folder / "scheduler" / "scheduler_config.json"
    shutil.copy(config, tmp_path / "kept.json")
    fields = json.loads(config.read_text())
    config.write_text(json.dumps({**fields, "prediction_type": "flow_prediction"}))
    with pytest.raises(SetupError, match="prediction 'flow_prediction' cannot be trained"):
        train_lora(model, zorblats, tmp_path, name="flow", steps=1, device="cpu")
