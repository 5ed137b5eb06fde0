"""export, channel list|show|check, revoke: licensed packs for channels, and taking them back."""

from __future__ import annotations

import getpass
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import Fault, InputError
from pipeline.settings import load_settings
from platemark.display import err, out, print_json, print_rows
from platemark.options import AsJson, Workspace

if TYPE_CHECKING:
    from catalog.channel import Channel
    from catalog.pack_plan import Plan

channel = typer.Typer(
    help="What marketplaces, agencies and asset stores accept, as data.", no_args_is_help=True
)
ChannelName = Annotated[
    str, typer.Argument(help="Name of a shipped channel, or a path.", show_default=False)
]
_SHOWN = 50
"""Images that a dry run lists; --json has all."""


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.command(rich_help_panel="Export")(export)
    app.add_typer(channel, name="channel", rich_help_panel="Export")
    app.command(rich_help_panel="Export")(revoke)


def export(
    out_path: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="What to write: a .zip, a .tar, a folder, or a store's address (s3://…).",
        ),
    ] = None,
    where: Annotated[
        str, typer.Option(help="""Which images, over the view images: "campaign = 'spring'".""")
    ] = "true",
    terms: Annotated[
        str | None,
        typer.Option(help="Usage terms: a YAML file, or the id of catalogued ones."),
    ] = None,
    channel: Annotated[
        str, typer.Option(help="For whom: a channel's name (`platemark channel list`) or file.")
    ] = "plain",
    items: Annotated[
        Path | None,
        typer.Option(help="Table of what the channel's feed says of each item, by sku."),
    ] = None,
    settings_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A value that the channel needs: base_url=https://…"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what fits and what does not; write nothing.")
    ] = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Write a pack: passed or approved images, licence, manifest, check sums, contact sheet.

    Blocked, unreviewed, expired, revoked or altered images stay out, and the command says why.
    Interrupted? Run it again: it goes on where it stopped.
    """
    from rich.progress import Progress

    from catalog.export import dry_run as plan_export
    from catalog.export import export as export_pack

    settings, values = load_settings(workspace), _values(settings_ or [])
    if dry_run:
        plan = plan_export(settings, where, terms, channel=channel, items=items, values=values)
        print_json(plan.as_json()) if as_json else _print_plan(plan)
        if not plan.fits:
            raise typer.Exit(1)
        return
    if out_path is None:
        raise InputError("export", [Fault("must be given", "--out", "name a file or folder")])
    with Progress(console=err, transient=True) as bar:
        task = bar.add_task("Verifying and packing", total=None)
        pack = export_pack(
            settings,
            out_path,
            where,
            terms,
            lambda done, total: bar.update(task, completed=done, total=total),
            channel=channel,
            items=items,
            values=values,
        ).as_json()
    if as_json:
        print_json(pack)
        return
    print_pack(pack)


def print_pack(pack: dict[str, Any]) -> None:
    """A pack for people: what is in it, what is not and why."""
    out.print(f"{pack['path']}: {pack['images']} images, {pack['size'] / 1e6:.1f} MB")
    out.print(f"SHA-256 {pack['sha256']}")
    if pack["left_out"]:
        out.print(f"Left out: {len(pack['left_out'])}")
        print_rows(
            {"image": f"{each['sku']}-{each['index']}", "why": "; ".join(each["reasons"])}
            for each in pack["left_out"]
        )


def _values(given: list[str]) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    faults = [
        Fault(f"{name!r} has no value", "--set", "write name=value")
        for name, sign, _ in pairs
        if not (name and sign)
    ]
    if faults:
        raise InputError("export", faults)
    return {name: value for name, _, value in pairs}


def _print_plan(plan: Plan) -> None:
    made = sum(each.recipe is not None for each in plan.fits)
    out.print(f"{len(plan.fits)} images fit, {made} of them as renditions")
    rules = Counter(
        (broken.rule, broken.asked, broken.source, broken.remedy)
        for each in plan.unfit
        for broken in each.broken
    )
    if plan.unfit:
        out.print(f"{len(plan.unfit)} images do not fit:")
        print_rows(
            {
                "images": count,
                "rule": f"{rule}: {asked}",
                "what would make them fit": remedy,
                "source": source or None,
            }
            for (rule, asked, source, remedy), count in rules.most_common()
        )
        print_rows(
            {
                "image": f"{each.row['sku']}-{each.row['index']}",
                "why": "; ".join(f"{one.rule} is {one.found}" for one in each.broken),
            }
            for each in plan.unfit[:_SHOWN]
        )
    if plan.left_out:
        out.print(f"{len(plan.left_out)} images may not go in at all:")
        print_rows(
            {"image": f"{each.sku}-{each.index}", "why": "; ".join(each.reasons)}
            for each in plan.left_out[:_SHOWN]
        )
    if max(len(plan.unfit), len(plan.left_out)) > _SHOWN:
        out.print(f"The first {_SHOWN} of each; all with --json.", style="dim")


@channel.command("list")
def list_channels(as_json: AsJson = False) -> None:
    """The channels that ship with Platemark."""
    from catalog.channel import shipped_channels

    rows = [
        {
            "channel": each.channel,
            "for": each.title,
            "AI images": each.ai.rule if each.ai else "no rule",
            "rules": len(each.rules),
            "feed": each.feed.file if each.feed else None,
        }
        for each in shipped_channels()
    ]
    print_json(rows) if as_json else print_rows(rows)


@channel.command()
def show(name: ChannelName, as_json: AsJson = False) -> None:
    """A channel's rules, each with the page it was read on and the day."""
    from catalog.channel import load_channel

    found = load_channel(name)
    if as_json:
        print_json(found.model_dump(mode="json", by_alias=True))
        return
    out.print(f"{found.title}: {found.description}" if found.description else found.title)
    print_rows(_rules(found))
    if found.feed:
        out.print(f"Feed {found.feed.file}, a row an {found.feed.row}:")
        print_rows(
            {
                "column": each.name,
                "from": each.value,
                "required": "yes" if each.required else None,
                "at most": each.at_most,
            }
            for each in found.feed.columns
        )
    if found.needs:
        out.print(f"Needs {', '.join(f'--set {each}=…' for each in found.needs)}")


def _rules(found: Channel) -> list[dict[str, Any]]:
    rows = []
    if found.ai:
        rows.append(("AI images", f"{found.ai.rule}: {found.ai.says}", found.ai.source))
    for rule in found.rules:
        asked = ", ".join(rule.one_of) or rule.in_words()
        asked += f", from {rule.starts}" if rule.starts else ""
        asked += f", when {rule.when}" if rule.when else ""
        asked += " (the item's first image)" if rule.images == "main" else ""
        rows.append((rule.measure, asked, rule.source))
    if found.denied_names:
        lists = ", ".join(found.denied_names.lists)
        rows.append(("names", f"none of the lists {lists}", found.denied_names.source))
    return [
        {"rule": rule, "asks": asks, "source": found.cited(source)} for rule, asks, source in rows
    ]


@channel.command()
def check(
    file: Annotated[Path, typer.Argument(help="A channel's YAML file.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Read a channel file and say every fault with its line."""
    from catalog.channel import load_channel

    found = load_channel(str(file))
    told = {"channel": found.channel, "rules": len(found.rules)}
    if as_json:
        print_json(told)
        return
    out.print(f"{file}: channel {found.channel} is in order, {len(found.rules)} rules")


def revoke(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A pack (id, file name or SHA-256), or an image (sku, file, SHA-256).",
            show_default=False,
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why it is taken back.")] = "",
    by: Annotated[str, typer.Option(help="Who decides; default: your user name.")] = "",
    list_file: Annotated[
        Path | None,
        typer.Option(
            "--list",
            help="Write the signed list of all that was revoked, for people without the catalog.",
        ),
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Take a pack or an image back. Nothing is deleted; whoever verifies hears of it."""
    from catalog.lake import reading, writing
    from catalog.revocation import as_json as told
    from catalog.revocation import revoke as record
    from catalog.revocation_list import write_revocation_list
    from pipeline.keys import signing_identity
    from pipeline.store import write_file

    settings = load_settings(workspace)
    if name is None and list_file is None:
        remedy = "name a pack or an image, or write the list with --list revoked.json"
        raise InputError("revoke", [Fault("nothing to do", "", remedy)])
    if name is not None:
        with writing(settings.catalog) as lake:
            revocation = record(lake, name, reason=reason, by=by or getpass.getuser())
        print_json(told(revocation)) if as_json else out.print(f"{name}: {revocation}")
    if list_file is not None:
        with reading(settings.catalog) as lake:
            data = write_revocation_list(lake, signing_identity(settings))
        write_file(list_file, data)
        if not as_json:
            out.print(f"{list_file}: the signed list, for --revoked of verify")
