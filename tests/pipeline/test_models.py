"""The models file: what is declared, what is refused, and what pins a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import InputError, SetupError
from pipeline.models import load_models, resolve
from pipeline.weights import weights_sha256

REVISION = "0123456789abcdef0123456789abcdef01234567"


def save(folder: Path, text: str) -> Path:
    path = folder / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_shipped_models_are_declared_and_own_ones_replace_them(tmp_path: Path) -> None:
    own = save(tmp_path, "models:\n  starter: {kind: text-to-image, folder: x, licence: MIT}\n")
    assert {"starter", "sd-1.5", "starter-clip"} <= set(load_models())
    assert load_models(own)["starter"].entry.licence == "MIT"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "own.yaml: the file is empty"),
        ("[]", "no `models:`"),
        ("models: [\n", "own.yaml, line 2: broken YAML"),
        ("models:\n  " + "{a: " * 3000, "own.yaml, line 2: nests too deep"),
        ("models:\n  a: {notice: 2027-02-30}\n", "own.yaml, line 2: '2027-02-30'"),
        ("models:\n  a: {}\n  a: {}\n", "own.yaml, line 3: 'a' is written twice"),
        ("models:\n  a: {kind: text-to-image, licence: MIT}\n", "either `folder` or `hub`"),
        ("models:\n  a: {kind: text-to-image, licence: MIT, hub: o/n}\n", "40 hex digits"),
        (
            f"models:\n  a: {{kind: open-clip, licence: MIT, hub: o/n, revision: '{REVISION}', "
            f"weights_sha256: '{'ab' * 32}'}}\n",
            "leave `weights_sha256` out",
        ),
        ("models:\n  a: {kind: gan, folder: x, licence: MIT}\n", "own.yaml, a.kind"),
    ],
)
def test_wrong_models_files_say_where_and_what(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        load_models(save(tmp_path, text))
    assert said in str(caught.value)
    assert len(caught.value.faults) == 1


def test_a_folder_is_pinned_by_its_hash_and_a_hub_model_by_its_revision(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.safetensors").write_bytes(b"weights")
    digest = weights_sha256(tmp_path / "weights")
    models = load_models(
        save(
            tmp_path,
            "models:\n"
            f"  a: {{kind: text-to-image, folder: weights, licence: MIT, "
            f"weights_sha256: {digest}}}\n"
            f"  b: {{kind: text-to-image, folder: weights, licence: MIT, "
            f"weights_sha256: {'ab' * 32}}}\n"
            "  c: {kind: text-to-image, folder: absent, licence: MIT}\n"
            f"  d: {{kind: text-to-image, hub: o/n, revision: '{REVISION}', licence: MIT}}\n",
        )
    )
    assert resolve(models, "a", "text-to-image").revision == digest
    assert resolve(models, "d", "text-to-image").revision == REVISION
    for name, said in (("b", "the weights in"), ("c", "is absent")):
        with pytest.raises(SetupError, match=said):
            resolve(models, name, "text-to-image")
    with pytest.raises(InputError, match="did you mean 'starter'"):
        resolve(models, "startr", "text-to-image")
