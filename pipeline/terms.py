"""Usage terms: what an asset may be used for. Declared by brief or policy; a pack grants a part.

Plain data, so that licences can be compared: a pack is inside an asset's terms when everything it
grants is granted by them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

WORLDWIDE = "worldwide"
ANY_CHANNEL = "any"


class UsageTerms(BaseModel):
    """Who may use an asset, where, through what, and until when. Dates are inclusive, in UTC."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    licensor: str = Field(min_length=1)
    licensee: str = "any"
    territories: tuple[str, ...] = (WORLDWIDE,)
    """ISO 3166-1 alpha-2 codes, or `worldwide`."""
    channels: tuple[str, ...] = (ANY_CHANNEL,)
    """Free names such as `web`, `print`, `marketplace`, or `any`."""
    starts: date | None = None
    expires: date | None = None
    exclusive: bool = False
    credit: str | None = None
    web_statement: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")
    """Page that states the licence; search engines show it (`xmpRights:WebStatement`)."""
    text: str | None = None
    """The licence as people read it; without it the fields above are spelled out."""

    @model_validator(mode="after")
    def _dates_in_order(self) -> Self:
        if self.starts and self.expires and self.starts > self.expires:
            raise ValueError(f"expires ({self.expires}) lies before starts ({self.starts})")
        return self

    def outside(self, granted: UsageTerms, today: date) -> list[str]:
        """Why these terms (a pack's) go beyond `granted` (an asset's) on `today`; empty if not."""
        reasons = []
        if granted.expires and granted.expires < today:
            reasons.append(f"terms {granted.id} expired on {granted.expires}")
        if granted.starts and granted.starts > today:
            reasons.append(f"terms {granted.id} start only on {granted.starts}")
        elif granted.starts and self.starts and self.starts < granted.starts:
            reasons.append(f"the pack starts on {self.starts}, the asset only on {granted.starts}")
        if granted.expires and (self.expires is None or self.expires > granted.expires):
            until = self.expires or "no end"
            reasons.append(f"the pack runs until {until}, the asset only until {granted.expires}")
        if self.exclusive and not granted.exclusive:
            reasons.append("the pack is exclusive, the asset's terms are not")
        if granted.licensor != self.licensor:
            reasons.append(f"the licensor is {granted.licensor}, the pack says {self.licensor}")
        if granted.credit and granted.credit != self.credit:
            says = f"says {self.credit!r}" if self.credit else "has none"
            reasons.append(f"the credit line {granted.credit!r} is required, the pack {says}")
        if granted.licensee not in ("any", self.licensee):
            reasons.append(f"licensed to {granted.licensee}, the pack is for {self.licensee}")
        if extra := _beyond(self.territories, granted.territories, WORLDWIDE):
            reasons.append(f"territory {', '.join(extra)} is not granted")
        if extra := _beyond(self.channels, granted.channels, ANY_CHANNEL):
            reasons.append(f"channel {', '.join(extra)} is not granted")
        return reasons

    def licence_text(self) -> str:
        """The licence for people: `text` if there is one, then every field in words."""
        lines = [f"Usage terms: {self.id}", ""]
        if self.text:
            lines += [self.text.strip(), ""]
        lines += [
            f"Licensor:    {self.licensor}",
            f"Licensee:    {self.licensee}",
            f"Territories: {', '.join(self.territories)}",
            f"Channels:    {', '.join(self.channels)}",
            f"From:        {self.starts or 'delivery'}",
            f"Until:       {self.expires or 'no end'}",
            f"Exclusive:   {'yes' if self.exclusive else 'no'}",
            f"Credit line: {self.credit or 'none required'}",
        ]
        if self.web_statement:
            lines.append(f"Web page:    {self.web_statement}")
        return "\n".join(lines) + "\n"


def _beyond(wanted: Iterable[str], granted: Iterable[str], everything: str) -> list[str]:
    granted = set(granted)
    return [] if everything in granted else [name for name in wanted if name not in granted]
