"""The installed command, called as people and scripts call it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PLATEMARK = str(Path(sys.executable).with_name("platemark"))


def platemark(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it; output as text, wide and without colour."""
    return subprocess.run(
        [PLATEMARK, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"NO_COLOR": "1", "COLUMNS": "200"} | environment,
    )
