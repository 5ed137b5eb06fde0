"""The parts of usage terms: parties, releases, other people's works, and what was cleared.

Read as part of a terms file (pipeline/terms.py); unknown fields are refused.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from pipeline.scope import ANY, WORLDWIDE

Line = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=r"^[^\r\n]+$"),
]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$", max_length=2_000)]
Names = tuple[Line, ...]

Rule = Literal[
    "licence.unknown",
    "licence.commercial",
    "licence.revenue",
    "licence.territory",
    "licence.derivatives",
    "licence.ai-use",
    "licence.credit",
    "licence.share-alike",
    "licence.flow-down",
]
"""What a licence can be in the way of; a clearance lifts some of them."""


class Part(BaseModel):
    """Plain data, compared and hashed by value."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Party(Part):
    """Somebody whom the licence names. Fields are those of PLUS LDF 1.2.1 (useplus.org)."""

    role: Literal[
        "licensor",
        "licensee",
        "end-user",
        "copyright-owner",
        "image-creator",
        "image-supplier",
    ]
    name: Line
    id: Line | None = None
    """A PLUS-ID or another identifier, such as an ISNI or a DUNS number."""
    url: Url | None = None
    email: Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$")] | None = None
    telephone: Line | None = None


class Release(Part):
    """A person's or a property owner's signed leave, and how far it goes."""

    kind: Literal["model", "property"]
    id: Line
    """Under which it is filed; stands in the delivered file."""
    of: Line | None = None
    """The person or property, for people; stands in no delivered file."""
    expires: date | None = None
    territories: Names = Field(default=(WORLDWIDE,), min_length=1)
    channels: Names = Field(default=(ANY,), min_length=1)
    skus: Names = ()
    """Items that it is for; none: all images under these terms."""

    def covers(self, sku: str | None) -> bool:
        """Whether images of `sku` need it; None stands for all items."""
        return sku is None or not self.skus or sku in self.skus


class Material(Part):
    """Somebody else's work among the input pictures, by file name or SHA-256."""

    name: Line | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    licence: Line
    """SPDX id, a Creative Commons address, or another name that the table of licences has."""
    credit: Line | None = None
    """The words that name its author."""
    url: Url | None = None

    @model_validator(mode="after")
    def _is_named(self) -> Self:
        if self.name is None and self.sha256 is None:
            raise ValueError("give `name` or `sha256` of the input picture")
        return self

    def is_of(self, name: str, sha256: str) -> bool:
        """Whether it speaks of this input picture; a hash counts more than a name."""
        return self.sha256 == sha256 if self.sha256 else self.name == name


class Clearance(Part):
    """What the licensor settled outside a public licence: a contract, a revenue below its limit,
    a licence that the table does not know and a lawyer has read.

    It counts until the end of `expires`, and only for packs that end by then.
    """

    of: Line
    """A licence, a model or an input picture, by its name."""
    lifts: tuple[Rule, ...] = Field(min_length=1)
    document: Line
    """Contract, invoice, statement: where an auditor finds it."""
    expires: date | None = None
