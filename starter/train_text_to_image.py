"""Train the UNet and its text tower on precomputed latents; checkpoint, export, read back.

v-prediction under a cosine schedule with zero terminal SNR. Several processes may train at once
(`STARTER_WORKERS`): each steps alone and their weights are averaged every few steps, which on a
CPU is faster than several threads in one process.
"""

import os
import sys
import time
from random import Random
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from starter import captions, loop, pictures, pipeline_folder, tokens
from starter.library import TRAIN
from starter.paths import WEIGHTS, cache_dir
from starter.train_autoencoder import load as load_autoencoder

STEPS, BATCH, RATE, DROP, SYNC = 4_800, 32, 1e-3, 0.1, 8
PICTURES = 20_000
TOKENIZER = WEIGHTS / "open-clip"


class Painter(nn.Module):
    """The UNet and the text tower that are trained together."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.unet = pipeline_folder.build_unet()
        self.text = pipeline_folder.build_text_encoder(vocabulary)
        if not torch.cuda.is_available():  # fused attention is slow backwards on a CPU
            self.unet.set_attn_processor(AttnProcessor())
            self.text.set_attn_implementation("eager")

    def forward(self, noisy: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        """Predicted v [N,4,16,16] for noisy latents, timesteps [N] and token ids [N,32]."""
        return self.unet(noisy, t, self.text(ids).last_hidden_state, return_dict=False)[0]


@torch.no_grad()
def latents(data: pictures.Pictures) -> Tensor:
    """Latents of the first `PICTURES`, fp16 [N,4,16,16]; encoded once, then cached."""
    path = cache_dir() / "latents.pt"
    if path.exists():
        return torch.load(path)
    dev = loop.device()
    encoder = load_autoencoder().encoder.to(dev, memory_format=torch.channels_last)
    encode = loop.compiled(encoder)
    out = []
    for i in range(0, PICTURES, 32):
        x = data.batch(torch.arange(i, i + 32)) * 2 - 1
        with loop.autocast(dev):
            out.append(encode(x.to(dev, memory_format=torch.channels_last)).half().cpu())
        if i % 1600 == 0:
            print(f"latents {i}/{PICTURES}", flush=True)
    done = torch.cat(out).contiguous()
    torch.save(done, path)
    return done


def schedule() -> tuple[Tensor, Tensor]:
    """Signal and noise levels [1000] of the shipped scheduler, with the last signal exactly 0."""
    bar = pipeline_folder.scheduler().alphas_cumprod.double()
    bar[-1] = 0.0
    return bar.sqrt().float(), (1 - bar).sqrt().float()


def build(vocabulary: int) -> Painter:
    """Untrained UNet; the text tower starts from the trained CLIP where there is one."""
    painter = Painter(vocabulary)
    clip = loop.restore("clip")
    if clip:
        start = pipeline_folder.text_state(clip["ema"])
        own = painter.text.state_dict()
        names = {k.removeprefix("text_model."): k for k in own}
        painter.text.load_state_dict({names[k]: v for k, v in start.items()}, strict=False)
    return painter


def _batch(
    scenes: list[Any], z: Tensor, index: Tensor, tokenizer: Any, rng: Random
) -> tuple[Tensor, Tensor]:
    texts = [
        "" if rng.random() < DROP else captions.caption(scenes[i], rng) for i in index.tolist()
    ]
    ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return z[index].float(), ids


def _average_workers(model: nn.Module) -> None:
    flat = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    offset = 0
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(flat[offset : offset + p.numel()].view_as(p))
            offset += p.numel()


def train(steps: int = STEPS) -> None:
    """Train (or go on training) until `steps`; rank 0 saves, exports and reads back."""
    from starter.preview import preview

    workers, rank = int(os.environ.get("STARTER_WORKERS", 1)), int(os.environ.get("RANK", 0))
    if workers > 1:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", "29555")
        dist.init_process_group("gloo", rank=rank, world_size=workers)
    dev = loop.device()
    batch = BATCH * (16 if dev.type == "cuda" else 1)
    data, tokenizer = pictures.load(TRAIN), tokens.load(TOKENIZER)
    scenes, z = data.scenes, latents(data)
    torch.manual_seed(3)
    painter = build(len(tokenizer)).to(dev, memory_format=torch.channels_last)
    ema = loop.twin(painter)
    groups = [
        {"params": painter.unet.parameters()},
        {"params": painter.text.parameters(), "scale": 0.3},
    ]
    optimiser = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    first, seen, minutes = 0, 0, 0.0
    if state := loop.restore("text-to-image"):
        painter.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
        first, seen, minutes = state["step"], state["seen"], state["minutes"]
    signal, noise = (s.to(dev) for s in schedule())
    forward = loop.compiled(painter)
    began, running = time.time(), 0.0
    order = loop.shuffled(PICTURES, batch, 3 + rank, first)
    torch.manual_seed(1000 * first + rank)
    for step, index in zip(range(first, steps), order, strict=False):
        loop.set_rate(optimiser, loop.cosine(step, steps, RATE, 200))
        x, ids = _batch(scenes, z, index, tokenizer, Random(step * 64 + rank))
        x = x.to(dev, memory_format=torch.channels_last)
        e = torch.randn_like(x)
        t = ((torch.arange(batch) + torch.rand(batch)) / batch * 1000).long().to(dev)
        a, s = signal[t, None, None, None], noise[t, None, None, None]
        with loop.autocast(dev):
            v = forward(a * x + s * e, t, ids.to(dev))
        loss = F.mse_loss(v.float(), a * e - s * x)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(painter.parameters(), 1.0)
        optimiser.step()
        if workers > 1 and (step + 1) % SYNC == 0:
            _average_workers(painter)
        loop.average(ema, painter, min(0.999, (step + 1) / (step + 10)))
        running, seen = 0.98 * running + 0.02 * loss.item(), seen + batch * workers
        if rank == 0 and ((step + 1) % 50 == 0 or step < 3):
            speed = (time.time() - began) / (step + 1 - first)
            fair = running / (1 - 0.98 ** (step + 1 - first))
            print(
                f"text-to-image {step + 1}/{steps} loss {fair:.4f} {speed:.3f} s/step", flush=True
            )
        if rank == 0 and ((step + 1) % 400 == 0 or step + 1 == steps):
            spent = minutes + (time.time() - began) / 60
            loop.save(
                "text-to-image",
                {
                    "model": painter.state_dict(),
                    "ema": ema.state_dict(),
                    "seen": seen,
                    "optimiser": optimiser.state_dict(),
                    "step": step + 1,
                    "minutes": spent,
                },
            )
            vae = load_autoencoder()
            pipeline_folder.export(vae, ema.text, ema.unet, TOKENIZER)
            print(f"text-to-image {step + 1} {preview(step + 1)}", flush=True)


if __name__ == "__main__":
    loop.quiet_threads()
    train(*map(int, sys.argv[1:2]))
