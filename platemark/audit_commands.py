"""audit, show, keys: the commands that answer questions. None of them imports torch."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import Fault, InputError, SetupError
from pipeline.settings import Settings, load_settings
from platemark.display import COLOURS, err, out, print_json, print_rows, words
from platemark.options import AsJson, Workspace

if TYPE_CHECKING:
    from catalog.isolated import Answer

keys = typer.Typer(help="Signing keys.", no_args_is_help=True)

AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        help="The catalog as it was: 2026-11-01T12:00 (UTC), or 2026-11-01 for that day's end.",
        show_default=False,
    ),
]
_FORMATS = ("table", "csv", "json", "parquet")
_DETECTOR = ("detector", "revision", "weights_sha256")


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    for command in (audit, show):
        app.command(rich_help_panel="Audit")(command)
    app.add_typer(keys, name="keys", rich_help_panel="Set up")


def audit(
    question: Annotated[
        str | None, typer.Argument(help="A named question; without one they are listed.")
    ] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--param", "-P", help="A parameter of the question: days=30."),
    ] = None,
    sql: Annotated[
        str | None, typer.Option(help="A SELECT of your own, read-only, without files or network.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--format", "-f", help="table, csv, json or parquet. Default: table, csv to a pipe."
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print the SQL as it would be run, and run nothing.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="With --explain: DuckDB's plan of it too.")
    ] = False,
    as_of: AsOf = None,
    workspace: Workspace = None,
) -> None:
    """Ask the catalog: a named question, or a SELECT of your own, now or as of any moment."""
    from catalog.as_of import moment_of
    from catalog.audit import ask, ask_sql

    if output is not None and output not in _FORMATS:
        remedy = f"one of {', '.join(_FORMATS)}"
        raise InputError("audit", [Fault(f"unknown format {output!r}", "--format", remedy)])
    if question is not None and sql is not None:
        fault = Fault("a named question and --sql", "audit", "give one of them")
        raise InputError("audit", [fault])
    if question is None and sql is None:
        _list_questions(output == "json")
        return
    folder = load_settings(workspace).catalog
    pairs = _pairs(parameters or [])
    moment = moment_of(as_of) if as_of else None
    if explain or plan:
        _explain(folder, question, sql, pairs, plan, moment)
    elif sql is not None:
        _print_answer(ask_sql(folder, sql, as_of=moment), output)
    else:
        _print_answer(ask(folder, str(question), pairs, as_of=moment), output)


def show(
    asset: Annotated[
        str, typer.Argument(help="SKU, file, or 6 or more digits of its SHA-256 or request id.")
    ],
    as_of: AsOf = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """One image's whole story, and a picture of it beside the references that its scores cite."""
    from catalog.as_of import moment_of, reading_as_of
    from catalog.read import find_asset
    from catalog.story import story

    settings = load_settings(workspace)
    moment = moment_of(as_of) if as_of else None
    with reading_as_of(settings.catalog, moment) as lake:
        told = story(lake, find_asset(lake, asset).request_id)
    told["comparison"] = _write_comparison(told, settings)
    if as_json:
        print_json(told)
        return
    _print_story(told)


@keys.command("init")
def init_keys(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Mint the development certificate authority of this workspace (the first run does so too)."""
    from pipeline.keys import init_development_keys

    folder = load_settings(workspace).keys
    minted = init_development_keys(folder)
    if as_json:
        print_json({"folder": str(folder), "minted": minted})
        return
    out.print(f"{'Minted' if minted else 'Already there:'} {folder}")
    err.print(
        "Note: a development certificate is worth no trust outside this workspace. "
        "docs/provenance.md says how to sign with your own.",
        style="yellow",
    )


def _list_questions(as_json: bool) -> None:
    from catalog.audit import questions

    rows = [
        {
            "question": each.name,
            "answers": each.title,
            "parameters": " ".join(_usage(parameter) for parameter in each.parameters),
        }
        for each in questions().values()
    ]
    print_json(rows) if as_json else print_rows(rows)


def _explain(
    folder: Path,
    question: str | None,
    sql: str | None,
    pairs: dict[str, str],
    plan: bool,
    moment: datetime | None,
) -> None:
    from catalog.audit import explain, explain_sql

    if sql is not None:
        explained = explain_sql(folder, sql, moment)
    else:
        explained = explain(folder, str(question), pairs, planned=plan, as_of=moment)
    sys.stdout.write(explained.sql.rstrip() + "\n")
    if plan and explained.plan:
        sys.stdout.write(explained.plan + "\n")


def _print_answer(answer: Answer, output: str | None) -> None:
    from catalog.results import write_csv, write_json, write_parquet

    match output or ("table" if sys.stdout.isatty() else "csv"):
        case "csv":
            write_csv(answer, sys.stdout)
        case "json":
            write_json(answer, sys.stdout)
        case "parquet":
            write_parquet(answer, sys.stdout.buffer)
        case _:
            print_rows(answer.table.to_pylist(), answer.columns)
    if answer.may_go_on:
        err.print(
            f"These are the first {answer.table.num_rows:,} rows, there may be more: "
            f"-P limit={10 * answer.table.num_rows}",
            style="yellow",
        )


def _usage(parameter: Any) -> str:
    return parameter.name if parameter.required else f"{parameter.name}={parameter.default}"


def _pairs(parameters: Iterable[str]) -> dict[str, str]:
    pairs = {}
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        if not equals:
            fault = Fault(f"{parameter!r} has no value", "--param", "write name=value")
            raise InputError("audit", [fault])
        pairs[name] = value
    return pairs


def _print_story(told: dict[str, Any]) -> None:
    request, verdict, model = told["request"], told["verdict"], told["model"]
    name = f"{request['sku']}-{request['index']}"
    out.print(words((name, "bold"), f"  {request['request_id']}"))
    out.print(f"prompt    {request['prompt']}")
    licence = model["licence"] if model else "unknown"
    out.print(f"model     {request['model']} @ {request['model_revision'][:12]} ({licence})")
    out.print(
        f"made      {request['recorded_at']}, seed {request['seed']}, {request['width']}×"
        f"{request['height']}, {request['steps']} steps, guidance {request['guidance']}"
    )
    out.print(f"terms     {request['terms_id'] or 'none'}, until {request['expires'] or 'no end'}")
    if request["error"]:
        out.print(f"failed    {request['error']}", style="red")
    for used in told["inputs"]:
        state = "" if used["c2pa_state"] == "None" else f", C2PA {used['c2pa_state']}"
        says = "".join(f"; {each}" for each in used["restrictions"])
        out.print(
            f"made from {used['role']} {used['name']} ({used['source']}{state}) "
            f"{used['sha256'][:12]}{says}"
        )
    if verdict:
        outcome = verdict["outcome"]
        by = f" by {verdict['policy']} {verdict['policy_version']}"
        digest = f" ({verdict['policy_digest'][:12]})"
        out.print(words("verdict   ", (outcome, COLOURS[outcome]), by, digest))
        for reason in verdict["reasons"] or []:
            _print_reason(reason)
    for earlier in told["verdict_history"][:-1]:
        out.print(
            f"before    {earlier['outcome']} by {earlier['policy']} {earlier['policy_version']} "
            f"on {earlier['decided_at']}"
        )
    out.print("scores")
    print_rows(
        {"score": row["score"], "value": row["value"], "evidence": _gist(row["evidence"])}
        for row in told["scores"]
    )
    for review in told["reviews"]:
        out.print(
            f"review    {review['decision']} by {review['reviewer']} on {review['decided_at']}: "
            f"{review['reason']}",
            markup=False,
        )
    for asset in told["assets"]:
        out.print(f"file      {asset['state']:12} {asset['url'] or 'not kept'}  {asset['sha256']}")
    for manifest in told["manifests"]:
        out.print(f"manifest  {manifest['label']} ({manifest['certificate']})")
    for pack in told["packs"]:
        out.print(f"pack      {pack['name_in_pack']} in {pack['file']}")
    if told["comparison"]:
        out.print(f"compare   {told['comparison']}")


def _write_comparison(told: dict[str, Any], settings: Settings) -> str | None:
    """Draws image and references side by side; the file's path, None when there is no such pair."""
    from catalog.story import comparison
    from pipeline.contact_sheet import jpeg
    from pipeline.store import write_file

    drawn = comparison(told, settings)
    if drawn is None:
        return None
    path = settings.root / "comparisons" / f"{told['request']['request_id'][:16]}.jpg"
    try:
        write_file(path, jpeg(drawn, quality=92))
    # Auditors may read a workspace that they cannot write to.
    except SetupError as error:
        err.print(f"Note: no picture beside its references: {error}", style="yellow")
        return None
    return str(path)


def _print_reason(reason: dict[str, Any]) -> None:
    """What a rule said, then which rule, whose score and how far over its bound."""
    out.print(f"          {reason['text']}")
    declared = f" at {reason['declared']}" if reason["declared"] else ""
    facts = [f"rule {reason['rule']}{declared}", f"{reason['severity'] or 'normal'} severity"]
    if reason["score"] is not None:
        facts.append(f"score {reason['score']:.6g}")
    if reason["bound"] is not None:
        facts.append(f"bound {reason['bound']:.6g}")
    if reason["detector"]:
        revisions = ", ".join(each[:12] for each in (reason["revision"] or "").split(", "))
        facts.append(f"detector {reason['detector']} @ {revisions}")
    out.print(f"            {', '.join(facts)}", style="dim")


def _gist(evidence: dict[str, Any]) -> str:
    """The parts of a score's evidence that a person reads first."""
    if isinstance(evidence.get("nearest"), list):
        return _nearest_gist(evidence)
    told = {name: value for name, value in evidence.items() if name not in _DETECTOR}
    return ", ".join(f"{name}: {value}" for name, value in told.items() if value not in (None, ""))


def _nearest_gist(evidence: dict[str, Any]) -> str:
    """The nearest reference, the own work that explains a match, or that there was none."""
    nearest, intended = evidence["nearest"], evidence.get("intended")
    if nearest:
        first = nearest[0]
        where = f" at {first['region']}" if first.get("region") else ""
        where += ", mirrored" if first.get("mirrored") else ""
        title = first.get("title") or first.get("file")
        return f"nearest: {title} ({first.get('rights_holder')}){where}"
    if evidence.get("note"):
        return str(evidence["note"])
    if intended:
        own = intended[0]["own"].get("title") or intended[0]["own"].get("file")
        return f"intended: nearer to own {own} than to {intended[0].get('title')}"
    return f"no match in a library of {evidence.get('library_size', 0)}"
