"""The upscaling folder: configurations of its own parts, and the export.

The layout is that of `diffusers.StableDiffusionUpscalePipeline`. The text encoder and tokenizer
are those of `weights/text-to-image`; they are not copied, whoever loads the folder passes them in.
"""

import copy
import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionUpscalePipeline,
    UNet2DConditionModel,
)
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from starter import pipeline_folder, tokens, upscaler_start
from starter.paths import WEIGHTS, publish

FOLDER = WEIGHTS / "upscaling"
MEAN = (0.3, 0.3, 0.3)
SPREAD = (0.48, 0.45, 0.48)
"""Of the colours of large pictures in [-1,1]; latents start as standardised colours."""
LATENT_NOISE = 0.03
"""Standard deviation of the latents' posterior, the same everywhere."""
MAX_NOISE_LEVEL = 60
"""The pipeline refuses higher levels: none was trained."""
SCALING = 0.08333
"""The pipeline overwrites any other `scaling_factor` of the autoencoder with this one."""


def build_autoencoder() -> AutoencoderKL:
    """An untrained f4, 4-channel autoencoder; convolutions only, so that any size will do."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 32, 48),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=1,
        sample_size=512,
        mid_block_add_attention=False,
        scaling_factor=SCALING,
        force_upcast=False,
    )
    upscaler_start.start_autoencoder(vae, torch.tensor(MEAN), torch.tensor(SPREAD))
    return vae


def build_unet() -> UNet2DConditionModel:
    """An untrained UNet of 2.5 M parameters over 4 latent and 3 low-resolution channels.

    Attention looks at the words alone: attention among places learnt on small crops would meet
    sixteen times as many places in a whole picture.
    """
    unet = UNet2DConditionModel(
        sample_size=128,
        in_channels=7,
        out_channels=4,
        block_out_channels=(48, 64, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2D",
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        only_cross_attention=True,
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=1,
        num_class_embeds=MAX_NOISE_LEVEL + 1,
        resnet_time_scale_shift="scale_shift",
    )
    upscaler_start.start_unet(unet, torch.tensor(MEAN), torch.tensor(SPREAD))
    with torch.no_grad():  # near levels start alike, each alone is seen too seldom
        levels = unet.class_embedding.weight
        levels.copy_(0.2 * get_timestep_embedding(torch.arange(len(levels)), levels.shape[1]))
    return unet


def scheduler() -> DDIMScheduler:
    """DDIM over the schedule of the text-to-image model: zero terminal SNR, v-prediction."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def low_res_scheduler() -> DDPMScheduler:
    """Noise on the small picture: deviation 0.03 of [-1,1] at level 20, 0.07 at level 60."""
    return DDPMScheduler(beta_schedule="scaled_linear", beta_start=2e-5, beta_end=0.02)


def text_parts() -> tuple[CLIPTextModel, CLIPTokenizer]:
    """The text encoder and tokenizer that the upscaler shares with text-to-image."""
    folder = pipeline_folder.FOLDER
    text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    return text.eval().requires_grad_(False), tokens.load(folder / "tokenizer")


def open_pipeline(folder: Path = FOLDER) -> StableDiffusionUpscalePipeline:
    """The exported folder with the shared text parts, float32, without a progress bar."""
    text, tokenizer = text_parts()
    pipe = StableDiffusionUpscalePipeline.from_pretrained(
        str(folder), text_encoder=text, tokenizer=tokenizer, dtype=torch.float32
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def rescaled(vae: AutoencoderKL) -> AutoencoderKL:
    """A copy whose latents are 1 / SCALING as large, because the pipeline divides by SCALING.

    Its posterior has the fixed deviation that the decoder was trained with.
    """
    out = copy.deepcopy(vae)
    mean, spread = out.quant_conv, out.post_quant_conv
    mean.weight[:4] /= SCALING
    mean.bias[:4] /= SCALING
    mean.weight[4:] = 0.0
    mean.bias[4:] = 2 * math.log(LATENT_NOISE / SCALING)
    spread.weight *= SCALING
    return out


def encode(vae: AutoencoderKL, x: Tensor) -> Tensor:
    """Latent means [N,4,H/4,W/4] of pictures in [-1,1], by an autoencoder not yet `rescaled`."""
    return vae.quant_conv(vae.encoder(x))[:, :4]


def decode(vae: AutoencoderKL, z: Tensor) -> Tensor:
    """Pictures [N,3,H,W] in [-1,1] of such latents."""
    return vae.decoder(vae.post_quant_conv(z))


def export(vae: AutoencoderKL, unet: UNet2DConditionModel, folder: Path = FOLDER) -> None:
    """Write the own parts in fp16 and an index of all parts, file by file and atomically."""
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    half: list[Any] = [
        copy.deepcopy(m).half().to("cpu", memory_format=torch.contiguous_format)
        for m in (rescaled(vae), unet)
    ]
    text, tokenizer = text_parts()
    pipe = StableDiffusionUpscalePipeline(
        vae=half[0],
        unet=half[1],
        text_encoder=text,
        tokenizer=tokenizer,
        scheduler=scheduler(),
        low_res_scheduler=low_res_scheduler(),
        max_noise_level=MAX_NOISE_LEVEL,
    )
    pipe.save_pretrained(fresh, safe_serialization=True)
    for shared in ("text_encoder", "tokenizer"):
        shutil.rmtree(fresh / shared)
    index = json.loads((fresh / "model_index.json").read_text())
    (fresh / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    for file in sorted(f for f in fresh.rglob("*") if f.is_file()):
        publish(file, folder / file.relative_to(fresh))
    shutil.rmtree(fresh)
