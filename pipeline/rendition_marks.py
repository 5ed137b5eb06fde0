"""How a rendition is found again when its metadata are gone: its watermark and its fingerprints.

Between shaping and encoding, as pipeline/soft_binding/mark.py does it for originals.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.images import RgbImage
from pipeline.soft_binding.assertion import SoftBinding
from pipeline.soft_binding.mark import fingerprints
from pipeline.soft_binding.watermarks import BY_ALGORITHM


@dataclass(frozen=True, eq=False)
class MarkedAgain:
    """Pixels as they are encoded, uint8 [H, W, 3], and what the manifest says of them.

    `embedded`: the watermark had to be embedded anew.
    """

    pixels: RgbImage
    bindings: tuple[SoftBinding, ...]
    embedded: bool


def mark_again(pixels: RgbImage, watermark: SoftBinding | None, *, reshaped: bool) -> MarkedAgain:
    """The pixels of a rendition, uint8 [H, W, 3], with their soft bindings.

    `watermark` is what the original declares, None without one. Resizing keeps it; where `reshaped`
    pixels no longer show it, as after padding, it is embedded again. Raises SetupError when that
    watermark cannot be read or made here.
    """
    bindings: list[SoftBinding] = []
    embedded = False
    if watermark is not None:
        kind = BY_ALGORITHM[watermark.alg]
        payload = kind.payload_in(watermark.value)
        held = not reshaped
        if reshaped:
            reading = kind.read(pixels)
            held = reading is not None and reading.payload == payload
        if not held and (marked := kind.embed(pixels, payload)) is not None:
            pixels, held, embedded = marked, True, True
        if held:
            bindings.append(watermark)
    return MarkedAgain(pixels, (*bindings, *fingerprints(pixels)), embedded)
