"""Loads diffusers pipelines from folders or pinned hub revisions, as the models file declares.

Modes of one model share its loaded parts; one model is loaded at a time.
"""

from __future__ import annotations

import gc
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import SetupError
from pipeline.generate.device import Device
from pipeline.models import Memory, Model
from pipeline.plan import pipeline_key
from pipeline.request import Adapter, Request

_CLASSES = {
    "text-to-image": "AutoPipelineForText2Image",
    "controlnet": "AutoPipelineForText2Image",
    "image-to-image": "AutoPipelineForImage2Image",
    "variation": "AutoPipelineForImage2Image",
    "inpainting": "AutoPipelineForInpainting",
    "outpainting": "AutoPipelineForInpainting",
    "depth-to-image": "AutoPipelineForText2Image",
}
_CLASSES_BY_KIND = {
    "depth-to-image": "StableDiffusionDepth2ImgPipeline",
    "upscaling": "StableDiffusionUpscalePipeline",
    "latent-upscaling": "StableDiffusionLatentUpscalePipeline",
}
# What diffusers and transformers raise for folders that hold something else.
_LOAD_ERRORS = (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError)


class Loader:
    """The pipelines of the model that is loaded now. Another model's request replaces them all."""

    def __init__(self, models: Mapping[str, Model], device: Device):
        """`models` by name: those that make images, their ControlNets and adapters."""
        self._models, self._device = models, device
        self._model: tuple[str, str] | None = None
        self._parts: dict[str, Any] = {}
        self._controls: dict[str, Any] = {}
        self._pipelines: dict[tuple[object, ...], Any] = {}
        self._adapters: tuple[Adapter, ...] = ()
        self._loras: set[str] = set()
        self.loads = 0
        """How many models were loaded so far."""

    def pipeline(self, request: Request) -> Any:
        """The pipeline that makes `request`, with its adapters switched on.

        Raises SetupError when a folder or the hub does not give what is declared.
        """
        quiet()
        model = self._models[request.model]
        if self._model != (model.name, model.revision):
            self.unload()
            self._model = (model.name, model.revision)
            self.loads += 1
        key = pipeline_key(request)
        if key not in self._pipelines:
            self._pipelines[key] = self._load(model, request)
        pipeline = self._pipelines[key]
        if self._adapters != request.adapters:
            self._switch(pipeline, request.adapters)
        return pipeline

    def unload(self) -> None:
        """Let go of everything that is loaded."""
        self._parts, self._controls, self._pipelines = {}, {}, {}
        self._model, self._adapters, self._loras = None, (), set()
        gc.collect()
        if self._device.name == "cuda":
            import torch

            torch.cuda.empty_cache()

    @property
    def scheduler(self) -> Any:
        """The loaded checkpoint's own scheduler."""
        return self._parts["scheduler"]

    def _load(self, model: Model, request: Request) -> Any:
        import diffusers

        memory = model.memory_on(self._device.name)
        dtype = dtype_of(memory, self._device)
        name = _CLASSES_BY_KIND.get(model.kind) or _CLASSES[request.mode]
        given: dict[str, Any] = dict(self._parts) or _components(model, dtype)
        if request.controls:
            nets = [self._control(each.model, dtype) for each in request.controls]
            given["controlnet"] = nets if len(nets) > 1 else nets[0]
        try:
            pipeline: Any = getattr(diffusers, name).from_pretrained(
                model.source, dtype=dtype, use_safetensors=True, **_pinned(model), **given
            )
        except _LOAD_ERRORS as error:
            raise SetupError(_does_not_load(model, error)) from error
        for each in request.controls:
            _refuse_other_family(pipeline, self._controls[each.model], each.model, model)
        # Checks are the policy's and keep raw scores; the built-in checker blacks images out.
        if getattr(pipeline, "safety_checker", None) is not None:
            pipeline.safety_checker = None
        pipeline.set_progress_bar_config(disable=True)
        if not self._parts:
            _settle(pipeline, model, memory, self._device.name)
            keep = pipeline.components
            self._parts = {part: keep[part] for part in keep if part != "controlnet"}
        elif memory.offload == "none":
            pipeline.to(self._device.name)
        else:
            _offload(pipeline, memory, self._device.name)
        return pipeline

    def _control(self, name: str, dtype: Any) -> Any:
        if name not in self._controls:
            model = self._models[name]
            kind = _control_class(model)
            try:
                self._controls[name] = kind.from_pretrained(
                    model.source, dtype=dtype, use_safetensors=True, **_pinned(model)
                )
            except _LOAD_ERRORS as error:
                raise SetupError(_does_not_load(model, error)) from error
        return self._controls[name]

    def _switch(self, pipeline: Any, adapters: tuple[Adapter, ...]) -> None:
        """Put other adapters to work. LoRAs stay loaded, words of textual inversions do not."""
        kinds = {each.model: self._models[each.model].kind for each in (*self._adapters, *adapters)}
        try:
            if any(kinds[each.model] == "textual-inversion" for each in self._adapters):
                _forget_words(pipeline)
            for each in adapters:
                if kinds[each.model] == "textual-inversion":
                    _learn_word(pipeline, self._models[each.model])
            loras = [each for each in adapters if kinds[each.model] == "lora"]
            for each in loras:
                if each.model not in self._loras:
                    model = self._models[each.model]
                    label = _label(each.model)
                    pipeline.load_lora_weights(model.source, adapter_name=label, **_weights(model))
                    self._loras.add(each.model)
            if loras:
                # A LoRA of another family may load without a word and change nothing.
                if not pipeline.get_list_adapters():
                    raise ValueError("they hold no weights for it")
                pipeline.enable_lora()
                pipeline.set_adapters([_label(e.model) for e in loras], [e.weight for e in loras])
            elif self._loras:
                pipeline.disable_lora()
        except _LOAD_ERRORS as error:
            self._none(pipeline)
            names = ", ".join(each.model for each in adapters)
            raise SetupError(f"adapters {names} do not fit this model: {error}") from error
        self._adapters = adapters

    def _none(self, pipeline: Any) -> None:
        """Put no adapter to work, whatever a failed switch has left."""
        if hasattr(pipeline, "unload_textual_inversion"):
            _forget_words(pipeline)
        if self._loras and pipeline.get_list_adapters():
            pipeline.disable_lora()
        self._adapters = ()


def dtype_of(memory: Memory, device: Device) -> Any:
    """The torch dtype that a model is loaded in."""
    import torch

    return device.dtype if memory.dtype == "auto" else getattr(torch, memory.dtype)


def scheduler_for(own: Any, sampler: str) -> Any:
    """The scheduler that `sampler` (`Model.sampler`) names, over the checkpoint's own.

    Raises SetupError for a class that diffusers does not have.
    """
    if not sampler:
        return own
    import diffusers

    name, brace, changes = sampler.partition("{")
    kind = getattr(diffusers, name, None) if name else type(own)
    if kind is None or not hasattr(kind, "from_config"):
        raise SetupError(f"diffusers has no scheduler {name!r}; mend it in the models file")
    return kind.from_config(own.config, **json.loads(brace + changes or "{}"))


def _settle(pipeline: Any, model: Model, memory: Memory, device: str) -> None:
    """Put a fresh pipeline on its device, the way the models file declares."""
    import torch

    painter = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    if memory.attention == "slicing":
        _ask(pipeline, "enable_attention_slicing", model)
    for option in memory.vae:
        _ask(pipeline.vae, f"enable_{option}", model)
    if memory.channels_last and painter is not None:
        painter.to(memory_format=torch.channels_last)
    if memory.offload == "none":
        pipeline.to(device)
    else:
        _offload(pipeline, memory, device)
    if memory.compile and painter is not None:
        painter.compile()


def _offload(pipeline: Any, memory: Memory, device: str) -> None:
    if device == "cpu":
        raise SetupError("offload needs an accelerator; take it out of `memory: {cpu: …}`")
    if memory.offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.enable_sequential_cpu_offload(device=device)


def _ask(part: Any, method: str, model: Model) -> None:
    if not hasattr(part, method):
        raise SetupError(
            f"model {model.name!r}: its {type(part).__name__} has no {method}; take that option "
            f"out of its `memory`"
        )
    getattr(part, method)()


def _components(model: Model, dtype: Any) -> dict[str, Any]:
    """The parts that lie in other folders, loaded as the pipeline's index says."""
    if not model.components:
        return {}
    index = json.loads((Path(model.source) / "model_index.json").read_text(encoding="utf-8"))
    made = {}
    for part, place in model.components.items():
        if part not in index:
            raise SetupError(f"model {model.name!r}: model_index.json names no part {part!r}")
        library, name = index[part]
        kind = getattr(importlib.import_module(library), name)
        options = {} if "okenizer" in name else {"dtype": dtype}
        try:
            made[part] = kind.from_pretrained(place, local_files_only=True, **options)
        except _LOAD_ERRORS as error:
            raise SetupError(f"model {model.name!r}: {part} in {place}: {error}") from error
    return made


def _control_class(model: Model) -> Any:
    """ControlNets of the SD family, of SD3 or of FLUX, as their own configuration says."""
    import diffusers

    try:
        config: dict[str, Any] = diffusers.ControlNetModel.load_config(
            model.source, **_pinned(model)
        )
        return getattr(diffusers, str(config["_class_name"]))
    except _LOAD_ERRORS as error:
        raise SetupError(_does_not_load(model, error)) from error


def _refuse_other_family(pipeline: Any, control: Any, name: str, model: Model) -> None:
    """diffusers joins ControlNets of another family, and fails when it paints."""
    painter = getattr(pipeline, "unet", None) or pipeline.transformer
    for key in ("cross_attention_dim", "addition_embed_type", "joint_attention_dim"):
        own, other = getattr(painter.config, key, None), getattr(control.config, key, None)
        if own != other:
            raise SetupError(
                f"ControlNet {name!r} is of another family than {model.name!r}: its {key} is "
                f"{other}, not {own}; list the models that it fits under its `base`"
            )


def _learn_word(pipeline: Any, model: Model) -> None:
    """A textual inversion's word: SDXL's have vectors for each of its two text towers."""
    from diffusers.loaders import textual_inversion

    read: Any = textual_inversion.load_textual_inversion_state_dicts
    (found,) = read([model.source], **_weights(model))
    token = {"token": model.token} if model.token else {}
    if not {"clip_l", "clip_g"} <= set(found):
        pipeline.load_textual_inversion(found, **token)
        return
    if not token:
        raise ValueError(f"declare the `token` of {model.name}")
    for key, part in (("clip_l", ""), ("clip_g", "_2")):
        parts = {name: getattr(pipeline, name + part) for name in ("tokenizer", "text_encoder")}
        pipeline.load_textual_inversion(found[key], **token, **parts)


def _forget_words(pipeline: Any) -> None:
    for part in ("", "_2"):
        tower = getattr(pipeline, f"text_encoder{part}", None)
        if type(tower).__name__.startswith("CLIPText"):
            tokenizer = getattr(pipeline, f"tokenizer{part}")
            pipeline.unload_textual_inversion(tokenizer=tokenizer, text_encoder=tower)


def _pinned(model: Model) -> dict[str, Any]:
    return {
        "revision": None if model.is_folder else model.revision,
        "local_files_only": model.is_folder,
    }


def _weights(model: Model) -> dict[str, Any]:
    """How adapters are found: like models, and by the weights' file name where it is declared."""
    return {**_pinned(model), **({"weight_name": model.file} if model.file else {})}


def _label(name: str) -> str:
    """PEFT takes names as module names, which hold no dots."""
    return name.replace("_", "__").replace(".", "_d")


def _does_not_load(model: Model, error: Exception) -> str:
    place = "the folder" if model.is_folder else "the hub"
    return f"model {model.name!r} does not load from {place} {model.source!r}: {error}"


def quiet() -> None:
    """Neither bars nor notes of diffusers and transformers."""
    from diffusers.utils import logging
    from transformers.utils import logging as transformers_logging

    for library in (logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
