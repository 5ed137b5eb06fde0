"""verify and stamp: what files say of their origin, and time stamps given later."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipeline.errors import Fault, InputError
from pipeline.settings import load_settings
from platemark.display import COLOURS, err, out, print_json, print_rows, words
from platemark.options import AsJson, Workspace

if TYPE_CHECKING:
    from catalog.lake import Lake
    from pipeline.markets import Finding, Market
    from pipeline.trust import Trust
    from pipeline.verify import Report
    from pipeline.verify_files import Item
    from pipeline.verify_sums import Packs
    from platemark.verify_proof import Proofs

_TOLD = 20
"""Files that are told of in full; of more only those with something to see to, as a table."""
_SHOWN = 50
_AT_ONCE = 500
_MARKS = {True: "yes", False: "missing", None: "ask"}


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.command(rich_help_panel="Audit")(verify)
    app.command(rich_help_panel="Set up")(stamp)


def verify(
    files: Annotated[list[Path], typer.Argument(help="Files, folders or packs, ours or not.")],
    market: Annotated[
        list[str] | None,
        typer.Option("--market", "-m", help="Also what this market asks for: eu, china …"),
    ] = None,
    trust: Annotated[
        list[Path] | None, typer.Option("--trust", help="A list of PEM roots of signers.")
    ] = None,
    trust_stamps: Annotated[
        list[Path] | None,
        typer.Option("--trust-stamps", help="A list of PEM roots of time-stamp authorities."),
    ] = None,
    depth: Annotated[
        Literal["manifest", "labels", "pixels"],
        typer.Option(help="manifest: C2PA alone. labels: the rest too, pixels where C2PA fails."),
    ] = "labels",
    record: Annotated[
        bool, typer.Option("--record", help="Keep in the catalog what was found.")
    ] = False,
    proof: Annotated[
        Path | None,
        typer.Option(help="Proofs of a ledger: each file must be in its log."),
    ] = None,
    ledger_key: Annotated[
        str | None,
        typer.Option(help="Verifier key of that ledger, or a file of it. Default: the own one's."),
    ] = None,
    revoked: Annotated[
        Path | None,
        typer.Option(help="A signed list of what was taken back (`revoke --list`)."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Processes. Default: one a core.")
    ] = None,
    as_table: Annotated[bool, typer.Option("--table", help="One line a file.")] = False,
    as_lines: Annotated[
        bool, typer.Option("--jsonl", help="A line of JSON a file, while the rest is verified.")
    ] = False,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """What files say of their origin, and whether it holds.

    Exit code 0 when all are Trusted, none was revoked, no market misses what it requires, and packs
    are as their check sums say.
    """
    from catalog.lake import exists, reading
    from pipeline.markets import find_market
    from pipeline.trust import trust_lists
    from pipeline.verify_files import files_in
    from pipeline.verify_many import verify_all
    from pipeline.verify_sums import Packs
    from platemark.verify_proof import proofs_in

    settings = load_settings(workspace)
    proofs = proofs_in(proof, ledger_key, settings, trust_stamps or ()) if proof else None
    lists = trust_lists(settings, trust or (), trust_stamps or ())
    listed = _listed(revoked, lists) if revoked else {}
    asked = [find_market(each) for each in market or ()]
    if record and not exists(settings.catalog):
        fault = Fault("there is no catalog to record in", "--record", "name a --workspace")
        raise InputError("verify", [fault])
    style = "jsonl" if as_lines else "json" if as_json else "table" if as_table else "words"
    told = _Told(style, asked)
    packs = Packs(files)
    with ExitStack() as stack:
        lake = stack.enter_context(reading(settings.catalog)) if exists(settings.catalog) else None
        items = _counted(_but_papers(files_in(files), packs), stack)
        # Hashes are for looking things up, and to be written down.
        hashed = bool(lake or proofs or listed or packs.by_root) or told.plain
        reports = verify_all(items, lists, depth, workers, hashed=hashed)
        while some := list(islice(reports, _AT_ONCE)):
            for row in _rows(some, asked, lake, proofs, listed, packs, told.plain):
                told.add(row)
            if record:
                _record(settings.catalog, some)
        for row in _rows(list(packs.rest()), [], lake, None, {}, None, told.plain):
            told.add(row)
    told.end()
    if told.failed or not told.counts:
        raise typer.Exit(1)


def stamp(
    every: Annotated[
        bool,
        typer.Option("--unstamped", help="Also files signed before an authority was configured."),
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many files.")] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Give signed files the time stamps that an authority's outage left out."""
    from rich.progress import Progress

    from catalog.lake import writing
    from catalog.stamp import owed, record_owed, stamp_files, unstamped

    settings = load_settings(workspace)
    with writing(settings.catalog) as lake, Progress(console=err, transient=True) as bar:
        task = bar.add_task("Stamping", total=None)
        if every:
            record_owed(lake, unstamped(lake))
        done = stamp_files(
            settings,
            lake,
            owed(lake, limit),
            lambda count, of: bar.update(task, completed=count, total=of),
        )
    failed = [asdict(each) for each in done.failed]
    if as_json:
        print_json({"stamped": dict(done.files), "failed": failed})
    else:
        out.print(f"{len(done.files)} files stamped")
        if failed:
            print_rows(failed)
    if failed:
        raise typer.Exit(1)


def _listed(path: Path, lists: Trust) -> dict[str, list[dict[str, Any]]]:
    """What a signed list revokes, by SHA-256. Raises InputError when its signature fails."""
    from catalog.revocation import as_json
    from catalog.revocation_list import read_revocation_list

    try:
        data = path.read_bytes()
    except OSError as error:
        fault = Fault(error.strerror or str(error), str(path), "check path and rights")
        raise InputError("verify", [fault]) from None
    signers = b"\n".join(each.pem for each in lists if each.kind == "signers")
    found = read_revocation_list(data, signers).by_sha256
    return {sha256: [as_json(each) for each in found[sha256]] for sha256 in found}


def _rows(
    reports: list[Report],
    asked: list[Market],
    lake: Lake | None,
    proofs: Proofs | None,
    listed: Mapping[str, list[dict[str, Any]]],
    packs: Packs | None,
    plain: bool,
) -> Iterator[dict[str, Any]]:
    """Reports as rows, in JSON values where `plain` is asked for, with what the catalog knows, what
    was revoked, the markets' findings, and what the check sums of a pack say against the file."""
    from pipeline.markets import check, meets

    known: Mapping[str, Any] = {}
    taken_back: Mapping[str, Any] = {}
    hashes = [each.sha256 for each in reports if each.sha256]
    if lake is not None and hashes:
        from catalog.read import knows
        from catalog.renditions import catalogued_renditions
        from catalog.revocation import as_json, revoked

        assets = knows(lake, hashes)
        known = catalogued_renditions(lake, set(hashes) - set(assets)) | assets
        found = revoked(lake, hashes)
        taken_back = {sha256: [as_json(each) for each in found[sha256]] for sha256 in found}
    for report in reports:
        findings = {each.market: check(report, each) for each in asked}
        row = report.as_json() if plain else {"ok": report.ok, **vars(report)}
        row["catalog"] = known.get(report.sha256 or "")
        sha256 = report.sha256 or ""
        row["revoked"] = taken_back.get(sha256) or listed.get(sha256, [])
        row["markets"] = {name: _plain(each) for name, each in findings.items()}
        met = all(meets(each) for each in findings.values())
        row["proof"] = proofs.of(report.sha256) if proofs else None
        proven = row["proof"] is None or row["proof"]["holds"]
        row["sums"] = packs.fault_of(Path(report.path), report.sha256) if packs else None
        row["ok"] = report.ok and met and proven and not row["revoked"] and not row["sums"]
        yield row


def _plain(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    return [
        {
            "id": each.requirement.id,
            "text": each.requirement.text,
            "rule": each.requirement.rule,
            "level": each.requirement.level,
            "met": each.met,
            "found": each.found,
            "remedy": each.requirement.remedy,
        }
        for each in findings
    ]


def _record(folder: Path, reports: list[Report]) -> None:
    from catalog.lake import writing
    from catalog.verifications import record_verifications

    with writing(folder) as lake:
        record_verifications(lake, reports)


def _but_papers(items: Iterable[Item], packs: Packs) -> Iterator[Item]:
    """The items without the packs' own contact sheets, which carry no manifest."""
    return (item for item in items if not packs.is_paper(item.name))


def _counted(items: Iterable[Any], stack: ExitStack) -> Iterator[Any]:
    """The same items, with a bar on a terminal that counts them as they are taken."""
    from rich.progress import Progress, SpinnerColumn, TextColumn

    if not err.is_terminal:
        yield from items
        return
    bar = stack.enter_context(
        Progress(SpinnerColumn(), TextColumn("Verifying {task.completed}"), console=err,
                 transient=True)
    )  # fmt: skip
    task = bar.add_task("")
    for item in items:
        bar.advance(task)
        yield item


class _Told:
    """What was found, told in one of four styles; counts for the exit code and the last line."""

    def __init__(self, style: str, asked: list[Market]) -> None:
        self.style, self.asked = style, asked
        self.plain = style.startswith("json")
        self.counts: Counter[str] = Counter()
        self.missing: Counter[tuple[str, str]] = Counter()
        self.failed = 0
        self._development = 0
        self._kept: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        self.counts[row["state"]] += 1
        self.failed += not row["ok"]
        self._development += bool(row["development"])
        for name, findings in row["markets"].items():
            self.missing.update((name, each["id"]) for each in findings if each["met"] is False)
        if self.style == "jsonl":
            sys.stdout.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
        elif self.style == "json" or len(self._kept) <= _TOLD or self._is_shown(row):
            self._kept.append(row)

    def _is_shown(self, row: Mapping[str, Any]) -> bool:
        return (not row["ok"] or self.style == "table") and len(self._kept) < _SHOWN

    def end(self) -> None:
        total = self.counts.total()
        if self.style == "jsonl":
            return
        if self.style == "json":
            print_json(self._kept)
            return
        if not total:
            err.print("no image files there", style="red")
            return
        if self.style == "words" and total <= _TOLD:
            for row in self._kept:
                _print_report(row)
        else:
            shown = self._kept if self.style == "table" else [r for r in self._kept if not r["ok"]]
            if shown:
                print_rows(_line(row) for row in shown)
            if len(shown) >= _SHOWN:
                out.print(f"only the first {len(shown)} are shown: --jsonl has all", style="dim")
        if self.asked:
            print_rows(self._summary())
        out.print("  ".join(f"{state} {count}" for state, count in sorted(self.counts.items())))
        if self._development:
            files = f"{self._development} of {total}"
            what = "a development certificate, worth no trust outside this workspace"
            out.print(f"{files} signed with {what}", style="yellow")

    def _summary(self) -> Iterator[dict[str, Any]]:
        total = self.counts.total()
        for market in self.asked:
            for each in market.requirements:
                lacking = self.missing[market.market, each.id]
                yield {
                    "market": market.market,
                    "asks": each.id,
                    "level": each.level,
                    "files": f"{total - lacking} of {total}" if each.any else "people decide",
                    "what": each.text,
                }


def _line(row: dict[str, Any]) -> dict[str, Any]:
    lacking = [
        f"{name}: {each['id']}"
        for name, findings in row["markets"].items()
        for each in findings
        if each["met"] is False and each["level"] == "required"
    ]
    revoked = "revoked" if row["revoked"] else ""
    unproven = row["proof"]["why"] if row["proof"] and not row["proof"]["holds"] else ""
    why = row["error"] or (row["why"][-1] if row["state"] != "Trusted" else "")
    return {
        "file": row["path"],
        "state": row["state"],
        "signer": row["signer"],
        "stamp": row["time_stamp"],
        "sku": row["catalog"]["sku"] if row["catalog"] else None,
        "why": "; ".join(filter(None, (revoked, row["sums"], unproven, why, *lacking))),
    }


def _print_report(row: dict[str, Any]) -> None:
    state = row["state"]
    out.print(words((f"{state:8}", COLOURS.get(state, "red")), f" {row['path']}"))
    for each in row["revoked"]:
        what = f"pack {each['pack_id']}" if each["kind"] == "pack" else "the image"
        said = f"{what} was revoked on {each['revoked_at']} by {each['revoked_by']}"
        out.print(f"         {said}: {each['reason']}", style="red")
    if row["sums"]:
        out.print(f"         {row['sums']}", style="red")
    if (proof := row["proof"]) and proof["holds"]:
        out.print(f"         the ledger has it since {proof['entered_at']}")
        if stamp := proof["time_stamp"]:
            unknown = "" if stamp["trusted"] else ", an authority that no trust list names"
            by = f"{stamp['authority']}{unknown}"
            out.print(f"         that ledger is time-stamped at {stamp['time']} by {by}")
    elif proof:
        out.print(f"         {proof['why']}", style="red")
    if row["error"]:
        out.print(f"         {row['error']}", style="red")
    for why in row["why"]:
        out.print(f"         {why}")
    if row["time_stamp"]:
        out.print(f"         time stamp of {row['signed_at']} ({row['time_stamp']})")
    if row["labels"]:
        out.print(f"         labels: {', '.join(sorted(row['labels']))}")
    out.print(f"         {_in_catalog(row['catalog'])}")
    for name, findings in row["markets"].items():
        for each in findings:
            mark = _MARKS[each["met"]]
            colour = {"yes": "green", "ask": "dim"}.get(
                mark, "red" if each["level"] == "required" else "yellow"
            )
            found = each["found"] or (each["remedy"] if each["met"] is False else "")
            said = f" {each['text']}{f' ({found})' if found else ''}"
            out.print(words("         ", f"{name}: ", (mark, colour), said))


def _in_catalog(known: dict[str, Any] | None) -> str:
    if not known:
        return "not in this catalog"
    decided = f", {known['decision']} in review" if known["decision"] else ""
    return f"catalog: {known['sku']}, {known['outcome']}{decided}, {known['state']}"
