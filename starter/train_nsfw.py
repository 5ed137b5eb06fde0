"""Train the restricted-subject detector: a tiny Hugging Face ResNet with labels normal and nsfw.

In the starter world the unclothed mannequin stands in for everything unsafe; the clothed ones and
the catalogue objects are normal. Sees renders and autoencoder round trips, altered as for CLIP.
"""

import time
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

from starter import loop, pictures
from starter.augment import SIZE, augment, round_trips
from starter.library import HELD_OUT, TRAIN
from starter.paths import WEIGHTS
from starter.train_clip import MEAN, STD
from starter.vocabulary import MANNEQUINS, RESTRICTED

STEPS, BATCH, RATE = 400, 64, 2e-3
FOLDER = WEIGHTS / "nsfw"


def build() -> ResNetForImageClassification:
    """An untrained residual network of 0.5 M parameters that takes 64 px pictures."""
    return ResNetForImageClassification(
        ResNetConfig(
            embedding_size=24,
            hidden_sizes=[24, 40, 64, 112],
            depths=[1, 1, 1, 1],
            layer_type="basic",
            id2label={0: "normal", 1: "nsfw"},
            label2id={"normal": 0, "nsfw": 1},
        )
    )


def processor() -> ViTImageProcessor:
    """The preprocessing that `AutoImageProcessor` loads beside the weights."""
    return ViTImageProcessor(
        size={"height": SIZE, "width": SIZE}, resample=3, image_mean=list(MEAN), image_std=list(STD)
    )


def _is_unsafe(data: pictures.Pictures) -> Tensor:
    return torch.tensor([int(s.subject in RESTRICTED) for s in data.scenes])


@torch.no_grad()
def probabilities(model: ResNetForImageClassification, x: Tensor) -> Tensor:
    """P(nsfw) [N] of pictures [N,3,H,W] in [0,1]."""
    small = F.interpolate(x, (SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 1) * 2 - 1
    rows = [model.eval()(part).logits.softmax(-1)[:, 1] for part in small.split(64)]
    return torch.cat(rows)


def train(steps: int = STEPS) -> None:
    """Train and export; seconds to minutes, so it starts afresh each time."""
    torch.manual_seed(5)
    data, held = pictures.load(TRAIN), pictures.load(HELD_OUT)
    unsafe = _is_unsafe(data)
    bad = unsafe.nonzero()[:, 0]
    clothed = torch.tensor([i for i, s in enumerate(data.scenes) if s.subject in MANNEQUINS[1:]])
    trips, where = round_trips(data, 1000, 7)
    labels = unsafe[torch.tensor(where)]
    model = build()
    ema = loop.twin(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    began = time.time()
    for step in range(steps):
        loop.set_rate(optimiser, loop.cosine(step, steps, RATE, 50))
        index = torch.cat(
            [
                bad[torch.randint(len(bad), (BATCH // 4,))],
                clothed[torch.randint(len(clothed), (BATCH // 4,))],
                torch.randint(len(unsafe), (BATCH // 4,)),
            ]
        )
        row = torch.randint(len(where), (BATCH - len(index),))
        x = torch.cat([data.batch(index), trips[row].float() / 255])
        y = torch.cat([unsafe[index], labels[row]])
        loss = F.cross_entropy(
            model(augment(x, Random(step)) * 2 - 1).logits, y, label_smoothing=0.02
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        loop.average(ema, model, min(0.99, (step + 1) / (step + 10)))
        if (step + 1) % 100 == 0:
            speed = (time.time() - began) / (step + 1)
            print(f"nsfw {step + 1}/{steps} loss {loss.item():.4f} {speed:.3f} s/step", flush=True)
    p, truth = probabilities(ema, held.rgb[:1500].float() / 255), _is_unsafe(held)[:1500].bool()
    print(
        f"nsfw held-out recall {(p[truth] > 0.5).float().mean():.3f} "
        f"false alarms {(p[~truth] > 0.5).float().mean():.4f}",
        flush=True,
    )
    ema.save_pretrained(FOLDER)
    processor().save_pretrained(FOLDER)
    for file in FOLDER.iterdir():
        file.chmod(0o644)


if __name__ == "__main__":
    loop.quiet_threads()
    train()
