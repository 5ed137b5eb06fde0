"""lineage: what an image was made of, and what was made of a photo, an adapter or a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import Fault, InputError
from pipeline.settings import load_settings
from platemark.audit_commands import AsOf
from platemark.display import err, out, print_rows
from platemark.options import Workspace

if TYPE_CHECKING:
    from catalog.lineage import Direction, Lineage

_FORMATS = ("table", "csv", "json", "dot", "svg")


def register(app: typer.Typer) -> None:
    """Add this command to the app."""
    app.command(rich_help_panel="Audit")(lineage)


def lineage(
    name: Annotated[
        str,
        typer.Argument(
            help="SKU, file, 6 or more digits of a SHA-256 or request id, a picture's, model's, "
            "adapter's or pack's name; model:NAME and the like where a name is ambiguous."
        ),
    ],
    up: Annotated[bool, typer.Option("--up", help="Only what it was made of.")] = False,
    down: Annotated[bool, typer.Option("--down", help="Only what was made of it.")] = False,
    output: Annotated[
        str, typer.Option("--format", "-f", help=f"{', '.join(_FORMATS)}.")
    ] = "table",
    file: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write to this file; .svg and .dot draw.")
    ] = None,
    as_of: AsOf = None,
    workspace: Workspace = None,
) -> None:
    """What something was made of, and what was made of it, as a table or a graph."""
    from catalog.as_of import moment_of
    from catalog.lineage import lineage as found_by
    from pipeline.store import write_file

    if file is not None and file.suffix[1:] in _FORMATS:
        output = file.suffix[1:]
    if output not in _FORMATS:
        fault = Fault(f"unknown format {output!r}", "--format", f"one of {', '.join(_FORMATS)}")
        raise InputError("lineage", [fault])
    both: tuple[Direction, ...] = ("up", "down")
    directions = both if up == down else both[:1] if up else both[1:]
    found = found_by(
        load_settings(workspace).catalog,
        _digest_of(name),
        directions,
        as_of=moment_of(as_of) if as_of else None,
    )
    if found.cut:
        err.print(f"Note: more than {len(found.nodes):,}, only these are shown.", style="yellow")
    if output == "table" and file is None:
        _print_table(found)
        return
    told = _told(found, output)
    if file is None:
        sys.stdout.write(told)
    else:
        write_file(file, told.encode("utf-8", "replace"))
        out.print(f"lineage   {file}, {len(found.nodes):,} nodes, {len(found.edges):,} relations")


def _told(found: Lineage, output: str) -> str:
    import io
    import json

    from catalog.lineage import COLUMNS
    from catalog.lineage_graph import dot, svg
    from catalog.results import write_csv_rows

    if output == "dot":
        return dot(found)
    if output == "svg":
        return svg(found) + "\n"
    if output == "json":
        told = {
            "subject": found.subject,
            "nodes": [vars(node) for node in found.nodes],
            "edges": [vars(edge) for edge in found.edges],
            "cut": found.cut,
        }
        return json.dumps(told, indent=2, ensure_ascii=False) + "\n"
    stream = io.StringIO(newline="")
    write_csv_rows(found.rows(), stream, COLUMNS)
    return stream.getvalue()


def _print_table(found: Lineage) -> None:
    subjects = [node for node in found.nodes if node.depth == 0]
    for node in subjects[:20]:
        out.print(f"{node.name}  {node.kind}  {node.key.partition(':')[2]}")
    rows = found.rows()
    before = [row for row in rows if row["depth"] <= 0]
    after = [row for row in rows if row["depth"] > 0]
    for title, side in (("what it was made of", before), ("what was made of it", after)):
        if side:
            out.print(title, style="bold")
            print_rows({key: row[key] for key in row if key != "key"} for row in side)
    if not rows:
        out.print("nothing else is known of it", style="dim")


def _digest_of(name: str) -> str:
    """A file's SHA-256; other names as they are."""
    from pipeline.images import ImageRefused, read_limited
    from pipeline.store import sha256_of

    path = Path(name)
    try:
        return sha256_of(read_limited(path)) if path.is_file() else name
    except (OSError, ImageRefused) as error:
        raise InputError("lineage", [Fault(str(error), name)]) from error
