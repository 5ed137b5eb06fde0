"""NSFW scores: probabilities that follow from the model, and set-up errors that name the remedy."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from check_samples import Spec, pictures
from PIL import Image

from pipeline.checks.embed import load_clip
from pipeline.checks.nsfw import Classifier, Concepts
from pipeline.errors import SetupError


def test_concept_score_is_the_softmax_mass_of_the_unsafe_prompts(clip_spec, batch_of):
    encoder = load_clip(clip_spec, "cpu")
    unsafe, safe = ["a nude", "gore"], ["a mug", "a chair", "a lamp"]
    images = pictures(3)
    scores = Concepts(encoder, unsafe, safe)(batch_of(images))
    logits = encoder.images(images) @ encoder.texts([*unsafe, *safe]).T * encoder.logit_scale
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True)
    for (score,), row in zip(scores, expected, strict=True):
        assert (score.check, score.name) == ("nsfw", "concept")
        assert score.value == pytest.approx(row[:2].sum(), abs=1e-5)
        assert score.evidence["concept"] == unsafe[int(row[:2].argmax())]
        assert score.evidence["probability"] == pytest.approx(row[:2].max(), abs=1e-5)
        assert score.evidence["detector"] == "tiny-clip"
        assert score.evidence["weights_sha256"] == encoder.digest
        json.dumps(score.evidence, allow_nan=False)


def test_a_nan_embedding_becomes_a_nan_score_with_evidence_that_json_can_hold(clip_spec, batch_of):
    encoder = load_clip(clip_spec, "cpu")
    batch = batch_of(pictures(2))
    batch.embedding(encoder)[1] = np.nan
    (fine,), (broken,) = Concepts(encoder, ["a nude"], ["a mug"])(batch)
    assert np.isfinite(fine.value)
    assert np.isnan(broken.value)
    json.dumps(broken.evidence, allow_nan=False)


def test_concepts_without_prompts_are_a_setup_error(clip_spec):
    with pytest.raises(SetupError, match="at least one"):
        Concepts(load_clip(clip_spec, "cpu"), ["a nude"], [])


def test_classifier_score_is_the_models_own_probability(classifier_spec, batch_of):
    from transformers import pipeline

    images = pictures(3, 64, 64)
    scores = Classifier(classifier_spec, ["nsfw"], "cpu")(batch_of(images))
    reference = pipeline("image-classification", classifier_spec.source, device="cpu")
    for (score,), image in zip(scores, images, strict=True):
        expected = {each["label"]: each["score"] for each in reference(Image.fromarray(image))}
        assert (score.check, score.name) == ("nsfw", "classifier")
        assert score.value == pytest.approx(expected["nsfw"], abs=2e-3)
        assert score.evidence["label"] == max(expected, key=expected.get)
        json.dumps(score.evidence, allow_nan=False)


def test_several_unsafe_labels_add_up(classifier_spec, batch_of):
    check = Classifier(classifier_spec, ["nsfw", "normal", "nsfw"], "cpu")
    ((score,),) = check(batch_of(pictures(1)))
    assert score.value == pytest.approx(1, abs=1e-6)


def test_an_unknown_label_is_a_setup_error_that_names_those_there_are(classifier_spec):
    with pytest.raises(SetupError, match=r"no label 'porn'.*'normal', 'nsfw'"):
        Classifier(classifier_spec, ["nsfw", "porn"], "cpu")


@pytest.mark.parametrize(
    "missing", ["config.json", "preprocessor_config.json", "model.safetensors"]
)
def test_a_checkpoint_without_a_file_is_a_setup_error(classifier_spec, tmp_path, missing):
    folder = tmp_path / "model"
    shutil.copytree(classifier_spec.source, folder)
    (folder / missing).unlink()
    with pytest.raises(SetupError):
        Classifier(Spec("m", "image-classifier", str(folder)), ["nsfw"], "cpu")


def test_a_checkpoint_that_lacks_tensors_is_not_filled_with_chance(classifier_spec, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(classifier_spec.source, folder)
    weights: Path = folder / "model.safetensors"
    tensors = load_file(weights)
    del tensors["classifier.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(SetupError, match=r"lacks 1 tensors, classifier\.weight"):
        Classifier(Spec("m", "image-classifier", str(folder)), ["nsfw"], "cpu")
