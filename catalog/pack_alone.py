"""One export at a time writes a pack, and none writes over what lies there: locks and refusals."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from pipeline.errors import BusyError, Fault, InputError


def lock(stream: IO[bytes], file: Path, pack: Path) -> None:
    """Keeps other exports from `pack` while `stream`, just opened from `file`, stays open.

    Raises BusyError when another one has it, or ended in this moment.
    """
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever ends takes the file away: what was opened before that is the finished pack.
        same = os.path.samestat(os.fstat(stream.fileno()), file.stat())
    except (BlockingIOError, FileNotFoundError):
        same = False
    if not same:
        stream.close()
        raise BusyError(f"another export writes {pack}: wait for it, or name another file")


def other_pack(path: object) -> InputError:
    """The refusal to write over another pack."""
    fault = Fault("it holds another pack already", str(path), "choose another name or remove it")
    return InputError("export", [fault])


def no_pack(path: Path) -> InputError:
    """The refusal to write over what is no pack at all."""
    fault = Fault("something else lies there", str(path), "choose another name or remove it")
    return InputError("export", [fault])
