"""The models beside text-to-image load in the real classes and do their job on held-out renders."""

import json

import pytest
import torch
import yaml

from pipeline.weights import weights_sha256
from starter import captions, controls, dense, measures, modes, upscaler_folder
from starter.paths import WEIGHTS
from starter.pin import MODELS
from starter.score_modes import bicubic
from starter.tracer import trace
from starter.world import Scene, composite

SCENES = [
    Scene("mug", "red", background="grey", seed=4_100_000),
    Scene("chair", "blue", background="white", seed=4_100_001),
    Scene("bottle", "green", background="beige", view="eye level", seed=4_100_002),
    Scene("teapot", "purple", background="pale pink", seed=4_100_003),
]
"""Geometries that no model was trained on."""


@pytest.fixture(scope="module")
def renders():
    buffers = [trace(s.subject, s.view, [s.seed]) for s in SCENES]
    x = torch.cat([composite(g, [s]) for g, s in zip(buffers, SCENES, strict=True)])
    distance = torch.cat([g.depth for g in buffers])
    alpha = torch.cat([g.alpha for g in buffers])
    return measures.to_bytes(x).float() / 255, distance, alpha


def test_every_folder_is_declared_and_pinned():
    entries = yaml.safe_load(MODELS.read_text())["models"]
    folders = {e["folder"]: e["weights_sha256"] for e in entries.values()}
    assert set(folders) == {f"weights/{f.name}" for f in WEIGHTS.iterdir() if f.is_dir()}
    for folder, digest in folders.items():
        assert weights_sha256(MODELS.parent / folder) == digest
    for part, folder in entries["starter-upscaling"]["components"].items():
        assert (MODELS.parent / folder / "config.json").exists() or part == "tokenizer"


def test_depth_estimator(renders):
    x, distance, _ = renders
    made = measures.depth_reader()(x)
    assert made.shape == (4, 128, 128)
    found = measures.correlation(made, controls.depth(distance)[:, 0].float())
    assert found.min() > 0.9


def test_segmenter(renders):
    x, _, alpha = renders
    made = measures.segmenter()(x)
    assert measures.overlap(made > 0, alpha > 0.5).min() > 0.85
    names = [int(m[m > 0].mode().values) for m in made]
    truth = dense.label_map(SCENES, alpha).amax((1, 2)).tolist()
    assert sum(a == b for a, b in zip(names, truth, strict=True)) >= 3


@pytest.mark.parametrize("kind", ["edges", "depth", "segmentation"])
def test_result_follows_its_control_and_no_other(renders, kind):
    x, distance, alpha = renders
    control = {
        "edges": lambda: controls.edges(measures.to_bytes(x)),
        "depth": lambda: controls.depth(distance),
        "segmentation": lambda: controls.segmentation([s.subject for s in SCENES], alpha),
    }[kind]()
    prompts = [captions.prompt(Scene(s.subject, "orange")) for s in SCENES]
    made = modes.controlled(prompts, [1, 2, 3, 4], control)
    silhouettes = measures.segmenter()(made) > 0
    own = measures.overlap(silhouettes, alpha > 0.5).mean()
    assert own > measures.overlap(silhouettes, alpha.roll(1, 0) > 0.5).mean()
    assert own > 0.7


def test_inpainting_changes_the_hole_and_keeps_the_rest(renders):
    x, _, alpha = renders
    mask = torch.stack([controls.grow(a > 0.3, 6) for a in alpha])
    wanted = [Scene("ball", "yellow", background=s.background) for s in SCENES]
    made = modes.inpainted([captions.prompt(s) for s in wanted], [1, 2, 3, 4], x, mask)
    assert measures.psnr(made, x, ~mask).mean() > 24
    whole = modes.pasted(made, x, mask)
    assert torch.equal(whole[~mask[:, None].expand_as(x)], x[~mask[:, None].expand_as(x)])
    assert measures.told(measures.clip_reader()(whole), wanted)["colour"] >= 0.75


def test_upscaler_shares_its_text_parts_and_sharpens():
    folder = upscaler_folder.FOLDER
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionUpscalePipeline"
    assert {"unet", "vae", "scheduler", "low_res_scheduler", "text_encoder", "tokenizer"} <= set(
        index
    )
    assert not (folder / "text_encoder").exists()
    scene = Scene("mug", "red", background="grey", seed=4_100_000)
    large = composite(trace("mug", scene.view, [scene.seed], 512), [scene])
    small = torch.nn.functional.avg_pool2d(large, 4)
    made = modes.upscaled([captions.prompt(scene)], small)
    assert made.shape == (1, 3, 512, 512)
    smooth, true = bicubic(small), modes.faithful(made, small)
    assert measures.psnr(true, large) > measures.psnr(smooth, large) + 0.5
    assert measures.sharpness(true) > 1.4 * measures.sharpness(smooth)
