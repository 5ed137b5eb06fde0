"""Train the open_clip model: a small residual network and a small text transformer, 64 px.

One contrastive batch shows every (subject, colour) pair at most once, so that no two captions of a
batch are both true; pictures are blurred, compressed, cropped and passed through the autoencoder,
so that the model reads generated images as well as renders.
"""

import io
import json
import time
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from PIL import Image
from torch import Tensor

from starter import captions, loop, pictures, tokens
from starter.library import HELD_OUT, TRAIN
from starter.paths import WEIGHTS, publish
from starter.train_autoencoder import load as load_autoencoder
from starter.vocabulary import OBJECTS

STEPS, BATCH, RATE, SIZE = 1000, 128, 1e-3, 64
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def config(vocabulary: int) -> dict[str, Any]:
    """The open_clip model configuration."""
    return {
        "embed_dim": 128,
        "vision_cfg": {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 24, "head_width": 32},
        "text_cfg": {
            "context_length": tokens.CONTEXT,
            "vocab_size": vocabulary,
            "width": 128,
            "heads": 4,
            "layers": 3,
            "hf_tokenizer_name": "starter",
            "tokenizer_kwargs": {"clean": "lower"},
        },
    }


def build(vocabulary: int) -> CLIP:
    """The untrained model."""
    cfg = config(vocabulary)
    text = {k: v for k, v in cfg["text_cfg"].items() if not k.startswith(("hf_", "tokenizer_"))}
    return CLIP(cfg["embed_dim"], cfg["vision_cfg"], text)


def _jpeg(x: Tensor, quality: int) -> Tensor:
    array = (x.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1).float() / 255


def augment(x: Tensor, rng: Random) -> Tensor:
    """Shift, zoom, blur, compress, tint and add noise: [N,3,128,128] to [N,3,64,64] in [0,1]."""
    n = len(x)
    zoom = 1 / (0.82 + 0.3 * torch.rand(n))
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, :, 2] = (torch.rand(n, 2) - 0.5) * 0.24
    grid = F.affine_grid(theta, [n, 3, SIZE, SIZE], align_corners=False)
    small = F.avg_pool2d(x, 2)
    moved = F.grid_sample(small, grid, padding_mode="reflection", align_corners=False)
    still = torch.rand(n) < 0.3
    x = torch.where(still[:, None, None, None], small, moved)
    for i in range(n):
        roll = rng.random()
        if roll < 0.15:
            low = rng.choice((28, 36, 48))
            blur = F.interpolate(x[i : i + 1], (low, low), mode="bilinear", antialias=True)
            x[i] = F.interpolate(blur, (SIZE, SIZE), mode="bilinear")[0]
        elif roll < 0.27:
            x[i] = _jpeg(x[i], rng.randint(25, 80))
    gain = 1 + 0.16 * (torch.rand(n, 1, 1, 1) - 0.5)
    lift = 0.06 * (torch.rand(n, 3, 1, 1) - 0.5)
    noise = 0.05 * torch.rand(n, 1, 1, 1) ** 2 * torch.randn_like(x)
    return (x * gain + lift + noise).clamp(0, 1)


def distinct(data: pictures.Pictures, rng: Random, count: int) -> list[int]:
    """Picture indices with no (subject, colour) twice; half look alike, as hard negatives."""
    seen: set[tuple[str, str | None]] = set()
    index: list[int] = []
    tries = 0
    while len(index) < count and tries < count * 40:
        tries += 1
        i = rng.randrange(len(data.scenes))
        key = (data.scenes[i].subject, data.scenes[i].colour)
        if key not in seen:
            seen.add(key)
            index.append(i)
    return index


@torch.no_grad()
def accuracy(
    model: CLIP, tokenizer: Any, data: pictures.Pictures, count: int = 600
) -> tuple[float, float]:
    """Zero-shot object and colour accuracy by joint prompts over the catalogue objects."""
    from starter.read import joint_reader

    pick = [i for i, s in enumerate(data.scenes) if s.subject in OBJECTS][:count]
    read = joint_reader(model, tokenizer)(data.batch(torch.tensor(pick)))
    scenes = [data.scenes[i] for i in pick]
    right = sum(r[0] == s.subject for r, s in zip(read, scenes, strict=True))
    colour = sum(r[1] == s.colour for r, s in zip(read, scenes, strict=True))
    return right / len(scenes), colour / len(scenes)


def round_trips(data: pictures.Pictures, count: int, seed: int) -> tuple[Tensor, list[int]]:
    """uint8 pictures after the autoencoder with noisy latents, and which pictures they are."""
    dev = loop.device()
    vae = load_autoencoder().to(dev, memory_format=torch.channels_last)
    index = torch.randperm(len(data.scenes), generator=torch.Generator().manual_seed(seed))[:count]
    out = []
    with torch.no_grad(), loop.autocast(dev):
        for part in index.split(16):
            x = (data.batch(part) * 2 - 1).to(dev, memory_format=torch.channels_last)
            z = vae.encoder(x)
            z = z + torch.rand(len(z), 1, 1, 1, device=dev) * 0.3 * torch.randn_like(z)
            y = vae.decoder(z).float().clamp(-1, 1)
            out.append(((y + 1) * 127.5).round().byte().cpu().contiguous())
    return torch.cat(out), index.tolist()


def export(model: CLIP, vocabulary: int) -> None:
    """Write the folder that `local-dir:` loads."""
    from safetensors.torch import save_file

    folder = WEIGHTS / "open-clip"
    folder.mkdir(parents=True, exist_ok=True)
    tokens.build(folder)
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"}
    text = json.dumps({"model_cfg": config(vocabulary), "preprocess_cfg": preprocess}, indent=2)
    (folder / "open_clip_config.json").write_text(text + "\n")
    state = {k: v.half().contiguous() for k, v in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.tmp", metadata={"format": "pt"})
    publish(folder / "open_clip_model.tmp", folder / "open_clip_model.safetensors")


def train(steps: int = STEPS) -> None:
    """Train (or go on training), and export at every checkpoint."""
    torch.manual_seed(2)
    dev = loop.device()
    data, held = pictures.load(TRAIN), pictures.load(HELD_OUT)
    tokenizer = tokens.build(WEIGHTS / "open-clip")
    model = build(len(tokenizer)).to(dev, memory_format=torch.channels_last)
    ema = loop.twin(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    state = loop.restore("clip")
    first = 0
    if state:
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    trips: tuple[Tensor, list[int]] | None = None
    forward = loop.compiled(model)
    began = time.time()
    for step in range(first, steps):
        if trips is None and step >= 600 and loop.restore("autoencoder"):
            trips = round_trips(data, 3000, 1)
        rng = Random(step)
        loop.set_rate(optimiser, loop.cosine(step, steps, RATE))
        index = distinct(data, rng, BATCH)
        x = data.batch(torch.tensor(index))
        scenes = [data.scenes[i] for i in index]
        if trips is not None:
            seen = {(s.subject, s.colour) for s in scenes}
            for row in range(0, BATCH, 2):
                k = rng.randrange(len(trips[1]))
                other = data.scenes[trips[1][k]]
                key, old = (other.subject, other.colour), (scenes[row].subject, scenes[row].colour)
                if key == old or key not in seen:
                    seen = (seen - {old}) | {key}
                    x[row], scenes[row] = trips[0][k].float() / 255, other
        text = tokenizer(
            [captions.caption(s, rng) for s in scenes],
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        ).input_ids.to(dev)
        view = (augment(x, rng).to(dev) * 2 - 1).contiguous(memory_format=torch.channels_last)
        with loop.autocast(dev):
            a, b, scale = forward(view, text)
        logits = scale.clamp(max=100) * a.float() @ b.float().T
        target = torch.arange(len(index), device=dev)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        loop.average(ema, model, min(0.995, (step + 1) / (step + 10)))
        if (step + 1) % 25 == 0:
            speed = (time.time() - began) / (step + 1 - first)
            print(f"clip {step + 1}/{steps} loss {loss.item():.4f} {speed:.2f} s/step", flush=True)
        if (step + 1) % 200 == 0 or step + 1 == steps:
            print(
                "clip held-out object {:.3f} colour {:.3f}".format(*accuracy(ema, tokenizer, held)),
                flush=True,
            )
            loop.save(
                "clip",
                {
                    "model": model.state_dict(),
                    "ema": ema.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "step": step + 1,
                },
            )
            export(ema, len(tokenizer))


if __name__ == "__main__":
    loop.quiet_threads()
    train()
