"""The rules of a policy: what scores mean, alone or combined. pipeline/verdict.py applies them.

A part of pipeline/policy_model.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from pipeline.policy_checks import Declared, Text
from pipeline.records import Severity
from pipeline.terms import ANY_CHANNEL

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class Bound(Declared):
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


class _Speaks(Declared):
    """What every rule may say besides its bounds. None, not a default: digests stay."""

    channels: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    """Usage channels that the rule is for; it speaks of images that may go to one of them."""
    severity: Severity | None = None
    """Default: normal."""
    approvers: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    """Roles that may approve what this rule holds back; default: the policy's `approvals`."""
    reason: Text | None = None

    @field_validator("channels", "approvers")
    @classmethod
    def _in_one_order(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        # Order carries no meaning, so it must not change names and digest.
        return None if names is None else tuple(sorted(set(names)))

    @property
    def suffix(self) -> str:
        """The channels as they stand in a rule's name: `[amazon,etsy]`."""
        return f"[{','.join(self.channels)}]" if self.channels else ""

    def speaks_of(self, channels: Collection[str]) -> bool:
        """Whether the rule is for an image whose terms name these channels; none means any."""
        named = {channel.casefold() for channel in self.channels or ()}
        if not named or ANY_CHANNEL in named or not channels or ANY_CHANNEL in channels:
            return True
        return not named.isdisjoint(channel.casefold() for channel in channels)


@dataclass(frozen=True)
class Measurement:
    """A score that must have been measured. `name` is `check.score`, or `check.score@library`.

    Without `exact` a score against any library will do, with `detector` only that model's.
    """

    name: str
    exact: bool = False
    detector: str = ""

    def covers(self, score: str) -> bool:
        """Whether a score of this name is meant, whoever measured it."""
        return (score if self.exact else score.partition("@")[0]) == self.name


def score_name(check: str, score: str, library: str | None) -> str:
    """How a score is called in rules and reasons: `copying.descriptor@logos`."""
    return f"{check}.{score}" + (f"@{library}" if library else "")


class Rule(_Speaks):
    """What one score means: from where a person looks, from where the image is blocked.

    Without a `library` the rule is for each library that no rule of its own speaks of.
    """

    check: Text
    score: Text
    library: Text | None = None
    review: Bound | None = None
    block: Bound | None = None

    @property
    def measures(self) -> str:
        """The score that the rule is about: `check.score`, or `check.score@library`."""
        return score_name(self.check, self.score, self.library)

    @property
    def name(self) -> str:
        """`check.score@library[channels]`: the name in verdicts, and what `extends` merges by."""
        return self.measures + self.suffix

    @model_validator(mode="after")
    def _review_comes_first(self) -> Self:
        if self.review is None and self.block is None:
            raise ValueError("a rule needs a review bound, a block bound, or both")
        if self.review and self.block:
            if self.review.words != self.block.words:
                raise ValueError("review and block must both be at_least or both be below")
            if self.block.broken_by(self.review.value) or self.block.value == self.review.value:
                raise ValueError("the review bound is never reached: block comes first")
        return self


class Condition(Bound):
    """One score on the bad side of a bound, as a part of a combination."""

    check: Text
    score: Text
    library: Text | None = None

    @property
    def measures(self) -> str:
        """The score that it is about."""
        return score_name(self.check, self.score, self.library)


def _in_one_order(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    # Order carries no meaning here either.
    return tuple(sorted(parts, key=lambda part: part.model_dump_json()))


class AllOf(Declared):
    """Every part must hold."""

    all: Annotated[tuple[Part, ...], Field(min_length=1), AfterValidator(_in_one_order)]


class AnyOf(Declared):
    """One part is enough."""

    any: Annotated[tuple[Part, ...], Field(min_length=1), AfterValidator(_in_one_order)]


def _kind_of_part(part: Any) -> str:
    for key, kind in (("all", "all parts"), ("any", "any part")):
        if (isinstance(part, dict) and key in part) or hasattr(part, key):
            return kind
    return "a condition"


Part = Annotated[
    Annotated[Condition, Tag("a condition")]
    | Annotated[AllOf, Tag("all parts")]
    | Annotated[AnyOf, Tag("any part")],
    Discriminator(_kind_of_part),
]


class Combination(_Speaks):
    """What several scores mean together: `all` of them, or `any`, which may hold one another."""

    name_: Annotated[Text, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=60)] = Field(
        alias="name"
    )
    outcome: Literal["review", "block"]
    all: Annotated[tuple[Part, ...], Field(min_length=1), AfterValidator(_in_one_order)] | None = (
        None
    )
    any: Annotated[tuple[Part, ...], Field(min_length=1), AfterValidator(_in_one_order)] | None = (
        None
    )

    @property
    def name(self) -> str:
        """The name in verdicts, and what `extends` merges by."""
        return self.name_ + self.suffix

    @property
    def whole(self) -> AllOf | AnyOf:
        """All parts as one."""
        return AllOf(all=self.all) if self.all is not None else AnyOf(any=self.any or ())

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.all is None) == (self.any is None):
            raise ValueError("a combination has either all or any")
        return self


def conditions(part: Condition | AllOf | AnyOf) -> Iterator[Condition]:
    """All scores that a part of a combination asks for."""
    if isinstance(part, Condition):
        yield part
    else:
        for inside in part.all if isinstance(part, AllOf) else part.any:
            yield from conditions(inside)


AnyRule = Annotated[
    Annotated[Rule, Tag("a rule")] | Annotated[Combination, Tag("a combination")],
    Discriminator(
        lambda rule: "a rule" if _kind_of_part(rule) == "a condition" else "a combination"
    ),
]
