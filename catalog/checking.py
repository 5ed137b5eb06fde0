"""A policy's checks made ready outside a run: for examples, calibration and images made before.

Joins what pipeline/checks needs of the catalog (libraries, images made before) with its models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from catalog.lake import Lake
from catalog.libraries_sync import open_libraries
from pipeline.checks.build import Context, build_checks
from pipeline.models import Model, load_models, resolve
from pipeline.plan import detectors
from pipeline.policy import Policy
from pipeline.settings import Settings

if TYPE_CHECKING:
    from pipeline.checks.duplicates import Catalogued
    from pipeline.checks.protocol import Check
    from pipeline.images import RgbImage


def ready_checks(
    lake: Lake,
    settings: Settings,
    policy: Policy,
    *,
    device: str,
    models: Mapping[str, Model] | None = None,
    only: Iterable[str] | None = None,
    catalogued: Iterable[Catalogued] = (),
    items: Mapping[str, str] | None = None,
    picture: Callable[[str], RgbImage] | None = None,
) -> list[Check]:
    """The checks that a policy declares, ready to measure; `only` those sections, where given.

    `models` are the detectors where they are resolved already; see Context for the rest. The lake
    must be open for writing: folder libraries are brought up to date. Raises InputError and
    SetupError before anything is measured.
    """
    if models is None:
        find_model = partial(resolve, load_models(settings.models, settings.adapters))
        models = detectors(policy, find_model)
    sections = policy.checks.model_dump(exclude_none=True)
    if only is not None:
        sections = {name: options for name, options in sections.items() if name in set(only)}
    context = Context(
        models=models,
        library=open_libraries(lake, settings, device),
        device=device,
        catalogued=catalogued,
        items=items or {},
        picture=picture,
        image=policy.image,
    )
    return build_checks(sections, context)
