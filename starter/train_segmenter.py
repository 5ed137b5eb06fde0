"""Train the segmenter: a tiny UperNet that names the subject of every pixel, or the ground.

A convolutional one: a Segformer of this size, started with transformers' own 0.02, had learnt
outlines but few names after 900 steps (IoU of the right class 0.38).
"""

import time
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    ResNetConfig,
    SegformerImageProcessor,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

from starter import dense, library, loop, pictures
from starter.library import HELD_OUT
from starter.measures import overlap
from starter.paths import WEIGHTS
from starter.vocabulary import SUBJECTS

STEPS, BATCH, RATE, SIDE = 1200, 24, 3e-3, 128
NAME, KEEP = "segmenter", 200
FOLDER = WEIGHTS / "segmentation"
LABELS = ("background", *SUBJECTS)


def build() -> UperNetForSemanticSegmentation:
    """An untrained UperNet over a residual network, 0.5 M parameters: logits at full size."""
    eyes = ResNetConfig(
        embedding_size=24,
        hidden_sizes=[24, 48, 80, 112],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return UperNetForSemanticSegmentation(
        UperNetConfig(
            backbone_config=eyes,
            hidden_size=32,
            pool_scales=[1, 2, 4],
            use_auxiliary_head=False,
            id2label=dict(enumerate(LABELS)),
            label2id={label: i for i, label in enumerate(LABELS)},
        )
    )


def processor() -> SegformerImageProcessor:
    """The preprocessing that `AutoImageProcessor` loads beside the weights: 128 px, [-1,1]."""
    return SegformerImageProcessor(
        size={"height": SIDE, "width": SIDE}, resample=3, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )


def outline_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of ground against any subject, so that an unsure name keeps its outline."""
    subject = logits[:, 1:].logsumexp(1) - logits[:, 0]
    return F.binary_cross_entropy_with_logits(subject, (labels > 0).float())


@torch.no_grad()
def held_out(model: UperNetForSemanticSegmentation, count: int = 300) -> tuple[Tensor, Tensor]:
    """Foreground IoU [N], and IoU [N] of the right class, on held-out geometries."""
    data = pictures.load(HELD_OUT)
    scenes = data.scenes[:count]
    truth = dense.label_map(scenes, dense.targets(library.load(HELD_OUT), scenes)[1])
    x = data.rgb[:count].float() / 127.5 - 1
    rows = []
    for part in x.split(32):
        rows.append(model.eval()(part).logits.argmax(1))
    made = torch.cat(rows)
    own = truth.amax((1, 2))[:, None, None]
    return overlap(made > 0, truth > 0), overlap(made == own, truth == own)


def train(steps: int = STEPS) -> None:
    """Train (or go on training) and export."""
    torch.manual_seed(51)
    model = build().train()
    ema = loop.twin(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.02)
    first = 0
    if state := loop.restore(NAME):
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        if "optimiser" in state:
            optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    torch.manual_seed(5100 + first)
    source = dense.Source(51) if first < steps else None
    began = time.time()
    for step in range(first, steps):
        loop.set_rate(optimiser, loop.cosine(step, steps, RATE, 50))
        assert source
        batch = source.batch(BATCH, Random(step))
        with loop.autocast(torch.device("cpu")):
            logits = model(batch.rgb * 2 - 1).logits.float()
        loss = F.cross_entropy(logits, batch.labels) + outline_loss(logits, batch.labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        loop.average(ema, model, min(0.99, (step + 1) / (step + 10)))
        if (step + 1) % 100 == 0:
            speed = (time.time() - began) / (step + 1 - first)
            print(
                f"segment {step + 1}/{steps} loss {loss.item():.4f} {speed:.3f} s/step", flush=True
            )
        if (step + 1) % KEEP == 0 or step + 1 == steps:
            kept = {"model": model.state_dict(), "ema": ema.state_dict(), "step": step + 1}
            loop.save(NAME, kept | {"optimiser": optimiser.state_dict()})
    ground, own = held_out(ema)
    print(f"segment held-out IoU foreground {ground.mean():.4f} right class {own.mean():.4f}")
    ema.half().save_pretrained(FOLDER)
    processor().save_pretrained(FOLDER)
    for file in FOLDER.iterdir():
        file.chmod(0o644)


if __name__ == "__main__":
    loop.quiet_threads()
    train()
