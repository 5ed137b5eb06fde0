"""The command line: one short function a command, work in flows, catalog and pipeline.

Exit codes: 0 done, 1 the answer is no, 2 wrong input, 3 set-up incomplete, 4 busy, 130 interrupted.
Nothing here imports torch or Prefect before a command needs it.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from tempfile import NamedTemporaryFile

import typer

from pipeline.errors import PlatemarkError, SetupError
from platemark import (
    audit_commands,
    calibrate_commands,
    ledger_commands,
    library_commands,
    lineage_commands,
    pack_commands,
    policy_commands,
    produce_commands,
    recover_commands,
    replay_commands,
    report_commands,
    review_commands,
    tour,
    train_commands,
    verify_commands,
)
from platemark.display import err

EPILOG = (
    "Exit codes: 0 done, 1 the answer is no (a file does not verify, images failed), "
    "2 wrong input, 3 set-up incomplete, 4 another run is at work, 130 interrupted. "
    "Starter models know only the starter world."
)

app = typer.Typer(
    help="Images in batches, checked under declared policies, signed, and accounted for.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"platemark {version('platemark')}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Root options."""


for commands in (
    tour,
    produce_commands,
    audit_commands,
    lineage_commands,
    report_commands,
    verify_commands,
    recover_commands,
    ledger_commands,
    review_commands,
    policy_commands,
    library_commands,
    calibrate_commands,
    replay_commands,
    pack_commands,
    train_commands,
):
    commands.register(app)


def main() -> None:
    """Entry point: errors for people become messages and exit codes, never tracebacks."""
    try:
        app()
    except PlatemarkError as error:
        err.print(f"Error: {error}", style="red")
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        err.print(
            f"Error: this command needs {error.name}, which the light install leaves out; "
            "install with: pip install -c constraints.txt '.[studio]'",
            style="red",
        )
        sys.exit(SetupError.exit_code)
    # A fault of ours: people get one line, and the file that helps to mend it.
    except Exception as error:
        report = _crash_report()
        err.print(f"Unexpected error: {error}", style="red")
        err.print(f"Nothing that was catalogued is lost. Please report it with {report}")
        sys.exit(1)


def _crash_report() -> Path:
    with NamedTemporaryFile("w", prefix="platemark-", suffix=".log", delete=False) as file:
        file.write(traceback.format_exc())
    return Path(file.name)
