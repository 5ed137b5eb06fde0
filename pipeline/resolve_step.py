"""One item's steps → requests: what each mode needs, where its inputs come from, its size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from pipeline.brief import Brief, Item
from pipeline.errors import Fault
from pipeline.image_settings import MaskSetting, NextStep, StepSettings
from pipeline.inputs import Picture, open_asset, open_picture
from pipeline.models import Kind, Model
from pipeline.prompt import MAX_PROMPT, Render, render_prompt
from pipeline.request import Adapter, Control, Input, Region, Request

if TYPE_CHECKING:
    from pipeline.resolve import Models, Surroundings

MAX_SIDE = 8192
"""Pixels a side that an upscaler may make."""


class Prompt(NamedTuple):
    """A prompt and the language model that wrote it; empty: a person or a template."""

    text: str
    writer: str = ""


@dataclass(frozen=True)
class Needs:
    """What a mode takes: model kinds, which inputs it must have, and the default strength."""

    kinds: tuple[Kind, ...] = ("text-to-image",)
    image: bool = False
    mask: bool = False
    expand: bool = False
    controls: bool = False
    strength: float | None = None


MODES: Mapping[str, Needs] = {
    "text-to-image": Needs(),
    "image-to-image": Needs(image=True, strength=0.6),
    "variation": Needs(image=True, strength=0.5),
    "inpainting": Needs(("inpainting", "text-to-image"), image=True, mask=True, strength=1.0),
    "outpainting": Needs(("inpainting", "text-to-image"), image=True, expand=True, strength=1.0),
    "depth-to-image": Needs(("depth-to-image", "text-to-image"), strength=1.0),
    "controlnet": Needs(controls=True),
    "upscaling": Needs(("upscaling", "latent-upscaling", "text-to-image"), image=True),
}
FACTOR = {"upscaling": 4, "latent-upscaling": 2}
"""How many times larger each kind of upscaler makes a side."""


class _Source(NamedTuple):
    """The picture a step starts from: as an input, and its size in pixels."""

    input: Input
    width: int
    height: int


class Steps:
    """The steps of one item. Pictures are opened once and serve all of its images."""

    def __init__(
        self,
        brief: Brief,
        item: Item,
        models: Models,
        around: Surroundings,
        templates: Mapping[str, Render | None],
        faults: list[Fault],
    ):
        """Faults of the item are added to `faults`."""
        self._brief, self._item, self._models, self._around = brief, item, models, around
        self._templates, self._faults = templates, faults
        self._opened: dict[tuple[str, str], Picture | None] = {}
        self._number = 0
        self.pictures: dict[str, Picture] = {}

    def chain(self, prompt: Prompt, index: int) -> list[Request]:
        """Requests of all steps for image `index`, seeds still 0; empty where one is at fault.

        Inputs that are earlier steps name them by the id they have so far.
        """
        before = len(self._faults)
        made: list[Request] = []
        then = self._item.settings.then
        for number, settings in enumerate((self._item.settings, *map(self._next, then))):
            self._number = number
            own = self._step_prompt(settings, prompt)
            source = _made_by(made[-1], number) if made else None
            steps = self._step(settings, own, index, source, number)
            if not steps:
                break
            made += steps
        # Every image of an item has the same faults; one telling is enough.
        if len(self._faults) > before:
            return []
        return made

    def _next(self, step: NextStep) -> NextStep:
        """A further step with the item's model where it names none."""
        if "model" in step.model_fields_set:
            return step
        return step.model_copy(update={"model": self._item.settings.model})

    def _step_prompt(self, settings: StepSettings, prompt: Prompt) -> Prompt:
        if not isinstance(settings, NextStep) or not settings.prompt:
            return prompt
        render = self._templates.get(settings.prompt)
        if render is None:
            return prompt
        where = f"{self._item.where}, then"
        return Prompt(render_prompt(render, self._item.columns, where, self._faults))

    def _step(
        self,
        settings: StepSettings,
        prompt: Prompt,
        index: int,
        source: _Source | None,
        number: int,
    ) -> list[Request]:
        needs = MODES[settings.mode]
        model = self._models.get(settings.model, needs.kinds, self._item, "model", self._faults)
        if model is not None and settings.mode == "upscaling" and model.kind == "text-to-image":
            model = self._named(model, "upscaler", ("upscaling", "latent-upscaling"))
        before = source
        source = source or self._image(settings, needs)
        self._missing(settings, needs)
        if settings is self._item.settings:
            self._superfluous(settings, needs)
        if model is None:
            return []
        if needs.image and source is None:
            if not self._faults:
                self._fault("image", f"{settings.mode} needs an input picture", "name its file")
            return []
        if settings.mode == "text-to-image":
            source = None
        width, height = _size(settings, model, source)
        base = None
        if _beyond(settings, model, width, height):
            base = (width, height)
            width, height = _quarter(width), _quarter(height)
        request = self._request(settings, model, prompt, index, source, width, height, number)
        if request is None:
            return []
        used = {each.sha256 for each in request.inputs}
        if before and before.input.sha256 not in used and not self._faults:
            what = f"{settings.mode} would not use the picture of the step before"
            remedy = "drop control_image or depth_image, or make it an item of its own"
            self._fault("mode", what, remedy)
            return []
        self._check(request)
        if base is None:
            return [request]
        larger = self._named(model, "upscaler", ("upscaling", "latent-upscaling"))
        if larger is None:
            return []
        scaled = self._sampling(
            StepSettings(mode="upscaling"), larger, prompt, index, base[0], base[1]
        )
        return [request, replace(scaled, inputs=(_made_by(request, number + 1).input,))]

    def _request(
        self,
        settings: StepSettings,
        model: Model,
        prompt: Prompt,
        index: int,
        source: _Source | None,
        width: int,
        height: int,
        number: int,
    ) -> Request | None:
        needs = MODES[settings.mode]
        inputs: list[Input] = [source.input] if source else []
        strength = None if needs.strength is None else settings.strength or needs.strength
        region, controls = None, []
        if settings.mode == "inpainting":
            region = self._region(settings.mask, model, source, (width, height), inputs)
        elif settings.mode == "outpainting" and settings.expand:
            left, top, right, bottom = settings.expand
            if left + right >= width - 8 or top + bottom >= height - 8:
                what = f"expand leaves nothing of {width}×{height} for the picture"
                self._fault("expand", what, "make it smaller, or the image larger")
            region = Region("border", settings.expand)
        if region and model.kind == "text-to-image" and model.inpainting:
            hole = self._named(model, "inpainting", ("controlnet",))
            controls += [Control(hole.name, hole.revision, "hole")] if hole else []
        if settings.mode == "depth-to-image":
            controls += self._depth(model, source, inputs)
            if model.kind == "text-to-image":
                strength = None
        if settings.mode == "controlnet":
            controls += self._controls(settings, model, source, inputs)
            inputs = [each for each in inputs if each.role == "control"]
        made = self._sampling(settings, model, prompt, index, width, height)
        return replace(
            made,
            inputs=tuple(inputs),
            strength=strength,
            region=region,
            controls=tuple(controls),
            adapters=self._adapters(settings, model),
        )

    def _sampling(
        self,
        settings: StepSettings,
        model: Model,
        prompt: Prompt,
        index: int,
        width: int,
        height: int,
    ) -> Request:
        """What every mode has: prompt, size and sampling."""
        return Request(
            sku=self._item.sku,
            index=index,
            mode=settings.mode,
            model=model.name,
            model_revision=model.revision,
            prompt=prompt.text,
            negative_prompt=settings.negative_prompt,
            seed=0,
            width=width,
            height=height,
            steps=settings.steps or model.steps,
            guidance=model.guidance if settings.guidance is None else settings.guidance,
            scheduler=model.sampler,
            campaign=self._brief.campaign,
            client=self._brief.client,
            prompt_syntax=settings.prompt_syntax,
            prompt_writer=prompt.writer,
        )

    def _image(self, settings: StepSettings, needs: Needs) -> _Source | None:
        """The item's own picture: a file or an asset."""
        own = self._item.settings
        if own.image and own.asset:
            self._fault("asset", "both image and asset are given", "give one of them")
        if settings.mode == "variation" and own.image:
            self._fault("image", "a variation is made of an asset", "use image-to-image for files")
            return None
        if own.asset:
            picture = self._open("asset", own.asset)
        elif own.image:
            picture = self._open("image", own.image)
        else:
            if needs.image:
                column = "asset" if settings.mode == "variation" else "image"
                self._fault(column, f"{settings.mode} needs an input picture", f"fill `{column}`")
            return None
        if picture is None:
            return None
        return _Source(self._input("image", picture), picture.width, picture.height)

    def _open(self, column: str, name: str) -> Picture | None:
        """A picture, looked at once, its use allowed by its own marks or the policy."""
        if (column, name) not in self._opened:
            where, around = self._where(column), self._around
            if column == "asset":
                found = open_asset(name, around.find_asset, where, around.anchors, self._faults)
            else:
                found = open_picture(self._brief.folder, name, where, around.anchors, self._faults)
            for says in around.forbidden(found) if found else ():
                remedy = "use another, or let the policy (`inputs.restricted`, `licences`) allow it"
                self._faults.append(Fault(f"{name}: {says}", where, remedy))
            # The same bytes may be named as a file too: what is known of an asset stays known.
            if found and (found.asset or found.sha256 not in self.pictures):
                self.pictures[found.sha256] = found
            self._opened[column, name] = found
        return self._opened[column, name]

    def _input(self, role: str, picture: Picture) -> Input:
        source = "asset" if picture.asset else "file"
        return Input(role, source, picture.sha256, picture.name)  # type: ignore[arg-type]

    def _region(
        self,
        mask: MaskSetting | None,
        model: Model,
        source: _Source | None,
        size: tuple[int, int],
        inputs: list[Input],
    ) -> Region | None:
        if mask is None:
            remedy = "a file, `background`, `object` or `box x y w h`"
            self._fault("mask", "inpainting needs a mask", remedy)
            return None
        if mask.kind == "box":
            x, y, wide, high = mask.box
            if x + wide > size[0] or y + high > size[1]:
                what = f"the box ends at {x + wide}, {y + high}, outside {size[0]}×{size[1]}"
                self._fault("mask", what, "give the box in pixels of the finished image")
            return Region("box", mask.box)
        if mask.kind == "file":
            picture = self._open("mask", str(mask.file))
            if picture and source and (picture.width, picture.height) != source[1:]:
                what = (
                    f"the mask is {picture.width}×{picture.height}, "
                    f"its image {source.width}×{source.height}"
                )
                self._fault("mask", what, "give both the same size")
            inputs += [self._input("mask", picture)] if picture else []
            return Region("file")
        tool = self._tool(model, "segmentation", "mask")
        return Region(mask.kind, (), tool.name, tool.revision) if tool else None

    def _depth(self, model: Model, source: _Source | None, inputs: list[Input]) -> list[Control]:
        given = self._item.settings.depth_image
        picture = self._open("depth_image", given) if given else None
        if source is None and not given:
            self._fault("image", "depth-to-image needs a picture or a depth picture", "fill one")
            return []
        if model.kind == "depth-to-image":
            if source is None:
                what = f"model {model.name} starts from a photo"
                self._fault("image", what, "fill `image` as well")
            inputs += [self._input("depth", picture)] if picture else []
            return []
        control = self._named(model, "depth", ("controlnet",))
        inputs[:] = [replace(source.input, role="control")] if source and not picture else []
        if picture:
            inputs.append(self._input("control", picture))
        if control is None:
            return []
        if picture:
            return [Control(control.name, control.revision)]
        tool = self._tool(model, "depth", "image")
        if tool is None:
            return []
        return [Control(control.name, control.revision, "depth", 1.0, tool.name, tool.revision)]

    def _controls(
        self, settings: StepSettings, model: Model, source: _Source | None, inputs: list[Input]
    ) -> list[Control]:
        names = settings.control_image
        if len(names) not in (0, len(settings.controls)):
            what = f"{len(names)} control pictures for {len(settings.controls)} controls"
            self._fault("control_image", what, "one a control, in their order")
            return []
        if not names and source is None:
            self._fault("control_image", "controlnet needs a control picture", "name its file")
            return []
        controls = []
        for number, each in enumerate(settings.controls):
            found = self._models.get(
                each.model, ("controlnet",), self._item, "controls", self._faults
            )
            if found:
                self._fits(found, model, "controls")
            if names:
                picture = self._open("control_image", names[number])
                inputs += [self._input("control", picture)] if picture else []
            elif source:
                inputs.append(replace(source.input, role="control"))
            tool = None
            if each.preprocessor in ("depth", "segmentation"):
                tool = self._tool(model, each.preprocessor, "controls")
            if found:
                made = Control(found.name, found.revision, each.preprocessor, each.scale)
                made = replace(made, tool=tool.name, tool_revision=tool.revision) if tool else made
                controls.append(made)
        return controls

    def _adapters(self, settings: StepSettings, model: Model) -> tuple[Adapter, ...]:
        made = []
        for each in settings.adapters:
            kinds: tuple[Kind, ...] = ("lora", "textual-inversion")
            found = self._models.get(each.name, kinds, self._item, "adapters", self._faults)
            if found:
                self._fits(found, model, "adapters")
                file = found.file or ""
                made.append(Adapter(found.name, found.revision, each.weight, file, found.token))
        return tuple(made)

    def _fits(self, part: Model, model: Model, column: str) -> None:
        if part.base and model.name not in part.base:
            what = f"{part.name} was made for {', '.join(part.base)}, not for {model.name}"
            self._fault(column, what, "use it with its own model")

    def _named(self, model: Model, key: str, kinds: tuple[Kind, ...]) -> Model | None:
        """The model that another's entry names under `key`."""
        name = getattr(model, key)
        if not name:
            what = f"model {model.name} names no `{key}`"
            self._fault("model", what, f"add `{key}:` to its entry in the models file")
            return None
        return self._models.get(name, kinds, self._item, "model", self._faults)

    def _tool(self, model: Model, tool: str, column: str) -> Model | None:
        kind: Kind = "depth-estimator" if tool == "depth" else "segmenter"
        name = model.tools.get(tool)
        if not name:
            what = f"model {model.name} names no tool for {tool}"
            self._fault(column, what, f"add `tools: {{{tool}: …}}` to its entry, or give a file")
            return None
        return self._models.get(name, (kind,), self._item, column, self._faults)

    def _check(self, request: Request) -> None:
        """What would only show when the image is made."""
        if request.strength is not None and int(request.steps * request.strength) < 1:
            what = f"strength {request.strength:g} of {request.steps} steps leaves none"
            self._fault("strength", what, "raise strength or steps")
        if max(request.width, request.height) > MAX_SIDE:
            what = f"{request.width}×{request.height} is more than {MAX_SIDE} a side"
            self._fault("image", what, "use a smaller picture")
        if request.prompt_syntax == "compel":
            for column in ("prompt", "negative_prompt"):
                if problem := _syntax(getattr(request, column)):
                    self._fault(column, problem, "mend the weights, or use prompt_syntax: plain")

    def _superfluous(self, settings: StepSettings, needs: Needs) -> None:
        """What the row itself gives and its mode would silently ignore."""
        used = {
            "mask": needs.mask,
            "expand": needs.expand,
            "controls": needs.controls,
            "control_image": needs.controls,
            "strength": needs.strength is not None,
            "depth_image": settings.mode == "depth-to-image",
            "image": settings.mode != "text-to-image" and not settings.control_image,
            "asset": settings.mode != "text-to-image" and not settings.control_image,
        }
        for column, is_used in used.items():
            if not is_used and self._item.columns.get(column) not in (None, ""):
                self._fault(column, f"{settings.mode} does not use it", "empty it, or change mode")

    def _missing(self, settings: StepSettings, needs: Needs) -> None:
        if needs.controls and not settings.controls:
            self._fault("controls", "controlnet needs controls", "e.g. MODEL:edges")
        if needs.expand and not settings.expand:
            self._fault("expand", "outpainting needs `expand`", "left top right bottom, in pixels")

    def _fault(self, column: str, what: str, remedy: str) -> None:
        fault = Fault(what, self._where(column), remedy)
        if fault not in self._faults:
            self._faults.append(fault)

    def _where(self, column: str) -> str:
        place = f"then {self._number}, {column}" if self._number else f"column {column}"
        return f"{self._item.where}, {place}"


def _made_by(request: Request, number: int) -> _Source:
    """The picture that an earlier step makes."""
    made = Input("image", "step", request.request_id, f"step {number}: {request.mode}")
    return _Source(made, request.width, request.height)


def _size(settings: StepSettings, model: Model, source: _Source | None) -> tuple[int, int]:
    """The finished size: as asked, else by the input's shape, else the model's own."""
    width, height = settings.asked_size
    if settings.mode == "upscaling" and source:
        factor = FACTOR[model.kind]
        own = source.width * factor, source.height * factor
        return width or _eighth(own[0]), height or _eighth(own[1])
    if source is None or (width and height):
        return width or model.width, height or model.height
    if width or height:
        # The other side follows the input's shape.
        scale = width / source.width if width else (height or 0) / source.height
        return (
            width or max(64, _eighth(source.width * scale)),
            height or max(64, _eighth(source.height * scale)),
        )
    # As many pixels as the model was made for, in the input's shape.
    scale = (model.width * model.height / (source.width * source.height)) ** 0.5
    scale = min(scale, 1.0) if source.width * source.height >= 64 * 64 else scale
    return max(64, _eighth(source.width * scale)), max(64, _eighth(source.height * scale))


def _eighth(side: float) -> int:
    """The nearest multiple of 8 that is not larger, 8 at least."""
    return max(8, int(side + 0.5) // 8 * 8)


def _quarter(side: int) -> int:
    return max(64, -(-side // 32) * 8)


def _beyond(settings: StepSettings, model: Model, width: int, height: int) -> bool:
    """Whether a size is so far beyond the model's own that its upscaler makes it."""
    painting = settings.mode in ("text-to-image", "image-to-image", "variation", "controlnet")
    painting = painting or settings.mode == "depth-to-image"
    return bool(
        painting and model.upscaler and (width > 2 * model.width or height > 2 * model.height)
    )


def _syntax(prompt: str) -> str | None:
    from pipeline.generate.prompt_embeddings import check_syntax

    return check_syntax(prompt[:MAX_PROMPT])
