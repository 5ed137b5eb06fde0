"""Tiny checkpoints with random weights, in the exact formats that real ones have."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from check_samples import RIGHTS_HEADER, Spec, pictures, request_of
from numpy.typing import NDArray
from PIL import Image

from catalog.lake import writing
from catalog.libraries_sync import open_libraries
from pipeline.checks import ImageBatch
from pipeline.checks.references import References
from pipeline.settings import Settings


@pytest.fixture
def batch_of() -> Callable[..., ImageBatch]:
    def make(images: NDArray[np.uint8], *skus: str) -> ImageBatch:
        names = skus or tuple(f"sku{index}" for index in range(len(images)))
        return ImageBatch(images, tuple(request_of(sku) for sku in names))

    return make


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An open_clip folder: 24 px ViT, 16 dimensions."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    config = {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": {
                "image_size": 24, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16,
            },
            "text_cfg": {
                "context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1,
            },
        },
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
    }  # fmt: skip
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def clip_spec(clip_folder: Path) -> Spec:
    return Spec("tiny-clip", "open-clip", str(clip_folder))


@pytest.fixture(scope="session")
def classifier_spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    """A Hugging Face classifier of 24 px with the labels `normal` and `nsfw`."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    folder = tmp_path_factory.mktemp("nsfw")
    torch.manual_seed(1)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=24, patch_size=8, id2label={0: "normal", 1: "nsfw"},
        label2id={"normal": 0, "nsfw": 1}, initializer_range=0.5,
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 24, "width": 24}).save_pretrained(folder)
    return Spec("tiny-nsfw", "image-classifier", str(folder))


@pytest.fixture
def library_folder(tmp_path: Path) -> Path:
    """Three works: two protected, one own."""
    folder = tmp_path / "works"
    (folder / "logos").mkdir(parents=True)
    for name, image in zip(("a.png", "logos/b.png", "own.png"), pictures(3, seed=7), strict=True):
        Image.fromarray(image).save(folder / name)
    (folder / "rights.csv").write_text(
        f"{RIGHTS_HEADER}\n"
        "a.png,Fox,Fable Ltd,all rights reserved,protected,\n"
        'logos/b.png,"Star, red",Nova AG,all rights reserved,protected,registered 2011\n'
        "own.png,Our mug,Us,own work,own,\n"
    )
    return folder


@pytest.fixture
def open_folders(tmp_path: Path) -> Iterator[Callable[..., Callable[[str], References]]]:
    """Libraries of a real catalog by name: `open_folders(works=folder)("works")`."""
    with writing(tmp_path / "catalog") as lake:

        def opened(**folders: Path) -> Callable[[str], References]:
            return open_libraries(lake, Settings(workspace=tmp_path / "ws", libraries=folders))

        yield opened
