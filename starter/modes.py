"""Runs every mode straight with diffusers, as an application does: from the shipped folders.

All pictures are float32 [N,3,128,128] in [0,1]; one generator an image, bf16 autocast.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import (
    AutoPipelineForImage2Image,
    ControlNetModel,
    StableDiffusionControlNetInpaintPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionInpaintPipeline,
)
from torch import Tensor

from starter import loop, preview, upscaler_folder
from starter.paths import WEIGHTS

FOLDER = str(WEIGHTS / "text-to-image")
STEPS, GUIDANCE, BATCH = preview.STEPS, preview.GUIDANCE, 16
UPSCALE_STEPS, NOISE_LEVEL = 4, 20
"""Steps of the upscaler, and the noise level that diffusers takes by default."""

Call = dict[str, Any]


def _open(kind: Any, **parts: Any) -> Any:
    """A pipeline over the text-to-image folder, float32, without a progress bar."""
    pipe = kind.from_pretrained(FOLDER, dtype=torch.float32, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def control_net(name: str) -> ControlNetModel:
    """A shipped ControlNet, `controlnet` or `inpainting`."""
    return ControlNetModel.from_pretrained(WEIGHTS / name, dtype=torch.float32).eval()


@torch.no_grad()
def _batches(pipe: Any, count: int, seeds: list[int], of: Callable[[slice], Call]) -> Tensor:
    out = []
    for i in range(0, count, BATCH):
        part = slice(i, min(i + BATCH, count))
        with loop.autocast(torch.device("cpu")):
            made = pipe(
                generator=[torch.Generator().manual_seed(s) for s in seeds[part]],
                guidance_scale=GUIDANCE,
                output_type="np",
                **of(part),
            ).images
        out.append(torch.from_numpy(np.asarray(made, dtype=np.float32)).permute(0, 3, 1, 2))
    return torch.cat(out)


def plain(prompts: list[str], seeds: list[int]) -> Tensor:
    """Text to image without any control: the baseline of the controlled modes."""
    return preview.paint(preview.open_pipeline(), prompts, seeds)


def controlled(prompts: list[str], seeds: list[int], control: Tensor) -> Tensor:
    """Pictures that follow control pictures uint8 [N,3,128,128]."""
    pipe = _open(StableDiffusionControlNetPipeline, controlnet=control_net("controlnet"))

    def call(part: slice) -> Call:
        picture = control[part].float() / 255
        return {"prompt": prompts[part], "image": picture, "num_inference_steps": STEPS}

    return _batches(pipe, len(prompts), seeds, call)


def inpainted(
    prompts: list[str], seeds: list[int], x: Tensor, mask: Tensor, control: bool = True
) -> Tensor:
    """`x` painted anew where the mask bool [N,128,128] is set; nothing is pasted back.

    `control=False` is the baseline: diffusers' inpainting on the text-to-image weights alone.
    """
    if control:
        net = control_net("inpainting")
        pipe = _open(StableDiffusionControlNetInpaintPipeline, controlnet=net)
    else:
        pipe = _open(StableDiffusionInpaintPipeline)
    hidden = torch.where(mask[:, None], torch.tensor(-1.0), x)

    def call(part: slice) -> Call:
        made: Call = {
            "prompt": prompts[part],
            "image": x[part],
            "mask_image": mask[part, None].float(),
            "num_inference_steps": STEPS,
            "strength": 1.0,
            "height": 128,
            "width": 128,
        }
        return made | ({"control_image": hidden[part]} if control else {})

    return _batches(pipe, len(prompts), seeds, call)


def pasted(made: Tensor, x: Tensor, mask: Tensor) -> Tensor:
    """The made pictures with every pixel outside the mask put back from `x`."""
    return torch.where(mask[:, None], made, x)


def altered(prompts: list[str], seeds: list[int], x: Tensor, strength: float) -> Tensor:
    """Image to image: `x` noised to `strength` and painted on from there."""
    pipe = _open(AutoPipelineForImage2Image)

    def call(part: slice) -> Call:
        # Whatever the strength, about `STEPS` steps are taken.
        steps = round(STEPS / strength)
        made = {"prompt": prompts[part], "image": x[part], "strength": strength}
        return made | {"num_inference_steps": steps}

    return _batches(pipe, len(prompts), seeds, call)


@torch.no_grad()
def upscaled(
    prompts: list[str], x: Tensor, steps: int = UPSCALE_STEPS, noise_level: int = NOISE_LEVEL
) -> Tensor:
    """Pictures [N,3,512,512] made of `x`, one at a time, without guidance."""
    pipe, out = upscaler_folder.open_pipeline(), []
    for i, prompt in enumerate(prompts):
        with loop.autocast(torch.device("cpu")):
            made = pipe(
                prompt,
                image=x[i : i + 1],
                num_inference_steps=steps,
                noise_level=noise_level,
                guidance_scale=1.0,
                generator=torch.Generator().manual_seed(i),
                output_type="np",
            ).images
        out.append(torch.from_numpy(np.asarray(made, dtype=np.float32)).permute(0, 3, 1, 2))
    return torch.cat(out)


def faithful(made: Tensor, small: Tensor) -> Tensor:
    """The enlarged pictures with the block means of the small ones put back (back-projection).

    A few steps leave a slight cast in flat areas; this removes it and keeps the new edges.
    """
    for _ in range(2):
        missing = small - F.avg_pool2d(made, 4)
        made = (made + F.interpolate(missing, scale_factor=4, mode="bicubic")).clamp(0, 1)
    return made
