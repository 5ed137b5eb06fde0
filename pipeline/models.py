"""The models file: which models there are, where they lie, under which licence, with which hash.

Model ids are configuration: pinned by revision (hub) or by the hash of their weights (folder).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.brief_table import decode_text, load_yaml
from pipeline.errors import Fault, InputError, SetupError
from pipeline.settings import ROOT
from pipeline.weights import weights_sha256

SHIPPED = (ROOT / "pipeline" / "models.yaml", ROOT / "starter" / "models.yaml")

Kind = Literal["text-to-image", "open-clip", "image-classifier"]


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


def load_models(own: Path | None = None) -> dict[str, ModelFileEntry]:
    """All declared models by name; entries of the user's file replace shipped ones.

    Raises InputError with every fault of every file. Nothing is hashed or loaded yet.
    """
    entries: dict[str, ModelFileEntry] = {}
    faults: list[Fault] = []
    for path in (*SHIPPED, *([own] if own else [])):
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


def resolve(models: Mapping[str, ModelFileEntry], name: str, kind: Kind) -> Model:
    """The model called `name`, its folder found and its weights hashed and compared.

    Raises InputError when no such model of that kind is declared, SetupError when its folder is
    absent or its weights are not the declared ones.
    """
    declared = models.get(name)
    if declared is None or declared.entry.kind != kind:
        known = sorted(each.name for each in models.values() if each.entry.kind == kind)
        near = difflib.get_close_matches(name, known, 1)
        remedy = f"did you mean {near[0]!r}?" if near else f"declared: {', '.join(known)}"
        raise InputError("models", [Fault(f"no {kind} model {name!r} is declared", "", remedy)])
    entry = declared.entry
    fields: dict[str, Any] = {
        "name": name,
        "kind": entry.kind,
        "licence": entry.licence,
        "notice": entry.notice,
        "width": entry.width,
        "height": entry.height,
        "steps": entry.steps,
        "guidance": entry.guidance,
        "scheduler": entry.scheduler,
    }
    if entry.hub:
        return Model(
            source=entry.hub,
            revision=str(entry.revision),
            weights_sha256=None,
            is_folder=False,
            **fields,
        )
    folder = (declared.file.parent / str(entry.folder)).resolve()
    if not folder.is_dir():
        raise SetupError(
            f"model {name!r}: folder {folder} is absent; put the weights there or mend "
            f"`folder` in {declared.file}"
        )
    digest = weights_sha256(folder)
    if entry.weights_sha256 and digest != entry.weights_sha256:
        raise SetupError(
            f"model {name!r}: the weights in {folder} hash to {digest[:12]}…, {declared.file} "
            f"declares {entry.weights_sha256[:12]}…; restore them, or declare the new hash"
        )
    return Model(
        source=str(folder), revision=digest, weights_sha256=digest, is_folder=True, **fields
    )


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
