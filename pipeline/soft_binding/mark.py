"""The one step that marks an image: pixels in; watermarked pixels and their soft bindings out.

Between the checks, which measured the pixels as generated, and encoding, labelling and signing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.checks.pdq import pdq_hex
from pipeline.encode import as_rgb
from pipeline.images import RgbImage
from pipeline.policy_model import Policy
from pipeline.request import Request
from pipeline.soft_binding.assertion import SoftBinding
from pipeline.soft_binding.fingerprint import ISCC, MIDDLE, PDQ, iscc_of, pdq_of
from pipeline.soft_binding.watermarks import chosen


@dataclass(frozen=True, eq=False)
class Marked:
    """Pixels as they are encoded, uint8 [H, W, 3], and what the manifest says of them."""

    pixels: RgbImage
    bindings: tuple[SoftBinding, ...]


def mark(image: Image.Image | RgbImage, request: Request, policy: Policy) -> Marked:
    """The image with the watermark of its request, where the policy wants one, and fingerprints.

    The same request and pixels give the same result. Raises EncodeError when it is no RGB image,
    SetupError when the watermark cannot be made here.
    """
    pixels = np.asarray(as_rgb(image))
    bindings = []
    if wanted := chosen(policy):
        payload = wanted.payload_of(request.request_id)
        watermarked = wanted.embed(pixels, payload)
        if watermarked is not None:
            pixels = watermarked
            bindings.append(SoftBinding(wanted.algorithm, wanted.value_of(payload)))
    return Marked(pixels, (*bindings, *fingerprints(pixels)))


def fingerprints(pixels: RgbImage) -> tuple[SoftBinding, ...]:
    """What is bound to pixels, uint8 [H, W, 3], by their looks: PDQ of whole and middle, ISCC."""
    hashes, _ = pdq_of(pixels, ((0.0, 0.0, 1.0, 1.0), MIDDLE))
    return (
        SoftBinding(PDQ, pdq_hex(hashes[0])),
        SoftBinding(PDQ, pdq_hex(hashes[1]), MIDDLE),
        SoftBinding(ISCC, iscc_of(pixels)),
    )
