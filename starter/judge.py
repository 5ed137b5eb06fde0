"""An independent reader of pictures: a small CNN that shares nothing with the shipped models.

It learns from the held-out geometries, which neither the generator nor CLIP has seen, and from no
generated picture; so it cannot share their mistakes.
"""

import itertools
import time
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from starter import library, loop
from starter.augment import augment
from starter.library import HELD_OUT
from starter.paths import cache_dir
from starter.vocabulary import COLOURS, OBJECTS

STEPS, BATCH, RATE = 600, 48, 3e-3


class Judge(nn.Module):
    """Pictures [N,3,64,64] in [-1,1] to object logits [N,12] and colour logits [N,10]."""

    def __init__(self) -> None:
        super().__init__()
        widths, layers = (3, 24, 48, 80, 112), []
        for a, b in itertools.pairwise(widths):
            layers += [
                nn.Conv2d(a, b, 3, 2, 1, bias=False),
                nn.BatchNorm2d(b),
                nn.ReLU(),
                nn.Conv2d(b, b, 3, 1, 1, bias=False),
                nn.BatchNorm2d(b),
                nn.ReLU(),
            ]
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.1))
        self.object = nn.Linear(4 * widths[-1], len(OBJECTS))
        self.colour = nn.Linear(4 * widths[-1], len(COLOURS))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Object and colour logits."""
        h = self.trunk(x)
        return self.object(h), self.colour(h)


def train(steps: int = STEPS) -> Judge:
    """Train from nothing and keep the result in the cache."""
    torch.manual_seed(11)
    source, model = library.load(HELD_OUT), Judge()
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    pool_rng = Random(11)
    scenes = source.draw(pool_rng, [pool_rng.choice(OBJECTS) for _ in range(6000)])
    pool = torch.cat([(source.mix(scenes[i : i + 8]) * 255).byte() for i in range(0, 6000, 8)])
    objects = torch.tensor([OBJECTS.index(s.subject) for s in scenes])
    colours = torch.tensor([library.colour_index(s) for s in scenes])
    began = time.time()
    for step in range(steps):
        loop.set_rate(optimiser, loop.cosine(step, steps, RATE, 50))
        index = torch.randint(len(pool), (BATCH,))
        a, b = model(augment(pool[index].float() / 255, Random(step)) * 2 - 1)
        loss = F.cross_entropy(a, objects[index]) + F.cross_entropy(b, colours[index])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if (step + 1) % 100 == 0:
            right = (a.argmax(1) == objects[index]).float().mean()
            print(
                f"judge {step + 1}/{steps} loss {loss.item():.3f} object {right:.3f} "
                f"{(time.time() - began) / (step + 1):.3f} s/step",
                flush=True,
            )
    torch.save(model.state_dict(), cache_dir() / "judge.pt")
    return model.eval()


def load() -> Judge:
    """The cached judge, trained on first use."""
    path = cache_dir() / "judge.pt"
    if not path.exists():
        return train()
    model = Judge()
    model.load_state_dict(torch.load(path))
    return model.eval()


@torch.no_grad()
def read(model: Judge, x: Tensor) -> list[tuple[str, str]]:
    """(object, colour) read in each picture [N,3,H,W] in [0,1]."""
    small = F.interpolate(x, (64, 64), mode="bicubic", antialias=True).clamp(0, 1) * 2 - 1
    out = []
    for part in small.split(64):
        a, b = model(part)
        out += [
            (OBJECTS[i], list(COLOURS)[j])
            for i, j in zip(a.argmax(1).tolist(), b.argmax(1).tolist(), strict=True)
        ]
    return out


if __name__ == "__main__":
    loop.quiet_threads()
    train()
