"""The audit flow: a named question asked on a schedule, its answer kept as a file."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow

from catalog.as_of import moment_of
from catalog.audit import ask
from catalog.results import write_csv
from flows import artifacts
from pipeline.settings import load_settings
from pipeline.store import write_file


@flow(name="audit", persist_result=False)
def audit(
    question: str = "verdicts-by-policy-and-day",
    arguments: dict[str, str] | None = None,
    workspace: str | None = None,
    as_of: str | None = None,
) -> str:
    """Ask a named question and keep the answer as CSV under `audits/` in the workspace.

    Args:
        question: its name; `platemark audit` lists them.
        arguments: its parameters as text.
        workspace: folder of the workspace; default as in the settings.
        as_of: the catalog as it was at this moment (ISO 8601, UTC), default now.

    Returns the path of the CSV file.
    """
    settings = load_settings(Path(workspace) if workspace else None)
    moment = moment_of(as_of) if as_of else None
    answer = ask(settings.catalog, question, arguments, as_of=moment)
    text = io.StringIO(newline="")
    write_csv(answer, text)
    path = settings.root / "audits" / f"{question}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.csv"
    write_file(path, text.getvalue().encode())
    rows = answer.table.slice(0, artifacts.MAX_ROWS + 1).to_pylist()
    shown = [{name: str(value) for name, value in row.items()} for row in rows]
    artifacts.table(shown, "audit-answer", f"{question}: {path.name}")
    return str(path)
