"""A request: one image to make, fully resolved. Briefs become requests, requests batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

# What makes the pixels; a derived seed depends on these and on whose image it is, nothing else.
_SEEDED_BY = (
    "mode", "model", "model_revision", "prompt", "negative_prompt",
    "width", "height", "steps", "guidance", "scheduler", "sku", "index",
)  # fmt: skip

Role = Literal["image", "mask", "control", "depth"]
Source = Literal["file", "asset", "step"]


@dataclass(frozen=True)
class Input:
    """A picture that an image is made from.

    `sha256` is of its bytes. For a `step`, whose picture does not exist yet, it is the request id
    of that earlier step: it pins the pixels as well. `asset` inputs are catalogued images of ours.
    """

    role: Role
    source: Source
    sha256: str
    name: str
    """File name, asset name or step, for people; not part of the identity."""


@dataclass(frozen=True)
class Control:
    """A ControlNet at work: its model, what makes the control picture, and its strength.

    `preprocessor` is `none` (the input is a control picture), `edges`, `depth` or `segmentation`,
    made by `tool` at `tool_revision` where that needs a model, or `hole` (the picture around the
    region that inpainting repaints). `scale` weighs its influence, 0..2.
    """

    model: str
    model_revision: str
    preprocessor: str = "none"
    scale: float = 1.0
    tool: str = ""
    tool_revision: str = ""


@dataclass(frozen=True)
class Adapter:
    """A LoRA or textual inversion at work; `weight` scales a LoRA, -2..2.

    `file` names its weights within the revision, `token` the word it adds: both decide the pixels.
    """

    model: str
    model_revision: str
    weight: float = 1.0
    file: str = ""
    token: str = ""


@dataclass(frozen=True)
class Region:
    """The part of the picture that inpainting repaints.

    `kind`: `file` (a mask picture, white is repainted), `box` (`box` = x, y, width, height in
    pixels of the finished image), `background` or `object` (found by `tool`), or `border`, which
    outpainting adds (`box` = left, top, right, bottom pixels of new picture).
    """

    kind: Literal["file", "box", "background", "object", "border"]
    box: tuple[int, ...] = ()
    tool: str = ""
    tool_revision: str = ""


@dataclass(frozen=True)
class Request:
    """One image to make. Equal requests have equal ids, and on one machine equal pixels.

    `seed` is in [0, 2**63); `width` and `height` are pixels, multiples of 8; `guidance` is the
    classifier-free guidance scale (1 switches it off). `terms` is the JSON form of the usage terms
    (pipeline/terms.py); it is not part of the identity: new terms need no new image.

    `scheduler` is a diffusers class and the overrides of its configuration, as `Model.sampler` has
    them; empty: the checkpoint's own. `strength` is how much of the input image-to-image repaints,
    in (0, 1]. `earlier` are the steps of a chain before this one, in order; their ids stand in the
    inputs that use them.
    """

    sku: str
    index: int
    mode: str
    model: str
    model_revision: str
    prompt: str
    negative_prompt: str
    seed: int
    width: int
    height: int
    steps: int
    guidance: float
    scheduler: str
    campaign: str
    client: str
    terms: Mapping[str, Any] = field(default_factory=dict, hash=False)
    inputs: tuple[Input, ...] = ()
    strength: float | None = None
    region: Region | None = None
    controls: tuple[Control, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    prompt_syntax: str = "plain"
    prompt_writer: str = ""
    """The language model that wrote the prompt; empty: a person or a template."""
    earlier: tuple[Request, ...] = ()

    @cached_property
    def request_id(self) -> str:
        """SHA-256 (hex) of the canonical JSON: the key of idempotency."""
        identity = {name: getattr(self, name) for name in _IDENTITY}
        return hashlib.sha256(canonical_json(identity | self._made_from())).hexdigest()

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """What goes beyond text-to-image, as JSON; empty for a plain request."""
        found: dict[str, Any] = {
            name: plain_json(getattr(self, name))
            for name in _EXTRAS
            if getattr(self, name) != _DEFAULTS[name]
        }
        if self.earlier:
            found["earlier"] = [step.as_json() for step in self.earlier]
        return found

    def as_json(self) -> dict[str, Any]:
        """The whole request as JSON, without its terms and earlier steps."""
        own = {name: getattr(self, name) for name in _IDENTITY}
        return own | {key: value for key, value in self.recipe.items() if key != "earlier"}

    @property
    def chain(self) -> tuple[Request, ...]:
        """All steps in order, this one last."""
        return (*self.earlier, self)

    def _made_from(self) -> dict[str, Any]:
        # Names of files are for people, and absent keys keep the ids of plain requests as they
        # were before there were other modes.
        extras = {key: value for key, value in self.recipe.items() if key != "earlier"}
        if "inputs" in extras:
            extras["inputs"] = [[i.role, i.source, i.sha256] for i in self.inputs]
        return extras


_EXTRAS = (
    "inputs", "strength", "region", "controls", "adapters", "prompt_syntax", "prompt_writer",
)  # fmt: skip
_DEFAULTS = {each.name: each.default for each in fields(Request)}
_IDENTITY = tuple(
    each.name for each in fields(Request) if each.name not in (*_EXTRAS, "terms", "earlier")
)


def request_from_json(values: Mapping[str, Any]) -> Request:
    """The request whose `as_json`, or whose catalogued columns and `recipe`, these are."""
    known = {each.name for each in fields(Request)}
    made = {key: value for key, value in values.items() if key in known}
    made["terms"] = made.get("terms") or {}
    for name, kind in (("inputs", Input), ("controls", Control), ("adapters", Adapter)):
        made[name] = tuple(kind(**each) for each in made.get(name) or ())
    if region := made.get("region"):
        made["region"] = Region(**region | {"box": tuple(region.get("box") or ())})
    made["earlier"] = tuple(request_from_json(step) for step in made.get("earlier") or ())
    return Request(**made)


def plain_json(value: Any) -> Any:
    """Dataclasses and tuples as dicts and lists, ready for JSON."""
    if isinstance(value, tuple | list):
        return [plain_json(each) for each in value]
    if hasattr(value, "__dataclass_fields__"):
        return {key: plain_json(each) for key, each in asdict(value).items()}
    return value


def canonical_json(value: Any) -> bytes:
    """The one UTF-8 form of a JSON value: sorted keys, no spaces, no NaN (after RFC 8785)."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def derived_seed(content: Mapping[str, Any]) -> int:
    """A seed in [0, 2**63) from a request's content: the same brief makes the same images."""
    seeded = {key: content[key] for key in _SEEDED_BY}
    return int.from_bytes(hashlib.sha256(canonical_json(seeded)).digest()[:8], "big") >> 1
