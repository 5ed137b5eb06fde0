"""One run's state: what is loaded once and shared by its batches. Knows no Prefect.

`flows/produce.py` drives it; a plain class, so that Prefect never looks into what it holds.
"""

from __future__ import annotations

import os
import platform
import time
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.lake import Lake, writing
from catalog.read import (
    catalogued_images,
    done_request_ids,
    done_under_other_policies,
    knows,
)
from catalog.write import (
    commit_batch,
    finish_run,
    record_terms,
    register_model,
    register_policy,
    register_references,
    start_run,
)
from pipeline.checks.build import build_checks
from pipeline.checks.protocol import ImageBatch, remember
from pipeline.contact_sheet import Cell
from pipeline.generate import Engine
from pipeline.generate.device import Device, pick_device
from pipeline.keys import signing_identity
from pipeline.lock import staging_lock, workspace_lock
from pipeline.plan import Batch, Plan
from pipeline.produce import Bench, check_and_seal, failed
from pipeline.records import Produced
from pipeline.settings import Settings
from pipeline.store import flush_staging, place, settle

SHEET_CELLS = 60
"""Images on a run's contact sheet: the last ones made."""
DEVELOPMENT = "Signed with a development certificate, worth no trust outside this workspace."
_OUTCOMES = ("pass", "review", "block", "failed")
_VERSIONS = ("platemark", "torch", "diffusers", "open_clip_torch", "c2pa-python", "duckdb")


@dataclass
class Tally:
    """What a run has done so far."""

    requested: int
    done_before: int
    made: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    stages: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Milliseconds by stage, summed over images."""

    @property
    def images_per_second(self) -> float:
        """Over the time from the first batch's start to the last commit."""
        return self.made / self.seconds if self.seconds else 0.0


class Production:
    """A run under way. `generate` is called by one thread, `seal` by another, in batch order."""

    def __init__(
        self, settings: Settings, plan: Plan, lake: Lake, device: Device, run_id: str
    ) -> None:
        self.settings = settings
        self.plan = plan
        self.device = device
        self.run_id = run_id
        self._lake = lake
        done = done_request_ids(lake, [request.request_id for request in plan.requests])
        self._batch_size = settings.batch_size or device.batch_size
        self.batches = plan.batches(done, self._batch_size)
        self.tally = Tally(len(plan.requests), len(done))
        self.cells: deque[Cell] = deque(maxlen=SHEET_CELLS)
        self._engine: tuple[str, Engine] | None = None
        self._generated: dict[int, float] = {}
        self._threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1), "seal")
        self._started = 0.0
        self.judged_otherwise = done_under_other_policies(lake, done, plan.policy.digest)
        self._development = False
        if self.batches:
            self._bench = self._set_up()
            self._development = self._bench.identity.development
            self.load(self.batches[0])
            self._register()
        if plan.brief.terms:
            record_terms(lake, [each for each in plan.requests if each.request_id in done])

    def load(self, batch: Batch) -> Engine:
        """The engine of the batch's model; one is loaded at a time."""
        from pipeline.generate.text_to_image import TextToImage

        name = batch.requests[0].model
        if self._engine is None or self._engine[0] != name:
            self._engine = None
            self._engine = (
                name,
                TextToImage(self.plan.models[name], self.device, self._batch_size),
            )
        return self._engine[1]

    def generate(self, number: int) -> NDArray[np.uint8]:
        """Images of batch `number`, uint8 RGB [N, H, W, 3]."""
        start = time.perf_counter()
        self._started = self._started or start
        batch = self.batches[number]
        images = self.load(batch)(batch)
        self._generated[number] = (time.perf_counter() - start) * 1000 / len(images)
        return images

    def seal(self, number: int, images: NDArray[np.uint8] | Exception) -> None:
        """Check, decide, label, sign, store and index a batch; an exception becomes its error."""
        batch = self.batches[number]
        if isinstance(images, Exception):
            produced = failed(batch, images)
        else:
            spent = {"generate": self._generated.pop(number)}
            produced = check_and_seal(self._bench, batch, images, spent, self._threads)
        start = time.perf_counter()
        flush_staging(self.settings)
        commit_batch(self._lake, self.run_id, batch.batch_id, produced)
        place(self.settings, [each.asset.url for each in produced if each.asset and each.asset.url])
        self.tally.stages["index"] += (time.perf_counter() - start) * 1000
        if not isinstance(images, Exception):
            self._remember(images, produced)
            self._note_pictures(images, produced)
        self._count(produced)

    def summary(self) -> dict[str, Any]:
        """The run in JSON: what faces show and Prefect keeps."""
        tally = self.tally
        return {
            "run_id": self.run_id,
            "requested": tally.requested,
            "done_before": tally.done_before,
            "made": tally.made,
            "outcomes": {
                name: tally.outcomes[name] for name in ("pass", "review", "block", "failed")
            },
            "reasons": dict(tally.rules.most_common()),
            "errors": dict(tally.errors.most_common(10)),
            "seconds": round(tally.seconds, 2),
            "images_per_second": round(tally.images_per_second, 3),
            "milliseconds_per_image": {
                stage: round(spent / tally.made, 2) for stage, spent in tally.stages.items()
            }
            if tally.made
            else {},
            "judged_by_other_policies": self.judged_otherwise,
            "notices": [*self.plan.notices, *([DEVELOPMENT] if self._development else [])],
        }

    def close(self) -> None:
        """Let go of threads; the catalog is closed by whoever opened it."""
        self._threads.shutdown()

    def _set_up(self) -> Bench:
        identity = signing_identity(self.settings)
        checks = build_checks(
            self.plan.policy.checks.model_dump(exclude_none=True),
            self.plan.detectors,
            libraries(self.settings),
            self.device.name,
            catalogued_images(self._lake),
            self.settings.root / "references",
        )
        return Bench(self.settings, self.plan.policy, self.plan.models, checks, identity)

    def _register(self) -> None:
        policy = self.plan.policy
        register_policy(
            self._lake,
            digest=policy.digest,
            name=policy.policy,
            version=policy.version,
            text=policy.text,
        )
        for model in (*self.plan.models.values(), *self.plan.detectors.values()):
            register_model(
                self._lake,
                name=model.name,
                revision=model.revision,
                licence=model.licence,
                source=model.source,
                weights_sha256=model.weights_sha256,
                details=asdict(model),
            )
        for check in self._bench.checks:
            for library in getattr(check, "libraries", ()):
                works = [asdict(reference) for reference in library.references]
                register_references(self._lake, library.name, library.content_sha256, works)
        start_run(
            self._lake,
            self.run_id,
            brief=self.plan.brief.name,
            brief_sha256=self.plan.brief.digest,
            policy=policy.policy,
            policy_version=policy.version,
            policy_digest=policy.digest,
            requested=len(self.plan.requests),
            host=platform.node(),
            device=self.device.name,
            versions={name: version(name) for name in _VERSIONS},
        )

    def _remember(self, images: NDArray[np.uint8], produced: list[Produced]) -> None:
        """Later images are compared with those that are catalogued, not with failed ones."""
        whole = [index for index, each in enumerate(produced) if each.error is None]
        requests = tuple(produced[index].request for index in whole)
        if whole:
            remember(self._bench.checks, ImageBatch(images[whole], requests))

    def _count(self, produced: list[Produced]) -> None:
        tally = self.tally
        tally.made += len(produced)
        tally.seconds = time.perf_counter() - self._started
        for each in produced:
            outcome = each.verdict.outcome if each.verdict else "failed"
            tally.outcomes[outcome] += 1
            tally.rules.update(
                {reason.rule for reason in each.verdict.reasons} if each.verdict else ()
            )
            if each.error:
                tally.errors[each.error] += 1
            for stage, spent in each.milliseconds.items():
                tally.stages[stage] += spent

    def _note_pictures(self, images: NDArray[np.uint8], produced: list[Produced]) -> None:
        for image, each in zip(images, produced, strict=True):
            outcome = each.verdict.outcome if each.verdict else "failed"
            reasons = each.verdict.reasons if each.verdict else ()
            why = f"{outcome}: {reasons[0].rule}" if reasons else outcome
            name = f"{each.request.sku}-{each.request.index}"
            self.cells.append(Cell(image, (name, each.request.prompt, why), outcome))


def libraries(settings: Settings) -> Mapping[str, Any]:
    """Reference libraries by name: the shipped one and those of the settings."""
    from pipeline.settings import ROOT

    return {"starter-protected": ROOT / "starter" / "references"} | settings.libraries


@contextmanager
def open_production(settings: Settings, plan: Plan, patience: float = 0) -> Iterator[Production]:
    """A run of `plan`: the workspace held, what a crash left behind settled, its end recorded.

    Waits `patience` seconds for another run. Raises BusyError when that still holds the workspace,
    SetupError when anything is missing.
    """
    device = pick_device(settings.device)
    with workspace_lock(settings, patience), writing(settings.catalog) as lake:
        with staging_lock(settings, alone=True):
            settle(settings, lambda sha256s: set(knows(lake, sha256s)))
        production = Production(settings, plan, lake, device, str(uuid.uuid4()))
        status, detail = "interrupted", None
        try:
            yield production
            status = "completed"
        except Exception as error:
            status, detail = "failed", f"{type(error).__name__}: {error}"
            raise
        finally:
            production.close()
            if production.batches:
                finish_run(lake, production.run_id, status, detail)
