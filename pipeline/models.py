"""The models file: which models there are, where they lie, under which licence, with which hash.

Model ids are configuration: pinned by revision (hub) or by the hash of their weights (folder).
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.brief_table import decode_text, load_yaml
from pipeline.errors import Fault, InputError, SetupError
from pipeline.request import canonical_json
from pipeline.settings import ROOT
from pipeline.weights import weights_sha256

SHIPPED = (ROOT / "pipeline" / "models.yaml", ROOT / "starter" / "models.yaml")

Kind = Literal[
    "text-to-image",
    "inpainting",
    "depth-to-image",
    "upscaling",
    "latent-upscaling",
    "controlnet",
    "lora",
    "textual-inversion",
    "depth-estimator",
    "segmenter",
    "open-clip",
    "image-classifier",
    "safety-checker",
    "copy-descriptor",
]
"""What a model is for. A text-to-image model also serves image-to-image, inpainting, variations
and, beside ControlNets, every controlled mode."""
Tool = Literal["depth", "segmentation"]
"""Preprocessors and masks that need a model of their own."""


class Memory(BaseModel):
    """How a model is loaded on one kind of device: what it costs in memory, and in time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    attention: Literal["sdpa", "slicing"] = "sdpa"
    """`sdpa`: torch's fused attention; `slicing`: one head at a time, slow and small."""
    vae: tuple[Literal["slicing", "tiling"], ...] = ()
    """Decode one image, or one tile, at a time."""
    offload: Literal["none", "model", "sequential"] = "none"
    """Parts wait in main memory and visit the accelerator whole, or layer by layer."""
    compile: bool = False
    channels_last: bool = False
    prompt_cache: int = Field(default=0, ge=0, le=100_000)
    """Prompt embeddings kept for later batches."""


class ModelEntry(BaseModel):
    """One model of a models file. Either `folder` (beside the file) or `hub` with a `revision`."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    folder: str | None = None
    hub: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str | None = Field(default=None, pattern=r"^[\w.-]+$")
    licence: str
    """SPDX identifier, or the name the licence goes by; policies gate on it."""
    weights_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    notice: str = ""
    """What every face and manifest must say of this model."""
    width: int = 512
    height: int = 512
    steps: int = 30
    guidance: float = 7.5
    scheduler: str = ""
    """A diffusers scheduler class; empty: the checkpoint's own."""
    scheduler_config: dict[str, Any] = Field(default_factory=dict)
    """What the scheduler's own configuration is overridden with (few-step models)."""
    components: dict[str, str] = Field(default_factory=dict)
    """Parts that lie in folders elsewhere, beside the models file: `vae: ../vae`."""
    base: tuple[str, ...] = ()
    """Models that a ControlNet or an adapter was made for; empty: any."""
    file: str | None = Field(default=None, pattern=r"^[\w.-]+(/[\w.-]+)*$")
    """The weights' file inside folder or hub repository (adapters)."""
    token: str = ""
    """The word that a textual inversion adds to the vocabulary."""
    inpainting: str = ""
    """The ControlNet that shows this model the picture around the hole."""
    depth: str = ""
    """The ControlNet that depth-to-image uses with this model."""
    upscaler: str = ""
    """The model that makes sizes beyond twice this one's own."""
    tools: dict[Tool, str] = Field(default_factory=dict)
    """Models that make control pictures and masks from photos."""
    memory: dict[Literal["cuda", "mps", "cpu"], Memory] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.folder is None) == (self.hub is None):
            raise ValueError("give either `folder` or `hub`")
        if self.hub and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise ValueError("a hub model needs `revision`: the 40 hex digits of a commit")
        if self.hub and self.weights_sha256:
            raise ValueError("a hub model is pinned by `revision`; leave `weights_sha256` out")
        return self


@dataclass(frozen=True)
class Model:
    """A model as the pipeline uses it. `source` is an absolute folder or a hub id.

    `revision` pins the pixels: the hub's commit, or the SHA-256 of the folder's weights.
    """

    name: str
    kind: Kind
    source: str
    revision: str
    licence: str
    weights_sha256: str | None
    notice: str
    width: int
    height: int
    steps: int
    guidance: float
    scheduler: str
    is_folder: bool
    scheduler_config: Mapping[str, Any] = field(default_factory=dict, hash=False)
    components: Mapping[str, str] = field(default_factory=dict, hash=False)
    base: tuple[str, ...] = ()
    file: str | None = None
    token: str = ""
    inpainting: str = ""
    depth: str = ""
    upscaler: str = ""
    tools: Mapping[str, str] = field(default_factory=dict, hash=False)
    memory: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def sampler(self) -> str:
        """What requests call the scheduler: its class, and what its configuration is overridden
        with, as JSON (`LCMScheduler{"timestep_spacing":"trailing"}`). Empty: the checkpoint's own.
        """
        changes = canonical_json(self.scheduler_config).decode() if self.scheduler_config else ""
        return self.scheduler + changes

    def memory_on(self, device: str) -> Memory:
        """How it is loaded on `cuda`, `mps` or `cpu`; the defaults where nothing is declared."""
        return Memory.model_validate(self.memory.get(device, {}))


def load_models(own: Path | None = None, adapters: Path | None = None) -> dict[str, ModelFileEntry]:
    """All declared models by name; entries of the user's file replace shipped ones.

    `adapters` is a folder of trained adapters, each with a `model.yaml` of its own.

    Raises InputError with every fault of every file. Nothing is hashed or loaded yet.
    """
    entries: dict[str, ModelFileEntry] = {}
    faults: list[Fault] = []
    trained = sorted(adapters.glob("*/model.yaml")) if adapters else []
    for path in (*SHIPPED, *trained, *([own] if own else [])):
        entries |= _read(path, faults)
    if faults:
        raise InputError("models", faults)
    return entries


@dataclass(frozen=True)
class ModelFileEntry:
    """A declared model and the file that declares it."""

    name: str
    entry: ModelEntry
    file: Path


def resolve(models: Mapping[str, ModelFileEntry], name: str, *kinds: Kind) -> Model:
    """The model called `name`, its folder found and its weights hashed and compared.

    Raises InputError when no such model of one of `kinds` is declared, SetupError when its folder
    is absent or its weights are not the declared ones.
    """
    declared = models.get(name)
    if declared is None or declared.entry.kind not in kinds:
        known = sorted(each.name for each in models.values() if each.entry.kind in kinds)
        near = difflib.get_close_matches(name, known, 1)
        remedy = f"did you mean {near[0]!r}?" if near else f"declared: {', '.join(known) or 'none'}"
        what = f"no {' or '.join(kinds)} model {name!r} is declared"
        raise InputError("models", [Fault(what, "", remedy)])
    entry = declared.entry
    own = entry.model_dump(exclude={"folder", "hub", "revision", "weights_sha256", "components"})
    if entry.hub:
        return Model(
            name=name,
            source=entry.hub,
            revision=str(entry.revision),
            weights_sha256=None,
            is_folder=False,
            **own,
        )
    folder = _folder(name, str(entry.folder), declared.file)
    digest = weights_sha256(folder)
    if entry.weights_sha256 and digest != entry.weights_sha256:
        raise SetupError(
            f"model {name!r}: the weights in {folder} hash to {digest[:12]}…, {declared.file} "
            f"declares {entry.weights_sha256[:12]}…; restore them, or declare the new hash"
        )
    components = {
        part: str(_folder(name, place, declared.file)) for part, place in entry.components.items()
    }
    return Model(
        name=name,
        source=str(folder),
        revision=_pinned(digest, components),
        weights_sha256=digest,
        is_folder=True,
        components=components,
        **own,
    )


def _folder(name: str, place: str, file: Path) -> Path:
    folder = (file.parent / place).resolve()
    if not folder.is_dir():
        raise SetupError(
            f"model {name!r}: folder {folder} is absent; put the weights there or mend "
            f"`folder` in {file}"
        )
    return folder


def _pinned(digest: str, components: Mapping[str, str]) -> str:
    """The folder's digest, or one over it and those of the parts that lie elsewhere."""
    if not components:
        return digest
    parts = "".join(
        f"{weights_sha256(place) if _has_weights(place) else _listed(place)}  {part}\n"
        for part, place in sorted(components.items())
    )
    return hashlib.sha256(f"{digest}\n{parts}".encode()).hexdigest()


def _has_weights(place: str) -> bool:
    return any(Path(place).rglob("*.safetensors")) or any(Path(place).rglob("*.bin"))


def _listed(place: str) -> str:
    """A folder without weights (a tokenizer): its files' bytes, in the order of their names."""
    files = sorted(file for file in Path(place).rglob("*") if file.is_file())
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def _read(path: Path, faults: list[Fault]) -> dict[str, ModelFileEntry]:
    try:
        text = decode_text(path.name, path.read_bytes(), faults)
    except OSError as error:
        faults.append(Fault(error.strerror or str(error), str(path), "check the path"))
        return {}
    content: Any = None if text is None else load_yaml(path.name, text, faults)
    if content is None:
        return {}
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(models, dict):
        faults.append(Fault("no `models:`", path.name, "map each name to kind, source, licence"))
        return {}
    entries = {}
    for name, fields in models.items():
        try:
            entries[str(name)] = ModelFileEntry(str(name), ModelEntry.model_validate(fields), path)
        except ValidationError as error:
            for fault in error.errors():
                place = ".".join(str(part) for part in (name, *fault["loc"]))
                faults.append(Fault(fault["msg"], f"{path.name}, {place}", "see docs/models.md"))
    return entries
