"""The base of an adapter: a Stable Diffusion 1.x/2.x pipeline, refused when of another layout.

Noise schedule and prediction are those of the checkpoint's own scheduler, or of the one that the
models file declares over it.
"""

from __future__ import annotations

from typing import Any

from pipeline.errors import SetupError
from pipeline.generate.loading import quiet, scheduler_for
from pipeline.models import Model

_PREDICTIONS = ("epsilon", "v_prediction", "sample")


def load_base(model: Model, dtype: Any) -> Any:
    """The base's pipeline, quiet. Raises SetupError when it does not load or has another layout."""
    import diffusers

    quiet()
    if model.components:
        raise SetupError(
            f"model {model.name!r} has parts in other folders ({', '.join(model.components)}); "
            f"save it as one folder to train an adapter of it"
        )
    loader: Any = diffusers.StableDiffusionPipeline
    pinned = {
        "revision": None if model.is_folder else model.revision,
        "local_files_only": model.is_folder,
    }
    try:
        kind = loader.load_config(model.source, **pinned).get("_class_name")
        if kind != "StableDiffusionPipeline":
            raise SetupError(
                f"model {model.name!r} is a {kind}; adapters can be trained for "
                f"StableDiffusionPipeline checkpoints (Stable Diffusion 1.x and 2.x) so far"
            )
        pipe = loader.from_pretrained(
            model.source, dtype=dtype, use_safetensors=True, safety_checker=None, **pinned
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        place = "the folder" if model.is_folder else "the hub"
        raise SetupError(
            f"model {model.name!r} does not load from {place} {model.source!r}: {error}"
        ) from error
    pipe.scheduler = scheduler_for(pipe.scheduler, model.sampler)
    prediction = pipe.scheduler.config.get("prediction_type")
    if not hasattr(pipe.scheduler, "alphas_cumprod") or prediction not in _PREDICTIONS:
        raise SetupError(
            f"model {model.name!r}: scheduler {type(pipe.scheduler).__name__} with prediction "
            f"{prediction!r} cannot be trained against; {', '.join(_PREDICTIONS)} can"
        )
    if pipe.unet.config.in_channels != pipe.unet.config.out_channels:
        raise SetupError(f"model {model.name!r} takes more than latents: an inpainting UNet?")
    pipe.set_progress_bar_config(disable=True)
    return pipe
