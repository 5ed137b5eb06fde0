"""recover, serve-bindings: from a picture without metadata back to its record and manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import Fault, InputError, SetupError
from pipeline.settings import Settings, load_settings
from platemark.display import err, out, print_json, words
from platemark.options import AsJson, Workspace

_COLOURS = {"bytes": "green", "manifest": "yellow", "watermark": "green", "fingerprint": "yellow"}
NOT_IDENTICAL = "recovered, not bit-identical"


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.command(rich_help_panel="Audit")(recover)
    app.command("serve-bindings", rich_help_panel="Audit")(serve_bindings)


def recover(
    file: Annotated[
        Path, typer.Argument(help="A picture: re-encoded, resized, cropped, stripped.")
    ],
    sidecar: Annotated[
        Path | None,
        typer.Option("--sidecar", help="Write its manifest store there (.c2pa)."),
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Find the record of a picture that lost its metadata. Exit code 1 when none is sure."""
    from catalog.lake import reading
    from catalog.read import knows
    from catalog.recover import manifest_store
    from catalog.recover import recover as find
    from pipeline.images import ImageRefused, read_limited
    from pipeline.store import write_file

    settings = load_settings(workspace)
    try:
        data = read_limited(file)
        waiting = _bring_up_to_date(settings)
        with reading(settings.catalog) as lake:
            found = find(lake, data)
            known = knows(lake, [match.asset_sha256 for match in found.matches])
            store = manifest_store(lake, found.found.label) if found.found else None
    except ImageRefused as refused:
        raise InputError("recover", [Fault(refused.what, str(file), refused.remedy)]) from None
    except OSError as error:
        fault = Fault(error.strerror or str(error), str(file), "give a file that can be read")
        raise InputError("recover", [fault]) from None
    told: dict[str, Any] = {
        "file": str(file),
        "sha256": found.sha256,
        "watermark": found.watermark,
        "watermark_not_read": found.unread,
        "matches": [
            {**match.as_json(), "record": known.get(match.asset_sha256)} for match in found.matches
        ],
        "sidecar": None,
        "not_indexed": waiting,
    }
    if sidecar and store is not None:
        write_file(sidecar, store)
        told["sidecar"] = str(sidecar)
    print_json(told) if as_json else _print(told)
    if found.unread:
        err.print(f"Note: {found.unread}", style="yellow", markup=False)
    if found.matches and not found.found:
        err.print("Nothing is sure: no sidecar is written.", style="yellow")
    if not found.found:
        raise typer.Exit(1)


def serve_bindings(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: a free one.")] = 8791,
    workspace: Workspace = None,
) -> None:
    """Serve the C2PA Soft Binding Resolution API over this catalog, until Ctrl-C. Read-only."""
    from catalog.lake import reading
    from platemark.bindings_service import server

    settings = load_settings(workspace)
    _bring_up_to_date(settings)
    with reading(settings.catalog):
        pass
    try:
        serving = server(settings.catalog, host, port)
    except OSError as error:
        raise SetupError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --port"
        ) from error
    with serving:
        out.print(f"http://{host}:{serving.server_address[1]}/services/supportedAlgorithms")
        if host not in ("127.0.0.1", "localhost", "::1"):
            err.print(
                "Note: anybody who reaches this address may look up manifests.", style="yellow"
            )
        serving.serve_forever()


def _bring_up_to_date(settings: Settings) -> int:
    """Indexes what was signed since; how many files are left out where nothing may be written."""
    from catalog.fingerprints import index_signed, unindexed
    from catalog.lake import reading, writing

    with reading(settings.catalog) as lake:
        waiting = unindexed(lake)
    if not waiting:
        return 0
    try:
        with writing(settings.catalog) as lake:
            index_signed(lake)
    # Auditors may read a catalog that they cannot write to.
    except SetupError:
        err.print(f"Note: {waiting} signed files are not indexed and not found.", style="yellow")
        return waiting
    return 0


def _print(told: dict[str, Any]) -> None:
    if not told["matches"]:
        out.print(f"{told['file']}: no record of this catalog looks like it")
        return
    for match in told["matches"]:
        record = match["record"] or {}
        name = record.get("sku") or match["request_id"][:12]
        out.print(words((match["kind"], _COLOURS[match["kind"]]), f"  {name}  {match['sure']}"))
        out.print(f"  request   {match['request_id']}")
        out.print(f"  file      {match['asset_sha256']}")
        out.print(f"  manifest  {match['label']}")
        if record:
            decided = f", {record['decision']} in review" if record.get("decision") else ""
            out.print(f"  verdict   {record['outcome']}{decided}, {record['state']}")
        if match["window"] != [0.0, 0.0, 1.0, 1.0]:
            shown = ", ".join(f"{edge:.2f}" for edge in match["window"])
            out.print(f"  shows     left, top, right, bottom {shown} of our image")
    if told["sidecar"]:
        exact = told["matches"][0]["kind"] == "bytes"
        out.print(f"sidecar {told['sidecar']}{'' if exact else f': {NOT_IDENTICAL}'}")
