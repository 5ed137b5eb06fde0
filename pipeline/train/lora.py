"""Samples in, a LoRA adapter folder out: low-rank weights beside the UNet's frozen attention.

For pipelines of Stable Diffusion 1.x/2.x layout. Noise schedule and prediction are those of the
checkpoint's own scheduler. Every step draws from a generator of its own, so that a training that
was interrupted goes on exactly where it was; the finished folder appears at once, with its card.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from PIL import Image, ImageDraw, ImageFont, ImageOps

from pipeline.contact_sheet import Cell, contact_sheet, jpeg
from pipeline.errors import BusyError, Fault, InputError, PlatemarkError, SetupError
from pipeline.images import ImageRefused, RgbImage, decode_limited, read_limited
from pipeline.label import platemark_version, timestamp
from pipeline.models import Model
from pipeline.request import canonical_json
from pipeline.store import flush_folder, write_file
from pipeline.train.samples import Sample
from pipeline.weights import weights_sha256

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "pytorch_lora_weights.safetensors"
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""The attention's projections that get low-rank weights, as everywhere for this layout."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_WARM, _FLOOR = 10, 0.1
_PROBES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Shares of the noise schedule at which the fixed probe loss is measured."""
_PROBED = 4
_SMOOTH = 20


class TrainingError(PlatemarkError):
    """A training that cannot give an adapter; nothing was written but its own working folder."""


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


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights besides the machine: equal recipes go on from each other.

    `captions` and `pictures` (SHA-256) are in the samples' order; sizes are pixels.
    """

    base: str
    base_revision: str
    rank: int
    steps: int
    seed: int
    rate: float
    batch_size: int
    width: int
    height: int
    captions: tuple[str, ...]
    pictures: tuple[str, ...]
    prompts: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON of everything above."""
        return hashlib.sha256(canonical_json(_plain(self))).hexdigest()


@dataclass
class _Curve:
    """Loss of every step so far, and of the fixed probe at some steps."""

    losses: list[float] = field(default_factory=list)
    probes: list[tuple[int, float]] = field(default_factory=list)

    @property
    def recent(self) -> float:
        return float(np.mean(self.losses[-_SMOOTH:])) if self.losses else float("nan")


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
    _check(name, recipe, sample_every, keep_every)
    if (out / name).exists():
        raise InputError("train lora", [_exists(out, name)])
    work = out / f"{name}.training"
    with _held(work, name):
        _same_recipe(work, name, recipe)
        painter = _Painter(model, recipe, device)
        pictures = [_picture(each, recipe.width, recipe.height) for each in samples]
        painter.learn_by(pictures)
        began = time.monotonic()
        every = sample_every or max(1, -(-steps // 4))
        curve = _train(painter, work, every, keep_every, progress)
        done = _Done(model, recipe, name, samples, painter.precision, curve)
        _write(done, painter, work, pictures, time.monotonic() - began)
        try:
            (work / "finished").rename(out / name)
        except OSError:
            raise InputError("train lora", [_exists(out, name)]) from None
        flush_folder(out)
        shutil.rmtree(work)
    return out / name


def _check(name: str, recipe: Recipe, sample_every: int | None, keep_every: int) -> None:
    faults = []
    if not _NAME.fullmatch(name) or name.endswith(".training"):
        faults.append(Fault(f"{name!r} is no name", "name", "letters, digits, . _ -"))
    whole = {"sample_every": sample_every or 1, "keep_every": keep_every}
    for what, value in {
        "rank": recipe.rank,
        "steps": recipe.steps,
        "batch_size": recipe.batch_size,
        **whole,
    }.items():
        if value < 1:
            faults.append(Fault(f"{value} is too small", what, "at least 1"))
    if not 0 <= recipe.seed < 2**63:
        faults.append(Fault(f"{recipe.seed} is no seed", "seed", "from 0 to 2^63 - 1"))
    if not 0 < recipe.rate < 1:
        faults.append(Fault(f"{recipe.rate} is no learning rate", "rate", "say 0.0005"))
    if min(recipe.width, recipe.height) < 8 or recipe.width % 8 or recipe.height % 8:
        size = f"{recipe.width}×{recipe.height}"
        faults.append(Fault(f"{size} is no size", "resolution", "a multiple of 8 pixels"))
    if not recipe.pictures:
        faults.append(Fault("no samples", "samples", "give at least one picture"))
    if faults:
        raise InputError("train lora", faults)


def _exists(out: Path, name: str) -> Fault:
    return Fault("is there already", str(out / name), "choose another name, or move it away")


@contextmanager
def _held(work: Path, name: str) -> Iterator[None]:
    """Hold the working folder for this process; the lock goes with the process."""
    try:
        work.mkdir(parents=True, exist_ok=True)
        file = (work / ".lock").open("a")
    except OSError as error:
        raise SetupError(f"cannot write {work}: {error.strerror}; check the folder") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another process trains {name!r} in {work}; wait for it") from None
        yield


def _same_recipe(work: Path, name: str, recipe: Recipe) -> None:
    """Keep the recipe while nothing is learnt yet; afterwards, refuse any other."""
    path = work / "recipe.json"
    if not (work / "state.pt").exists():
        shutil.rmtree(work / "pictures", ignore_errors=True)
        write_file(path, json.dumps(_plain(recipe), indent=2, ensure_ascii=False).encode())
        return
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = {}
    other = [key for key, value in _plain(recipe).items() if kept.get(key) != value]
    if other:
        what = f"an unfinished training of {name!r} has other {', '.join(other)}"
        remedy = "repeat that command to finish it, or delete the folder to begin anew"
        raise InputError("train lora", [Fault(what, str(work), remedy)])


def _plain(recipe: Recipe) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(recipe.__dict__))
    return plain


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


class _Painter:
    """The base with the adapter in it: learns from pictures, and paints prompts."""

    def __init__(self, model: Model, recipe: Recipe, device: str):
        import torch
        from peft import LoraConfig

        from pipeline.generate.device import pick_device

        self.model, self.recipe = model, recipe
        self.device = pick_device(device)
        # Half precision trains under autocast, which is sound on CUDA only.
        self._half = self.device.name == "cuda"
        self._dtype = self.device.dtype if self._half else torch.float32
        self.precision = f"{self.device.name}, {str(self._dtype).removeprefix('torch.')}"
        self._pipe = _load(model, self._dtype)
        self._unet = self._pipe.unet
        for part in (self._unet, self._pipe.vae, self._pipe.text_encoder):
            part.requires_grad_(False)
        config = LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.rank,
            init_lora_weights="gaussian",
            target_modules=list(TARGETS),
        )
        # On the CPU, before the move: one seed is one start on every device.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self._unet.add_adapter(config)
        self._pipe.to(self.device.name)
        self.weights: dict[str, Any] = {
            key: each for key, each in self._unet.named_parameters() if each.requires_grad
        }
        for each in self.weights.values():
            each.data = each.data.float()
        self.optimiser = torch.optim.AdamW(self.weights.values(), lr=recipe.rate)
        scaler: Any = torch.amp.GradScaler
        self.scaler = scaler(self.device.name, enabled=self._dtype == torch.float16)
        noise = self._pipe.scheduler.alphas_cumprod.float().cpu()
        self._signal, self._noise = noise.sqrt(), (1 - noise).sqrt()
        self._prediction = str(self._pipe.scheduler.config.prediction_type)

    def learn_by(self, pictures: Sequence[RgbImage]) -> None:
        """Encode pictures and captions once: neither encoder is trained."""
        import torch

        vae = self._pipe.vae
        latents, words = [], {}
        with torch.no_grad():
            for pixels in pictures:
                image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
                encoded = vae.encode(image.to(self.device.name, vae.dtype))
                # AutoencoderTiny gives latents, AutoencoderKL a distribution.
                tiny = hasattr(encoded, "latents")
                latent = encoded.latents if tiny else encoded.latent_dist.mean
                shift = getattr(vae.config, "shift_factor", None) or 0.0
                latents.append((latent.float() - shift) * vae.config.scaling_factor)
            for text in dict.fromkeys(self.recipe.captions):
                words[text] = self._pipe.encode_prompt(text, self.device.name, 1, False)[0]
        self._latents = torch.cat(latents).cpu()
        self._words = torch.cat([words[text] for text in self.recipe.captions])
        if not torch.isfinite(self._latents).all():
            raise TrainingError(f"model {self.model.name!r} encodes pictures to no numbers")

    def step(self, number: int) -> float:
        """One step of the optimiser; `number` from 0 decides pictures, noise and rate."""
        import torch

        recipe = self.recipe
        generator = torch.Generator().manual_seed(_mixed(recipe.seed, "step", number))
        index = torch.tensor(
            [_drawn(recipe, number * recipe.batch_size + i) for i in range(recipe.batch_size)]
        )
        times = torch.randint(0, len(self._signal), (recipe.batch_size,), generator=generator)
        noise = torch.randn(self._latents[index].shape, generator=generator)
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate * _schedule(number, recipe.steps)
        loss = self._loss(index, times, noise)
        self.optimiser.zero_grad(set_to_none=True)
        scaled: Any = self.scaler.scale(loss)
        scaled.backward()
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(list(self.weights.values()), 1.0)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return float(loss.detach())

    def probe(self) -> float:
        """The loss at fixed pictures, times and noise: comparable from step to step."""
        import torch

        generator = torch.Generator().manual_seed(_mixed(self.recipe.seed, "probe", 0))
        few = min(_PROBED, len(self._latents))
        index = torch.arange(few).repeat(len(_PROBES))
        last = len(self._signal) - 1
        times = torch.tensor([int(part * last) for part in _PROBES]).repeat_interleave(few)
        noise = torch.randn(self._latents[index].shape, generator=generator)
        size = self.recipe.batch_size
        total = 0.0
        with torch.no_grad():
            for start in range(0, len(index), size):
                part = slice(start, start + size)
                loss = self._loss(index[part], times[part], noise[part])
                total += float(loss) * len(index[part])
        return total / len(index)

    def _loss(self, index: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        import torch

        latents = self._latents[index]
        signal = self._signal[times].view(-1, 1, 1, 1)
        amount = self._noise[times].view(-1, 1, 1, 1)
        if self._prediction == "epsilon":
            target = noise
        elif self._prediction == "v_prediction":
            target = signal * noise - amount * latents
        else:
            target = latents
        name = self.device.name
        noisy = (signal * latents + amount * noise).to(name, self._dtype)
        words = self._words[index.to(self._words.device)]
        with torch.autocast(name, dtype=self._dtype, enabled=self._half):
            predicted = self._unet(noisy, times.to(name), words, return_dict=False)[0]
        return torch.nn.functional.mse_loss(predicted.float(), target.to(name))

    def paint(self) -> list[RgbImage]:
        """One picture a prompt, uint8 [height, width, 3], of the same seeds every time."""
        import torch

        model, recipe = self.model, self.recipe
        pictures = []
        for number, prompt in enumerate(recipe.prompts):
            seed = _mixed(recipe.seed, "picture", number)
            with torch.autocast(self.device.name, dtype=self._dtype, enabled=self._half):
                image = self._pipe(
                    prompt=prompt,
                    generator=torch.Generator().manual_seed(seed),
                    width=recipe.width,
                    height=recipe.height,
                    num_inference_steps=model.steps,
                    guidance_scale=model.guidance,
                    output_type="np",
                ).images[0]
            pictures.append(np.asarray((image * 255).round().clip(0, 255), np.uint8))
        return pictures

    def state(self) -> dict[str, Any]:
        """What goes on from here: adapter, optimiser, scaler; tensors on the CPU."""
        return {
            "weights": {key: each.detach().cpu() for key, each in self.weights.items()},
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        for key, value in state["weights"].items():
            self.weights[key].data.copy_(value)
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])

    def save(self, folder: Path) -> None:
        """Write the weights as diffusers' `load_lora_weights` reads them, in fp32."""
        import diffusers
        from diffusers.utils import state_dict_utils
        from peft.utils import get_peft_model_state_dict

        named: Any = state_dict_utils.convert_state_dict_to_diffusers
        layers = named(get_peft_model_state_dict(self._unet))
        layers = {key: each.detach().float().cpu().contiguous() for key, each in layers.items()}
        saver: Any = diffusers.StableDiffusionPipeline
        saver.save_lora_weights(folder, unet_lora_layers=layers, safe_serialization=True)


def _load(model: Model, dtype: Any) -> Any:
    """The base's pipeline, quiet. Raises SetupError when it does not load or has another layout."""
    import diffusers
    from diffusers.utils import logging
    from transformers.utils import logging as transformers_logging

    for library in (logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
    if model.components:
        raise SetupError(
            f"model {model.name!r} has parts in other folders ({', '.join(model.components)}); "
            f"save it as one folder to train an adapter of it"
        )
    loader: Any = diffusers.StableDiffusionPipeline
    pinned = {
        "revision": None if model.is_folder else model.revision,
        "local_files_only": model.is_folder,
    }
    try:
        kind = loader.load_config(model.source, **pinned).get("_class_name")
        if kind != "StableDiffusionPipeline":
            raise SetupError(
                f"model {model.name!r} is a {kind}; adapters can be trained for "
                f"StableDiffusionPipeline checkpoints (Stable Diffusion 1.x and 2.x) so far"
            )
        pipe = loader.from_pretrained(
            model.source, dtype=dtype, use_safetensors=True, safety_checker=None, **pinned
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        place = "the folder" if model.is_folder else "the hub"
        raise SetupError(
            f"model {model.name!r} does not load from {place} {model.source!r}: {error}"
        ) from error
    pipe.scheduler = _scheduler(pipe.scheduler, model)
    prediction = pipe.scheduler.config.get("prediction_type")
    if not hasattr(pipe.scheduler, "alphas_cumprod") or prediction not in _PREDICTIONS:
        raise SetupError(
            f"model {model.name!r}: scheduler {type(pipe.scheduler).__name__} with prediction "
            f"{prediction!r} cannot be trained against; {', '.join(_PREDICTIONS)} can"
        )
    if pipe.unet.config.in_channels != pipe.unet.config.out_channels:
        raise SetupError(f"model {model.name!r} takes more than latents: an inpainting UNet?")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _scheduler(own: Any, model: Model) -> Any:
    """The scheduler that the models file declares over the checkpoint's own."""
    import diffusers

    if not model.scheduler and not model.scheduler_config:
        return own
    kind: Any = getattr(diffusers, model.scheduler, None) if model.scheduler else type(own)
    if kind is None:
        raise SetupError(
            f"diffusers has no scheduler {model.scheduler!r}; mend it in the models file"
        )
    return kind.from_config(own.config, **model.scheduler_config)


_PREDICTIONS = ("epsilon", "v_prediction", "sample")


def _mixed(seed: int, purpose: str, number: int) -> int:
    """A seed of its own for each purpose and number; below 2^63."""
    digest = hashlib.sha256(f"{seed} {purpose} {number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _drawn(recipe: Recipe, position: int) -> int:
    """The sample at a position of the endless sequence of shuffled rounds."""
    count = len(recipe.pictures)
    order = np.random.default_rng(_mixed(recipe.seed, "round", position // count))
    return int(order.permutation(count)[position % count])


def _schedule(number: int, steps: int) -> float:
    """Share of the learning rate: a short rise, then a cosine down to a tenth."""
    warm = min(_WARM, max(1, steps // 10))
    if number < warm:
        return (number + 1) / warm
    part = (number - warm) / max(1, steps - warm)
    return _FLOOR + (1 - _FLOOR) * 0.5 * (1 + float(np.cos(np.pi * part)))


def _train(
    painter: _Painter,
    work: Path,
    sample_every: int,
    keep_every: int,
    progress: Callable[[Progress], None] | None,
) -> _Curve:
    steps = painter.recipe.steps
    first, curve = _restored(painter, work / "state.pt")
    if first == 0:
        curve.probes = [(0, painter.probe())]
    shown = {*range(0, steps, sample_every), steps}
    if first in shown:
        _show(painter, work, first, curve)
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
            _keep(painter, work / "state.pt", done, curve)
        if done in shown:
            _show(painter, work, done, curve)
        if progress is not None:
            left = (time.monotonic() - began) / (done - first) * (steps - done)
            progress(Progress(done, steps, curve.recent, left, work / "samples.jpg"))
    return curve


def _keep(painter: _Painter, path: Path, step: int, curve: _Curve) -> None:
    import torch

    state = {"step": step, "losses": curve.losses, "probes": curve.probes}
    buffer = io.BytesIO()
    torch.save({**state, **painter.state()}, buffer)
    write_file(path, buffer.getvalue())


def _restored(painter: _Painter, path: Path) -> tuple[int, _Curve]:
    import torch

    if not path.exists():
        return 0, _Curve()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        painter.restore(state)
        curve = _Curve(list(state["losses"]), [(int(a), float(b)) for a, b in state["probes"]])
        return int(state["step"]), curve
    # A damaged file raises pickle, zip, key and shape errors alike.
    except Exception as error:
        raise SetupError(
            f"the state of the unfinished training in {path} cannot be read ({error}); "
            f"delete {path.parent} to begin anew"
        ) from error


def _show(painter: _Painter, work: Path, step: int, curve: _Curve) -> None:
    """Paint the prompts and draw the sheet of all steps so far, and the loss."""
    for number, pixels in enumerate(painter.paint()):
        write_file(work / "pictures" / f"{step:06}-{number}.png", _png(Image.fromarray(pixels)))
    write_file(work / "samples.jpg", jpeg(_sheet(work, painter.recipe)))
    write_file(work / "loss.png", _png(_loss_plot(curve, painter.recipe.steps)))


def _sheet(work: Path, recipe: Recipe, above: Sequence[Cell] = ()) -> Image.Image:
    """A row for every step whose pictures are there, a column for every prompt."""
    cells = list(above)
    for path in sorted((work / "pictures").glob("*.png")):
        step, number = (int(part) for part in path.stem.split("-"))
        said = f"step {step}" if step else "without the adapter"
        pixels = np.asarray(Image.open(path).convert("RGB"))
        cells.append(Cell(pixels, (said, recipe.prompts[number])))
    return contact_sheet(cells, columns=len(recipe.prompts), side=192)


def _loss_plot(curve: _Curve, steps: int) -> Image.Image:
    """Loss over steps: every step grey, the mean of the last ones blue, the fixed probe red."""
    width, height, left, top = 640, 320, 56, 28
    plot = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(plot), ImageFont.load_default(11)
    every = [(i + 1, loss) for i, loss in enumerate(curve.losses)]
    means = [(i + 1, float(np.mean(curve.losses[max(0, i + 1 - _SMOOTH) : i + 1])))
             for i in range(len(curve.losses))]  # fmt: skip
    highest = max([loss for _, loss in (*means, *curve.probes)], default=0) * 1.1 or 1.0

    def at(step: float, loss: float) -> tuple[float, float]:
        x = left + step / steps * (width - left - 16)
        return x, top + (1 - min(loss, highest) / highest) * (height - top - 32)

    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        y, x = at(0, part * highest)[1], at(part * steps, 0)[0]
        draw.line([(left, y), (width - 16, y)], fill="#e0e0e0")
        draw.text((left - 8, y), f"{part * highest:.3g}", fill="#505050", font=font, anchor="rm")
        draw.text((x, height - 24), f"{part * steps:.0f}", fill="#505050", font=font, anchor="mt")
    for points, colour, thick in (
        (every, "#c8c8c8", 1), (means, "#1565c0", 2), (curve.probes, "#c62828", 2),
    ):  # fmt: skip
        if len(points) > 1:
            draw.line([at(*point) for point in points], fill=colour, width=thick)
    legend = "loss by step: each grey, mean of the last 20 blue, fixed probe red"
    draw.text((left, 8), legend, fill="#202020", font=font)
    return plot


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class _Done:
    """What the card of a finished training tells of."""

    model: Model
    recipe: Recipe
    name: str
    samples: Sequence[Sample]
    precision: str
    curve: _Curve

    @property
    def licence(self) -> str:
        """The pictures' one licence, or where to look for their several."""
        licences = {each.licence for each in self.samples}
        return licences.pop() if len(licences) == 1 else "see adapter.json"

    @property
    def notice(self) -> str:
        """What faces and manifests must say of images made with it."""
        holders = list(dict.fromkeys(each.rights_holder for each in self.samples))
        named = ", ".join(holders[:3]) + (" and others" if len(holders) > 3 else "")
        count = len(self.samples)
        pictures = f"{count} picture{'' if count == 1 else 's'} of {named}"
        own = f"LoRA adapter of {self.model.name}, trained on {pictures}."
        return f"{own} {self.model.notice}".strip()


def _write(
    done: _Done, painter: _Painter, work: Path, pictures: Sequence[RgbImage], seconds: float
) -> None:
    """The whole result in `work/finished`, flushed to disk."""
    folder = work / "finished"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    painter.save(folder)
    columns = len(done.recipe.prompts)
    above = [
        Cell(pictures[i % len(pictures)], ("trained on", done.samples[i % len(pictures)].file))
        for i in range(columns)
    ]
    write_file(folder / "samples.jpg", jpeg(_sheet(work, done.recipe, above)))
    write_file(folder / "loss.png", _png(_loss_plot(done.curve, done.recipe.steps)))
    card = _card(done, weights_sha256(folder / WEIGHTS), seconds)
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    write_file(folder / "adapter.json", text.encode())
    write_file(folder / "README.md", _readme(done, card).encode())
    # Last: it holds the hash of the folder, of which the card is a part.
    entry = {
        "kind": "lora",
        "folder": ".",
        "file": WEIGHTS,
        "base": [done.model.name],
        "weights_sha256": weights_sha256(folder),
        "licence": done.licence,
        "notice": done.notice,
    }
    head = "# Name this file in the settings (models), or copy the entry into yours.\n"
    text = head + _yaml({"models": {done.name: entry}})
    write_file(folder / "model.yaml", text.encode())
    with (folder / WEIGHTS).open("rb") as file:
        os.fsync(file.fileno())
    flush_folder(folder)


def _card(done: _Done, weights: str, seconds: float) -> dict[str, Any]:
    """The card as data: what was trained, how, on which pictures by whose leave."""
    import diffusers
    import peft
    import torch
    import transformers

    model, recipe, curve = done.model, done.recipe, done.curve
    part = max(1, min(_SMOOTH, len(curve.losses) // 4))
    points = np.array_split(curve.losses, min(50, len(curve.losses)))
    return {
        "name": done.name,
        "kind": "lora",
        "licence": done.licence,
        "notice": done.notice,
        "base": {
            "name": model.name,
            "source": "folder" if model.is_folder else model.source,
            "revision": model.revision,
            "licence": model.licence,
            "notice": model.notice,
        },
        "weights": {"file": WEIGHTS, "sha256": weights},
        "training": {
            "rank": recipe.rank,
            "steps": recipe.steps,
            "seed": recipe.seed,
            "rate": recipe.rate,
            "batch_size": recipe.batch_size,
            "width": recipe.width,
            "height": recipe.height,
            "targets": list(TARGETS),
            "precision": done.precision,
            "recipe_sha256": recipe.digest,
            "seconds_of_last_session": round(seconds, 1),
        },
        "loss": {
            "first": round(float(np.mean(curve.losses[:part])), 5),
            "last": round(float(np.mean(curve.losses[-part:])), 5),
            "probe": [[step, round(loss, 5)] for step, loss in curve.probes],
            "curve": [round(float(np.mean(chunk)), 5) for chunk in points],
        },
        "sample_prompts": list(recipe.prompts),
        "images": [
            {
                "file": each.file,
                "sha256": each.sha256,
                "title": each.title,
                "rights_holder": each.rights_holder,
                "licence": each.licence,
                "caption": caption,
                "c2pa": each.credentials.state,
                "source_types": list(each.credentials.source_types),
                "says_against_training": list(each.credentials.forbids("training")),
                "waiver": each.waiver.model_dump(mode="json") if each.waiver else None,
            }
            for each, caption in zip(done.samples, recipe.captions, strict=True)
        ],
        "versions": {
            "platemark": platemark_version(),
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "peft": peft.__version__,
            "transformers": transformers.__version__,
        },
        "created": timestamp(datetime.now(UTC)),
    }


def _readme(done: _Done, card: dict[str, Any]) -> str:
    """The card for people, with front matter as model hubs read it."""
    front = {
        "base_model": done.model.name if done.model.is_folder else done.model.source,
        "license": "other",
        "license_name": done.licence,
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["lora", "text-to-image"],
    }
    how, loss, base = card["training"], card["loss"], card["base"]
    rows = [
        "| {file} | {title} | {rights_holder} | {licence} | {leave} |".format(
            **{key: _in_table(str(value)) for key, value in each.items()},
            leave=_in_table(each["waiver"]["document"]) if each["waiver"] else "–",
        )
        for each in card["images"]
    ]
    return "\n".join(
        (
            f"---\n{_yaml(front)}---",
            f"# {done.name}\n",
            f"{done.notice}\n",
            f"Base: {base['name']}, revision `{base['revision']}`, licence {base['licence']}. "
            f"Licence of the pictures: {done.licence}.\n",
            "![Pictures at the same seeds, without and with the adapter](samples.jpg)\n",
            f"Rank {how['rank']}, {how['steps']} steps of {how['batch_size']} at "
            f"{how['width']}×{how['height']}, rate {how['rate']}, seed {how['seed']}, "
            f"{how['precision']}. Loss {loss['first']} → {loss['last']}; at fixed noise "
            f"{loss['probe'][0][1]} → {loss['probe'][-1][1]}.\n",
            "![Loss](loss.png)\n",
            "## Trained on\n",
            "| file | title | rights holder | licence | waiver |\n|---|---|---|---|---|",
            *rows,
            "\nCaptions, hashes and versions: `adapter.json`. Entry for a models file: "
            "`model.yaml`.\n",
            "```python",
            f'pipe.load_lora_weights("this/folder", weight_name="{WEIGHTS}")',
            "```\n",
        )
    )


def _in_table(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000))
