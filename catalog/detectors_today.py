"""Which weights a policy's checks would measure with today, by score: what stored ones must match.

Asked by `replay`, which only warns, and by rescoring, which measures again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from pipeline.checks.descriptor import descriptor_digest
from pipeline.errors import PlatemarkError
from pipeline.models import Model, load_models, resolve
from pipeline.policy_checks import Checks
from pipeline.policy_model import Policy
from pipeline.settings import Settings


def detectors_today(settings: Settings, policy: Policy) -> Mapping[str, frozenset[str]]:
    """SHA-256 of the weights that each score is measured with, by `check.score` without library.

    Scores of models that are absent here, or pinned on a hub and therefore not hashed, are left
    out: nothing is known of them.
    """
    declared = load_models(settings.models, settings.adapters)
    find_model: Callable[..., Model] = partial(resolve, declared)
    weights: dict[str, str] = {}
    for name, kinds in policy.checks.models.items():
        try:
            declared_model = find_model(name, *kinds)
            found = declared_model.weights_sha256
            if found and declared_model.kind == "copy-descriptor":
                found = descriptor_digest(declared_model)
        # An auditor's machine has no models; a replay does not need them.
        except PlatemarkError:
            continue
        if found:
            weights[name] = found
    models: defaultdict[str, set[str]] = defaultdict(set)
    for score, model in _measured_by(policy.checks):
        models[score].add(model)
    return {
        score: frozenset(weights[name] for name in names)
        for score, names in models.items()
        if names <= weights.keys()
    }


def _measured_by(checks: Checks) -> Iterator[tuple[str, str]]:
    """Each score that a model measures, and the model's name; two models may measure one score."""
    if checks.nsfw and checks.nsfw.concepts:
        yield "nsfw.concept", checks.nsfw.concepts.model
    if checks.nsfw and checks.nsfw.classifier:
        yield "nsfw.classifier", checks.nsfw.classifier.model
    for detector in checks.sensitive.detectors.values() if checks.sensitive else ():
        yield from ((f"sensitive.{each}", detector.model) for each in detector.classes)
    if checks.similarity:
        yield "similarity.nearest", checks.similarity.model
    if checks.copying and checks.copying.descriptor:
        yield "copying.descriptor", checks.copying.descriptor
    if checks.copying and checks.copying.shortlist:
        yield "copying.clip", checks.copying.shortlist
        yield "copying.concept", checks.copying.shortlist
    if checks.fidelity:
        yield "fidelity.text", checks.fidelity.model
        yield "fidelity.rank", checks.fidelity.model
        if checks.fidelity.reference:
            yield "fidelity.reference", checks.fidelity.reference
