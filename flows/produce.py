"""The produce flow: a brief's images made, checked, signed and indexed, one task a batch.

The next batch is being generated while the last is checked, encoded, signed and indexed. Prefect's
records are for watching; the catalog is the evidence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from catalog.assets import asset_finder
from flows import artifacts
from flows.production import Production, Tally, open_production
from flows.sheet import sheet_markdown, write_sheet
from pipeline.errors import PlatemarkError, SetupError
from pipeline.generate import Generated
from pipeline.plan import Plan, make_plan
from pipeline.settings import load_settings

AHEAD = 2
"""Batches that may wait to be sealed; bounds memory when sealing is the slower side."""

Listener = Callable[[Tally, int], None]
LISTENER: ContextVar[Listener] = ContextVar("listener", default=lambda tally, total: None)
"""Called after each batch with the tally and the images this run has to make; for faces."""


def _worth_retrying(_task: Any, _run: Any, state: Any) -> bool:
    error = state.result(raise_on_failure=False)
    return not isinstance(error, PlatemarkError)


@task(cache_policy=NO_CACHE, persist_result=False, retries=1, retry_condition_fn=_worth_retrying)
def generate_batch(production: Production, number: int) -> Generated | None:
    """Images of batch `number`, tried twice."""
    return production.generate(number)


# Not tried again by Prefect: commits are tried again where they are made, and a run that stopped
# goes on with this batch when it is run again.
@task(cache_policy=NO_CACHE, persist_result=False)
def seal_batch(production: Production, number: int, images: Any) -> None:
    """Check, decide, label, sign, store and index batch `number`."""
    production.seal(number, images)


# One sealing thread: batches are committed in order, and duplicates are found in one order.
@flow(
    name="produce",
    task_runner=cast(Any, ThreadPoolTaskRunner(max_workers=1)),
    validate_parameters=True,
    persist_result=False,
)
def produce(
    brief: str,
    policy: str = "starter",
    workspace: str | None = None,
    template: str | None = None,
    patience: float = 0,
) -> dict[str, Any]:
    """Make what a brief asks for and the catalog does not have yet.

    Args:
        brief: path of the brief, read where the flow runs.
        policy: name of a shipped policy, or the path of one.
        workspace: folder of the workspace; default as in the settings.
        template: Jinja2 prompt template for a bare table.
        patience: seconds to wait while another run holds the workspace.

    Returns the run's summary. Raises PlatemarkError subclasses for inputs and set-up.
    """
    settings = load_settings(Path(workspace) if workspace else None)
    with asset_finder(settings) as find:
        plan = make_plan(settings, Path(brief), policy, template, find)
    with open_production(settings, plan, patience) as production:
        if production.batches:
            _run_batches(production)
            sheet = write_sheet(settings, production)
            _publish(production, plan)
        else:
            sheet = None
        return production.summary() | {"contact_sheet": str(sheet) if sheet else None}


def _run_batches(production: Production) -> None:
    total = sum(len(batch.requests) for batch in production.batches if batch.final)
    show = artifacts.progress("produce-progress", "images made")
    report = LISTENER.get()
    pending: deque[PrefectFuture[None]] = deque()

    def settle_oldest() -> None:
        pending.popleft().result()
        report(production.tally, total)
        show(100 * production.tally.made / total)

    try:
        for number in range(len(production.batches)):
            pending.append(seal_batch.submit(production, number, _images(production, number)))
            if len(pending) >= AHEAD:
                settle_oldest()
        while pending:
            settle_oldest()
    finally:
        # Whatever went wrong, the catalog stays open until the batches under way are indexed.
        for future in pending:
            future.wait()


def _images(production: Production, number: int) -> Generated | Exception | None:
    """A batch's images, or why they cannot be made even when tried again: others go on."""
    try:
        return generate_batch(production, number)
    except SetupError:
        raise
    except Exception as error:
        return error


def _publish(production: Production, plan: Plan) -> None:
    """What Prefect's own pages show of the run."""
    tally = production.tally
    artifacts.table(
        [{"verdict": name, "images": count} for name, count in tally.outcomes.items()]
        + [{"verdict": f"rule {name}", "images": count} for name, count in tally.rules.items()],
        "produce-verdicts",
        f"Verdicts of {plan.brief.name} under {plan.policy.policy}",
    )
    artifacts.markdown(sheet_markdown(production), "produce-contact-sheet", "Contact sheet")
