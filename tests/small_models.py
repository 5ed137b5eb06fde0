"""A models file over small random checkpoints, one of every family; built once a test session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import checkpoints
import torch
import yaml
from safetensors.torch import save_file

_PAINTER = {"kind": "text-to-image", "width": 64, "height": 64, "steps": 2, "guidance": 4.0}
_SD1_PARTS = {
    "inpainting": "sd1-control", "depth": "sd1-control", "upscaler": "up4",
    "tools": {"depth": "dpt", "segmentation": "segformer"},
}  # fmt: skip
_LCM = {"original_inference_steps": 4, "timestep_spacing": "leading"}

ENTRIES: dict[str, dict[str, Any]] = {
    "sd1": _PAINTER,
    "sd2": _PAINTER,
    "sdxl": _PAINTER,
    "sd3": _PAINTER,
    "flux": _PAINTER,
    "schnell": _PAINTER | {"guidance": 0.0},
    # The same weights, with parts and options beside them.
    "sd1-whole": _PAINTER | _SD1_PARTS | {"folder": "sd1"},
    "sd1-few": _PAINTER | {"folder": "sd1", "scheduler": "LCMScheduler", "scheduler_config": _LCM},
    "in9": _PAINTER | {"kind": "inpainting"},
    "depth": _PAINTER | {"kind": "depth-to-image"},
    "up4": _PAINTER | {"kind": "upscaling", "width": 256, "height": 256},
    "up2": _PAINTER | {"kind": "latent-upscaling", "width": 256, "height": 256},
    "sd1-control": {"kind": "controlnet"},
    "sdxl-control": {"kind": "controlnet"},
    "sd1-look": {"kind": "lora"},
    "sd1-other-look": {"kind": "lora"},
    "sdxl-look": {"kind": "lora"},
    "sd1-word": {"kind": "textual-inversion", "token": "<brand>"},
    "sdxl-word": {"kind": "textual-inversion", "token": "<brand>"},
    "sd1-long-word": {"kind": "textual-inversion", "token": "<house>"},
    "dpt": {"kind": "depth-estimator"},
    "segformer": {"kind": "segmenter"},
}


def build(folder: Path) -> Path:
    """Write all checkpoints into `folder`, and a models file, whose path is returned."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    sd1 = checkpoints.stable_diffusion_1(folder / "sd1")
    checkpoints.stable_diffusion_2(folder / "sd2")
    sdxl = checkpoints.sdxl(folder / "sdxl")
    checkpoints.sd3(folder / "sd3")
    checkpoints.flux(folder / "flux")
    checkpoints.flux(folder / "schnell", distilled_guidance=False)
    checkpoints.inpainting_9(folder / "in9")
    depth = checkpoints.depth_to_image(folder / "depth")
    checkpoints.upscaler_4x(folder / "up4")
    checkpoints.latent_upscaler(folder / "up2")
    checkpoints.controlnet_for(sd1, folder / "sd1-control")
    checkpoints.controlnet_for(sdxl, folder / "sdxl-control")
    checkpoints.lora_for(sd1, folder / "sd1-look")
    checkpoints.lora_for(sd1, folder / "sd1-other-look", seed=1)
    checkpoints.lora_for(sdxl, folder / "sdxl-look")
    checkpoints.textual_inversion_for(sd1, folder / "sd1-word")
    checkpoints.textual_inversion_for(sd1, folder / "sd1-long-word", "<house>", vectors=2)
    _word_of_two_towers(folder / "sdxl-word")
    _depth_estimator(depth, folder / "dpt")
    _segmenter(folder / "segformer")
    entries = {
        name: {"folder": name, "licence": "Apache-2.0", **entry} for name, entry in ENTRIES.items()
    }
    path = folder / "models.yaml"
    path.write_text(yaml.safe_dump({"models": entries}))
    return path


def _word_of_two_towers(folder: Path) -> None:
    folder.mkdir()
    drawn = torch.Generator().manual_seed(4)
    width = checkpoints.WIDTH
    vectors = {key: torch.randn(2, width, generator=drawn) for key in ("clip_l", "clip_g")}
    save_file(vectors, folder / "learned_embeds.safetensors")


def _depth_estimator(depth: Path, folder: Path) -> None:
    from transformers import DPTForDepthEstimation, DPTImageProcessor

    DPTForDepthEstimation.from_pretrained(depth / "depth_estimator").save_pretrained(folder)
    DPTImageProcessor.from_pretrained(depth / "feature_extractor").save_pretrained(folder)


def _segmenter(folder: Path) -> None:
    from transformers import (
        SegformerConfig,
        SegformerForSemanticSegmentation,
        SegformerImageProcessor,
    )

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        config = SegformerConfig(
            num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16],
            patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2],
            decoder_hidden_size=16, id2label={0: "background", 1: "mug", 2: "vase"},
            label2id={"background": 0, "mug": 1, "vase": 2},
        )  # fmt: skip
        config.palette = [[0, 0, 0], [200, 30, 30], [30, 30, 200]]
        model = SegformerForSemanticSegmentation(config)
    model.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    SegformerImageProcessor(size=size).save_pretrained(folder)
