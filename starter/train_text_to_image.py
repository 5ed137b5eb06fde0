"""Train the UNet and its text tower on precomputed latents; checkpoint, export, read back.

v-prediction under a cosine schedule with zero terminal SNR. Several processes may train at once
(`STARTER_WORKERS`): each steps alone and their weights are averaged every few steps, which on a
CPU is faster than several threads in one process.
"""

import os
import subprocess
import sys
import time
from random import Random
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from starter import captions, loop, pictures, pipeline_folder, tokens
from starter.library import TRAIN
from starter.painter import PICTURES, Painter, build, latents, schedule
from starter.paths import WEIGHTS
from starter.preview import preview
from starter.train_autoencoder import load as load_autoencoder

STEPS, BATCH, RATE, DROP, SYNC, KEEP = 4_400, 32, 1e-3, 0.1, 8, 400
TOKENIZER = WEIGHTS / "open-clip"


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
    state = loop.restore("text-to-image") or {"step": 0, "seen": 0, "minutes": 0.0}
    if "model" in state:
        painter.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
    first = state["step"]
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
        running = 0.98 * running + 0.02 * loss.item()
        if rank == 0 and ((step + 1) % 50 == 0 or step < 3):
            speed = (time.time() - began) / (step + 1 - first)
            fair = running / (1 - 0.98 ** (step + 1 - first))
            line = f"text-to-image {step + 1}/{steps} loss {fair:.4f} {speed:.3f} s/step"
            print(line, flush=True)
        if rank == 0 and ((step + 1) % KEEP == 0 or step + 1 == steps):
            done = {
                "step": step + 1,
                "seen": state["seen"] + (step + 1 - first) * batch * workers,
                "minutes": state["minutes"] + (time.time() - began) / 60,
            }
            _keep(painter, ema, optimiser, done)


def _keep(painter: Painter, ema: Painter, optimiser: torch.optim.Optimizer, done: Any) -> None:
    """Save a checkpoint, export the averaged weights, look at what they paint."""
    parts = {
        "model": painter.state_dict(),
        "ema": ema.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    loop.save("text-to-image", parts | done)
    pipeline_folder.export(load_autoencoder(), ema.text, ema.unet, TOKENIZER)
    print(f"text-to-image {done['step']} {preview(done['step'])}", flush=True)


def train_in_parallel() -> None:
    """Train in one process on a GPU, in two (or `STARTER_WORKERS`) on a CPU."""
    cores = os.cpu_count() or 1
    workers = int(os.environ.get("STARTER_WORKERS", min(2, cores)))
    latents(pictures.load(TRAIN))  # once, before the workers ask for them
    if workers == 1 or torch.cuda.is_available():
        train()
        return
    command = [sys.executable, "-m", "starter.train_text_to_image"]
    shared = os.environ | {"STARTER_WORKERS": str(workers)}
    running = [subprocess.Popen(command, env=shared | {"RANK": str(r)}) for r in range(workers)]
    try:
        failed = [worker.wait() for worker in running]
    finally:
        for worker in running:
            worker.terminate()
    if any(failed):
        sys.exit("text-to-image training stopped; run the command again to go on")


if __name__ == "__main__":
    loop.quiet_threads()
    train()
