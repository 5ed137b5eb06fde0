"""Train ControlNets beside the frozen text-to-image UNet: one for controls, one for inpainting.

`controlnet` reads edges, depth and segmentation pictures, mixed in training, so that one small
model serves all three (alone or several at once). `inpainting` reads the picture with its hole.

The layers that read the control start with He's variance and a short lesson of their own: with
PyTorch's default each of them shrinks the picture to a third, all seven to 2e-5 beside biases of
1e-2, and 1,200 steps of training left such a ControlNet blind.
"""

import copy
import shutil
import sys
import time
from collections.abc import Iterator
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel

from starter import captions, controls, library, loop, pictures, tokens
from starter.library import TRAIN
from starter.painter import PICTURES, latents, schedule
from starter.paths import WEIGHTS, publish
from starter.pipeline_folder import FOLDER

STEPS, BATCH, RATE, DROP, KEEP = 1500, 24, 6e-4, 0.1, 125
LESSON = 150
"""Steps in which the reading layers alone learn to tell the latents from the control."""
CHECKPOINT = "sighted-"
EMBEDDING = (16, 32, 64, 96)


class Controlled(nn.Module):
    """A trainable ControlNet in front of the shipped, frozen UNet and text tower."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel.from_pretrained(FOLDER / "unet", dtype=torch.float32)
        self.text = CLIPTextModel.from_pretrained(FOLDER / "text_encoder", dtype=torch.float32)
        self.requires_grad_(False).eval()
        self.control = build(self.unet)
        if not torch.cuda.is_available():  # fused attention is slow backwards on a CPU
            for part in (self.unet, self.control):
                part.set_attn_processor(AttnProcessor())
            self.text.set_attn_implementation("eager")

    def forward(self, noisy: Tensor, t: Tensor, ids: Tensor, picture: Tensor) -> Tensor:
        """Predicted v [N,4,16,16]; `picture` is the control [N,3,128,128]."""
        words = self.text(ids).last_hidden_state
        down, mid = self.control(noisy, t, words, picture, return_dict=False)
        return self.unet(
            noisy,
            t,
            words,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            return_dict=False,
        )[0]


def build(unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet that starts from the UNet's encoder (Zhang et al. 2023, section 3.1)."""
    names = (
        "in_channels", "down_block_types", "block_out_channels", "layers_per_block",
        "norm_num_groups", "cross_attention_dim", "attention_head_dim", "addition_embed_type",
        "resnet_time_scale_shift",
    )  # fmt: skip
    control = ControlNetModel(
        **{name: unet.config[name] for name in names},
        addition_embed_type_num_heads=unet.config.addition_embed_type_num_heads,
        conditioning_embedding_out_channels=EMBEDDING,
    )
    for part in ("conv_in", "time_embedding", "add_embedding", "down_blocks", "mid_block"):
        getattr(control, part).load_state_dict(getattr(unet, part).state_dict())
    for module in control.controlnet_cond_embedding.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return control


def teach_to_read(control: ControlNetModel, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
    """Let the reading layers predict latents [N,4,16,16] from controls [N,3,128,128].

    The convolutions towards the UNet are still zero, so nothing else changes.
    """
    eye = control.controlnet_cond_embedding
    head = nn.Conv2d(eye.conv_out.out_channels, 4, 1).to(next(eye.parameters()).device)
    optimiser = torch.optim.AdamW([*eye.parameters(), *head.parameters()], lr=2e-3)
    for step, (picture, z) in zip(range(LESSON), batches, strict=False):
        loop.set_rate(optimiser, loop.cosine(step, LESSON, 2e-3, 20))
        with loop.autocast(z.device):
            told = head(eye(picture))
        loss = F.mse_loss(told.float(), z)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if (step + 1) % 50 == 0:
            print(f"reading {step + 1}/{LESSON} loss {loss.item():.3f}", flush=True)


def _control_batch(
    kind: str, data: pictures.Pictures, source: library.Library, index: Tensor, rng: Random
) -> tuple[Tensor, list[bool]]:
    """Control pictures [N,3,128,128] of a batch, and which of them lost their caption."""
    rgb = data.rgb[index]
    scenes = [data.scenes[i] for i in index.tolist()]
    g = source.buffers(scenes)
    if kind == "inpainting":
        masks = torch.stack([controls.hole(a, rng) for a in g.alpha])
        picture = torch.where(masks[:, None], torch.tensor(-1.0), rgb.float() / 255)
        return picture, [rng.random() < DROP for _ in scenes]
    ways = [
        controls.edges(rgb),
        controls.depth(g.depth),
        controls.segmentation([s.subject for s in scenes], g.alpha),
    ]
    # Edges are hardest to learn, flat areas easiest.
    pick = rng.choices(range(3), (0.5, 0.3, 0.2), k=len(scenes))
    picture = torch.stack([ways[w][i] for i, w in enumerate(pick)]).float() / 255
    return picture, [rng.random() < 2 * DROP for _ in scenes]


def train(kind: str, steps: int = STEPS) -> None:
    """Train (or go on training) `controlnet` or `inpainting` until `steps`, then export it."""
    dev = loop.device()
    batch = BATCH * (8 if dev.type == "cuda" else 1)
    data, source = pictures.load(TRAIN), library.load(TRAIN)
    tokenizer = tokens.load(FOLDER / "tokenizer")
    z = latents(data)
    torch.manual_seed(21)
    model = Controlled().to(dev, memory_format=torch.channels_last)
    state = loop.restore(CHECKPOINT + kind) or {"step": 0}
    if not state["step"]:
        teach_to_read(model.control, _lessons(kind, data, source, z, batch, dev))
    ema = loop.twin(model.control)
    optimiser = torch.optim.AdamW(model.control.parameters(), lr=RATE, betas=(0.9, 0.98))
    if "model" in state:
        model.control.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
    first = state["step"]
    signal, noise = (s.to(dev) for s in schedule())
    forward = loop.compiled(model)
    began, running = time.time(), 0.0
    order = loop.shuffled(PICTURES, batch, 21 if kind == "controlnet" else 22, first)
    torch.manual_seed(2100 + first)
    for step, index in zip(range(first, steps), order, strict=False):
        loop.set_rate(optimiser, loop.cosine(step, steps, RATE, 100))
        rng = Random(step)
        picture, silent = _control_batch(kind, data, source, index, rng)
        texts = [
            "" if quiet else captions.caption(data.scenes[i], rng)
            for i, quiet in zip(index.tolist(), silent, strict=True)
        ]
        ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        x = z[index].float().to(dev, memory_format=torch.channels_last)
        e = torch.randn_like(x)
        # Layout is decided in the noise, so noisy steps are drawn more often.
        t = (((torch.arange(batch) + torch.rand(batch)) / batch).sqrt() * 1000).long().to(dev)
        a, s = signal[t, None, None, None], noise[t, None, None, None]
        picture = picture.to(dev, memory_format=torch.channels_last)
        with loop.autocast(dev):
            v = forward(a * x + s * e, t, ids.to(dev), picture)
        loss = F.mse_loss(v.float(), a * e - s * x)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.control.parameters(), 1.0)
        optimiser.step()
        loop.average(ema, model.control, min(0.998, (step + 1) / (step + 10)))
        running = 0.98 * running + 0.02 * loss.item()
        if (step + 1) % 50 == 0 or step < 3:
            speed = (time.time() - began) / (step + 1 - first)
            fair = running / (1 - 0.98 ** (step + 1 - first))
            print(f"{kind} {step + 1}/{steps} loss {fair:.4f} {speed:.3f} s/step", flush=True)
        if (step + 1) % KEEP == 0 or step + 1 == steps:
            _keep(kind, model.control, ema, optimiser, step + 1)
    export(ema, kind)


def _lessons(
    kind: str,
    data: pictures.Pictures,
    source: library.Library,
    z: Tensor,
    batch: int,
    dev: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    for step, index in enumerate(loop.shuffled(PICTURES, batch, 23)):
        picture, _ = _control_batch(kind, data, source, index, Random(f"lesson {step}"))
        yield picture.to(dev, memory_format=torch.channels_last), z[index].float().to(dev)


def _keep(kind: str, model: nn.Module, ema: nn.Module, optimiser: Any, step: int) -> None:
    state = {"model": model.state_dict(), "ema": ema.state_dict()}
    loop.save(CHECKPOINT + kind, state | {"optimiser": optimiser.state_dict(), "step": step})


def export(model: nn.Module, name: str) -> None:
    """Write `weights/<name>` in fp16, file by file and atomically."""
    folder = WEIGHTS / name
    fresh = folder.with_name(f"{name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    half: Any = copy.deepcopy(model).half().to("cpu", memory_format=torch.contiguous_format)
    half.save_pretrained(fresh, safe_serialization=True)
    for file in sorted(f for f in fresh.rglob("*") if f.is_file()):
        publish(file, folder / file.relative_to(fresh))
    shutil.rmtree(fresh)


if __name__ == "__main__":
    loop.quiet_threads()
    train(sys.argv[1])
