"""library create, add, remove, confirm, list, search: the works that images are compared with."""

from __future__ import annotations

import getpass
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import Fault, InputError
from pipeline.settings import Settings, load_settings
from platemark.display import err, out, print_json, print_rows
from platemark.options import AsJson, Workspace

if TYPE_CHECKING:
    from pipeline.checks.references import Embedder

library = typer.Typer(
    help="The works that images are compared with: protected ones, and your own.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="Name of the library.", show_default=False)]
_SHOWN = 200
"""Works that `list NAME` shows; --json has all."""


def register(app: typer.Typer) -> None:
    """Add the group to the app."""
    app.add_typer(library, name="library", rich_help_panel="Audit")


@library.command()
def create(
    name: Name,
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Make an empty library."""
    from catalog.lake import writing
    from catalog.libraries import create_library

    settings = _of_hand(name, workspace)
    with writing(settings.catalog) as lake:
        create_library(lake, name, note)
    _say(as_json, {"library": name}, f"{name}: made; add works with: platemark library add")


@library.command()
def add(
    name: Name,
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Folders (with a rights.csv, or all under the options below), tables of paths "
            "(CSV, TSV, Parquet), pictures.",
            show_default=False,
        ),
    ],
    role: Annotated[
        str | None, typer.Option(help="`protected` or `own`, where a table does not say.")
    ] = None,
    rights_holder: Annotated[
        str | None, typer.Option(help="Whose works they are, where a table does not say.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Under which licence, where a table does not say.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="Last day (2027-12-31), where a table does not say.")
    ] = None,
    skip_faulty: Annotated[
        bool, typer.Option("--skip-faulty", help="Leave out works with faults, and list them.")
    ] = False,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="Embed by this model at once; may be repeated."),
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Add works; known ones are recognised. Interrupted? Run it again: it goes on."""
    from catalog.lake import writing
    from catalog.libraries import library_row
    from catalog.libraries_add import add_works
    from catalog.libraries_open import open_library
    from pipeline.references.sources import read_sources

    settings = _of_hand(name, workspace)
    given = {"role": role, "rights_holder": rights_holder, "licence": licence, "expires": expires}
    defaults = {option: value for option, value in given.items() if value}
    embedders = [_embedder(settings, model) for model in models or ()]
    with writing(settings.catalog) as lake:
        library_row(lake, name)
        works, faults = read_sources(name, sources, defaults)
        if faults and not (skip_faulty and works):
            raise InputError(f"library add {name}", faults)
        with _progress("Adding") as show:
            added = add_works(
                lake,
                name,
                works,
                by=getpass.getuser(),
                skip_faulty=skip_faulty,
                progress=show,
            )
        if embedders:
            opened = open_library(lake, name)
            for embedder in embedders:
                with _progress(f"Embedding by {embedder.spec.name}") as show:
                    opened.prepare(embedder, show)
    skipped = [str(fault) for fault in (*faults, *added.faults)]
    for fault in skipped:
        err.print(f"left out: {fault}", style="yellow")
    counts = {"new": added.new, "changed": added.changed, "known": added.known}
    told = f"{name}: {added.new:,} new, {added.changed:,} changed, {added.known:,} known already"
    if skipped:
        told += f", {len(skipped):,} faults"
    _say(as_json, {"library": name, **counts, "left_out": skipped}, told)


@library.command()
def remove(
    name: Name,
    reason: Annotated[str, typer.Option(help="Why; it is kept.", show_default=False)],
    works: Annotated[
        list[str] | None,
        typer.Argument(
            help="Works: number (`work_id`), file, or 6 or more digits of the SHA-256.",
            show_default=False,
        ),
    ] = None,
    rights_holder: Annotated[
        str | None, typer.Option(help="All works of this rights holder.")
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Remove works for good: embeddings, hash and picture go; who removed what and why stays."""
    from catalog.lake import writing
    from catalog.libraries_remove import find_works, remove_works

    settings = _of_hand(name, workspace)
    with writing(settings.catalog) as lake:
        found = find_works(lake, name, works or (), rights_holder)
        ids = [row["work_id"] for row in found]
        count = remove_works(lake, name, ids, reason, getpass.getuser())
    # Sheets show what is gone now, and can be made again; so can caches of earlier versions.
    for folder in ("searches", "comparisons", "references"):
        shutil.rmtree(settings.root / folder, ignore_errors=True)
    removed = [{key: row[key] for key in ("work_id", "file", "title")} for row in found]
    told = f"{name}: {count:,} removed; images compared with them keep their evidence"
    _say(as_json, {"library": name, "removed": removed}, told)


@library.command()
def confirm(name: Name, workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Say that a library's works and rights are still right as of today."""
    from catalog.lake import writing
    from catalog.libraries import confirm_library

    settings = load_settings(workspace)
    settings.make_root()
    with writing(settings.catalog) as lake:
        at = confirm_library(lake, name)
    _say(as_json, {"library": name, "checked_at": at}, f"{name}: confirmed {at:%Y-%m-%d %H:%M} UTC")


@library.command("list")
def list_libraries(
    name: Annotated[
        str | None, typer.Argument(help="A library, to list its works.", show_default=False)
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """The libraries, or the works of one."""
    from catalog.lake import exists, reading
    from catalog.libraries import library_folders, library_rows, library_works

    settings = load_settings(workspace)
    rows: list[dict[str, Any]] = []
    if name is not None:
        with reading(settings.catalog) as lake:
            rows = library_works(lake, name)
        _print_works(rows, as_json)
        return
    if exists(settings.catalog):
        with reading(settings.catalog) as lake:
            rows = library_rows(lake)
    known = {row["library"] for row in rows}
    folders = library_folders(settings)
    unread = [
        {"library": each, "note": f"{folders[each]}, read at the next run"}
        for each in folders
        if each not in known
    ]
    if as_json:
        print_json([*rows, *unread])
        return
    print_rows(_library_line(row) for row in (*rows, *unread))


@library.command()
def search(
    name: Name,
    query: Annotated[str, typer.Argument(help="A picture's path, or words.", show_default=False)],
    model: Annotated[
        str, typer.Option(help="Compare by this open-clip or copy-descriptor model.")
    ] = "starter-clip",
    top: Annotated[int, typer.Option(min=1, max=100, help="Works of each role.")] = 5,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """The works nearest to a picture (by embedding and PDQ hash) or to words, as a sheet too."""
    from catalog.lake import writing
    from catalog.libraries_search import search as nearest
    from catalog.libraries_search import search_sheet
    from catalog.libraries_sync import open_libraries
    from pipeline.generate.device import pick_device
    from pipeline.images import decode_limited
    from pipeline.references.derive import pdq_of
    from pipeline.store import MIMES, sha256_of, write_file

    settings = load_settings(workspace)
    path = Path(query).expanduser()
    is_picture = path.suffix.lower() in (*MIMES, ".jpeg") or path.is_file()
    if is_picture and not path.is_file():
        fault = Fault("there is no such picture", query, "give the path of a picture, or words")
        raise InputError("library search", [fault])
    picture = decode_limited(path) if is_picture else None
    settings.make_root()
    embedder = _embedder(settings, model)
    with writing(settings.catalog) as lake:
        opened = open_libraries(lake, settings, pick_device(settings.device).name)(name)
        with _progress(f"Embedding by {model}") as show:
            opened.prepare(embedder, show)
        if picture is None:
            vector, hashes = _words(embedder, query), None
        else:
            vector, hashes = embedder.images([picture])[0], pdq_of(picture)[0]
        found = nearest(opened, embedder, vector, hashes, top)
        data = search_sheet(opened, query, picture, found)
    sheet = settings.root / "searches" / f"{name}-{sha256_of(data)[:8]}.jpg"
    write_file(sheet, data)
    if as_json:
        print_json({"library": name, "found": [row for _, row in found], "sheet": str(sheet)})
        return
    print_rows(
        {
            "cosine": row["cosine"],
            "PDQ": row["pdq"],
            "counts as": row["counts_as"],
            "title": row["title"],
            "rights holder": row["rights_holder"],
            "file": row["file"],
        }
        for _, row in found
    )
    out.print(str(sheet))


def _of_hand(name: str, workspace: Path | None) -> Settings:
    """The settings, when works of the library are added and removed by commands."""
    from catalog.libraries import library_folders

    settings = load_settings(workspace)
    folders = library_folders(settings)
    if name in folders:
        what = f"the library {name!r} is the folder {folders[name]}"
        remedy = "change its files and rights.csv; the next run takes that over"
        raise InputError("library", [Fault(what, "", remedy)])
    settings.make_root()
    return settings


def _embedder(settings: Settings, name: str) -> Embedder:
    from pipeline.generate.device import pick_device
    from pipeline.models import load_models, resolve

    model = resolve(load_models(settings.models), name, "open-clip", "copy-descriptor")
    device = pick_device(settings.device).name
    if model.kind == "open-clip":
        from pipeline.checks.embed import load_clip

        return load_clip(model, device)
    from pipeline.checks.descriptor import load_descriptor

    return load_descriptor(model, device)


def _words(embedder: Embedder, query: str) -> Any:
    from pipeline.checks.embed import ClipEncoder

    if not isinstance(embedder, ClipEncoder):
        what = f"the model {embedder.spec.name!r} knows pictures only"
        remedy = "give the path of a picture, or an open-clip --model"
        raise InputError("library search", [Fault(what, query, remedy)])
    return embedder.texts([query])[0]


def _print_works(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    columns = ("work_id", "counts_as", "title", "rights_holder", "licence", "expires", "file")
    print_rows(
        {**{column: row[column] for column in columns}, "sha256": row["sha256"][:12]}
        for row in rows[:_SHOWN]
    )
    if len(rows) > _SHOWN:
        out.print(f"… and {len(rows) - _SHOWN:,} more; --json has all")


def _library_line(row: Mapping[str, Any]) -> dict[str, Any]:
    models = row.get("models") or {}
    checked: date | None = row.get("checked_at")
    return {
        "library": row["library"],
        "works": row.get("works"),
        "protected": row.get("protected"),
        "own": row.get("own"),
        "expired": row.get("expired"),
        "embedded": ", ".join(f"{model}: {count:,}" for model, count in models.items()) or None,
        "confirmed": f"{checked:%Y-%m-%d}" if checked else None,
        "size": f"{row['bytes'] / 1e6:.1f} MB" if "bytes" in row else None,
        "note": row["note"],
    }


def _say(as_json: bool, value: Mapping[str, Any], text: str) -> None:
    if as_json:
        print_json(value)
    else:
        out.print(text)


@contextmanager
def _progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left, on stderr, from the first step on."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
