"""Hugging Face image classifiers: a detector's labels → classes. Serves `sensitive` and `nsfw`.

A checkpoint is loaded once a process and sees a batch once, whoever asks first.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.protocol import ImageBatch, Images, ModelSpec, detector, finite
from pipeline.errors import SetupError
from pipeline.records import Score
from pipeline.weights import weights_folder, weights_sha256

_FILES = ("config.json", "preprocessor_config.json", "model*.safetensors")

_loaded: dict[tuple[str, str, str], ImageClassifier] = {}
_loading = threading.Lock()


class ImageClassifier:
    """A checkpoint on its device. Made by `load_classifier`; its method may be called by threads.

    `labels` stand in the order of the columns, `digest` is the SHA-256 of its weights
    (pipeline/weights.py). `is_multi_label`: each label is a question of its own. All is float32,
    whatever the checkpoint's own type: scores are kept for years.
    """

    def __init__(self, model: Any, processor: Any, digest: str):
        config = model.config
        self.labels = tuple(str(config.id2label[i]) for i in sorted(config.id2label))
        self.is_multi_label = config.problem_type == "multi_label_classification"
        self.digest = digest
        self._model = model
        self._processor = processor
        self._lock = threading.Lock()

    def images(self, images: Images) -> NDArray[np.float32]:
        """Each label's probability, float32 [N, labels], of uint8 [N, H, W, 3] or of a list.

        Softmax; for multi-label checkpoints each label's sigmoid.
        """
        import torch

        # Arrays, not a tensor: the processors of timm checkpoints take no tensor of bytes.
        pixels = [np.require(each, requirements=["C", "W"]) for each in images]
        with self._lock, torch.inference_mode():
            inputs = self._processor(images=pixels, return_tensors="pt").to(self._model.device)
            logits = self._model(**inputs).logits.float()
            found = logits.sigmoid() if self.is_multi_label else logits.softmax(-1)
        return np.asarray(found.cpu().numpy(), dtype=np.float32)


class Classifier:
    """One score a class, 0..1: the summed probability of the detector's labels that belong to it.

    Any checkpoint of `AutoModelForImageClassification`, such as Falconsai/nsfw_image_detection.
    Where its `problem_type` is `multi_label_classification`, labels do not exclude one another, and
    a sum would mean nothing: the score is the largest probability of the class's labels.
    """

    def __init__(
        self, check: str, spec: ModelSpec, classes: Mapping[str, Sequence[str]], device: str
    ):
        """`classes` are the checkpoint's labels by class; `device` is `cpu`, `cuda` or `mps`.

        Raises SetupError for what cannot be loaded, and for labels that the checkpoint lacks.
        """
        self.name = check
        self._spec = spec
        self._model = load_classifier(spec, device)
        self._classes = _columns(check, spec, self._model.labels, classes)

    def __call__(self, batch: ImageBatch) -> list[tuple[Score, ...]]:
        """A score for each class of each image; evidence names the class's likeliest label."""
        rows = batch.embedding(self._model)
        return [
            tuple(self._score(name, columns, row) for name, columns in self._classes.items())
            for row in rows
        ]

    def _score(self, name: str, columns: list[int], row: NDArray[np.float32]) -> Score:
        own = row[columns]
        likeliest = int(own.argmax())
        evidence = {
            **detector(self._spec, self._model.digest),
            "label": self._model.labels[columns[likeliest]],
            "probability": finite(own[likeliest]),
        }
        value = own.max() if self._model.is_multi_label else own.sum()
        return Score(self.name, name, float(value), evidence)


def load_classifier(spec: ModelSpec, device: str) -> ImageClassifier:
    """The classifier of a model on `cpu`, `cuda` or `mps`, loaded at most once a process.

    Raises SetupError when the folder, its configuration or its weights are absent or do not fit.
    """
    key = (spec.source, spec.revision, device)
    with _loading:
        if key not in _loaded:
            folder = weights_folder(spec.source, spec.revision, _FILES)
            transformers = import_transformers()
            processor, model = load_whole(
                spec,
                folder,
                transformers.AutoImageProcessor,
                transformers.AutoModelForImageClassification,
                "image classifier",
            )
            digest = spec.weights_sha256 or weights_sha256(folder)
            _loaded[key] = ImageClassifier(model.to(device), processor, digest)
        return _loaded[key]


def import_transformers() -> Any:
    """The package, silent. Raises SetupError when it is not installed."""
    try:
        import transformers
        from transformers.utils import logging
    except ImportError as error:
        raise SetupError(
            f"transformers cannot be imported ({error}); pip install '.[studio]'"
        ) from error
    # The faces show progress of their own.
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return transformers


def load_whole(
    spec: ModelSpec, folder: Path, processor_class: Any, model_class: Any, what: str
) -> tuple[Any, Any]:
    """A checkpoint's image processor and model in float32, ready to answer.

    Runs no code of the checkpoint's and opens no pickle. Raises SetupError when it does not load,
    or lacks tensors, which transformers would fill with chance.
    """
    import torch

    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = processor_class.from_pretrained(folder, **options)
        model, report = model_class.from_pretrained(
            folder,
            output_loading_info=True,
            use_safetensors=True,
            dtype=torch.float32,
            **options,
        )
    # Unfit checkpoints show as OSError, ValueError, KeyError, RuntimeError and more.
    except Exception as error:
        raise SetupError(
            f"model {spec.name!r} in {folder} is no {what} that can be loaded: {error}; it needs "
            f"config.json, safetensors weights and, as a rule, preprocessor_config.json"
        ) from error
    if report["missing_keys"]:
        raise SetupError(
            f"model {spec.name!r} in {folder} lacks {len(report['missing_keys'])} tensors, "
            f"{min(report['missing_keys'])} first; fetch the whole checkpoint again"
        )
    return processor, model.eval()


def _columns(
    check: str, spec: ModelSpec, labels: tuple[str, ...], classes: Mapping[str, Sequence[str]]
) -> dict[str, list[int]]:
    """Each class's columns among the checkpoint's labels."""
    unknown = [label for each in classes.values() for label in each if label not in labels]
    empty = [name for name, own in classes.items() if not own]
    faults = []
    if unknown:
        faults.append(f"has no label {', '.join(map(repr, dict.fromkeys(unknown)))}")
    if empty or not classes:
        faults.append(f"needs labels for {', '.join(map(repr, empty)) or 'at least one class'}")
    if faults:
        raise SetupError(
            f"{check}: model {spec.name!r} {' and '.join(faults)}; its labels are "
            f"{', '.join(map(repr, labels))}: name those in the policy"
        )
    return {
        name: [column for column, label in enumerate(labels) if label in own]
        for name, own in classes.items()
    }
