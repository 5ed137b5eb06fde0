"""The CompVis safety checker: margins that decide as diffusers' own, whatever layout it lies in."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from check_samples import Spec, pictures
from PIL import Image

from pipeline.checks import build_checks
from pipeline.checks.build import Context
from pipeline.checks.safety_checker import ORIGINAL_BOUND, SafetyChecker, load_checker
from pipeline.errors import SetupError
from pipeline.policy_checks import Checks

BOTH = {"explicit": ["concepts"], "minors": ["special_care"]}
SIDE = 24
COUNT = 48


def images_of_its_size(seed: int = 0):
    """Pictures that the checker's processor need not resize."""
    return pictures(COUNT, SIDE, SIDE, seed)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A random checker in the hub's layout, as old as that of CompVis: nested names, the positions
    as a buffer, the processor's former name. Half of the pictures lie above its thresholds."""
    import torch
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from safetensors.torch import load_file, save_file
    from transformers import CLIPConfig

    folder = tmp_path_factory.mktemp("safety")
    small = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }  # fmt: skip
    config = CLIPConfig(
        text_config={**small, "vocab_size": 50},
        vision_config={**small, "image_size": SIDE, "patch_size": 8},
        projection_dim=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = StableDiffusionSafetyChecker(config)
        for weight in model.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.5)
    _processor(folder)
    model.save_pretrained(folder)
    # Thresholds in the midst of what the pictures have, so that some fire and some do not.
    cosines = _cosines(model, folder)
    for name, share in (("concept", 0.96), ("special_care", 0.85)):
        values = torch.from_numpy(np.quantile(cosines[name], share, axis=0)).float()
        getattr(model, f"{name}_embeds_weights").data = values
    model.save_pretrained(folder)
    weights = folder / "model.safetensors"
    tensors = {_nested(key): value.clone() for key, value in load_file(weights).items()}
    tensors["vision_model.vision_model.embeddings.position_ids"] = torch.arange(10)[None]
    save_file(tensors, weights, metadata={"format": "pt"})
    return folder


def _processor(folder: Path) -> None:
    content = {
        "crop_size": SIDE, "do_center_crop": True, "do_normalize": True, "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": SIDE,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(content))


def _nested(key: str) -> str:
    inside = "vision_model."
    old = key.startswith(inside) and not key.startswith(inside * 2)
    return inside + key if old else key


def _inputs(folder: Path, images):
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor.from_pretrained(folder)
    return processor(images=[Image.fromarray(each) for each in images], return_tensors="pt")[
        "pixel_values"
    ]


def _cosines(model, folder: Path):
    import torch
    from diffusers.pipelines.stable_diffusion.safety_checker import cosine_distance

    with torch.no_grad():
        pooled = model.vision_model(_inputs(folder, images_of_its_size()))[1]
        embedded = model.visual_projection(pooled)
        return {
            name: cosine_distance(embedded, getattr(model, f"{name}_embeds")).numpy()
            for name in ("concept", "special_care")
        }


def verdicts_of_diffusers(folder: Path, images, method: str = "forward") -> list[bool]:
    """has_nsfw_concepts, by diffusers' own code."""
    import torch
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    model = StableDiffusionSafetyChecker.from_pretrained(folder, use_safetensors=True).eval()
    blank = torch.zeros(len(images), 1)
    _, found = getattr(model, method)(_inputs(folder, images), blank)
    return [bool(each) for each in found]


def spec_of(folder: Path) -> Spec:
    return Spec("checker", "safety-checker", str(folder))


def scores_of(folder: Path, images, batch_of, classes=BOTH):
    return SafetyChecker("sensitive", spec_of(folder), classes, "cpu")(batch_of(images))


def changed(folder: Path, to: Path, **tensors) -> Path:
    """A copy of a checkpoint with other tensors; None takes one out."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, to)
    content = load_file(to / "model.safetensors")
    for name, tensor in tensors.items():
        content.pop(name)
        if tensor is not None:
            content[name] = tensor
    save_file(content, to / "model.safetensors", metadata={"format": "pt"})
    return to


@pytest.mark.parametrize("seed", range(4))
def test_it_decides_as_diffusers_does(checkpoint, batch_of, seed):
    images = images_of_its_size(seed)
    found = scores_of(checkpoint, images, batch_of)
    original = verdicts_of_diffusers(checkpoint, images)
    assert [explicit.value > ORIGINAL_BOUND for explicit, _ in found] == original
    assert 5 < sum(original) < COUNT - 5


@pytest.mark.parametrize("seed", range(4))
def test_unrounded_it_decides_above_zero(checkpoint, batch_of, seed):
    images = images_of_its_size(seed)
    found = scores_of(checkpoint, images, batch_of)
    unrounded = verdicts_of_diffusers(checkpoint, images, "forward_onnx")
    assert [explicit.value > 0 for explicit, _ in found] == unrounded


@pytest.mark.parametrize(
    ("margin", "blocked"), [(-0.002, False), (0.0003, False), (0.0008, True), (0.002, True)]
)
def test_the_bound_is_the_originals_to_three_decimals(
    checkpoint, tmp_path, batch_of, margin, blocked
):
    import torch

    images = images_of_its_size()[:1]
    out_of_reach = {
        "concept_embeds_weights": torch.full((17,), 2.0),
        "special_care_embeds_weights": torch.full((3,), 2.0),
    }
    # One concept alone decides, by this margin.
    far = changed(checkpoint, tmp_path / "far", **out_of_reach)
    ((score, _),) = scores_of(far, images, batch_of)
    entry = int(score.evidence["concept"].removeprefix("concepts "))
    out_of_reach["concept_embeds_weights"][entry] = score.value + 2.0 - margin
    near = changed(checkpoint, tmp_path / "near", **out_of_reach)
    ((score, _),) = scores_of(near, images, batch_of)
    assert score.value == pytest.approx(margin, abs=1e-6)
    assert score.evidence["concept"] == f"concepts {entry}"
    assert (score.value > ORIGINAL_BOUND) == blocked
    assert verdicts_of_diffusers(near, images) == [blocked]


def test_special_care_raises_every_concept_by_a_hundredth(checkpoint, tmp_path, batch_of):
    import torch

    images = images_of_its_size()
    calm = changed(checkpoint, tmp_path / "calm", special_care_embeds_weights=torch.full((3,), 2.0))
    for (raised, special), (plain, _) in zip(
        scores_of(checkpoint, images, batch_of), scores_of(calm, images, batch_of), strict=True
    ):
        expected = 0.01 if special.value > ORIGINAL_BOUND else 0
        assert raised.value - plain.value == pytest.approx(expected, abs=1e-6)


def test_a_class_of_both_lists_is_the_larger_of_the_two(checkpoint, batch_of):
    images = images_of_its_size()
    apart = scores_of(checkpoint, images, batch_of)
    together = scores_of(checkpoint, images, batch_of, {"any": ["special_care", "concepts"]})
    for (explicit, minors), (either,) in zip(apart, together, strict=True):
        assert (explicit.name, minors.name, either.name) == ("explicit", "minors", "any")
        larger = max((explicit, minors), key=lambda score: score.value)
        assert either.value == larger.value
        assert either.evidence == larger.evidence
        assert either.evidence["margin"] == pytest.approx(either.value)
        assert either.evidence["detector"] == "checker"
        json.dumps(either.evidence, allow_nan=False)


def test_images_are_measured_and_left_as_they_are(checkpoint, batch_of):
    images = images_of_its_size()
    before = images.copy()
    scores_of(checkpoint, images, batch_of)
    assert (images == before).all()


def test_half_precision_is_read_in_full_and_sizes_are_brought_to_its_own(
    checkpoint, tmp_path, batch_of
):
    import torch
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    half = tmp_path / "half"
    shutil.copytree(checkpoint, half)
    StableDiffusionSafetyChecker.from_pretrained(half, dtype=torch.float16).save_pretrained(half)
    images = pictures(6, 50, 70)
    for one, other in zip(
        scores_of(checkpoint, images, batch_of), scores_of(half, images, batch_of), strict=True
    ):
        for a, b in zip(one, other, strict=True):
            assert a.value == pytest.approx(b.value, abs=5e-3)
            assert b.value != float(np.float16(b.value))


def test_a_nan_goes_through_to_the_scores(checkpoint, tmp_path, batch_of):
    import torch

    broken = changed(
        checkpoint,
        tmp_path / "nan",
        **{"visual_projection.weight": torch.full((8, 16), float("nan"))},
    )
    for scores in scores_of(broken, images_of_its_size()[:2], batch_of):
        assert all(np.isnan(score.value) for score in scores)
        json.dumps([score.evidence for score in scores], allow_nan=False)


def without(name):
    return lambda folder: (folder / name).unlink()


def as_another_kind(folder):
    """A CLIP of its own, without the checker's lists."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    kept = {name: each for name, each in tensors.items() if "embeds" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def with_fewer_concepts(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["concept_embeds"] = tensors["concept_embeds"][:9].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (shutil.rmtree, "is absent; put the checkpoint's files there"),
        (without("config.json"), "no safety checker that can be loaded"),
        (without("preprocessor_config.json"), "preprocessor_config.json"),
        (without("model.safetensors"), "safetensors"),
        (as_another_kind, r"lacks 4 tensors, concept_embeds first; fetch the whole checkpoint"),
        (with_fewer_concepts, "no safety checker that can be loaded"),
    ],
)
def test_what_is_no_checker_is_a_setup_error(checkpoint, tmp_path, change, said):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    change(folder)
    with pytest.raises(SetupError, match=said):
        load_checker(spec_of(folder), "cpu")


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ({"x": ["concept"]}, "has no list 'concept'; its lists are 'concepts' and 'special_care'"),
        ({"x": []}, "needs lists for each class"),
        ({}, "needs lists for each class"),
    ],
)
def test_lists_that_it_lacks_are_a_setup_error(checkpoint, classes, said):
    with pytest.raises(SetupError, match=said):
        SafetyChecker("sensitive", spec_of(checkpoint), classes, "cpu")


def test_a_policy_makes_it_and_two_detectors_share_one_pass(checkpoint, batch_of):
    from torch.nn.modules.module import register_module_forward_hook

    detectors = {
        name: {"kind": "safety-checker", "model": "checker", "classes": classes}
        for name, classes in (
            ("one", {"explicit": ["concepts"]}),
            ("two", {"minors": ["special_care"]}),
        )
    }
    section = Checks.model_validate({"sensitive": {"detectors": detectors}}).model_dump(
        mode="json", exclude_none=True
    )
    context = Context({"checker": spec_of(checkpoint)}, lambda name: None, "cpu")
    one, two = build_checks(section, context)
    batch = batch_of(images_of_its_size())
    passes = []
    counting = register_module_forward_hook(
        lambda module, *_: passes.append(1) if type(module).__name__ == "CLIPVisionModel" else None
    )
    try:
        found = [(*a, *b) for a, b in zip(one(batch), two(batch), strict=True)]
    finally:
        counting.remove()
    assert found == scores_of(checkpoint, batch.images, batch_of)
    assert len(passes) == 1
