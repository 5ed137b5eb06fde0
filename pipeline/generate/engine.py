"""The diffusers engine: one batch of any mode → its images. Seeds mean the same anywhere."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.generate import Generated, Kept
from pipeline.generate.device import Device
from pipeline.generate.loading import Loader, scheduler_for
from pipeline.generate.prepare import Pictures
from pipeline.generate.prompt_embeddings import PromptEmbedder, supports_weighting
from pipeline.generate.tiles import faithful, upscaled
from pipeline.images import RgbImage
from pipeline.inputs import InputStore
from pipeline.models import Model
from pipeline.plan import Batch
from pipeline.request import Request
from pipeline.resolve_step import FACTOR


class Diffusers:
    """Makes every mode's images. One generator an image, on the CPU; one model loaded at a time."""

    def __init__(
        self, models: Mapping[str, Model], store: InputStore, device: Device, batch_size: int
    ):
        """`models` by name, `store` holds the inputs; every forward pass is of `batch_size`."""
        self._models, self._device, self._batch_size = models, device, batch_size
        self._loader = Loader(models, device)
        self._pictures = Pictures(store, models, device.name)
        self._embedders: dict[tuple[int, bool], PromptEmbedder] = {}
        self._adapters: object = ()
        self._model = ""

    @property
    def loads(self) -> int:
        """How many times a model was loaded."""
        return self._loader.loads

    def load(self, batch: Batch) -> None:
        """Load what `batch` needs. Raises SetupError when it does not load."""
        self._pipeline(batch.requests[0])

    def __call__(self, batch: Batch) -> Generated:
        """The images of a batch, whose requests are alike in everything but their own content."""
        requests = batch.requests
        pipeline = self._pipeline(requests[0])
        pipeline.scheduler = self._scheduler(requests[0])
        kind = self._models[requests[0].model].kind
        kept = [self._pictures.kept(each) if each.region else None for each in requests]
        made: list[RgbImage | None] = [None] * len(requests)
        for indices in self._alike(pipeline, requests):
            if kind in FACTOR:
                large = self._upscaled(pipeline, [requests[i] for i in indices], kind)
                for index, picture in zip(indices, large, strict=True):
                    made[index] = picture
                continue
            # A smaller pass takes other kernels, whose rounding differs: a batch that is not full
            # is filled up, so that an image is the same whoever its neighbours are.
            filled = indices + [indices[-1]] * (self._batch_size - len(indices))
            pixels = self._pass(pipeline, [requests[i] for i in filled], [kept[i] for i in filled])
            for place, index in enumerate(indices):
                made[index] = _put_back(pixels[place], kept[index])
        return Generated(np.stack([each for each in made if each is not None]), tuple(kept))

    def _pipeline(self, first: Request) -> Any:
        # Embedders hold the pipeline of the model that goes.
        if self._model != first.model:
            self._embedders, self._model = {}, first.model
        return self._loader.pipeline(first)

    def _alike(self, pipeline: Any, requests: Sequence[Request]) -> list[list[int]]:
        """Indices of requests that one pass can hold.

        Their inputs are of the same roles (a depth picture is given or guessed), their weighted
        prompts of one length.
        """
        weighted = requests[0].prompt_syntax != "plain"
        embedder = self._embedder(pipeline, requests[0]) if weighted else None
        groups: dict[tuple[object, ...], list[int]] = {}
        for index, each in enumerate(requests):
            roles = tuple(given.role for given in each.inputs)
            chunks = embedder.chunks(each.prompt, each.negative_prompt) if embedder else 1
            groups.setdefault((roles, chunks), []).append(index)
        return list(groups.values())

    def _pass(
        self, pipeline: Any, requests: Sequence[Request], kept: Sequence[Kept | None]
    ) -> NDArray[np.uint8]:
        first = requests[0]
        taken = inspect.signature(pipeline.__call__).parameters
        width, height = first.width, first.height
        more = tuple(-side % self._multiple(pipeline) for side in (height, width))
        offered: dict[str, Any] = {
            "width": width + more[1],
            "height": height + more[0],
            "num_inference_steps": first.steps,
            "guidance_scale": first.guidance,
            "output_type": "np",
        }
        if first.strength is not None:
            offered["strength"] = first.strength
        if first.region:
            offered["image"] = [Image.fromarray(_framed(k.original, more)) for k in kept if k]
            masks = [(k.repainted * 255).round().astype(np.uint8) for k in kept if k]
            offered["mask_image"] = [Image.fromarray(_framed(each, more)) for each in masks]
        elif first.mode in ("image-to-image", "variation") or _photo_and_depth(first):
            pictures = [_framed(self._pictures.image(each), more) for each in requests]
            offered["image"] = [Image.fromarray(each) for each in pictures]
        if _photo_and_depth(first) and first.inputs[-1].role == "depth":
            offered["depth_map"] = self._depths(requests)
        if first.controls:
            offered |= self._controls(requests, kept, "control_image" in taken, more)
        calls = {name: value for name, value in offered.items() if name in taken}
        made = self._called(pipeline, requests, calls)
        top, left = more[0] // 2, more[1] // 2
        return made[:, top : top + height, left : left + width]

    @staticmethod
    def _multiple(pipeline: Any) -> int:
        """Sides that a family makes: transformers halve the latents once more."""
        return 16 if getattr(pipeline, "transformer", None) is not None else 8

    def _called(
        self, pipeline: Any, requests: Sequence[Request], calls: Mapping[str, Any]
    ) -> NDArray[np.uint8]:
        images = pipeline(
            **self._prompts(pipeline, requests), generator=_generators(requests), **calls
        ).images
        return np.asarray((np.asarray(images) * 255).round().clip(0, 255), dtype=np.uint8)

    def _prompts(self, pipeline: Any, requests: Sequence[Request]) -> dict[str, Any]:
        prompts = [each.prompt for each in requests]
        negatives = [each.negative_prompt for each in requests]
        if embedder := self._embedder(pipeline, requests[0]):
            made = embedder(prompts, negatives)
            zeroed = getattr(pipeline.config, "force_zeros_for_empty_prompt", False)
            for name in [name for name in made if name.startswith("negative")]:
                if zeroed and not requests[0].negative_prompt:
                    made[name] = made[name] * 0
            return dict(made)
        taken = inspect.signature(pipeline.__call__).parameters
        # SDXL zeroes the embedding of a negative prompt that is not given, not of an empty one.
        if not requests[0].negative_prompt:
            return {"prompt": prompts}
        # FLUX accepts a negative prompt and ignores it.
        if "true_cfg_scale" in taken or "negative_prompt" not in taken:
            raise ValueError(
                f"{type(pipeline).__name__} takes no negative prompt; leave negative_prompt empty"
            )
        return {"prompt": prompts, "negative_prompt": negatives}

    def _embedder(self, pipeline: Any, first: Request) -> PromptEmbedder | None:
        """Embeds prompts beforehand where they are weighted, or kept by a declared cache."""
        weighted = first.prompt_syntax == "compel"
        memory = self._models[first.model].memory_on(self._device.name)
        if not weighted and not (memory.prompt_cache and supports_weighting(pipeline)):
            return None
        # The same words mean other embeddings under other adapters.
        if self._adapters != (first.model, first.adapters):
            self._embedders = {}
            self._adapters = (first.model, first.adapters)
        key = (id(pipeline), weighted)
        if key not in self._embedders:
            self._embedders[key] = PromptEmbedder(pipeline, weighted, memory.prompt_cache)
        return self._embedders[key]

    def _controls(
        self,
        requests: Sequence[Request],
        kept: Sequence[Kept | None],
        named: bool,
        more: tuple[int, ...],
    ) -> dict[str, Any]:
        import torch

        drawn = [self._pictures.controls(each, k) for each, k in zip(requests, kept, strict=True)]
        framed = [[_framed(picture, (0, *more)) for picture in each] for each in drawn]
        stacked = [torch.from_numpy(np.stack(each)) for each in zip(*framed, strict=True)]
        scales = [float(each.scale) for each in requests[0].controls]
        several = len(stacked) > 1
        return {
            "control_image" if named else "image": stacked if several else stacked[0],
            "controlnet_conditioning_scale": scales if several else scales[0],
        }

    def _depths(self, requests: Sequence[Request]) -> Any:
        import torch

        maps = [self._pictures.depth(each) for each in requests]
        return torch.from_numpy(np.stack([each for each in maps if each is not None]))

    def _upscaled(self, pipeline: Any, requests: Sequence[Request], kind: str) -> NDArray[np.uint8]:
        """Each picture enlarged, in tiles where it is larger than the model's own size."""
        first, factor = requests[0], FACTOR[kind]
        model = self._models[first.model]
        taken = inspect.signature(pipeline.__call__).parameters
        calls = {"num_inference_steps": first.steps, "guidance_scale": first.guidance}
        calls = {name: value for name, value in calls.items() if name in taken}

        def enlarge(tiles: list[tuple[Request, RgbImage]]) -> NDArray[np.uint8]:
            own = [request for request, _ in tiles]
            pictures = [Image.fromarray(tile) for _, tile in tiles]
            return self._called(pipeline, own, {**calls, "image": pictures, "output_type": "np"})

        pictures = [(each, self._pictures.small(each, factor)) for each in requests]
        side = (model.height // factor, model.width // factor)
        large = upscaled(pictures, enlarge, factor, side, self._batch_size)
        whole = [
            faithful(each, small, factor) for each, (_, small) in zip(large, pictures, strict=True)
        ]
        return np.stack([each[: first.height, : first.width] for each in whole])

    def _scheduler(self, first: Request) -> Any:
        return scheduler_for(self._loader.scheduler, first.scheduler)


def _generators(requests: Sequence[Request]) -> list[Any]:
    import torch

    return [torch.Generator("cpu").manual_seed(each.seed) for each in requests]


def _photo_and_depth(request: Request) -> bool:
    """Depth-to-image by a model of its own, which starts from the photo."""
    return request.mode == "depth-to-image" and not request.controls


def _framed(picture: NDArray[Any], more: tuple[int, ...]) -> NDArray[Any]:
    """The picture with its edge repeated around it, by `more` pixels along each of the first axes.

    Offered smaller than what is painted, it would be stretched, and lie beside its mask.
    """
    widths = [(each // 2, each - each // 2) for each in more]
    return np.pad(picture, widths + [(0, 0)] * (picture.ndim - len(more)), mode="edge")


def _put_back(made: RgbImage, kept: Kept | None) -> RgbImage:
    """The made picture with the original's pixels wherever nothing was to change.

    The autoencoder alters every pixel, also those that were not repainted.
    """
    if kept is None:
        return made
    share = kept.repainted[..., None]
    mixed = made * share + kept.original * (1 - share)
    result: RgbImage = mixed.round().clip(0, 255).astype(np.uint8)
    return result
