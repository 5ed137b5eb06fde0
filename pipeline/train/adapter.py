"""The finished adapter folder: weights, sheet, plot, card, README and entry for a models file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.contact_sheet import Cell, jpeg
from pipeline.images import RgbImage
from pipeline.store import flush, write_file
from pipeline.train.card import CARD, Done, card_of
from pipeline.train.painter import WEIGHTS, Painter
from pipeline.train.sheet import loss_plot, png, sample_sheet
from pipeline.weights import weights_sha256


def write_adapter(
    done: Done, painter: Painter, work: Path, pictures: Sequence[RgbImage], seconds: float
) -> None:
    """The whole result in `work/finished`, flushed to disk."""
    folder = work / "finished"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    painter.save(folder)
    columns = len(done.recipe.prompts)
    above = [
        Cell(pictures[i % len(pictures)], ("trained on", done.samples[i % len(pictures)].file))
        for i in range(columns)
    ]
    write_file(folder / "samples.jpg", jpeg(sample_sheet(work, done.recipe, above)))
    write_file(folder / "loss.png", png(loss_plot(done.curve, done.recipe.steps)))
    card = card_of(done, weights_sha256(folder / WEIGHTS), seconds)
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    write_file(folder / CARD, text.encode())
    write_file(folder / "README.md", _readme(done, card).encode())
    # Last: it holds the hash of the folder, of which the card is a part.
    entry = {
        "kind": "lora",
        "folder": ".",
        "file": WEIGHTS,
        "base": [done.model.name],
        "weights_sha256": weights_sha256(folder),
        "licence": done.licence,
        "notice": done.notice,
    }
    head = "# Name this file in the settings (models), or copy the entry into yours.\n"
    text = head + _yaml({"models": {done.name: entry}})
    write_file(folder / "model.yaml", text.encode())
    flush(folder / WEIGHTS)
    flush(folder)


def _readme(done: Done, card: dict[str, Any]) -> str:
    """The card for people, with front matter as model hubs read it."""
    front = {
        "base_model": done.model.name if done.model.is_folder else done.model.source,
        "license": "other",
        "license_name": done.licence,
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["lora", "text-to-image"],
    }
    how, loss, base = card["training"], card["loss"], card["base"]
    rows = [
        "| {file} | {title} | {rights_holder} | {licence} | {leave} |".format(
            **{key: _in_table(str(value)) for key, value in each.items()},
            leave=_in_table(each["waiver"]["document"]) if each["waiver"] else "–",
        )
        for each in card["images"]
    ]
    return "\n".join(
        (
            f"---\n{_yaml(front)}---",
            f"# {done.name}\n",
            f"{done.notice}\n",
            f"Base: {base['name']}, revision `{base['revision']}`, licence {base['licence']}. "
            f"Licence of the pictures: {done.licence}.\n",
            "![Pictures at the same seeds, without and with the adapter](samples.jpg)\n",
            f"Rank {how['rank']}, {how['steps']} steps of {how['batch_size']} at "
            f"{how['width']}×{how['height']}, rate {how['rate']}, seed {how['seed']}, "
            f"{how['precision']}. Loss {loss['first']} → {loss['last']}; at fixed noise "
            f"{loss['probe'][0][1]} → {loss['probe'][-1][1]}.\n",
            "![Loss](loss.png)\n",
            "## Trained on\n",
            "| file | title | rights holder | licence | waiver |\n|---|---|---|---|---|",
            *rows,
            "\nCaptions, hashes and versions: `adapter.json`. Entry for a models file: "
            "`model.yaml`.\n",
            "```python",
            f'pipe.load_lora_weights("this/folder", weight_name="{WEIGHTS}")',
            "```\n",
        )
    )


def _in_table(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000))
