"""Loading and running checkpoints: what cannot be loaded is said before anything is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pipeline.generate.text_to_image import TextToImage

from pipeline.errors import SetupError
from pipeline.generate.device import pick_device
from pipeline.models import Model, load_models, resolve
from pipeline.plan import Batch
from pipeline.request import Request


@pytest.fixture(scope="module")
def starter() -> Model:
    return resolve(load_models(), "starter", "text-to-image")


def request(model: Model, prompt: str, seed: int, **changes: object) -> Request:
    fields = {
        "sku": prompt, "index": 0, "mode": "text-to-image", "model": model.name,
        "model_revision": model.revision, "prompt": prompt, "negative_prompt": "", "seed": seed,
        "width": 128, "height": 128, "steps": 3, "guidance": 3.0, "scheduler": "",
        "campaign": "", "client": "",
    }  # fmt: skip
    return Request(**{**fields, **changes})  # type: ignore[arg-type]


def test_an_image_is_the_same_whoever_its_neighbours_are(starter: Model) -> None:
    engine = TextToImage(starter, pick_device("cpu"), 4)
    mug, vase = request(starter, "a red mug", 1), request(starter, "a blue vase", 2)
    together = engine(Batch((mug, vase, mug)))
    assert together.shape == (3, 128, 128, 3)
    assert together.dtype == np.uint8
    assert np.array_equal(engine(Batch((vase,)))[0], together[1])
    assert np.array_equal(together[0], together[2])
    assert not np.array_equal(together[0], together[1])


def test_sizes_and_schedulers_are_the_requests(starter: Model) -> None:
    engine = TextToImage(starter, pick_device("cpu"), 1)
    wide = request(starter, "a red mug", 1, width=192, scheduler="EulerDiscreteScheduler")
    assert engine(Batch((wide,))).shape == (1, 128, 192, 3)
    wrong = request(starter, "a red mug", 1, scheduler="NoSuchScheduler")
    with pytest.raises(SetupError, match="no scheduler 'NoSuchScheduler'"):
        engine(Batch((wrong,)))


def test_a_checkpoint_that_does_not_load_says_so(starter: Model, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{broken")
    broken = replace(starter, source=str(tmp_path))
    with pytest.raises(SetupError, match="does not load from the folder"):
        TextToImage(broken, pick_device("cpu"), 1)


def test_a_hub_out_of_reach_says_so(starter: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    absent = replace(starter, source="nobody/nothing", revision="0" * 40, is_folder=False)
    with pytest.raises(SetupError, match="does not load from the hub 'nobody/nothing'"):
        TextToImage(absent, pick_device("cpu"), 1)


def test_a_device_that_is_not_there_is_refused() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(SetupError, match="'cuda' is not available"):
        pick_device("cuda")
