"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Workspace = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        help="Folder of all your work. Default: PLATEMARK_WORKSPACE, else ./workspace.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
BriefPath = Annotated[
    Path, typer.Argument(help="Brief: YAML, or a CSV, JSONL or Parquet table.", show_default=False)
]
PolicyName = Annotated[
    str, typer.Option("--policy", "-p", help="Name of a shipped policy, or a path.")
]
Template = Annotated[
    str | None,
    typer.Option(help='Jinja2 prompt over the columns: "a {{ colour }} {{ object }}".'),
]
