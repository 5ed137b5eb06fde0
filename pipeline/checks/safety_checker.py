"""The CompVis safety checker of Stable Diffusion as a measurement: margins, never a black image.

Works on checkpoints of diffusers' StableDiffusionSafetyChecker; serves the policy's `sensitive`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.classifier import import_transformers, load_whole
from pipeline.checks.protocol import ImageBatch, Images, ModelSpec, detector, finite
from pipeline.errors import SetupError
from pipeline.records import Score
from pipeline.weights import weights_folder, weights_sha256

ORIGINAL_BOUND = 0.0005
"""Where the original blocks: above 0, after it has rounded margins to three decimals."""
_RAISED_BY = np.float32(0.01)
"""What the original adds to all `concepts` of an image that shows one of `special_care`."""
_FILES = ("config.json", "preprocessor_config.json", "model*.safetensors")

LISTS = ("concepts", "special_care")
"""The checker's two lists: 17 concepts that it blocks, and 3 that make it stricter."""

_loaded: dict[tuple[str, str, str], CheckerModel] = {}
_loading = threading.Lock()


class CheckerModel:
    """A checkpoint on its device. Made by `load_checker`; its methods may be called by threads.

    `digest` is the SHA-256 of its weights (pipeline/weights.py). All is float32, whatever the
    checkpoint's own type.
    """

    def __init__(self, model: Any, processor: Any, digest: str):
        self.digest = digest
        self._model = model
        self._processor = processor
        self._concepts = _unit(model.concept_embeds)
        self._special_care = _unit(model.special_care_embeds)
        self._concept_thresholds = _array(model.concept_embeds_weights)
        self._special_thresholds = _array(model.special_care_embeds_weights)
        self._lock = threading.Lock()

    def images(self, images: Images) -> NDArray[np.float32]:
        """Unit-length float32 [N, D] of uint8 [N, H, W, 3], or of a list of [H, W, 3]."""
        import torch

        pixels = [np.require(each, requirements=["C", "W"]) for each in images]
        with self._lock, torch.inference_mode():
            inputs = self._processor(images=pixels, return_tensors="pt")["pixel_values"]
            pooled = self._model.vision_model(inputs.to(self._model.device))[1]
            return _unit(self._model.visual_projection(pooled))

    def margins(self, embeddings: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Cosines minus each concept's own threshold: [N, 17] `concepts`, [N, 3] `special_care`.

        As StableDiffusionSafetyChecker.forward of diffusers has it, but for its rounding: where one
        of `special_care` lies above the bound, all `concepts` of that image are raised by 0.01. It
        raises later ones of `special_care` too, which decides nothing and is left out here.
        """
        special = embeddings @ self._special_care.T - self._special_thresholds
        concepts = embeddings @ self._concepts.T - self._concept_thresholds
        raised = (special > ORIGINAL_BOUND).any(axis=1, keepdims=True)
        return {"concepts": concepts + raised * _RAISED_BY, "special_care": special}


class SafetyChecker:
    """One score a class: the largest margin, -2..2, of the checker's lists that belong to it.

    A margin is the image's cosine to one of the checker's concepts minus that concept's threshold.
    The original blacks an image out when one of its `concepts` lies above 0 with three decimals,
    which is above `ORIGINAL_BOUND`; here it is a score, and the policy says what follows.
    """

    def __init__(
        self, check: str, spec: ModelSpec, classes: Mapping[str, Sequence[str]], device: str
    ):
        """`classes` are `concepts`, `special_care` or both by class.

        Raises SetupError for what cannot be loaded, and for other lists than these.
        """
        self.name = check
        self._spec = spec
        self._classes = {name: tuple(dict.fromkeys(own)) for name, own in classes.items()}
        _demand_lists(check, spec, self._classes)
        self._model = load_checker(spec, device)

    def __call__(self, batch: ImageBatch) -> list[tuple[Score, ...]]:
        """A score for each class of each image; evidence names the entry that is nearest.

        Entries are counted from 0: the checkpoint publishes embeddings, not words.
        """
        margins = self._model.margins(batch.embedding(self._model))
        return [
            tuple(
                self._score(name, {each: margins[each][index] for each in lists})
                for name, lists in self._classes.items()
            )
            for index in range(len(batch))
        ]

    def _score(self, name: str, margins: Mapping[str, NDArray[np.float32]]) -> Score:
        entries = [(each, index) for each, row in margins.items() for index in range(len(row))]
        together = np.concatenate(list(margins.values()))
        place = int(together.argmax())
        evidence = {
            **detector(self._spec, self._model.digest),
            "concept": f"{entries[place][0]} {entries[place][1]}",
            "margin": finite(together[place]),
        }
        return Score(self.name, name, float(together[place]), evidence)


def load_checker(spec: ModelSpec, device: str) -> CheckerModel:
    """The checker of a model on `cpu`, `cuda` or `mps`, loaded at most once a process.

    Raises SetupError when the folder, its configuration or its weights are absent or do not fit.
    """
    key = (spec.source, spec.revision, device)
    with _loading:
        if key not in _loaded:
            _loaded[key] = _load(spec, device)
        return _loaded[key]


def _load(spec: ModelSpec, device: str) -> CheckerModel:
    transformers = import_transformers()
    try:
        from diffusers.pipelines.stable_diffusion.safety_checker import (
            StableDiffusionSafetyChecker,
        )
    except ImportError as error:
        raise SetupError(f"diffusers cannot be imported ({error}); pip install '.[studio]'") from (
            error
        )
    folder = weights_folder(spec.source, spec.revision, _FILES)
    processor, model = load_whole(
        spec,
        folder,
        transformers.CLIPImageProcessor,
        StableDiffusionSafetyChecker,
        "safety checker",
    )
    digest = spec.weights_sha256 or weights_sha256(folder)
    return CheckerModel(model.to(device), processor, digest)


def _demand_lists(check: str, spec: ModelSpec, classes: Mapping[str, tuple[str, ...]]) -> None:
    wrong = [repr(each) for own in classes.values() for each in own if each not in LISTS]
    empty = [repr(name) for name, own in classes.items() if not own]
    if wrong or empty or not classes:
        what = f"has no list {', '.join(wrong)}" if wrong else "needs lists for each class"
        raise SetupError(
            f"{check}: model {spec.name!r} {what}; its lists are "
            f"{' and '.join(map(repr, LISTS))}: name those in the policy"
        )


def _unit(embeddings: Any) -> NDArray[np.float32]:
    import torch

    return _array(torch.nn.functional.normalize(embeddings.float(), dim=-1))


def _array(tensor: Any) -> NDArray[np.float32]:
    return np.asarray(tensor.detach().float().cpu().numpy(), dtype=np.float32)
