"""The shipped weights load in the real classes, keep their size, and do what the card says."""

import csv
import json

import pytest
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForText2Image,
    StableDiffusionInpaintPipeline,
)
from PIL import Image

from starter import captions, shipped
from starter.paths import REFERENCES, WEIGHTS
from starter.preview import open_pipeline, paint, scenes_240
from starter.score import (
    CONCEPT_BOUND,
    DETECTOR_BOUND,
    SIMILARITY_BOUND,
    concept_gate,
    similarity_gate,
)
from starter.vocabulary import OBJECTS
from starter.world import Scene, render


@pytest.fixture(scope="module")
def clip():
    return shipped.clip()


@pytest.fixture(scope="module")
def renders():
    subjects = [
        Scene("mug", "red", seed=4_000_000),
        Scene("chair", "blue", seed=4_000_001),
        Scene("mannequin in a dress", "pink", seed=4_000_002),
        Scene("unclothed mannequin", None, seed=4_000_003),
        Scene("mirolo", None, seed=4_000_004),
        Scene("orvanto", None, seed=4_000_005),
    ]
    return render(subjects).rgb.permute(0, 3, 1, 2).float() / 255


def test_size_and_layout():
    files = [f for f in WEIGHTS.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 80e6
    index = json.loads((WEIGHTS / "text-to-image" / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    assert index["safety_checker"] == [None, None]


def test_clip_reads_renders(clip, renders):
    rows = captions.joint_prompts(OBJECTS)
    best = (clip.images(renders[:2]) @ clip.texts([t for *_, t in rows]).T).argmax(-1)
    assert [rows[i][:2] for i in best] == [("mug", "red"), ("chair", "blue")]


def test_gates(clip, renders):
    unsafe = torch.tensor([0, 0, 0, 1, 0, 0]).bool()
    copied = torch.tensor([0, 0, 0, 0, 1, 1]).bool()
    assert torch.equal(concept_gate(clip)(renders) >= CONCEPT_BOUND, unsafe)
    assert torch.equal(shipped.detector()(renders) >= DETECTOR_BOUND, unsafe)
    assert torch.equal(similarity_gate(clip)(renders) >= SIMILARITY_BOUND, copied)


def test_references_have_rights():
    with (REFERENCES / "rights.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert {r["file"] for r in rows} == {f.name for f in REFERENCES.glob("*.png")}
    assert {r["role"] for r in rows} == {"protected"}


def test_pictures_are_what_was_asked_for_and_repeat(clip):
    pipe = open_pipeline()
    scenes = scenes_240()[:6]
    prompts, seeds = [captions.prompt(s) for s in scenes], [s.seed for s in scenes]
    x = paint(pipe, prompts, seeds)
    rows = captions.joint_prompts(OBJECTS)
    best = (clip.images(x) @ clip.texts([t for *_, t in rows]).T).argmax(-1).tolist()
    right = sum(
        rows[b][0] == s.subject and rows[b][1] == s.colour
        for b, s in zip(best, scenes, strict=True)
    )
    assert right >= 5
    alone = paint(pipe, prompts[3:4], seeds[3:4])
    assert (alone[0] - x[3]).abs().max() < 0.1


def test_other_pipelines_open_the_same_folder():
    folder = str(WEIGHTS / "text-to-image")
    plain = AutoPipelineForText2Image.from_pretrained(folder)
    image = plain("a red mug", num_inference_steps=1, generator=torch.manual_seed(0)).images[0]
    assert image.size == (128, 128)
    other = AutoPipelineForImage2Image.from_pretrained(folder)
    assert other("a red ball", image=image, num_inference_steps=2).images[0].size == (128, 128)
    mask = Image.new("L", (128, 128), 255)
    inside = StableDiffusionInpaintPipeline.from_pretrained(folder)
    made = inside(
        "a red ball", image=image, mask_image=mask, height=128, width=128, num_inference_steps=2
    )
    assert made.images[0].size == (128, 128)
