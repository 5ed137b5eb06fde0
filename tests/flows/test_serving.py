"""Schedules and deployments on a real Prefect server: served by us, and run by a Prefect worker."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from catalog.lake import exists, reading
from pipeline.settings import ROOT, load_settings

BIN = Path(sys.executable).parent


def wait_for(what: Callable[[], Any], seconds: float = 180) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.5)
    raise AssertionError("it did not happen in time")


def asked(method: str, url: str, json: dict[str, Any] | None = None) -> Any:
    """The answer's content; None when there is none, or Prefect's SQLite is busy just now (503)."""
    answer = httpx.request(method, url, json=json, timeout=60)
    return answer.json() if answer.is_success else None


def final_state(api: str, run_id: str) -> str | None:
    state = (asked("GET", f"{api}/flow_runs/{run_id}") or {}).get("state_type")
    return state if state in ("COMPLETED", "FAILED", "CRASHED") else None


def deployment(api: str, name: str) -> Any:
    return asked("GET", f"{api}/deployments/name/{name}")


def start(api: str, deployed: dict[str, Any], parameters: dict[str, Any]) -> str:
    """The id of a new run of that deployment."""
    url = f"{api}/deployments/{deployed['id']}/create_flow_run"
    run_id: str = wait_for(lambda: asked("POST", url, {"parameters": parameters}))["id"]
    return run_id


def test_a_schedule_is_served_and_its_run_shows_in_prefect(shop: Path, prefect_api: str) -> None:
    platemark = str(BIN / "platemark")
    options = ["--policy", str(shop / "plain.yaml"), "--workspace", "ws"]
    subprocess.run(
        [platemark, "schedule", "brief.yaml", "--cron", "0 6 1 1 *", *options], check=True
    )
    server = subprocess.Popen([platemark, "serve", "--workspace", "ws"])
    try:
        deployed = wait_for(lambda: deployment(prefect_api, "produce/brief"))
        assert deployed["schedules"][0]["schedule"]["cron"] == "0 6 1 1 *"
        run_id = start(prefect_api, deployed, {})
        assert wait_for(lambda: final_state(prefect_api, run_id)) == "COMPLETED"
    finally:
        server.terminate()
        server.wait(60)
    with reading(load_settings(Path("ws")).catalog) as lake:
        assert lake.rows("SELECT count(*) AS n FROM images WHERE cleared") == [{"n": 3}]
    query = {"artifacts": {"flow_run_id": {"any_": [run_id]}}}
    found = wait_for(lambda: asked("POST", f"{prefect_api}/artifacts/filter", query))
    kinds = {artifact["key"]: artifact for artifact in found}
    assert kinds["produce-progress"]["data"] == 100
    assert "data:image/jpeg;base64," in kinds["produce-contact-sheet"]["data"]
    assert '"pass"' in str(kinds["produce-verdicts"]["data"])


@pytest.mark.usefixtures("prefect_api")
def test_the_flows_deploy_to_a_work_pool_and_run_there(shop: Path, prefect_api: str) -> None:
    environment = os.environ | {"PLATEMARK_HOME": str(ROOT), "PREFECT_WORKER_QUERY_SECONDS": "1"}

    def prefect(*arguments: str) -> None:
        subprocess.run(
            [str(BIN / "prefect"), "--no-prompt", *arguments],
            check=True, capture_output=True, env=environment, cwd=ROOT,
        )  # fmt: skip

    prefect("work-pool", "create", "local", "--type", "process")
    prefect("deploy", "--all")
    names = ("produce/produce", "audit/audit", "export/export", "rescore/rescore")
    deployed, *_ = [wait_for(partial(deployment, prefect_api, name)) for name in names]
    parameters = {
        "brief": str(shop / "brief.yaml"),
        "policy": str(shop / "plain.yaml"),
        "workspace": str(shop / "ws"),
    }
    run_id = start(prefect_api, deployed, parameters)
    worker = [str(BIN / "prefect"), "worker", "start", "--pool", "local", "--run-once"]
    subprocess.run(worker, check=True, capture_output=True, env=environment, timeout=300)
    assert wait_for(lambda: final_state(prefect_api, run_id)) == "COMPLETED"
    assert exists(load_settings(shop / "ws").catalog)
