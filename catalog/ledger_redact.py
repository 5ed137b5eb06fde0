"""What of an image's rows quotes its prompt, and those values without it: part of an erasure.

Recipes and reasons keep what licences and approvers' roles need: models, adapters, rules, scores.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from catalog.rows import as_json
from pipeline.verdict import DENIED, plain_words

GONE = "(erased)"
"""Stands where a text was erased within a value."""
PROMPT_COLUMNS = (
    *("prompt", "prompt_sha256", "negative_prompt", "recipe", "manifest"),
    *("error", "evidence", "reason", "reasons"),
)
"""Columns that quote a prompt, or can: what goes when an image is named and no column."""
PARTLY = frozenset({"recipe", "reason", "reasons", "error", "evidence"})
"""Columns of which the texts go, and the rest stays."""
_COMPARED = 40
"""Characters: error messages and labels shorten a prompt."""
_STEP_TEXTS = ("prompt", "negative_prompt")


def texts_of(rows: Sequence[dict[str, Any]]) -> set[str]:
    """All prompts of an image: of rows with prompt, negative_prompt and recipe (JSON text)."""
    found: set[str] = set()
    for row in rows:
        recipe = json.loads(row["recipe"]) if row["recipe"] else {}
        syntax = recipe.get("prompt_syntax", "plain")
        steps = [{**row, "prompt_syntax": syntax}, *recipe.get("earlier", ())]
        for step in steps:
            for text in (step.get(name) for name in _STEP_TEXTS):
                if text:
                    found |= {text, plain_words(text, step.get("prompt_syntax", "plain"))}
    return {text.strip() for text in found if text.strip()}


def redacted(column: str, value: Any, texts: Collection[str] | None) -> Any:
    """The value of one of PARTLY without what quotes one of `texts`; None: without any text.

    `recipe` is JSON text, `reasons` a list of dicts, `evidence` a list of JSON texts. The same
    value again when nothing in it goes.
    """
    if value is None:
        return None
    if column == "recipe":
        return _recipe(value, names=texts is None)
    if column == "reasons":
        return [one and _reason(one, texts) for one in value]
    if column == "evidence":
        return [one and _json_without(one, texts) for one in value]
    return GONE if _quotes(value, texts) else value


def _recipe(value: str, names: bool) -> str:
    recipe = json.loads(value)
    earlier = recipe.get("earlier", ())
    for step in earlier:
        step |= {name: None for name in _STEP_TEXTS if name in step}
    if names:
        for one in (each for step in (recipe, *earlier) for each in step.get("inputs", ())):
            one["name"] = GONE
    return as_json(recipe) if earlier or names else value


def _reason(reason: dict[str, Any], texts: Collection[str] | None) -> dict[str, Any]:
    evidence, text = reason["evidence"], reason["text"]
    return {
        **reason,
        "text": GONE if text and _quotes(text, texts) else text,
        "evidence": _json_without(evidence, texts) if evidence else evidence,
    }


def _json_without(value: str, texts: Collection[str] | None) -> str:
    if texts is None:
        return "{}"
    found = json.loads(value)
    left = _without(found, texts)
    return value if left == found else as_json(left)


def _without(value: Any, texts: Collection[str]) -> Any:
    if isinstance(value, str):
        return GONE if _quotes(value, texts) else value
    if isinstance(value, list):
        return [_without(each, texts) for each in value]
    if isinstance(value, dict):
        return {name: _without(each, texts) for name, each in value.items()}
    return value


def _quotes(value: str, texts: Collection[str] | None) -> bool:
    if texts is None:
        return True
    said = value.casefold()
    # A denied name is a piece of the prompt, as pipeline/verdict.py tells it.
    return DENIED in value or any(text[:_COMPARED].casefold() in said for text in texts)
