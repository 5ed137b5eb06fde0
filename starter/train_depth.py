"""Train the depth estimator: a tiny GLPN that reads disparity from a picture of the starter world.

It predicts what `controls.depth` draws: 1 / distance, stretched to [0,1] in each picture, so that
near is large. Distances themselves, and depth between pictures, it does not know.
"""

import time
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DPTImageProcessor, GLPNConfig, GLPNForDepthEstimation

from starter import dense, library, loop, pictures
from starter.library import HELD_OUT
from starter.measures import correlation
from starter.paths import WEIGHTS

STEPS, BATCH, RATE, SIDE = 600, 16, 2e-3, 128
FOLDER = WEIGHTS / "depth"


def build() -> GLPNForDepthEstimation:
    """An untrained GLPN of 0.4 M parameters that takes 128 px pictures."""
    model = GLPNForDepthEstimation(
        GLPNConfig(
            depths=[1, 1, 1, 1],
            hidden_sizes=[24, 32, 64, 96],
            num_attention_heads=[1, 2, 4, 4],
            mlp_ratios=[3, 3, 3, 3],
            decoder_hidden_size=32,
            max_depth=1,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            drop_path_rate=0.0,
        )
    )
    dense.wake(model)
    return model


def processor() -> DPTImageProcessor:
    """The preprocessing that `AutoImageProcessor` loads beside the weights: 128 px, [-1,1]."""
    return DPTImageProcessor(
        size={"height": SIDE, "width": SIDE},
        resample=3,
        keep_aspect_ratio=False,
        ensure_multiple_of=1,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


@torch.no_grad()
def held_out(model: GLPNForDepthEstimation, count: int = 300) -> Tensor:
    """Correlation [N] with the renderer's disparity on held-out geometries."""
    data = pictures.load(HELD_OUT)
    truth, _ = dense.targets(library.load(HELD_OUT), data.scenes[:count])
    x = data.rgb[:count].float() / 127.5 - 1
    made = torch.cat([model.eval()(part).predicted_depth for part in x.split(32)])
    return correlation(made, truth)


def train(steps: int = STEPS) -> None:
    """Train and export; minutes, so it starts afresh each time."""
    torch.manual_seed(41)
    source = dense.Source(41)
    model = build().train()
    ema = loop.twin(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.02)
    began = time.time()
    for step in range(steps):
        loop.set_rate(optimiser, loop.cosine(step, steps, RATE, 50))
        batch = source.batch(BATCH, Random(step))
        with loop.autocast(torch.device("cpu")):
            made = model(batch.rgb * 2 - 1).predicted_depth.float()
        loss = F.l1_loss(made, batch.disparity)
        for axis in (-1, -2):  # silhouettes
            loss = loss + 0.5 * F.l1_loss(made.diff(dim=axis), batch.disparity.diff(dim=axis))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        loop.average(ema, model, min(0.99, (step + 1) / (step + 10)))
        if (step + 1) % 100 == 0:
            speed = (time.time() - began) / (step + 1)
            print(f"depth {step + 1}/{steps} loss {loss.item():.4f} {speed:.3f} s/step", flush=True)
    found = held_out(ema)
    print(f"depth held-out correlation mean {found.mean():.4f} p5 {found.quantile(0.05):.4f}")
    ema.half().save_pretrained(FOLDER)
    processor().save_pretrained(FOLDER)
    for file in FOLDER.iterdir():
        file.chmod(0o644)


if __name__ == "__main__":
    loop.quiet_threads()
    train()
