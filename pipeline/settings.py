"""Where everything lies and how it runs: `platemark.toml`, the environment, and the workspace.

Imported by every face and by the flows, which load it themselves on the machine they run on, so
that neither paths nor secrets travel through Prefect.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlparse

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError

from pipeline.errors import Fault, InputError, SetupError
from pipeline.prompt_writer import PromptWriter

ROOT = Path(__file__).resolve().parent.parent
"""The installed project: where the shipped policies, models and starter weights lie."""

_PREFIX = "PLATEMARK_"
_OTHER_VARIABLES = ("CONFIG", "HOME")
_PATHS = ("workspace", "models", "licences")
_SIGNING_PATHS = ("certificates", "key", "trust_anchors")


class Signing(BaseModel):
    """Who signs. Without any of these a development certificate is minted in the workspace."""

    model_config = ConfigDict(extra="forbid")

    certificates: Path | None = None
    """PEM chain, leaf first."""
    key: Path | None = None
    """PKCS#8 PEM key that belongs to the leaf."""
    callback: str | None = None
    """`module:function`, called with the bytes to sign; returns the signature (KMS or HSM)."""
    algorithm: Literal["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"] = "es256"
    trust_anchors: Path | None = None
    """PEM roots that `verify` trusts besides the development one."""
    timestamp_url: str | None = None
    """RFC 3161 authority."""


class Trust(BaseModel):
    """Whom `verify` trusts besides the workspace's own roots: PEM lists, C2PA's own for example."""

    model_config = ConfigDict(extra="forbid")

    signers: list[Path] = Field(default_factory=list)
    """Roots of signing certificates."""
    time_stamps: list[Path] = Field(default_factory=list)
    """Roots of time-stamp authorities."""


class Settings(BaseSettings):
    """All settings. Order: command line, `PLATEMARK_…` environment, `platemark.toml`, default.

    Nested ones are `PLATEMARK_SIGNING__KEY`. Relative paths in `platemark.toml` start at its
    folder, all others at the working directory. Unknown keys and variables are faults.
    """

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_nested_delimiter="__", extra="forbid")

    workspace: Path = Path("workspace")
    """The one folder that all work leaves its traces in."""
    catalog_url: str | None = None
    """DuckLake metadata; default `file://<workspace>/catalog`."""
    assets_url: str | None = None
    """Store of signed files; default `file://<workspace>/assets`."""
    models: Path | None = None
    """A models file of your own, read over the shipped one."""
    libraries: dict[str, Path] = Field(default_factory=dict)
    """Reference libraries by name: a folder of images with a `rights.csv`."""
    reviewers: dict[str, list[str]] = Field(default_factory=dict)
    """Who may approve: the roles of each person, as policies' `approvals` name them."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    batch_size: int | None = Field(default=None, ge=1, le=1024)
    """Images per forward pass; default by device."""
    signing: Signing = Field(default_factory=Signing)
    trust: Trust = Field(default_factory=Trust)
    licences: Path | None = None
    """A licences file of your own, read over the shipped one."""
    ledger_witnesses: list[str] = Field(default_factory=list)
    """Where signed checkpoints of the ledger are kept besides: files or URLs."""
    prompt_writer: PromptWriter | None = None
    """A language model that writes prompts for briefs that ask for it."""
    producer: str = "Platemark"
    """Who makes the images, as labels and manifests name it."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over `platemark.toml` over defaults."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, _toml_values())

    @property
    def root(self) -> Path:
        """The workspace as an absolute path."""
        return self.workspace.expanduser().resolve()

    def make_root(self) -> Path:
        """The workspace as a folder that can be written to. Raises SetupError when it cannot."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise SetupError(
                f"the workspace {self.root} cannot be made: {reason}; name another with --workspace"
            ) from None
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise SetupError(
                f"the workspace {self.root} cannot be written to; check its rights, or name "
                f"another with --workspace"
            )
        return self.root

    @property
    def assets(self) -> Path:
        """Folder of signed files."""
        return folder_of(self.assets_url, self.root / "assets", "assets_url")

    @property
    def catalog(self) -> Path:
        """Folder of the DuckLake: metadata file and Parquet data."""
        return folder_of(self.catalog_url, self.root / "catalog", "catalog_url")

    @property
    def quarantine(self) -> Path:
        """Folder of unsigned images that wait for a person or were blocked."""
        return self.root / "quarantine"

    @property
    def keys(self) -> Path:
        """Folder of the development certificate authority (mode 0700)."""
        return self.root / "keys"

    @property
    def inputs(self) -> Path:
        """Folder of the pictures that images were made from, and of chains' intermediates."""
        return self.root / "inputs"

    @property
    def adapters(self) -> Path:
        """Folder of adapters trained here, each with the card of what it was trained on."""
        return self.root / "adapters"

    @property
    def packs(self) -> Path:
        """Default folder of exported packs."""
        return self.root / "packs"


def folder_of(url: str | None, default: Path, setting: str) -> Path:
    """The local folder behind a `file://` URL. Raises SetupError for schemes not yet supported."""
    if url is None:
        return default
    parts = urlparse(url)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise SetupError(
            f"{setting} = {url!r}: only file:// URLs are supported in this version; "
            f"write file:///absolute/folder or leave it out"
        )
    return Path(unquote(parts.path))


def load_settings(workspace: Path | None = None) -> Settings:
    """Settings of this process.

    Raises InputError naming every wrong key of file or environment, and a workspace that cannot be
    a folder.
    """
    overrides: dict[str, Any] = {} if workspace is None else {"workspace": workspace}
    faults = _unknown_variables()
    try:
        settings = Settings(**overrides)
        faults += _workspace_faults(settings)
        if not faults:
            return settings
    except InputError as error:
        faults += error.faults
    except ValidationError as error:
        faults += [
            Fault(
                what=fault["msg"],
                where=".".join(str(part) for part in fault["loc"]),
                remedy="see docs/operations.md for the settings and their meaning",
            )
            for fault in error.errors()
        ]
    # A variable of a table whose value is no JSON; pydantic-settings names it in the text only.
    except SettingsError as error:
        field = re.search(r'field "(\w+)"', str(error))
        where = f"{_PREFIX}{field[1].upper()}" if field else f"{_PREFIX}… variables"
        faults.append(Fault("is no JSON", where, 'write {"name": "value"}'))
    raise InputError(f"settings ({_toml_file()} and PLATEMARK_… variables)", faults)


def _toml_file() -> Path:
    return Path(os.environ.get("PLATEMARK_CONFIG") or "platemark.toml")


def _toml_values() -> dict[str, Any]:
    """What `platemark.toml` says, its relative paths made absolute. Raises InputError."""
    file = _toml_file()
    if not os.environ.get("PLATEMARK_CONFIG") and not os.path.lexists(file):
        return {}
    try:
        values = tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        fault = Fault(error.strerror or str(error), str(file), "check path and rights")
        raise InputError("settings", [fault]) from None
    except UnicodeDecodeError:
        raise InputError("settings", [Fault("not UTF-8", str(file), "save as UTF-8")]) from None
    # Nested too deep is a RecursionError, an impossible date a ValueError.
    except (ValueError, RecursionError) as error:
        raise InputError("settings", [Fault(str(error), str(file), "mend the TOML")]) from None
    folder = file.absolute().parent
    _from_folder(folder, values, _PATHS)
    libraries, signing = values.get("libraries"), values.get("signing")
    if isinstance(libraries, dict):
        _from_folder(folder, libraries, tuple(libraries))
    if isinstance(signing, dict):
        _from_folder(folder, signing, _SIGNING_PATHS)
    lists = values.get("trust")
    if isinstance(lists, dict):
        for name, paths in lists.items():
            if isinstance(paths, list):
                lists[name] = [_in_folder(folder, path) for path in paths]
    return values


def _from_folder(folder: Path, values: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if name in values:
            values[name] = _in_folder(folder, values[name])


def _in_folder(folder: Path, path: Any) -> Any:
    relative = isinstance(path, str) and not path.startswith("~")
    return str(folder / path) if relative else path


def _unknown_variables() -> list[Fault]:
    known = [f"{_PREFIX}{name.upper()}" for name in (*Settings.model_fields, *_OTHER_VARIABLES)]
    faults = []
    for name in sorted(os.environ):
        head = name.upper().split("__")[0]
        if head.startswith(_PREFIX) and head not in known:
            near = difflib.get_close_matches(head, known, 1)
            remedy = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            faults.append(Fault("there is no such setting", name, remedy))
    return faults


def _workspace_faults(settings: Settings) -> list[Fault]:
    try:
        if not settings.root.is_dir() and settings.root.stat():
            return [Fault("is no folder", f"workspace {settings.root}", "name a folder")]
    # Not there yet, or not for us to read: whoever writes there says so.
    except (FileNotFoundError, PermissionError):
        return []
    except (OSError, ValueError, RuntimeError) as error:
        what = getattr(error, "strerror", None) or str(error)
        return [Fault(what, f"workspace {str(settings.workspace)[:80]!r}", "name another folder")]
    return []
