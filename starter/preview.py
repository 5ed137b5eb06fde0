"""A quick look at the exported text-to-image model: a contact sheet, and what CLIP reads in it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw
from torch import Tensor

from starter import captions, loop, tokens
from starter.paths import WEIGHTS, cache_dir
from starter.read import joint_reader
from starter.train_clip import build
from starter.vocabulary import BACKGROUNDS, COLOURS, OBJECTS
from starter.world import Scene

STEPS, GUIDANCE = 12, 3.0


def open_pipeline(folder: Path = WEIGHTS / "text-to-image") -> StableDiffusionPipeline:
    """The exported pipeline in float32, without a progress bar."""
    pipe = StableDiffusionPipeline.from_pretrained(str(folder), dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(loop.device())


@torch.no_grad()
def paint(
    pipe: Any,
    prompts: list[str],
    seeds: list[int],
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    negative: str = "",
) -> Tensor:
    """Generate pictures float32 [N,3,128,128] in [0,1]; one generator an image, bf16 autocast."""
    out = []
    for i in range(0, len(prompts), 16):
        noise = [torch.Generator().manual_seed(s) for s in seeds[i : i + 16]]
        with loop.autocast(pipe.device):
            made = pipe(
                prompts[i : i + 16],
                generator=noise,
                num_inference_steps=steps,
                guidance_scale=guidance,
                output_type="np",
                negative_prompt=[negative] * len(noise),
            ).images
        out.append(torch.from_numpy(np.asarray(made, dtype=np.float32)).permute(0, 3, 1, 2))
    return torch.cat(out)


def scenes_240(count: int = 240) -> list[Scene]:
    """The fixed test scenes: every object twenty times, each colour twice with it."""
    grounds = list(BACKGROUNDS)
    out = []
    for i in range(count):
        o, c = i % 12, (i // 12 + i % 12) % 10
        ground = grounds[(i * 7 + i // 12) % 6]
        out.append(Scene(OBJECTS[o], list(COLOURS)[c], background=ground, seed=90_000 + i))
    return out


def sheet(x: Tensor, labels: list[str] | None, columns: int, path: Path) -> None:
    """Write a contact sheet; labels stand under the pictures."""
    extra = 14 if labels else 0
    rows = -(-len(x) // columns)
    canvas = Image.new("RGB", (columns * 130, rows * (130 + extra)), "white")
    pen = ImageDraw.Draw(canvas)
    for i, picture in enumerate(x):
        left, top = (i % columns) * 130 + 1, (i // columns) * (130 + extra) + 1
        array = (picture.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
        canvas.paste(Image.fromarray(array), (left, top))
        if labels:
            pen.text((left + 2, top + 129), labels[i][:21], fill="black")
    canvas.save(path, quality=88)


def preview(step: int, count: int = 48) -> str:
    """Paint `count` of the test prompts, keep the sheet in the cache, return CLIP's reading."""
    scenes = scenes_240()[:count]
    x = paint(open_pipeline(), [captions.prompt(s) for s in scenes], [s.seed for s in scenes])
    sheet(x, None, 12, cache_dir() / f"sheet-{step:06d}.png")
    state = loop.restore("clip")
    if state is None:
        return "(no CLIP yet)"
    tokenizer = tokens.load(WEIGHTS / "open-clip")
    clip = build(len(tokenizer)).eval()
    clip.load_state_dict(state["ema"])
    read = joint_reader(clip, tokenizer)(x)
    right = sum(r[0] == s.subject for r, s in zip(read, scenes, strict=True)) / count
    colour = sum(r[1] == s.colour for r, s in zip(read, scenes, strict=True)) / count
    return f"generated object {right:.3f} colour {colour:.3f}"
