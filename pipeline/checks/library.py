"""Reference libraries: a folder of images with rights.csv → embeddings that similarity reads.

Embeddings are kept in the workspace under the hash of library and model, so that a library is
embedded once, and again only when a file, a right or the model changes.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.embed import ClipEncoder
from pipeline.checks.rights import RIGHTS, Reference, read_rights
from pipeline.errors import Fault, InputError, SetupError
from pipeline.images import ImageRefused, RgbImage, decode_limited

_CHUNK = 64


@dataclass(frozen=True, eq=False)
class Library:
    """A named set of references and their unit embeddings, float32 [len(references), D].

    `content_sha256` is of the rights table and all files.
    """

    name: str
    references: tuple[Reference, ...]
    embeddings: NDArray[np.float32]
    content_sha256: str


def load_library(name: str, folder: Path, encoder: ClipEncoder, cache: Path) -> Library:
    """A library, its embeddings from `cache` or computed and kept there.

    Raises InputError with all faults at once (table, files, pictures), SetupError when the library
    is empty: nothing may be called unlike an empty set.
    """
    references, faults = read_rights(name, folder)
    content = _content_sha256(folder, references)
    path = cache / f"{content}-{encoder.digest}.npy"
    embeddings = None if faults else _read(path, len(references))
    if embeddings is None:
        embeddings = _embed(folder, references, encoder, faults)
        if faults:
            raise InputError(f"library {name!r}", faults)
        if not references:
            raise SetupError(f"library {name!r} in {folder} is empty; list works in {RIGHTS}")
        if not np.isfinite(embeddings).all():
            raise SetupError(f"model {encoder.spec.name!r} gives no numbers for library {name!r}")
        try:
            _write(path, embeddings)
        except OSError as error:
            raise SetupError(
                f"the embeddings of library {name!r} cannot be kept in {cache}: {error.strerror}; "
                f"make room there, or let it be written to"
            ) from error
    return Library(name, tuple(references), embeddings, content)


def _content_sha256(folder: Path, references: list[Reference]) -> str:
    digest = hashlib.sha256((folder / RIGHTS).read_bytes())
    for reference in sorted(references, key=lambda each: each.file):
        digest.update(f"{reference.sha256}  {reference.file}\n".encode())
    return digest.hexdigest()


def _embed(
    folder: Path, references: list[Reference], encoder: ClipEncoder, faults: list[Fault]
) -> NDArray[np.float32]:
    """Embeddings of all pictures; adds to `faults`, after which the rest is decoded only."""
    parts = [np.zeros((0, 1), np.float32)]
    for start in range(0, len(references), _CHUNK):
        images: list[RgbImage] = []
        for reference in references[start : start + _CHUNK]:
            try:
                images.append(decode_limited(folder / reference.file))
            except (ImageRefused, OSError) as error:
                what, remedy = getattr(error, "what", str(error)), getattr(error, "remedy", "")
                faults.append(Fault(what, str(folder / reference.file), remedy))
        if not faults:
            parts.append(encoder.images(images))
    return np.concatenate(parts[1:] or parts)


def _read(path: Path, count: int) -> NDArray[np.float32] | None:
    try:
        embeddings = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = embeddings.dtype == np.float32 and embeddings.ndim == 2 and len(embeddings) == count
    return embeddings if fits else None


def _write(path: Path, embeddings: NDArray[np.float32]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".npy")
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, embeddings, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
