"""What a policy declares: frozen models of checks, rules, licences, prompts, labels and terms.

pipeline/policy.py reads them from YAML, pipeline/verdict.py applies them.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from pipeline.request import canonical_json
from pipeline.terms import UsageTerms
from pipeline.train.samples import Waiver

KNOWN_SCORES = {
    "nsfw": ("concept", "classifier"),
    "similarity": ("nearest",),
    "duplicates": ("exact", "near"),
    "quality": ("sharpness", "contrast", "decodes", "size_matches"),
}
"""What each check of ours measures; a rule names one of these, or a plugin's."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Concepts(_Declared):
    """Zero-shot concepts: an image text model weighs `unsafe` phrases against `safe` ones."""

    model: Text
    unsafe: tuple[Text, ...] = Field(min_length=1)
    safe: tuple[Text, ...] = Field(min_length=1)


class Classifier(_Declared):
    """A trained image classifier: the score is the probability of its `unsafe_labels`, 0..1."""

    model: Text
    unsafe_labels: tuple[Text, ...] = Field(min_length=1)


class NsfwCheck(_Declared):
    """Unsafe content, by concepts, by a classifier, or by both."""

    concepts: Concepts | None = None
    classifier: Classifier | None = None

    @model_validator(mode="after")
    def _something_runs(self) -> Self:
        if self.concepts is None and self.classifier is None:
            raise ValueError("nsfw needs concepts, a classifier, or both")
        return self


class SimilarityCheck(_Declared):
    """Nearest protected references, by cosine of embeddings; the `top` nearest are evidence."""

    model: Text
    libraries: tuple[Text, ...] = Field(min_length=1)
    top: int = Field(default=5, ge=1, le=100, strict=True)


class DuplicatesCheck(_Declared):
    """Exact and perceptual duplicates within the catalog."""


class QualityCheck(_Declared):
    """Technical quality: decodes, size, sharpness, contrast."""


class Checks(_Declared):
    """The checks that run; `null` switches an inherited one off, with its inherited rules.

    Any other name is a plugin's (pipeline/checks), with options that the plugin understands.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, dict[str, Any] | None]

    nsfw: NsfwCheck | None = None
    similarity: SimilarityCheck | None = None
    duplicates: DuplicatesCheck | None = None
    quality: QualityCheck | None = None


class Bound(_Declared):
    """Where a score starts to speak: `at_least` (score >= bound) or `below` (score < bound)."""

    at_least: Number | None = None
    below: Number | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.at_least is None) == (self.below is None):
            raise ValueError("a bound is either at_least or below")
        return self

    @property
    def value(self) -> float:
        """The bound itself."""
        return float(self.at_least if self.at_least is not None else self.below or 0)

    @property
    def words(self) -> str:
        """How the bound reads in a reason: `at least` or `below`."""
        return "at least" if self.at_least is not None else "below"

    def broken_by(self, score: float) -> bool:
        """Whether a finite score lies on the bad side."""
        return score >= self.value if self.at_least is not None else score < self.value


class Rule(_Declared):
    """What one score means: from where a person looks, from where the image is blocked."""

    check: Text
    score: Text
    review: Bound | None = None
    block: Bound | None = None
    reason: Text | None = None

    @property
    def name(self) -> str:
        """`check.score`: the name in verdicts, and what `extends` merges by."""
        return f"{self.check}.{self.score}"

    @model_validator(mode="after")
    def _review_comes_first(self) -> Self:
        if self.review is None and self.block is None:
            raise ValueError("a rule needs a review bound, a block bound, or both")
        if self.review and self.block:
            if self.review.words != self.block.words:
                raise ValueError("review and block must both be at_least or both be below")
            if self.block.broken_by(self.review.value):
                raise ValueError("the review bound is never reached: block comes first")
        return self


class Prompts(_Declared):
    """Words that no prompt may hold: whole words, whatever their case or Unicode form."""

    deny: tuple[Text, ...] = ()


class Labels(_Declared):
    """What a finished file says of itself, besides its C2PA manifest, which is never optional."""

    xmp: bool = Field(default=True, strict=True)
    """IPTC, PLUS and rights fields in an XMP packet."""
    china_aigc: Annotated[bool, Field(strict=True)] | Text = False
    """TC260:AIGC (GB 45438-2025): `true`, or the producer's registered code."""
    prompt: Literal["hash", "text", "none"] = "hash"
    """How much of the prompt file and manifest disclose."""
    training_mining: Literal["notAllowed", "allowed"] = "notAllowed"
    """Whether others may train on or mine the file (CAWG, PLUS)."""

    @model_validator(mode="after")
    def _china_needs_a_packet(self) -> Self:
        if self.china_aigc and not self.xmp:
            raise ValueError("china_aigc is written into the XMP packet: xmp must be true")
        return self


class ImageFormat(_Declared):
    """How finished images are encoded."""

    format: Literal["png", "jpeg", "webp"] = "png"
    quality: int = Field(default=90, ge=1, le=100, strict=True)
    """For JPEG and WebP."""


class Rejects(_Declared):
    """What is kept of blocked images; scores and reasons always are."""

    keep: Literal["all", "none"] = "all"


class Inputs(_Declared):
    """Pictures that images are made from."""

    restricted: Literal["refuse", "review", "ignore"] = "refuse"
    """An input whose C2PA, XMP or IPTC says no to such use, or whose manifest does not hold."""
    preserved_db: Number = 40.0
    """What inpainting must leave alone: the least PSNR in dB outside the repainted region."""


class Training(_Declared):
    """Adapters trained on a team's own pictures."""

    waivers: tuple[Waiver, ...] = ()
    """Owners' written leave to train on pictures that say no to it."""


class Policy(_Declared):
    """A whole policy, `extends` resolved. Equal effective content has an equal digest."""

    policy: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    version: Text
    extends: Text | None = Field(default=None, exclude=True)
    """A file in the same folder, or a shipped policy's name."""
    description: str = ""
    checks: Checks
    rules: tuple[Rule, ...]
    licences: tuple[Text, ...] = Field(min_length=1)
    """SPDX ids (or the models file's names) of model licences that may be used."""
    prompts: Prompts = Prompts()
    labels: Labels = Labels()
    image: ImageFormat = ImageFormat()
    rejects: Rejects = Rejects()
    inputs: Inputs = Inputs()
    training: Training = Training()
    terms: UsageTerms | None = None
    """Usage terms of assets whose brief states none."""

    @field_validator("rules")
    @classmethod
    def _in_one_order(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        # Order carries no meaning, so it must not change the digest.
        return tuple(sorted(rules, key=lambda rule: rule.name))

    def allows_licence(self, licence: str) -> bool:
        """Whether a model of this licence may be used; upper and lower case do not matter."""
        return licence.casefold() in {listed.casefold() for listed in self.licences}

    @cached_property
    def effective(self) -> dict[str, Any]:
        """The whole policy as JSON: what the digest is of and what the catalog keeps.

        Sections that came later are left out at their defaults: older policies keep their digests.
        """
        later = {"inputs": Inputs(), "training": Training()}
        unset = {name for name, default in later.items() if getattr(self, name) == default}
        return self.model_dump(mode="json", exclude_none=True, exclude=unset)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON of the effective policy."""
        return hashlib.sha256(canonical_json(self.effective)).hexdigest()

    @cached_property
    def text(self) -> str:
        """The effective policy as YAML; loading it again gives the same digest."""
        return str(yaml.safe_dump(self.effective, sort_keys=False, allow_unicode=True, width=100))
