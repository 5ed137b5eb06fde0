"""Files under the SHA-256 of their bytes, staged first: nothing half-written is ever visible.

A batch's files are staged and flushed, its rows are committed to the catalog, then the files move
into place. After a crash `settle` finishes or drops what was staged, by asking the catalog.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.errors import SetupError
from pipeline.settings import Settings

EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
MIMES = {f".{extension}": mime for mime, extension in EXTENSIONS.items()}
"""By a stored file's suffix."""


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
    folders = set()
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
        folders.add(final.parent)
    for folder in folders:
        flush(folder)


def flush_staging(settings: Settings) -> None:
    """Make the names of staged files survive a power cut; before their rows are committed."""
    for folder in (settings.root / "staging").glob("*"):
        if folder.is_dir():
            flush(folder)


def drop_staged(settings: Settings, url: str) -> None:
    """Remove a staged file that will not be catalogued."""
    _staged(settings, url).unlink(missing_ok=True)


def place_recorded(
    settings: Settings, urls: Sequence[str], record: Callable[[], Collection[str]]
) -> None:
    """Places staged files once `record` has catalogued them; it returns the urls of those it kept.

    The others are dropped, and all of them when it raises.
    """
    flush_staging(settings)
    kept: Collection[str] = ()
    try:
        kept = record()
    finally:
        for url in urls:
            if url not in kept:
                drop_staged(settings, url)
    place(settings, [url for url in urls if url in kept])


def settle(settings: Settings, known: Callable[[list[str]], set[str]]) -> tuple[int, int]:
    """After a crash: place staged files whose SHA-256 the catalog knows, drop the others.

    The dropped ones were never acknowledged: their requests are still to do. Returns the counts
    (placed, dropped). Only the holder of the run lock may call this.
    """
    staging = settings.root / "staging"
    files = [path for path in staging.glob("*/*") if path.is_file()]
    finished = [path for path in files if path.suffix != ".part"]
    catalogued = known([path.stem for path in finished]) if finished else set()
    keep = [path for path in finished if path.stem in catalogued]
    place(settings, [f"{path.parent.name}/{path.stem[:2]}/{path.name}" for path in keep])
    for path in set(files) - set(keep):
        path.unlink()
    return len(keep), len(files) - len(keep)


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a whole file or none: temporary name, flush to disk, rename.

    Raises SetupError when there is no room or no permission.
    """
    # A name of its own: threads of one batch may write equal files at once.
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SetupError(
                f"no room left on the disk of {path.parent}: free some and run again; "
                f"all that was catalogued is safe, and the run goes on from there"
            ) from error
        raise SetupError(f"cannot write {path}: {error.strerror}; check the folder") from error


def _staged(settings: Settings, url: str) -> Path:
    # Flat, so that one flush of the folder covers a batch.
    folder, name = url.split("/", 1)[0], url.rsplit("/", 1)[1]
    return settings.root / "staging" / folder / name


def flush(path: Path) -> None:
    """Make the names in a folder, or the bytes of a file, survive a power cut (`fsync`)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
