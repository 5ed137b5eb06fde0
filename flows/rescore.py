"""The rescore flow: scores that a policy needs and the catalog lacks, measured on stored images.

One task a batch. What is recorded stays recorded: a run that was interrupted is run again and
measures the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from catalog.checking import ready_checks
from catalog.detectors_today import detectors_today
from catalog.lake import Lake, writing
from catalog.read import catalogued_images
from catalog.rescore import (
    NotMeasured,
    Stored,
    batches,
    erased_images,
    measure,
    to_measure,
    words_of_items,
)
from flows import artifacts
from pipeline.checks.protocol import Check
from pipeline.generate.device import pick_device
from pipeline.inputs import InputStore
from pipeline.lock import workspace_lock
from pipeline.policy import Policy, load_policy
from pipeline.settings import Settings, load_settings

Listener = Callable[[int, int], None]
LISTENER: ContextVar[Listener] = ContextVar("listener", default=lambda done, total: None)
"""Called after each batch with the images done and their number; for faces."""


class Rescoring:
    """A run's state: a plain class, so that Prefect never looks into what it holds."""

    def __init__(self, settings: Settings, lake: Lake, policy: Policy, where: str | None) -> None:
        device = pick_device(settings.device)
        self._settings = settings
        self._lake = lake
        self._policy = policy
        self._device = device.name
        self._checks = lru_cache(maxsize=1)(self._make)
        self.asked = to_measure(lake, policy, detectors_today(settings, policy), where)
        self.kept = [each for each in self.asked if each.url is not None]
        self.batches = batches(self.kept, settings.batch_size or device.batch_size)
        self.measured = 0
        self.lost = [_discarded(each) for each in self.asked if each.url is None]
        self.lost += erased_images(lake, where) if where is not None else []

    def measure(self, number: int) -> None:
        """Measure and record batch `number`."""
        batch = self.batches[number]
        names, request = batch[0].checks, batch[0].request
        # Only fidelity looks at what else a campaign asks for.
        of = (request.campaign, request.client) if "fidelity" in names else ("", "")
        measured, lost = measure(self._settings, self._lake, self._checks(names, *of), batch)
        self.measured += measured
        self.lost += lost

    def summary(self) -> dict[str, Any]:
        """The run in JSON: what faces show and Prefect keeps."""
        return {
            "policy": self._policy.policy,
            "policy_version": self._policy.version,
            "asked": len(self.asked),
            "measured": self.measured,
            "checks": sorted({name for each in self.kept for name in each.checks}),
            "not_measured": [asdict(each) for each in self.lost],
        }

    def _make(self, names: tuple[str, ...], campaign: str, client: str) -> list[Check]:
        """The checks for images of one campaign; models stay loaded between campaigns."""
        return ready_checks(
            self._lake,
            self._settings,
            self._policy,
            device=self._device,
            only=names,
            catalogued=catalogued_images(self._lake) if "duplicates" in names else (),
            items=words_of_items(self._lake, campaign, client) if "fidelity" in names else None,
            picture=InputStore(self._settings).pixels,
        )


# Not tried again by Prefect: a check that fails for an image is that image's error.
@task(cache_policy=NO_CACHE, persist_result=False)
def measure_batch(rescoring: Rescoring, number: int) -> None:
    """Measure and record batch `number`."""
    rescoring.measure(number)


@flow(name="rescore", persist_result=False, validate_parameters=True)
def rescore(policy: str, where: str | None = None, workspace: str | None = None) -> dict[str, Any]:
    """Measure what a policy needs on images that were made under others.

    Args:
        policy: name of a shipped policy, or the path of one.
        where: condition over the view `images`; default: all.
        workspace: folder of the workspace; default as in the settings.

    Returns how many images were measured, by which checks, and those that could not be, each with
    the reason. Raises PlatemarkError subclasses for inputs and set-up.
    """
    settings = load_settings(Path(workspace) if workspace else None)
    # Not while prompts are erased: evidence may quote them.
    with workspace_lock(settings), writing(settings.catalog) as lake:
        rescoring = Rescoring(settings, lake, load_policy(policy), where)
        show = artifacts.progress("rescore-progress", "images measured")
        done = 0
        for number, batch in enumerate(rescoring.batches):
            measure_batch(rescoring, number)
            done += len(batch)
            LISTENER.get()(done, len(rescoring.kept))
            show(100 * done / len(rescoring.kept))
        told = rescoring.summary()
    artifacts.table(told["not_measured"], "rescore-lost", f"Not measured for {told['policy']}")
    return told


def _discarded(stored: Stored) -> NotMeasured:
    request = stored.request
    why = "its pixels were discarded, as its policy said"
    return NotMeasured(request.request_id, request.sku, request.index, why)
