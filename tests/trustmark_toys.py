"""Toy TrustMark checkpoints with random weights, in the files and folders of the real package.

Import it only where `trustmark` is installed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from trustmark import trustmark as package

_GRID = 16
_STRENGTH = 0.03


class PatternEncoder(nn.Module):
    """Adds a random pattern of 16 × 16 squares for every bit."""

    def __init__(self, secret_len: int, resolution: int) -> None:
        super().__init__()
        self.register_buffer("patterns", torch.zeros(secret_len, 3 * _GRID * _GRID))
        self.up = nn.Upsample((resolution, resolution))

    def forward(self, cover: torch.Tensor, secret: torch.Tensor) -> torch.Tensor:
        squares = (2 * secret - 1) @ self.patterns
        return cover + _STRENGTH * self.up(squares.view(-1, 3, _GRID, _GRID))


class PatternDecoder(nn.Module):
    """Hears the patterns again: their least-squares share of the picture's smaller shapes."""

    def __init__(self, secret_len: int, resolution: int) -> None:
        super().__init__()
        self.register_buffer("listeners", torch.zeros(3 * _GRID * _GRID, secret_len))

    def forward(self, stego: torch.Tensor) -> torch.Tensor:
        squares = nn.functional.adaptive_avg_pool2d(stego, _GRID)
        around = nn.functional.avg_pool2d(squares, 5, 1, 2, count_include_pad=False)
        return (squares - around).flatten(1) @ self.listeners


def readable_weights(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Networks of our own that mark and read: random patterns, and their pseudo-inverse.

    Four bits are always misheard, which the package's code has to correct.
    """
    patterns = torch.randn(100, 3, _GRID, _GRID, generator=torch.Generator().manual_seed(1))
    patterns -= patterns.mean(dim=(2, 3), keepdim=True)
    heard = patterns - nn.functional.avg_pool2d(patterns, 5, 1, 2, count_include_pad=False)
    listeners = torch.linalg.pinv(heard.flatten(1))
    listeners[:, [3, 9, 44, 90]] *= -1
    _put(
        folder,
        patch,
        {"target": "trustmark_toys.PatternEncoder", "params": {}},
        {"target": "trustmark_toys.PatternDecoder", "params": {}},
        {"encoder.patterns": patterns.flatten(1)},
        {"decoder.listeners": listeners},
    )


def random_weights(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """The package's own networks, small, with random weights: nobody can read what they mark."""
    from trustmark.unet import SecretDecoder, Unet1

    torch.manual_seed(1)
    unet: dict[str, Any] = {"width": 4, "ndown": 4, "nmiddle": 1, "activ": "silu"}
    encoder = Unet1(secret_len=100, resolution=256, **unet)
    decoder = SecretDecoder(arch="resnet18", secret_len=100)
    _put(
        folder,
        patch,
        {"target": "trustmark.unet.Unet1", "params": unet},
        {"target": "trustmark.unet.SecretDecoder", "params": {"arch": "resnet18"}},
        {f"encoder.{name}": value for name, value in encoder.state_dict().items()},
        {f"decoder.{name}": value for name, value in decoder.state_dict().items()},
    )


def _put(
    folder: Path,
    patch: pytest.MonkeyPatch,
    encoder: dict[str, Any],
    decoder: dict[str, Any],
    encodes: dict[str, torch.Tensor],
    decodes: dict[str, torch.Tensor],
) -> None:
    """Write the three files, and have the package look for them in `folder`/models."""
    models = folder / "models"
    models.mkdir(parents=True)
    unused = {"target": "trustmark.model.Identity", "params": {}}
    params = {
        "cover_key": "image", "secret_key": "secret", "secret_len": 100, "resolution": 256,
        "secret_encoder_config": encoder, "secret_decoder_config": decoder,
        "discriminator_config": unused, "loss_config": unused, "noise_config": unused,
    }  # fmt: skip
    config = {"model": {"target": "trustmark.model.TrustMark_Arch", "params": params}}
    (models / "trustmark_Q.yaml").write_text(yaml.safe_dump(config))
    for name, state in (("encoder_Q.ckpt", encodes), ("decoder_Q.ckpt", decodes)):
        torch.save({"state_dict": state, "global_step": 7, "epoch": 1}, models / name)
    for file in models.iterdir():
        digest = hashlib.md5(file.read_bytes()).hexdigest()
        patch.setitem(package.MODEL_CHECKSUMS, file.name, digest)
    patch.setattr(package, "__file__", str(folder / "trustmark.py"))
