"""Control pictures and masks from photos: edges, depth, segmentation, and where the object is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SetupError
from pipeline.images import RgbImage
from pipeline.models import Model

LOW, HIGH = 100, 200
"""Canny's thresholds, as ControlNet's authors use them (Zhang et al. 2023)."""


def edges(picture: RgbImage) -> RgbImage:
    """White Canny edges on black."""
    import cv2

    return np.repeat(cv2.Canny(picture, LOW, HIGH)[..., None], 3, axis=2).astype(np.uint8)


class DepthEstimator:
    """A transformers depth model that gives disparity (near is large), as DPT and MiDaS do."""

    def __init__(self, model: Model, device: str):
        """Load `model`; raises SetupError when it does not load."""
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

        self._processor, self._model = _loaded(
            model, device, AutoImageProcessor, AutoModelForDepthEstimation
        )
        self._device = device

    def __call__(self, picture: RgbImage) -> RgbImage:
        """Depth as a grey picture of the same size, stretched to 0..255, near is bright."""
        import torch

        inputs = self._processor(images=[picture], return_tensors="pt").to(self._device)
        with torch.no_grad():
            found = self._model(**inputs).predicted_depth
        near = _resized(found.reshape(1, 1, *found.shape[-2:]).float(), picture)[0, 0]
        low, high = near.min(), near.max()
        grey = ((near - low) / max(float(high - low), 1e-6) * 255).round().astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)


class Segmenter:
    """A transformers semantic segmentation model."""

    def __init__(self, model: Model, device: str):
        """Load `model`; raises SetupError when it does not load."""
        from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

        self._processor, self._model = _loaded(
            model, device, AutoImageProcessor, AutoModelForSemanticSegmentation
        )
        self._name, self._device = model.name, device

    def __call__(self, picture: RgbImage) -> RgbImage:
        """Each pixel in the colour of its class, as the model's `palette` gives them."""
        palette = getattr(self._model.config, "palette", None)
        if palette is None:
            raise SetupError(
                f"model {self._name!r} has no `palette` in its config.json: list one RGB colour a "
                f"class, those that the ControlNet was trained with"
            )
        return np.asarray(palette, np.uint8)[self._classes(picture)]

    def object(self, picture: RgbImage) -> NDArray[np.float32]:
        """1 where something else than background is, float32 [H, W]."""
        names = {str(n).casefold(): int(i) for i, n in self._model.config.id2label.items()}
        if "background" not in names:
            raise SetupError(f"model {self._name!r} knows no class `background`; give a mask file")
        found: NDArray[np.float32] = (self._classes(picture) != names["background"]).astype(
            np.float32
        )
        return found

    def _classes(self, picture: RgbImage) -> NDArray[np.int64]:
        import torch

        inputs = self._processor(images=[picture], return_tensors="pt").to(self._device)
        with torch.no_grad():
            logits = self._model(**inputs).logits.float()
        return np.asarray(_resized(logits, picture)[0].argmax(0))


def _resized(maps: Any, picture: RgbImage) -> NDArray[np.float32]:
    """Maps [1, C, h, w] at the picture's size."""
    import torch.nn.functional as functional

    size = picture.shape[:2]
    found: NDArray[np.float32] = functional.interpolate(maps, size, mode="bilinear").cpu().numpy()
    return found


def _loaded(model: Model, device: str, processor: Any, kind: Any) -> tuple[Any, Any]:
    import torch

    where = {
        "revision": None if model.is_folder else model.revision,
        "local_files_only": model.is_folder,
    }
    try:
        return (
            processor.from_pretrained(model.source, **where),
            kind.from_pretrained(model.source, use_safetensors=True, dtype=torch.float32, **where)
            .eval()
            .to(device),
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise SetupError(
            f"model {model.name!r} does not load from {model.source}: {error}"
        ) from error
