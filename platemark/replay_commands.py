"""replay, rescore, release: a new policy over images made before, without making one anew."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.settings import load_settings
from platemark.display import err, out, print_json, print_rows, words
from platemark.options import AsJson, Workspace

if TYPE_CHECKING:
    from catalog.replay import Replay

Where = Annotated[
    str | None,
    typer.Option(help="""Which images, over the view images: "campaign = 'spring'"."""),
]
NewPolicy = Annotated[
    str, typer.Option("--policy", "-p", help="The new policy: a shipped one's name, or a path.")
]


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    for command in (replay, rescore, release):
        app.command(rich_help_panel="Rules")(command)


def replay(
    policy: NewPolicy,
    where: Where = None,
    apply: Annotated[
        bool,
        typer.Option("--apply", help="Record the new verdicts; without it nothing is recorded."),
    ] = False,
    by: Annotated[
        str | None, typer.Option("--by", help="Who applies it; default: the login name.")
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """What a policy would change on all images made so far: which verdicts, which way, and why.

    Asks stored scores, in SQL, without a model. --apply records it: old verdicts stay as history,
    images that pass now wait for `platemark release`.
    """
    from catalog.detectors_today import detectors_today
    from catalog.lake import writing
    from catalog.replay import replay as replayed
    from catalog.replay_apply import apply as record
    from pipeline.lock import workspace_lock
    from pipeline.policy import load_policy

    settings = load_settings(workspace)
    new = load_policy(policy)
    told = replayed(settings.catalog, new, where, detectors_today(settings, new))
    applied: dict[str, Any] = {}
    if apply:
        # Not while prompts are erased: reasons may quote them.
        with workspace_lock(settings), writing(settings.catalog) as lake:
            recorded = record(lake, new, told, by or getpass.getuser())
        applied = {"replay_id": recorded.replay_id, "to_sign": recorded.to_sign}
    if as_json:
        print_json(told.as_json() | {"applied": applied or None})
        return
    _print_replay(told)
    if applied:
        out.print(f"Recorded as replay {applied['replay_id']}.")
        if applied["to_sign"]:
            out.print(f"{applied['to_sign']:,} images pass now and wait: `platemark release`.")
    elif told.changed:
        out.print("Nothing is recorded: add --apply to record it.")


def rescore(
    policy: NewPolicy,
    where: Where = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Measure the scores that a policy needs and the catalog lacks, on the images that lack them.

    Scores from other weights than the policy's models have today are measured again. Stop it at
    any time: run again, it goes on with the rest.
    """
    from flows.environment import prepare_prefect

    settings = load_settings(workspace)
    prepare_prefect(settings)
    from rich.progress import Progress

    from flows.rescore import LISTENER
    from flows.rescore import rescore as flow

    with Progress(console=err, transient=True) as bar:
        task = bar.add_task("Measuring", total=None)
        LISTENER.set(lambda done, of: bar.update(task, completed=done, total=of))
        told = flow(policy, where, str(settings.root))
    if as_json:
        print_json(told)
        return
    by = f" by {', '.join(told['checks'])}" if told["checks"] else ""
    out.print(f"{told['measured']:,} of {told['asked']:,} images measured{by}")
    _print_failed(told["not_measured"])


def release(
    where: Where = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Sign the images that a replay let pass: they leave quarantine labelled and signed.

    Stop it at any time: run again, it goes on with the rest.
    """
    from dataclasses import asdict

    from rich.progress import Progress

    from catalog.release_queue import release_queued

    with Progress(console=err, transient=True) as bar:
        task = bar.add_task("Signing", total=None)
        released = release_queued(
            load_settings(workspace),
            where,
            lambda done, of: bar.update(task, completed=done, total=of),
        )
    if as_json:
        print_json(asdict(released))
        return
    out.print(f"{released.signed:,} images signed")
    _print_failed([asdict(each) for each in released.failed])


def _print_failed(failed: list[dict[str, Any]]) -> None:
    if failed:
        out.print(f"Left: {len(failed):,}")
        print_rows(
            {"image": f"{each['sku']}-{each['index']}", "why": each["error"]}
            for each in failed[:_SHOWN]
        )


_SHOWN = 50


def _print_replay(told: Replay) -> None:
    under = f"{told.policy} {told.version} ({told.digest[:12]})"
    out.print(f"{told.judged:,} images under {under}: {told.changed:,} verdicts change")
    print_rows(
        {"verdict": name, "before": told.before[name], "now": told.now[name]}
        for name in told.before
    )
    if told.changes:
        out.print(words(("Changes", "bold")))
        print_rows(
            {
                "from": each.was,
                "to": each.now,
                "campaign": each.campaign or "none",
                "images": each.images,
            }
            for each in told.changes[:_SHOWN]
        )
        if len(told.changes) > _SHOWN:
            out.print(f"… and {len(told.changes) - _SHOWN:,} more; --json has all")
    if told.rules:
        out.print(words(("Rules that speak", "bold")))
        print_rows(
            {"rule": r.rule, "review": r.review, "block": r.block, "of changed": r.changed}
            for r in told.rules
        )
    if told.first:
        out.print(words(("Images that matter most", "bold")))
        print_rows(_shown(told))
    if told.packs:
        out.print(words(("Packs delivered that would no longer pass", "bold")))
        print_rows(
            {
                "pack": pack.file,
                "licensee": pack.licensee,
                "images": pack.images,
                "why": ", ".join(f"{rule} ({images})" for rule, images in pack.rules.items()),
            }
            for pack in told.packs
        )
    for score, images in told.missing.items():
        out.print(
            f"{score} was not measured on {images:,} images, which blocks them: `platemark rescore`"
        )
    for text in told.other_detectors:
        err.print(f"Note: {text}", style="yellow")


def _shown(told: Replay) -> Iterator[dict[str, Any]]:
    for each in told.first:
        where = [f"in {len(each.packs)} packs"] if each.packs else []
        yield {
            "image": f"{each.sku}-{each.index}",
            "from": each.was,
            "to": each.now,
            "file": ", ".join([each.asset_state or "none", *where]),
            "why": "; ".join(each.why) or f"before: {'; '.join(each.before)}",
        }
