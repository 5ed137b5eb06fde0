"""Copy descriptors from TorchScript, timm and open_clip folders: the model's own answer, unit
length, one load, set-up errors that say what to do."""

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from check_samples import pictures
from PIL import Image
from safetensors.torch import save_file

from pipeline.checks.descriptor import descriptor_digest, load_descriptor
from pipeline.checks.embed import load_clip
from pipeline.errors import SetupError
from pipeline.weights import weights_sha256

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@dataclass(frozen=True)
class CopySpec:
    source: str
    file: str | None = None
    width: int = 32
    height: int = 32
    name: str = "copies"
    kind: str = "copy-descriptor"
    revision: str = "r1"
    weights_sha256: str | None = None


class Tower(torch.nn.Module):
    """Mean colours of 4 × 4 blocks, and the size that was seen."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        blocks = torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)
        sides = torch.tensor([float(x.shape[2]), float(x.shape[3])]).expand(x.shape[0], 2)
        return torch.cat([blocks, sides / 1000], 1)


@pytest.fixture(scope="module")
def scripted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sscd")
    torch.jit.script(Tower()).save(str(folder / "small.torchscript.pt"))
    return folder


ARCHITECTURE = "test_efficientnet"


def timm_folder(folder: Path, dtype: torch.dtype = torch.float32, **config) -> Path:
    folder.mkdir()
    torch.manual_seed(3)
    options = {"num_classes": 24} | config.pop("options", {})
    model = timm.create_model(ARCHITECTURE, **options)
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    prepared = {
        "input_size": [3, 40, 40], "interpolation": "bicubic", "crop_pct": 0.9,
        "crop_mode": "center", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4],
    }  # fmt: skip
    written = {
        "architecture": ARCHITECTURE, "num_classes": options["num_classes"],
        "pretrained_cfg": prepared,
    } | config  # fmt: skip
    (folder / "config.json").write_text(json.dumps(written))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return timm_folder(tmp_path_factory.mktemp("timm") / "model")


def test_torchscript_sees_a_square_normalised_as_for_imagenet(scripted):
    images = pictures(3, 48, 64)
    found = load_descriptor(CopySpec(str(scripted), width=24, height=20), "cpu").images(images)
    small = [
        torch.from_numpy(np.array(Image.fromarray(i).resize((24, 20), Image.Resampling.BILINEAR)))
        for i in images
    ]
    x = ((torch.stack(small).float() / 255 - MEAN) / STD).permute(0, 3, 1, 2)
    expected = torch.nn.functional.normalize(Tower()(x), dim=1)
    np.testing.assert_allclose(found, expected, atol=5e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("classes", [24, 0])
def test_timm_features_are_those_of_timm_itself(tmp_path, dtype, classes):
    folder = timm_folder(tmp_path / "m", dtype, options={"num_classes": classes})
    found = load_descriptor(CopySpec(str(folder)), "cpu").images(pictures(3, 60, 50))
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).float().eval()
    data = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**data, is_training=False)
    with torch.no_grad():
        x = torch.stack([transform(Image.fromarray(each)) for each in pictures(3, 60, 50)])
        expected = torch.nn.functional.normalize(model(x), dim=1)
    assert found.shape == (3, classes or model.num_features)
    np.testing.assert_allclose(found, expected, atol=2e-2)
    assert (found * expected.numpy()).sum(1).min() > 0.999


def test_an_open_clip_folder_gives_its_image_tower(clip_folder, clip_spec):
    found = load_descriptor(CopySpec(str(clip_folder)), "cpu")
    clip = load_clip(clip_spec, "cpu")
    np.testing.assert_allclose(found.images(pictures(2)), clip.images(pictures(2)), atol=1e-6)
    assert found.digest == clip.digest


@pytest.mark.parametrize("kind", ["scripted", "checkpoint", "clip_folder"])
def test_embeddings_are_float32_of_unit_length_whatever_the_sizes(request, kind):
    descriptor = load_descriptor(CopySpec(str(request.getfixturevalue(kind))), "cpu")
    first, second = pictures(1, 40, 60)[0], pictures(1, 80, 30, seed=2)[0]
    together = descriptor.images([first, second])
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(together[1], descriptor.images(second[None])[0], atol=1e-5)
    assert descriptor.spec.name == "copies"
    assert descriptor.digest == descriptor_digest(descriptor.spec)
    # Of a script also the file and the size that it is given count.
    is_weights = descriptor.digest == weights_sha256(descriptor.spec.source)
    assert is_weights == (kind != "scripted")


def test_what_is_no_number_is_passed_on(tmp_path):
    class Lost(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) / 0 * 0

    torch.jit.script(Lost()).save(str(tmp_path / "m.torchscript.pt"))
    assert np.isnan(load_descriptor(CopySpec(str(tmp_path)), "cpu").images(pictures(2))).all()


def test_threads_that_ask_at_once_get_one_model(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "copy")
    spec = CopySpec(str(tmp_path / "copy"))
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: load_descriptor(spec, "cpu"), range(4)))
    assert len({id(each) for each in found}) == 1


def test_the_file_declared_is_the_one_that_is_loaded(scripted, tmp_path):
    folder = tmp_path / "two"
    shutil.copytree(scripted, folder)
    shutil.copy(folder / "small.torchscript.pt", folder / "large.torchscript.pt")
    with pytest.raises(SetupError, match=r"large.torchscript.pt, small.torchscript.pt.*`file`"):
        load_descriptor(CopySpec(str(folder)), "cpu")
    named = load_descriptor(CopySpec(str(folder), "small.torchscript.pt"), "cpu")
    assert named.images(pictures(1)).shape == (1, 50)


def test_scripts_of_one_folder_and_sizes_of_one_script_are_told_apart(scripted, tmp_path):
    folder = tmp_path / "both"
    shutil.copytree(scripted, folder)
    shutil.copy(folder / "small.torchscript.pt", folder / "large.torchscript.pt")
    small, large = "small.torchscript.pt", "large.torchscript.pt"
    specs = [
        CopySpec(str(folder), small),
        CopySpec(str(folder), large),
        CopySpec(str(folder), small, width=48),
        CopySpec(str(folder), small, height=48),
        # A declared hash is of the whole folder, so it does not tell them apart either.
        CopySpec(str(folder), small, weights_sha256="ab" * 32),
        CopySpec(str(folder), large, weights_sha256="ab" * 32),
    ]
    unloaded = [descriptor_digest(spec) for spec in specs]
    assert len(set(unloaded)) == len(specs)
    assert all(len(digest) == 64 for digest in unloaded)
    loaded = [load_descriptor(spec, "cpu") for spec in specs[:4]]
    assert [each.digest for each in loaded] == unloaded[:4]
    assert [each.spec for each in loaded] == specs[:4]


class Trap:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_pickle_is_ever_opened(checkpoint, tmp_path):
    folder, sprung = tmp_path / "trap", tmp_path / "sprung"
    shutil.copytree(checkpoint, folder)
    for name in ("pytorch_model.bin", "other.pth", "plain.torchscript.pt"):
        (folder / name).write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(SetupError, match="cannot be loaded"):
        load_descriptor(CopySpec(str(folder)), "cpu")
    (folder / "plain.torchscript.pt").unlink()
    config = json.loads((folder / "config.json").read_text())
    config["model_args"] = {"checkpoint_path": str(folder / "other.pth"), "pretrained": True}
    (folder / "config.json").write_text(json.dumps(config))
    assert load_descriptor(CopySpec(str(folder)), "cpu").images(pictures(1)).shape == (1, 24)
    assert not sprung.exists()


def broken(checkpoint: Path, folder: Path, fault: str) -> None:
    if fault == "absent":
        return
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    if fault == "nothing known":
        (folder / "config.json").unlink()
    elif fault == "no weights":
        (folder / "model.safetensors").unlink()
    elif fault == "truncated weights":
        weights = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(weights[:1000])
    elif fault == "no architecture":
        del config["architecture"]
    elif fault == "an address for an architecture":
        config["architecture"] = "local-dir:/tmp"
    elif fault == "weights of another model":
        config["num_classes"] = 8
    elif fault == "broken script":
        (folder / "m.torchscript.pt").write_bytes(b"PK no archive")
    if fault != "nothing known":
        (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("absent", "absent"),
        ("nothing known", r"neither \*.torchscript.pt nor open_clip_config.json nor config.json"),
        ("no weights", "cannot be loaded"),
        ("truncated weights", "cannot be loaded"),
        ("no architecture", "no architecture 'None'"),
        ("an address for an architecture", "no architecture 'local-dir:/tmp'"),
        ("weights of another model", "belong together"),
        ("broken script", "cannot be loaded"),
    ],
)
def test_an_unfit_folder_is_a_setup_error_that_says_what_to_do(checkpoint, tmp_path, fault, said):
    broken(checkpoint, tmp_path / "model", fault)
    with pytest.raises(SetupError, match=said):
        load_descriptor(CopySpec(str(tmp_path / "model")), "cpu")


def test_a_declared_file_that_is_absent_is_a_setup_error(scripted):
    with pytest.raises(SetupError, match=r"has no sscd.torchscript.pt; put it there, or mend"):
        load_descriptor(CopySpec(str(scripted), "sscd.torchscript.pt"), "cpu")


def test_a_hub_model_out_of_reach_is_a_setup_error(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    spec = CopySpec("nobody/nothing-of-the-kind", revision="0" * 40)
    with pytest.raises(SetupError, match="connect once to fetch it"):
        load_descriptor(spec, "cpu")
