"""Render the reference library of the protected subjects: a few PNG each and their rights.

Seeds lie apart from those that any model is trained or tested on.
"""

import csv

from PIL import Image

from starter.paths import REFERENCES
from starter.vocabulary import BACKGROUNDS, PROTECTED, VIEWS
from starter.world import Scene, render

HOLDERS = {
    "mirolo": ("Mirolo", "Atelier Fennimore (invented)"),
    "zanti": ("Zanti", "Zanti Works (invented)"),
    "orvanto": ("Orvanto logo", "Orvanto Holding (invented)"),
}
EACH = 6


def scenes() -> list[Scene]:
    """Six scenes of each protected subject: every view twice, every background once."""
    return [
        Scene(
            s,
            None,
            ("matte", "glossy")[i % 2],
            list(BACKGROUNDS)[i],
            list(VIEWS)[i % 3],
            2_000_000 + 10 * k + i,
        )
        for k, s in enumerate(PROTECTED)
        for i in range(EACH)
    ]


def build() -> None:
    """Write `references/*.png` and `references/rights.csv`."""
    REFERENCES.mkdir(exist_ok=True)
    rows = scenes()
    with (REFERENCES / "rights.csv").open("w", newline="", encoding="utf-8") as handle:
        out = csv.writer(handle, lineterminator="\n")
        out.writerow(["file", "title", "rights_holder", "licence", "role", "note"])
        for i, (scene, rgb) in enumerate(zip(rows, render(rows).rgb, strict=True)):
            file = f"{scene.subject}-{i % EACH + 1}.png"
            Image.fromarray(rgb.numpy()).save(REFERENCES / file, optimize=True)
            title, holder = HOLDERS[scene.subject]
            note = f"invented for the starter world; {scene.view}, {scene.background} background"
            out.writerow([file, title, holder, "all rights reserved", "protected", note])


if __name__ == "__main__":
    build()
