"""`platemark demo`: the main job on a small catalogue, told step by step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.rule import Rule

from pipeline.settings import Settings
from platemark.display import out, print_rows
from platemark.pack_commands import print_pack
from platemark.produce_commands import print_summary

POLICY = "starter"


def tour(settings: Settings, brief: Path, produce: Callable[..., dict[str, Any]]) -> None:
    """Make, check, sign and index the demo's images, ask the catalog, and export a pack."""
    from catalog.audit import ask
    from catalog.export import export

    out.print(Rule("1  Make, check, label, sign, index", align="left"))
    out.print(f"brief {brief}, policy {POLICY}, workspace {settings.root}")
    summary = produce(settings, brief, POLICY)
    print_summary(summary)

    out.print(Rule("2  Ask why images did not pass", align="left"))
    answer = ask(settings.catalog, "why-not-passed").table.to_pylist()
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

    out.print(Rule("Look", align="left"))
    if summary["contact_sheet"]:
        out.print(f"Contact sheet: {summary['contact_sheet']}")
    out.print(Rule("Next", align="left"))
    out.print("platemark show TOY-BEAR-0          one image's whole story")
    out.print("platemark review list              what waits for your decision")
    out.print("platemark verify workspace/assets  what each file says of its origin")
