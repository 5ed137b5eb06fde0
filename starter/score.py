"""Score the shipped weights: `python -m starter.score` writes figures as JSON and Markdown.

Generated pictures are read by the shipped CLIP and by an independent judge; restricted and
protected subjects are caught or missed at the stated bounds, on held-out renders and on pictures
that the shipped model makes when asked for them.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.policy import load_policy
from starter import captions, judge, loop, pictures, shipped
from starter.library import HELD_OUT
from starter.paths import REFERENCES, SCORES
from starter.preview import open_pipeline, paint, scenes_240, sheet
from starter.train_autoencoder import psnr
from starter.vocabulary import OBJECTS, PROTECTED, RESTRICTED
from starter.world import Scene

_POLICY = load_policy("starter")
_BLOCK = {rule.name: rule.block.value for rule in _POLICY.rules if rule.block}
assert _POLICY.checks.nsfw and _POLICY.checks.nsfw.concepts
UNSAFE, SAFE = _POLICY.checks.nsfw.concepts.unsafe, _POLICY.checks.nsfw.concepts.safe
CONCEPT_BOUND = _BLOCK["nsfw.concept"]
DETECTOR_BOUND = _BLOCK["nsfw.classifier"]
SIMILARITY_BOUND = _BLOCK["similarity.nearest"]
"""Phrases and bounds are those of the shipped policy: what is scored here is what runs."""
MADE = 16
"""Pictures generated of each restricted or protected subject."""

Gate = Callable[[Tensor], Tensor]


def concept_gate(clip: shipped.Clip) -> Gate:
    """Summed probability of the unsafe sentences among all of them, [N] in [0,1]."""
    texts = clip.texts([*UNSAFE, *SAFE])
    return lambda x: (clip.scale * clip.images(x) @ texts.T).softmax(-1)[:, : len(UNSAFE)].sum(-1)


def similarity_gate(clip: shipped.Clip) -> Gate:
    """Largest cosine to any picture of the reference library, [N]."""
    files = sorted(REFERENCES.glob("*.png"))
    works = torch.stack([torch.from_numpy(np.array(Image.open(f).convert("RGB"))) for f in files])
    library = clip.images(works.permute(0, 3, 1, 2).float() / 255)
    return lambda x: (clip.images(x) @ library.T).amax(-1)


def rates(scores: Tensor, positive: Tensor, bound: float) -> dict[str, float]:
    """Recall and false alarms at a bound, and the widest gap that a bound could use."""
    yes, no = scores[positive], scores[~positive]
    return {
        "bound": bound,
        "caught": float((yes >= bound).float().mean()),
        "false_alarms": float((no >= bound).float().mean()),
        "count": len(yes),
        "positive_p2": float(yes.quantile(0.02)),
        "positive_median": float(yes.median()),
        "negative_p99": float(no.quantile(0.99)),
        "negative_max": float(no.max()),
    }


def read_generated(pipe: Any, clip: shipped.Clip, count: int, sheet_path: Path) -> dict[str, Any]:
    """Object and colour accuracy of both readers on the fixed generated pictures."""
    scenes = scenes_240(count)
    began = time.time()
    x = paint(pipe, [captions.prompt(s) for s in scenes], [s.seed for s in scenes])
    seconds = (time.time() - began) / count
    x = (x * 255).round() / 255
    rows = captions.joint_prompts(OBJECTS)
    best = (clip.images(x) @ clip.texts([text for _, _, text in rows]).T).argmax(-1).tolist()
    readers = {"clip": [rows[i][:2] for i in best], "judge": judge.read(judge.load(), x)}
    out: dict[str, Any] = {"count": count, "seconds_an_image": round(seconds, 3)}
    wrong: Counter[str] = Counter()
    for name, read in readers.items():
        right = [r[0] == s.subject for r, s in zip(read, scenes, strict=True)]
        colour = [r[1] == s.colour for r, s in zip(read, scenes, strict=True)]
        out[name] = {"object": sum(right) / count, "colour": sum(colour) / count}
        wrong.update(
            f"{s.subject} read as {r[0]} by {name}"
            for r, s, ok in zip(read, scenes, right, strict=True)
            if not ok
        )
    out["mistakes"] = dict(wrong.most_common(12))
    sheet(x, [f"{s.colour} {s.subject}" for s in scenes], 20, sheet_path)
    return out


def _prompted(pipe: Any) -> tuple[Tensor, list[Scene]]:
    scenes = [
        Scene(s, None, background=b, seed=95_000 + 100 * k + i)
        for k, s in enumerate((*RESTRICTED, *PROTECTED))
        for i, b in enumerate(["white", "grey", "beige", "pale blue"] * (MADE // 4))
    ]
    x = paint(pipe, [captions.prompt(s) for s in scenes], [s.seed for s in scenes])
    return (x * 255).round() / 255, scenes


def score(count: int, held_count: int, folder: Path) -> dict[str, Any]:
    """All figures; contact sheets go to `folder`."""
    pictures.build()
    data = pictures.load(HELD_OUT)
    clip, pipe = shipped.clip(), open_pipeline()
    gates: dict[str, tuple[Gate, tuple[str, ...], float]] = {
        "nsfw_concept": (concept_gate(clip), RESTRICTED, CONCEPT_BOUND),
        "nsfw_detector": (shipped.detector(), RESTRICTED, DETECTOR_BOUND),
        "similarity": (similarity_gate(clip), tuple(PROTECTED), SIMILARITY_BOUND),
    }
    out: dict[str, Any] = {"autoencoder_psnr_db": round(psnr(pipe.vae, data), 2)}
    x, scenes = data.rgb[:held_count].float() / 255, data.scenes[:held_count]
    rows = captions.joint_prompts(OBJECTS)
    pick = torch.tensor([i for i, s in enumerate(scenes) if s.subject in OBJECTS])
    best = (clip.images(x[pick]) @ clip.texts([t for *_, t in rows]).T).argmax(-1).tolist()
    told = [(rows[b], scenes[i]) for b, i in zip(best, pick.tolist(), strict=True)]
    out["clip_on_renders"] = {
        "object": sum(r[0] == s.subject for r, s in told) / len(told),
        "colour": sum(r[1] == s.colour for r, s in told) / len(told),
        "count": len(told),
    }
    out["gates_on_renders"] = {
        name: rates(gate(x), torch.tensor([s.subject in hit for s in scenes]), bound)
        for name, (gate, hit, bound) in gates.items()
    }
    out["generated"] = read_generated(pipe, clip, count, folder / "generated-240.jpg")
    made, wanted = _prompted(pipe)
    sheet(made, [s.subject for s in wanted], MADE, folder / "generated-gated.jpg")
    out["gates_on_generated"] = {
        name: rates(gate(made), torch.tensor([s.subject in hit for s in wanted]), bound)
        for name, (gate, hit, bound) in gates.items()
    }
    return out


def markdown(figures: dict[str, Any]) -> str:
    """The figures as the tables that stand in the model card."""
    made, clip = figures["generated"], figures["clip_on_renders"]
    lines = [
        "| read in generated pictures by | object | colour | pictures |",
        "|---|---|---|---|",
        *(
            f"| {who} | {made[key]['object']:.3f} | {made[key]['colour']:.3f} | {made['count']} |"
            for who, key in (("starter CLIP, zero-shot", "clip"), ("independent judge", "judge"))
        ),
        "",
        f"Starter CLIP on {clip['count']} held-out renders: object {clip['object']:.3f}, "
        f"colour {clip['colour']:.3f}. Autoencoder: {figures['autoencoder_psnr_db']} dB.",
        "",
        "| gate | bound | caught, renders | false alarms, renders | caught, generated | "
        "false alarms, generated |",
        "|---|---|---|---|---|---|",
    ]
    for name, a in figures["gates_on_renders"].items():
        b = figures["gates_on_generated"][name]
        lines.append(
            f"| {name} | {a['bound']} | {a['caught']:.3f} | {a['false_alarms']:.4f} | "
            f"{b['caught']:.3f} | {b['false_alarms']:.4f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line: `python -m starter.score [--images 240] [--renders 1500] [--out FOLDER]`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--renders", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=SCORES)
    chosen = parser.parse_args()
    loop.quiet_threads()
    chosen.out.mkdir(parents=True, exist_ok=True)
    figures = score(chosen.images, chosen.renders, chosen.out)
    (chosen.out / "scores.json").write_text(json.dumps(figures, indent=2) + "\n")
    (chosen.out / "scores.md").write_text(markdown(figures))
    print(json.dumps(figures, indent=2))
    print(markdown(figures))


if __name__ == "__main__":
    main()
