"""Samples in, a LoRA adapter folder out, for pipelines of Stable Diffusion 1.x/2.x layout.

A training that was interrupted goes on exactly where it was (resume.py); what learns is in
painter.py. The finished folder appears at once, with its card (adapter.py).
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from pipeline.errors import Fault, InputError
from pipeline.images import ImageRefused, RgbImage, decode_limited, read_limited
from pipeline.models import Model
from pipeline.store import flush
from pipeline.train.adapter import write_adapter
from pipeline.train.card import Done
from pipeline.train.painter import Painter, TrainingError
from pipeline.train.recipe import Recipe, check_arguments
from pipeline.train.resume import held, keep, restored, same_recipe
from pipeline.train.samples import Sample
from pipeline.train.sheet import Curve, show


@dataclass(frozen=True)
class Progress:
    """Where a training is. `loss` is the mean of the last steps, `seconds_left` a guess (seconds);
    `sheet` shows the sample pictures made so far.
    """

    step: int
    steps: int
    loss: float
    seconds_left: float | None
    sheet: Path


def train_lora(
    model: Model,
    samples: Sequence[Sample],
    out: Path,
    *,
    name: str,
    rank: int = 8,
    steps: int = 200,
    seed: int = 0,
    resolution: int | None = None,
    rate: float = 5e-4,
    batch_size: int = 4,
    device: str = "auto",
    caption: str = "{title}",
    sample_prompts: Sequence[str] = (),
    sample_every: int | None = None,
    keep_every: int = 25,
    progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Train an adapter of `model` on `samples` and return its folder, `out/name`.

    Pictures are cropped to the model's size, or to `resolution` × `resolution` pixels. A sample
    without a caption gets `caption`, with `{title}` replaced. `sample_prompts` (default: the first
    four captions) are painted every `sample_every` steps (default: a quarter of them), always with
    the same seeds. `device` is `auto`, `cuda`, `mps` or `cpu`. State is kept in
    `out/name.training` every `keep_every` steps: called again with the same arguments, the training
    goes on from there.

    Raises InputError for arguments out of range, a folder that is there already, an unfinished
    training of other arguments, and pictures that changed; SetupError for a base that is not of
    the layout, BusyError when another process trains `name`, TrainingError when the loss is lost.
    """
    texts = [each.caption or caption.replace("{title}", each.title) for each in samples]
    recipe = Recipe(
        base=model.name,
        base_revision=model.revision,
        rank=rank,
        steps=steps,
        seed=seed,
        rate=rate,
        batch_size=batch_size,
        width=resolution or model.width,
        height=resolution or model.height,
        captions=tuple(texts),
        pictures=tuple(each.sha256 for each in samples),
        prompts=tuple(sample_prompts) or tuple(dict.fromkeys(texts))[:4],
    )
    check_arguments(name, recipe, sample_every, keep_every)
    if (out / name).exists():
        raise InputError("train lora", [_exists(out, name)])
    work = out / f"{name}.training"
    with held(work, name):
        same_recipe(work, name, recipe)
        painter = Painter(model, recipe, device)
        pictures = [_picture(each, recipe.width, recipe.height) for each in samples]
        painter.learn_by(pictures)
        began = time.monotonic()
        every = sample_every or max(1, -(-steps // 4))
        curve = _train(painter, work, every, keep_every, progress)
        done = Done(model, recipe, name, samples, painter.precision, curve)
        write_adapter(done, painter, work, pictures, time.monotonic() - began)
        try:
            (work / "finished").rename(out / name)
        except OSError:
            raise InputError("train lora", [_exists(out, name)]) from None
        flush(out)
        shutil.rmtree(work)
    return out / name


def _exists(out: Path, name: str) -> Fault:
    return Fault("is there already", str(out / name), "choose another name, or move it away")


def _picture(sample: Sample, width: int, height: int) -> RgbImage:
    """The sample's pixels, scaled and cropped to the middle: uint8 [height, width, 3]."""
    try:
        data = read_limited(sample.path)
        if hashlib.sha256(data).hexdigest() != sample.sha256:
            raise ImageRefused("was changed since its rights were read", "start again")
        pixels = decode_limited(data)
    except ImageRefused as refused:
        fault = Fault(refused.what, str(sample.path), refused.remedy)
        raise InputError("train lora", [fault]) from None
    except OSError as error:
        fault = Fault(error.strerror or str(error), str(sample.path), "check the file")
        raise InputError("train lora", [fault]) from None
    fitted = ImageOps.fit(Image.fromarray(pixels), (width, height), Image.Resampling.LANCZOS)
    return np.asarray(fitted)


def _train(
    painter: Painter,
    work: Path,
    sample_every: int,
    keep_every: int,
    progress: Callable[[Progress], None] | None,
) -> Curve:
    steps = painter.recipe.steps
    first, curve = restored(painter, work / "state.pt")
    if first == 0:
        curve.probes = [(0, painter.probe())]
    shown = {*range(0, steps, sample_every), steps}
    if first in shown:
        show(painter, work, first, curve)
    began = time.monotonic()
    for number in range(first, steps):
        loss = painter.step(number)
        if not np.isfinite(loss):
            raise TrainingError(
                f"the loss is no number any more at step {number + 1}; delete {work} and train "
                f"with a smaller learning rate than {painter.recipe.rate}"
            )
        curve.losses.append(loss)
        done = number + 1
        if done in shown:
            curve.probes.append((done, painter.probe()))
        if done in shown or done % keep_every == 0:
            keep(painter, work / "state.pt", done, curve)
        if done in shown:
            show(painter, work, done, curve)
        if progress is not None:
            left = (time.monotonic() - began) / (done - first) * (steps - done)
            progress(Progress(done, steps, curve.recent, left, work / "samples.jpg"))
    return curve
