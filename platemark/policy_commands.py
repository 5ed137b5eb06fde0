"""policy show, check, diff, test: a rights team's own tools on the rules it declares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import Fault, InputError
from pipeline.settings import Settings, load_settings
from platemark.display import COLOURS, err, out, print_json, print_rows, words
from platemark.options import AsJson, Workspace

policy = typer.Typer(help="Read, check, compare and test policies.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of a shipped policy, or a path.")]


def register(app: typer.Typer) -> None:
    """Add the group to the app."""
    app.add_typer(policy, name="policy", rich_help_panel="Rules")


@policy.command()
def show(
    name: Name,
    effective: Annotated[
        bool,
        typer.Option("--effective", help="Every value, inherited and default ones, and its file."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """A policy as it is applied; with --effective each value and the file and line it is from."""
    from pipeline.policy import read_policy
    from pipeline.policy_values import effective_values

    found, tree = read_policy(name)
    if not effective:
        if as_json:
            print_json({"digest": found.digest, **found.effective})
            return
        out.print(found.text.rstrip())
        err.print(f"digest {found.digest}")
        return
    values = effective_values(found, tree)
    if as_json:
        rows = [
            {"key": each.key, "value": each.value, "file": each.file, "line": each.line or None}
            for each in values
        ]
        print_json({"policy": found.policy, "digest": found.digest, "values": rows})
        return
    print_rows({"key": each.key, "value": each.words, "from": each.origin} for each in values)
    err.print(f"digest {found.digest}")


@policy.command()
def check(
    files: Annotated[list[str], typer.Argument(help="Policies: paths or shipped names.")],
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Whether policies are right, with the line of each fault. Exit code 2 when one is not.

    What this machine lacks for them (a model, a library) is told too, and is no fault.
    """
    from pipeline.policy import load_policy

    settings = load_settings(workspace)
    faults: list[Fault] = []
    rows: list[dict[str, Any]] = []
    for name in files:
        try:
            found = load_policy(name)
        except InputError as error:
            faults += error.faults
            continue
        rows.append(
            {
                "policy": found.policy,
                "version": found.version,
                "digest": found.digest,
                "rules": len(found.rules),
                "lacks": list(_lacks(settings, found)),
            }
        )
    if as_json:
        print_json({"right": rows, "faults": [str(fault) for fault in faults]})
    else:
        for row in rows:
            head = words((f"{row['policy']} {row['version']}", "green"))
            out.print(head, f"is right: {row['rules']} rules, digest {row['digest'][:12]}")
            for lack in row["lacks"]:
                out.print(f"  here: {lack}", style="yellow")
    if faults:
        raise InputError("policies", faults)


@policy.command()
def diff(old: Name, new: Name, as_json: AsJson = False) -> None:
    """What two policies do not share, and whether a bound became stricter. Exit code 1 if any."""
    from pipeline.policy import read_policy
    from pipeline.policy_values import differences

    (before, before_tree), (after, after_tree) = read_policy(old), read_policy(new)
    found = differences(before, before_tree, after, after_tree)
    rows = [
        {
            "key": each.key,
            before.policy if before.policy != after.policy else "old": each.old
            and f"{each.old.words}  {each.old.origin}",
            after.policy if before.policy != after.policy else "new": each.new
            and f"{each.new.words}  {each.new.origin}",
            "effect": each.effect or None,
        }
        for each in found
    ]
    if as_json:
        print_json(
            [
                {
                    "key": each.key,
                    "old": each.old and each.old.value,
                    "new": each.new and each.new.value,
                    "effect": each.effect or None,
                }
                for each in found
            ]
        )
    elif rows:
        print_rows(rows)
    else:
        out.print(f"{before.policy} and {after.policy} apply the same rules")
    if found:
        raise typer.Exit(1)


@policy.command("test")
def try_policy(
    name: Name,
    tests: Annotated[
        Path | None, typer.Option(help="Labelled examples; default: NAME.tests.yaml beside it.")
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Run a policy's unit tests: labelled examples in YAML. Exit code 1 when one fails."""
    from rich.progress import Progress

    from catalog.checking import ready_checks
    from catalog.lake import writing
    from pipeline.generate.device import pick_device
    from pipeline.policy import find_policy, load_policy
    from pipeline.policy_examples import read_examples, tests_beside, try_examples

    settings = load_settings(workspace)
    found = load_policy(name)
    examples = read_examples(tests or tests_beside(find_policy(name)))
    settings.make_root()
    device = pick_device(settings.device).name
    with writing(settings.catalog) as lake, Progress(console=err, transient=True) as bar:
        task = bar.add_task("Testing", total=len(examples))
        pictures = any(each.image for each in examples)
        checks = ready_checks(lake, settings, found, device=device) if pictures else []
        results = []
        for tried in try_examples(found, checks, examples):
            results.append(tried)
            bar.advance(task)
    failed = [tried for tried in results if tried.faults]
    if as_json:
        print_json(
            [
                {
                    "example": tried.example.name,
                    "where": tried.example.where,
                    "outcome": tried.verdict.outcome if tried.verdict else None,
                    "faults": tried.faults,
                }
                for tried in results
            ]
        )
    else:
        for tried in failed:
            for fault in tried.faults:
                out.print(f"{tried.example.where}: {tried.example.name}: {fault}", style="red")
        counts = Counter(tried.verdict.outcome for tried in results if tried.verdict)
        told = [(f"{name} {count}  ", COLOURS[name]) for name, count in sorted(counts.items())]
        out.print(words(f"{len(results) - len(failed)} of {len(results)} are as stated  ", *told))
    if failed:
        raise typer.Exit(1)


def _lacks(settings: Settings, found: Any) -> Iterator[str]:
    """Models and libraries that a policy names and this machine does not declare."""
    from catalog.lake import exists, reading
    from pipeline.models import load_models

    models = load_models(settings.models, settings.adapters)
    for name, kinds in found.checks.models.items():
        if name not in models or models[name].entry.kind not in kinds:
            yield f"no {' or '.join(kinds)} model {name!r} is declared (docs/models.md)"
    known = {"starter-protected", *settings.libraries}
    if exists(settings.catalog):
        with reading(settings.catalog) as lake:
            known |= {row["library"] for row in lake.rows("SELECT library FROM libraries")}
    for name in found.checks.libraries:
        if name not in known:
            yield f"no library {name!r} (platemark library create, docs/libraries.md)"
