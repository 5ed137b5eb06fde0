"""Mixed briefs against homogeneous ones: `python -m bench.mixed [--items 1000]`.

One brief of five modes, three models and two adapters, shuffled, against one brief for each kind
of item in it. Every brief is a `platemark run` of its own in a fresh workspace. The ratio is the
time of the homogeneous runs, added up, over the time of the mixed one: 1 when mixing costs nothing.
Peak memory is of the largest process, by the operating system.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from pipeline.settings import ROOT

STARTER = ROOT / "starter"
MODELS = ("first", "second", "third")
ADAPTERS = ("brush", "chalk")
OBJECTS = ("mug", "vase", "bowl", "lamp", "ball", "chair")
STEPS = 4
KINDS: tuple[dict[str, str], ...] = (
    *({"mode": "text-to-image", "model": model} for model in MODELS),
    *({"mode": "text-to-image", "model": "first", "adapters": name} for name in ADAPTERS),
    *({"mode": "image-to-image", "model": model, "image": "photo.png"} for model in MODELS[:2]),
    {"mode": "inpainting", "model": "first", "image": "photo.png", "mask": "box 20 20 80 80"},
    {"mode": "controlnet", "model": "first", "controls": "net", "control_image": "edges.png"},
    {"mode": "outpainting", "model": "third", "image": "photo.png", "expand": "32 0 0 0"},
)
POLICY = """policy: bench
version: "1"
checks: {quality: {}}
licences: [Apache-2.0]
rules: [{check: quality, score: decodes, block: {below: 1}}]
"""


def make_adapter(folder: Path, seed: int) -> None:
    """A LoRA of rank 4 with random weights: what it paints does not matter here."""
    import torch
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipeline = StableDiffusionPipeline.from_pretrained(STARTER / "weights" / "text-to-image")
    torch.manual_seed(seed)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    pipeline.unet.add_adapter(LoraConfig(r=4, target_modules=targets, init_lora_weights=False))
    weights = convert_state_dict_to_diffusers(get_peft_model_state_dict(pipeline.unet))
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=weights)


def write_inputs(folder: Path) -> None:
    """Models file, policy, adapters and pictures that all briefs share."""
    weights = str(STARTER / "weights")
    common = {"licence": "Apache-2.0", "width": 128, "height": 128, "steps": STEPS, "guidance": 3.0}
    models: dict[str, Any] = {
        name: {"kind": "text-to-image", "folder": f"{weights}/text-to-image", **common}
        for name in MODELS
    }
    models["net"] = {
        "kind": "controlnet", "folder": f"{weights}/controlnet", "licence": "Apache-2.0",
    }  # fmt: skip
    for seed, name in enumerate(ADAPTERS):
        make_adapter(folder / name, seed)
        models[name] = {"kind": "lora", "folder": str(folder / name), "licence": "Apache-2.0"}
    (folder / "models.yaml").write_text(yaml.safe_dump({"models": models}))
    (folder / "policy.yaml").write_text(POLICY)
    pictures = STARTER / "demo" / "pictures"
    (folder / "photo.png").write_bytes((pictures / "teapot.png").read_bytes())
    (folder / "edges.png").write_bytes((pictures / "chair-edges.png").read_bytes())


def write_brief(path: Path, items: list[dict[str, str]]) -> Path:
    """A YAML brief of these items."""
    brief = {"template": "a {{ thing }} on a white background", "campaign": "bench", "items": items}
    path.write_text(yaml.safe_dump(brief, sort_keys=False))
    return path


def run(brief: Path, folder: Path) -> tuple[dict[str, Any], float]:
    """The summary of a run in a fresh workspace, and its peak memory in MiB."""
    command = [str(Path(sys.executable).with_name("platemark")), "run", str(brief), "--json"]
    command += ["--policy", str(folder / "policy.yaml"), "--workspace", str(folder / brief.stem)]
    environment = os.environ | {"PLATEMARK_MODELS": str(folder / "models.yaml")}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    assert process.stdout
    told = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{brief.name} failed")
    return json.loads(told), used.ru_maxrss / 1024


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1000)
    chosen = parser.parse_args()
    items = [
        {"sku": f"S{i}", "thing": OBJECTS[i % len(OBJECTS)], **KINDS[i % len(KINDS)]}
        for i in range(chosen.items)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        apart, peak = 0.0, 0.0
        for number in range(len(KINDS)):
            brief = write_brief(folder / f"kind-{number}.yaml", items[number :: len(KINDS)])
            summary, memory = run(brief, folder)
            apart, peak = apart + summary["seconds"], max(peak, memory)
            label = ", ".join(f"{key} {value}" for key, value in KINDS[number].items())
            made = summary["made"]
            print(
                f"{made:5} images {summary['seconds']:7.1f} s {memory:6.0f} MiB  {label}",
                flush=True,
            )
        random.Random(1).shuffle(items)
        begin = time.perf_counter()
        summary, memory = run(write_brief(folder / "mixed.yaml", items), folder)
        whole = time.perf_counter() - begin
    print(f"{summary['made']:5} images {summary['seconds']:7.1f} s {memory:6.0f} MiB  mixed")
    print(f"whole command {whole:.1f} s; models loaded {summary['model_loads']} times")
    print(f"ratio of speeds, mixed over homogeneous: {apart / summary['seconds']:.3f}")
    print(f"peak memory, mixed over the largest homogeneous run: {memory / peak:.2f}")


if __name__ == "__main__":
    main()
