"""Files under the SHA-256 of their bytes, staged first: nothing half-written is ever visible.

A batch's files are staged and flushed, its rows are committed to the catalog, then the files move
into place. After a crash `settle` finishes or drops what was staged, by asking the catalog.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from pipeline.errors import SetupError
from pipeline.settings import Settings

EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}


def sha256_of(data: bytes) -> str:
    """SHA-256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def relative_url(folder: str, sha256: str, mime: str) -> str:
    """Where a file lies below the workspace or the asset store: `assets/ab/abcd….png`."""
    return f"{folder}/{sha256[:2]}/{sha256}.{EXTENSIONS[mime]}"


def path_of(settings: Settings, url: str) -> Path:
    """The file behind an asset's `url`."""
    folder, rest = url.split("/", 1)
    base = {"assets": settings.assets, "quarantine": settings.quarantine}[folder]
    return base / rest


def stage(settings: Settings, folder: str, data: bytes, mime: str) -> tuple[str, str]:
    """Write `data` to the staging area and flush it; returns (SHA-256, url it will have).

    Raises SetupError when the disk is full; nothing is left behind then.
    """
    sha256 = sha256_of(data)
    url = relative_url(folder, sha256, mime)
    write_file(_staged(settings, url), data)
    return sha256, url


def place(settings: Settings, urls: Iterable[str]) -> None:
    """Move staged files to where their catalogued `url` says, each in one atomic step.

    Equal files have one name: one that is in place already is left alone.
    """
    for url in urls:
        final = path_of(settings, url)
        final.parent.mkdir(parents=True, exist_ok=True)
        staged = _staged(settings, url)
        if not staged.exists() and final.exists():
            continue
        try:
            staged.replace(final)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            write_file(final, staged.read_bytes())
            staged.unlink()


def settle(settings: Settings, known: Callable[[list[str]], set[str]]) -> tuple[int, int]:
    """After a crash: place staged files whose SHA-256 the catalog knows, drop the others.

    The dropped ones were never acknowledged: their requests are still to do. Returns the counts
    (placed, dropped). Only the holder of the run lock may call this.
    """
    staging = settings.root / "staging"
    urls = [path.relative_to(staging).as_posix() for path in staging.rglob("*") if path.is_file()]
    finished = {url for url in urls if not url.endswith(".part")}
    catalogued = known([Path(url).stem for url in finished]) if finished else set()
    keep = [url for url in finished if Path(url).stem in catalogued]
    place(settings, keep)
    for url in set(urls) - set(keep):
        (staging / url).unlink()
    return len(keep), len(urls) - len(keep)


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a whole file or none: temporary name, flush to disk, rename.

    Raises SetupError when there is no room or no permission.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SetupError(
                f"no room left on the disk of {path.parent}: free some and run again; "
                f"all that was catalogued is safe, and the run goes on from there"
            ) from error
        raise SetupError(f"cannot write {path}: {error.strerror}; check the folder") from error


def _staged(settings: Settings, url: str) -> Path:
    return settings.root / "staging" / url
