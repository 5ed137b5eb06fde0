"""PDQ against hashes that Meta's reference code gave (pdqhash 0.2.8, built from source)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.checks.pdq import pdq, pdq_bits, pdq_hex

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def pattern(height: int, width: int, kind: str) -> np.ndarray:
    """Deterministic pictures that integers alone define, so that they are the same everywhere."""
    y, x = np.mgrid[:height, :width]
    channels = {
        "rings": [(x * x + y * y) // 40, (x * y) // 25, (x - y) ** 2 // 30],
        "blocks": [(x // 9) * 37 + (y // 7) * 91, (x // 13) * 53, (y // 11) * 29],
        "ramp": [x * 255 // width, x * 255 // width, x * 255 // width],
    }[kind]
    return (np.stack(channels, axis=-1) % 256).astype(np.uint8)


REFERENCE = [
    (64, 64, "rings", "8420015d215d1a6f1b6a84251b4a6b5f008a7b5f9c0a615d7bff755d1bea755d", 0),
    (128, 128, "rings", "b32f6478c955929d24a048ab955aa2551ca76368cccb7316d665b19b86b7b5ae", 100),
    (128, 128, "blocks", "ad4fa7f8300fd55a3670bf20559255a2951aebc7b7307cc7a1125ef932b0a0d2", 100),
    (256, 256, "blocks", "67ffd3030855dc08ae51ff10807fd52aaa15540affa7d7328580ff2c1586f50b", 100),
    (100, 140, "rings", "2d554b8592b425aac955b29364bd996a2654ccb5ab2ddada3556accd29a34b6c", 100),
    (333, 77, "blocks", "78e1c8ec99463cc36cc9cc9dccddd694033c417cdcc0de8cd6b5df0452a5ff00", 100),
    (63, 31, "rings", "2eb43665d14bd6e5403fd695d080217b52ab015fd2a5015f256f115fa16f555f", 0),
    (1024, 768, "rings", "f7ccfbfcf9fcfce4feecfe5cff20fe80fec0ffccf6246440e440640020000000", 100),
    (5, 9, "rings", "aa555b4a54aaa4b55b6aec994b4a1626a4b55b4aab555b4a54aaa4b55b4aecd9", 0),
]  # fmt: skip


@pytest.mark.parametrize(("height", "width", "kind", "expected", "quality"), REFERENCE)
def test_hash_and_quality_are_the_reference_implementations(height, width, kind, expected, quality):
    bits, qualities = pdq((pattern(height, width, kind) @ LUMA)[None])
    distance = int(np.bitwise_count(bits[0] ^ pdq_bits(expected)).sum())
    # Other processors round other last bits: one coefficient may sit on the median.
    assert distance <= 2
    # The lower median of 256: half of the bits are above it, however the last ones round.
    assert np.bitwise_count(bits).sum() == np.bitwise_count(pdq_bits(expected)).sum()
    assert qualities[0] == quality


def test_quality_of_a_plain_ramp_is_the_references_although_its_hash_is_noise():
    _, quality = pdq((pattern(128, 128, "ramp") @ LUMA)[None])
    assert quality[0] == 44


def test_images_of_a_batch_are_hashed_independently():
    batch = np.stack([pattern(128, 128, kind) @ LUMA for kind in ("rings", "blocks")])
    together, _ = pdq(batch)
    for index, image in enumerate(batch):
        alone, _ = pdq(image[None])
        assert np.bitwise_count(together[index] ^ alone[0]).sum() <= 2


def test_an_image_too_small_to_hash_has_quality_0():
    bits, quality = pdq(np.zeros((1, 4, 90), np.float32))
    assert pdq_hex(bits[0]) == "0" * 64
    assert quality[0] == 0


@given(st.lists(st.integers(0, 2**64 - 1), min_size=4, max_size=4))
def test_hex_and_bits_are_inverse(words):
    bits = np.array(words, np.uint64)
    assert (pdq_bits(pdq_hex(bits)) == bits).all()


@pytest.mark.parametrize("text", ["", "ab", "z" * 64])
def test_what_is_no_hash_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        pdq_bits(text)
