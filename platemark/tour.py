"""demo: the main job on a small catalogue, told step by step."""

from __future__ import annotations

import typer
from rich.rule import Rule

from pipeline.settings import ROOT, load_settings
from platemark.display import out, print_rows
from platemark.options import Workspace
from platemark.pack_commands import print_pack
from platemark.produce_commands import print_summary, produce_here

BRIEF = ROOT / "starter" / "demo" / "brief.yaml"
POLICY = "starter"


def register(app: typer.Typer) -> None:
    """Add this command to the app."""
    app.command(rich_help_panel="Produce")(demo)


def demo(workspace: Workspace = None) -> None:
    """The guided tour: a small catalogue shoot made, checked, signed, indexed and exported."""
    from catalog.audit import ask
    from catalog.export import export

    settings = load_settings(workspace)
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
    pack = settings.packs / f"demo-{summary['run_id'][:8]}.zip"
    print_pack(export(settings, pack, "campaign = 'demo'").as_json())

    out.print(Rule("Look at", align="left"))
    if summary["contact_sheet"]:
        out.print(summary["contact_sheet"])
    out.print(Rule("Try next (after `source .venv/bin/activate`)", align="left"))
    out.print("platemark show TOY-BEAR-0          one image's whole story")
    out.print("platemark review list              what waits for your decision")
    out.print("platemark verify workspace/assets  what each file says of its origin")
