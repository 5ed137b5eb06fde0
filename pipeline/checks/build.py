"""Makes the checks that a policy declares, before the first image: what cannot run stops all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from pipeline.checks.duplicates import Catalogued, Duplicates
from pipeline.checks.protocol import Check, ModelSpec
from pipeline.checks.quality import Quality
from pipeline.checks.references import References
from pipeline.errors import PlatemarkError, SetupError
from pipeline.images import RgbImage
from pipeline.policy_checks import KNOWN_SCORES
from pipeline.policy_model import ImageFormat

if TYPE_CHECKING:
    from pipeline.checks.descriptor import Descriptor
    from pipeline.checks.embed import ClipEncoder

ENTRY_POINTS = "platemark.checks"


@dataclass(frozen=True)
class Context:
    """What checks are made of. `models` are those declared, by name.

    `library` opens a reference library by name, or raises SetupError naming those there are.
    `device` is `cpu`, `cuda` or `mps`. `catalogued` are the images made before. `items` are the
    words of the brief's items by sku. `picture` gives an input picture's pixels by its SHA-256.
    `image` is how finished images are encoded.
    """

    models: Mapping[str, ModelSpec]
    library: Callable[[str], References]
    device: str
    catalogued: Iterable[Catalogued] = ()
    items: Mapping[str, str] = field(default_factory=dict)
    picture: Callable[[str], RgbImage] | None = None
    image: ImageFormat = field(default_factory=ImageFormat)

    def model(self, name: str, kind: str) -> ModelSpec:
        """The model of that name and kind. Raises SetupError naming those there are."""
        spec = self.models.get(name)
        if spec is None or spec.kind != kind:
            known = sorted(each for each, model in self.models.items() if model.kind == kind)
            raise SetupError(
                f"no {kind} model {name!r} is declared; declare it in the models file, "
                f"or use one of: {', '.join(known) or 'none'}"
            )
        return spec


def build_checks(policy_checks: Mapping[str, Any], context: Context) -> list[Check]:
    """The checks of a policy's `checks` section (as JSON), in its order, ready to measure.

    A section that is None is switched off.
    A section that is no check of ours is looked for among the plugins. Raises SetupError or
    InputError (a faulty library); when several checks fail, one SetupError tells of all.
    """
    checks: list[Check] = []
    failures: dict[str, PlatemarkError] = {}
    for name, options in policy_checks.items():
        for make in _makers(name, options) if options is not None else ():
            try:
                checks.append(make(context))
            except PlatemarkError as error:
                failures.setdefault(str(error), error)
    if len(failures) == 1:
        raise next(iter(failures.values()))
    if failures:
        raise SetupError("\n".join(failures))
    return checks


Maker = Callable[[Context], Check]


def _makers(name: str, options: Mapping[str, Any]) -> list[Maker]:
    match name:
        case "quality":
            return [lambda context: Quality(context.image if options.get("bytes") else None)]
        case "duplicates":
            return [lambda context: Duplicates(context.catalogued)]
        case "similarity":
            return [partial(_similarity, **options)]
        case "copying":
            return [partial(_copying, **options)]
        case "fidelity":
            return [partial(_fidelity, **options)]
        case "sensitive":
            return [
                partial(_DETECTORS[each["kind"]], check="sensitive", **_without_kind(each))
                for each in options["detectors"].values()
            ]
        case "nsfw":
            return [partial(_NSFW[part], **options[part]) for part in _NSFW if options.get(part)]
        case _:
            return [lambda context: _plugin(name, options, context)]


def _without_kind(detector: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in detector.items() if key != "kind"}


def _nsfw_concepts(context: Context, model: str, unsafe: list[str], safe: list[str]) -> Check:
    return _concepts(context, "nsfw", model, {"concept": unsafe}, safe)


def _nsfw_classifier(context: Context, model: str, unsafe_labels: list[str]) -> Check:
    return _classifier(context, "nsfw", model, {"classifier": unsafe_labels})


def _concepts(
    context: Context, check: str, model: str, classes: dict[str, list[str]], neutral: list[str]
) -> Check:
    from pipeline.checks.concepts import Concepts

    return Concepts(check, _clip(context, model), classes, neutral)


def _classifier(context: Context, check: str, model: str, classes: dict[str, list[str]]) -> Check:
    from pipeline.checks.classifier import Classifier

    spec = context.model(model, "image-classifier")
    return Classifier(check, spec, classes, context.device)


def _safety_checker(
    context: Context, check: str, model: str, classes: dict[str, list[str]]
) -> Check:
    from pipeline.checks.safety_checker import SafetyChecker

    spec = context.model(model, "safety-checker")
    return SafetyChecker(check, spec, classes, context.device)


_NSFW: Mapping[str, Callable[..., Check]] = {
    "concepts": _nsfw_concepts,
    "classifier": _nsfw_classifier,
}
_DETECTORS: Mapping[str, Callable[..., Check]] = {
    "concepts": _concepts,
    "classifier": _classifier,
    "safety-checker": _safety_checker,
}


def _clip(context: Context, model: str) -> ClipEncoder:
    """The open_clip model of that name, loaded."""
    from pipeline.checks.embed import load_clip

    return load_clip(context.model(model, "open-clip"), context.device)


def _descriptor(context: Context, model: str) -> Descriptor:
    """The copy descriptor of that name, loaded."""
    from pipeline.checks.descriptor import load_descriptor

    return load_descriptor(context.model(model, "copy-descriptor"), context.device)


def _similarity(context: Context, model: str, libraries: list[str], top: int = 5) -> Check:
    from pipeline.checks.similarity import Similarity

    return Similarity(_clip(context, model), [context.library(name) for name in libraries], top)


def _copying(
    context: Context,
    libraries: list[str],
    crops: int,
    top: int,
    descriptor: str | None = None,
    shortlist: str | None = None,
    concepts: Mapping[str, list[str]] | None = None,
    fresh_days: int | None = None,
) -> Check:
    from pipeline.checks.copying import Copying

    return Copying(
        [context.library(name) for name in libraries],
        descriptor=_descriptor(context, descriptor) if descriptor else None,
        crops=crops,
        shortlist=_clip(context, shortlist) if shortlist else None,
        concepts=concepts,
        top=top,
        fresh_days=fresh_days,
    )


def _fidelity(
    context: Context, model: str, distractors: int, reference: str | None = None
) -> Check:
    from pipeline.checks.fidelity import Fidelity

    compared = None
    if reference:
        spec = context.models.get(reference)
        is_clip = spec is not None and spec.kind == "open-clip"
        compared = _clip(context, reference) if is_clip else _descriptor(context, reference)
    return Fidelity(_clip(context, model), context.items, distractors, compared, context.picture)


def _plugin(name: str, options: Mapping[str, Any], context: Context) -> Check:
    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in found:
        known = [*KNOWN_SCORES, *sorted(found)]
        raise SetupError(
            f"the policy asks for the check {name!r}, which is not installed; install the package "
            f"that brings it, or take it out (there are: {', '.join(known)})"
        )
    try:
        check: Check = found[name].load()(options, context)
    except PlatemarkError:
        raise
    # A plugin may fail in any way; the run must not start without its check.
    except Exception as error:
        raise SetupError(
            f"check {name!r} of {found[name].value} cannot be set up: {error}; mend the plugin"
        ) from error
    return check
