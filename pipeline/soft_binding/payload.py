"""What the watermark carries: 48 bits of a request id, guarded by a CRC and a convolutional code.

Bits in, ±1 code symbols out; the way back takes soft values, so weak symbols are outvoted.
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

PAYLOAD_BITS = 48
"""The first 12 hex digits of a request id. Two of 1,000,000 records share them once in 500 sets."""
_CRC_BITS = 16
_CRC_POLYNOMIAL = 0x1021
_CRC_START = 0xFFFF
# Rate 1/3, constraint length 7: the code of 3GPP TS 36.212 (5.1.3.1), here with a zero tail.
_GENERATORS = (0o133, 0o171, 0o165)
_MEMORY = 6
_STATES = 1 << _MEMORY
_MESSAGE_BITS = PAYLOAD_BITS + _CRC_BITS
SYMBOLS = (_MESSAGE_BITS + _MEMORY) * len(_GENERATORS)
"""Code symbols of one payload: 210."""


def payload_of(request_id: str) -> int:
    """The payload that marks the image of a request: the first 48 bits of its id (hex)."""
    return int(request_id[: PAYLOAD_BITS // 4], 16)


def payload_hex(payload: int) -> str:
    """A payload as the hex digits that request ids begin with."""
    return f"{payload:0{PAYLOAD_BITS // 4}x}"


def payload_in(value: str) -> int:
    """The payload of those hex digits. Raises ValueError when they are others."""
    if not re.fullmatch(f"[0-9a-fA-F]{{{PAYLOAD_BITS // 4}}}", value):
        raise ValueError(f"no payload of {PAYLOAD_BITS} bits: {value[:80]!r}")
    return int(value, 16)


def encoded(payload: int) -> NDArray[np.float32]:
    """The code symbols of a payload: float32 [210], each +1 or -1."""
    message = (payload << _CRC_BITS) | _crc(payload)
    state, symbols = 0, []
    for place in range(_MESSAGE_BITS + _MEMORY):
        shift = _MESSAGE_BITS - 1 - place
        state = ((message >> shift) & 1 if shift >= 0 else 0) << _MEMORY | state
        symbols += [1.0 - 2.0 * ((state & each).bit_count() & 1) for each in _GENERATORS]
        state >>= 1
    return np.array(symbols, dtype=np.float32)


def decoded(soft: NDArray[np.float32]) -> list[int | None]:
    """The payloads that rows of soft symbols, [N, 210], most likely carry; None: its CRC is wrong.

    Maximum likelihood by the Viterbi algorithm (Forney, "The Viterbi Algorithm", Proc. IEEE, 1973);
    noise passes the CRC once in 65,536 times.
    """
    expected, earlier, newest = _trellis()
    count, steps = len(soft), soft.reshape(len(soft), -1, len(_GENERATORS))
    branches = np.einsum("sbg,npg->pnsb", expected, steps)
    metric = np.full((count, _STATES), -np.inf)
    metric[:, 0] = 0.0
    choices = np.empty((len(branches), count, _STATES), dtype=np.int64)
    for place, branch in enumerate(branches):
        found = metric[:, earlier] + branch
        choices[place] = found[..., 1] > found[..., 0]
        metric = found.max(axis=2)
    state = np.zeros(count, np.int64)
    bits = np.empty((count, len(branches)), np.int64)
    for place in range(len(branches) - 1, -1, -1):
        bits[:, place] = newest[state]
        state = earlier[state, choices[place, np.arange(count), state]]
    return [_checked(row) for row in bits[:, :_MESSAGE_BITS].tolist()]


def _checked(bits: list[int]) -> int | None:
    message = int("".join(map(str, bits)), 2)
    payload = message >> _CRC_BITS
    return payload if _crc(payload) == message & ((1 << _CRC_BITS) - 1) else None


def _crc(payload: int) -> int:
    """CRC-16/IBM-3740 of the payload's bytes (Cook, "Catalogue of parametrised CRC algorithms")."""
    crc = _CRC_START
    for byte in payload.to_bytes(PAYLOAD_BITS // 8, "big"):
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ _CRC_POLYNOMIAL if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


@lru_cache(maxsize=1)
def _trellis() -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Per state its two ways in: symbols [64, 2, 3], earlier states [64, 2]; newest bit [64]."""
    states = np.arange(_STATES)
    newest = states >> (_MEMORY - 1)
    earlier = np.stack([(states << 1) & (_STATES - 1), (states << 1) & (_STATES - 1) | 1], axis=1)
    register = newest[:, None] << _MEMORY | earlier
    parity = np.array(
        [[[int(word & each).bit_count() & 1 for each in _GENERATORS] for word in pair]
         for pair in register]
    )  # fmt: skip
    return 1.0 - 2.0 * parity, earlier, newest
