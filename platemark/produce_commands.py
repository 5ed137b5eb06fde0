"""plan, run, schedule, serve: the commands that make images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from pipeline.errors import Fault, InputError
from pipeline.settings import Settings, load_settings
from platemark.display import (
    COLOURS,
    duration,
    err,
    out,
    print_json,
    print_notices,
    print_rows,
    words,
)
from platemark.options import AsJson, BriefPath, PolicyName, Template, Workspace


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    for command in (plan, run, schedule, serve):
        app.command(rich_help_panel="Produce")(command)


def plan(
    brief: BriefPath,
    policy: PolicyName = "starter",
    template: Template = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run would do: images, batches, time, models, licences, policy, what is done."""
    from catalog.assets import asset_finder
    from catalog.lake import exists, reading
    from catalog.read import done_request_ids, done_under_other_policies, measured_speed
    from pipeline.generate.device import pick_device
    from pipeline.inputs import InputStore
    from pipeline.plan import make_plan
    from pipeline.resolve import every_model

    settings = load_settings(workspace)
    with asset_finder(settings) as find:
        planned = make_plan(settings, brief, policy, template, find)
    done: set[str] = set()
    speed: dict[str, float] = {}
    judged: dict[str, int] = {}
    if exists(settings.catalog):
        with reading(settings.catalog) as lake:
            done = done_request_ids(lake, [each.request_id for each in planned.requests])
            speed = measured_speed(lake)
            judged = done_under_other_policies(lake, done, planned.policy.digest)
    batches = planned.batches(
        done,
        settings.batch_size or pick_device(settings.device).batch_size,
        InputStore(settings).has_step,
    )
    todo = [request for batch in batches for request in batch.requests]
    finals = [request for batch in batches if batch.final for request in batch.requests]
    known = all(request.model in speed for request in todo)
    seconds = sum(1 / speed[request.model] for request in todo) if known else None
    report = {
        "brief": planned.brief.name,
        "campaign": planned.brief.campaign,
        "policy": f"{planned.policy.policy} {planned.policy.version}",
        "policy_digest": planned.policy.digest,
        "images": len(planned.requests),
        "done": len(done),
        "to_make": len(finals),
        "steps_to_make": len(todo),
        "batches": len(batches),
        "seconds": None if seconds is None else round(seconds, 1),
        "models": [
            {
                "name": model.name,
                "kind": model.kind,
                "licence": model.licence,
                "revision": model.revision[:12],
                "images": sum(model.name in every_model(request) for request in finals),
            }
            for model in (*planned.models.values(), *planned.detectors.values())
        ],
        "refused_items": [
            {"sku": each.sku, "faults": [str(fault) for fault in each.faults]}
            for each in planned.refused
        ],
        "judged_by_other_policies": judged,
        "notices": [*planned.notices, *(_judged(*each) for each in judged.items())],
    }
    if as_json:
        print_json(report)
        return
    out.print(words((str(report["brief"]), "bold"), f" under policy {report['policy']}"))
    out.print(f"{report['images']} images, {report['done']} already done")
    out.print(f"{report['to_make']} to make in {report['batches']} batches")
    if todo:
        guess = "not known yet: this machine has not run this model" if seconds is None else ""
        out.print(f"Time: {guess or 'about ' + duration(seconds or 0)}")
    print_rows(report["models"])  # type: ignore[arg-type]
    _print_refused(report["refused_items"])  # type: ignore[arg-type]
    print_notices(report["notices"])  # type: ignore[arg-type]


def run(
    brief: BriefPath,
    policy: PolicyName = "starter",
    template: Template = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Make what a brief asks for and is not made yet. Interrupted? Run it again: it goes on."""
    settings = load_settings(workspace)
    summary = produce_here(settings, brief, policy, template)
    if as_json:
        print_json(summary)
    else:
        print_summary(summary)
    if summary["outcomes"]["failed"]:
        raise typer.Exit(1)


def schedule(
    brief: BriefPath,
    cron: Annotated[str, typer.Option(help='When, as a cron line: "0 6 * * 1-5".')],
    policy: PolicyName = "starter",
    template: Template = None,
    name: Annotated[str | None, typer.Option(help="Name; default: the brief's.")] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Produce a brief on a schedule; `platemark serve` runs it."""
    settings = load_settings(workspace)
    _prepare(settings)
    from catalog.assets import asset_finder
    from flows.serving import Schedule, add_schedule
    from pipeline.plan import make_plan

    with asset_finder(settings) as find:
        make_plan(settings, brief, policy, template, find)
    kept_policy = str(Path(policy).resolve()) if Path(policy).is_file() else policy
    try:
        kept = Schedule(
            name=name or brief.stem,
            brief=str(brief.resolve()),
            policy=kept_policy,
            template=template,
            cron=cron,
        )
    except ValidationError:
        fault = Fault(f"{name or brief.stem!r} is no name", "--name", "letters, digits, . _ -")
        raise InputError("schedule", [fault]) from None
    add_schedule(settings, kept)
    if as_json:
        print_json(kept.model_dump())
        return
    out.print(f"Scheduled {kept.name}: {cron}. `platemark serve` runs it.")


def serve(workspace: Workspace = None) -> None:
    """Run the schedules of this workspace, with Prefect's own pages to watch them."""
    settings = load_settings(workspace)
    _prepare(settings, "INFO")
    from flows.serving import prefect_server, read_schedules

    if not read_schedules(settings):
        fault = Fault("no schedules", str(settings.root), 'platemark schedule BRIEF --cron "…"')
        raise InputError("serve", [fault])
    err.print("Starting Prefect …")
    with prefect_server(settings) as url:
        from flows.serving import serve_schedules

        err.print(f"Prefect's pages: {url.removesuffix('/api')}   (stop with Ctrl-C)")
        serve_schedules(settings)


def print_summary(summary: dict[str, Any]) -> None:
    """A run's result for people: counts, reasons, speed, where the pictures are."""
    outcomes = summary["outcomes"]
    counts = [(f"  {name} {count}", COLOURS[name]) for name, count in outcomes.items() if count]
    out.print(words(f"{summary['made']} images made", *counts))
    for policy, count in summary["judged_by_other_policies"].items():
        print_notices([_judged(policy, count)])
    if summary["done_before"]:
        out.print(f"{summary['done_before']} of {summary['requested']} were done before")
    if summary["made"]:
        took = duration(summary["seconds"])
        out.print(f"{took}, {summary['images_per_second']:.2f} images/s")
    if summary["reasons"]:
        rows = [{"rule": rule, "images": count} for rule, count in summary["reasons"].items()]
        print_rows(rows)
    _print_refused(summary["refused_items"])
    for error, count in summary["errors"].items():
        err.print(f"{count} failed: {error}", style="red")
    if summary["contact_sheet"]:
        out.print(f"Contact sheet: {summary['contact_sheet']}")
    print_notices(summary["notices"])


def _print_refused(items: list[dict[str, Any]]) -> None:
    """The items that are skipped, each with all its faults."""
    for item in items:
        for fault in item["faults"]:
            err.print(f"skipped {item['sku']}: {fault}", style="yellow")


def _judged(policy: str, count: int) -> str:
    return f"{count} of the images that are done were judged by {policy} and keep that verdict."


def _prepare(settings: Settings, log_level: str = "CRITICAL") -> None:
    from flows.environment import prepare_prefect

    prepare_prefect(settings, log_level)


def produce_here(
    settings: Settings, brief: Path, policy: str, template: str | None = None
) -> dict[str, Any]:
    """Run the produce flow in this process, with progress on stderr."""
    from catalog.assets import asset_finder
    from pipeline.plan import make_plan

    # Wrong input is told at once, before Prefect takes its seconds to start.
    with asset_finder(settings) as find:
        make_plan(settings, brief, policy, template, find)
    _prepare(settings)
    with _progress() as show:
        from flows.produce import LISTENER, produce

        LISTENER.set(show)
        try:
            summary: dict[str, Any] = produce(
                str(brief), policy, workspace=str(settings.root), template=template
            )
        except KeyboardInterrupt:
            err.print("Interrupted. Run the same command again: it goes on where it stopped.")
            raise typer.Exit(130) from None
    return summary


class _progress:
    """A bar with images/s and time left; a line while Prefect starts and models load."""

    def __enter__(self) -> Callable[[Any, int], None]:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=err,
            transient=True,
        )
        self._task = self._bar.add_task("Starting Prefect and loading models", total=None, speed="")
        self._bar.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _show(self, tally: Any, total: int) -> None:
        self._bar.update(
            self._task,
            description="Making images",
            completed=tally.made,
            total=total,
            speed=f"{tally.images_per_second:.1f} images/s",
        )
