"""Reads the card of a trained adapter: which pictures it was trained on, by whose leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.errors import SetupError

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
