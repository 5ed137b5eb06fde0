"""What checks need of a reference library: the nearest works, by embedding or by PDQ hash.

catalog/libraries.py keeps libraries; checks see them through this protocol alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.protocol import Encoder, ModelSpec
from pipeline.checks.rights import Reference

Role = Literal["protected", "own"]
"""`protected`: likeness counts; `own`: likeness is intended, and only reported."""


class Embedder(Encoder, Protocol):
    """An encoder that says which weights its embeddings come from."""

    @property
    def spec(self) -> ModelSpec:
        """The model."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of its weights: embeddings of different digests are never compared."""
        ...


@dataclass(frozen=True)
class Near:
    """A work and how near it is: cosine -1..1 of embeddings, or Hamming distance 0..256 of PDQ."""

    reference: Reference
    value: float


def unusable(check: str, libraries: Sequence[References]) -> list[str]:
    """What keeps a check from comparing with libraries: nothing is unlike an empty set."""
    protected = [library.count("protected") for library in libraries]
    faults = [
        f"library {library.name!r} has no work that counts today; add works with "
        f"`platemark library add {library.name}`, or take it out of the policy's checks.{check}"
        for library, count in zip(libraries, protected, strict=True)
        if not count and not library.count("own")
    ]
    if not faults and not any(protected):
        names = ", ".join(repr(library.name) for library in libraries) or "none"
        faults.append(
            f"{check} has nothing to compare with (libraries: {names}): none has a `protected` "
            f"work that counts today; add one with `platemark library add`"
        )
    return faults


class References(Protocol):
    """A library, open. Calls may come from several threads once it is prepared."""

    @property
    def name(self) -> str:
        """As policies call it."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all works and their rights: another one when any of it changes."""
        ...

    @property
    def checked_at(self) -> datetime:
        """When somebody last added to it or confirmed it. Aware, in UTC."""
        ...

    def count(self, role: Role) -> int:
        """Works of a role that count today (`expires` ends an own work's leave: it is protected
        from then on; a protected work's protection ends)."""
        ...

    def prepare(self, embedder: Embedder) -> None:
        """Embeds what this model has not embedded yet, before the first image.

        Raises SetupError when works that must be embedded are gone, InputError for faulty ones.
        """
        ...

    def nearest(
        self, embedder: Embedder, vectors: NDArray[np.float32], top: int, role: Role
    ) -> Sequence[Sequence[Near]]:
        """For each unit vector of [Q, D] the `top` works of the role with the largest cosines.

        Empty where there is no work of the role. A vector of NaN has one Near of value NaN.
        """
        ...

    def nearest_hashes(
        self, hashes: NDArray[np.uint64], top: int, role: Role
    ) -> Sequence[Sequence[Near]]:
        """For each PDQ hash of [Q, 4] the `top` works of the role with the least distances, of
        those that are not too plain to have a hash."""
        ...

    def picture(self, reference: Reference) -> NDArray[Any] | None:
        """A small picture of the work, uint8 [h, w, 3], None when it is gone."""
        ...
