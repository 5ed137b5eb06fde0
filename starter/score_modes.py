"""Score every mode beside text-to-image: `python -m starter.score_modes`.

Each mode runs on held-out renders with fixed seeds, and stands beside a baseline without its model:
numbers as JSON and Markdown, one contact sheet a mode.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from starter import captions, controls, dense, detail, library, loop, measures, modes, pictures
from starter.library import HELD_OUT
from starter.measures import psnr, told
from starter.paths import SCORES
from starter.vocabulary import BACKGROUNDS, COLOURS, OBJECTS
from starter.world import Scene

SHOWN = 6
"""Rows of each contact sheet: the first ones, not chosen."""
CARD = 128


def mean(x: Tensor) -> float:
    """Mean, rounded as it is written down."""
    return round(float(x.float().mean()), 4)


class Set:
    """Held-out renders, their targets, and what each is asked to become."""

    def __init__(self, count: int) -> None:
        source, rng = library.load(HELD_OUT), Random("modes")
        self.scenes = source.draw(rng, [OBJECTS[i % len(OBJECTS)] for i in range(count)])
        self.x = measures.to_bytes(source.mix(self.scenes)).float() / 255
        self.disparity, self.alpha = dense.targets(source, self.scenes)
        self.labels = dense.label_map(self.scenes, self.alpha)
        self.distance = source.buffers(self.scenes).depth
        self.seeds = [70_000 + i for i in range(count)]
        self.recoloured = [self._other(s, rng, s.subject) for s in self.scenes]
        self.replaced = [
            self._other(s, rng, OBJECTS[(OBJECTS.index(s.subject) + 5) % 12], s.background)
            for s in self.scenes
        ]
        self.moved = [
            Scene(s.subject, s.colour, s.material, self._ground(s, rng)) for s in self.scenes
        ]

    @staticmethod
    def _ground(s: Scene, rng: Random) -> str:
        return rng.choice([b for b in BACKGROUNDS if b != s.background])

    def _other(self, s: Scene, rng: Random, subject: str, ground: str | None = None) -> Scene:
        colour = rng.choice([c for c in COLOURS if c != s.colour])
        return Scene(subject, colour, s.material, ground or self._ground(s, rng))


def said(scenes: list[Scene]) -> list[str]:
    """Their prompts."""
    return [captions.prompt(s) for s in scenes]


def sheet(path: Path, columns: dict[str, Tensor], rows: list[str], side: int = CARD) -> None:
    """A contact sheet: one row a picture [N,3,H,W], columns named above, rows beneath."""
    wide, high = side + 4, side + 18
    canvas = Image.new("RGB", (wide * len(columns), 16 + high * len(rows)), "white")
    pen = ImageDraw.Draw(canvas)
    for c, (name, column) in enumerate(columns.items()):
        pen.text((c * wide + 3, 2), name, fill="black")
        for r, picture in enumerate(column[: len(rows)]):
            array = measures.to_bytes(picture).permute(1, 2, 0).numpy()
            image = Image.fromarray(array).resize((side, side), Image.Resampling.NEAREST)
            canvas.paste(image, (c * wide + 2, 16 + r * high))
    for r, text in enumerate(rows):
        pen.text((3, 16 + r * high + side + 2), text, fill="black")
    canvas.save(path, quality=88)


def _controlled(data: Set, read: Any, folder: Path) -> dict[str, Any]:
    """Edges, depth and segmentation: the result against its control, and two baselines."""
    prompts = said(data.recoloured)
    free = modes.plain(prompts, data.seeds)
    names = [s.subject for s in data.scenes]
    depth, segment = measures.depth_reader(), measures.segmenter()

    def by_depth(made: Tensor, control: Tensor) -> Tensor:
        return measures.correlation(depth(made), control[:, 0].float())

    def by_mask(made: Tensor, control: Tensor) -> Tensor:
        return measures.overlap(segment(made) > 0, control.amax(1) > 0)

    bytes_ = measures.to_bytes(data.x)
    ways: dict[str, tuple[str, Tensor, Callable[[Tensor, Tensor], Tensor]]] = {
        "edges": ("edge F1", controls.edges(bytes_), measures.edge_f1),
        "depth": ("depth correlation", controls.depth(data.distance), by_depth),
        "segmentation": ("silhouette IoU", controls.segmentation(names, data.alpha), by_mask),
    }
    out: dict[str, Any] = {}
    for name, (measure, control, of) in ways.items():
        made = modes.controlled(prompts, data.seeds, control)
        out[name] = {
            "measure": measure,
            "result": mean(of(made, control)),
            "without_control": mean(of(free, control)),
            "another_control": mean(of(made, control.roll(1, 0))),
            "ceiling": mean(of(data.x, control)),
            "read": told(read(made), data.recoloured),
            "background": measures.ground_right(made, data.recoloured),
        }
        columns = {
            "source": data.x,
            "control": control.float() / 255,
            "result": made,
            "without control": free,
        }
        sheet(folder / f"modes-controlnet-{name}.jpg", columns, prompts[:SHOWN])
    out["read_without_control"] = told(read(free), data.recoloured)
    return out


def _holes(data: Set) -> dict[str, tuple[Tensor, list[Scene]]]:
    """For each way to inpaint: masks bool [N,128,128], and what is asked for."""
    swap = torch.stack([controls.grow(_box(a > 0.3), 6) for a in data.alpha])
    ground = data.alpha < 0.9  # the silhouette's mixed pixels carry the old ground
    side = torch.zeros_like(swap)
    side[:, :, 80:] = True
    return {
        "inpainting": (swap, data.replaced),
        "background": (ground, data.moved),
        "outpainting": (side, data.scenes),
    }


def _box(mask: Tensor) -> Tensor:
    """The bounding box of a mask bool [H,W], filled."""
    return mask.any(0)[None, :] & mask.any(1)[:, None]


def _inpainted(data: Set, read: Any, folder: Path) -> dict[str, Any]:
    """The hole filled by the inpainting ControlNet, and by the plain checkpoint."""
    out: dict[str, Any] = {}
    segment = measures.segmenter()
    for name, (mask, wanted) in _holes(data).items():
        prompts = said(wanted)
        shown = {"input": data.x, "hole": data.x * ~mask[:, None]}
        figures: dict[str, Any] = {}
        for who, control in (("result", True), ("without_control", False)):
            made = modes.inpainted(prompts, data.seeds, data.x, mask, control)
            whole = modes.pasted(made, data.x, mask)
            shown |= {who.replace("_", " "): made, f"{who[:7]}, pasted": whole}
            figures[who] = {
                "psnr_outside_db": mean(psnr(made, data.x, ~mask)),
                "psnr_outside_pasted_db": mean(psnr(whole, data.x, ~mask)),
                "seam": mean(measures.seam(whole, mask)),
                "read": told(read(whole), wanted),
                "background": measures.ground_right(whole, wanted),
            }
            if name != "inpainting":  # the object was there before, and should be as it was
                truth = data.labels > 0
                figures[who]["silhouette_iou"] = mean(measures.overlap(segment(whole) > 0, truth))
            if name == "outpainting":
                figures[who]["psnr_inside_db"] = mean(psnr(whole, data.x, mask))
        figures["seam_of_input"] = mean(measures.seam(data.x, mask))
        out[name] = figures
        sheet(folder / f"modes-{name}.jpg", shown, prompts[:SHOWN])
    return out


def _altered(data: Set, read: Any, folder: Path) -> dict[str, Any]:
    """Image to image at three strengths: silhouette kept, and new colour taken."""
    prompts, segment = said(data.recoloured), measures.segmenter()
    truth, shown, out = data.labels > 0, {"input": data.x}, {}
    for strength in (0.4, 0.6, 0.8):
        made = modes.altered(prompts, data.seeds, data.x, strength)
        shown[f"strength {strength}"] = made
        out[f"strength {strength}"] = {
            "silhouette_iou": mean(measures.overlap(segment(made) > 0, truth)),
            "read": told(read(made), data.recoloured),
        }
    free = modes.plain(prompts, data.seeds)
    out["text-to-image"] = {
        "silhouette_iou": mean(measures.overlap(segment(free) > 0, truth)),
        "read": told(read(free), data.recoloured),
    }
    sheet(folder / "modes-image-to-image.jpg", shown, prompts[:SHOWN])
    return out


def bicubic(x: Tensor) -> Tensor:
    """`x` four times as large, [N,3,4H,4W]."""
    return F.interpolate(x, scale_factor=4, mode="bicubic").clamp(0, 1)


def _upscaled(count: int, folder: Path) -> dict[str, Any]:
    """4x of clean renders and of autoencoder round trips, beside bicubic."""
    data = detail.load(HELD_OUT)
    texts, large = data.texts[:count], data.large[:count].float() / 255
    out: dict[str, Any] = {"steps": modes.UPSCALE_STEPS, "noise_level": modes.NOISE_LEVEL}
    for name, small in (("clean", data.small), ("round trip", data.rough)):
        x = small[:count].float() / 255
        made, smooth = modes.upscaled(texts, x), bicubic(x)
        true, sharp = modes.faithful(made, x), measures.sharpness(large)
        ways = {"bicubic": smooth, "upscaled": made, "upscaled, means put back": true}
        out[name] = {
            way: {
                "psnr_db": mean(psnr(picture, large)),
                "better_than_bicubic": mean(psnr(picture, large) > psnr(smooth, large)),
                "sharpness": mean(measures.sharpness(picture) / sharp),
            }
            for way, picture in ways.items()
        }
        cut = [_busiest(p) for p in large[:SHOWN]]
        shown = ways | {"truth": large}
        parts = {
            label: torch.stack(
                [p[:, t : t + 160, u : u + 160] for p, (t, u) in zip(pictures, cut, strict=False)]
            )
            for label, pictures in shown.items()
        }
        sheet(folder / f"modes-upscaling-{name.replace(' ', '-')}.jpg", parts, texts[:SHOWN], 320)
    return out


def _busiest(x: Tensor, side: int = 160) -> tuple[int, int]:
    """Top and left of the window with most edges in a picture [3,512,512]."""
    steep = F.pad(x.diff(dim=-1).abs().mean(0), (0, 1)) + F.pad(
        x.diff(dim=-2).abs().mean(0), (0, 0, 0, 1)
    )
    total = F.avg_pool2d(steep[None, None], side, 16)[0, 0]
    best = int(total.argmax())
    return best // total.shape[1] * 16, best % total.shape[1] * 16


def _readers(count: int = 300) -> dict[str, Any]:
    """The depth estimator and the segmenter on held-out renders."""
    data = pictures.load(HELD_OUT)
    scenes, x = data.scenes[:count], data.batch(torch.arange(count))
    disparity, alpha = dense.targets(library.load(HELD_OUT), scenes)
    found = measures.correlation(measures.depth_reader()(x), disparity)
    labels, made = dense.label_map(scenes, alpha), measures.segmenter()(x)
    own = labels.amax((1, 2))
    named = torch.stack([m[m > 0].mode().values if m.any() else m.max() for m in made])
    right = measures.overlap(made == own[:, None, None], labels > 0)
    return {
        "count": count,
        "depth": {"correlation": mean(found), "p5": round(float(found.quantile(0.05)), 4)},
        "segmentation": {
            "foreground_iou": mean(measures.overlap(made > 0, labels > 0)),
            "right_class_iou": mean(right),
            "name_right": mean(named == own),
        },
    }


def _row(*cells: object) -> str:
    return "| " + " | ".join(f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells) + " |"


def markdown(figures: dict[str, Any]) -> str:
    """The figures as the tables that stand in the model card."""
    lines = [
        _row("control", "measure", "result", "without control", "another's control", "ceiling",
             "object read", "colour read", "background"),
        "|---" * 9 + "|",
    ]  # fmt: skip
    for name in ("edges", "depth", "segmentation"):
        f = figures["control"][name]
        lines.append(
            _row(name, f["measure"], f["result"], f["without_control"], f["another_control"],
                 f["ceiling"], f["read"]["object"], f["read"]["colour"], f["background"])
        )  # fmt: skip
    lines += [
        "",
        _row("hole", "by", "PSNR outside, dB", "seam (input's)", "object read", "colour read",
             "background", "silhouette IoU", "PSNR inside, dB"),
        "|---" * 9 + "|",
    ]  # fmt: skip
    for name in ("inpainting", "background", "outpainting"):
        for who in ("result", "without_control"):
            f = figures["inpaint"][name][who]
            seam = f"{f['seam']:.3f} ({figures['inpaint'][name]['seam_of_input']:.3f})"
            by = "starter-inpainting" if who == "result" else "text-to-image alone"
            lines.append(
                _row(name, by, f["psnr_outside_db"], seam, f["read"]["object"],
                     f["read"]["colour"], f["background"], f.get("silhouette_iou", "–"),
                     f.get("psnr_inside_db", "–"))
            )  # fmt: skip
    lines += ["", _row("image to image", "silhouette IoU", "object read", "colour read")]
    lines.append("|---" * 4 + "|")
    for name, f in figures["image-to-image"].items():
        lines.append(_row(name, f["silhouette_iou"], f["read"]["object"], f["read"]["colour"]))
    up = figures["upscaling"]
    lines += [
        "",
        _row("4x of", "by", "PSNR, dB", "better than bicubic", "sharpness / truth"),
        "|---" * 5 + "|",
    ]
    for name in ("clean", "round trip"):
        for way, f in up[name].items():
            lines.append(_row(name, way, f["psnr_db"], f["better_than_bicubic"], f["sharpness"]))
    r = figures["readers"]
    lines += [
        "",
        f"Depth estimator on held-out renders: correlation {r['depth']['correlation']:.3f} "
        f"(5th percentile {r['depth']['p5']:.3f}). Segmenter: foreground IoU "
        f"{r['segmentation']['foreground_iou']:.3f}, of the right class "
        f"{r['segmentation']['right_class_iou']:.3f}, commonest name right in "
        f"{r['segmentation']['name_right']:.3f}.",
    ]
    return "\n".join(lines) + "\n"


def score(count: int, large: int, folder: Path, only: list[str]) -> dict[str, Any]:
    """The figures of the parts named, or of all; contact sheets go to `folder`."""
    data, read = Set(count), measures.clip_reader()
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "readers": _readers,
        "control": lambda: _controlled(data, read, folder),
        "inpaint": lambda: _inpainted(data, read, folder),
        "image-to-image": lambda: _altered(data, read, folder),
        "upscaling": lambda: _upscaled(large, folder),
    }
    out: dict[str, Any] = {"count": count, "count_upscaled": large}
    for name, part in parts.items():
        if not only or name in only:
            out[name] = part()
            print(name, json.dumps(out[name], indent=2), flush=True)
    return out


def main() -> None:
    """Command line: `python -m starter.score_modes [--images 48] [--large 16] [--only PART …]`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--large", type=int, default=16)
    parser.add_argument("--out", type=Path, default=SCORES)
    parser.add_argument("--only", nargs="*", default=[])
    chosen = parser.parse_args()
    loop.quiet_threads()
    chosen.out.mkdir(parents=True, exist_ok=True)
    path = chosen.out / "modes.json"
    figures = score(chosen.images, chosen.large, chosen.out, chosen.only)
    figures = (json.loads(path.read_text()) if path.exists() else {}) | figures
    path.write_text(json.dumps(figures, indent=2) + "\n")
    if {"control", "inpaint", "image-to-image", "upscaling", "readers"} <= set(figures):
        (chosen.out / "modes.md").write_text(markdown(figures))
        print(markdown(figures))


if __name__ == "__main__":
    main()
