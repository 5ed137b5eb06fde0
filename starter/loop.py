"""What every training loop here shares: device, learning rate, averages, resumable checkpoints."""

import copy
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from starter.paths import cache_dir


def device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def quiet_threads(default: int = 1) -> None:
    """Small models train fastest on one thread a process; `STARTER_THREADS` overrides."""
    torch.set_num_threads(int(os.environ.get("STARTER_THREADS", default)))


def autocast(dev: torch.device) -> AbstractContextManager[Any]:
    """bf16 mixed precision."""
    return torch.autocast(dev.type, dtype=torch.bfloat16)


def compiled(function: Any) -> Any:
    """`torch.compile` where a C++ compiler exists (twice as fast on a CPU), else as it is."""
    on = os.environ.get("STARTER_COMPILE", "1") == "1" and shutil.which("g++")
    return torch.compile(function) if on else function


def cosine(step: int, total: int, peak: float, warm: int = 100, floor: float = 0.02) -> float:
    """Learning rate with linear warm-up and cosine decay to `floor * peak`."""
    if step < warm:
        return peak * (step + 1) / warm
    part = min(1.0, (step - warm) / max(1, total - warm))
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * part)))


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group its share (`scale`, default 1) of the rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)


@torch.no_grad()
def average(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the model's."""
    torch._foreach_lerp_(
        list(ema.parameters()), [p.detach() for p in model.parameters()], 1 - decay
    )
    for a, b in zip(ema.buffers(), model.buffers(), strict=True):
        a.copy_(b)


def twin(model: nn.Module) -> nn.Module:
    """A frozen copy, to hold averaged weights."""
    return copy.deepcopy(model).requires_grad_(False).eval()


def shuffled(count: int, batch: int, seed: int, skip: int = 0) -> Iterator[Tensor]:
    """Endless batches of indices, each epoch a new permutation; `skip` batches are passed over."""
    epoch, per = skip // (count // batch), count // batch
    start = skip % per
    while True:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1000 + epoch))
        for i in range(start, per):
            yield order[i * batch : (i + 1) * batch]
        start, epoch = 0, epoch + 1


def save(name: str, state: dict[str, Any]) -> Path:
    """Write a checkpoint atomically into the cache."""
    path = cache_dir() / f"{name}.pt"
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)
    return path


def restore(name: str) -> dict[str, Any] | None:
    """The last checkpoint of that name, if there is one."""
    path = cache_dir() / f"{name}.pt"
    return torch.load(path, map_location="cpu") if path.exists() else None
