"""Tiny random checkpoints in the model hub's folder layout, one function a family of models.

They know nothing: what they make is noise that depends on prompt, seed and inputs, as a real
model's images do. 64 by 64 pixels and two steps suit them; loading and running take moments.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionDepth2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionLatentUpscalePipeline,
    StableDiffusionPipeline,
    StableDiffusionUpscalePipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import convert_state_dict_to_diffusers
from safetensors.torch import save_file
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessor,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

CONTEXT = 77
WIDTH = 32
START, END = "<|startoftext|>", "<|endoftext|>"
# Each of these words is one token; letters, digits and signs of others are a token each.
WORDS = [
    *("a", "an", "on", "the", "of", "red", "blue", "green", "white", "black"),
    *("mug", "vase", "lamp", "chair", "background", "photo", "brand"),
]
LETTERS = "".join(chr(code) for code in range(33, 127))


def _seeded(build: Callable[..., Path]) -> Callable[..., Path]:
    """Let `build` draw the same weights every time, and leave the caller's randomness alone."""

    @wraps(build)
    def seeded(*args: Any, **kwargs: Any) -> Path:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build(*args, **kwargs)

    return seeded


@_seeded
def stable_diffusion_1(folder: Path) -> Path:
    """SD 1.x: noise prediction, CLIP's text tower, no safety checker."""
    return _save(
        StableDiffusionPipeline(
            unet=_unet(attention_head_dim=8),
            scheduler=PNDMScheduler(**_NOISE, **_PNDM),
            **_text("quick_gelu"),
            **_NO_CHECKER,
        ),
        folder,
    )


@_seeded
def stable_diffusion_2(folder: Path) -> Path:
    """SD 2.x: v-prediction, OpenCLIP's text tower padded with "!", linear projections."""
    return _save(
        StableDiffusionPipeline(
            unet=_unet(attention_head_dim=(2, 4), use_linear_projection=True),
            scheduler=DDIMScheduler(**_NOISE, **_DDIM),
            **_text("gelu", pad="!"),
            **_NO_CHECKER,
        ),
        folder,
    )


@_seeded
def inpainting_9(folder: Path) -> Path:
    """SD inpainting: the UNet also sees the mask and the masked image, nine channels in all."""
    return _save(
        StableDiffusionInpaintPipeline(
            unet=_unet(in_channels=9, attention_head_dim=8),
            scheduler=PNDMScheduler(**_NOISE, **_PNDM),
            **_text("quick_gelu"),
            **_NO_CHECKER,
        ),
        folder,
    )


@_seeded
def depth_to_image(folder: Path) -> Path:
    """SD 2 depth: the UNet also sees a depth map, which a DPT guesses from the image."""
    depth = DPTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=WIDTH,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
    )
    return _save(
        StableDiffusionDepth2ImgPipeline(
            unet=_unet(in_channels=5, attention_head_dim=(2, 4), use_linear_projection=True),
            scheduler=PNDMScheduler(**_NOISE, **_PNDM),
            depth_estimator=DPTForDepthEstimation(depth),
            feature_extractor=DPTImageProcessor(size={"height": 32, "width": 32}),
            **_text("gelu", pad="!"),
        ),
        folder,
    )


@_seeded
def upscaler_4x(folder: Path) -> Path:
    """SD x4 upscaler: the UNet also sees the small image; a latent is a quarter of the pixels."""
    return _save(
        StableDiffusionUpscalePipeline(
            unet=_unet(
                in_channels=7,
                attention_head_dim=8,
                use_linear_projection=True,
                only_cross_attention=(False, True),
                num_class_embeds=1000,
            ),
            low_res_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
            scheduler=DDIMScheduler(**_NOISE, **_DDIM),
            max_noise_level=350,
            **_text("gelu", pad="!", vae=_vae(blocks=3, scaling_factor=0.08333)),
        ),
        folder,
    )


@_seeded
def latent_upscaler(folder: Path) -> Path:
    """SD x2 latent upscaler: a K-diffusion UNet, told the pooled prompt beside the time."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=8,
        out_channels=5,
        layers_per_block=1,
        block_out_channels=(32, 64, 64),
        down_block_types=("KDownBlock2D", "KCrossAttnDownBlock2D", "KCrossAttnDownBlock2D"),
        up_block_types=("KCrossAttnUpBlock2D", "KCrossAttnUpBlock2D", "KUpBlock2D"),
        mid_block_type=None,
        act_fn="gelu",
        attention_head_dim=8,
        cross_attention_dim=WIDTH,
        norm_num_groups=None,
        conv_in_kernel=1,
        conv_out_kernel=1,
        resnet_time_scale_shift="scale_shift",
        time_embedding_type="fourier",
        timestep_post_act="gelu",
        time_cond_proj_dim=128 + WIDTH,
    )
    return _save(
        StableDiffusionLatentUpscalePipeline(
            unet=unet,
            scheduler=EulerDiscreteScheduler(**_NOISE, prediction_type="sample"),
            **_text("quick_gelu"),
        ),
        folder,
    )


@_seeded
def sdxl(folder: Path) -> Path:
    """SDXL: two text towers side by side, and the sizes of the picture as a condition."""
    unet = _unet(
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=2 * WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )
    return _save(
        StableDiffusionXLPipeline(
            unet=unet,
            scheduler=EulerDiscreteScheduler(**_NOISE, steps_offset=1),
            text_encoder_2=_tower(CLIPTextModelWithProjection, "gelu"),
            tokenizer_2=_clip_tokenizer("!"),
            add_watermarker=False,
            **_text("quick_gelu"),
        ),
        folder,
    )


@_seeded
def sd3(folder: Path) -> Path:
    """SD 3: a transformer over 16 latent channels, two CLIP towers and T5."""
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=32,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=16,
    )
    _wake(transformer)
    return _save(
        StableDiffusion3Pipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=_vae(latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609),
            text_encoder=_tower(CLIPTextModelWithProjection, "quick_gelu"),
            tokenizer=_clip_tokenizer(),
            text_encoder_2=_tower(CLIPTextModelWithProjection, "gelu"),
            tokenizer_2=_clip_tokenizer("!"),
            text_encoder_3=_t5(),
            tokenizer_3=_t5_tokenizer(),
        ),
        folder,
    )


@_seeded
def flux(folder: Path, distilled_guidance: bool = True) -> Path:
    """FLUX.1: dev, which takes guidance as an input, or schnell, which takes none."""
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=distilled_guidance,
        axes_dims_rope=(4, 4, 8),
    )
    _wake(transformer)
    return _save(
        FluxPipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(
                shift=3.0 if distilled_guidance else 1.0,
                use_dynamic_shifting=distilled_guidance,
            ),
            text_encoder_2=_t5(),
            tokenizer_2=_t5_tokenizer(),
            **_text(
                "quick_gelu",
                vae=_vae(latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159),
            ),
        ),
        folder,
    )


@_seeded
def controlnet_for(base: Path, folder: Path) -> Path:
    """A ControlNet for the UNet of `base` (SD 1.x, 2.x or XL) that does change the image."""
    model = ControlNetModel.from_unet(
        UNet2DConditionModel.from_pretrained(base / "unet"),
        conditioning_embedding_out_channels=(8, 8, 16, 16),
    )
    # A new ControlNet is silent: its outlets are zero until they are trained.
    for outlet in (*model.controlnet_down_blocks, model.controlnet_mid_block):
        nn.init.normal_(outlet.weight, std=0.2)
    for layer in model.controlnet_cond_embedding.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    model.save_pretrained(folder, safe_serialization=True)
    return folder


@_seeded
def lora_for(base: Path, folder: Path, seed: int = 0) -> Path:
    """A LoRA on the attention of `base`'s UNet; another `seed`, another look."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=targets))
    torch.manual_seed(seed)
    for name, weight in unet.named_parameters():
        if "lora_" in name:
            nn.init.normal_(weight, std=0.5)
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    kind = StableDiffusionXLPipeline if (base / "text_encoder_2").exists() else None
    (kind or StableDiffusionPipeline).save_lora_weights(folder, unet_lora_layers=layers)
    return folder


@_seeded
def textual_inversion_for(
    base: Path, folder: Path, token: str = "<brand>", vectors: int = 1
) -> Path:
    """A learnt word for the text tower of `base`, in `folder`/learned_embeds.safetensors."""
    width = json.loads((base / "text_encoder/config.json").read_text("utf-8"))["hidden_size"]
    folder.mkdir(parents=True, exist_ok=True)
    save_file({token: torch.randn(vectors, width)}, folder / "learned_embeds.safetensors")
    return folder


_NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_PNDM = {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}
_DDIM = {
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
_NO_CHECKER = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def _save(pipeline: Any, folder: Path) -> Path:
    """Write `pipeline` with CLIP's tokenizers as the hub holds them: two files each."""
    pipeline.save_pretrained(folder, safe_serialization=True)
    vocab, merges = _vocabulary()
    for part in ("tokenizer", "tokenizer_2"):
        if isinstance(getattr(pipeline, part, None), CLIPTokenizer):
            (folder / part / "tokenizer.json").unlink()
            (folder / part / "vocab.json").write_text(json.dumps(vocab), "utf-8")
            lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
            (folder / part / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def _wake(model: nn.Module) -> None:
    """Fill the layers that begin as zeros, whose output would be the same for every prompt."""
    for weight in model.parameters():
        if weight.dim() > 1 and not weight.any():
            nn.init.normal_(weight, std=0.2)


def _unet(**changes: Any) -> UNet2DConditionModel:
    shape = {
        "sample_size": 8,
        "layers_per_block": 1,
        "block_out_channels": (16, 32),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": WIDTH,
        "norm_num_groups": 8,
    }
    unet = UNet2DConditionModel(**shape | changes)
    # Untrained, a UNet hardly hears the prompt beside the noise.
    for name, weight in unet.named_parameters():
        if name.endswith("attn2.to_out.0.weight"):
            nn.init.normal_(weight, std=0.5)
    return unet


def _vae(blocks: int = 4, latent_channels: int = 4, **changes: Any) -> AutoencoderKL:
    """An autoencoder whose latents are 2^(`blocks` - 1) times smaller than the image."""
    vae = AutoencoderKL(
        sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=(8,) * blocks,
        norm_num_groups=4,
        latent_channels=latent_channels,
        **changes,
    )
    # Untrained, a decoder paints grey on grey; louder, its pictures differ visibly.
    nn.init.normal_(vae.decoder.conv_out.weight, std=0.15)
    return vae


def _text(activation: str, pad: str = END, vae: AutoencoderKL | None = None) -> dict[str, Any]:
    """The parts that most families share: autoencoder, CLIP text tower and its tokenizer."""
    return {
        "vae": vae or _vae(),
        "text_encoder": _tower(CLIPTextModel, activation),
        "tokenizer": _clip_tokenizer(pad),
    }


def _tower(kind: Any, activation: str) -> Any:
    vocab, _ = _vocabulary()
    return kind(
        CLIPTextConfig(
            vocab_size=len(vocab),
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            projection_dim=WIDTH,
            hidden_act=activation,
            initializer_factor=20.0,
            bos_token_id=vocab[START],
            eos_token_id=vocab[END],
            pad_token_id=vocab[END],
        )
    )


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-level BPE over printable ASCII: the letters, and what builds up `WORDS`."""
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        for end in range(1, len(pieces)):
            merges["".join(pieces[:end]), pieces[end]] = None
    names = [*LETTERS, *(letter + "</w>" for letter in LETTERS)]
    names += dict.fromkeys("".join(pair) for pair in merges)
    return {name: i for i, name in enumerate([*names, START, END])}, list(merges)


def _clip_tokenizer(pad: str = END) -> CLIPTokenizer:
    vocab, merges = _vocabulary()
    return CLIPTokenizer(vocab, merges, pad_token=pad, model_max_length=CONTEXT)


def _t5() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(_t5_tokenizer()),
            d_model=2 * WIDTH,
            d_kv=8,
            d_ff=WIDTH,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
        )
    )


def _t5_tokenizer() -> T5Tokenizer:
    """A Unigram model: whole `WORDS` are likelier than their letters."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    pieces += [("▁" + word, -4.0) for word in WORDS]
    pieces += [(letter, -6.0) for letter in LETTERS]
    return T5Tokenizer(pieces, extra_ids=0, model_max_length=512)
