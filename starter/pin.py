"""Pin the shipped weights: write their hashes into models.yaml, which the pipeline compares."""

import re
from pathlib import Path

from pipeline.weights import weights_sha256
from starter.paths import WEIGHTS

MODELS = Path(__file__).with_name("models.yaml")


def pin() -> None:
    """Rewrite each `weights_sha256` to that of the folder above it."""
    text = MODELS.read_text(encoding="utf-8")
    for folder in sorted(path for path in WEIGHTS.iterdir() if path.is_dir()):
        entry = rf"(    folder: weights/{re.escape(folder.name)}\n    weights_sha256: )\w+"
        text, found = re.subn(entry, rf"\g<1>{weights_sha256(folder)}", text)
        if found != 1:
            raise SystemExit(f"{MODELS} has no folder and weights_sha256 for {folder.name}")
    MODELS.write_text(text, encoding="utf-8")
