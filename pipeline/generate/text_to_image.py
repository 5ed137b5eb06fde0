"""Text-to-image with diffusers, from a local folder or a pinned hub revision."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SetupError
from pipeline.generate.device import Device
from pipeline.models import Model
from pipeline.plan import Batch


class TextToImage:
    """A loaded pipeline. One generator an image, on the CPU: seeds mean the same anywhere."""

    def __init__(self, model: Model, device: Device, batch_size: int):
        """Load `model`; every forward pass is of `batch_size` images.

        Raises SetupError when the folder or the hub does not give a pipeline.
        """
        import diffusers
        import torch
        from diffusers.utils import logging
        from transformers.utils import logging as transformers_logging

        for library in (logging, transformers_logging):
            library.disable_progress_bar()
            library.set_verbosity_error()
        try:
            loader: Any = diffusers.AutoPipelineForText2Image
            self._pipeline: Any = loader.from_pretrained(
                model.source,
                revision=None if model.is_folder else model.revision,
                dtype=device.dtype,
                use_safetensors=True,
                local_files_only=model.is_folder,
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            place = "the folder" if model.is_folder else "the hub"
            raise SetupError(
                f"model {model.name!r} does not load from {place} {model.source!r}: {error}"
            ) from error
        # Checks are the policy's and keep raw scores; the built-in checker blacks images out.
        if getattr(self._pipeline, "safety_checker", None) is not None:
            self._pipeline.safety_checker = None
        self._pipeline.to(device.name)
        self._pipeline.set_progress_bar_config(disable=True)
        self._torch = torch
        self._batch_size = batch_size
        self._own_scheduler = self._pipeline.scheduler

    def __call__(self, batch: Batch) -> NDArray[np.uint8]:
        """RGB images [N, H, W, 3] in the order of the batch's requests."""
        first = batch.requests[0]
        # A smaller pass takes other kernels, whose rounding differs: a batch that is not full is
        # filled up, so that an image is the same whoever its neighbours are.
        missing = self._batch_size - len(batch.requests)
        requests = batch.requests + (batch.requests[-1],) * missing
        self._pipeline.scheduler = self._scheduler(first.scheduler)
        images = self._pipeline(
            prompt=[request.prompt for request in requests],
            negative_prompt=[request.negative_prompt for request in requests],
            generator=[
                self._torch.Generator("cpu").manual_seed(request.seed) for request in requests
            ],
            width=first.width,
            height=first.height,
            num_inference_steps=first.steps,
            guidance_scale=first.guidance,
            output_type="np",
        ).images
        pixels = (images[: len(batch.requests)] * 255).round().clip(0, 255)
        return np.asarray(pixels, dtype=np.uint8)

    def _scheduler(self, name: str) -> Any:
        if not name:
            return self._own_scheduler
        import diffusers

        kind = getattr(diffusers, name, None)
        if kind is None or not hasattr(kind, "from_config"):
            raise SetupError(f"diffusers has no scheduler {name!r}; mend it in the models file")
        return kind.from_config(self._own_scheduler.config)
