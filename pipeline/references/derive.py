"""One file of a library → what is kept of it beside the catalog: PDQ hash and a small picture."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.checks.pdq import luma_of, pdq
from pipeline.images import RgbImage, decode_limited, read_limited

SIDE = 192
"""Longest side of the small pictures, in pixels."""


@dataclass(frozen=True, eq=False)
class Derived:
    """PDQ hash uint64 [4] and quality 0..100 of a file, and a JPEG of at most 192 pixels a side."""

    sha256: str
    hash: NDArray[np.uint64]
    quality: int
    jpeg: bytes


def derive(path: Path, known: Container[str]) -> tuple[str, Derived | None]:
    """A file's SHA-256, and what is derived from it; None when its SHA-256 is `known`.

    Raises ImageRefused for pictures that are broken, of another format or over a limit, OSError
    when the file cannot be read.
    """
    data = read_limited(path)
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 in known:
        return sha256, None
    return sha256, derived_of(data)


def derived_of(data: bytes) -> Derived:
    """What is derived from a file's bytes. Raises ImageRefused."""
    picture = decode_limited(data)
    sha256 = hashlib.sha256(data).hexdigest()
    return Derived(sha256, *pdq_of(picture), _small(picture))


def pdq_of(picture: RgbImage) -> tuple[NDArray[np.uint64], int]:
    """PDQ hash uint64 [4] and quality 0..100, exactly as images are hashed when checked."""
    hashes, quality = pdq(luma_of(picture[None]))
    return hashes[0], int(quality[0])


def _small(picture: RgbImage) -> bytes:
    image = Image.fromarray(picture)
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
