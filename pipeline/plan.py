"""A plan: brief and policy read, requests resolved, models found, batches made. No image yet.

Everything that can be wrong with a run's inputs is found here, before any work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

from pipeline.brief import Brief, load_brief
from pipeline.errors import Fault, InputError
from pipeline.models import Kind, Model, load_models, resolve
from pipeline.policy import Policy, load_policy
from pipeline.request import Request
from pipeline.resolve import resolve_requests
from pipeline.settings import Settings
from pipeline.verdict import refusals

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Requests of one model, mode, size, steps, guidance and scheduler: one forward pass."""

    requests: tuple[Request, ...]

    @cached_property
    def batch_id(self) -> str:
        """SHA-256 (hex) over the request ids: equal requests are one batch when sent again."""
        ids = "\n".join(request.request_id for request in self.requests)
        return hashlib.sha256(ids.encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """What a run would do. `models` makes the images, `detectors` measure them; both by name."""

    brief: Brief
    policy: Policy
    requests: tuple[Request, ...]
    models: Mapping[str, Model]
    detectors: Mapping[str, Model]

    def batches(self, done: Set[str], batch_size: int) -> list[Batch]:
        """Batches of at most `batch_size` over the requests whose id is not in `done`."""
        todo = (request for request in self.requests if request.request_id not in done)
        return make_batches(todo, batch_size)

    @property
    def notices(self) -> list[str]:
        """What people must be told of the models, each once."""
        models = (*self.models.values(), *self.detectors.values())
        return list(dict.fromkeys(model.notice for model in models if model.notice))


def make_plan(
    settings: Settings, brief: Path, policy: str | Path, template: str | None = None
) -> Plan:
    """Read all inputs of a run.

    Raises InputError with all faults of brief and policy together, and SetupError when a model's
    folder is absent or its weights are not the declared ones.
    """
    faults: list[Fault] = []
    loaded_brief = _collect(lambda: load_brief(brief, template), faults)
    loaded_policy = _collect(lambda: load_policy(policy), faults)
    declared = _collect(lambda: load_models(settings.models), faults)
    if loaded_brief is None or loaded_policy is None or declared is None:
        raise InputError(f"{brief} under policy {policy}", faults)

    @cache
    def painter(name: str) -> Model:
        return resolve(declared, name, "text-to-image")

    requests = resolve_requests(loaded_brief, painter, loaded_policy.terms)
    models = {name: painter(name) for name in dict.fromkeys(each.model for each in requests)}
    licences = {name: model.licence for name, model in models.items()}
    if refused := refusals(loaded_policy, requests, licences):
        raise InputError(f"{brief} under policy {loaded_policy.policy}", refused)
    nsfw, similarity = loaded_policy.checks.nsfw, loaded_policy.checks.similarity
    sections: tuple[tuple[Any, Kind], ...] = (
        (nsfw and nsfw.concepts, "open-clip"),
        (nsfw and nsfw.classifier, "image-classifier"),
        (similarity, "open-clip"),
    )
    detectors = {
        section.model: resolve(declared, section.model, kind)
        for section, kind in sections
        if section
    }
    return Plan(loaded_brief, loaded_policy, tuple(requests), models, detectors)


def make_batches(requests: Iterable[Request], batch_size: int) -> list[Batch]:
    """Group requests into batches, one model after another, so that each is loaded once."""
    groups: dict[str, dict[tuple[object, ...], list[Request]]] = {}
    for request in requests:
        alike = groups.setdefault(request.model, {})
        alike.setdefault(_shape(request), []).append(request)
    return [
        Batch(tuple(group[start : start + batch_size]))
        for alike in groups.values()
        for group in alike.values()
        for start in range(0, len(group), batch_size)
    ]


def _shape(request: Request) -> tuple[object, ...]:
    return (
        request.model_revision,
        request.mode,
        request.width,
        request.height,
        request.steps,
        request.guidance,
        request.scheduler,
    )


def _collect(load: Callable[[], T], faults: list[Fault]) -> T | None:
    try:
        return load()
    except InputError as error:
        faults.extend(error.faults)
        return None
