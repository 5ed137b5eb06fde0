"""The card of a trained adapter: how it was made, on which pictures, by whose leave.

Written when a training ends; read wherever the adapter is used.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import SetupError
from pipeline.label import platemark_version, timestamp
from pipeline.models import Model
from pipeline.train.painter import TARGETS, WEIGHTS
from pipeline.train.recipe import Recipe
from pipeline.train.samples import Sample
from pipeline.train.sheet import SMOOTH, Curve

CARD = "adapter.json"


def trained_on(folder: Path) -> list[dict[str, Any]]:
    """The training images that the card in an adapter's folder lists; none without a card.

    Raises SetupError for a card that cannot be read: what it hides must not be lost.
    """
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SetupError(f"{folder / CARD}: {error.strerror}; restore it") from error
    try:
        card = json.loads(text)
        return [dict(image) for image in card["images"]]
    except (ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{folder / CARD} is no card of an adapter: {error}") from error


@dataclass(frozen=True)
class Done:
    """What the card of a finished training tells of."""

    model: Model
    recipe: Recipe
    name: str
    samples: Sequence[Sample]
    precision: str
    curve: Curve

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


def card_of(done: Done, weights: str, seconds: float) -> dict[str, Any]:
    """The card as data: what was trained, how, on which pictures by whose leave."""
    import diffusers
    import peft
    import torch
    import transformers

    model, recipe, curve = done.model, done.recipe, done.curve
    part = max(1, min(SMOOTH, len(curve.losses) // 4))
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
