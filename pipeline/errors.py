"""Errors for people: what was wrong, where, and what to do. Faces print them without a traceback.

Exit codes, the same for every command: 0 done, 1 the answer is no (a file does not verify, images
failed), 2 the input is wrong, 3 the set-up is incomplete, 4 another run is at work, 130 stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


class PlatemarkError(Exception):
    """Something a person can put right. `str(error)` is the whole message, remedy included."""

    exit_code = 1


class SetupError(PlatemarkError):
    """A model, key, library or package is missing or unusable: nothing may start without it."""

    exit_code = 3


class BusyError(PlatemarkError):
    """Another run holds the workspace."""

    exit_code = 4


_SHOWN = 50
"""Faults in a message; `InputError.faults` holds them all."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with an input: what, where (file, row, field) and the remedy."""

    what: str
    where: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head} ({self.remedy})" if self.remedy else head


class InputError(PlatemarkError):
    """An input is wrong; `faults` holds all of its faults, so that they are mended in one go."""

    exit_code = 2

    def __init__(self, subject: str, faults: Sequence[Fault]):
        self.subject = subject
        self.faults = tuple(faults)
        shown = [f"  {fault}" for fault in self.faults[:_SHOWN]]
        if len(self.faults) > _SHOWN:
            shown.append(f"  … and {len(self.faults) - _SHOWN:,} more")
        super().__init__("\n".join([f"{subject}:", *shown]))


def collect(load: Callable[[], T], faults: list[Fault]) -> T | None:
    """What `load` returns; None with its faults added, so that several inputs are told at once."""
    try:
        return load()
    except InputError as error:
        faults.extend(error.faults)
        return None
