"""Similarity to reference libraries by open_clip: exact top-k cosines, the nearest as evidence.

CLIP compares what is shown, not who drew it: a shortlist for people, to be calibrated before it
blocks. A score is a match in these libraries, never a statement about rights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.embed import ClipEncoder
from pipeline.checks.library import Library
from pipeline.checks.protocol import ImageBatch, detector, finite
from pipeline.checks.rights import Reference
from pipeline.errors import SetupError
from pipeline.records import Score


class Similarity:
    """Scores `similarity.nearest`: the cosine, -1..1, to the nearest protected reference.

    `own` references are intended matches: reported in the evidence, never counted.
    """

    name = "similarity"

    def __init__(self, encoder: ClipEncoder, libraries: Sequence[Library], top: int = 5):
        self.libraries = tuple(libraries)
        self._encoder = encoder
        self._top = top
        works = [work for library in libraries for work in library.references]
        if not any(work.role == "protected" for work in works):
            names = ", ".join(repr(library.name) for library in libraries) or "none"
            raise SetupError(
                f"similarity has nothing to compare with (libraries: {names}); give it a library "
                f"with at least one `protected` reference"
            )
        self._protected = _role(libraries, "protected")
        self._own = _role(libraries, "own")

    def __call__(self, batch: ImageBatch) -> list[tuple[Score, ...]]:
        """One score an image; evidence lists the `top` nearest and the libraries' sizes."""
        import torch

        # Torch's product, not numpy's: one pool of threads for all of a process.
        embeddings = torch.from_numpy(batch.embedding(self._encoder))
        protected = (embeddings @ torch.from_numpy(self._protected[1]).T).numpy()
        own = (embeddings @ torch.from_numpy(self._own[1]).T).numpy()
        sizes = {library.name: len(library.references) for library in self.libraries}
        evidence = {
            **detector(self._encoder.spec, self._encoder.digest),
            "libraries": sizes,
            "library_size": sum(sizes.values()),
        }
        return [
            (
                Score(
                    self.name,
                    "nearest",
                    float(near.max()),
                    {
                        **evidence,
                        "nearest": self._matches(self._protected[0], near),
                        "own": self._matches(self._own[0], intended),
                    },
                ),
            )
            for near, intended in zip(protected, own, strict=True)
        ]

    def _matches(
        self, references: Sequence[Reference], cosines: NDArray[Any]
    ) -> list[dict[str, Any]]:
        count = min(self._top, len(cosines))
        if not count:
            return []
        found = np.argpartition(-cosines, count - 1)[:count]
        ranked = found[np.lexsort((found, -cosines[found]))]
        return [
            {**_evidence(references[index]), "cosine": finite(cosines[index])} for index in ranked
        ]


def _role(libraries: Sequence[Library], role: str) -> tuple[list[Reference], NDArray[np.float32]]:
    """All works of a role, and their embeddings as float32 [M, D], M possibly 0."""
    works = [(library, [work.role == role for work in library.references]) for library in libraries]
    references = [
        work for library, chosen in works for work in compress(library.references, chosen)
    ]
    rows = [library.embeddings[np.array(chosen, bool)] for library, chosen in works]
    return references, np.ascontiguousarray(np.concatenate(rows))


def _evidence(reference: Reference) -> dict[str, Any]:
    fields = asdict(reference)
    del fields["note"]
    return fields
