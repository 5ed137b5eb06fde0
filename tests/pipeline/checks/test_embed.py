"""open_clip encoders: the model's own transform, one load, unit embeddings, clear set-up errors."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from check_samples import Spec, pictures
from PIL import Image

from pipeline.checks.embed import load_clip
from pipeline.checks.preprocess import batched
from pipeline.errors import SetupError
from pipeline.weights import weights_sha256


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize(
    ("height", "width"), [(128, 128), (40, 90), (90, 40), (16, 16), (300, 200)]
)
def test_batched_transform_equals_open_clips_own_on_pil_images(mode, height, width):
    import open_clip
    import torch

    config = open_clip.transform.PreprocessCfg(size=32, resize_mode=mode, fill_color=7)
    own = open_clip.transform.image_transform_v2(config, is_train=False)
    images = pictures(3, height, width)
    expected = torch.stack([own(Image.fromarray(image)) for image in images])
    levels = (batched(own)(images) - expected).abs() * torch.tensor(config.std).view(3, 1, 1) * 255
    assert levels.max() <= 2.01
    assert levels.mean() <= 0.2


def test_non_square_targets_are_resized_like_open_clips_own():
    import open_clip
    import torch

    own = open_clip.transform.image_transform(
        (32, 24), is_train=False, mean=(0.5, 0.5, 0.5), std=(1, 1, 1)
    )
    images = pictures(2, 70, 60)
    expected = torch.stack([own(Image.fromarray(image)) for image in images])
    assert (batched(own)(images) - expected).abs().max() <= 2.01 / 255


def test_embeddings_are_those_of_the_model_and_of_unit_length(clip_spec):
    import open_clip
    import torch

    encoder = load_clip(clip_spec, "cpu")
    images = pictures(3)
    embeddings = encoder.images(images)
    assert embeddings.dtype == np.float32
    assert embeddings.shape == (3, 16)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    model, _, own = open_clip.create_model_and_transforms(f"local-dir:{clip_spec.source}")
    with torch.no_grad():
        pixels = torch.stack([own(Image.fromarray(image)) for image in images])
        expected = model.eval().encode_image(pixels, normalize=True).numpy()
    np.testing.assert_allclose(embeddings, expected, atol=2e-3)


def test_images_of_several_sizes_are_embedded_in_order(clip_spec):
    encoder = load_clip(clip_spec, "cpu")
    first, second = pictures(1, 40, 60)[0], pictures(1, 80, 30, seed=2)[0]
    together = encoder.images([first, second])
    np.testing.assert_allclose(together[0], encoder.images(first[None])[0], atol=1e-5)
    np.testing.assert_allclose(together[1], encoder.images(second[None])[0], atol=1e-5)


def test_prompts_keep_their_order_when_some_are_known(clip_spec):
    encoder = load_clip(clip_spec, "cpu")
    alone = encoder.texts(["a nude figure"])
    both = encoder.texts(["a mug", "a nude figure"])
    np.testing.assert_allclose(both[1], alone[0])
    assert not np.allclose(both[0], both[1])


def test_threads_that_ask_at_once_get_one_model(clip_folder, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(clip_folder, folder)
    spec = Spec("copy", "open-clip", str(folder))
    with ThreadPoolExecutor(4) as threads:
        encoders = list(threads.map(lambda _: load_clip(spec, "cpu"), range(4)))
    assert len({id(encoder) for encoder in encoders}) == 1


def test_the_digest_is_the_weights_hash(clip_spec, clip_folder):
    assert load_clip(clip_spec, "cpu").digest == weights_sha256(clip_folder)


def broken(clip_folder: Path, folder: Path, fault: str) -> str:
    if fault == "absent":
        return str(folder)
    shutil.copytree(clip_folder, folder)
    if fault == "no configuration":
        (folder / "open_clip_config.json").unlink()
    elif fault == "no weights":
        (folder / "open_clip_model.safetensors").unlink()
    elif fault == "truncated weights":
        weights = folder / "open_clip_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        path = folder / "open_clip_config.json"
        config = json.loads(path.read_text())
        config["model_cfg"]["embed_dim"] = 8
        path.write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("absent", "absent"),
        ("no configuration", "no open_clip_config.json"),
        ("no weights", "cannot be loaded"),
        ("truncated weights", "cannot be loaded"),
        ("weights of another model", "belong together"),
    ],
)
def test_an_unfit_folder_is_a_setup_error_that_says_what_to_do(clip_folder, tmp_path, fault, said):
    source = broken(clip_folder, tmp_path / "model", fault)
    with pytest.raises(SetupError, match=said):
        load_clip(Spec("m", "open-clip", source), "cpu")


def test_a_hub_model_out_of_reach_is_a_setup_error(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SetupError, match="connect once to fetch it"):
        load_clip(Spec("m", "open-clip", "nobody/nothing-of-the-kind", "0" * 40), "cpu")
