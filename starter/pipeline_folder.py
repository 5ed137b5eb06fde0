"""The text-to-image folder: model configurations, the text tower's start, and the export.

The folder is exactly what `diffusers.StableDiffusionPipeline.save_pretrained` writes, in fp16.
"""

import copy
import json
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderTiny,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from starter import tokens
from starter.paths import WEIGHTS, publish

FOLDER = WEIGHTS / "text-to-image"


def build_unet() -> UNet2DConditionModel:
    """An untrained UNet of 13.5 M parameters for 16×16×4 latents.

    `addition_embed_type="text"` pools the prompt into the time embedding, so that every block
    knows the prompt as a whole: shape is learnt sooner than by cross-attention alone.
    """
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(96, 160, 224),
        layers_per_block=1,
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        resnet_time_scale_shift="scale_shift",
    )


def build_text_encoder(vocabulary: int) -> CLIPTextModel:
    """An untrained CLIP text tower of the same shape as the starter open_clip model's."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=tokens.CONTEXT,
            hidden_act="gelu",
            projection_dim=128,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )


def text_state(clip: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's text tower under the names that transformers' CLIPTextModel uses."""
    out = {
        "embeddings.token_embedding.weight": clip["token_embedding.weight"],
        "embeddings.position_embedding.weight": clip["positional_embedding"],
        "final_layer_norm.weight": clip["ln_final.weight"],
        "final_layer_norm.bias": clip["ln_final.bias"],
    }
    names = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    for layer in range(3):
        old, new = f"transformer.resblocks.{layer}.", f"encoder.layers.{layer}."
        for kind in ("weight", "bias"):
            for a, b in names.items():
                out[f"{new}{b}.{kind}"] = clip[f"{old}{a}.{kind}"]
            qkv = clip[f"{old}attn.in_proj_{kind}"].chunk(3)
            for part, value in zip("qkv", qkv, strict=True):
                out[f"{new}self_attn.{part}_proj.{kind}"] = value
    return out


def scheduler() -> DPMSolverMultistepScheduler:
    """DPM-Solver++ 2M over a cosine schedule with zero terminal SNR, v-prediction, trailing."""
    return DPMSolverMultistepScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        steps_offset=1,
    )


def assemble(
    vae: AutoencoderTiny, text: CLIPTextModel, unet: UNet2DConditionModel, tokenizer_folder: Path
) -> StableDiffusionPipeline:
    """The pipeline of these parts."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        unet=unet,
        tokenizer=tokens.load(tokenizer_folder),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _amend(config: Path, drop: str = "", **changes: str) -> None:
    values = {k: v for k, v in json.loads(config.read_text()).items() if k != drop}
    config.write_text(json.dumps(values | changes, indent=2) + "\n")


@torch.no_grad()
def export(
    vae: AutoencoderTiny,
    text: CLIPTextModel,
    unet: UNet2DConditionModel,
    tokenizer_folder: Path,
    folder: Path = FOLDER,
) -> None:
    """Write the folder in fp16, file by file and atomically, so that readers never see half."""
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    parts = [
        copy.deepcopy(m).half().to("cpu", memory_format=torch.contiguous_format)
        for m in (vae, text, unet)
    ]
    pipe = assemble(parts[0], parts[1], parts[2], tokenizer_folder)
    pipe.save_pretrained(fresh, safe_serialization=True)
    _amend(fresh / "vae" / "config.json", drop="block_out_channels")  # added, then warned about
    _amend(fresh / "text_encoder" / "config.json", dtype="float32")  # else it alone loads as fp16
    for file in sorted(f for f in fresh.rglob("*") if f.is_file()):
        publish(file, folder / file.relative_to(fresh))
    shutil.rmtree(fresh)
