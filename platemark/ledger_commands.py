"""ledger verify, checkpoint, prove, erase: the catalog's tamper-evident log."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import SetupError
from pipeline.settings import Settings, load_settings
from platemark.display import err, out, print_json, print_rows, words
from platemark.options import AsJson, Workspace

if TYPE_CHECKING:
    from catalog.ledger_checkpoints import Signed
    from catalog.ledger_notes import Verifier
    from catalog.ledger_stamps import Stamps

ledger = typer.Typer(help="The catalog's tamper-evident log.", no_args_is_help=True)

Asset = Annotated[
    str, typer.Argument(help="SKU, file, or 6 or more digits of its SHA-256 or request id.")
]
Keys = Annotated[
    list[Path] | None,
    typer.Option("--key", help="Files of verifier keys. Default: the workspace's own."),
]


def register(app: typer.Typer) -> None:
    """Add the group to the app."""
    app.add_typer(ledger, name="ledger", rich_help_panel="Audit")


@ledger.command()
def verify(
    kept: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", "-c", help="Files of checkpoints kept elsewhere."),
    ] = None,
    key: Keys = None,
    files: Annotated[bool, typer.Option(help="Hash the image files too.")] = True,
    trust_stamps: Annotated[
        list[Path] | None,
        typer.Option("--trust-stamps", help="A list of PEM roots of time-stamp authorities."),
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Hash every row and file again, and name what was changed, removed, added or reordered."""
    from dataclasses import replace

    from rich.progress import Progress

    from catalog.lake import reading
    from catalog.ledger_files import verify_files
    from catalog.ledger_verify import verify_ledger
    from pipeline.trust import authority_roots

    settings = load_settings(workspace)
    notes = _kept_notes(settings, kept or [])
    authorities = authority_roots(settings, trust_stamps or [])
    with reading(settings.catalog) as lake, Progress(console=err, transient=True) as bar:
        task = bar.add_task("Hashing rows", total=None)
        verifiers = _verifiers(settings, key)
        answer = verify_ledger(lake, verifiers, notes, authorities)
        if files:
            bar.update(task, description="Hashing files")
            read, found = verify_files(
                lake, settings, verifiers, lambda done: bar.update(task, completed=done)
            )
            answer = replace(answer, files=read, findings=(*answer.findings, *found))
    if as_json:
        print_json(answer.as_json())
    else:
        out.print(
            f"{answer.rows:,} rows, {answer.files:,} files, {answer.entries:,} entries, "
            f"{answer.checkpoints} checkpoints"
        )
        _print_stamps(answer.time_stamps)
        if answer.found_rows:
            out.print(f"{answer.found_rows:,} rows were there before the ledger was")
        if answer.erased_rows:
            out.print(f"{answer.erased_rows:,} rows or files were erased, and say so")
        if answer.open_entries:
            out.print(
                f"{answer.open_entries:,} entries came after the last checkpoint: nobody has "
                f"signed them yet"
            )
        if answer.findings:
            print_rows(
                {"": one.what, "what": one.where, "which": one.key, "why": one.detail}
                for one in answer.findings
            )
        else:
            since = answer.last.time if answer.last else ""
            out.print(words(("Intact", "green"), f": all of it is as signed, last on {since}"))
    if not answer.ok:
        raise typer.Exit(1)


@ledger.command()
def checkpoint(
    witness: Annotated[
        list[str] | None,
        typer.Option("--witness", help="A file to append to, or an address to POST to."),
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Sign the log as it is now, and give the checkpoint to witnesses.

    Runs and exports do so by themselves. Keep one outside this machine: what came before it cannot
    be forged then, not even by who has the key.
    """
    from catalog.lake import writing
    from catalog.ledger import place_of
    from catalog.ledger_checkpoints import write_checkpoint
    from catalog.ledger_notes import opened
    from catalog.ledger_stamps import stamp_json
    from pipeline.timestamp_token import StampError, read_stamp
    from pipeline.trust import authority_roots

    settings = load_settings(workspace)
    place, authorities = place_of(settings), authority_roots(settings)
    with writing(settings.catalog) as lake:
        made = write_checkpoint(
            lake, place, "by hand", witness or [], settings.signing.timestamp_url
        )
    said = opened(made.note, _verifiers(settings, None))
    try:
        stamp = read_stamp(said.stamp, said.root, authorities) if said.stamp else None
    except StampError as error:
        raise SetupError(
            f"the last checkpoint's time stamp {error}: see `platemark ledger verify`"
        ) from None
    if as_json:
        print_json(
            {
                "size": made.size,
                "note": made.note,
                "new": made.fresh,
                "time_stamp": stamp and stamp_json(stamp),
                "unstamped": made.unstamped or None,
                "unreached": made.unreached,
            }
        )
    else:
        # Whole for a file; nobody reads the thousands of characters of a stamp.
        out.print(_without_stamp(made.note) if out.is_terminal else made.note.rstrip("\n"))
        if stamp:
            err.print(f"Time-stamped at {stamp.time.isoformat()} by {stamp.authority}")
    _warn_unstamped(made)
    for one in made.unreached:
        err.print(f"Not told: {one}", style="yellow")
    if made.unreached or made.unstamped:
        raise typer.Exit(1)


@ledger.command()
def prove(
    asset: Asset,
    out_file: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file to write. Default: stdout.")
    ] = None,
    workspace: Workspace = None,
) -> None:
    """Prove that a signed image's record is in the log: `platemark verify --proof` checks it."""
    from catalog.lake import reading, writing
    from catalog.ledger import place_of
    from catalog.ledger_checkpoints import write_checkpoint
    from catalog.ledger_proof import inclusion_proofs
    from catalog.read import find_asset
    from pipeline.errors import Fault, InputError
    from pipeline.store import write_file

    settings = load_settings(workspace)
    with writing(settings.catalog) as lake:
        url = settings.signing.timestamp_url
        _warn_unstamped(write_checkpoint(lake, place_of(settings), "proof", timestamp_url=url))
    with reading(settings.catalog) as lake:
        # The file that counts: renditions of it have manifests too.
        sha256 = find_asset(lake, asset).sha256
        files = [sha256] if sha256 else []
        proofs = inclusion_proofs(lake, files, _verifiers(settings, None))
    if not proofs:
        what = "it has no signed file, so there is nothing to prove"
        raise InputError("ledger prove", [Fault(what, asset, "approve or release it first")])
    (proof,) = proofs.values()
    text = json.dumps(proof, indent=2) + "\n"
    if out_file is None:
        typer.echo(text, nl=False)
    else:
        write_file(out_file, text.encode())
        err.print(f"{out_file}: give it out with {place_of(settings) / 'verifier.txt'}")


@ledger.command()
def erase(
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept with the tombstone.")],
    asset: Annotated[
        str | None, typer.Argument(help="The image whose texts go: SKU, file, SHA-256, request id.")
    ] = None,
    library: Annotated[
        str | None, typer.Option("--library", help="Instead: a library's work …")
    ] = None,
    work: Annotated[int | None, typer.Option("--work", help="… by its work_id.")] = None,
    column: Annotated[
        list[str] | None, typer.Option("--column", help="Only these columns.")
    ] = None,
    files: Annotated[
        bool, typer.Option("--files", help="Remove the image's files too: manifests may quote it.")
    ] = False,
    by: Annotated[
        str | None, typer.Option("--by", help="Who erases; default: the login name.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Erase texts that law requires to go, for good: a tombstone stays, the rest still verifies.

    Earlier states of the catalog are forgotten with it.
    """
    from catalog.lake import reading
    from catalog.ledger_erase import erase as erase_rows
    from catalog.read import find_asset
    from pipeline.errors import Fault, InputError

    settings = load_settings(workspace)
    if (asset is None) == (library is None) or (library is None) != (work is None):
        remedy = "name an image, or --library and --work"
        raise InputError("ledger erase", [Fault("what to erase is not clear", "", remedy)])
    if asset is not None:
        with reading(settings.catalog) as lake:
            key: dict[str, Any] = {"request_id": find_asset(lake, asset).request_id}
    else:
        key = {"library": library, "work_id": work}
    if not yes:
        typer.confirm("This cannot be undone. Erase?", abort=True, err=True)
    erased = erase_rows(
        settings,
        key,
        reason=reason,
        by=by or getpass.getuser(),
        columns=column or [],
        files=files,
    )
    if as_json:
        print_json(
            {
                "rows": dict(erased.rows),
                "columns": erased.columns,
                "files": erased.files,
                "kept_files": erased.kept_files,
            }
        )
        return
    print_rows({"table": table, "rows": rows} for table, rows in erased.rows.items())
    out.print(f"Erased: {', '.join([*erased.columns, *erased.files])}")
    for url in erased.kept_files:
        err.print(f"Kept: {url} is also the file of another image; erase that too", style="yellow")


def _print_stamps(stamps: Stamps) -> None:
    if stamps.last:
        last = f"{stamps.last.time.isoformat()} by {stamps.last.authority}"
        out.print(f"{stamps.trusted:,} checkpoints are time-stamped, last at {last}")
    if stamps.unknown:
        out.print(
            f"{stamps.unknown:,} checkpoints have time stamps by authorities that no trust list "
            f"names ({', '.join(stamps.authorities)}): name their roots with --trust-stamps or "
            f"trust.time_stamps",
            style="yellow",
        )


def _without_stamp(note: str) -> str:
    from catalog.ledger_notes import STAMP_MARK

    lines = note.rstrip("\n").split("\n")
    return "\n".join(f"{STAMP_MARK}…" if one.startswith(STAMP_MARK) else one for one in lines)


def _warn_unstamped(made: Signed) -> None:
    if made.unstamped:
        err.print(f"Not time-stamped: {made.unstamped}", style="yellow")


def _verifiers(settings: Settings, files: list[Path] | None) -> list[Verifier]:
    from catalog.ledger import place_of
    from catalog.ledger_notes import VERIFIER_FILE, verifier_from_text, verifier_in

    try:
        given = [verifier_from_text(path.read_text("utf-8")) for path in files or []]
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"the verifier key cannot be read: {error}") from None
    if given:
        return given
    own = verifier_in(place_of(settings))
    if own is None:
        raise SetupError(
            f"there is no ledger key in {place_of(settings)} yet: `platemark ledger checkpoint` "
            f"mints it, or give --key {VERIFIER_FILE}"
        )
    return [own]


def _kept_notes(settings: Settings, files: list[Path]) -> dict[str, list[str]]:
    """The checkpoints beside the key and in the files named, by where they are."""
    from catalog.ledger import place_of
    from catalog.ledger_checkpoints import kept_beside_key
    from catalog.ledger_notes import notes_in
    from pipeline.errors import Fault, InputError

    found: dict[str, list[str]] = {}
    place = place_of(settings)
    try:
        # A copy of the catalog, without the folder, is verified against what else was kept.
        found |= kept_beside_key(place) if place.is_dir() or not files else {}
    except SetupError as error:
        if not files:
            raise
        # Another user, who has checkpoints of their own.
        err.print(f"Not compared: {error}", style="yellow")
    faults = []
    for path in files:
        try:
            found[str(path)] = notes_in(path.read_text("utf-8", "replace"))
        except OSError as error:
            faults.append(Fault(str(error.strerror), str(path), "name a file of checkpoints"))
    if faults:
        raise InputError("ledger verify", faults)
    return found
