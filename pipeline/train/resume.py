"""The working folder of a training: held by one process, with the state that it goes on from."""

from __future__ import annotations

import fcntl
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import BusyError, Fault, InputError, SetupError
from pipeline.store import write_file
from pipeline.train.painter import Painter
from pipeline.train.recipe import Recipe
from pipeline.train.sheet import Curve


@contextmanager
def held(work: Path, name: str) -> Iterator[None]:
    """Hold the working folder for this process; the lock goes with the process.

    Raises SetupError when it cannot be written, BusyError when another process holds it.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
        file = (work / ".lock").open("a")
    except OSError as error:
        raise SetupError(f"cannot write {work}: {error.strerror}; check the folder") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another process trains {name!r} in {work}; wait for it") from None
        yield


def same_recipe(work: Path, name: str, recipe: Recipe) -> None:
    """Keep the recipe while nothing is learnt yet; afterwards, refuse any other by InputError."""
    path = work / "recipe.json"
    if not (work / "state.pt").exists():
        shutil.rmtree(work / "pictures", ignore_errors=True)
        write_file(path, json.dumps(recipe.plain(), indent=2, ensure_ascii=False).encode())
        return
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = {}
    other = [key for key, value in recipe.plain().items() if kept.get(key) != value]
    if other:
        what = f"an unfinished training of {name!r} has other {', '.join(other)}"
        remedy = "repeat that command to finish it, or delete the folder to begin anew"
        raise InputError("train lora", [Fault(what, str(work), remedy)])


def keep(painter: Painter, path: Path, step: int, curve: Curve) -> None:
    """Write all that the training goes on from after `step` steps."""
    import torch

    state = {"step": step, "losses": curve.losses, "probes": curve.probes}
    buffer = io.BytesIO()
    torch.save({**state, **painter.state()}, buffer)
    write_file(path, buffer.getvalue())


def restored(painter: Painter, path: Path) -> tuple[int, Curve]:
    """The steps done and their losses, with the painter as it was then; 0 steps without a file.

    Raises SetupError for a file that cannot be read.
    """
    import torch

    if not path.exists():
        return 0, Curve()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        painter.restore(state)
        curve = Curve(list(state["losses"]), [(int(a), float(b)) for a, b in state["probes"]])
        return int(state["step"]), curve
    # A damaged file raises pickle, zip, key and shape errors alike.
    except Exception as error:
        raise SetupError(
            f"the state of the unfinished training in {path} cannot be read ({error}); "
            f"delete {path.parent} to begin anew"
        ) from error
