"""The watermarks there are, by the name that a policy's `labels: {watermark: …}` gives them.

Whoever marks, claims, indexes or looks up goes through these; each is made in a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.images import RgbImage
from pipeline.policy_model import Policy
from pipeline.soft_binding import detect, payload, trustmark, watermark
from pipeline.soft_binding.detect import Reading


@dataclass(frozen=True)
class Watermark:
    """One way to tie pixels to a request. Payloads are integers that begin as request ids do.

    `algorithm` is its name in manifests. `payloads` are its possible ones: no two watermarks share
    any, because the catalog keeps all in one column. `value_of` writes a payload as manifests have
    it; `payload_in` reads it back, or raises ValueError. `make_ready` raises SetupError where it
    cannot mark or read here. `embed` gives None for pixels uint8 [H, W, 3] that cannot hold it.
    `needs_model`: reading it takes a model, which is not loaded where no image bears the mark.
    """

    algorithm: str
    payloads: range
    payload_of: Callable[[str], int]
    value_of: Callable[[int], str]
    payload_in: Callable[[str], int]
    make_ready: Callable[[], None]
    embed: Callable[[RgbImage, int], RgbImage | None]
    read: Callable[[RgbImage], Reading | None]
    needs_model: bool = False


def _needs_nothing() -> None:
    """The embedded watermark is always ready."""


def _embedded(image: RgbImage, value: int) -> RgbImage | None:
    return watermark.embed(image, value) if watermark.marks(*image.shape[:2]) else None


WATERMARKS: Mapping[str, Watermark] = {
    "embedded": Watermark(
        watermark.ALGORITHM,
        range(1 << payload.PAYLOAD_BITS),
        payload.payload_of,
        payload.payload_hex,
        payload.payload_in,
        _needs_nothing,
        _embedded,
        detect.read,
    ),
    "trustmark": Watermark(
        trustmark.ALGORITHM,
        trustmark.PAYLOADS,
        trustmark.payload_of,
        trustmark.value_of,
        trustmark.payload_in,
        trustmark.make_ready,
        trustmark.embed,
        trustmark.read,
        needs_model=True,
    ),
}
"""By the policy's name; cheapest to read first."""

BY_ALGORITHM = {each.algorithm: each for each in WATERMARKS.values()}
"""The same by their names in manifests."""


def chosen(policy: Policy) -> Watermark | None:
    """The watermark that a policy wants; None for `none`."""
    return WATERMARKS.get(policy.labels.watermark)


def ready_to_mark(policy: Policy) -> None:
    """Raises SetupError when the watermark that a policy wants cannot be made here."""
    if wanted := chosen(policy):
        wanted.make_ready()
