"""The works' own files, read again when something has to be derived anew: a model's embeddings."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipeline.errors import Fault, InputError, SetupError
from pipeline.images import ImageRefused, read_limited

T = TypeVar("T")

_AHEAD = 8
"""Files that are read at a time: decoded, each may take 192 MB."""
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Original:
    """A work's file: where it lies, what the catalog calls it, and the SHA-256 it must have."""

    id: int
    path: Path
    file: str
    sha256: str


def read_again(
    library: str, originals: Sequence[Original], make: Callable[[bytes], T]
) -> Iterator[tuple[Original, T]]:
    """Each file with what `make` makes of its bytes, in order, by a few threads.

    Raises SetupError when files are gone or hold other bytes, before the first where that can be
    seen, else after all were looked at; then InputError when `make` raises ImageRefused for some.
    """
    gone = [f"{each.file}: gone" for each in originals if not each.path.is_file()]
    faults: list[Fault] = []
    if gone:
        raise _lost(library, gone)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for start in range(0, len(originals), _AHEAD):
            window = originals[start : start + _AHEAD]
            for original, made in zip(window, pool.map(_made, window, [make] * _AHEAD)):  # noqa: B905
                match made:
                    case Fault():
                        faults.append(made)
                    case str():
                        gone.append(made)
                    case (value,) if not (gone or faults):
                        yield original, value
    if gone:
        raise _lost(library, gone)
    if faults:
        raise InputError(f"library {library!r}", faults)


def _made(original: Original, make: Callable[[bytes], T]) -> tuple[T] | Fault | str:
    try:
        data = read_limited(original.path)
        if hashlib.sha256(data).hexdigest() != original.sha256:
            return f"{original.file}: its bytes are no longer those of the work that was added"
        return (make(data),)
    except ImageRefused as refused:
        return Fault(refused.what, str(original.path), refused.remedy)
    except OSError as error:
        return f"{original.file}: {error.strerror or error}"


def _lost(library: str, gone: Sequence[str]) -> SetupError:
    shown = "\n  ".join(gone[:_SHOWN])
    more = f"\n  … and {len(gone) - _SHOWN:,} more" if len(gone) > _SHOWN else ""
    return SetupError(
        f"works of the library {library!r} have to be read again, and their files are not what was "
        f"added; add them again from where they are now, or remove them from the library:\n"
        f"  {shown}{more}"
    )
