"""export: a licensed pack of what passed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.settings import load_settings
from platemark.display import err, out, print_json, print_rows
from platemark.options import AsJson, Workspace


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.command(rich_help_panel="Export")(export)


def export(
    out_file: Annotated[Path, typer.Option("--out", "-o", help="The zip to write.")],
    where: Annotated[
        str, typer.Option(help="""Which images, over the view images: "campaign = 'spring'".""")
    ] = "true",
    terms: Annotated[
        str | None,
        typer.Option(help="Usage terms: a YAML file, or the id of catalogued ones."),
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Write a pack: passed or approved images, licence, manifest, check sums, contact sheet.

    Blocked, unreviewed, expired or altered images stay out, and the command says why.
    """
    from rich.progress import Progress

    from catalog.export import export as export_pack

    settings = load_settings(workspace)
    with Progress(console=err, transient=True) as bar:
        task = bar.add_task("Verifying and packing", total=None)
        pack = export_pack(
            settings,
            out_file,
            where,
            terms,
            lambda done, total: bar.update(task, completed=done, total=total),
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
