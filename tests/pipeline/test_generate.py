"""Every mode by every family: real pipelines over small random checkpoints, loaded by path."""

from __future__ import annotations

import gc
import io
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.checks.inputs import IDENTICAL_DB, preserved_db
from pipeline.errors import SetupError
from pipeline.generate import Generated
from pipeline.generate.device import pick_device
from pipeline.generate.engine import Diffusers
from pipeline.images import RgbImage
from pipeline.inputs import InputStore
from pipeline.models import Model, load_models, resolve
from pipeline.plan import Batch
from pipeline.request import Adapter, Control, Input, Region, Request
from pipeline.settings import Settings
from pipeline.store import sha256_of, write_file

WIDE, HIGH = 72, 64
"""No multiple of 16, as families with transformers would have it."""

Ask = Callable[..., Request]
Make = Callable[..., Generated]


@pytest.fixture(scope="module")
def models(small_models: Path) -> dict[str, Model]:
    declared = load_models(small_models)
    own = [each for each in declared.values() if each.file == small_models]
    return {each.name: resolve(declared, each.name, each.entry.kind) for each in own}


@dataclass(frozen=True)
class Album:
    """A store of pictures, by name: two photos, masks, depth and control pictures."""

    store: InputStore

    def keep(self, pixels: RgbImage, role: str = "image") -> Input:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "png")
        sha256 = sha256_of(buffer.getvalue())
        write_file(self.store.path(sha256, "image/png"), buffer.getvalue())
        return Input(role, "file", sha256, "a picture")  # type: ignore[arg-type]

    def photo(self, number: int, role: str = "image", size: tuple[int, int] = (96, 80)) -> Input:
        return self.keep(blobs(number, *size), role)

    def soft_mask(self) -> Input:
        """White on the left, then grey, then black."""
        row = np.repeat(np.array([255, 128, 0], np.uint8), 24)
        return self.keep(np.tile(row[None, :, None], (HIGH, 1, 3)), "mask")


def blobs(number: int, wide: int, high: int) -> RgbImage:
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((wide, high), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Album:
    return Album(InputStore(Settings(workspace=tmp_path_factory.mktemp("album"))))


@pytest.fixture(scope="module")
def ask(models: Mapping[str, Model]) -> Ask:
    def ask(name: str, mode: str = "text-to-image", **changes: Any) -> Request:
        model = models[name]
        fields = {
            "sku": "A", "index": 0, "mode": mode, "model": name,
            "model_revision": model.revision, "prompt": "a red mug", "negative_prompt": "",
            "seed": 1, "width": WIDE, "height": HIGH, "steps": model.steps,
            "guidance": model.guidance, "scheduler": model.sampler, "campaign": "", "client": "",
        }  # fmt: skip
        return Request(**{**fields, **changes})

    return ask


@pytest.fixture(scope="module")
def fresh(models: Mapping[str, Model], album: Album) -> Callable[..., Diffusers]:
    """A new engine; models given replace those of the same name."""

    def fresh(*changed: Model, batch_size: int = 2) -> Diffusers:
        own = {**models, **{each.name: each for each in changed}}
        return Diffusers(own, album.store, pick_device("cpu"), batch_size)

    return fresh


@pytest.fixture(scope="module")
def engine(fresh: Callable[..., Diffusers]) -> Iterator[Diffusers]:
    """One engine for all tests that do not need their own."""
    yield fresh()


@pytest.fixture
def make(engine: Diffusers) -> Make:
    return lambda *requests: engine(Batch(requests))


def one(engine: Diffusers, request: Request) -> RgbImage:
    image: RgbImage = engine(Batch((request,))).images[0]
    return image


def assert_alike(image: RgbImage, other: RgbImage, levels: int = 2) -> None:
    """Equal but for rounding: by so many of 255 levels at most."""
    assert np.abs(image.astype(int) - other).max() <= levels


# What each mode takes, for a first and a second request.
def from_photo(album: Album, n: int) -> dict[str, Any]:
    return {"inputs": (album.photo(n),), "strength": 0.6}


def box(album: Album, n: int) -> dict[str, Any]:
    region = Region("box", (8 + n, 8, 24, 32))
    return {"inputs": (album.photo(n),), "strength": 1.0, "region": region}


def mask_file(album: Album, n: int) -> dict[str, Any]:
    inputs = (album.photo(n, size=(WIDE, HIGH)), album.soft_mask())
    return {"inputs": inputs, "strength": 1.0, "region": Region("file")}


def background(album: Album, n: int) -> dict[str, Any]:
    region = Region("background", (), "segformer", "")
    return {"inputs": (album.photo(n),), "strength": 1.0, "region": region}


def border(album: Album, n: int) -> dict[str, Any]:
    region = Region("border", (16, 0, 8, 8))
    return {"inputs": (album.photo(n),), "strength": 1.0, "region": region}


def around_a_hole(album: Album, n: int) -> dict[str, Any]:
    return {**box(album, n), "controls": (Control("sd1-control", "", "hole"),)}


def photo_and_depth(album: Album, n: int) -> dict[str, Any]:
    return {"inputs": (album.photo(n), album.photo(n + 5, "depth")), "strength": 1.0}


def edges_of_photo(family: str) -> Callable[[Album, int], dict[str, Any]]:
    return lambda album, n: {
        "inputs": (album.photo(n, "control"),),
        "controls": (Control(f"{family}-control", "", "edges"),),
    }


def ready(family: str) -> Callable[[Album, int], dict[str, Any]]:
    return lambda album, n: {
        "inputs": (album.photo(n, "control"),),
        "controls": (Control(f"{family}-control", ""),),
    }


def two(family: str) -> Callable[[Album, int], dict[str, Any]]:
    return lambda album, n: {
        "inputs": (album.photo(n, "control"), album.photo(n + 7, "control")),
        "controls": (
            Control(f"{family}-control", "", "edges", 0.5),
            Control(f"{family}-control", "", "none", 1.5),
        ),
    }


def drawn_by(preprocessor: str, tool: str) -> Callable[[Album, int], dict[str, Any]]:
    return lambda album, n: {
        "inputs": (album.photo(n, "control"),),
        "controls": (Control("sd1-control", "", preprocessor, 1.0, tool, ""),),
    }


def small(wide: int, high: int) -> Callable[[Album, int], dict[str, Any]]:
    return lambda album, n: {"inputs": (album.photo(n, size=(wide, high)),)}


def words(album: Album, n: int) -> dict[str, Any]:
    return {}


FAMILIES = ("sd1", "sd2", "sdxl", "sd3", "flux", "schnell")
CASES: list[tuple[str, str, str, Callable[[Album, int], dict[str, Any]]]] = [
    *((f"{name}-words", name, "text-to-image", words) for name in FAMILIES),
    *((f"{name}-photo", name, "image-to-image", from_photo) for name in FAMILIES),
    *((f"{name}-box", name, "inpainting", box) for name in FAMILIES),
    *((f"{name}-border", name, "outpainting", border) for name in ("sd1", "sdxl", "sd3", "flux")),
    ("sd1-variation", "sd1", "variation", from_photo),
    ("sdxl-mask", "sdxl", "inpainting", mask_file),
    ("sd1-few-words", "sd1-few", "text-to-image", words),
    ("sd1-background", "sd1-whole", "inpainting", background),
    ("sd1-hole", "sd1-whole", "inpainting", around_a_hole),
    ("in9-box", "in9", "inpainting", box),
    ("in9-mask", "in9", "inpainting", mask_file),
    ("in9-border", "in9", "outpainting", border),
    ("depth-photo", "depth", "depth-to-image", from_photo),
    ("depth-picture", "depth", "depth-to-image", photo_and_depth),
    ("sd1-depth", "sd1-whole", "depth-to-image", drawn_by("depth", "dpt")),
    ("sd1-segments", "sd1-whole", "controlnet", drawn_by("segmentation", "segformer")),
    *(
        (f"{name}-{kind.__name__}", name, "controlnet", kind(name))
        for name in ("sd1", "sdxl")
        for kind in (edges_of_photo, ready, two)
    ),
    ("up4", "up4", "upscaling", small(18, 16)),
    ("up2", "up2", "upscaling", small(36, 32)),
]
# One model after another: loading takes longer than painting.
CASES.sort(key=lambda case: case[1])


@pytest.mark.parametrize(
    ("name", "mode", "given"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_every_mode_by_every_family(
    name: str, mode: str, given: Callable[[Album, int], dict[str, Any]],
    ask: Ask, make: Make, album: Album,
) -> None:  # fmt: skip
    """The size asked for, the same again, alike alone, and another for other inputs."""
    first = ask(name, mode, **given(album, 1))
    second = ask(name, mode, prompt="a blue vase", seed=2, **given(album, 2))
    together = make(first, second, first) if name == "sd1" else make(first, second)
    images = together.images
    assert images.shape[1:] == (HIGH, WIDE, 3)
    assert images.dtype == np.uint8
    assert images.std() > 1
    assert not np.array_equal(images[0], images[1])
    # At sizes whose rows threads share unevenly, the place in a batch may round differently.
    assert_alike(make(second).images[0], images[1])
    assert_alike(make(second, first).images[1], images[0])
    assert np.array_equal(make(second, first).images, make(second, first).images)
    assert not np.array_equal(make(replace(first, seed=3)).images[0], images[0])
    for image, kept in zip(images, together.kept, strict=True):
        assert (kept is not None) == (first.region is not None)
        if kept is not None:
            outside = kept.repainted == 0
            assert np.array_equal(image[outside], kept.original[outside])
            assert not np.array_equal(image[~outside], kept.original[~outside])
            assert preserved_db(image, kept) == IDENTICAL_DB


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "schnell"])
def test_words_pictures_and_another_engine(
    name: str, ask: Ask, fresh: Callable[..., Diffusers], engine: Diffusers, album: Album
) -> None:
    """The prompt and the photo are seen; another engine paints the same."""
    # Of two steps, transformers would do both at this strength, and see no photo.
    request = ask(name, "image-to-image", steps=4, **from_photo(album, 1))
    image = one(engine, request)
    assert not np.array_equal(one(engine, replace(request, prompt="a blue vase")), image)
    other = replace(request, inputs=(album.photo(2),))
    assert not np.array_equal(one(engine, other), image)
    weak, strong = (one(engine, replace(request, strength=each)) for each in (0.25, 1.0))
    assert not np.array_equal(weak, strong)
    assert np.array_equal(one(fresh(), request), image)


def test_sizes_and_schedulers_are_the_requests(ask: Ask, engine: Diffusers) -> None:
    request = ask("sd1", width=96)
    image = one(engine, request)
    assert image.shape == (64, 96, 3)
    other = one(engine, replace(request, scheduler="EulerDiscreteScheduler"))
    assert not np.array_equal(other, image)
    with pytest.raises(SetupError, match="no scheduler 'NoSuchScheduler'"):
        one(engine, replace(request, scheduler="NoSuchScheduler"))
    assert np.array_equal(one(engine, request), image)


def test_a_scheduler_takes_what_its_model_declares(
    models: Mapping[str, Model], ask: Ask, engine: Diffusers
) -> None:
    few = ask("sd1-few", steps=4)
    engine.load(Batch((few,)))
    scheduler = engine._scheduler(few)
    assert type(scheduler).__name__ == "LCMScheduler"
    assert scheduler.config.original_inference_steps == 4
    other = replace(models["sd1-few"], scheduler_config={"original_inference_steps": 7})
    request = replace(few, scheduler=other.sampler)
    # What changes the pixels is part of the request's identity.
    assert request.request_id != few.request_id
    assert not np.array_equal(one(engine, few), one(engine, request))


def test_one_model_is_loaded_once_for_all_its_modes(
    ask: Ask, fresh: Callable[..., Diffusers], album: Album
) -> None:
    engine = fresh()
    for request in (
        ask("sd1"),
        ask("sd1", "image-to-image", **from_photo(album, 1)),
        ask("sd1", "controlnet", **ready("sd1")(album, 1)),
        ask("sd1", "inpainting", **box(album, 1)),
        ask("sd1"),
    ):
        one(engine, request)
    assert engine.loads == 1
    one(engine, ask("sdxl"))
    assert engine.loads == 2


def test_a_model_is_let_go_of_before_the_next_is_loaded(
    ask: Ask, fresh: Callable[..., Diffusers]
) -> None:
    """Also by what embeds its weighted prompts."""
    engine = fresh()
    weighted = ask("sd1", prompt="a (red)1.5 mug", prompt_syntax="compel")
    one(engine, weighted)
    unet = weakref.ref(engine._loader.pipeline(weighted).unet)
    one(engine, ask("sdxl"))
    # A collection does nothing while another thread's is under way.
    deadline = time.monotonic() + 10
    while unet() is not None and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.05)
    assert unet() is None


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_inputs_stay_in_place_where_a_family_paints_larger(
    name: str, ask: Ask, engine: Diffusers, album: Album, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stretched to 80 pixels and cut back to 72, a picture would move against its mask."""
    seen: dict[str, Any] = {}

    def called(pipeline: Any, requests: Any, calls: Mapping[str, Any]) -> Any:
        seen.update(calls)
        return np.zeros((len(requests), calls["height"], calls["width"], 3), np.uint8)

    monkeypatch.setattr(engine, "_called", called)
    made = engine(Batch((ask(name, "inpainting", **box(album, 1)),)))
    (kept,) = made.kept
    assert kept is not None
    picture, mask = np.asarray(seen["image"][0]), np.asarray(seen["mask_image"][0])
    assert (seen["width"], seen["height"]) == (80, 64)
    assert picture.shape[:2] == mask.shape == (64, 80)
    assert np.array_equal(picture[:, 4:76], kept.original)
    assert np.array_equal(mask[:, 4:76], (kept.repainted * 255).astype(np.uint8))


def test_what_an_edit_must_keep_is_measured(ask: Ask, make: Make, album: Album) -> None:
    made = make(ask("sd1", "inpainting", **box(album, 1)))
    (image,), (kept,) = made.images, made.kept
    assert kept is not None
    assert kept.box == (9, 8, 24, 32)
    assert preserved_db(image, kept) == IDENTICAL_DB
    spoilt = image.copy()
    spoilt[:4] = 255 - spoilt[:4]
    assert preserved_db(spoilt, kept) < 30


def test_outpainting_keeps_the_inner_picture_and_inpainting_mixes_grey_masks(
    ask: Ask, make: Make, album: Album
) -> None:
    photo = album.photo(1, size=(WIDE - 24, HIGH - 8))
    given = {"inputs": (photo,), "strength": 1.0, "region": Region("border", (16, 0, 8, 8))}
    image = make(ask("sd1", "outpainting", **given)).images[0]
    assert np.array_equal(image[:-8, 16:-8], album.store.pixels(photo.sha256))
    made = make(ask("sd1", "inpainting", **mask_file(album, 1)))
    (image,), (kept,) = made.images, made.kept
    assert kept is not None
    assert not np.array_equal(image[:, :24], kept.original[:, :24])
    assert not np.array_equal(image[:, 24:48], kept.original[:, 24:48])
    assert np.array_equal(image[:, 48:], kept.original[:, 48:])


def test_depth_is_seen_whatever_stands_beside_it(ask: Ask, make: Make, album: Album) -> None:
    """A photo's own depth, and a given depth picture, in one batch."""
    guessed = ask("depth", "depth-to-image", **{**photo_and_depth(album, 1), "strength": 0.9})
    given = replace(guessed)
    guessed = replace(guessed, inputs=guessed.inputs[:1])
    a, b = make(given).images[0], make(guessed).images[0]
    assert not np.array_equal(a, b)
    assert np.array_equal(make(given, guessed).images, [a, b])
    assert np.array_equal(make(guessed, given).images, [b, a])


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_controls_act_by_their_scale(
    family: str, ask: Ask, engine: Diffusers, album: Album
) -> None:
    given = ready(family)(album, 1)
    silent = (replace(given["controls"][0], scale=0.0),)
    plain = one(engine, ask(family))
    assert np.array_equal(
        one(engine, ask(family, "controlnet", **given | {"controls": silent})), plain
    )
    assert not np.array_equal(one(engine, ask(family, "controlnet", **given)), plain)
    drawn = one(engine, ask(family, "controlnet", **edges_of_photo(family)(album, 1)))
    assert not np.array_equal(drawn, one(engine, ask(family, "controlnet", **given)))


@pytest.mark.parametrize(("name", "control"), [("sd1", "sdxl"), ("sdxl", "sd1")])
def test_a_controlnet_of_another_family_is_refused(
    name: str, control: str, ask: Ask, fresh: Callable[..., Diffusers], album: Album
) -> None:
    engine = fresh()
    with pytest.raises(SetupError, match=f"'{control}-control' is of another family than '{name}'"):
        one(engine, ask(name, "controlnet", **ready(control)(album, 1)))
    assert one(engine, ask(name, "controlnet", **ready(name)(album, 1))).shape == (HIGH, WIDE, 3)


def test_a_controlnet_without_weights_says_so(
    models: Mapping[str, Model], ask: Ask, fresh: Callable[..., Diffusers], album: Album,
    tmp_path: Path,
) -> None:  # fmt: skip
    config = Path(models["sd1-control"].source, "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    engine = fresh(replace(models["sd1-control"], source=str(tmp_path)))
    with pytest.raises(SetupError, match="'sd1-control' does not load from the folder"):
        one(engine, ask("sd1", "controlnet", **ready("sd1")(album, 1)))


@pytest.mark.parametrize(("factor", "name"), [(4, "up4"), (2, "up2")])
@pytest.mark.parametrize(
    ("wide", "high"), [(16, 24), (27, 22), (80, 68), (150, 40)], ids=lambda side: str(side)
)
def test_upscaling_any_size(
    factor: int, name: str, wide: int, high: int, ask: Ask, make: Make, album: Album
) -> None:
    """Larger than a tile, smaller than one, and no multiple of anything."""
    size = {"width": wide * factor // 8 * 8, "height": high * factor // 8 * 8, "steps": 1}
    first = ask(name, "upscaling", **size, **small(wide, high)(album, 1))
    image = make(first).images[0]
    assert image.shape == (size["height"], size["width"], 3)
    second = ask(name, "upscaling", prompt="", seed=5, **size, **small(wide, high)(album, 2))
    both = make(second, first).images
    assert np.array_equal(both[1], image)
    assert np.array_equal(make(second).images[0], both[0])


LOOK, OTHER = Adapter("sd1-look", "", 0.8), Adapter("sd1-other-look", "", 0.8)
WORD, LONG_WORD = Adapter("sd1-word", ""), Adapter("sd1-long-word", "")


def test_loras_come_and_go(ask: Ask, fresh: Callable[..., Diffusers]) -> None:
    """In one engine, whatever was at work before, the pixels are those of a fresh engine."""
    plain = ask("sd1")
    asked = [
        plain,
        replace(plain, adapters=(LOOK,)),
        replace(plain, adapters=(replace(LOOK, weight=-0.5),)),
        replace(plain, adapters=(OTHER,)),
        replace(plain, adapters=(LOOK, OTHER)),
    ]
    alone = [one(fresh(), each) for each in asked]
    engine = fresh()
    for number in (0, 1, 0, 1, 3, 1, 4, 2, 3, 0, 4):
        assert np.array_equal(one(engine, asked[number]), alone[number])
    for number, image in enumerate(alone):
        assert not any(np.array_equal(image, other) for other in alone[:number])
    still = replace(plain, adapters=(replace(LOOK, weight=0.0),))
    assert np.array_equal(one(engine, still), alone[0])
    assert engine.loads == 1


def test_a_lora_acts_in_every_mode_of_its_model(
    ask: Ask, fresh: Callable[..., Diffusers], album: Album
) -> None:
    engine = fresh()
    for mode, given in (
        ("text-to-image", words),
        ("image-to-image", from_photo),
        ("inpainting", box),
        ("controlnet", ready("sdxl")),
    ):
        plain = ask("sdxl", mode, **given(album, 1))
        looked = replace(plain, adapters=(Adapter("sdxl-look", "", 1.0),))
        image = one(engine, looked)
        assert not np.array_equal(one(engine, plain), image)
        assert np.array_equal(one(fresh(), looked), image)


@pytest.mark.parametrize(("adapter", "token"), [(WORD, "<brand>"), (LONG_WORD, "<house>")])
@pytest.mark.parametrize("syntax", ["plain", "compel"])
def test_a_learnt_word_works_and_is_forgotten(
    adapter: Adapter, token: str, syntax: str, ask: Ask, fresh: Callable[..., Diffusers]
) -> None:
    engine = fresh()
    unknown = ask("sd1", prompt=f"a {token} mug", prompt_syntax=syntax)
    known = replace(unknown, adapters=(adapter,))
    before, learnt = one(engine, unknown), one(engine, known)
    assert not np.array_equal(learnt, before)
    assert np.array_equal(one(engine, unknown), before)
    assert np.array_equal(one(engine, known), learnt)
    assert np.array_equal(one(fresh(), known), learnt)
    with_look = one(engine, replace(known, adapters=(adapter, LOOK)))
    assert not np.array_equal(with_look, learnt)
    assert np.array_equal(one(engine, unknown), before)
    if syntax == "compel":
        plainly = one(fresh(), replace(known, prompt_syntax="plain"))
        assert np.array_equal(plainly, learnt)


def test_cached_prompts_are_forgotten_with_their_adapters(
    models: Mapping[str, Model], ask: Ask, fresh: Callable[..., Diffusers]
) -> None:
    caching = fresh(replace(models["sd1"], memory={"cpu": {"prompt_cache": 8}}))
    unknown = ask("sd1", prompt="a <brand> mug")
    known = replace(unknown, adapters=(WORD,))
    before, learnt = one(caching, unknown), one(caching, known)
    assert_alike(learnt, one(fresh(), known))
    assert not np.array_equal(learnt, before)
    assert np.array_equal(one(caching, unknown), before)


@pytest.mark.parametrize("syntax", ["plain", "compel"])
def test_a_learnt_word_of_two_towers(
    syntax: str, models: Mapping[str, Model], ask: Ask, fresh: Callable[..., Diffusers]
) -> None:
    """Each of SDXL's towers learns its own vectors, and forgets them."""
    engine = fresh()
    unknown = ask("sdxl", prompt="a <brand> mug", prompt_syntax=syntax)
    known = replace(unknown, adapters=(Adapter("sdxl-word", ""),))
    before, learnt = one(engine, unknown), one(engine, known)
    pipeline = engine._loader.pipeline(known)
    for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2):
        assert len(tokenizer("a <brand> <brand>_1 mug").input_ids) == 6
    assert not np.array_equal(learnt, before)
    assert np.array_equal(one(engine, unknown), before)
    assert_alike(one(engine, replace(known, prompt_syntax="plain")), learnt)
    with pytest.raises(SetupError, match="declare the `token` of sdxl-word"):
        one(fresh(replace(models["sdxl-word"], token="")), known)


@pytest.mark.parametrize(("name", "other"), [("sd1", "sdxl-look"), ("sdxl", "sd1-look")])
def test_a_lora_of_another_family_is_refused_and_leaves_no_trace(
    name: str, other: str, ask: Ask, fresh: Callable[..., Diffusers]
) -> None:
    engine = fresh()
    plain = ask(name)
    before = one(engine, plain)
    for _ in range(2):
        with pytest.raises(SetupError, match=f"{other} do not fit this model"):
            one(engine, replace(plain, adapters=(Adapter(other, ""),)))
        assert np.array_equal(one(engine, plain), before)
    own = replace(plain, adapters=(Adapter(f"{name}-look", ""),))
    assert np.array_equal(one(engine, own), one(fresh(), own))


def test_a_refused_adapter_does_not_take_others_with_it(
    ask: Ask, fresh: Callable[..., Diffusers]
) -> None:
    engine = fresh()
    worded = ask("sd1", prompt="a <brand> mug", adapters=(WORD,))
    learnt = one(engine, worded)
    for wrong in ((WORD, Adapter("sdxl-look", "")), (LOOK, Adapter("sdxl-look", ""))):
        assert np.array_equal(one(engine, worded), learnt)
        with pytest.raises(SetupError, match="do not fit"):
            one(engine, replace(worded, adapters=wrong))
        assert np.array_equal(one(engine, worded), learnt)
        with pytest.raises(SetupError, match="do not fit"):
            one(engine, replace(worded, adapters=wrong))
        plain = replace(worded, adapters=())
        assert np.array_equal(one(engine, plain), one(fresh(), plain))


@pytest.mark.parametrize(
    "memory",
    [
        {"attention": "slicing"},
        {"vae": ["slicing"]},
        {"vae": ["slicing", "tiling"]},
        {"channels_last": True},
        {"dtype": "float32"},
    ],
    ids=str,
)
def test_memory_options_paint_the_same_picture(
    memory: dict[str, Any], models: Mapping[str, Model], ask: Ask, engine: Diffusers,
    fresh: Callable[..., Diffusers], album: Album,
) -> None:  # fmt: skip
    sparing = fresh(replace(models["sd1"], memory={"cpu": memory}))
    # Larger than 64 pixels, the autoencoder would be tiled, which does change the picture.
    for request in (ask("sd1", width=64), ask("sd1", "inpainting", width=64, **box(album, 1))):
        made, usual = one(sparing, request), one(engine, request)
        assert_alike(made, usual)
        assert np.array_equal(sparing(Batch((replace(request, seed=9), request))).images[1], made)


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("negative", ["", "blue"])
def test_a_prompt_cache_changes_no_pixel(
    name: str, negative: str, models: Mapping[str, Model], ask: Ask, engine: Diffusers,
    fresh: Callable[..., Diffusers], album: Album,
) -> None:  # fmt: skip
    caching = fresh(replace(models[name], memory={"cpu": {"prompt_cache": 1}}))
    first = ask(name, negative_prompt=negative)
    second = ask(name, negative_prompt=negative, prompt="a blue vase")
    painted = ask(name, "image-to-image", negative_prompt=negative, **from_photo(album, 1))
    for request in (first, second, first, painted):
        assert_alike(one(caching, request), one(engine, request))


@pytest.mark.parametrize(("name", "side"), [("up4", 16), ("up2", 32)])
def test_a_prompt_cache_is_left_out_where_it_does_not_fit(
    name: str, side: int, models: Mapping[str, Model], ask: Ask, engine: Diffusers,
    fresh: Callable[..., Diffusers], album: Album,
) -> None:  # fmt: skip
    caching = fresh(replace(models[name], memory={"cpu": {"prompt_cache": 8}}))
    request = ask(name, "upscaling", width=64, steps=1, **small(side, side)(album, 1))
    assert_alike(one(caching, request), one(engine, request))


@pytest.mark.parametrize("option", ["model", "sequential"])
def test_offload_without_an_accelerator_is_refused(
    option: str, models: Mapping[str, Model], ask: Ask, fresh: Callable[..., Diffusers]
) -> None:
    engine = fresh(replace(models["sd1"], memory={"cpu": {"offload": option}}))
    with pytest.raises(SetupError, match="offload needs an accelerator"):
        engine.load(Batch((ask("sd1"),)))


def test_half_precision_is_the_models_to_declare(
    models: Mapping[str, Model], ask: Ask, fresh: Callable[..., Diffusers]
) -> None:
    half = fresh(replace(models["sd1"], memory={"cpu": {"dtype": "bfloat16"}}))
    image = one(half, ask("sd1"))
    assert image.std() > 1
    assert str(half._loader.pipeline(ask("sd1")).unet.dtype) == "torch.bfloat16"


@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_weighted_prompts(name: str, ask: Ask, make: Make) -> None:
    plain = ask(name, prompt="a red mug", negative_prompt="black")
    weighted = [
        replace(plain, prompt=prompt, prompt_syntax="compel")
        for prompt in ("a (red)1.6 mug", "a red mug", "a (red)0.4 mug", "a green vase, " * 30)
    ]
    alone = [make(each).images[0] for each in weighted]
    assert not np.array_equal(alone[0], alone[1])
    assert not np.array_equal(alone[0], alone[2])
    # The prompt is embedded another way, and random weights enlarge what rounds differently.
    assert_alike(alone[1], make(plain).images[0], levels=8)
    assert np.array_equal(make(weighted[3], weighted[0]).images, [alone[3], alone[0]])
    assert np.array_equal(make(*weighted[1:]).images, alone[1:])


def test_weighted_prompts_of_several_lengths_upscale_in_one_batch(
    ask: Ask, make: Make, album: Album
) -> None:
    given = {"steps": 1, "prompt_syntax": "compel", **small(18, 16)(album, 1)}
    short = ask("up4", "upscaling", **given)
    long = ask("up4", "upscaling", **{**given, "prompt": "a green vase, " * 30})
    alone = [make(each).images[0] for each in (short, long)]
    assert not np.array_equal(*alone)
    assert np.array_equal(make(short, long).images, alone)


@pytest.mark.parametrize("name", ["sd3", "flux", "up2"])
def test_weights_are_refused_where_no_text_tower_takes_them(
    name: str, ask: Ask, engine: Diffusers, album: Album
) -> None:
    mode, given = ("upscaling", small(36, 32)) if name == "up2" else ("text-to-image", words)
    with pytest.raises(SetupError, match="switch weighting off"):
        one(engine, ask(name, mode, prompt_syntax="compel", **given(album, 1)))


def test_negative_prompts(ask: Ask, engine: Diffusers, album: Album) -> None:
    for name in ("sd1", "sdxl", "sd3"):
        plain = ask(name)
        image = one(engine, replace(plain, negative_prompt="blue"))
        assert not np.array_equal(image, one(engine, plain))
    for mode, given in (("text-to-image", words), ("inpainting", box)):
        wanted = ask("flux", mode, negative_prompt="blue", **given(album, 1))
        with pytest.raises(ValueError, match="takes no negative prompt; leave"):
            one(engine, wanted)


def test_a_checkpoint_that_does_not_load_says_so(
    models: Mapping[str, Model], ask: Ask, fresh: Callable[..., Diffusers], tmp_path: Path
) -> None:
    (tmp_path / "model_index.json").write_text("{broken")
    engine = fresh(replace(models["sd1"], source=str(tmp_path)))
    with pytest.raises(SetupError, match="does not load from the folder"):
        engine.load(Batch((ask("sd1"),)))


def test_a_hub_out_of_reach_says_so(
    models: Mapping[str, Model], ask: Ask, fresh: Callable[..., Diffusers],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    absent = replace(models["sd1"], source="nobody/nothing", revision="0" * 40, is_folder=False)
    with pytest.raises(SetupError, match="does not load from the hub 'nobody/nothing'"):
        fresh(absent).load(Batch((ask("sd1"),)))


def test_a_device_that_is_not_there_is_refused() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(SetupError, match="'cuda' is not available"):
        pick_device("cuda")
