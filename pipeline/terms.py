"""Usage terms: what an asset may be used for. Declared by brief or policy; a pack grants a part.

Plain data, so that licences can be compared: a pack is inside an asset's terms when everything it
grants is granted by them. pipeline/terms_file.py reads them from YAML.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from pipeline.scope import ANY, WORLDWIDE, beyond
from pipeline.terms_parts import Clearance, Line, Material, Party, Release

__all__ = ["ANY_CHANNEL", "WORLDWIDE", "Conflict", "UsageTerms"]

ANY_CHANNEL = ANY
Purpose = Literal["any", "commercial", "editorial", "non-commercial"]


@dataclass(frozen=True)
class Conflict:
    """Why something may not be given: the rule, both sides of it, and what would fix it."""

    rule: str
    says: str
    fix: str

    def __str__(self) -> str:
        return f"{self.says} (rule {self.rule}: {self.fix})"


class UsageTerms(BaseModel):
    """Who may use an asset, where, through what, and until when. Dates are inclusive, in UTC."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    licensor: str = Field(min_length=1)
    licensee: str = "any"
    territories: tuple[str, ...] = Field(default=(WORLDWIDE,), min_length=1)
    """ISO 3166-1 alpha-2 codes, `EU`, `EEA`, or `worldwide`."""
    channels: tuple[str, ...] = Field(default=(ANY_CHANNEL,), min_length=1)
    """Free names such as `web`, `print`, `marketplace`, or `any`."""
    starts: date | None = None
    expires: date | None = None
    exclusive: bool = False
    credit: str | None = None
    web_statement: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")
    """Page that states the licence; search engines show it (`xmpRights:WebStatement`)."""
    text: str | None = None
    """The licence as people read it; without it the fields above are spelled out."""
    purposes: tuple[Purpose, ...] = Field(default=("any",), min_length=1)
    """What for; everything but `non-commercial` counts as commercial."""
    media: tuple[Line, ...] = Field(default=(ANY,), min_length=1)
    """Free names such as `packaging`, `billboard`, `social`, or `any`."""
    media_summary_code: str | None = Field(
        default=None, pattern=r"^\|PLUS\|V\d{4}\|U\d{3}\|[0-9A-Z]+\|$"
    )
    """The same as a code of the PLUS Media Matrix (plus:MediaSummaryCode), kept as it is."""
    licence: Line | None = None
    """A public licence that the images are given under, such as CC-BY-4.0."""
    copyright_notice: Line | None = None
    credit_placement: Literal["adjacent", "credits-area", "on-image"] | None = None
    parties: tuple[Party, ...] = ()
    releases: tuple[Release, ...] = ()
    materials: tuple[Material, ...] = ()
    flow_down: tuple[Line, ...] = ()
    """Licences of models whose use restrictions these terms pass on to the licensee."""
    clearances: tuple[Clearance, ...] = ()

    @model_validator(mode="after")
    def _dates_in_order(self) -> Self:
        if self.starts and self.expires and self.starts > self.expires:
            raise ValueError(f"expires ({self.expires}) lies before starts ({self.starts})")
        return self

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        licensors = [each.name for each in self.parties if each.role == "licensor"]
        licensees = [each.name for each in self.parties if each.role == "licensee"]
        if licensors and self.licensor not in licensors:
            raise ValueError(f"no party with role licensor is named {self.licensor!r}")
        if licensees and self.licensee not in licensees:
            raise ValueError(f"no party with role licensee is named {self.licensee!r}")
        if len(licensors) > 3:
            raise ValueError("PLUS has room for three licensors")
        if self.licence and self.exclusive:
            raise ValueError(f"{self.licence} is a licence to everybody: it cannot be exclusive")
        if self.credit_placement and not self.credit:
            raise ValueError("credit_placement without credit")
        return self

    @model_serializer(mode="wrap")
    def _without_unset(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields that came later are left out at their defaults: the JSON of older terms, which
        policy digests and pack ids are made of, stays as it was."""
        found: dict[str, Any] = write(self)
        for name in _LATER:
            if name in found and getattr(self, name) == type(self).model_fields[name].default:
                del found[name]
        return found

    @property
    def commercial(self) -> bool:
        """Whether they grant any use that is not non-commercial."""
        return any(purpose != "non-commercial" for purpose in self.purposes)

    def outside(self, granted: UsageTerms, today: date, sku: str | None = None) -> list[str]:
        """Why these terms (a pack's) go beyond `granted` (an asset's) on `today`; empty if not.

        `sku` chooses the releases that count; None: all of them.
        """
        return [str(each) for each in self.conflicts(granted, today, sku)]

    def conflicts(
        self, granted: UsageTerms, today: date, sku: str | None = None
    ) -> tuple[Conflict, ...]:
        """The same, each with its rule, both sides and what would fix it."""
        return (
            *_time(self, granted, today),
            *_reach(self, granted),
            *_releases(self, granted, today, sku),
        )


_FIRST = (
    "id", "licensor", "licensee", "territories", "channels", "starts", "expires", "exclusive",
    "credit", "web_statement", "text",
)  # fmt: skip
_LATER = tuple(name for name in UsageTerms.model_fields if name not in _FIRST)


def _time(pack: UsageTerms, asset: UsageTerms, today: date) -> Iterator[Conflict]:
    if asset.expires and asset.expires < today:
        yield Conflict(
            "terms.expired",
            f"terms {asset.id} expired on {asset.expires}, today is {today}",
            "renew them: give the images new terms",
        )
    if asset.starts and asset.starts > today:
        yield Conflict(
            "terms.not-yet",
            f"terms {asset.id} start only on {asset.starts}, today is {today}",
            "wait, or give the images terms that start earlier",
        )
    elif asset.starts and pack.starts and pack.starts < asset.starts:
        yield Conflict(
            "terms.starts",
            f"the pack starts on {pack.starts}, the asset only on {asset.starts}",
            f"let the pack start on {asset.starts}",
        )
    if asset.expires and (pack.expires is None or pack.expires > asset.expires):
        yield Conflict(
            "terms.expires",
            f"the pack runs until {pack.expires or 'no end'}, the asset only until {asset.expires}",
            f"let the pack expire on {asset.expires}, or renew terms {asset.id}",
        )


def _reach(pack: UsageTerms, asset: UsageTerms) -> Iterator[Conflict]:
    if pack.exclusive and not asset.exclusive:
        yield Conflict(
            "terms.exclusive",
            "the pack is exclusive, the asset's terms are not",
            f"make the pack non-exclusive, or terms {asset.id} exclusive",
        )
    if asset.licensor != pack.licensor:
        yield Conflict(
            "terms.licensor",
            f"the licensor is {asset.licensor}, the pack says {pack.licensor}",
            f"name {asset.licensor} in the pack's terms",
        )
    if asset.credit and asset.credit not in (pack.credit or ""):
        says = f"says {pack.credit!r}" if pack.credit else "has none"
        yield Conflict(
            "terms.credit",
            f"the credit line {asset.credit!r} is required, the pack {says}",
            f"write credit: {asset.credit}",
        )
    if asset.licensee not in ("any", pack.licensee):
        yield Conflict(
            "terms.licensee",
            f"licensed to {asset.licensee}, the pack is for {pack.licensee}",
            f"leave it out, or license it to {pack.licensee}",
        )
    for rule, wanted, granted, everything in (
        ("territory", pack.territories, asset.territories, WORLDWIDE),
        ("channel", pack.channels, asset.channels, ANY),
        ("medium", pack.media, asset.media, ANY),
        ("purpose", pack.purposes, asset.purposes, ANY),
    ):
        if extra := beyond(wanted, granted, everything):
            yield Conflict(
                f"terms.{rule}",
                f"{rule} {', '.join(extra)} is not granted: terms {asset.id} grant "
                f"{', '.join(granted)}",
                "grant it there, or ask for less in the pack's terms",
            )


def _releases(
    pack: UsageTerms, asset: UsageTerms, today: date, sku: str | None
) -> Iterator[Conflict]:
    if all(purpose == "editorial" for purpose in pack.purposes):
        return
    for release in asset.releases:
        if not release.covers(sku):
            continue
        name = f"the {release.kind} release {release.id}"
        rule = f"release.{release.kind}"
        renew = f"renew {release.id}"
        if release.expires and release.expires < today:
            yield Conflict(rule, f"{name} expired on {release.expires}, today is {today}", renew)
        elif release.expires and (pack.expires is None or pack.expires > release.expires):
            says = (
                f"{name} ends on {release.expires}, the pack runs until {pack.expires or 'no end'}"
            )
            yield Conflict(rule, says, f"{renew}, or let the pack expire on {release.expires}")
        for what, wanted, granted, everything in (
            ("territory", pack.territories, release.territories, WORLDWIDE),
            ("channel", pack.channels, release.channels, ANY),
        ):
            if extra := beyond(wanted, granted, everything):
                says = f"{name} is for {what} {', '.join(granted)}, the pack for {', '.join(extra)}"
                yield Conflict(rule, says, f"{renew} for it, or ask for less in the pack's terms")
