"""Which device generates, in which number format, and how many images at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import SetupError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Device:
    """A torch device (`cuda`, `mps`, `cpu`), its dtype and its default batch size."""

    name: str
    dtype: torch.dtype
    batch_size: int


def pick_device(wanted: str) -> Device:
    """The device for `auto`, `cuda`, `mps` or `cpu`. Raises SetupError when it is not there."""
    import torch

    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        wanted = next(name for name, there in available.items() if there)
    if not available[wanted]:
        there = ", ".join(name for name, is_there in available.items() if is_there)
        raise SetupError(f"device {wanted!r} is not available here; set `device` to one of {there}")
    if wanted == "cuda":
        return Device(
            "cuda", torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16, 16
        )
    if wanted == "mps":
        return Device("mps", torch.float16, 4)
    return Device("cpu", torch.float32, 8)
