"""calibrate: bounds for a check from a team's own known-good and known-bad images."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import Fault, InputError
from pipeline.settings import load_settings
from platemark.display import err, out, print_json, print_rows
from platemark.options import AsJson, PolicyName, Workspace

if TYPE_CHECKING:
    from pipeline.measure import Measured
    from pipeline.policy import Policy


def register(app: typer.Typer) -> None:
    """Add this command to the app."""
    app.command(rich_help_panel="Rules")(calibrate)


def calibrate(
    check: Annotated[
        str, typer.Argument(help="A check of the policy, or one score: copying.descriptor.")
    ],
    known_bad: Annotated[Path, typer.Option(help="Folder of images that must be caught.")],
    known_good: Annotated[Path, typer.Option(help="Folder of images that must not be.")],
    library: Annotated[
        str | None, typer.Option(help="The reference library; default: the policy's.")
    ] = None,
    review_rate: Annotated[
        float, typer.Option(help="False alarms per image that a review bound may have.")
    ] = 0.01,
    block_rate: Annotated[
        float, typer.Option(help="False alarms per image that a block bound may have.")
    ] = 0.001,
    words: Annotated[
        Path | None,
        typer.Option(help="CSV of file,words: what each image was to show (fidelity needs it)."),
    ] = None,
    policy: PolicyName = "starter",
    plot_file: Annotated[
        Path, typer.Option("--plot", help="Where the plot is written (PNG).")
    ] = Path("calibration.png"),
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Bounds for stated false-alarm rates, with their confidence, as a plot and as YAML to paste.

    Each image's score is what a run would see: the largest over the whole library.
    """
    from pipeline.calibration import calibrations
    from pipeline.calibration_report import as_json as figures
    from pipeline.calibration_report import as_yaml, plot, too_small
    from pipeline.policy import load_policy

    _refuse_options(review_rate, block_rate, plot_file)
    section, _, score = check.partition(".")
    against = _against(load_policy(policy), section, library)
    files = _pictures({"good": known_good, "bad": known_bad})
    asked = _words(words, section, files)
    measured = _measured(against, section, files, asked, workspace)
    errors = [f"{m.file}: {m.error}" for some in measured.values() for m in some if m.error]
    found = calibrations(section, score, measured["good"], measured["bad"], review_rate, block_rate)
    plot(found, plot_file)
    today = datetime.now(UTC).date()
    if as_json:
        print_json(
            {
                "scores": [figures(each, today) for each in found],
                "plot": plot_file,
                "errors": errors,
            }
        )
        return
    for error in errors:
        err.print(f"Left out: {error}", style="yellow")
    rows = []
    for each in found:
        for name, proposed in (("review", each.review), ("block", each.block)):
            alarms, caught = proposed.false_alarms, proposed.caught
            rows.append(
                {
                    "score": each.calibration.score,
                    "bound": f"{name} {each.calibration.words} {proposed.bound:g}",
                    "false alarms": f"{alarms.value:.2%} ({alarms.low:.2%}-{alarms.high:.2%})",
                    "caught": f"{caught.value:.1%} ({caught.low:.1%}-{caught.high:.1%})",
                }
            )
    print_rows(rows)
    for each in found:
        for proposed in (each.review, each.block):
            if not proposed.proven:
                err.print(f"{each.calibration.score}: {too_small(proposed)}.", style="yellow")
    out.print("\nrules:")
    for each in found:
        out.print(as_yaml(each, today), end="")
    out.print(f"\n{plot_file}")


def _refuse_options(review: float, block: float, plot: Path) -> None:
    faults = [
        Fault(f"{rate:g} is no rate", f"--{name}-rate", "write a number above 0 and below 1")
        for name, rate in (("review", review), ("block", block))
        if not 0 < rate < 1
    ]
    if not faults and block > review:
        what = "is larger than --review-rate"
        faults = [Fault(what, "--block-rate", "what blocks must be rarer than what is reviewed")]
    if plot.suffix.lower() != ".png" or plot.is_dir():
        faults.append(Fault(f"{plot} is no PNG file to write", "--plot", "name a .png"))
    if faults:
        raise InputError("calibrate", faults)


def _words(table: Path | None, section: str, files: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    """What each image was to show, by file name; empty where nobody says."""
    if table is None:
        if section != "fidelity":
            return {}
        fault = Fault(
            "images in a folder say nothing of what was asked for",
            "--words",
            "give a CSV with the columns file and words",
        )
        raise InputError("calibrate", [fault])
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            if not {"file", "words"} <= set(reader.fieldnames or ()):
                fault = Fault("has no columns file and words", str(table), "mend its header")
                raise InputError("calibrate", [fault])
            found = {str(row["file"]): str(row["words"] or "") for row in reader}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("calibrate", [Fault(str(error), str(table), "check the file")]) from None
    faults = [
        Fault(f"says nothing of {file.name}", str(table), "add a row, or move the image")
        for some in files.values()
        for file in some
        if not found.get(file.name, "").strip()
    ]
    if faults:
        raise InputError("calibrate", faults)
    return found


def _measured(
    policy: Policy,
    section: str,
    files: Mapping[str, Sequence[Path]],
    words: Mapping[str, str],
    workspace: Path | None,
) -> dict[str, list[Measured]]:
    """What the policy's check says of each known-good and known-bad file."""
    from rich.progress import Progress

    from catalog.checking import ready_checks
    from catalog.lake import writing
    from pipeline.generate.device import pick_device
    from pipeline.measure import measure_files

    settings = load_settings(workspace)
    settings.make_root()
    device = pick_device(settings.device).name
    measured: dict[str, list[Measured]] = {name: [] for name in files}
    with writing(settings.catalog) as lake, Progress(console=err, transient=True) as bar:
        checks = ready_checks(lake, settings, policy, device=device, only=[section], items=words)
        task = bar.add_task("Measuring", total=sum(map(len, files.values())))
        for name, found in files.items():
            for each in measure_files(checks, found, [words.get(f.name, "") for f in found]):
                measured[name].append(each)
                bar.advance(task)
    return measured


def _pictures(folders: Mapping[str, Path]) -> dict[str, list[Path]]:
    from pipeline.measure import pictures_in

    files = {name: pictures_in(folder) for name, folder in folders.items()}
    faults = [
        Fault("holds no pictures", str(folders[name]), "PNG, JPEG or WebP")
        for name, found in files.items()
        if not found
    ]
    if faults:
        raise InputError("calibrate", faults)
    return files


def _against(policy: Policy, section: str, library: str | None) -> Policy:
    """The policy with one library in place of its own."""
    declared = getattr(policy.checks, section, None)
    if declared is None and section not in (policy.checks.model_extra or {}):
        names = ", ".join(policy.checks.model_dump(exclude_none=True))
        fault = Fault(f"{policy.policy} declares no check {section!r}", "CHECK", f"it has: {names}")
        raise InputError("calibrate", [fault])
    if library is None:
        return policy
    if declared is None or not hasattr(declared, "libraries"):
        fault = Fault(f"{section} compares with no library", "--library", "leave it out")
        raise InputError("calibrate", [fault])
    one: Any = declared.model_copy(update={"libraries": (library,)})
    return policy.model_copy(update={"checks": policy.checks.model_copy(update={section: one})})
