"""Prefect as Platemark runs it: its home in the workspace, no telemetry, patient start-up.

Must run before `prefect` is imported; whatever the user has set stays as it is.
"""

from __future__ import annotations

import os
import sys

from pipeline.settings import Settings

QUIET = "CRITICAL"


def prepare_prefect(settings: Settings, log_level: str = QUIET) -> None:
    """Set Prefect's environment for this process and those it starts."""
    if "prefect" in sys.modules:
        return
    defaults = {
        "PREFECT_HOME": str(settings.root / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # A first start migrates its database, which takes 14–17 s on two cores.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
        "PREFECT_LOGGING_LEVEL": log_level,
        "PREFECT_LOGGING_SERVER_LEVEL": log_level,
        "PREFECT_SHOW_STARTUP_LOGS": "false",
    }
    (settings.make_root() / "prefect").mkdir(exist_ok=True)
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
