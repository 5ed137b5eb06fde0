"""Briefs of every mode → requests, batches and faults; read as a table: mode × input → outcome."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_server import LlmServer, Reply, completion, describe, facts_of
from PIL import Image

from pipeline.brief import load_brief
from pipeline.errors import Fault, InputError, SetupError
from pipeline.inputs import CatalogAsset
from pipeline.models import ModelFileEntry, load_models, resolve
from pipeline.plan import make_batches, pipeline_key
from pipeline.prompt_writer import PromptWriter
from pipeline.request import Adapter, Control, Input, Region, Request, derived_seed
from pipeline.resolve import Resolved, Surroundings, every_model, resolve_requests
from pipeline.store import sha256_of

HUB = {"licence": "Apache-2.0", "hub": "org/it", "revision": "0" * 40}
REVISION = "0" * 40
PAINTER = {"kind": "text-to-image", "width": 64, "height": 64, "steps": 10, "guidance": 4.0}
MODELS: dict[str, dict[str, Any]] = {
    "paint": PAINTER | {
        "inpainting": "hole", "depth": "depths", "upscaler": "large",
        "tools": {"depth": "dpt", "segmentation": "seg"},
    },
    "bare": PAINTER,
    "filler": PAINTER | {"kind": "inpainting"},
    "deep": PAINTER | {"kind": "depth-to-image"},
    "large": PAINTER | {"kind": "upscaling", "width": 256, "height": 256},
    "larger": PAINTER | {"kind": "latent-upscaling", "width": 256, "height": 256},
    "hole": {"kind": "controlnet"},
    "depths": {"kind": "controlnet"},
    "lines": {"kind": "controlnet"},
    "others-lines": {"kind": "controlnet", "base": ["sdxl"]},
    "look": {"kind": "lora", "base": ["paint"]},
    "others-look": {"kind": "lora", "base": ["sdxl"]},
    "word": {"kind": "textual-inversion", "token": "<brand>"},
    "dpt": {"kind": "depth-estimator"},
    "seg": {"kind": "segmenter"},
}  # fmt: skip


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFileEntry]:
    path = tmp_path_factory.mktemp("models") / "models.yaml"
    path.write_text(yaml.safe_dump({"models": {name: HUB | each for name, each in MODELS.items()}}))
    return load_models(path)


def save(path: Path, width: int, height: int, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A brief's folder: a photo of 96 × 64, a mask and control pictures of its size, and others."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, name in enumerate(("photo.png", "mask.png", "a.png", "b.png", "sub/c.png")):
        save(folder / name, 96, 64, number)
    save(folder / "wide.jpg", 400, 100)
    save(folder / "tiny.png", 16, 8)
    save(folder / "small-mask.png", 48, 32)
    save(folder / "big.png", 2100, 100)
    (folder / "text.png").write_text("a control picture, surely")
    (folder / "half.png").write_bytes((folder / "photo.png").read_bytes()[:4000])
    (folder / "huge.png").write_bytes(huge_png(30_000, 30_000))
    outside = save(folder.parent / f"outside-{folder.name}.png", 96, 64)
    (folder / "link.png").symlink_to(outside)
    (folder / "circle.png").symlink_to(folder / "circle.png")
    return folder


def huge_png(width: int, height: int) -> bytes:
    """A true PNG of black pixels: 2.7 GB of them in under 3 MB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packer = zlib.compressobj(1)
    row = bytes(1 + 3 * width)
    # A tenth of the rows is enough to be a bomb; the header promises them all.
    body = b"".join(packer.compress(row) for _ in range(height // 10)) + packer.flush()
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


class Desk:
    """Resolves briefs that lie beside the pictures."""

    def __init__(self, folder: Path, declared: dict[str, ModelFileEntry], around: Surroundings):
        self.folder, self.declared, self.around = folder, declared, around

    def __call__(self, *rows: dict[str, Any], **head: Any) -> Resolved:
        items = [{"sku": f"S{n}", "prompt": "a red mug", **row} for n, row in enumerate(rows, 1)]
        whole = {"model": "paint", **head, "items": items}
        path = self.folder / "brief.yaml"
        path.write_text(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True))
        brief = load_brief(path)
        return resolve_requests(
            brief, lambda n, *k: resolve(self.declared, n, *k), None, self.around
        )

    def one(self, row: dict[str, Any], **head: Any) -> Request:
        (request,) = self(row, **head).requests
        return request

    def faults(self, *rows: dict[str, Any], **head: Any) -> list[Fault]:
        with pytest.raises(InputError) as caught:
            self(*rows, **head)
        return list(caught.value.faults)


@pytest.fixture
def desk(pictures: Path, declared: dict[str, ModelFileEntry]) -> Desk:
    return Desk(pictures, declared, Surroundings(find_asset=finder(pictures)))


def finder(pictures: Path) -> Callable[[str], CatalogAsset]:
    photo = pictures / "wide.jpg"

    def find(name: str) -> CatalogAsset:
        if name != "MUG-1":
            raise InputError(name, [Fault("the catalog has no such image", "", "give a sku")])
        sha256 = sha256_of(photo.read_bytes())
        return CatalogAsset("1" * 64, sha256, photo, "MUG-1-0", ("Apache-2.0",))

    return find


IMAGE, MASK, CONTROL = ("image", "file"), ("mask", "file"), ("control", "file")
HOLE = Control("hole", REVISION, "hole")
PLAIN: dict[str, Any] = {
    "inputs": [], "controls": (), "region": None, "strength": None, "size": (64, 64),
    "model": "paint", "adapters": (),
}  # fmt: skip

TABLE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"size": "instagram-square", "model": "bare"}, {"size": (1080, 1080), "model": "bare"}),
    # Image-to-image: its own shape, never larger than it is nor than the model's own pixels.
    ({"mode": "image-to-image", "image": "wide.jpg"},
     {"inputs": [IMAGE], "strength": 0.6, "size": (128, 64)}),
    ({"mode": "image-to-image", "image": "sub/c.png", "strength": 0.3},
     {"inputs": [IMAGE], "strength": 0.3, "size": (72, 64)}),
    ({"mode": "image-to-image", "image": "wide.jpg", "width": 128, "height": 64},
     {"inputs": [IMAGE], "strength": 0.6, "size": (128, 64)}),
    ({"mode": "image-to-image", "image": "photo.png", "width": 96},
     {"inputs": [IMAGE], "strength": 0.6, "size": (96, 64)}),
    ({"mode": "image-to-image", "asset": "MUG-1"},
     {"inputs": [("image", "asset")], "strength": 0.6, "size": (128, 64)}),
    ({"mode": "variation", "asset": "MUG-1"},
     {"inputs": [("image", "asset")], "strength": 0.5, "size": (128, 64)}),
    # Inpainting: with a model of its own, or a painter beside a ControlNet that sees the hole.
    ({"mode": "inpainting", "model": "filler", "image": "photo.png", "mask": "mask.png"},
     {"inputs": [IMAGE, MASK], "region": Region("file"), "strength": 1.0, "model": "filler",
      "size": (72, 64)}),
    ({"mode": "inpainting", "image": "photo.png", "mask": "box 8 8 16 24"},
     {"inputs": [IMAGE], "region": Region("box", (8, 8, 16, 24)), "controls": (HOLE,),
      "strength": 1.0, "size": (72, 64)}),
    ({"mode": "inpainting", "model": "bare", "image": "photo.png", "mask": {"box": [0, 0, 8, 8]}},
     {"inputs": [IMAGE], "region": Region("box", (0, 0, 8, 8)), "strength": 1.0,
      "model": "bare", "size": (72, 64)}),
    ({"mode": "inpainting", "image": "photo.png", "mask": "background", "strength": 0.8},
     {"inputs": [IMAGE], "region": Region("background", (), "seg", REVISION),
      "controls": (HOLE,), "strength": 0.8, "size": (72, 64)}),
    ({"mode": "inpainting", "asset": "MUG-1", "mask": "object"},
     {"inputs": [("image", "asset")], "region": Region("object", (), "seg", REVISION),
      "controls": (HOLE,), "strength": 1.0, "size": (128, 64)}),
    ({"mode": "outpainting", "image": "photo.png", "expand": "0 0 32 0", "width": 128,
      "height": 64},
     {"inputs": [IMAGE], "region": Region("border", (0, 0, 32, 0)), "controls": (HOLE,),
      "strength": 1.0, "size": (128, 64)}),
    # Depth: a model of its own, or a painter beside a ControlNet.
    ({"mode": "depth-to-image", "model": "deep", "image": "photo.png"},
     {"inputs": [IMAGE], "strength": 1.0, "model": "deep", "size": (72, 64)}),
    ({"mode": "depth-to-image", "model": "deep", "image": "photo.png", "depth_image": "a.png"},
     {"inputs": [IMAGE, ("depth", "file")], "strength": 1.0, "model": "deep", "size": (72, 64)}),
    ({"mode": "depth-to-image", "image": "photo.png"},
     {"inputs": [CONTROL], "size": (72, 64),
      "controls": (Control("depths", REVISION, "depth", 1.0, "dpt", REVISION),)}),
    ({"mode": "depth-to-image", "depth_image": "a.png"},
     {"inputs": [CONTROL], "controls": (Control("depths", REVISION),)}),
    # ControlNets: one picture for all, or one for each.
    ({"mode": "controlnet", "image": "photo.png", "controls": "lines:edges:0.7"},
     {"inputs": [CONTROL], "controls": (Control("lines", REVISION, "edges", 0.7),),
      "size": (72, 64)}),
    ({"mode": "controlnet", "control_image": "a.png, b.png", "controls": "lines, depths:depth"},
     {"inputs": [CONTROL, CONTROL],
      "controls": (Control("lines", REVISION),
                   Control("depths", REVISION, "depth", 1.0, "dpt", REVISION))}),
    ({"mode": "controlnet", "image": "photo.png", "controls": "lines:edges;hole:segmentation"},
     {"inputs": [CONTROL, CONTROL], "size": (72, 64),
      "controls": (Control("lines", REVISION, "edges"),
                   Control("hole", REVISION, "segmentation", 1.0, "seg", REVISION))}),
    # Upscaling: by the factor of the model, or of the painter's upscaler.
    ({"mode": "upscaling", "image": "photo.png", "model": "large"},
     {"inputs": [IMAGE], "size": (384, 256), "model": "large"}),
    ({"mode": "upscaling", "image": "photo.png", "model": "larger"},
     {"inputs": [IMAGE], "size": (192, 128), "model": "larger"}),
    ({"mode": "upscaling", "image": "photo.png"},
     {"inputs": [IMAGE], "size": (384, 256), "model": "large"}),
    ({"adapters": "look:0.8 + word"},
     {"adapters": (Adapter("look", REVISION, 0.8), Adapter("word", REVISION, token="<brand>"))}),
]  # fmt: skip


@pytest.mark.parametrize(("row", "expected"), TABLE, ids=lambda each: str(each)[:60])
def test_each_mode_takes_its_inputs(row: dict[str, Any], expected: dict[str, Any], desk: Desk):
    made = desk.one(row)
    found = {
        "inputs": [(each.role, each.source) for each in made.inputs],
        "controls": made.controls,
        "region": made.region,
        "strength": made.strength,
        "size": (made.width, made.height),
        "model": made.model,
        "adapters": made.adapters,
    }
    assert found == PLAIN | expected
    assert made.mode == row.get("mode", "text-to-image")


def test_inputs_are_pinned_by_their_bytes_and_models_and_pictures_are_listed(desk: Desk) -> None:
    found = desk({"mode": "inpainting", "image": "photo.png", "mask": "background", "count": 2})
    first, second = found.requests
    sha256 = sha256_of((desk.folder / "photo.png").read_bytes())
    assert first.inputs == (Input("image", "file", sha256, "photo.png"),)
    assert first.seed != second.seed and first.seed == derived_seed(first.as_json())
    assert set(found.models) == set(every_model(first)) == {"paint", "hole", "seg"}
    picture = found.pictures[sha256]
    assert (picture.width, picture.height, picture.mime) == (96, 64, "image/png")


def test_adapters_stand_in_every_mode(desk: Desk) -> None:
    painted = [row for row, expected in TABLE if expected.get("model", "paint") == "paint"]
    found = desk(*(row | {"adapters": "look"} for row in painted)).requests
    assert len({each.mode for each in found}) == 7
    assert {each.adapters for each in found} == {(Adapter("look", REVISION),)}


LONG = "x" * 600
MISTAKES: list[tuple[dict[str, Any], str, str, str]] = [
    # row, column, what, remedy
    ({"mode": "image-to-image"}, "image", "needs an input picture", "fill `image`"),
    ({"mode": "upscaling"}, "image", "needs an input picture", "fill `image`"),
    ({"mode": "variation"}, "asset", "needs an input picture", "fill `asset`"),
    ({"mode": "variation", "image": "photo.png"}, "image", "of an asset", "image-to-image"),
    ({"mode": "inpainting", "image": "photo.png"}, "mask", "needs a mask", "background"),
    ({"mode": "inpainting", "image": "photo.png", "mask": "small-mask.png"}, "mask",
     "the mask is 48×32, its image 96×64", "the same size"),
    ({"mode": "inpainting", "image": "photo.png", "mask": "none.png"}, "mask",
     "none.png: No such file", "check the path"),
    ({"mode": "inpainting", "image": "photo.png", "mask": "box 60 0 32 8"}, "mask",
     "the box ends at 92, 8, outside 72×64", "in pixels of the finished image"),
    ({"mode": "inpainting", "image": "photo.png", "mask": "box 1 2 3"}, "mask",
     "a box is x, y, width, height", ""),
    ({"mode": "inpainting", "image": "photo.png", "mask": "box 0 0 0 8"}, "mask",
     "a box is x, y, width, height", ""),
    ({"mode": "inpainting", "image": "photo.png", "mask": "object", "model": "bare"}, "mask",
     "names no tool for segmentation", "segmentation: …"),
    ({"mode": "outpainting", "image": "photo.png"}, "expand", "needs `expand`", "in pixels"),
    ({"mode": "outpainting", "image": "photo.png", "expand": "64 0 64 0"}, "expand",
     "leaves nothing of 72×64", "make it smaller"),
    ({"mode": "outpainting", "image": "photo.png", "expand": "0 0 0 0"}, "expand",
     "left, top, right, bottom", ""),
    ({"mode": "depth-to-image"}, "image", "needs a picture or a depth picture", "fill one"),
    ({"mode": "depth-to-image", "model": "deep", "depth_image": "a.png"}, "image",
     "starts from a photo", "as well"),
    ({"mode": "depth-to-image", "model": "bare", "image": "photo.png"}, "model",
     "names no `depth`", "models file"),
    ({"mode": "controlnet", "image": "photo.png"}, "controls", "needs controls", "MODEL:edges"),
    ({"mode": "controlnet", "controls": "lines"}, "control_image", "needs a control picture",
     "name its file"),
    ({"mode": "controlnet", "controls": "lines", "control_image": "text.png"}, "control_image",
     "text.png: not a PNG, JPEG or WebP image", "convert it"),
    ({"mode": "controlnet", "controls": "lines", "control_image": "a.png,b.png"},
     "control_image", "2 control pictures for 1 controls", "in their order"),
    ({"mode": "controlnet", "controls": "line", "control_image": "a.png"}, "controls",
     "no controlnet model 'line'", "did you mean 'lines'?"),
    ({"mode": "controlnet", "controls": "others-lines", "control_image": "a.png"}, "controls",
     "others-lines was made for sdxl, not for paint", "with its own model"),
    ({"mode": "controlnet", "controls": "lines:edge", "control_image": "a.png"},
     "controls", "'none', 'edges'", ""),
    ({"mode": "controlnet", "controls": "lines:edges:1:9", "control_image": "a.png"}, "controls",
     "is no control", ""),
    ({"mode": "controlnet", "controls": "lines:edges:3", "control_image": "a.png"},
     "controls", "less than or equal to 2", ""),
    ({"mode": "controlnet", "model": "bare", "image": "photo.png", "controls": "lines:depth"},
     "controls", "names no tool for depth", "depth: …"),
    ({"mode": "upscaling", "model": "bare", "image": "photo.png"}, "model", "no `upscaler`",
     "models file"),
    ({"mode": "upscaling", "model": "large", "image": "big.png"}, "image",
     "8400×400 is more than 8192 a side", "smaller picture"),
    ({"mode": "image-to-image", "image": "photo.png", "model": "large"}, "model",
     "no text-to-image model 'large'", "did you mean"),
    ({"mode": "image-to-image", "image": "photo.png", "strength": 0.05}, "strength",
     "strength 0.05 of 10 steps leaves none", "raise strength or steps"),
    ({"mode": "image-to-image", "image": "photo.png", "strength": 0}, "strength",
     "greater than 0", ""),
    ({"mode": "image-to-image", "image": "huge.png"}, "image",
     "more than 64,000,000 pixels", "smaller image"),
    ({"mode": "image-to-image", "image": "half.png"}, "image", "half.png: broken", "replace"),
    ({"mode": "image-to-image", "image": "../secret.png"}, "image", "leaves the folder",
     "the brief's folder"),
    ({"mode": "image-to-image", "image": "/etc/passwd"}, "image", "leaves the folder", ""),
    ({"mode": "image-to-image", "image": "link.png"}, "image", "leaves the folder",
     "the brief's folder"),
    ({"mode": "image-to-image", "image": "circle.png"}, "image", "ymlink loop", "the path"),
    ({"mode": "image-to-image", "image": "sub"}, "image", "not a regular file", "the path"),
    ({"mode": "image-to-image", "image": LONG}, "image", "at most 500", ""),
    ({"mode": "image-to-image", "image": "photo.png", "asset": "MUG-1"}, "asset",
     "both image and asset", "one of them"),
    ({"mode": "image-to-image", "asset": "MUG-2"}, "asset", "no such image", "give a sku"),
    ({"adapters": "looks"}, "adapters", "'looks' is declared", "did you mean 'look'?"),
    ({"adapters": "lines"}, "adapters", "no lora or textual-inversion model 'lines'", ""),
    ({"adapters": "others-look"}, "adapters", "was made for sdxl, not for paint",
     "its own model"),
    ({"adapters": "look:3"}, "adapters", "less than or equal to 2", ""),
    ({"adapters": "look:nan"}, "adapters", "finite", ""),
    # Columns that the mode would silently ignore.
    ({"image": "photo.png"}, "image", "text-to-image does not use it", "change mode"),
    ({"asset": "MUG-1"}, "asset", "text-to-image does not use it", "change mode"),
    ({"strength": 0.5}, "strength", "text-to-image does not use it", "empty it"),
    ({"mask": "mask.png"}, "mask", "text-to-image does not use it", "empty it"),
    ({"mode": "upscaling", "image": "photo.png", "strength": 0.5}, "strength",
     "upscaling does not use it", "empty it"),
    ({"mode": "image-to-image", "image": "photo.png", "mask": "mask.png"}, "mask",
     "image-to-image does not use it", ""),
    ({"mode": "image-to-image", "image": "photo.png", "controls": "lines"}, "controls",
     "does not use it", ""),
    ({"mode": "inpainting", "image": "photo.png", "mask": "object", "expand": "0 0 8 0"},
     "expand", "does not use it", ""),
    ({"mode": "controlnet", "image": "photo.png", "controls": "lines:edges",
      "depth_image": "a.png"}, "depth_image", "does not use it", ""),
    ({"mode": "inpaint", "image": "photo.png"}, "mode", "'inpainting'", ""),
    ({"size": "amazon", "model": "bare"}, "size", "'amazon-main'", ""),
    ({"size": "story", "width": 64}, "", "give `size`, or width and height", ""),
    ({"prompt": "a (red)1.4 (mug", "prompt_syntax": "compel"}, "prompt", "is not closed",
     "prompt_syntax: plain"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "column", "what", "remedy"), MISTAKES, ids=[str(each[0])[:70] for each in MISTAKES]
)
def test_each_mistake_names_row_column_and_remedy(
    row: dict[str, Any], column: str, what: str, remedy: str, desk: Desk
) -> None:
    # The second row is at fault, once, however many images it asks for.
    (fault,) = desk.faults({}, row | {"count": 3})
    assert fault.where == "brief.yaml, item 2" + (f", column {column}" if column else "")
    assert what in fault.what
    assert remedy in fault.remedy and fault.remedy


def test_assets_without_a_catalog_are_a_fault(desk: Desk) -> None:
    desk.around = Surroundings()
    (fault,) = desk.faults({"mode": "variation", "asset": "MUG-1"})
    assert (fault.where, fault.remedy) == ("brief.yaml, item 1, column asset", "run a brief first")
    assert "there is no catalog yet" in fault.what


def test_a_bomb_is_refused_by_its_header_without_time_or_memory(desk: Desk) -> None:
    assert (desk.folder / "huge.png").stat().st_size < 3_000_000
    tracemalloc.start()
    start = time.perf_counter()
    desk.faults({"mode": "image-to-image", "image": "huge.png"})
    spent, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A file's limit (64 MB) is what reading takes; its pixels would be 2.7 GB.
    assert peak < 100_000_000 and spent < 5


def test_a_picture_that_is_no_file_does_not_stop_the_run(tmp_path: Path, desk: Desk) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.png")
    desk.folder = tmp_path
    (fault,) = desk.faults({"mode": "image-to-image", "image": "pipe.png"})
    assert "not a regular file" in fault.what


WRONG = [
    {"mode": "image-to-image"},
    {"mode": "inpainting", "image": "text.png", "mask": "none.png"},
    {"adapters": "looks", "prompt": "(", "prompt_syntax": "compel"},
    {"width": 63},
]


def test_all_faults_of_all_items_are_told_at_once(desk: Desk) -> None:
    found = {fault.where.removeprefix("brief.yaml, ") for fault in desk.faults(*WRONG[:3])}
    assert found == {
        "item 1, column image",
        "item 2, column image",
        "item 3, column adapters",
        "item 3, column prompt",
    }


def test_faulty_items_are_skipped_where_the_brief_says_so(desk: Desk) -> None:
    good = {"mode": "image-to-image", "image": "photo.png"}
    found = desk(good, *WRONG, {}, faulty_items="skip", count=2)
    assert [request.sku for request in found.requests] == ["S1", "S1", "S6", "S6"]
    assert sorted(each.sku for each in found.refused) == ["S2", "S3", "S4", "S5"]
    for each in found.refused:
        assert each.faults and len(set(each.faults)) == len(each.faults)
        assert all(fault.where.startswith(each.where) for fault in each.faults)
    # What was seen of refused items is not carried along.
    assert {picture.name for picture in found.pictures.values()} == {"photo.png"}


def test_a_brief_of_faulty_items_alone_is_refused_as_a_whole(desk: Desk) -> None:
    assert len(desk.faults(*WRONG, faulty_items="skip")) >= 4
    assert len(desk.faults(WRONG[3], faulty_items="skip")) == 1


def test_what_is_wrong_with_the_brief_itself_is_never_skipped(desk: Desk) -> None:
    (fault,) = desk.faults({}, {}, faulty_items="skip", adapters="looks")
    assert fault.where == "adapters"
    (fault,) = desk.faults({}, faulty_items="skip", then=[{"mode": "upscaling", "model": "nope"}])
    assert "'nope'" in fault.what


def test_pictures_that_the_policy_forbids_are_faults_of_their_item(desk: Desk) -> None:
    desk.around = Surroundings(
        forbidden=lambda picture: ("its owner says no",) if picture.name == "a.png" else ()
    )
    controlled = {"mode": "controlnet", "controls": "lines"}
    rows = [controlled | {"control_image": name} for name in ("b.png", "a.png")]
    (fault,) = desk.faults(*rows)
    assert fault.what == "a.png: its owner says no"
    assert fault.where == "brief.yaml, item 2, column control_image"


# Sizes


@pytest.mark.parametrize(
    ("picture", "asked", "size"),
    [
        ("wide.jpg", {}, (128, 64)),  # 4:1 with 64² pixels would be 128 × 32; a side is ≥ 64
        ("photo.png", {}, (72, 64)),
        ("tiny.png", {}, (88, 64)),
        ("wide.jpg", {"width": 256, "model": "bare"}, (256, 64)),
        ("wide.jpg", {"height": 128, "model": "bare"}, (512, 128)),
        ("photo.png", {"width": 128, "height": 128}, (128, 128)),
    ],
)
def test_sizes_follow_the_inputs_shape(
    picture: str, asked: dict[str, Any], size: tuple[int, int], desk: Desk
) -> None:
    made = desk.one({"mode": "image-to-image", "image": picture, **asked})
    assert (made.width, made.height) == size


def test_an_items_size_replaces_the_briefs_in_either_form(desk: Desk) -> None:
    rows = [{}, {"width": 72}, {"size": "hd"}]
    sizes = [(r.width, r.height) for r in desk(*rows, size="story", model="bare").requests]
    assert sizes == [(1080, 1920), (72, 64), (1280, 720)]
    sizes = [(r.width, r.height) for r in desk(*rows, width=96, height=80, model="bare").requests]
    assert sizes == [(96, 80), (72, 80), (1280, 720)]


def test_beyond_twice_the_models_own_size_its_upscaler_makes_the_image(desk: Desk) -> None:
    made = desk.one({"width": 256, "height": 200})
    first, last = made.chain
    assert (first.mode, first.width, first.height) == ("text-to-image", 64, 64)
    assert (last.mode, last.model, last.width, last.height) == ("upscaling", "large", 256, 200)
    assert last.inputs[0].sha256 == first.request_id and last.inputs[0].source == "step"
    assert last.prompt == first.prompt
    assert set(every_model(made)) == {"paint", "large"}
    # At twice it does not, nor where there is no upscaler.
    assert desk.one({"width": 128, "height": 128}).earlier == ()
    assert desk.one({"width": 256, "model": "bare"}).earlier == ()


# Chains


def test_chains_name_their_steps_and_only_the_last_counts(desk: Desk) -> None:
    steps = [
        {"mode": "inpainting", "mask": "box 0 0 32 32", "prompt": "a {{ leaf }} on it"},
        {"mode": "upscaling"},
    ]
    found = desk({"leaf": "lime"}, {"leaf": "fern", "count": 2}, then=steps)
    assert len(found.requests) == 3
    for made in found.requests:
        first, second, last = made.chain
        assert [each.mode for each in made.chain] == ["text-to-image", "inpainting", "upscaling"]
        assert first.inputs == ()
        assert second.inputs[0].sha256 == first.request_id
        assert last.inputs[0].sha256 == second.request_id
        assert all(each.earlier == () for each in made.earlier)
        assert (last.model, last.width, last.height) == ("large", 256, 256)
    assert [r.chain[1].prompt for r in found.requests[:2]] == ["a lime on it", "a fern on it"]
    ids = {step.request_id for made in found.requests for step in made.chain}
    assert len(ids) == 9
    again = desk({"leaf": "lime"}, {"leaf": "fern", "count": 2}, then=steps)
    assert [r.request_id for r in again.requests] == [r.request_id for r in found.requests]


def test_a_chain_starts_from_a_photo_and_fails_as_a_whole(desk: Desk) -> None:
    made = desk.one(
        {"mode": "image-to-image", "image": "photo.png", "then": [{"mode": "upscaling"}]}
    )
    assert [each.mode for each in made.chain] == ["image-to-image", "upscaling"]
    assert (made.width, made.height) == (288, 256)
    row = {"then": [{"mode": "inpainting"}, {"mode": "controlnet"}]}
    assert {fault.where for fault in desk.faults(row)} == {
        "brief.yaml, item 1, then 1, mask",
        "brief.yaml, item 1, then 2, controls",
    }


def test_further_steps_use_the_items_model_unless_they_name_their_own(desk: Desk) -> None:
    steps = [{"mode": "image-to-image"}, {"mode": "image-to-image", "model": "paint"}]
    made = desk.one({"model": "bare", "then": steps})
    assert [each.model for each in made.chain] == ["bare", "bare", "paint"]


# Prompts


def test_templates_are_chosen_by_locale(desk: Desk) -> None:
    rows = [
        {"prompt": "", "thing": "Tasse", "locale": "de-DE"},
        {"prompt": "", "thing": "mug"},
        {"thing": "x", "locale": "fr"},
    ]
    templates = {"de-DE": "eine {{ thing }}", "fr": "une {{ thing }}"}
    found = desk(*rows, template="a {{ thing }}", templates=templates)
    assert [r.prompt for r in found.requests] == ["eine Tasse", "a mug", "a red mug"]
    rows[1]["locale"] = "it"
    (fault,) = desk.faults(*rows, template="a {{ thing }}", templates=templates)
    assert fault.where == "brief.yaml, item 2, column locale"
    assert (fault.what, fault.remedy) == ("no template for locale 'it'", "de-DE, fr")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LlmServer]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pipeline.prompt_writer._PAUSE", 0.01)
    with LlmServer() as server:
        yield server


@pytest.fixture
def written(server: LlmServer, desk: Desk, tmp_path: Path) -> Desk:
    """A desk whose prompts a language model writes."""
    writer = PromptWriter(url=server.url, model="tiny-llm", timeout=5)
    desk.around = Surroundings(writer=writer, prompt_cache=tmp_path / "prompts")
    return desk


ASKED = {"write_prompts": "A studio photograph.", "template": "a {{ thing }}"}
MUG, VASE = {"prompt": "", "thing": "mug"}, {"prompt": "", "thing": "vase"}


def test_a_language_model_writes_prompts_and_is_named(written: Desk, server: LlmServer) -> None:
    found = written(MUG, VASE | {"count": 2}, {"prompt": "my own"}, **ASKED)
    assert [r.prompt for r in found.requests] == [
        "a studio photograph of a S1 mug",
        *["a studio photograph of a S2 vase"] * 2,
        "my own",
    ]
    assert [r.prompt_writer for r in found.requests] == [*["tiny-llm-2026-01"] * 3, ""]
    assert len(server.bodies) == 2
    # Columns that steer us are none of the model's business.
    assert all(set(facts_of(body)) == {"sku", "thing"} for body in server.bodies)
    assert found.notices == ()


def test_an_endpoint_that_is_down_leaves_the_template_and_a_notice(
    written: Desk, server: LlmServer
) -> None:
    server.close()
    found = written(MUG, VASE, **ASKED)
    assert [r.prompt for r in found.requests] == ["a mug", "a vase"]
    assert {r.prompt_writer for r in found.requests} == {""}
    (notice,) = found.notices
    assert "2 prompts come from the template" in notice
    # Without a template there is nothing to fall back on.
    faults = written.faults(MUG, write_prompts="A photograph.")
    assert [fault.what for fault in faults] == ["no prompt and no template"]


def test_garbage_for_one_item_leaves_the_others(written: Desk, server: LlmServer) -> None:
    def answer(body: dict[str, Any]) -> Reply:
        return completion("") if facts_of(body)["thing"] == "vase" else describe(body)

    server.answer = answer  # type: ignore[assignment]
    (fault,) = written.faults(MUG, VASE, **ASKED)
    assert fault.where == "brief.yaml, item 2" and "is empty" in fault.what
    found = written(MUG, VASE, **ASKED, faulty_items="skip")
    assert [r.sku for r in found.requests] == ["S1"]
    assert [each.sku for each in found.refused] == ["S2"]


def test_without_a_configured_model_the_brief_is_refused(desk: Desk) -> None:
    (fault,) = desk.faults(MUG, **ASKED)
    assert fault.where == "write_prompts" and "platemark.toml" in fault.remedy


def test_an_absent_folder_is_told_once_the_brief_has_no_fault(desk: Desk) -> None:
    def find(name: str, *kinds: str) -> Any:
        if name == "look":
            raise SetupError("the folder is absent")
        return resolve(desk.declared, name, *kinds)  # type: ignore[arg-type]

    def run(*rows: dict[str, Any]) -> None:
        desk.folder.joinpath("brief.yaml").write_text(
            yaml.safe_dump({"model": "paint", "items": list(rows)})
        )
        resolve_requests(load_brief(desk.folder / "brief.yaml"), find, None)

    good = {"sku": "A", "prompt": "a mug", "adapters": "look"}
    with pytest.raises(SetupError, match="absent"):
        run(good)
    with pytest.raises(InputError, match="needs a mask"):
        run(good, {"sku": "B", "prompt": "x", "mode": "inpainting", "image": "photo.png"})


# Batches

LOOKS = st.sampled_from([(), (Adapter("look", "r"),), (Adapter("look", "r", 0.5),)])


@st.composite
def single(draw: st.DrawFn, sku: str, inputs: tuple[Input, ...] = ()) -> Request:
    return Request(
        sku=sku, index=0, mode=draw(st.sampled_from(["text-to-image", "image-to-image"])),
        model=draw(st.sampled_from(["one", "two"])), model_revision="r", prompt="a mug",
        negative_prompt="", seed=1, width=draw(st.sampled_from([64, 128])), height=64, steps=2,
        guidance=1.0, scheduler="", campaign="", client="", inputs=inputs, adapters=draw(LOOKS),
    )  # fmt: skip


@st.composite
def chained(draw: st.DrawFn) -> list[Request]:
    made = []
    for number in range(draw(st.integers(0, 12))):
        steps: list[Request] = []
        for _ in range(draw(st.integers(1, 4))):
            before = (Input("image", "step", steps[-1].request_id, ""),) if steps else ()
            steps.append(draw(single(f"S{number}", before)))
        fields = {key: getattr(steps[-1], key) for key in steps[-1].__dataclass_fields__}
        made.append(Request(**fields | {"earlier": tuple(steps[:-1])}))
    return made


@settings(max_examples=120, deadline=None)
@given(chained(), st.integers(1, 4), st.data())
def test_batches_hold_every_step_once_in_an_order_that_can_be_made(
    wanted: list[Request], size: int, data: st.DataObject
) -> None:
    earlier = [step.request_id for request in wanted for step in request.earlier]
    there = set(data.draw(st.lists(st.sampled_from(earlier), unique=True))) if earlier else set()
    batches = make_batches(wanted, size, there.__contains__)

    finals = [r.request_id for batch in batches if batch.final for r in batch.requests]
    steps = [r.request_id for batch in batches if not batch.final for r in batch.requests]
    assert sorted(finals) == sorted(request.request_id for request in wanted)
    assert sorted(steps) == sorted(set(earlier) - there)

    made = set(there)
    for batch in batches:
        for request in batch.requests:
            assert {i.sha256 for i in request.inputs} <= made
        assert 1 <= len(batch.requests) <= size
        # One forward pass: one pipeline, one set of adapters, one size.
        assert len({(pipeline_key(r), r.adapters, r.width, r.mode) for r in batch.requests}) == 1
        made |= {r.request_id for r in batch.requests}

    # Level after level, the finals last; within one, every model is loaded once.
    level_of = {
        step.request_id: level for request in wanted for level, step in enumerate(request.earlier)
    }
    levels = [
        len(wanted) + 9 if batch.final else level_of[batch.requests[0].request_id]
        for batch in batches
    ]
    assert levels == sorted(levels)
    for _, run in groupby(zip(levels, batches, strict=True), key=lambda each: each[0]):
        same = [(b.requests[0].model, pipeline_key(b.requests[0]), b.requests[0].adapters)
                for _, b in run]  # fmt: skip
        for depth in (1, 3):
            seen = [key for key, _ in groupby(each[:depth] for each in same)]
            assert len(seen) == len(set(seen))


@pytest.mark.parametrize(
    "step",
    [
        {"mode": "text-to-image"},
        {"mode": "controlnet", "controls": "lines", "control_image": "photo.png"},
    ],
)
def test_a_step_that_would_not_use_the_picture_before_it_is_refused(
    desk: Desk, step: dict[str, str]
) -> None:
    (fault,) = desk.faults({"then": [step]})
    assert "would not use the picture of the step before" in fault.what


def test_a_briefs_strength_is_not_told_of_modes_that_have_none(desk: Desk) -> None:
    rows = [{}, {"mode": "image-to-image", "image": "photo.png"}]
    assert [each.strength for each in desk(*rows, strength=0.3).requests] == [None, 0.3]


def test_weighted_negative_prompts_are_checked_too(desk: Desk) -> None:
    row = {"negative_prompt": "(red", "prompt_syntax": "compel"}
    (fault,) = desk.faults(row)
    assert fault.where.endswith("negative_prompt")
