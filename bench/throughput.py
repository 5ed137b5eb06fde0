"""images/s of `platemark run` over a plain diffusers loop that only saves files.

Same model, prompts, seeds, batch size and steps; the two take turns in one run, and the ratio is
taken pair by pair. Also told: what checks, encode, sign and index cost an image.

    python -m bench.throughput [--images 192] [--pairs 3]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.generate.device import pick_device
from pipeline.plan import make_plan
from pipeline.settings import Settings

_PLAIN = """
import json, sys
from pathlib import Path
from bench.throughput import plain_loop
print(json.dumps(plain_loop(Path(sys.argv[1]), Path(sys.argv[2]))))
"""
COLOURS = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "white", "black")
OBJECTS = ("mug", "bottle", "vase", "bowl", "lamp", "ball", "chair", "book", "table", "candle")


def write_brief(folder: Path, images: int) -> Path:
    """A brief of `images` items in the starter world."""
    rows = [f"S{i},{COLOURS[i % 10]} {OBJECTS[i // 10 % 10]},{i}" for i in range(images)]
    (folder / "items.csv").write_text("\n".join(["sku,thing,seed", *rows]))
    path = folder / "brief.yaml"
    path.write_text('template: "a {{ thing }} on a white background"\nitems: items.csv\n')
    return path


def plain_loop(brief: Path, folder: Path) -> tuple[float, float]:
    """Images/s of diffusers alone, files saved as PNG; and its whole time with loading, s."""
    begin = time.perf_counter()
    import diffusers
    import torch

    device = pick_device("auto")
    plan = make_plan(Settings(), brief, "starter")
    batches = plan.batches(set(), device.batch_size)
    pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(
        plan.models["starter"].source, dtype=device.dtype
    ).to(device.name)
    pipeline.set_progress_bar_config(disable=True)
    start = time.perf_counter()
    for number, batch in enumerate(batches):
        first = batch.requests[0]
        images = pipeline(
            [each.prompt for each in batch.requests],
            generator=[torch.Generator().manual_seed(each.seed) for each in batch.requests],
            num_inference_steps=first.steps,
            guidance_scale=first.guidance,
        ).images
        for index, image in enumerate(images):
            image.save(folder / f"{number}-{index}.png")
    end = time.perf_counter()
    return len(plan.requests) / (end - start), end - begin


def platemark_run(brief: Path, workspace: Path) -> tuple[dict[str, object], float]:
    """The summary of `platemark run` in a fresh workspace, and the command's whole time, s."""
    command = [str(Path(sys.executable).with_name("platemark")), "run", str(brief), "--json"]
    begin = time.perf_counter()
    done = subprocess.run(
        [*command, "--workspace", str(workspace)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return json.loads(done.stdout), time.perf_counter() - begin


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--pairs", type=int, default=3)
    chosen = parser.parse_args()
    plain, ours, whole, stages = [], [], [], []
    for pair in range(chosen.pairs):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            brief = write_brief(folder, chosen.images)
            (folder / "plain").mkdir()
            # A process of its own for either side, so that neither warms the other.
            told = subprocess.run(
                [sys.executable, "-c", _PLAIN, str(brief), str(folder / "plain")],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=True,
                env=os.environ,
            ).stdout.splitlines()[-1]
            speed, seconds = json.loads(told)
            summary, ours_seconds = platemark_run(brief, folder / "workspace")
        plain.append(speed)
        ours.append(float(str(summary["images_per_second"])))
        whole.append((seconds, ours_seconds))
        stages.append(summary["milliseconds_per_image"])
        print(f"pair {pair + 1}: plain {speed:.2f}, platemark {ours[-1]:.2f} images/s", flush=True)
    ratios = [own / bare for own, bare in zip(ours, plain, strict=True)]
    print(f"\n{chosen.images} images, batch size {pick_device('auto').batch_size}")
    print(f"plain diffusers loop   {statistics.median(plain):7.2f} images/s")
    print(f"platemark run          {statistics.median(ours):7.2f} images/s")
    spread = f"({min(ratios):.3f}–{max(ratios):.3f})"
    print(f"ratio, median of pairs {statistics.median(ratios):7.3f}   {spread}")
    bare, own = (statistics.median(side) for side in zip(*whole, strict=True))
    print(f"whole command, with loading and start: plain {bare:.1f} s, platemark {own:.1f} s")
    spent = {name: statistics.median(each[name] for each in stages) for name in stages[0]}
    total = sum(spent.values())
    print(f"\n{'stage':12} ms/image  share")
    for name, milliseconds in spent.items():
        print(f"{name:12} {milliseconds:8.2f} {milliseconds / total:6.1%}")


if __name__ == "__main__":
    main()
