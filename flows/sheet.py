"""A run's contact sheet: a file in the workspace, and small pictures for Prefect's pages."""

from __future__ import annotations

import base64
from pathlib import Path

from flows.production import Production
from pipeline.contact_sheet import contact_sheet, jpeg
from pipeline.settings import Settings
from pipeline.store import write_file

_ARTIFACT_PICTURES = 24


def write_sheet(settings: Settings, production: Production) -> Path | None:
    """Write `runs/<run id>/contact-sheet.jpg` in the workspace; its path, None without pictures."""
    if not production.cells:
        return None
    path = settings.root / "runs" / production.run_id / "contact-sheet.jpg"
    columns = 8 if len(production.cells) > 36 else 6
    write_file(path, jpeg(contact_sheet(list(production.cells), columns=columns, side=160)))
    return path


def sheet_markdown(production: Production) -> str:
    """Markdown with ~2 KB data URIs: Prefect's pages show these, but no file:// pictures."""
    lines = [f"**{notice}**\n" for notice in production.plan.notices]
    for cell in list(production.cells)[:_ARTIFACT_PICTURES]:
        picture = jpeg(contact_sheet([cell], columns=1, side=96), quality=60)
        data = base64.b64encode(picture).decode()
        lines.append(f"![{cell.lines[0]}](data:image/jpeg;base64,{data})")
    return "\n".join(lines)
