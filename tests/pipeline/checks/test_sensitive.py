"""Sensitive content: every detector's classes, probabilities that follow from the model, one pass
of each model, and set-up errors that name the remedy."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from check_samples import Spec, pictures, request_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.checks import ImageBatch, build_checks, run_checks
from pipeline.checks.build import Context
from pipeline.checks.classifier import Classifier, load_classifier
from pipeline.checks.concepts import Concepts
from pipeline.checks.embed import load_clip
from pipeline.errors import SetupError
from pipeline.policy import load_policy
from pipeline.policy_checks import Checks

ROOT = Path(__file__).parents[3]
CLASSES = {"nudity": ["a nude", "bare skin"], "people": ["a man", "a woman", "a crowd"]}
NEUTRAL = ["a mug", "a chair"]


def classifier_folder(folder: Path, labels: list[str], **changes) -> Spec:
    """A Hugging Face ViT of 24 px with these labels; `changes` are of its configuration."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(2)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=24, patch_size=8, initializer_range=0.5,
        id2label=dict(enumerate(labels)), label2id={each: i for i, each in enumerate(labels)},
        **changes,
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 24, "width": 24}).save_pretrained(folder)
    return Spec("levels", "image-classifier", str(folder))


def timm_folder(folder: Path) -> Spec:
    """What Freepik/nsfw_image_detector looks like: a timm network in bfloat16, and no file for the
    processor."""
    import torch
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    torch.manual_seed(3)
    config = TimmWrapperConfig(
        architecture="vit_tiny_patch16_224",
        model_args={"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2},
        pretrained_cfg={
            "input_size": [3, 32, 32], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2],
            "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "squash",
        },
        id2label={0: "neutral", 1: "low", 2: "medium", 3: "high"},
        label2id={"neutral": 0, "low": 1, "medium": 2, "high": 3},
    )  # fmt: skip
    TimmWrapperForImageClassification(config).to(torch.bfloat16).save_pretrained(folder)
    assert not (folder / "preprocessor_config.json").exists()
    return Spec("timm", "image-classifier", str(folder))


@pytest.fixture
def levels(tmp_path):
    return classifier_folder(tmp_path / "levels", ["neutral", "low", "medium", "high"])


# Concepts


def test_a_class_is_the_softmax_mass_of_its_phrases_among_all(clip_spec, batch_of):
    encoder = load_clip(clip_spec, "cpu")
    images = pictures(3)
    found = Concepts("sensitive", encoder, CLASSES, NEUTRAL)(batch_of(images))
    phrases = [*CLASSES["nudity"], *CLASSES["people"], *NEUTRAL]
    logits = encoder.images(images) @ encoder.texts(phrases).T * encoder.logit_scale
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True)
    for (nudity, people), row in zip(found, expected, strict=True):
        assert (nudity.check, nudity.name, people.name) == ("sensitive", "nudity", "people")
        for score, own, names in (
            (nudity, row[:2], CLASSES["nudity"]),
            (people, row[2:5], CLASSES["people"]),
        ):
            assert score.value == pytest.approx(own.sum(), abs=1e-5)
            assert score.evidence["concept"] == names[int(own.argmax())]
            assert score.evidence["probability"] == pytest.approx(own.max(), abs=1e-5)
            assert score.evidence["detector"] == "tiny-clip"
            assert score.evidence["weights_sha256"] == encoder.digest
            json.dumps(score.evidence, allow_nan=False)


@settings(max_examples=25, deadline=None)
@given(places=st.lists(st.integers(0, 3), min_size=12, max_size=12).filter(lambda each: 0 in each))
def test_all_classes_and_the_neutral_side_share_out_one_probability(places, clip_spec):
    phrases: dict[int, list[str]] = {}
    for index, place in enumerate(places):
        phrases.setdefault(place, []).append(f"thing {index}")
    neutral = phrases.pop(0)
    classes = {f"class{place}": own for place, own in phrases.items()} or {"other": ["else"]}
    check = Concepts("sensitive", load_clip(clip_spec, "cpu"), classes, neutral)
    (scores,) = check(ImageBatch(pictures(1), (request_of("sku"),)))
    assert [score.name for score in scores] == list(classes)
    assert all(0 <= score.value <= 1 for score in scores)
    assert sum(score.value for score in scores) < 1


def test_a_phrase_said_twice_in_one_class_counts_once(clip_spec, batch_of):
    encoder = load_clip(clip_spec, "cpu")
    batch = batch_of(pictures(1))
    once, twice = (
        Concepts("sensitive", encoder, {"nudity": phrases}, NEUTRAL)(batch)
        for phrases in (["a nude"], ["a nude", "a nude"])
    )
    assert once == twice


def test_a_nan_embedding_becomes_a_nan_score_with_evidence_that_json_can_hold(clip_spec, batch_of):
    encoder = load_clip(clip_spec, "cpu")
    batch = batch_of(pictures(2))
    batch.embedding(encoder)[1] = np.nan
    fine, broken = Concepts("sensitive", encoder, CLASSES, NEUTRAL)(batch)
    assert all(np.isfinite(score.value) for score in fine)
    assert all(np.isnan(score.value) for score in broken)
    json.dumps([score.evidence for score in broken], allow_nan=False)


@pytest.mark.parametrize(
    ("classes", "neutral", "said"),
    [
        ({"nudity": ["a nude"]}, [], "the neutral side of its concepts needs at least one phrase"),
        ({"nudity": []}, ["a mug"], "class 'nudity' of its concepts needs at least one phrase"),
        ({}, ["a mug"], "a class of its concepts needs"),
        ({"nudity": ["A Mug"]}, ["a mug"], "'a mug' stands in two places.*leave it in one"),
        ({"a": ["a man"], "b": ["a man"]}, ["a mug"], "'a man' stands in two places"),
    ],
)
def test_concepts_that_cannot_be_weighed_are_a_setup_error(clip_spec, classes, neutral, said):
    with pytest.raises(SetupError, match=said):
        Concepts("sensitive", load_clip(clip_spec, "cpu"), classes, neutral)


# Classifiers


def test_a_class_is_the_sum_of_the_models_own_probabilities(levels, batch_of):
    from transformers import pipeline

    images = pictures(3, 64, 64)
    classes = {"suggestive": ["low", "medium"], "explicit": ["high"]}
    found = Classifier("sensitive", levels, classes, "cpu")(batch_of(images))
    reference = pipeline("image-classification", levels.source, device="cpu")
    for scores, image in zip(found, images, strict=True):
        own = {each["label"]: each["score"] for each in reference(Image.fromarray(image))}
        suggestive, explicit = scores
        assert (suggestive.check, suggestive.name, explicit.name) == (
            "sensitive", "suggestive", "explicit",
        )  # fmt: skip
        assert suggestive.value == pytest.approx(own["low"] + own["medium"], abs=2e-3)
        assert suggestive.evidence["label"] == max(("low", "medium"), key=own.__getitem__)
        assert explicit.value == pytest.approx(own["high"], abs=2e-3)
        assert explicit.evidence["probability"] == pytest.approx(explicit.value)
        json.dumps([score.evidence for score in scores], allow_nan=False)


def test_labels_that_do_not_exclude_one_another_count_by_the_largest(tmp_path, batch_of):
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    names = ["blood", "weapon", "smoke"]
    spec = classifier_folder(tmp_path / "m", names, problem_type="multi_label_classification")
    images = pictures(4, 24, 24)
    found = Classifier("sensitive", spec, {"violence": ["blood", "weapon"]}, "cpu")(
        batch_of(images)
    )
    model = AutoModelForImageClassification.from_pretrained(spec.source)
    processor = AutoImageProcessor.from_pretrained(spec.source)
    with torch.no_grad():
        inputs = processor(images=[Image.fromarray(each) for each in images], return_tensors="pt")
        own = model(**inputs).logits.sigmoid().numpy()
    for (score,), row in zip(found, own, strict=True):
        assert score.value == pytest.approx(row[:2].max(), abs=1e-5)
        assert score.evidence["label"] == names[int(row[:2].argmax())]


def test_a_timm_checkpoint_in_half_precision_is_read_in_full(tmp_path, batch_of):
    from transformers import pipeline

    spec = timm_folder(tmp_path / "timm")
    images = pictures(3, 64, 64)
    found = Classifier("sensitive", spec, {"nudity": ["medium", "high"]}, "cpu")(batch_of(images))
    reference = pipeline("image-classification", spec.source, device="cpu", dtype="float32")
    for (score,), image in zip(found, images, strict=True):
        own = {each["label"]: each["score"] for each in reference(Image.fromarray(image))}
        assert score.value == pytest.approx(own["medium"] + own["high"], abs=1e-6)


def test_a_nan_logit_becomes_a_nan_score(levels, batch_of):
    from safetensors.torch import load_file, save_file

    weights = Path(levels.source) / "model.safetensors"
    tensors = load_file(weights)
    tensors["classifier.bias"][1] = float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})
    ((score,),) = Classifier("sensitive", levels, {"nudity": ["high"]}, "cpu")(
        batch_of(pictures(1))
    )
    assert np.isnan(score.value)
    json.dumps(score.evidence, allow_nan=False)


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ({"nudity": ["nsfw", "porn"]}, r"has no label 'porn'; its labels are 'normal', 'nsfw'"),
        ({"nudity": []}, "needs labels for 'nudity'.*'normal', 'nsfw'"),
        ({}, "needs labels for at least one class"),
        ({"a": ["x"], "b": ["y", "x"]}, "has no label 'x', 'y'"),
    ],
)
def test_labels_that_the_checkpoint_lacks_are_a_setup_error(classifier_spec, classes, said):
    with pytest.raises(SetupError, match=said):
        Classifier("sensitive", classifier_spec, classes, "cpu")


@pytest.mark.parametrize(
    "missing", ["config.json", "preprocessor_config.json", "model.safetensors"]
)
def test_a_checkpoint_without_a_file_is_a_setup_error(classifier_spec, tmp_path, missing):
    folder = tmp_path / "model"
    shutil.copytree(classifier_spec.source, folder)
    (folder / missing).unlink()
    with pytest.raises(SetupError, match="image classifier that can be loaded"):
        load_classifier(Spec("m", "image-classifier", str(folder)), "cpu")


def test_an_absent_checkpoint_is_a_setup_error(tmp_path):
    with pytest.raises(SetupError, match="is absent; put the checkpoint's files there"):
        load_classifier(Spec("m", "image-classifier", str(tmp_path / "none")), "cpu")


def test_a_checkpoint_that_lacks_tensors_is_not_filled_with_chance(classifier_spec, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(classifier_spec.source, folder)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    del tensors["classifier.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(SetupError, match=r"lacks 1 tensors, classifier\.weight"):
        load_classifier(Spec("m", "image-classifier", str(folder)), "cpu")


# All together


DETECTORS = {
    "skin": {"kind": "concepts", "model": "tiny-clip", "neutral": NEUTRAL,
             "classes": {"nudity": CLASSES["nudity"]}},
    "persons": {"kind": "concepts", "model": "tiny-clip", "neutral": NEUTRAL,
                "classes": {"people": CLASSES["people"]}},
    "trained": {"kind": "classifier", "model": "tiny-nsfw", "classes": {"nudity": ["nsfw"]}},
    "again": {"kind": "classifier", "model": "tiny-nsfw", "classes": {"clean": ["normal"]}},
}  # fmt: skip


@pytest.fixture
def build(clip_spec, classifier_spec):
    models = {"tiny-clip": clip_spec, "tiny-nsfw": classifier_spec}

    def make(section):
        checks = Checks.model_validate(section).model_dump(mode="json", exclude_none=True)
        return build_checks(checks, Context(models, _no_library, "cpu"))

    return make


def _no_library(name):
    raise SetupError(f"no library {name!r}")


def test_every_detector_gives_the_classes_that_it_declares(build, batch_of):
    (image, *_) = run_checks(build({"sensitive": {"detectors": DETECTORS}}), batch_of(pictures(2)))
    assert image.error is None
    assert [(score.check, score.name, score.evidence["detector"]) for score in image.scores] == [
        ("sensitive", "nudity", "tiny-clip"),
        ("sensitive", "people", "tiny-clip"),
        ("sensitive", "nudity", "tiny-nsfw"),
        ("sensitive", "clean", "tiny-nsfw"),
    ]
    assert set(image.milliseconds) == {"sensitive"}


def test_a_batch_passes_once_through_each_model_however_many_detectors_read_it(build, batch_of):
    from torch.nn.modules.module import register_module_forward_hook

    nsfw = {
        "concepts": {"model": "tiny-clip", "unsafe": ["a nude"], "safe": ["a mug"]},
        "classifier": {"model": "tiny-nsfw", "unsafe_labels": ["nsfw"]},
    }
    checks = build({"sensitive": {"detectors": DETECTORS}, "nsfw": nsfw})
    passes: Counter[str] = Counter()
    counting = register_module_forward_hook(
        lambda module, *_: passes.update([type(module).__name__])
    )
    try:
        for _ in range(2):
            run_checks(checks, batch_of(pictures(3)))
    finally:
        counting.remove()
    assert passes["VisionTransformer"] == 2
    assert passes["ViTForImageClassification"] == 2


def test_two_detectors_of_one_checkpoint_load_it_once(classifier_spec):
    assert load_classifier(classifier_spec, "cpu") is load_classifier(classifier_spec, "cpu")


def test_all_detectors_that_cannot_run_are_told_at_once(build):
    wrong = {
        "skin": DETECTORS["skin"] | {"model": "other"},
        "trained": DETECTORS["trained"] | {"classes": {"nudity": ["porn"]}},
        "persons": DETECTORS["persons"],
    }
    with pytest.raises(SetupError) as caught:
        build({"sensitive": {"detectors": wrong}})
    assert "no open-clip model 'other'" in str(caught.value)
    assert "no label 'porn'" in str(caught.value)


def policies_of_the_page() -> list[str]:
    """The complete policies of docs/sensitive.md."""
    blocks = (ROOT / "docs" / "sensitive.md").read_text("utf-8").split("```yaml\n")[1:]
    texts = [block.split("```")[0] for block in blocks]
    return [text for text in texts if "policy" in (yaml.safe_load(text) or {})]


@pytest.mark.parametrize("text", policies_of_the_page())
def test_the_documented_policies_are_sound(text, tmp_path):
    path = tmp_path / "documented.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_policy(path).checks.sensitive


def test_the_documented_models_are_sound(tmp_path):
    from pipeline.models import load_models

    blocks = (ROOT / "docs" / "sensitive.md").read_text("utf-8").split("```yaml\n")[1:]
    (text,) = [each for b in blocks if "models" in yaml.safe_load(each := b.split("```")[0])]
    path = tmp_path / "models.yaml"
    path.write_text(text, encoding="utf-8")
    declared = load_models(path)
    assert declared["compvis-safety"].entry.kind == "safety-checker"
    assert declared["freepik-nsfw"].entry.kind == "image-classifier"
