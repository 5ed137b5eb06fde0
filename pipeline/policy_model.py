"""What a policy declares: frozen models of checks, rules, licences, prompts, labels and terms.

pipeline/policy.py reads them from YAML, pipeline/verdict.py applies them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, PrivateAttr, field_validator, model_validator

from pipeline.policy_checks import BY_LIBRARY, KNOWN_SCORES, Checks, Declared, Text
from pipeline.policy_rules import (
    AnyRule,
    Bound,
    Combination,
    Condition,
    Measurement,
    Number,
    Rule,
    conditions,
)
from pipeline.request import canonical_json
from pipeline.terms import UsageTerms
from pipeline.train.samples import Waiver

__all__ = [
    "BY_LIBRARY",
    "KNOWN_SCORES",
    "Bound",
    "Checks",
    "Combination",
    "Condition",
    "Policy",
    "Rule",
    "conditions",
]


class Prompts(Declared):
    """Words that no prompt may hold, whatever their case, accents, width or look-alike letters."""

    deny: tuple[Text, ...] = ()
    deny_lists: tuple[Text, ...] = Field(default=(), exclude=True)
    """Files of names, `names/NAME.txt` beside the policy or shipped; read into `deny`."""


class Labels(Declared):
    """What a finished file says of itself, besides its C2PA manifest, which is never optional."""

    xmp: bool = Field(default=True, strict=True)
    """IPTC, PLUS and rights fields in an XMP packet."""
    china_aigc: Annotated[bool, Field(strict=True)] | Text = False
    """TC260:AIGC (GB 45438-2025): `true`, or the producer's registered code."""
    prompt: Literal["hash", "text", "none"] = "hash"
    """How much of the prompt file and manifest disclose."""
    training_mining: Literal["notAllowed", "allowed"] = "notAllowed"
    """Whether others may train on or mine the file (CAWG, PLUS)."""
    watermark: Literal["embedded", "trustmark", "none"] = "embedded"
    """The imperceptible mark by which a file that lost its metadata is recognised. Adobe's
    TrustMark needs a package and weights of its own (docs/recovery.md)."""

    @model_validator(mode="after")
    def _china_needs_a_packet(self) -> Self:
        if self.china_aigc and not self.xmp:
            raise ValueError("china_aigc is written into the XMP packet: xmp must be true")
        return self


class ImageFormat(Declared):
    """How finished images are encoded."""

    format: Literal["png", "jpeg", "webp"] = "png"
    quality: int = Field(default=90, ge=1, le=100, strict=True)
    """For JPEG and WebP."""


class Rejects(Declared):
    """What is kept of blocked images; scores and reasons always are."""

    keep: Literal["all", "none"] = "all"


class Inputs(Declared):
    """Pictures that images are made from."""

    restricted: Literal["refuse", "review", "ignore"] = "refuse"
    """An input whose C2PA, XMP or IPTC says no to such use, or whose manifest does not hold."""
    preserved_db: Number = 40.0
    """What inpainting must leave alone: the least PSNR in dB outside the repainted region."""


class Training(Declared):
    """Adapters trained on a team's own pictures."""

    waivers: tuple[Waiver, ...] = ()
    """Owners' written leave to train on pictures that say no to it."""


class Approvals(Declared):
    """Who may approve what waits for review, and for how long that holds."""

    roles: tuple[Text, ...] = ()
    """Roles (settings, `reviewers`) of which an approver has one; none: anybody."""
    expire_after_days: int | None = Field(default=None, ge=1, le=36_500, strict=True)
    """Days after which an approved image waits for a review again."""


class Policy(Declared):
    """A whole policy, `extends` resolved. Equal effective content has an equal digest."""

    policy: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    version: Text
    extends: Text | None = Field(default=None, exclude=True)
    """A file in the same folder, or a shipped policy's name."""
    description: str = ""
    checks: Checks
    rules: tuple[AnyRule, ...]
    licences: tuple[Text, ...] = Field(min_length=1)
    """SPDX ids (or the models file's names) of model licences that may be used."""
    prompts: Prompts = Prompts()
    labels: Labels = Labels()
    image: ImageFormat = ImageFormat()
    rejects: Rejects = Rejects()
    inputs: Inputs = Inputs()
    training: Training = Training()
    approvals: Approvals = Approvals()
    terms: UsageTerms | None = None
    """Usage terms of assets whose brief states none."""
    _declared: dict[str, str] = PrivateAttr(default_factory=dict)

    def measurements(self, part: Rule | Condition) -> tuple[Measurement, ...]:
        """The scores that a rule or condition is about, each of which must have been measured.

        Without a library: those of all libraries that the check declares. A class of `sensitive`:
        that of each detector that declares it.
        """
        if part.library:
            return (Measurement(part.measures, exact=True),)
        copying, sensitive = self.checks.copying, self.checks.sensitive
        if copying and part.check == "copying" and part.score in BY_LIBRARY:
            left_out = self.left_out(part)
            return tuple(
                Measurement(f"{part.measures}@{library}", exact=True)
                for library in copying.libraries
                if library not in left_out
            )
        if sensitive and part.check == "sensitive":
            models = {
                each.model for each in sensitive.detectors.values() if part.score in each.classes
            }
            return tuple(Measurement(part.measures, detector=model) for model in sorted(models))
        return (Measurement(part.measures),)

    def left_out(self, part: Rule | Condition) -> frozenset[str]:
        """Libraries that a rule leaves to rules of their own, for its channels or for all."""
        if isinstance(part, Condition) or part.library:
            return frozenset()
        own = self._own_libraries
        keys = {(part.check, part.score, channels) for channels in (None, part.channels)}
        return frozenset(library for key in keys for library in own.get(key, ()))

    @cached_property
    def _own_libraries(self) -> dict[tuple[Any, ...], set[str]]:
        found: dict[tuple[Any, ...], set[str]] = {}
        for rule in self.rules:
            if isinstance(rule, Rule) and rule.library:
                key = (rule.check, rule.score, rule.channels)
                found.setdefault(key, set()).add(rule.library)
        return found

    def declared(self, rule: str) -> str:
        """Where the rule of that name was written, `retail.yaml:52`; empty where not known."""
        return self._declared.get(rule, "")

    def declared_at(self, places: Mapping[str, str]) -> Self:
        """This policy, knowing where each rule was written."""
        self._declared.update(places)
        return self

    @field_validator("rules")
    @classmethod
    def _in_one_order(cls, rules: tuple[AnyRule, ...]) -> tuple[AnyRule, ...]:
        # Order carries no meaning, so it must not change the digest.
        return tuple(sorted(rules, key=lambda rule: rule.name))

    def allows_licence(self, licence: str) -> bool:
        """Whether a model of this licence may be used; upper and lower case do not matter."""
        return licence.casefold() in {listed.casefold() for listed in self.licences}

    @cached_property
    def effective(self) -> dict[str, Any]:
        """The whole policy as JSON: what the digest is of and what the catalog keeps.

        What came later is left out at its default: older policies keep their digests.
        """
        later = {"inputs": Inputs(), "training": Training(), "approvals": Approvals()}
        unset: dict[str, Any] = {
            name: True for name, default in later.items() if getattr(self, name) == default
        }
        if self.labels.watermark == Labels().watermark:
            unset["labels"] = {"watermark"}
        return self.model_dump(mode="json", exclude_none=True, exclude=unset, by_alias=True)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON of the effective policy."""
        return hashlib.sha256(canonical_json(self.effective)).hexdigest()

    @cached_property
    def text(self) -> str:
        """The effective policy as YAML; loading it again gives the same digest."""
        return str(yaml.safe_dump(self.effective, sort_keys=False, allow_unicode=True, width=100))
