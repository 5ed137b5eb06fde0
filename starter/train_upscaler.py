"""Train the 4x upscaler: a UNet that denoises 128×128×4 latents beside the small picture.

At full noise v-prediction is a plain regression from the small picture, so noisy steps are drawn
more often: few sampling steps then suffice, and the result stays true to what it enlarges.
"""

import time
from random import Random

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from starter import detail, loop, train_upscaler_autoencoder, upscaler_folder
from starter.library import TRAIN
from starter.paths import cache_dir
from starter.train_upscaler_autoencoder import places, windows
from starter.upscaler_folder import MAX_NOISE_LEVEL

STEPS, RATE, DROP, KEEP = 1600, 6e-4, 0.15, 200
NAME = "upscaler"
CROPS = ((32, 12), (64, 3), (64, 3), (128, 1))
"""(side in latents, batch) of each step in turn; whole pictures teach the frame's own border."""
MIXES = 1
"""Of the pictures of each geometry, how many are encoded."""


@torch.no_grad()
def latents(data: detail.Detail, vae: AutoencoderKL) -> tuple[Tensor, Tensor]:
    """Latents fp16 [N,4,128,128] and which pictures they are; encoded once, then cached."""
    path = cache_dir() / "upscaler-latents.pt"
    index = torch.tensor(
        [i for i in range(len(data.texts)) if i % detail.MIXES[TRAIN] < MIXES], dtype=torch.long
    )
    if path.exists():
        return torch.load(path), index
    out = []
    for n, i in enumerate(index.tolist()):
        x = (data.large[i : i + 1].float() / 127.5 - 1).to(memory_format=torch.channels_last)
        with loop.autocast(x.device):
            out.append(upscaler_folder.encode(vae, x).half().contiguous())
        if n % 100 == 0:
            print(f"upscaler latents {n}/{len(index)}", flush=True)
    done = torch.cat(out)
    torch.save(done, path)
    return done, index


def levels(count: int) -> Tensor:
    """Timesteps [N]: two fifths at full noise, a fifth noisy, the rest anywhere."""
    t = (torch.rand(count) * 1000).long()
    roll = torch.rand(count)
    t = torch.where(roll < 0.6, 600 + (t * 2) // 5, t)
    return torch.where(roll < 0.4, 999, t)


@torch.no_grad()
def words(texts: list[str]) -> Tensor:
    """Embeddings [N+1,32,128] of captions by the shipped text tower; the last is of no words."""
    text, tokenizer = upscaler_folder.text_parts()
    out = []
    for i in range(0, len(texts) + 1, 64):
        part = [*texts, ""][i : i + 64]
        ids = tokenizer(part, padding="max_length", truncation=True, return_tensors="pt").input_ids
        out.append(text(ids).last_hidden_state)
    return torch.cat(out)


def train(steps: int = STEPS) -> None:
    """Train (or go on training) both parts, then export them."""
    dev = loop.device()
    vae = train_upscaler_autoencoder.train()
    data = detail.load(TRAIN)
    z, which = latents(data, vae)
    said = words([data.texts[i] for i in which.tolist()])
    silent = len(said) - 1
    torch.manual_seed(32)
    model = upscaler_folder.build_unet().to(dev, memory_format=torch.channels_last)
    if dev.type == "cpu":  # fused attention is slow backwards on a CPU
        model.set_attn_processor(AttnProcessor())
    ema = loop.twin(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.0)
    first = 0
    if state := loop.restore(NAME):
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    clean = upscaler_folder.scheduler().alphas_cumprod.clone()
    clean[-1] = 0.0
    signal, noise = clean.sqrt().to(dev), (1 - clean).sqrt().to(dev)
    wear = upscaler_folder.low_res_scheduler()
    torch.manual_seed(3200 + first)
    began, running, top = time.time(), 0.0, 0.0
    for step in range(first, steps):
        loop.set_rate(optimiser, loop.cosine(step, steps, RATE))
        rng = Random(step)
        side, batch = CROPS[step % len(CROPS)]
        row = torch.randint(len(which), (batch,))
        source = data.small if rng.random() < 0.5 else data.rough
        small = source[which[row]]
        where = places(data.small[which[row]], side)
        low = windows(small, where, side).float() / 127.5 - 1
        level = torch.randint(MAX_NOISE_LEVEL + 1, (batch,))
        low = wear.add_noise(low, torch.randn_like(low), level)
        x = windows(z[row], where, side).float().to(dev)
        e = torch.randn_like(x)
        t = levels(batch)
        a, s = signal[t, None, None, None], noise[t, None, None, None]
        quiet = torch.rand(batch) < DROP
        text = said[torch.where(quiet, silent, row)].to(dev)
        pixels = torch.cat([a * x + s * e, low.to(dev)], 1).to(memory_format=torch.channels_last)
        with loop.autocast(dev):
            v = model(pixels, t.to(dev), text, class_labels=level.to(dev), return_dict=False)[0]
        each = ((v.float() - (a * e - s * x)) ** 2).mean((1, 2, 3))
        loss = each.mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        loop.average(ema, model, min(0.997, (step + 1) / (step + 10)))
        running = 0.98 * running + 0.02 * loss.item()
        if (full := each[t == 999]).numel():
            top = 0.98 * top + 0.02 * full.mean().item() if top else full.mean().item()
        if (step + 1) % 50 == 0 or step < 3:
            fair = running / (1 - 0.98 ** (step + 1 - first))
            speed = (time.time() - began) / (step + 1 - first)
            print(
                f"{NAME} {step + 1}/{steps} loss {fair:.4f} at full noise {top:.4f} "
                f"{speed:.3f} s/step",
                flush=True,
            )
        if (step + 1) % KEEP == 0 or step + 1 == steps:
            kept = {"model": model.state_dict(), "ema": ema.state_dict()}
            loop.save(NAME, kept | {"optimiser": optimiser.state_dict(), "step": step + 1})
    upscaler_folder.export(vae, ema)


if __name__ == "__main__":
    loop.quiet_threads()
    train()
