"""A request's input pictures → what a pipeline takes: at size, with masks and control pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import SetupError
from pipeline.generate import Kept
from pipeline.generate.tools import DepthEstimator, Segmenter, edges
from pipeline.images import RgbImage
from pipeline.inputs import InputStore
from pipeline.models import Model
from pipeline.request import Input, Request


class Pictures:
    """Reads the inputs of requests. Tools are loaded on first use and kept while they are used."""

    def __init__(self, store: InputStore, models: Mapping[str, Model], device: str):
        """`models` by name hold the tools."""
        self._store, self._models, self._device = store, models, device
        self._tools: dict[str, Any] = {}

    def image(self, request: Request) -> RgbImage:
        """The input picture at the request's size."""
        return fitted(self._pixels(_one(request, "image")), request.width, request.height)

    def small(self, request: Request, factor: int) -> RgbImage:
        """The input picture at the size that an upscaler starts from."""
        width, height = -(-request.width // factor), -(-request.height // factor)
        return fitted(self._pixels(_one(request, "image")), width, height)

    def depth(self, request: Request) -> NDArray[np.float32] | None:
        """The given depth picture at the request's size, float32 [H, W] in 0..1, near is 1."""
        found = [each for each in request.inputs if each.role == "depth"]
        if not found:
            return None
        grey = fitted(self._pixels(found[0]), request.width, request.height).mean(2)
        near: NDArray[np.float32] = (grey / 255).astype(np.float32)
        return near

    def kept(self, request: Request) -> Kept:
        """The picture that an edit starts from, and where it may change."""
        region = request.region
        if region is None:
            raise ValueError(f"{request.mode} without a region")
        width, height = request.width, request.height
        if region.kind == "border":
            left, top, right, bottom = region.box
            inner = fitted(
                self._pixels(_one(request, "image")), width - left - right, height - top - bottom
            )
            widths = ((top, bottom), (left, right))
            original = np.pad(inner, (*widths, (0, 0)), mode="edge")
            mask = np.pad(np.zeros(inner.shape[:2], np.float32), widths, constant_values=1.0)
            return Kept(original, mask)
        original = self.image(request)
        if region.kind == "box":
            x, y, wide, high = region.box
            mask = np.zeros((height, width), np.float32)
            mask[y : y + high, x : x + wide] = 1
        elif region.kind == "file":
            grey = fitted(self._pixels(_one(request, "mask")), width, height).mean(2)
            mask = (grey / 255).astype(np.float32)
        else:
            found = self._tool(region.tool, Segmenter).object(original)
            mask = 1 - found if region.kind == "background" else found
            return Kept(original, mask, nothing_found=not found.any())
        return Kept(original, mask)

    def controls(self, request: Request, kept: Kept | None) -> list[NDArray[np.float32]]:
        """The picture of each control, float32 [3, H, W] in 0..1; an inpainting hole is -1."""
        pictures = iter(each for each in request.inputs if each.role == "control")
        made = []
        for control in request.controls:
            if control.preprocessor == "hole":
                if kept is None:
                    raise ValueError("a hole without a region")
                whole = np.where(kept.repainted[..., None] >= 0.5, -1.0, kept.original / 255)
                made.append(whole.astype(np.float32).transpose(2, 0, 1))
                continue
            picture = fitted(self._pixels(next(pictures)), request.width, request.height)
            drawn = self._drawn(control.preprocessor, control.tool, picture)
            made.append((drawn / 255).astype(np.float32).transpose(2, 0, 1))
        return made

    def _drawn(self, preprocessor: str, tool: str, picture: RgbImage) -> RgbImage:
        if preprocessor == "edges":
            return edges(picture)
        if preprocessor == "depth":
            depth: RgbImage = self._tool(tool, DepthEstimator)(picture)
            return depth
        if preprocessor == "segmentation":
            classes: RgbImage = self._tool(tool, Segmenter)(picture)
            return classes
        return picture

    def _tool(self, name: str, kind: Callable[[Model, str], Any]) -> Any:
        if name not in self._tools:
            self._tools[name] = kind(self._models[name], self._device)
        return self._tools[name]

    def _pixels(self, given: Input) -> RgbImage:
        sha256 = given.sha256
        if given.source == "step":
            found = self._store.step(sha256)
            if found is None:
                raise SetupError(f"{given.name} of this chain has not been made")
            sha256 = found
        return self._store.pixels(sha256)


def fitted(picture: RgbImage, width: int, height: int) -> RgbImage:
    """The picture at width × height: cut to the shape from its middle, then resized (Lanczos)."""
    high, wide = picture.shape[:2]
    if (wide, high) == (width, height):
        return picture
    scale = max(width / wide, height / high)
    cut_wide, cut_high = min(wide, width / scale), min(high, height / scale)
    left, top = (wide - cut_wide) / 2, (high - cut_high) / 2
    box = (left, top, left + cut_wide, top + cut_high)
    resized = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS, box=box)
    return np.asarray(resized)


def _one(request: Request, role: str) -> Input:
    return next(each for each in request.inputs if each.role == role)
