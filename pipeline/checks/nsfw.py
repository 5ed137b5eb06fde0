"""NSFW, twice: zero-shot concepts by open_clip, and a trained Hugging Face image classifier.

The concepts share their embeddings with similarity; the classifier reads the pixels itself.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.embed import ClipEncoder
from pipeline.checks.protocol import ImageBatch, ModelSpec, detector, finite
from pipeline.errors import SetupError
from pipeline.records import Score
from pipeline.weights import weights_folder, weights_sha256

_FILES = ("config.json", "preprocessor_config.json", "model*.safetensors")


class Concepts:
    """Scores `nsfw.concept`: the probability of all unsafe prompts against the safe ones.

    Softmax over the model's logits of all prompts (Radford et al. 2021, zero-shot classification).
    """

    name = "nsfw"

    def __init__(self, encoder: ClipEncoder, unsafe: Sequence[str], safe: Sequence[str]):
        if not unsafe or not safe:
            raise SetupError("nsfw.concepts needs at least one `unsafe` and one `safe` prompt")
        self._encoder = encoder
        self._unsafe = tuple(unsafe)
        self._texts = encoder.texts((*unsafe, *safe))

    def __call__(self, batch: ImageBatch) -> list[tuple[Score, ...]]:
        """One score an image, in 0..1; evidence names the likeliest unsafe prompt."""
        cosines = batch.embedding(self._encoder) @ self._texts.T
        probabilities = _softmax(cosines * self._encoder.logit_scale)[:, : len(self._unsafe)]
        return [(self._score(row),) for row in probabilities]

    def _score(self, unsafe: NDArray[np.float32]) -> Score:
        likeliest = int(unsafe.argmax())
        evidence = {
            **detector(self._encoder.spec, self._encoder.digest),
            "concept": self._unsafe[likeliest],
            "probability": finite(unsafe[likeliest]),
        }
        return Score(self.name, "concept", float(unsafe.sum()), evidence)


class Classifier:
    """Scores `nsfw.classifier`: the probability that a detector gives its unsafe labels.

    Any checkpoint of `AutoModelForImageClassification`, such as Falconsai/nsfw_image_detection.
    """

    name = "nsfw"

    def __init__(self, spec: ModelSpec, unsafe_labels: Sequence[str], device: str):
        self._spec = spec
        self._model, self._processor, self._digest = _load(spec, device)
        self._device = device
        self._labels = {int(k): str(v) for k, v in self._model.config.id2label.items()}
        self._unsafe = _columns(spec, self._labels, unsafe_labels)
        self._lock = threading.Lock()

    def __call__(self, batch: ImageBatch) -> list[tuple[Score, ...]]:
        """One score an image, in 0..1; evidence names the likeliest label of all."""
        import torch

        images = np.require(batch.images, requirements=["C", "W"])
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        with self._lock, torch.inference_mode():
            inputs = self._processor(images=pixels, return_tensors="pt").to(self._device)
            logits = self._model(**inputs).logits.float().cpu().numpy()
        return [(self._score(row),) for row in _softmax(logits)]

    def _score(self, probabilities: NDArray[np.float32]) -> Score:
        likeliest = int(probabilities.argmax())
        evidence = {
            **detector(self._spec, self._digest),
            "label": self._labels[likeliest],
            "probability": finite(probabilities[likeliest]),
        }
        return Score(self.name, "classifier", float(probabilities[self._unsafe].sum()), evidence)


def _columns(spec: ModelSpec, labels: dict[int, str], unsafe: Sequence[str]) -> list[int]:
    by_label = {label: column for column, label in labels.items()}
    unknown = [label for label in unsafe if label not in by_label]
    if unknown or not unsafe:
        wrong = (
            f"has no label {', '.join(map(repr, unknown))}" if unknown else "needs unsafe labels"
        )
        raise SetupError(
            f"model {spec.name!r} {wrong}; its labels are {', '.join(map(repr, by_label))}: name "
            f"those that are unsafe in the policy's nsfw.classifier.unsafe_labels"
        )
    return [by_label[label] for label in dict.fromkeys(unsafe)]


def _load(spec: ModelSpec, device: str) -> tuple[Any, Any, str]:
    try:
        from transformers import AutoImageProcessor, AutoModelForImageClassification
        from transformers.utils import logging
    except ImportError as error:
        raise SetupError(
            f"transformers cannot be imported ({error}); pip install '.[studio]'"
        ) from error
    folder = weights_folder(spec.source, spec.revision, _FILES)
    # The faces show progress of their own.
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = AutoImageProcessor.from_pretrained(folder, **options)  # type: ignore[no-untyped-call]
        model, report = AutoModelForImageClassification.from_pretrained(
            folder, output_loading_info=True, use_safetensors=True, **options
        )
    # Unfit checkpoints show as OSError, ValueError, KeyError, RuntimeError and more.
    except Exception as error:
        raise SetupError(
            f"model {spec.name!r} in {folder} is no image classifier that transformers can load: "
            f"{error}; it needs config.json, preprocessor_config.json and safetensors weights"
        ) from error
    if report["missing_keys"]:
        raise SetupError(
            f"model {spec.name!r} in {folder} lacks {len(report['missing_keys'])} tensors, "
            f"{min(report['missing_keys'])} first; fetch the whole checkpoint again"
        )
    return model.eval().to(device), processor, spec.weights_sha256 or weights_sha256(folder)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)
