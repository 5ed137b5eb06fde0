"""Accelerator memory of Stable Diffusion 1.5 and 2.1 at 512 × 512, computed, not measured.

`python bench/memory.py [--batch N]`: the real architectures on torch's meta device, in fp16.
Weights are their parameters; activations are the most bytes alive at once while each part runs.
Attention is counted in full, as without fused kernels: an upper bound of what the parts themselves
need. What a driver and its allocator take (1–2 GB) comes on top.
"""

from __future__ import annotations

import argparse
import weakref
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CLIPTextConfig, CLIPTextModel

GIB = 2**30
SIDE, TOKENS = 512, 77
FAMILIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Stable Diffusion 1.5": (
        {"cross_attention_dim": 768, "attention_head_dim": 8},
        {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
         "num_attention_heads": 12},
    ),
    "Stable Diffusion 2.1": (
        {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20),
         "use_linear_projection": True},
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23,
         "num_attention_heads": 16},
    ),
}  # fmt: skip
"""UNet and text encoder as the checkpoints' own configurations have them."""


class Alive(TorchDispatchMode):
    """Counts the bytes of tensors that are alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._held: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, torch.Tensor):
                self._hold(each)
        return made

    def _hold(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._held:
            self.now += size
            self.peak = max(self.peak, self.now)
        self._held[key] = self._held.get(key, 0) + 1
        weakref.finalize(tensor, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]
            self.now -= size


def size_of(*parts: torch.nn.Module) -> int:
    """Bytes of all parameters."""
    return sum(p.numel() * p.element_size() for part in parts for p in part.parameters())


def peak_of(run: Callable[[], Any]) -> int:
    """Most bytes of activations alive at once."""
    with torch.no_grad(), Alive() as alive:
        run()
    return alive.peak


def main() -> None:
    """Compute and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=1)
    batch = parser.parse_args().batch
    print(f"fp16, {SIDE}×{SIDE}, {batch} image(s) with guidance; GiB, computed on the meta device")
    head = ("", "weights", "UNet pass", "decode", "largest sum", "vae: [slicing]")
    print(f"{head[0]:22}" + "".join(f"{name:>16}" for name in head[1:]))
    with torch.device("meta"):
        for name, (unet_config, text_config) in FAMILIES.items():
            unet = UNet2DConditionModel(sample_size=64, **unet_config).half().eval()
            text = CLIPTextModel(CLIPTextConfig(**text_config)).half().eval()
            vae = AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=(128, 256, 512, 512),
                layers_per_block=2,
                latent_channels=4,
            )
            vae = vae.half().eval()
            latents = torch.empty(2 * batch, 4, SIDE // 8, SIDE // 8, dtype=torch.half)
            width = unet_config["cross_attention_dim"]
            words = torch.empty(2 * batch, TOKENS, width, dtype=torch.half)
            step = torch.empty((), dtype=torch.long)
            weights = size_of(unet, text, vae)
            painted = peak_of(lambda u=unet, z=latents, t=step, w=words: u(z, t, w))
            decoded = peak_of(lambda v=vae, z=latents: v.decode(z[:batch]))
            one = peak_of(lambda v=vae, z=latents: v.decode(z[:1]))
            sums = [weights + max(painted, each) for each in (decoded, one)]
            row = (weights, painted, decoded, *sums)
            print(f"{name:22}" + "".join(f"{each / GIB:16.2f}" for each in row))


if __name__ == "__main__":
    main()
