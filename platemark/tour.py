"""demo: the main job on a small catalogue, told step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.rule import Rule

from pipeline.settings import ROOT, Settings, load_settings
from platemark.display import out, print_json, print_rows
from platemark.options import AsJson, Workspace
from platemark.pack_commands import print_pack
from platemark.produce_commands import print_summary, produce_here

BRIEF = ROOT / "starter" / "demo" / "brief.yaml"
ALL_MODES = ROOT / "starter" / "demo" / "all-modes.yaml"
POLICY = "starter"


def register(app: typer.Typer) -> None:
    """Add this command to the app."""
    app.command(rich_help_panel="Produce")(demo)


def demo(
    all_modes: Annotated[
        bool, typer.Option("--all-modes", help="Then every way to make an image, by the same path.")
    ] = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """The guided tour: a small catalogue shoot made, checked, signed, indexed and exported."""
    settings = load_settings(workspace)
    modes: dict[str, Any] | None = None
    if as_json:
        summary = produce_here(settings, BRIEF, POLICY)
        told = {"run": summary, "pack": _export(settings, summary["run_id"])}
        if all_modes:
            modes = produce_here(settings, ALL_MODES, POLICY)
            told["all_modes"] = modes
        print_json(told)
    else:
        summary = _tell(settings)
        modes = _tell_modes(settings) if all_modes else None
    if summary["outcomes"]["failed"] or (modes and modes["outcomes"]["failed"]):
        raise typer.Exit(1)


def _tell_modes(settings: Settings) -> dict[str, Any]:
    from catalog.audit import ask_sql

    out.print(Rule("Every way to make an image", align="left"))
    out.print(f"brief {ALL_MODES}, policy {POLICY}")
    summary = produce_here(settings, ALL_MODES, POLICY)
    print_summary(summary)
    answer = ask_sql(settings.catalog, _MODES).table.to_pylist()
    print_rows(answer)
    out.print("platemark audit made-from -P asset=CHAIN  # what an image was made of, step by step")
    return summary


_MODES = """
SELECT i.sku AS image, i.mode, i.outcome AS verdict,
       coalesce((SELECT string_agg(concat(f.role, ' ', f.name), ', ' ORDER BY f.step, f.role)
                 FROM inputs AS f WHERE f.request_id = i.request_id), '') AS made_from
FROM images AS i WHERE i.campaign = 'all-modes' ORDER BY i.recorded_at, i.sku
"""


def _tell(settings: Settings) -> dict[str, Any]:
    from catalog.audit import ask

    out.print(Rule("1  Make, check, label, sign, index", align="left"))
    out.print(f"brief {BRIEF}, policy {POLICY}, workspace {settings.root}")
    summary = produce_here(settings, BRIEF, POLICY)
    print_summary(summary)

    out.print(Rule("2  Ask why images did not pass", align="left"))
    answer = ask(settings.catalog, "why-not-passed", {"campaign": "demo"}).table.to_pylist()
    print_rows(
        {
            "image": f"{row['sku']}-{row['index']}",
            "verdict": row["outcome"],
            "why": row["why"],
        }
        for row in answer
    )

    out.print(Rule("3  Export what passed, under the brief's terms", align="left"))
    print_pack(_export(settings, summary["run_id"]))

    out.print(Rule("Look at", align="left"))
    if summary["contact_sheet"]:
        out.print(summary["contact_sheet"])
    out.print(Rule("Try next (after `source .venv/bin/activate`)", align="left"))
    where = "" if settings.root == Path("workspace").resolve() else f" -w {settings.workspace}"
    out.print(f"platemark show TOY-BEAR-0{where}       # one image's whole story")
    out.print(f"platemark review list{where}           # what waits for your decision")
    out.print(f"platemark verify {settings.assets}{where}  # what each file says of its origin")
    return summary


def _export(settings: Settings, run_id: str) -> dict[str, Any]:
    from catalog.export import export

    pack = settings.packs / f"demo-{run_id[:8]}.zip"
    return export(settings, pack, "campaign = 'demo'").as_json()
