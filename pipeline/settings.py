"""Where everything lies and how it runs: `platemark.toml`, the environment, and the workspace.

Imported by every face and by the flows, which load it themselves on the machine they run on, so
that neither paths nor secrets travel through Prefect.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlparse

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from pipeline.errors import Fault, InputError, SetupError

ROOT = Path(__file__).resolve().parent.parent
"""The installed project: where the shipped policies, models and starter weights lie."""


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


class Settings(BaseSettings):
    """All settings. Order: command line, `PLATEMARK_…` environment, `platemark.toml`, default.

    Nested ones are `PLATEMARK_SIGNING__KEY`. An unknown key in `platemark.toml` is a fault.
    """

    model_config = SettingsConfigDict(
        env_prefix="PLATEMARK_", env_nested_delimiter="__", extra="forbid"
    )

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
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    batch_size: int | None = Field(default=None, ge=1, le=1024)
    """Images per forward pass; default by device."""
    signing: Signing = Field(default_factory=Signing)
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
        toml = TomlConfigSettingsSource(settings_cls, toml_file=_toml_file())
        return init_settings, env_settings, toml

    @property
    def root(self) -> Path:
        """The workspace as an absolute path."""
        return self.workspace.expanduser().resolve()

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
    """Settings of this process. Raises InputError naming every wrong key of file or environment."""
    overrides: dict[str, Any] = {} if workspace is None else {"workspace": workspace}
    try:
        return Settings(**overrides)
    except ValidationError as error:
        faults = [
            Fault(
                what=fault["msg"],
                where=".".join(str(part) for part in fault["loc"]),
                remedy="see docs/operations.md for the settings and their meaning",
            )
            for fault in error.errors()
        ]
        raise InputError(f"settings ({_toml_file()} and PLATEMARK_… variables)", faults) from None
    except tomllib.TOMLDecodeError as error:
        faults = [Fault(str(error), str(_toml_file()), "mend the TOML")]
        raise InputError("settings", faults) from None


def _toml_file() -> Path:
    return Path(os.environ.get("PLATEMARK_CONFIG", "platemark.toml"))
