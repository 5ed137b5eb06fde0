"""Requests, models, pictures and a signer for the provenance tests; all real, all small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.images import RgbImage
from pipeline.keys import Identity, signing_identity
from pipeline.policy import Policy, load_policy
from pipeline.policy_model import ImageFormat
from pipeline.records import Score, Verdict
from pipeline.request import Request
from pipeline.seal import Sealed, seal
from pipeline.settings import Settings


@dataclass(frozen=True)
class AnyModel:
    name: str = "starter"
    source: str = "/somewhere/starter/weights/text-to-image"
    revision: str = "ab" * 32
    licence: str = "Apache-2.0"
    weights_sha256: str | None = "ab" * 32
    notice: str = "Knows only the starter world."
    is_folder: bool = True


@pytest.fixture
def model() -> AnyModel:
    return AnyModel()


@pytest.fixture
def hub_model() -> AnyModel:
    revision = "0123456789abcdef0123456789abcdef01234567"
    return AnyModel("sd", "org/sd-1.5", revision, "CreativeML-OpenRAIL-M", None, "", False)


@pytest.fixture
def request_of() -> Callable[..., Request]:
    def make(**changes: Any) -> Request:
        fields: dict[str, Any] = {
            "sku": "MUG-1", "index": 0, "mode": "text-to-image", "model": "starter",
            "model_revision": "ab" * 32, "prompt": "a red mug", "negative_prompt": "blur",
            "seed": 2**63 - 1, "width": 96, "height": 64, "steps": 20, "guidance": 7.5,
            "scheduler": "DDIMScheduler", "campaign": "spring", "client": "acme", "terms": {},
        }  # fmt: skip
        return Request(**(fields | changes))

    return make


@pytest.fixture
def picture() -> RgbImage:
    """A smooth picture with grain, uint8 [64, 96, 3]."""
    rng = np.random.default_rng(7)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((96, 64), Image.Resampling.BICUBIC)).astype(int)
    return (smooth + rng.integers(-2, 3, smooth.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def policy() -> Policy:
    return load_policy("starter")


@pytest.fixture
def verdict_of() -> Callable[..., Verdict]:
    def make(policy: Policy, outcome: str = "pass", *reasons: Any) -> Verdict:
        digest = policy.digest
        return Verdict(outcome, reasons, policy.policy, policy.version, digest)  # type: ignore[arg-type]

    return make


@pytest.fixture
def good_scores() -> list[Score]:
    """Scores with which the starter policy passes an image."""
    values = {
        "nsfw.concept": 0.0, "nsfw.classifier": 0.0, "similarity.nearest": 0.1,
        "duplicates.exact": 0.0, "duplicates.near": 256.0, "quality.sharpness": 0.5,
        "quality.contrast": 0.2, "quality.decodes": 1.0, "quality.size_matches": 1.0,
        "quality.banding": 0.0, "duplicates.in_set": 256.0, "fidelity.text": 1.0,
        "copying.descriptor@starter-protected": 0.1, "copying.pdq@starter-protected": 256.0,
    }  # fmt: skip
    people = Score("sensitive", "people", 0.0, {"detector": "starter-clip"})
    return [people, *(Score(*name.split("."), value) for name, value in values.items())]


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(workspace=tmp_path_factory.mktemp("workspace"), producer="Studio & Söhne <1>")


@pytest.fixture(scope="session")
def identity(workspace: Settings) -> Identity:
    return signing_identity(workspace)


@pytest.fixture
def sealed_of(
    picture: RgbImage,
    request_of: Callable[..., Request],
    model: Any,
    policy: Policy,
    verdict_of: Callable[..., Verdict],
    identity: Identity,
) -> Callable[..., Sealed]:
    """Seals the picture as a file of the given format; other arguments are the request's."""

    def make(fmt: str = "png", **changes: Any) -> Sealed:
        image = ImageFormat(format=fmt)  # type: ignore[arg-type]
        chosen = policy.model_copy(update={"image": image})
        return seal(picture, request_of(**changes), model, chosen, verdict_of(chosen), identity)

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def to_file(name: str, data: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return to_file
