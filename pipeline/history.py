"""How an image came to be, in the manifest's words: its actions, and our generation assertion.

Actions follow C2PA 2.4, "Actions": a new image is created, an edited one was opened first; what a
model was shown is an inputTo ingredient of the action that used it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipeline.ingredients import Made, is_edit, source_type
from pipeline.label import SOURCE_TYPE, MakerModel, safe_text, text_sha256
from pipeline.policy_model import Policy
from pipeline.request import Region, Request, plain_json

_BOX = ("x", "y", "width", "height")
_SIDES = ("left", "top", "right", "bottom")
_DESCRIPTIONS = {
    "inpainting": "a region was repainted by a model",
    "outpainting": "the picture was extended by a model",
    "upscaling": "the picture was enlarged by a model that adds detail",
    "variation": "a variation was painted over the picture by a model",
    "image-to-image": "the picture was repainted by a model",
    "depth-to-image": "the picture was repainted by a model that kept its depth",
}


def actions(request: Request, made: Made, made_at: str) -> dict[str, Any]:
    """The data of `c2pa.actions.v2`: every step of the chain, in order."""
    final = source_type(request, made)
    told: list[dict[str, Any]] = []
    for number, step in enumerate(request.chain):
        told += _step(step, number, made, made_at, final)
    return {"allActionsIncluded": True, "actions": told}


def _step(step: Request, number: int, made: Made, made_at: str, final: str) -> list[dict[str, Any]]:
    labels = {each.sha256: each.label for each in made.ingredients}
    used = [each for each in made.used if each.step == number]
    parents = [labels[each.sha256] for each in used if each.role == "image"]
    ids = list(dict.fromkeys(labels[each.sha256] for each in used))
    common: dict[str, Any] = {"when": made_at, "softwareAgent": _agent()}
    if number == 0 and not is_edit(step):
        created = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE, **common}
        return [_with_inputs(created, ids)]
    opened: list[dict[str, Any]] = []
    if number == 0:
        opened = [
            {
                "action": "c2pa.opened",
                "when": made_at,
                "parameters": {"ingredientIds": parents[:1]},
            }
        ]
        ids = [each for each in ids if each not in parents[:1]]
    edited: dict[str, Any] = {
        "action": "c2pa.edited",
        "digitalSourceType": final,
        "description": _DESCRIPTIONS.get(step.mode, f"{step.mode} by a model"),
        **common,
    }
    if region := made.regions.get(step.request_id):
        edited["changes"] = [_region(region.box)]
    told = [*opened, _with_inputs(edited, ids)]
    if step.mode == "upscaling":
        told.append({"action": "c2pa.resized", "digitalSourceType": final, **common})
    return told


def _with_inputs(action: dict[str, Any], ids: list[str]) -> dict[str, Any]:
    # Without ingredients there must be no parameters at all.
    return action | {"parameters": {"ingredientIds": ids}} if ids else action


def _region(box: Sequence[int]) -> dict[str, Any]:
    """A region of interest (C2PA 2.4, "Regions of interest")."""
    x, y, width, height = (int(each) for each in box)
    shape = {
        "type": "rectangle",
        "unit": "pixel",
        "origin": {"x": x, "y": y},
        "width": width,
        "height": height,
    }
    return {"description": "repainted", "region": [{"type": "spatial", "shape": shape}]}


def generation(request: Request, model: MakerModel, policy: Policy, made: Made) -> dict[str, Any]:
    """The data of `org.platemark.generation`: enough to make the image again, and to find it."""
    named = {
        "name": model.name,
        "revision": model.revision,
        "licence": model.licence,
        "weights_sha256": model.weights_sha256,
        "notice": model.notice,
    }
    return {
        "request_id": request.request_id,
        "mode": request.mode,
        "model": {key: value for key, value in named.items() if value},
        **_prompt(request, policy),
        # A string: readers lose integers of 2^53 and more, the SDK those of 2^63.
        "seed": str(request.seed),
        "width": request.width,
        "height": request.height,
        "steps": request.steps,
        "guidance": request.guidance,
        "scheduler": request.scheduler,
        **_recipe(request, made, len(request.earlier)),
        **_earlier(request, policy, made),
    }


def _earlier(request: Request, policy: Policy, made: Made) -> dict[str, Any]:
    """The steps of a chain before the last, each as the assertion tells the last one."""
    told = [
        {
            "request_id": step.request_id,
            "mode": step.mode,
            "model": {"name": step.model, "revision": step.model_revision},
            **_prompt(step, policy),
            "seed": str(step.seed),
            "width": step.width,
            "height": step.height,
            "steps": step.steps,
            "guidance": step.guidance,
            "scheduler": step.scheduler,
            **_recipe(step, made, number),
        }
        for number, step in enumerate(request.earlier)
    ]
    return {"earlier": told} if told else {}


def _recipe(step: Request, made: Made, number: int) -> dict[str, Any]:
    """Inputs, strength, region, controls and adapters of a step; nothing for text-to-image."""
    inputs = [
        {
            "role": each.role,
            "source": each.source,
            "sha256": each.sha256,
            **({"request_id": each.source_request_id} if each.source_request_id else {}),
        }
        for each in made.used
        if each.step == number
    ]
    found: dict[str, Any] = {"inputs": inputs} if inputs else {}
    for name in ("strength", "controls", "adapters"):
        if value := getattr(step, name):
            found[name] = plain_json(value)
    if step.region:
        found["region"] = _named_box(step.region)
    if region := made.regions.get(step.request_id):
        found["repainted"] = dict(zip(_BOX, map(int, region.box), strict=True))
    if step.prompt_syntax != "plain":
        found["prompt_syntax"] = step.prompt_syntax
    if step.prompt_writer:
        found["prompt_writer"] = safe_text(step.prompt_writer)
    return found


def _named_box(region: Region) -> dict[str, Any]:
    """A region as JSON. Its numbers have names: the SDK makes lists of small ones bytes."""
    told = {key: value for key, value in plain_json(region).items() if value}
    if region.box:
        names = _SIDES if region.kind == "border" else _BOX
        told["box"] = dict(zip(names, region.box, strict=True))
    return told


def _prompt(request: Request, policy: Policy) -> dict[str, str]:
    texts = {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
    texts = {key: text for key, text in texts.items() if text}
    if policy.labels.prompt == "text":
        return {key: safe_text(text) for key, text in texts.items()}
    if policy.labels.prompt == "hash":
        return {f"{key}_sha256": text_sha256(text) for key, text in texts.items()}
    return {}


def _agent() -> dict[str, str]:
    agent = {"name": "diffusers"}
    if engine := _installed("diffusers"):
        agent["version"] = engine
    return agent


@cache
def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
