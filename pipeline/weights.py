"""What a model's weights are: the folder they lie in, and the hash that pins them.

Shared by models, checks and manifests, so that one hash means one model everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import SetupError

_STEERING = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".json", ".txt", ".model")
"""Weights, and the configuration and vocabularies that decide what the weights compute."""


def weights_sha256(path: Path | str) -> str:
    """SHA-256 (hex) of a model: of a file's bytes, or of a folder's files listed by `sha256sum`.

    A folder's digest is that of lines `<sha256>  <relative/name>\\n`, sorted by name, over weights
    and the configuration beside them; model cards and hidden files do not count. Raises SetupError
    when there is no such path or the folder holds no weights.
    """
    root = Path(path)
    if root.is_file():
        return _file_sha256(root)
    names = sorted(
        file.relative_to(root).as_posix()
        for file in root.rglob("*")
        if file.is_file()
        and file.suffix in _STEERING
        and not any(part.startswith(".") for part in file.relative_to(root).parts)
    )
    if not any(Path(name).suffix in _STEERING[:5] for name in names):
        raise SetupError(f"no model weights in {root}; put the checkpoint's files there")
    lines = (f"{_file_sha256(root / name)}  {name}\n" for name in names)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def weights_folder(source: str, revision: str, patterns: Sequence[str]) -> Path:
    """The local folder of a model: `source` itself when it is one, else the hub's files, pinned.

    `patterns` are the globs to fetch. Downloaded files are kept in the hub's own cache, so a second
    run works offline. Raises SetupError when the folder is absent or the hub cannot be reached.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or source.count("/") != 1:
        raise SetupError(f"model folder {source} is absent; put the checkpoint's files there")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(patterns)))
    # The hub client raises its own, requests' and the system's errors; all mean the same here.
    except Exception as error:
        raise SetupError(
            f"model {source} at revision {revision} is neither a folder nor to be had from the hub "
            f"({type(error).__name__}); connect once to fetch it, or name a local folder"
        ) from error


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
