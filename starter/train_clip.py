"""Train the open_clip model: a small residual network and a small text transformer, 64 px.

One contrastive batch shows every (subject, colour) pair at most once, so that no two captions of a
batch are both true; pictures are blurred, compressed, cropped and passed through the autoencoder,
so that the model reads generated images as well as renders.
"""

import json
import time
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor

from starter import captions, loop, pictures, tokens
from starter.augment import SIZE, augment, round_trips
from starter.library import HELD_OUT, TRAIN
from starter.paths import WEIGHTS, publish
from starter.read import joint_reader
from starter.vocabulary import OBJECTS
from starter.world import Scene

STEPS, BATCH, RATE = 1000, 128, 1e-3
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


def distinct(data: pictures.Pictures, rng: Random, count: int) -> list[int]:
    """Picture indices with no (subject, colour) twice; `count` at most."""
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
    pick = [i for i, s in enumerate(data.scenes) if s.subject in OBJECTS][:count]
    read = joint_reader(model, tokenizer)(data.batch(torch.tensor(pick)))
    scenes = [data.scenes[i] for i in pick]
    right = sum(r[0] == s.subject for r, s in zip(read, scenes, strict=True))
    colour = sum(r[1] == s.colour for r, s in zip(read, scenes, strict=True))
    return right / len(scenes), colour / len(scenes)


def _batch(
    data: pictures.Pictures, trips: tuple[Tensor, list[int]] | None, rng: Random
) -> tuple[Tensor, list[Scene]]:
    """Pictures and scenes; every other one is a round trip, where no caption would be doubled."""
    index = distinct(data, rng, BATCH)
    x, scenes = data.batch(torch.tensor(index)), [data.scenes[i] for i in index]
    if trips is None:
        return x, scenes
    seen = {(s.subject, s.colour) for s in scenes}
    for row in range(0, len(scenes), 2):
        k = rng.randrange(len(trips[1]))
        other = data.scenes[trips[1][k]]
        key, old = (other.subject, other.colour), (scenes[row].subject, scenes[row].colour)
        if key == old or key not in seen:
            seen = (seen - {old}) | {key}
            x[row], scenes[row] = trips[0][k].float() / 255, other
    return x, scenes


def export(model: CLIP, vocabulary: int) -> None:
    """Write the folder that `local-dir:` loads."""
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
        x, scenes = _batch(data, trips, rng)
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
        target = torch.arange(len(scenes), device=dev)
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
            right, colour = accuracy(ema, tokenizer, held)
            print(f"clip held-out object {right:.3f} colour {colour:.3f}", flush=True)
            parts = {"model": model.state_dict(), "ema": ema.state_dict(), "step": step + 1}
            loop.save("clip", parts | {"optimiser": optimiser.state_dict()})
            export(ema, len(tokenizer))


if __name__ == "__main__":
    loop.quiet_threads()
    train()
