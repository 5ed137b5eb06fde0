"""The hash that pins a model: it follows weights and configuration, and nothing else."""

import hashlib

import pytest

from pipeline.errors import SetupError
from pipeline.weights import weights_folder, weights_sha256


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_a_files_hash_is_that_of_its_bytes(folder):
    file = folder / "unet" / "model.safetensors"
    assert weights_sha256(file) == hashlib.sha256(b"weights").hexdigest()


def test_a_folders_hash_is_that_of_sha256sums_lines(folder):
    config, weights = (hashlib.sha256(each).hexdigest() for each in (b"{}", b"weights"))
    listing = f"{config}  config.json\n{weights}  unet/model.safetensors\n"
    assert weights_sha256(folder) == hashlib.sha256(listing.encode()).hexdigest()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("unet/model.safetensors", True),
        ("config.json", True),
        ("unet/extra.bin", True),
        ("README.md", False),
        (".cache/huggingface/x.json", False),
    ],
)
def test_what_steers_the_model_changes_its_hash_and_the_rest_does_not(folder, name, changes):
    before = weights_sha256(folder)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"other")
    assert (weights_sha256(folder) != before) == changes


def test_a_folder_without_weights_is_a_setup_error(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(SetupError, match="no model weights"):
            weights_sha256(path)


def test_a_folder_is_its_own_source_and_an_absent_one_is_a_setup_error(folder):
    assert weights_folder(str(folder), "", ()) == folder
    with pytest.raises(SetupError, match="is absent"):
        weights_folder(str(folder / "gone"), "", ())
