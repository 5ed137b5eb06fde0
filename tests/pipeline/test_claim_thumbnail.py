"""The thumbnail in a signed file is the picture, small; files without one have none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.claim_thumbnail import claim_thumbnail
from pipeline.encode import lossless_png
from pipeline.images import RgbImage
from pipeline.keys import Identity
from pipeline.policy import Policy
from pipeline.policy_model import ImageFormat
from pipeline.records import Verdict
from pipeline.request import Request
from pipeline.seal import seal


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_it_is_the_picture_small(
    kind: Any,
    request_of: Callable[..., Request],
    model: Any,
    policy: Policy,
    verdict_of: Callable[..., Verdict],
    identity: Identity,
) -> None:
    across = np.linspace(0, 250, 600)[None, :, None] * np.ones((300, 1, 3))
    chosen = policy.model_copy(update={"image": ImageFormat(format=kind, quality=90)})
    sealed = seal(
        across.astype(np.uint8), request_of(), model, chosen, verdict_of(policy), identity
    )
    found = claim_thumbnail(sealed.data, sealed.mime)
    assert found is not None and found.shape == (128, 256, 3)
    wanted = np.asarray(Image.fromarray(across.astype(np.uint8)).resize((256, 128)))
    assert np.abs(found.astype(int) - wanted).mean() < 4


def test_an_unsigned_file_has_none(picture: RgbImage) -> None:
    assert claim_thumbnail(lossless_png(picture), "image/png") is None
    assert claim_thumbnail(b"no image", "image/png") is None
