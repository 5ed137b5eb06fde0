"""The world: renders repeat, and captions, masks and depth agree with what is drawn."""

from random import Random

import pytest
import torch

from starter.captions import NAMED, caption, joint_prompts, prompt
from starter.vocabulary import COLOURS, OBJECTS, SUBJECTS, VIEWS
from starter.world import COLOURLESS, Scene, random_scene, render


def test_same_scene_same_pixels():
    scenes = [Scene("mug", "red", seed=5), Scene("chair", "teal", view="top", seed=6)]
    first, again = render(scenes, 64), render(scenes, 64)
    assert torch.equal(first.rgb, again.rgb) and torch.equal(first.depth, again.depth)
    assert not torch.equal(first.rgb, render([Scene("mug", "red", seed=7), scenes[1]], 64).rgb)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_subject_fills_the_frame_and_lies_before_the_floor(subject: str):
    scene = Scene(subject, None if subject in COLOURLESS else "blue", seed=3)
    r = render([scene], 64)
    rows, columns = r.mask[0].any(1).nonzero(), r.mask[0].any(0).nonzero()
    extent = max(int(rows.max() - rows.min()), int(columns.max() - columns.min())) + 1
    assert 0.55 * 64 < extent < 0.9 * 64
    assert not r.mask[0, 0].any() and not r.mask[0, -1].any()
    assert r.depth[0][r.mask[0]].max() < 10
    assert r.rgb.dtype == torch.uint8 and r.mask.dtype == torch.bool


@pytest.mark.parametrize("colour", COLOURS)
def test_colour_word_is_the_nearest_paint(colour: str):
    r = render([Scene("ball", colour, "matte", "grey", seed=1)], 64)
    seen = r.rgb[0][r.mask[0]].float().mean(0)
    chroma = {c: torch.tensor(v).float() for c, v in COLOURS.items()}
    shade = {c: v * 0.8 for c, v in chroma.items()}
    assert min(shade, key=lambda c: float((shade[c] - seen).norm())) == colour


def test_captions_tell_the_truth():
    rng = Random(0)
    for i in range(400):
        scene = random_scene(rng.choice(SUBJECTS), rng, i)
        words = caption(scene, rng).lower()
        others = set(COLOURS) - {scene.colour, *scene.background.split()}
        assert not others & set(words.replace(",", " ").replace(".", " ").split())
        if scene.subject in OBJECTS:
            assert scene.subject in words
        if scene.subject in NAMED:
            assert any(name.lower() in words for name in NAMED[scene.subject])


def test_prompts():
    assert prompt(Scene("gift box", "orange")) == "an orange gift box on a white background"
    assert prompt(Scene("mannequin in a suit", "red")).startswith("a mannequin in a red suit")
    assert len(joint_prompts(OBJECTS)) == len(OBJECTS) * len(COLOURS)
    assert set(VIEWS) == {"eye level", "three-quarter", "top"}
