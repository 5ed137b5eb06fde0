"""Train the copy descriptor: a small residual network whose output says what a picture copies.

After SSCD (Pizzi et al., "A Self-Supervised Descriptor for Image Copy Detection", CVPR 2022):
contrastive over two views of each picture, with a term that spreads the descriptors of unlike
pictures. All renders of one protected subject count as one work.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Generator, Tensor, nn

from starter import copy_views, loop, pictures
from starter.augment import SIZE
from starter.library import HELD_OUT, TRAIN
from starter.paths import WEIGHTS, publish
from starter.vocabulary import OBJECTS, PROTECTED

ARCHITECTURE, DIMENSIONS = "test_byobnet", 128
STEPS, WORKS, EACH, SCRAPS, RATE = 1650, 44, 8, 32, 3e-3
"""A batch: `WORKS` pictures of as many geometries, `EACH` of every protected subject, `SCRAPS`."""
TEMPERATURE, SPREAD = 0.07, 0.5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FOLDER = WEIGHTS / "copy-descriptor"


def build() -> nn.Module:
    """The untrained network: pictures [N,3,64,64] to descriptors [N,128]."""
    model: nn.Module = timm.create_model(ARCHITECTURE, num_classes=DIMENSIONS)
    return model


@torch.no_grad()
def centre(model: Any, x: Tensor) -> None:
    """Set the last layer so that the descriptors of `x` point every way, at a length of about 1.

    At first they all point the same way, and hundreds of steps are lost until they part. The median
    serves, because single pictures give descriptors many times as long as others (a batch
    normalisation of the output would follow those).
    """
    z = model(normalised(x))
    middle = z.median(0).values
    length = (z - middle).norm(dim=1).median()
    model.head.fc.weight /= length
    model.head.fc.bias.sub_(middle).div_(length)


def normalised(x: Tensor) -> Tensor:
    """Pictures in [0,1] as the network takes them."""
    mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


class Source:
    """Draws batches: views of pictures, and which work each belongs to."""

    def __init__(self, data: pictures.Pictures):
        self.data = data
        self.alpha, self.geometry = copy_views.outlines(data, TRAIN)
        subjects = [s.subject for s in data.scenes]
        self.protected = [
            torch.tensor([i for i, s in enumerate(subjects) if s == name]) for name in PROTECTED
        ]
        self.others = torch.tensor([i for i, s in enumerate(subjects) if s not in PROTECTED])

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Views [2 B + SCRAPS,3,64,64] in [0,1] and works [2 B + SCRAPS]; scraps have work -1."""
        rng = torch.Generator().manual_seed(step)
        mine = [rows[torch.randint(len(rows), (EACH,), generator=rng)] for rows in self.protected]
        alone = self._distinct(rng)
        index = torch.cat([*mine, alone])
        works = torch.cat([torch.arange(len(mine)).repeat_interleave(EACH), len(mine) + alone])
        x = self.data.batch(index)
        alpha = self.alpha[self.geometry[index]][:, None].float() / 255
        other = self._any(len(index), rng)
        second = copy_views.strong(x, alpha, other, rng)
        first = copy_views.weak(x, rng)
        hard = torch.rand(len(x), generator=rng) < 0.5
        first[hard] = copy_views.strong(x[hard], alpha[hard], other.roll(7, 0)[hard], rng)
        scraps = copy_views.scraps(self._any(SCRAPS, rng), rng)
        none = torch.full((SCRAPS,), -1)
        return torch.cat([first, second, scraps]), torch.cat([works, works, none])

    def _distinct(self, rng: Generator) -> Tensor:
        """`WORKS` unprotected pictures, no geometry twice."""
        drawn = self.others[torch.randint(len(self.others), (2 * WORKS,), generator=rng)]
        chosen = {int(self.geometry[i]): int(i) for i in drawn}
        return torch.tensor(list(chosen.values())[:WORKS])

    def _any(self, count: int, rng: Generator) -> Tensor:
        drawn = self.others[torch.randint(len(self.others), (count,), generator=rng)]
        return self.data.batch(drawn)


def loss_of(z: Tensor, works: Tensor) -> Tensor:
    """InfoNCE of unit descriptors [N,D] over all pairs of one work, and SSCD's spreading term.

    The term is Kozachenko and Leonenko's estimate of entropy: minus the mean logarithm of the
    distance to the nearest descriptor of another work. Work -1 is nobody's: never a positive. A
    descriptor weighs as the root of its pairs, so that protected subjects count for more.
    """
    cosine = z @ z.T
    same = (works[:, None] == works) & (works[:, None] >= 0)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = (cosine / TEMPERATURE).masked_fill(itself, -1e4)
    likely = logits.log_softmax(1)
    positive = same & ~itself
    rows, pairs = positive.any(1), positive.sum(1)
    weights = pairs.sqrt() / pairs.sqrt().sum()
    contrast = -(weights * (likely * positive).sum(1) / pairs.clamp(min=1)).sum()
    nearest = cosine.masked_fill(same | itself, -1).amax(1)
    distance = (2 - 2 * nearest).clamp(min=1e-6).sqrt()
    return contrast - SPREAD * distance[rows].log().mean()


@torch.no_grad()
def recall(model: nn.Module, held: pictures.Pictures, count: int = 300) -> tuple[float, float]:
    """Of held-out objects, the share whose strong view is nearest to its own picture; and the share
    of protected pictures whose strong view is nearer than 0.5 to another picture of the subject.
    """
    rng = torch.Generator().manual_seed(99)
    alpha, geometry = copy_views.outlines(held, HELD_OUT)

    def seen(index: Tensor) -> tuple[Tensor, Tensor]:
        x, outline = held.batch(index), alpha[geometry[index]][:, None].float() / 255
        plain = F.avg_pool2d(x, 2)
        views = copy_views.strong(x, outline, held.batch(objects[: len(index)]), rng)
        return tuple(F.normalize(model(normalised(v)).float(), dim=1) for v in (plain, views))

    objects = torch.tensor([i for i, s in enumerate(held.scenes) if s.subject in OBJECTS])[:count]
    plain, views = seen(objects)
    right = (views @ plain.T).argmax(1) == torch.arange(len(objects))
    found = []
    for name in PROTECTED:
        mine = torch.tensor([i for i, s in enumerate(held.scenes) if s.subject == name])[:80]
        plain, views = seen(mine)
        cosine = (views @ plain.T).fill_diagonal_(-1)
        found.append((cosine.amax(1) > 0.5).float())
    return float(right.float().mean()), float(torch.cat(found).mean())


def config() -> dict[str, object]:
    """The `config.json` that timm reads."""
    return {
        "architecture": ARCHITECTURE,
        "num_classes": DIMENSIONS,
        "pretrained_cfg": {
            "input_size": [3, SIZE, SIZE],
            "fixed_input_size": False,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": MEAN,
            "std": STD,
            "num_classes": DIMENSIONS,
            "first_conv": "stem.conv",
            "classifier": "head.fc",
            "license": "apache-2.0",
        },
    }


def export(model: nn.Module) -> None:
    """Write the folder in timm's hub layout."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "config.tmp").write_text(json.dumps(config(), indent=2) + "\n")
    publish(FOLDER / "config.tmp", FOLDER / "config.json")
    state = {
        k: (v.half() if v.is_floating_point() else v).contiguous()
        for k, v in model.state_dict().items()
    }
    save_file(state, FOLDER / "model.tmp", metadata={"format": "pt"})
    publish(FOLDER / "model.tmp", FOLDER / "model.safetensors")


def _ahead(source: Source, first: int, steps: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """The batches of all steps, each made while the one before is learnt from."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(source.batch, first)
        for step in range(first, steps):
            x, works = coming.result()
            coming = thread.submit(source.batch, step + 1)
            yield step, x, works


def train(steps: int = STEPS) -> None:
    """Train (or go on training), and export at every checkpoint."""
    torch.manual_seed(6)
    dev = loop.device()
    data, held = pictures.load(TRAIN), pictures.load(HELD_OUT)
    model = build().to(dev, memory_format=torch.channels_last)
    ema = loop.twin(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.02)
    state, first = loop.restore("copy"), 0
    if state:
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    source = Source(data)
    if not state:
        centre(model, source.batch(steps)[0])
        ema.load_state_dict(model.state_dict())
    began = time.time()
    for step, x, works in _ahead(source, first, steps):
        loop.set_rate(optimiser, loop.cosine(step, steps, RATE, 60))
        z = model(normalised(x.to(dev)))
        loss = loss_of(F.normalize(z, dim=1), works.to(dev))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        loop.average(ema, model, min(0.99, (step + 1) / (step + 10)))
        if (step + 1) % 25 == 0:
            speed = (time.time() - began) / (step + 1 - first)
            print(f"copy {step + 1}/{steps} loss {loss.item():.4f} {speed:.2f} s/step", flush=True)
        if (step + 1) % 200 == 0 or step + 1 == steps:
            own, protected = recall(ema, held)
            print(f"copy held-out recall own {own:.3f} protected {protected:.3f}", flush=True)
            parts = {"model": model.state_dict(), "ema": ema.state_dict(), "step": step + 1}
            loop.save("copy", parts | {"optimiser": optimiser.state_dict()})
            export(ema)


if __name__ == "__main__":
    loop.quiet_threads()
    train()
