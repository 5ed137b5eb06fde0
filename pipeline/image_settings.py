"""How one image is made, as briefs say it: mode, model, inputs, sizes, adapters, further steps.

The brief sets these for all items, a column of the same name for one item. Text forms (`lora:0.8`,
`box 10 20 64 64`) are for table cells; YAML may write lists and mappings instead.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

MAX_SIDE = 4096
MAX_COUNT = 1000
MAX_STEPS = 1000

Mode = Literal[
    "text-to-image",
    "image-to-image",
    "inpainting",
    "outpainting",
    "depth-to-image",
    "controlnet",
    "upscaling",
    "variation",
]
Preprocessor = Literal["none", "edges", "depth", "segmentation"]
SIZES: dict[str, tuple[int, int]] = {
    "amazon-main": (2000, 2000),
    "google-merchant": (1200, 1200),
    "shopify-product": (2048, 2048),
    "adobe-stock": (2400, 1704),
    "instagram-square": (1080, 1080),
    "story": (1080, 1920),
    "full-hd": (1920, 1080),
    "hd": (1280, 720),
}
"""Presets, width × height in pixels: channels' own sizes, or the multiples of 8 that meet their
minimum (facts on channels: Amazon ≥ 1000 px a side, Adobe Stock ≥ 4 MP)."""


def _split(value: Any, separators: str = ",;|") -> Any:
    """A cell's parts; other values as they are."""
    if isinstance(value, str):
        return [
            part.strip() for part in re.split(f"[{re.escape(separators)}]", value) if part.strip()
        ]
    return value


def _adapter(value: Any) -> Any:
    if isinstance(value, str):
        name, _, weight = value.partition(":")
        return {"name": name.strip(), **({"weight": weight.strip()} if weight else {})}
    return value


def _adapters(value: Any) -> Any:
    parts = _split(value, ",;|+")
    return [_adapter(part) for part in parts] if isinstance(parts, list | tuple) else parts


def _whole_numbers(value: Any) -> Any:
    return value.replace(",", " ").split() if isinstance(value, str) else value


def _mask(value: Any) -> Any:
    """`background`, `object`, `box 10 20 64 64` or a file's name, as a mapping."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text in ("background", "object"):
        return {"kind": text}
    if re.match(r"box[\s:]", text):
        return {"kind": "box", "box": text[4:]}
    return {"kind": "file", "file": text}


File = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
Files = Annotated[tuple[File, ...], BeforeValidator(_split)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AdapterSetting(_Settings):
    """A LoRA or textual inversion of the models file, and its weight."""

    name: str = Field(pattern=r"^[\w.-]+$")
    weight: float = Field(default=1.0, ge=-2, le=2, allow_inf_nan=False)


class ControlSetting(_Settings):
    """A ControlNet of the models file, what makes its picture from a photo, and its influence."""

    model: str = Field(pattern=r"^[\w.-]+$")
    preprocessor: Preprocessor = "none"
    scale: float = Field(default=1.0, ge=0, le=2, allow_inf_nan=False)


class MaskSetting(_Settings):
    """What inpainting repaints: a mask file's white, a box, the background or the object."""

    kind: Literal["file", "box", "background", "object"]
    file: File | None = None
    box: Annotated[tuple[int, ...], BeforeValidator(_whole_numbers)] = ()

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, dict) and "kind" not in value and len(value) == 1:
            return {"kind": next(iter(value)), **value}
        return value

    @model_validator(mode="after")
    def _whole(self) -> MaskSetting:
        if self.kind == "box":
            if len(self.box) != 4 or min(self.box) < 0 or min(self.box[2:]) < 1:
                raise ValueError("a box is x, y, width, height in pixels: `box 10 20 64 64`")
        elif self.box:
            raise ValueError(f"a {self.kind} mask has no box")
        if (self.kind == "file") != (self.file is not None):
            raise ValueError("a mask is a file's name, `background`, `object` or `box x y w h`")
        return self


def _controls(value: Any) -> Any:
    parts = _split(value)
    if not isinstance(parts, list | tuple):
        return parts
    made = []
    for part in parts:
        if isinstance(part, str):
            fields = part.split(":")
            names = ("model", "preprocessor", "scale")
            made.append(dict(zip(names, (f.strip() for f in fields), strict=False)))
            if len(fields) > len(names):
                raise ValueError(f"{part!r} is no control: write MODEL:PREPROCESSOR:SCALE")
        else:
            made.append(part)
    return made


class StepSettings(_Settings):
    """One step of making an image. Sizes are pixels; unset values come from the model."""

    mode: Mode = "text-to-image"
    model: str = "starter"
    negative_prompt: str = ""
    width: int | None = Field(default=None, ge=64, le=MAX_SIDE, multiple_of=8)
    height: int | None = Field(default=None, ge=64, le=MAX_SIDE, multiple_of=8)
    size: Literal[tuple(SIZES)] | None = None  # type: ignore[valid-type]
    """A preset in place of width and height."""
    steps: int | None = Field(default=None, ge=1, le=MAX_STEPS)
    guidance: float | None = Field(default=None, ge=0, le=50, allow_inf_nan=False)
    strength: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    """How much of the input image-to-image and inpainting repaint; the default is by mode."""
    mask: Annotated[MaskSetting, BeforeValidator(_mask)] | None = None
    expand: Annotated[tuple[int, ...], BeforeValidator(_whole_numbers)] | None = None
    """Outpainting: new pixels left, top, right, bottom, within the finished size."""
    controls: Annotated[tuple[ControlSetting, ...], BeforeValidator(_controls)] = ()
    control_image: Files = ()
    """The picture of each control, in their order; without it the item's image."""
    adapters: Annotated[tuple[AdapterSetting, ...], BeforeValidator(_adapters)] = ()
    prompt_syntax: Literal["plain", "compel"] = "plain"
    """`compel`: weights like `(red)1.4` or `red++`, and prompts longer than the model's window."""

    @field_validator("width", "height", "steps", "guidance", "strength", mode="before")
    @classmethod
    def _no_boolean(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("should be a number")
        return value

    @field_validator("expand")
    @classmethod
    def _four_sides(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is not None and (len(value) != 4 or min(value) < 0 or max(value) == 0):
            raise ValueError("expand is left, top, right, bottom in pixels, e.g. `0 0 64 0`")
        return value

    @model_validator(mode="after")
    def _one_size(self) -> StepSettings:
        if self.size and (self.width or self.height):
            raise ValueError("give `size`, or width and height")
        return self

    @property
    def asked_size(self) -> tuple[int | None, int | None]:
        """Width and height as asked for, None where the model or the input decides."""
        return SIZES[self.size] if self.size else (self.width, self.height)


class NextStep(StepSettings):
    """A further step of a chain: takes the picture of the step before as its image.

    Without `model` it uses the item's. `prompt` replaces the item's prompt for this step; it is a
    template like the brief's.
    """

    prompt: str = Field(default="", max_length=20_000)


class ImageSettings(StepSettings):
    """How an image is made. The brief sets them for all items, a column of that name for one item.

    `seed` is `derived` (from the request's content) or a number: image k of an item then has the
    seed `seed + k`.
    """

    count: int = Field(default=1, ge=1, le=MAX_COUNT)
    seed: Annotated[int, Field(ge=0, lt=2**63 - MAX_COUNT)] | Literal["derived"] = "derived"
    image: File | None = None
    """The input picture, a file beside the brief."""
    depth_image: File | None = None
    """Depth-to-image: a depth picture (near is bright) in place of one made from `image`."""
    asset: File | None = None
    """The input picture as an asset of the catalog: sku, or digits of its SHA-256 or request id."""
    locale: str = Field(default="", max_length=35)
    """Which of the brief's `templates` makes the prompt."""
    then: tuple[NextStep, ...] = Field(default=(), max_length=8)
    """Further steps; only the last one's picture is labelled and signed."""

    @field_validator("count", "seed", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("should be a number")
        return value
