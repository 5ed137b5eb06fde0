"""One run's state: what is loaded once and shared by its batches. Knows no Prefect.

`flows/produce.py` drives it; a plain class, so that Prefect never looks into what it holds.
"""

from __future__ import annotations

import logging
import os
import platform
import time
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.checking import ready_checks
from catalog.fingerprints import index_signed
from catalog.lake import Lake, writing
from catalog.ledger import place_of
from catalog.ledger_checkpoints import ready_to_sign, write_checkpoint
from catalog.licensing import record_input_licences
from catalog.read import (
    catalogued_images,
    done_request_ids,
    done_under_other_policies,
    knows,
)
from catalog.renditions import catalogued_renditions
from catalog.write import (
    commit_batch,
    finish_run,
    record_refused,
    record_terms,
    register_model,
    register_policy,
    register_training_images,
    start_run,
)
from pipeline.checks.protocol import ImageBatch, remember
from pipeline.contact_sheet import Cell, thumbnail
from pipeline.generate import Generated
from pipeline.generate.device import Device, pick_device
from pipeline.generate.engine import Diffusers
from pipeline.inputs import InputStore
from pipeline.keys import signing_identity
from pipeline.licences import load_licences
from pipeline.lock import staging_lock, workspace_lock
from pipeline.plan import Batch, Plan
from pipeline.produce import Bench, check_and_seal, failed, keep_steps
from pipeline.records import Produced
from pipeline.request import Request
from pipeline.settings import Settings
from pipeline.soft_binding.watermarks import ready_to_mark
from pipeline.store import flush_staging, place, settle
from pipeline.train.card import trained_on

_log = logging.getLogger(__name__)

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
        self.store = InputStore(settings, plan.pictures)
        self.batches = plan.batches(done, self._batch_size, self.store.has_step)
        self.tally = Tally(len(plan.requests), len(done))
        self.cells: deque[Cell] = deque(maxlen=SHEET_CELLS)
        self._ready: dict[int, Batch] = {}
        self._lost: dict[str, Exception] = {}
        self._spent: dict[str, float] = {}
        # The same photo may stand before a thousand images.
        self._thumbnail = lru_cache(SHEET_CELLS)(lambda key: thumbnail(self.store.pixels(key)))
        self._threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1), "seal")
        self._started = 0.0
        self.judged_otherwise = done_under_other_policies(lake, done, plan.policy.digest)
        self._development = False
        if self.batches:
            self._bench = self._set_up()
            self._development = self._bench.identity.development
            self._engine = Diffusers(plan.models, self.store, device, self._batch_size)
            self._engine.load(self.batches[0])
            self._register()
        if plan.brief.terms:
            record_terms(lake, [each for each in plan.requests if each.request_id in done])

    @property
    def model_loads(self) -> int:
        """How many times a model was loaded."""
        return self._engine.loads if self.batches else 0

    def generate(self, number: int) -> Generated | None:
        """The images of batch `number`; those of chains' steps are stored at once.

        None when none of its requests can be made, because an earlier step failed.
        """
        start = time.perf_counter()
        self._started = self._started or start
        batch = self.batches[number]
        ready = tuple(each for each in batch.requests if self._why_lost(each) is None)
        self._ready[number] = Batch(ready, batch.final)
        self._note_lost(batch)
        if not ready:
            return None
        for request in ready:
            self.store.keep(request)
        try:
            generated = self._engine(self._ready[number])
            if not batch.final:
                keep_steps(self.store, self._ready[number], generated)
        except Exception as error:
            # Noted here: the batch that needs these steps may be next, before this one is sealed.
            if not batch.final:
                self._lost |= {request.request_id: error for request in ready}
            raise
        for request in ready:
            self._lost.pop(request.request_id, None)
        each = (time.perf_counter() - start) * 1000 / len(ready)
        self._spent |= {request.request_id: each for request in ready}
        return generated

    def seal(self, number: int, generated: Generated | Exception | None) -> None:
        """Check, decide, label, sign, store and index a batch; an exception becomes its error.

        Nothing is left to do for a batch of steps: the images that need a failed one fail with it.
        """
        batch = self.batches[number]
        if not batch.final:
            return
        if isinstance(generated, Exception):
            lost: dict[str, Exception] = {each.request_id: generated for each in batch.requests}
            ready = Batch((), batch.final)
        else:
            ready = self._ready.pop(number)
            lost = {r.request_id: e for r in batch.requests if (e := self._why_lost(r)) is not None}
        made: dict[str, Produced] = {}
        if ready.requests and isinstance(generated, Generated):
            for each in check_and_seal(
                self._bench, ready, generated, self._spent_on(ready), self._threads
            ):
                made[each.request.request_id] = each
        produced = [
            made.get(each.request_id) or failed(each, lost[each.request_id])
            for each in batch.requests
        ]
        start = time.perf_counter()
        flush_staging(self.settings)
        commit_batch(
            self._lake,
            self.run_id,
            batch.batch_id,
            produced,
            stamps_expected=self.settings.signing.timestamp_url is not None,
        )
        place(self.settings, [each.asset.url for each in produced if each.asset and each.asset.url])
        self.tally.stages["index"] += (time.perf_counter() - start) * 1000
        if isinstance(generated, Generated):
            whole = [made[each.request_id] for each in ready.requests]
            self._remember(generated.images, whole)
            self._note_pictures(generated.images, whole)
        self._count(produced)

    def _note_lost(self, batch: Batch) -> None:
        """Steps whose own earlier steps are lost are lost as well."""
        if not batch.final:
            found = {each.request_id: self._why_lost(each) for each in batch.requests}
            self._lost |= {key: why for key, why in found.items() if why is not None}

    def _why_lost(self, request: Request) -> Exception | None:
        """Why an earlier step of the request's chain could not be made, None when none failed."""
        return next(
            (self._lost[step.sha256] for step in request.inputs if step.sha256 in self._lost), None
        )

    def _spent_on(self, batch: Batch) -> list[dict[str, float]]:
        """Milliseconds of generation by request, those of earlier steps included."""
        return [
            {"generate": sum(self._spent.get(step.request_id, 0.0) for step in request.chain)}
            for request in batch.requests
        ]

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
            "model_loads": self.model_loads,
            "refused_items": [
                {"sku": each.sku, "faults": [str(fault) for fault in each.faults]}
                for each in self.plan.refused
            ],
            "judged_by_other_policies": self.judged_otherwise,
            "notices": [*self.plan.notices, *([DEVELOPMENT] if self._development else [])],
        }

    def close(self) -> None:
        """Let go of threads; the catalog is closed by whoever opened it."""
        self._threads.shutdown()

    def _set_up(self) -> Bench:
        identity = signing_identity(self.settings)
        policy, store = self.plan.policy, self.store
        ready_to_mark(policy)
        checks = ready_checks(
            self._lake,
            self.settings,
            policy,
            device=self.device.name,
            models=self.plan.detectors,
            catalogued=catalogued_images(self._lake),
            items=self.plan.words,
            picture=store.pixels,
        )
        licences = load_licences(self.settings.licences)
        return Bench(self.settings, policy, self.plan.models, checks, identity, store, licences)

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
        for model in self.plan.models.values():
            if model.kind == "lora" and model.is_folder:
                images = trained_on(Path(model.source))
                register_training_images(self._lake, model.name, model.revision, images)
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
        record_refused(self._lake, self.run_id, self.plan.refused)
        photos = {key: each.path for key, each in self.plan.pictures.items() if not each.asset}
        record_input_licences(self._lake, photos)

    def conclude(self, status: str, detail: str | None) -> None:
        """Record how the run ended, index what it signed, and sign the ledger."""
        finish_run(self._lake, self.run_id, status, detail)
        witnesses = self.settings.ledger_witnesses
        try:
            index_signed(self._lake)
        finally:
            signed = write_checkpoint(
                self._lake,
                place_of(self.settings),
                f"run {self.run_id}",
                witnesses,
                self.settings.signing.timestamp_url,
            )
        for witness in signed.unreached:
            # The run is whole, and the witness gets it with the next checkpoint.
            _log.warning("the ledger's checkpoint did not reach its witness %s", witness)
        if signed.unstamped:
            # The next checkpoint, which covers all before it, gets its stamp.
            _log.warning("the ledger's checkpoint has no time stamp of %s", signed.unstamped)

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
            self.cells.extend(self._inputs_of(each))
            outcome = each.verdict.outcome if each.verdict else "failed"
            reasons = each.verdict.reasons if each.verdict else ()
            why = f"{outcome}: {reasons[0].rule}" if reasons else outcome
            name = f"{each.request.sku}-{each.request.index}"
            self.cells.append(Cell(thumbnail(image), (name, each.request.prompt, why), outcome))

    def _inputs_of(self, produced: Produced) -> Iterator[Cell]:
        """The pictures that an image was made from, each once, to stand before it on the sheet."""
        name = f"{produced.request.sku}-{produced.request.index}"
        roles: dict[str, list[str]] = {}
        for used in produced.used:
            roles.setdefault(used.sha256, []).append(used.role)
        for sha256, found in roles.items():
            title = next(used.name for used in produced.used if used.sha256 == sha256)
            words = " and ".join(dict.fromkeys(found))
            yield Cell(self._thumbnail(sha256), (f"{words} of {name}", title, ""))


@contextmanager
def open_production(settings: Settings, plan: Plan, patience: float = 0) -> Iterator[Production]:
    """A run of `plan`: the workspace held, what a crash left behind settled, its end recorded.

    Waits `patience` seconds for another run. Raises BusyError when that still holds the workspace,
    SetupError when anything is missing.
    """
    device = pick_device(settings.device)
    with workspace_lock(settings, patience), writing(settings.catalog) as lake:
        ready_to_sign(lake, place_of(settings))
        with staging_lock(settings, alone=True):
            settle(
                settings,
                lambda sha256s: {*knows(lake, sha256s), *catalogued_renditions(lake, sha256s)},
            )
        production = Production(settings, plan, lake, device, str(uuid.uuid4()))
        try:
            yield production
        except BaseException as error:
            status, detail = "interrupted", None
            if isinstance(error, Exception):
                status, detail = "failed", f"{type(error).__name__}: {error}"
            try:
                _end(production, status, detail)
            except Exception as second:
                # What stopped the run comes first; the next run signs what this one could not.
                _log.warning("the run's end was not recorded: %s", second)
            raise
        _end(production, "completed", None)


def _end(production: Production, status: str, detail: str | None) -> None:
    production.close()
    if production.batches:
        production.conclude(status, detail)
