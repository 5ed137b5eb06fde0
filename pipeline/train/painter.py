"""The pipeline that learns: low-rank weights beside the UNet's frozen attention.

Takes one step at a time, measures a probe loss at fixed noise, paints prompts at fixed seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import PlatemarkError
from pipeline.images import RgbImage
from pipeline.models import Model
from pipeline.train.base import load_base
from pipeline.train.recipe import Recipe, drawn, mixed, schedule

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "pytorch_lora_weights.safetensors"
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""The attention's projections that get low-rank weights, as everywhere for this layout."""
_PROBES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Shares of the noise schedule at which the fixed probe loss is measured."""
_PROBED = 4


class TrainingError(PlatemarkError):
    """A training that cannot give an adapter; nothing was written but its own working folder."""


class Painter:
    """The base with the adapter in it: learns from pictures, and paints prompts."""

    def __init__(self, model: Model, recipe: Recipe, device: str):
        import torch
        from peft import LoraConfig

        from pipeline.generate.device import pick_device

        self.model, self.recipe = model, recipe
        self.device = pick_device(device)
        # Half precision trains under autocast, which is sound on CUDA only.
        self._half = self.device.name == "cuda"
        self._dtype = self.device.dtype if self._half else torch.float32
        self.precision = f"{self.device.name}, {str(self._dtype).removeprefix('torch.')}"
        self._pipe = load_base(model, self._dtype)
        self._unet = self._pipe.unet
        for part in (self._unet, self._pipe.vae, self._pipe.text_encoder):
            part.requires_grad_(False)
        config = LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.rank,
            init_lora_weights="gaussian",
            target_modules=list(TARGETS),
        )
        # On the CPU, before the move: one seed is one start on every device.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self._unet.add_adapter(config)
        self._pipe.to(self.device.name)
        self.weights: dict[str, Any] = {
            key: each for key, each in self._unet.named_parameters() if each.requires_grad
        }
        for each in self.weights.values():
            each.data = each.data.float()
        self.optimiser = torch.optim.AdamW(self.weights.values(), lr=recipe.rate)
        scaler: Any = torch.amp.GradScaler
        self.scaler = scaler(self.device.name, enabled=self._dtype == torch.float16)
        noise = self._pipe.scheduler.alphas_cumprod.float().cpu()
        self._signal, self._noise = noise.sqrt(), (1 - noise).sqrt()
        self._prediction = str(self._pipe.scheduler.config.prediction_type)

    def learn_by(self, pictures: Sequence[RgbImage]) -> None:
        """Encode pictures and captions once: neither encoder is trained."""
        import torch

        vae = self._pipe.vae
        latents, words = [], {}
        with torch.no_grad():
            for pixels in pictures:
                image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
                encoded = vae.encode(image.to(self.device.name, vae.dtype))
                # AutoencoderTiny gives latents, AutoencoderKL a distribution.
                tiny = hasattr(encoded, "latents")
                latent = encoded.latents if tiny else encoded.latent_dist.mean
                shift = getattr(vae.config, "shift_factor", None) or 0.0
                latents.append((latent.float() - shift) * vae.config.scaling_factor)
            for text in dict.fromkeys(self.recipe.captions):
                words[text] = self._pipe.encode_prompt(text, self.device.name, 1, False)[0]
        self._latents = torch.cat(latents).cpu()
        self._words = torch.cat([words[text] for text in self.recipe.captions])
        if not torch.isfinite(self._latents).all():
            raise TrainingError(f"model {self.model.name!r} encodes pictures to no numbers")

    def step(self, number: int) -> float:
        """One step of the optimiser; `number` from 0 decides pictures, noise and rate."""
        import torch

        recipe = self.recipe
        generator = torch.Generator().manual_seed(mixed(recipe.seed, "step", number))
        index = torch.tensor(
            [drawn(recipe, number * recipe.batch_size + i) for i in range(recipe.batch_size)]
        )
        times = torch.randint(0, len(self._signal), (recipe.batch_size,), generator=generator)
        noise = torch.randn(self._latents[index].shape, generator=generator)
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate * schedule(number, recipe.steps)
        loss = self._loss(index, times, noise)
        self.optimiser.zero_grad(set_to_none=True)
        scaled: Any = self.scaler.scale(loss)
        scaled.backward()
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(list(self.weights.values()), 1.0)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return float(loss.detach())

    def probe(self) -> float:
        """The loss at fixed pictures, times and noise: comparable from step to step."""
        import torch

        generator = torch.Generator().manual_seed(mixed(self.recipe.seed, "probe", 0))
        few = min(_PROBED, len(self._latents))
        index = torch.arange(few).repeat(len(_PROBES))
        last = len(self._signal) - 1
        times = torch.tensor([int(part * last) for part in _PROBES]).repeat_interleave(few)
        noise = torch.randn(self._latents[index].shape, generator=generator)
        size = self.recipe.batch_size
        total = 0.0
        with torch.no_grad():
            for start in range(0, len(index), size):
                part = slice(start, start + size)
                loss = self._loss(index[part], times[part], noise[part])
                total += float(loss) * len(index[part])
        return total / len(index)

    def _loss(self, index: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        import torch

        latents = self._latents[index]
        signal = self._signal[times].view(-1, 1, 1, 1)
        amount = self._noise[times].view(-1, 1, 1, 1)
        if self._prediction == "epsilon":
            target = noise
        elif self._prediction == "v_prediction":
            target = signal * noise - amount * latents
        else:
            target = latents
        name = self.device.name
        noisy = (signal * latents + amount * noise).to(name, self._dtype)
        words = self._words[index.to(self._words.device)]
        with torch.autocast(name, dtype=self._dtype, enabled=self._half):
            predicted = self._unet(noisy, times.to(name), words, return_dict=False)[0]
        return torch.nn.functional.mse_loss(predicted.float(), target.to(name))

    def paint(self) -> list[RgbImage]:
        """One picture a prompt, uint8 [height, width, 3], of the same seeds every time."""
        import torch

        model, recipe = self.model, self.recipe
        pictures = []
        for number, prompt in enumerate(recipe.prompts):
            seed = mixed(recipe.seed, "picture", number)
            with torch.autocast(self.device.name, dtype=self._dtype, enabled=self._half):
                image = self._pipe(
                    prompt=prompt,
                    generator=torch.Generator().manual_seed(seed),
                    width=recipe.width,
                    height=recipe.height,
                    num_inference_steps=model.steps,
                    guidance_scale=model.guidance,
                    output_type="np",
                ).images[0]
            pictures.append(np.asarray((image * 255).round().clip(0, 255), np.uint8))
        return pictures

    def state(self) -> dict[str, Any]:
        """What goes on from here: adapter, optimiser, scaler; tensors on the CPU."""
        return {
            "weights": {key: each.detach().cpu() for key, each in self.weights.items()},
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        for key, value in state["weights"].items():
            self.weights[key].data.copy_(value)
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])

    def save(self, folder: Path) -> None:
        """Write the weights as diffusers' `load_lora_weights` reads them, in fp32."""
        import diffusers
        from diffusers.utils import state_dict_utils
        from peft.utils import get_peft_model_state_dict

        named: Any = state_dict_utils.convert_state_dict_to_diffusers
        layers = named(get_peft_model_state_dict(self._unet))
        layers = {key: each.detach().float().cpu().contiguous() for key, each in layers.items()}
        saver: Any = diffusers.StableDiffusionPipeline
        saver.save_lora_weights(folder, unet_lora_layers=layers, safe_serialization=True)
