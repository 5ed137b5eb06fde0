"""Schedules of a workspace, and the process that runs them: `platemark schedule` and `serve`.

Schedules lie in `schedules.yaml` of the workspace, so that they survive any Prefect server.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import yaml
from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import Fault, InputError, SetupError
from pipeline.settings import Settings
from pipeline.store import write_file

DEFAULT_PORT = 4200
PATIENCE_FOR_OTHER_RUNS = 6 * 3600
"""Seconds a scheduled run waits for another one of the workspace: they often start together."""
_START_SECONDS = 120
_STOP_SECONDS = 30


class Schedule(BaseModel):
    """A brief that is produced again and again; what is done already is not made twice."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$", max_length=80)
    brief: str
    policy: str
    template: str | None = None
    cron: str


def read_schedules(settings: Settings) -> list[Schedule]:
    """The workspace's schedules, none when there is no file."""
    path = settings.root / "schedules.yaml"
    if not path.exists():
        return []
    try:
        entries = yaml.safe_load(path.read_text("utf-8")) or []
        return [Schedule.model_validate(entry) for entry in entries]
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise InputError("schedules", [Fault(str(error), str(path), "mend or delete it")]) from None


def add_schedule(settings: Settings, schedule: Schedule) -> None:
    """Keep a schedule; one of the same name and brief is replaced.

    Raises InputError for a wrong cron line, and when another brief has the name already.
    """
    from prefect.client.schemas.schedules import CronSchedule

    faults = []
    try:
        CronSchedule(cron=schedule.cron)
    except ValueError:
        what = f"{schedule.cron!r} is no cron line"
        faults.append(Fault(what, "--cron", 'five fields, in UTC: "0 6 * * 1-5"'))
    others = read_schedules(settings)
    if taken := [each for each in others if _same_name(each, schedule)]:
        what = f"{schedule.name!r} is the schedule of {taken[0].brief} already"
        faults.append(Fault(what, "--name", "give this one another name"))
    if faults:
        raise InputError("schedule", faults)
    kept = [each for each in others if each.name != schedule.name]
    entries = [each.model_dump(exclude_none=True) for each in (*kept, schedule)]
    text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
    write_file(settings.root / "schedules.yaml", text.encode())


def _same_name(one: Schedule, other: Schedule) -> bool:
    return one.name == other.name and one.brief != other.brief


def serve_schedules(settings: Settings) -> None:
    """Run the schedules until interrupted, on the server that PREFECT_API_URL names."""
    from prefect import serve

    from flows.audit import audit
    from flows.export import export
    from flows.produce import produce
    from flows.rescore import rescore

    workspace = {"workspace": str(settings.root)}
    produced = {**workspace, "patience": PATIENCE_FOR_OTHER_RUNS}
    deployments: list[Any] = [
        produce.to_deployment(
            name=schedule.name,
            cron=schedule.cron,
            concurrency_limit=1,
            parameters=schedule.model_dump(exclude={"name", "cron"}, exclude_none=True) | produced,
        )
        for schedule in read_schedules(settings)
    ]
    deployments += [
        each.to_deployment(name=each.name, parameters=workspace)
        for each in (audit, export, rescore)
    ]
    serve(*deployments, print_starting_message=False)


@contextmanager
def prefect_server(settings: Settings) -> Iterator[str]:
    """A Prefect server for the time of the block: the configured one, or one of our own.

    Gives its API address and sets PREFECT_API_URL. Raises SetupError when it does not come up.
    """
    configured = os.environ.get("PREFECT_API_URL")
    if configured:
        yield configured
        return
    port = os.environ.setdefault("PREFECT_SERVER_API_PORT", str(DEFAULT_PORT))
    url = f"http://127.0.0.1:{port}/api"
    log = settings.root / "prefect" / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
    with log.open("w") as stream:
        process = subprocess.Popen(
            [*command, "--port", port], stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        _wait_until_healthy(process, url, log)
        os.environ["PREFECT_API_URL"] = url
        yield url
    finally:
        os.environ.pop("PREFECT_API_URL", None)
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(f"{url}/health", timeout=2):
                # Ours dies of a taken port; who answers then is somebody else's server.
                if process.poll() is None:
                    return
        except (URLError, OSError):
            time.sleep(0.5)
    raise SetupError(
        f"Prefect's server did not come up at {url} (its log: {log}); is the port taken? "
        f"Set PREFECT_SERVER_API_PORT to another, or PREFECT_API_URL to a running server"
    )
