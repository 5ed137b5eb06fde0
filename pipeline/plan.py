"""A plan: brief and policy read, requests resolved, models found, batches made. No image yet.

Everything that can be wrong with a run's inputs is found here, before any work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path

from pipeline.brief import Brief, Refused, load_brief
from pipeline.errors import Fault, InputError, collect
from pipeline.inputs import FindAsset, Picture
from pipeline.keys import trust_anchors
from pipeline.licence_planning import licence_refusals
from pipeline.licences import load_licences
from pipeline.models import Kind, Model, load_models, resolve
from pipeline.policy import Policy, load_policy
from pipeline.request import Request
from pipeline.resolve import Surroundings, resolve_requests
from pipeline.settings import Settings
from pipeline.verdict import (
    model_refusals,
    picture_refusals,
    prompt_refusals,
    without_weights,
)


@dataclass(frozen=True)
class Batch:
    """Requests that one forward pass can serve; all are finals, or all are steps of chains."""

    requests: tuple[Request, ...]
    final: bool = True

    @cached_property
    def batch_id(self) -> str:
        """SHA-256 (hex) over the request ids: equal requests are one batch when sent again."""
        ids = "\n".join(request.request_id for request in self.requests)
        return hashlib.sha256(ids.encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """What a run would do. `models` make the images, `detectors` measure them; both by name.

    `pictures` are the inputs by SHA-256, `refused` the items that the brief goes on without.
    """

    brief: Brief
    policy: Policy
    requests: tuple[Request, ...]
    models: Mapping[str, Model]
    detectors: Mapping[str, Model]
    pictures: Mapping[str, Picture]
    refused: tuple[Refused, ...]
    told: tuple[str, ...]

    def batches(
        self,
        done: Set[str],
        batch_size: int,
        has_step: Callable[[str], bool] = lambda request_id: False,
    ) -> list[Batch]:
        """Batches of at most `batch_size` over the requests whose id is not in `done`.

        Steps of chains that `has_step` does not have yet come first, level by level, so that each
        model is loaded once.
        """
        todo = [request for request in self.requests if request.request_id not in done]
        return make_batches(todo, batch_size, has_step)

    @property
    def words(self) -> dict[str, str]:
        """What each item of the brief asks for, by sku."""
        return {request.sku: without_weights(request.chain[0]) for request in self.requests}

    @property
    def notices(self) -> list[str]:
        """What people must be told of the models and of the plan, each once."""
        models = (*self.models.values(), *self.detectors.values())
        found = [*(model.notice for model in models if model.notice), *self.told]
        if self.refused:
            found.append(f"{len(self.refused)} items are refused and skipped: see their faults.")
        return list(dict.fromkeys(found))


def make_plan(
    settings: Settings,
    brief: Path,
    policy: str | Path,
    template: str | None = None,
    find_asset: FindAsset | None = None,
) -> Plan:
    """Read all inputs of a run; `find_asset` looks into the catalog, where there is one.

    Raises InputError with all faults of brief and policy together, and SetupError when a model's
    folder is absent or its weights are not the declared ones.
    """
    faults: list[Fault] = []
    loaded_brief = collect(lambda: load_brief(brief, template), faults)
    loaded_policy = collect(lambda: load_policy(policy), faults)
    declared = collect(lambda: load_models(settings.models, settings.adapters), faults)
    if loaded_brief is None or loaded_policy is None or declared is None:
        raise InputError(f"{brief} under policy {policy}", faults)

    @cache
    def find_model(name: str, *kinds: Kind) -> Model:
        return resolve(declared, name, *kinds)

    around = Surroundings(
        anchors=trust_anchors(settings),
        find_asset=find_asset,
        writer=settings.prompt_writer,
        prompt_cache=settings.root / "prompts",
        forbidden=lambda picture: picture_refusals(loaded_policy, picture),
        refuse=lambda request: prompt_refusals(loaded_policy, request),
        refuse_models=lambda models, images: model_refusals(
            loaded_policy, images, {name: model.licence for name, model in models.items()}
        ),
    )
    found = resolve_requests(loaded_brief, find_model, loaded_policy.terms, around)
    if terms := loaded_brief.terms or loaded_policy.terms:
        refused = licence_refusals(
            terms,
            found.requests,
            found.models,
            found.pictures,
            load_licences(settings.licences),
            datetime.now(UTC).date(),
        )
        if refused:
            raise InputError(f"brief {brief}", refused)
    return Plan(
        loaded_brief,
        loaded_policy,
        found.requests,
        found.models,
        detectors(loaded_policy, find_model),
        found.pictures,
        found.refused,
        found.notices,
    )


def detectors(policy: Policy, find_model: Callable[..., Model]) -> dict[str, Model]:
    """The models that a policy's checks measure with, by name; `find_model` takes name and kinds.

    Raises as `pipeline.models.resolve` does.
    """
    return {name: find_model(name, *kinds) for name, kinds in policy.checks.models.items()}


def make_batches(
    requests: Iterable[Request],
    batch_size: int,
    has_step: Callable[[str], bool] = lambda request_id: False,
) -> list[Batch]:
    """Group requests into batches, one loaded pipeline after another.

    A level holds what depends on the levels before it: first steps of chains, then second steps …,
    and the finals last.
    """
    finals = list(requests)
    levels: list[dict[str, Request]] = []
    for request in finals:
        for level, step in enumerate(request.earlier):
            if level == len(levels):
                levels.append({})
            if not has_step(step.request_id):
                levels[level][step.request_id] = step
    batches = [
        batch for level in levels for batch in _grouped(level.values(), batch_size, final=False)
    ]
    return batches + _grouped(finals, batch_size, final=True)


def pipeline_key(request: Request) -> tuple[object, ...]:
    """What must be loaded to make a request: equal keys share one loaded pipeline."""
    controls = tuple((each.model, each.model_revision) for each in request.controls)
    return (request.model, request.model_revision, _loaded_as(request.mode), controls)


def _loaded_as(mode: str) -> str:
    """The mode whose pipeline class serves this one too."""
    return {"variation": "image-to-image", "outpainting": "inpainting"}.get(mode, mode)


def _grouped(requests: Iterable[Request], batch_size: int, final: bool) -> list[Batch]:
    """Batches in the order in which pipelines are loaded: one model after another, each once."""
    models: dict[str, dict[tuple[object, ...], dict[tuple[object, ...], list[Request]]]] = {}
    for request in requests:
        pipelines = models.setdefault(request.model, {})
        alike = pipelines.setdefault((*pipeline_key(request), request.adapters), {})
        alike.setdefault(_shape(request), []).append(request)
    return [
        Batch(tuple(group[start : start + batch_size]), final)
        for pipelines in models.values()
        for alike in pipelines.values()
        for group in alike.values()
        for start in range(0, len(group), batch_size)
    ]


def _shape(request: Request) -> tuple[object, ...]:
    return (
        request.mode,
        bool(request.negative_prompt),
        request.width,
        request.height,
        request.steps,
        request.guidance,
        request.scheduler,
        request.strength,
        request.controls,
        request.region and request.region.kind,
        request.prompt_syntax,
    )
