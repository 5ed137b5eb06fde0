"""open_clip: images and prompts → unit embeddings. Serves NSFW concepts, similarity and libraries.

A model is loaded once a process, whichever thread asks first.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.preprocess import batched
from pipeline.checks.protocol import Images, ModelSpec
from pipeline.errors import SetupError
from pipeline.weights import weights_folder, weights_sha256

_CONFIG = "open_clip_config.json"
_FILES = (_CONFIG, "open_clip*.safetensors", "tokenizer*", "vocab*", "merges.txt", "special*")

_loaded: dict[tuple[str, str, str], ClipEncoder] = {}
_loading = threading.Lock()


class ClipEncoder:
    """An open_clip model on its device. Made by `load_clip`; its methods may be called by threads.

    `digest` is the SHA-256 of its weights (pipeline/weights.py); `logit_scale` is the learned
    factor between cosines and logits. All is float32: scores are kept for years, and half precision
    moves a cosine by about 1e-3.
    """

    def __init__(self, spec: ModelSpec, model: Any, transform: Any, tokenizer: Any, digest: str):
        self.spec = spec
        self.digest = digest
        self.logit_scale = float(model.logit_scale.detach().exp())
        self._model = model
        self._device = model.logit_scale.device
        self._transform = transform
        self._tokenizer = tokenizer
        self._prompts: dict[str, NDArray[np.float32]] = {}
        self._lock = threading.Lock()

    def images(self, images: Images) -> NDArray[np.float32]:
        """Unit-length float32 [N, D] of uint8 [N, H, W, 3], or of a list of [H, W, 3]."""
        import torch

        with torch.inference_mode():
            return _unit(self._model.encode_image(self.preprocess(images)))

    def texts(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Unit-length float32 [P, D] of the prompts; each is embedded once and kept."""
        import torch

        with self._lock, torch.inference_mode():
            new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._prompts]
            if new:
                embeddings = _unit(self._model.encode_text(self._tokenizer(new).to(self._device)))
                self._prompts.update(zip(new, embeddings, strict=True))
            return np.stack([self._prompts[prompt] for prompt in prompts])

    def preprocess(self, images: Images) -> Any:
        """The model's own resize, crop and normalisation, batched: float32 tensor [N, 3, S, S]."""
        import torch

        groups = [images] if isinstance(images, np.ndarray) else [image[None] for image in images]
        return torch.cat([self._transform(group) for group in groups]).to(self._device)


def load_clip(spec: ModelSpec, device: str) -> ClipEncoder:
    """The encoder of a model on `cpu`, `cuda` or `mps`, loaded at most once a process.

    Raises SetupError when the folder, its configuration or its weights are absent or do not fit.
    """
    key = (spec.source, spec.revision, device)
    with _loading:
        if key not in _loaded:
            _loaded[key] = _load(spec, device)
        return _loaded[key]


def _load(spec: ModelSpec, device: str) -> ClipEncoder:
    try:
        import open_clip
    except ImportError as error:
        raise SetupError(
            f"open_clip cannot be imported ({error}); pip install '.[studio]'"
        ) from error
    folder = weights_folder(spec.source, spec.revision, _FILES)
    if not (folder / _CONFIG).is_file():
        raise SetupError(
            f"model {spec.name!r}: {folder} has no {_CONFIG}; it must be an open_clip folder "
            f"(model configuration and weights), as open_clip saves it to the hub"
        )
    location = f"local-dir:{folder}"
    try:
        model, preprocess = open_clip.create_model_from_pretrained(location, device=device)
        transform = batched(preprocess)
        tokenizer = open_clip.get_tokenizer(location)
    # Unfit weights and configurations show as KeyError, RuntimeError, TypeError and more.
    except Exception as error:
        raise SetupError(
            f"model {spec.name!r} in {folder} cannot be loaded by open_clip: {error}; "
            f"check that {_CONFIG} and the weights belong together"
        ) from error
    digest = spec.weights_sha256 or weights_sha256(folder)
    return ClipEncoder(spec, model.eval(), transform, tokenizer, digest)


def _unit(embeddings: Any) -> NDArray[np.float32]:
    import torch

    unit = torch.nn.functional.normalize(embeddings.float(), dim=-1)
    return np.asarray(unit.cpu().numpy(), dtype=np.float32)
