"""Render the input pictures of the all-modes demo: photos, a mask, edges, depth and segments.

Seeds lie apart from those that any model is trained or tested on.
"""

import torch
from PIL import Image
from torch import Tensor

from starter import controls
from starter.paths import REFERENCES
from starter.world import Scene, render

FOLDER = REFERENCES.parent / "demo" / "pictures"
SEED = 3_000_000


def _save(name: str, picture: Tensor) -> None:
    """A picture uint8 [3,H,W] as PNG."""
    array = picture.permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(array).save(FOLDER / f"{name}.png", optimize=True)


def build() -> None:
    """Write `demo/pictures/*.png`."""
    FOLDER.mkdir(exist_ok=True)
    scenes = {
        "teapot": Scene("teapot", "green", background="white", seed=SEED),
        "vase": Scene("vase", "blue", background="beige", seed=SEED + 1),
        "chair": Scene("chair", "red", background="grey", seed=SEED + 2),
    }
    made = render(list(scenes.values()))
    pictures = made.rgb.permute(0, 3, 1, 2)
    depths = controls.depth(made.depth)
    for i, (name, scene) in enumerate(scenes.items()):
        if name != "chair":
            _save(name, pictures[i])
        if name == "teapot":
            mask = controls.grow(made.mask[i], 6)
            _save("teapot-mask", (mask * 255).to(torch.uint8).expand(3, -1, -1))
        else:
            _save(f"{name}-depth", depths[i])
        if name == "chair":
            _save("chair-edges", controls.edges(pictures[i : i + 1])[0])
            alpha = made.mask[i : i + 1].float()
            _save("chair-segments", controls.segmentation([scene.subject], alpha)[0])


if __name__ == "__main__":
    build()
