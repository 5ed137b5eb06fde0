"""Answers SQL that people type in a process of its own, which can be ended whatever it does.

DuckDB checks for an interruption, and counts memory, between chunks of rows only: one call of a
function that makes a string of four gigabytes ran on for minutes. The operating system ends it.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, TypeVar

from catalog.as_of import metadata_as_of
from catalog.isolated import Answer, Limits, isolated_copy, plan, select, too_large, too_long
from pipeline.errors import BusyError, Fault, InputError, PlatemarkError, SetupError

T = TypeVar("T")
_STARTING_SECONDS = 60.0
"""For Python and DuckDB to start; the limit counts from then on."""
_GRACE_SECONDS = 1.0
"""Beyond the limit, which DuckDB itself keeps most often, and says so."""
_READY, _FOUND, _ERROR = b"R", b"A", b"E"
_WORKING_BYTES = 2**30
"""Address space beyond DuckDB's own limit and the answer: libraries, stacks, buffers of Arrow."""
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_TYPES = b"types"
_ENVIRONMENT = ("HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR")
"""All that the process may know of this one's environment, where secrets may be."""
_COMPLAINT_BYTES = 20_000
_ERRORS = {kind.__name__: kind for kind in (SetupError, BusyError, PlatemarkError)}


@dataclass(frozen=True)
class Asked:
    """One SELECT over the catalog in `folder`, as the other process is told it.

    `metadata` is a private copy, `as_of` in ISO 8601; with `plan` only how it would be run.
    """

    metadata: str
    folder: str
    sql: str
    limits: dict[str, Any]
    as_of: str | None
    plan: bool


def answered_apart(folder: Path, sql: str, limits: Limits, as_of: datetime | None = None) -> Answer:
    """The answer to one SELECT, found by another process within the limits.

    Raises what `catalog.isolated.select` raises.
    """
    table = _told_by(folder, sql, limits, as_of, False, _read_table)
    types = json.loads((table.schema.metadata or {})[_TYPES])
    return Answer(table.replace_schema_metadata(None), tuple(types))


def planned_apart(folder: Path, sql: str, limits: Limits, as_of: datetime | None = None) -> str:
    """How one SELECT would be run, as `catalog.isolated.plan` tells it."""
    return _told_by(folder, sql, limits, as_of, True, lambda stream: stream.read().decode())


def _told_by(
    folder: Path,
    sql: str,
    limits: Limits,
    as_of: datetime | None,
    plan: bool,
    read: Callable[[IO[bytes]], T],
) -> T:
    moment = as_of.isoformat() if as_of else None
    # Copied here, so that nothing is left behind by a process that is ended.
    with metadata_as_of(folder, as_of) as (copy, _):
        asked = Asked(str(copy), str(folder.absolute()), sql, asdict(limits), moment, plan)
        return _ask(asked, limits, read)


def _ask(asked: Asked, limits: Limits, read: Callable[[IO[bytes]], T]) -> T:
    late = threading.Event()
    with subprocess.Popen(
        [sys.executable, "-m", "catalog.sandbox"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Where this package lies is on the path of modules then, installed or not.
        cwd=Path(__file__).resolve().parent.parent,
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
    ) as process:
        assert process.stdin and process.stdout and process.stderr

        def stop() -> None:
            late.set()
            process.kill()

        def timer_of(seconds: float) -> threading.Timer:
            timer = threading.Timer(seconds, stop)
            timer.daemon = True
            timer.start()
            return timer

        timer = timer_of(_STARTING_SECONDS)
        try:
            # One that ends before it has read all is told of by its silence.
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(asdict(asked)).encode())
                process.stdin.close()
            kind = process.stdout.read(1)
            if kind == _READY:
                timer.cancel()
                timer = timer_of(limits.seconds + _GRACE_SECONDS)
                kind = process.stdout.read(1)
            answer = _answer(kind, process.stdout, read)
            if answer is not None:
                return answer
            complaint = process.stderr.read(_COMPLAINT_BYTES).decode(errors="replace").strip()
            if late.is_set():
                raise too_long(limits)
            if process.wait() < 0 or "MemoryError" in complaint or "bad_alloc" in complaint:
                raise too_large(limits)
            raise PlatemarkError(f"the audit ended early: {complaint.rpartition(chr(10))[2]}")
        finally:
            timer.cancel()
            process.kill()


def _answer(kind: bytes, stream: IO[bytes], read: Callable[[IO[bytes]], T]) -> T | None:
    """What the other process said; None when it did not come to it. Raises the error it tells."""
    import pyarrow as pa

    if kind == _ERROR:
        told = json.loads(stream.read())
        if told["kind"] == "InputError":
            faults = [Fault(**fault) for fault in told["faults"]]
            raise InputError(told["subject"], faults)
        raise _ERRORS.get(told["kind"], PlatemarkError)(told["message"])
    try:
        return read(stream) if kind == _FOUND else None
    except (pa.ArrowException, OSError):
        return None


def _read_table(stream: IO[bytes]) -> Any:
    import pyarrow as pa

    with pa.ipc.open_stream(stream) as reader:
        return reader.read_all()


def _serve() -> None:
    """The other process: reads what is asked, limits itself, writes the answer or the error."""
    import pyarrow as pa

    asked = Asked(**json.loads(sys.stdin.buffer.read()))
    limits, folder = Limits(**asked.limits), Path(asked.folder)
    as_of = datetime.fromisoformat(asked.as_of) if asked.as_of else None
    out = sys.stdout.buffer
    try:
        with isolated_copy(Path(asked.metadata), folder, limits, as_of) as connection:
            _limit(limits)
            out.write(_READY)
            out.flush()
            if asked.plan:
                out.write(_FOUND + plan(connection, asked.sql, {}, limits, folder).encode())
            else:
                found = select(connection, asked.sql, {}, limits, folder)
                about = {_TYPES: json.dumps(found.types)}
                table = found.table.replace_schema_metadata(about)
                out.write(_FOUND)
                with pa.ipc.new_stream(out, table.schema) as writer:
                    writer.write_table(table)
            out.flush()
    except InputError as error:
        faults = [asdict(fault) for fault in error.faults]
        _tell(out, {"kind": "InputError", "subject": error.subject, "faults": faults})
    except PlatemarkError as error:
        _tell(out, {"kind": type(error).__name__, "message": str(error)})
    # Threads that still compute must not keep the process.
    os._exit(0)


def _tell(out: IO[bytes], error: dict[str, Any]) -> None:
    out.write(_ERROR + json.dumps(error).encode())
    out.flush()


def _limit(limits: Limits) -> None:
    """From here on this process gets no more than the limits, writes no file and starts none."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    memory = now + _bytes(limits.memory) + limits.megabytes * 2**20 + _WORKING_BYTES
    seconds = int(limits.seconds * limits.threads + _GRACE_SECONDS) + 1
    for kind, amount in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (amount, amount))


def _bytes(memory: str) -> int:
    found = re.fullmatch(r"(\d+)\s*([KMGT]B)", memory)
    if found is None:
        raise ValueError(f"{memory!r} is no amount of memory such as 1GB")
    return int(found[1]) * _UNITS[found[2]]


if __name__ == "__main__":
    _serve()
