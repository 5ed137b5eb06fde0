"""report: a written audit report on a campaign or a period, as a file to hand over."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import Fault, InputError
from pipeline.settings import Settings, load_settings
from platemark.audit_commands import AsOf
from platemark.display import err, out, print_json
from platemark.options import AsJson, Workspace

if TYPE_CHECKING:
    from catalog.report import Integrity


def register(app: typer.Typer) -> None:
    """Add this command to the app."""
    app.command(rich_help_panel="Audit")(report)


def report(
    campaign: Annotated[str | None, typer.Option(help="Of this campaign.")] = None,
    first: Annotated[
        str | None, typer.Option("--from", help="From this day on (UTC): 2026-11-01.")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", help="To this day, inclusive.")] = None,
    output: Annotated[Path, typer.Option("--out", "-o", help="The HTML file.")] = Path(
        "report.html"
    ),
    pdf: Annotated[
        bool, typer.Option("--pdf", help="A PDF beside it, printed by a browser.")
    ] = False,
    browser: Annotated[
        Path | None, typer.Option(help="The Chromium or Chrome that prints; default: on PATH.")
    ] = None,
    pictures: Annotated[
        int, typer.Option(min=0, max=200, help="Cleared images to show small; 0: none.")
    ] = 24,
    ledger: Annotated[
        bool, typer.Option(help="Hash all rows first, and say whether they are as signed.")
    ] = True,
    as_of: AsOf = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Write an audit report: one HTML file that opens offline, with plots, and a PDF if asked."""
    from catalog.as_of import moment_of
    from catalog.print_pdf import find_browser, pdf_of
    from catalog.report import NOT_CHECKED
    from catalog.report import report as written
    from catalog.report_facts import Scope
    from pipeline.store import write_file

    scope = Scope(campaign, _day(first, "--from"), _day(last, "--to"))
    moment = moment_of(as_of) if as_of else None
    settings = load_settings(workspace)
    integrity = _integrity(settings) if ledger and moment is None else NOT_CHECKED
    found = written(settings, scope, pictures=pictures, as_of=moment, integrity=integrity)
    write_file(output, found.html.encode("utf-8", "replace"))
    files = [str(output)]
    if pdf:
        browser = browser or find_browser()
        printed = output.with_suffix(".pdf")
        write_file(printed, pdf_of(found.html, browser))
        files.append(str(printed))
    if as_json:
        print_json({"files": files, "images": found.images})
        return
    out.print(f"{scope}: {found.images:,} images")
    for file in files:
        out.print(f"report    {file}")
    if not found.images:
        err.print("Note: the catalog holds no image of it.", style="yellow")


def _integrity(settings: Settings) -> Integrity:
    from catalog.lake import reading
    from catalog.ledger import place_of
    from catalog.ledger_checkpoints import kept_beside_key
    from catalog.ledger_notes import verifier_in
    from catalog.ledger_verify import verify_ledger
    from catalog.report import Integrity

    place = place_of(settings)
    verifier = verifier_in(place)
    # Before the catalog is looked at: a run may sign meanwhile.
    kept = kept_beside_key(place)
    with reading(settings.catalog) as lake:
        said = verify_ledger(lake, [verifier] if verifier else [], kept)
    counted = f"{said.rows:,} rows, {said.entries:,} entries, {said.checkpoints:,} checkpoints"
    if said.findings:
        told = [f"{one.what}: {one.where} {one.key} {one.detail}" for one in said.findings[:20]]
        return Integrity(False, (counted, *told))
    since = f"all of it is as signed, last on {said.last.time}" if said.last else "no checkpoint"
    open_entries = f"{said.open_entries:,} entries came later: nobody has signed them yet"
    return Integrity(True, (counted, since, *([open_entries] if said.open_entries else [])))


def _day(text: str | None, option: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        fault = Fault(f"{text!r} is no day", option, "write 2026-11-01")
        raise InputError("report", [fault]) from error
