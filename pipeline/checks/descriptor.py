"""Copy descriptors: images → unit embeddings that stay close when a picture is edited. For copies.

Loads what the field publishes: TorchScript (SSCD), timm checkpoints in the hub's layout and
open_clip folders. A model is loaded once a process, whichever thread asks first.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.embed import load_clip
from pipeline.checks.preprocess import batched
from pipeline.checks.protocol import Images, ModelSpec
from pipeline.errors import SetupError
from pipeline.weights import weights_folder, weights_sha256

_SCRIPT, _CLIP, _TIMM, _WEIGHTS = (
    "*.torchscript.pt", "open_clip_config.json", "config.json", "model.safetensors",
)  # fmt: skip
_FILES = (
    _SCRIPT, _CLIP, "open_clip*.safetensors", "tokenizer*", "vocab*", "merges.txt", "special*",
    _TIMM, _WEIGHTS,
)  # fmt: skip
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_FETCHING = {"pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"}
"""Arguments of timm that would load weights from elsewhere, pickled ones among them."""

_loaded: dict[tuple[str, str, str, str | None, str], Descriptor] = {}
_loading = threading.Lock()


class DescriptorSpec(ModelSpec, Protocol):
    """What a descriptor needs of a model; pipeline/models.py has them."""

    @property
    def width(self) -> int: ...  # noqa: D102
    @property
    def height(self) -> int: ...  # noqa: D102
    @property
    def file(self) -> str | None: ...  # noqa: D102


class Descriptor:
    """A copy descriptor on its device. Made by `load_descriptor`; threads may call its method.

    `digest` is the SHA-256 of its weights (pipeline/weights.py). All is float32: scores are kept
    for years.
    """

    def __init__(self, spec: DescriptorSpec, digest: str, forward: Callable[[Images], Any]):
        self.spec = spec
        self.digest = digest
        self._forward = forward

    def images(self, images: Images) -> NDArray[np.float32]:
        """Unit-length float32 [N, D] of uint8 [N, H, W, 3], or of a list of [H, W, 3].

        What the model answers with NaN stays NaN.
        """
        import torch

        with torch.inference_mode():
            embeddings = torch.as_tensor(self._forward(images)).float()
            unit = torch.nn.functional.normalize(embeddings, dim=-1)
        return np.asarray(unit.cpu().numpy(), dtype=np.float32)


def load_descriptor(spec: ModelSpec, device: str) -> Descriptor:
    """The descriptor of a model on `cpu`, `cuda` or `mps`, loaded at most once a process.

    By what lies in its folder: `spec.file` or one `*.torchscript.pt`, which takes RGB normalised as
    for ImageNet at `spec.height` × `spec.width` (SSCD's README: 288 or 320 square); an open_clip
    folder, whose image tower is used; or a timm checkpoint, `config.json` with `architecture` and
    `model.safetensors`, whose output is the embedding and whose `pretrained_cfg` prepares images.
    No pickle is opened; TorchScript is a program all the same, so pin it by its hash. Raises
    SetupError when the folder, its configuration or its weights are absent or do not fit.
    """
    declared = cast(DescriptorSpec, spec)
    size = f"{declared.height}x{declared.width}"
    key = (spec.source, spec.revision, device, declared.file, size)
    with _loading:
        if key not in _loaded:
            _loaded[key] = _load(declared, device)
        return _loaded[key]


def _load(spec: DescriptorSpec, device: str) -> Descriptor:
    named = (spec.file,) if spec.file else ()
    folder = weights_folder(spec.source, spec.revision, (*_FILES, *named))
    script = _script(spec, folder)
    if script is None and (folder / _CLIP).is_file():
        clip = load_clip(spec, device)
        return Descriptor(spec, clip.digest, clip.images)
    if script is None and not (folder / _TIMM).is_file():
        raise SetupError(
            f"model {spec.name!r}: {folder} has neither {_SCRIPT} nor {_CLIP} nor {_TIMM}; a copy "
            f"descriptor is a TorchScript file, an open_clip folder or a timm checkpoint"
        )
    try:
        model, transform = _scripted(script, spec) if script else _timm(folder)
        model = model.eval().float().to(device)
    except ImportError as error:
        raise SetupError(f"timm cannot be imported ({error}); pip install '.[studio]'") from error
    # Unfit weights and configurations show as KeyError, RuntimeError, TypeError and more.
    except Exception as error:
        raise SetupError(
            f"model {spec.name!r} in {folder} cannot be loaded as a copy descriptor: {error}; "
            f"check that configuration and weights belong together"
        ) from error
    return Descriptor(spec, _digest(spec, folder, script), _run(model, transform))


def descriptor_digest(spec: DescriptorSpec) -> str:
    """What `Descriptor.digest` would be, without loading it. Raises SetupError."""
    named = (spec.file,) if spec.file else ()
    folder = weights_folder(spec.source, spec.revision, (*_FILES, *named))
    return _digest(spec, folder, _script(spec, folder))


def _digest(spec: DescriptorSpec, folder: Path, script: Path | None) -> str:
    """SHA-256 of the weights; of a script also which one it is, and the size it is given."""
    digest = spec.weights_sha256 or weights_sha256(folder)
    if script is None:
        return digest
    return hashlib.sha256(f"{digest} {script.name} {spec.width}x{spec.height}".encode()).hexdigest()


def _script(spec: DescriptorSpec, folder: Path) -> Path | None:
    """The TorchScript file to load, None where there is none."""
    if spec.file:
        if not (folder / spec.file).is_file():
            raise SetupError(
                f"model {spec.name!r}: {folder} has no {spec.file}; put it there, or mend `file` "
                f"in the models file"
            )
        return folder / spec.file
    found = sorted(folder.glob(_SCRIPT))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise SetupError(
            f"model {spec.name!r}: {folder} has several TorchScript files ({names}); name one as "
            f"`file` in the models file"
        )
    return found[0] if found else None


def _scripted(path: Path, spec: DescriptorSpec) -> tuple[Any, Any]:
    import torch
    from torchvision import transforms

    steps = [
        transforms.Resize((spec.height, spec.width)),
        transforms.ToTensor(),
        transforms.Normalize(*_IMAGENET),
    ]
    jit: Any = torch.jit
    return jit.load(path, map_location="cpu"), batched(transforms.Compose(steps))


def _timm(folder: Path) -> tuple[Any, Any]:
    import timm.data
    import torch
    from safetensors.torch import load_file

    config = json.loads((folder / _TIMM).read_text(encoding="utf-8"))
    architecture = str(config.get("architecture"))
    if not timm.is_model(architecture):
        raise ValueError(f"timm {timm.__version__} has no architecture {architecture!r}")
    options = {k: v for k, v in config.get("model_args", {}).items() if k not in _FETCHING}
    if "num_classes" in config:
        options["num_classes"] = config["num_classes"]
    if "global_pool" in config:
        options["global_pool"] = config["global_pool"]
    model = timm.create_model(architecture, pretrained=False, **options)
    model.load_state_dict(load_file(folder / _WEIGHTS))
    model = model.to(memory_format=torch.channels_last)
    preparing: Any = timm.data
    prepared = config.get("pretrained_cfg", config)
    data = preparing.resolve_data_config({}, pretrained_cfg=prepared, use_test_size=True)
    return model, batched(preparing.create_transform(**data, is_training=False))


def _run(model: Any, transform: Callable[[NDArray[np.uint8]], Any]) -> Callable[[Images], Any]:
    import torch

    device = next(iter(model.parameters()), torch.zeros(0)).device

    def forward(images: Images) -> Any:
        groups = [images] if isinstance(images, np.ndarray) else [image[None] for image in images]
        return model(torch.cat([transform(group) for group in groups]).to(device))

    return forward
