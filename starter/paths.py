"""Where training keeps what it can make again: G-buffers, latents, checkpoints, contact sheets."""

import os
from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
REFERENCES = Path(__file__).parent / "references"
SCORES = Path(__file__).parent / "scores"


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/platemark/starter`, made on first use."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(base) / "platemark" / "starter"
    path.mkdir(parents=True, exist_ok=True)
    return path


def publish(fresh: Path, target: Path) -> None:
    """Move a finished file to its place in one step, readable by everybody."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh.chmod(0o644)
    fresh.replace(target)
