"""What a training shows of itself: the sheet of sample pictures and the plot of the loss."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.contact_sheet import Cell, contact_sheet, jpeg
from pipeline.store import write_file
from pipeline.train.painter import Painter
from pipeline.train.recipe import Recipe

SMOOTH = 20
"""Steps that a mean of the loss is taken over."""


@dataclass
class Curve:
    """Loss of every step so far, and of the fixed probe at some steps."""

    losses: list[float] = field(default_factory=list)
    probes: list[tuple[int, float]] = field(default_factory=list)

    @property
    def recent(self) -> float:
        """Mean of the last steps; no number before the first."""
        return float(np.mean(self.losses[-SMOOTH:])) if self.losses else float("nan")


def show(painter: Painter, work: Path, step: int, curve: Curve) -> None:
    """Paint the prompts and draw the sheet of all steps so far, and the loss."""
    for number, pixels in enumerate(painter.paint()):
        write_file(work / "pictures" / f"{step:06}-{number}.png", png(Image.fromarray(pixels)))
    write_file(work / "samples.jpg", jpeg(sample_sheet(work, painter.recipe)))
    write_file(work / "loss.png", png(loss_plot(curve, painter.recipe.steps)))


def sample_sheet(work: Path, recipe: Recipe, above: Sequence[Cell] = ()) -> Image.Image:
    """A row for every step whose pictures are there, a column for every prompt."""
    cells = list(above)
    for path in sorted((work / "pictures").glob("*.png")):
        step, number = (int(part) for part in path.stem.split("-"))
        said = f"step {step}" if step else "without the adapter"
        pixels = np.asarray(Image.open(path).convert("RGB"))
        cells.append(Cell(pixels, (said, recipe.prompts[number])))
    return contact_sheet(cells, columns=len(recipe.prompts), side=192)


def loss_plot(curve: Curve, steps: int) -> Image.Image:
    """Loss over steps: every step grey, the mean of the last ones blue, the fixed probe red."""
    width, height, left, top = 640, 320, 56, 28
    plot = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(plot), ImageFont.load_default(11)
    every = [(i + 1, loss) for i, loss in enumerate(curve.losses)]
    means = [(i + 1, float(np.mean(curve.losses[max(0, i + 1 - SMOOTH) : i + 1])))
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


def png(image: Image.Image) -> bytes:
    """The picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
