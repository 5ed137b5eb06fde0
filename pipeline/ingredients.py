"""What an image was made from, as its manifest and the catalog tell it: inputs and intermediates.

Sources: C2PA 2.4, "Ingredients" (parentOf, inputTo) and "Actions" (created, opened, edited).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.encode import lossless_png
from pipeline.images import decode_limited
from pipeline.inputs import InputStore, RepaintedRegion
from pipeline.label import SOURCE_TYPE as TRAINED
from pipeline.records import UsedInput
from pipeline.request import Input, Request

COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
EDIT_STRENGTH = 0.5
"""Image-to-image up to this strength keeps half of the denoising to the input: an edit of it."""

Relationship = Literal["parentOf", "inputTo"]


@dataclass(frozen=True)
class Ingredient:
    """One picture that went in: its bytes, and how the manifest names it."""

    label: str
    relationship: Relationship
    title: str
    mime: str
    sha256: str
    data: bytes
    is_signed: bool
    """It carries a C2PA manifest of its own, which goes into ours."""


@dataclass(frozen=True)
class Made:
    """How one image came to be: what the catalog keeps of its inputs, what the manifest says.

    `regions` are where steps repainted their input, by the request id of the step.
    """

    used: tuple[UsedInput, ...] = ()
    ingredients: tuple[Ingredient, ...] = ()
    regions: Mapping[str, RepaintedRegion] = field(default_factory=dict)


WORDS_ALONE = Made()
"""Of an image that was made from its prompt alone."""


def made_from(request: Request, store: InputStore) -> Made:
    """The inputs of all of a chain's steps, read from the store. Raises SetupError for a lost one.

    The same picture in two roles is one ingredient.
    """
    used: list[UsedInput] = []
    ingredients: dict[str, Ingredient] = {}
    regions: dict[str, RepaintedRegion] = {}
    for number, step in enumerate(request.chain):
        if region := store.region(step.request_id):
            regions[step.request_id] = region
        for each in step.inputs:
            sha256 = store.step(each.sha256) if each.source == "step" else each.sha256
            data, mime = store.read(sha256 or each.sha256)
            told = _used(each, number, sha256 or each.sha256, mime, store)
            used.append(told)
            if told.sha256 not in ingredients:
                if told.c2pa_state == "Invalid" and told.c2pa_label is None:
                    # A manifest that cannot be read cannot be carried: the pixels go in alone.
                    data, mime = lossless_png(decode_limited(data)), "image/png"
                parent = number == 0 and each.role == "image" and is_edit(step)
                ingredients[told.sha256] = Ingredient(
                    label=f"input-{len(ingredients) + 1}",
                    relationship="parentOf" if parent else "inputTo",
                    title=each.name,
                    mime=mime,
                    sha256=told.sha256,
                    data=data,
                    is_signed=told.c2pa_label is not None,
                )
    return Made(tuple(used), tuple(ingredients.values()), regions)


def is_edit(step: Request) -> bool:
    """Whether a step changes its input rather than making a new picture after it."""
    # Beside a ControlNet depth-to-image has no strength: it paints from noise.
    if step.mode in ("image-to-image", "depth-to-image"):
        return step.strength is not None and step.strength <= EDIT_STRENGTH
    return step.mode in ("inpainting", "outpainting", "upscaling", "variation")


def source_type(request: Request, made: Made) -> str:
    """The IPTC digital source type of the finished image, always the full URI.

    Edits of what a model made stay trained media; edits of anything else are composites.
    """
    first = request.chain[0]
    if not is_edit(first):
        return TRAINED
    parents = [each for each in made.used if each.step == 0 and each.role == "image"]
    # A manifest that does not hold may say anything.
    trained = parents and all(
        each.c2pa_state in ("Trusted", "Valid") and set(each.source_types) == {TRAINED}
        for each in parents
    )
    return TRAINED if trained else COMPOSITE


def _used(each: Input, step: int, sha256: str, mime: str, store: InputStore) -> UsedInput:
    known: dict[str, Any] = {}
    if each.source != "step":
        known = store.facts(sha256)
    credentials = known.get("credentials") or {}
    return UsedInput(
        step=step,
        role=each.role,
        source=each.source,
        name=each.name,
        sha256=sha256,
        mime=mime,
        source_request_id=each.sha256 if each.source == "step" else known.get("asset_request_id"),
        c2pa_state=str(credentials.get("state", "None")),
        c2pa_label=credentials.get("manifest"),
        source_types=tuple(credentials.get("source_types") or ()),
        restrictions=tuple(
            f"{r['use']}: {r['says']}" for r in credentials.get("restrictions") or ()
        ),
    )
