"""The `checks` section of a policy: which checks run, with which models, libraries and classes.

A part of pipeline/policy_model.py; pipeline/checks/build.py makes the checks from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

KNOWN_SCORES: Mapping[str, tuple[str, ...]] = {
    "nsfw": ("concept", "classifier"),
    "sensitive": (),
    "similarity": ("nearest",),
    "copying": ("pdq", "descriptor", "clip", "concept"),
    "fidelity": ("text", "rank", "reference"),
    "duplicates": ("exact", "near", "in_set"),
    "quality": (
        "sharpness",
        "contrast",
        "decodes",
        "size_matches",
        "megapixels",
        "shortest_side",
        "longest_side",
        "aspect",
        "background",
        "fill",
        "banding",
        "bytes",
    ),
}
"""What each check of ours measures; a rule names one of these, or a plugin's. The scores of
`sensitive` are the classes that its detectors declare."""
Side = Literal["at_least", "below"]
RANGES: Mapping[str, tuple[float, float, Side]] = {
    "nsfw.concept": (0, 1, "at_least"),
    "nsfw.classifier": (0, 1, "at_least"),
    "similarity.nearest": (-1, 1, "at_least"),
    "copying.pdq": (0, 256, "below"),
    "copying.descriptor": (-1, 1, "at_least"),
    "copying.clip": (-1, 1, "at_least"),
    "copying.concept": (0, 1, "at_least"),
    "fidelity.text": (0, 1, "below"),
    "fidelity.rank": (1, math.inf, "at_least"),
    "fidelity.reference": (-1, 1, "below"),
    "duplicates.exact": (0, 1, "at_least"),
    "duplicates.near": (0, 256, "below"),
    "duplicates.in_set": (0, 256, "below"),
}
"""Least and greatest value of scores of ours, and on which side they are bad."""
_SENSITIVE: tuple[float, float, Side] = (-2, 2, "at_least")


def range_of(check: str, score: str) -> tuple[float, float, Side] | None:
    """Least and greatest value of a score, and on which side it is bad; None where not known."""
    return _SENSITIVE if check == "sensitive" else RANGES.get(f"{check}.{score}")


BY_LIBRARY = ("pdq", "descriptor", "clip")
"""Scores of `copying` that are taken against each library: `descriptor@logos`."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Declared(BaseModel):
    """What all parts of a policy have in common: no unknown keys, no changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Concepts(Declared):
    """Zero-shot concepts: an image text model weighs `unsafe` phrases against `safe` ones."""

    model: Text
    unsafe: tuple[Text, ...] = Field(min_length=1)
    safe: tuple[Text, ...] = Field(min_length=1)


class Classifier(Declared):
    """A trained image classifier: the score is the probability of its `unsafe_labels`, 0..1."""

    model: Text
    unsafe_labels: tuple[Text, ...] = Field(min_length=1)


class NsfwCheck(Declared):
    """Unsafe content, by concepts, by a classifier, or by both."""

    concepts: Concepts | None = None
    classifier: Classifier | None = None

    @model_validator(mode="after")
    def _something_runs(self) -> Self:
        if self.concepts is None and self.classifier is None:
            raise ValueError("nsfw needs concepts, a classifier, or both")
        return self


Class = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]


class ClassifierDetector(Declared):
    """A Hugging Face image classifier: a class's score is the probability of its labels, 0..1."""

    kind: Literal["classifier"]
    model: Text
    classes: dict[Class, Annotated[tuple[Text, ...], Field(min_length=1)]] = Field(min_length=1)
    """Class: the detector's labels that belong to it."""


class ConceptDetector(Declared):
    """Zero-shot concepts: a class's score is the probability of its phrases against all others."""

    kind: Literal["concepts"]
    model: Text
    classes: dict[Class, Annotated[tuple[Text, ...], Field(min_length=1)]] = Field(min_length=1)
    """Class: phrases that are examples of it."""
    neutral: tuple[Text, ...] = Field(min_length=1)
    """Phrases of what is none of the classes."""


class SafetyChecker(Declared):
    """The CompVis safety checker: a class's score is the largest margin by which the image's
    cosine to one of its concepts lies above that concept's own threshold. The original blocks from
    0.0005, since it rounds to three decimals.
    """

    kind: Literal["safety-checker"]
    model: Text
    classes: dict[
        Class, Annotated[tuple[Literal["concepts", "special_care"], ...], Field(min_length=1)]
    ] = Field(min_length=1)
    """Class: which of the checker's two lists belong to it."""


Detector = Annotated[
    ClassifierDetector | ConceptDetector | SafetyChecker, Field(discriminator="kind")
]


class SensitiveCheck(Declared):
    """Sensitive content in classes of the policy's own naming, by any number of detectors.

    Two detectors may measure one class: then each of its scores counts.
    """

    detectors: dict[Text, Detector] = Field(min_length=1)

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes that a detector measures."""
        return tuple(dict.fromkeys(c for each in self.detectors.values() for c in each.classes))


class ProtectedConcepts(Declared):
    """Text against which images are weighed: names and manners of what is protected."""

    phrases: tuple[Text, ...] = Field(min_length=1)
    """`in the style of …`, a franchise's name: the score is their summed probability."""
    neutral: tuple[Text, ...] = Field(min_length=1)


class CopyingCheck(Declared):
    """Copies of references by several signals; `own` references are intended and only reported."""

    libraries: tuple[Text, ...] = Field(min_length=1)
    descriptor: Text | None = None
    """A copy-descriptor model, of the whole image and of its crops."""
    crops: int = Field(default=1, ge=0, le=3, strict=True)
    """Levels of crops that the descriptor sees: 0 none, each further level smaller crops."""
    shortlist: Text | None = None
    """An open-clip model."""
    concepts: ProtectedConcepts | None = None
    top: int = Field(default=5, ge=1, le=100, strict=True)
    fresh_days: int | None = Field(default=None, ge=1, strict=True)
    """A library that nobody has confirmed for longer is stale, and the run stops."""

    @model_validator(mode="after")
    def _concepts_need_a_model(self) -> Self:
        if self.concepts and not self.shortlist:
            raise ValueError("copying.concepts are measured by the shortlist's model: name one")
        return self


class FidelityCheck(Declared):
    """Whether the image shows what its item says, and the product of its reference photo."""

    model: Text
    """An open-clip model: the item's words against those of others of the brief."""
    distractors: int = Field(default=64, ge=1, le=1000, strict=True)
    reference: Text | None = None
    """A copy-descriptor or open-clip model that compares the image with the item's photo."""


class SimilarityCheck(Declared):
    """Nearest protected references, by cosine of embeddings; the `top` nearest are evidence."""

    model: Text
    libraries: tuple[Text, ...] = Field(min_length=1)
    top: int = Field(default=5, ge=1, le=100, strict=True)


class DuplicatesCheck(Declared):
    """Exact and perceptual duplicates within the catalog."""


class QualityCheck(Declared):
    """Technical quality and what channels ask: size, sharpness, background, fill, banding."""

    bytes: Literal[True] | None = None
    """Measure the encoded size too; it costs an encoding."""


class Checks(Declared):
    """The checks that run; `null` switches an inherited one off, with its inherited rules.

    Any other name is a plugin's (pipeline/checks), with options that the plugin understands.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, dict[str, Any] | None]

    nsfw: NsfwCheck | None = None
    sensitive: SensitiveCheck | None = None
    similarity: SimilarityCheck | None = None
    copying: CopyingCheck | None = None
    fidelity: FidelityCheck | None = None
    duplicates: DuplicatesCheck | None = None
    quality: QualityCheck | None = None

    @property
    def models(self) -> dict[str, tuple[str, ...]]:
        """The models that these checks measure with, and of which kinds each may be."""
        found: list[tuple[str | None, tuple[str, ...]]] = []
        if self.nsfw:
            found += [
                (part.model, (kind,))
                for part, kind in (
                    (self.nsfw.concepts, "open-clip"),
                    (self.nsfw.classifier, "image-classifier"),
                )
                if part
            ]
        if self.sensitive:
            found += [
                (each.model, (_DETECTOR_KINDS[each.kind],))
                for each in self.sensitive.detectors.values()
            ]
        if self.similarity:
            found.append((self.similarity.model, ("open-clip",)))
        if self.copying:
            found += [
                (self.copying.descriptor, ("copy-descriptor",)),
                (self.copying.shortlist, ("open-clip",)),
            ]
        if self.fidelity:
            found += [
                (self.fidelity.model, ("open-clip",)),
                (self.fidelity.reference, ("copy-descriptor", "open-clip")),
            ]
        return {name: kinds for name, kinds in reversed(found) if name}

    @property
    def libraries(self) -> tuple[str, ...]:
        """The reference libraries that these checks compare with."""
        sections = (self.similarity, self.copying)
        return tuple(dict.fromkeys(name for each in sections if each for name in each.libraries))


_DETECTOR_KINDS = {
    "classifier": "image-classifier",
    "concepts": "open-clip",
    "safety-checker": "safety-checker",
}
"""Kinds of models that the detectors of `sensitive` are."""
