"""The command in processes forked from one that has imported what it needs: they start at once.

For tests that call it often; importing torch, diffusers and Prefect takes seconds each time.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

_SERVER = """
import json, os, sys
from importlib import import_module
for name in {modules!r}:
    module, _, attribute = name.partition(":")
    getattr(import_module(module), attribute) if attribute else import_module(module)
from platemark.cli import main
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        asked = json.loads(line)
        sys.argv = ["platemark", *asked["arguments"]]
        os.chdir(asked["folder"])
        os.environ.update(asked["environment"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream, path in enumerate(asked["streams"], 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        code = 0
        try:
            main() if asked["code"] is None else exec(asked["code"], {{"__name__": "__main__"}})
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else bool(stop.code)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Run:
    """A command under way."""

    def __init__(self, pid: int, told: IO[str], streams: Sequence[Path]) -> None:
        self.pid = pid
        self._handle = os.pidfd_open(pid)
        self._told = told
        self._streams = streams

    def ended(self, seconds: float = 0) -> bool:
        """Whether it has ended, at the latest after `seconds`."""
        return bool(select.select([self._handle], [], [], seconds)[0])

    def kill(self) -> None:
        """kill -9; nothing when it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Its exit status (negative: the signal that ended it) and what it said; once."""
        status = int(self._told.readline())
        os.close(self._handle)
        said, complained = (path.read_text() for path in self._streams)
        return subprocess.CompletedProcess([], status, said, complained)


class Warm:
    """Starts commands, one after another: each is to be waited for before the next."""

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        assert server.stdin and server.stdout
        self._asked, self._told = server.stdin, server.stdout
        self._streams = (folder / "out", folder / "err")

    def start(self, *arguments: object, **environment: str) -> Run:
        """A command in the working directory; output wide and without colour."""
        environment = {"NO_COLOR": "1", "COLUMNS": "200"} | environment
        return self._start([str(each) for each in arguments], None, environment)

    def __call__(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """The same, waited for."""
        return self.start(*arguments, **environment).wait()

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        """Python code in place of a command, waited for."""
        return self._start([], code, {}).wait()

    def _start(self, arguments: list[str], code: str | None, environment: dict[str, str]) -> Run:
        asked = {
            "arguments": arguments,
            "code": code,
            "folder": str(Path.cwd()),
            "streams": [str(path) for path in self._streams],
            "environment": environment,
        }
        self._asked.write(json.dumps(asked) + "\n")
        self._asked.flush()
        return Run(int(self._told.readline()), self._told, self._streams)


@contextmanager
def warm(*modules: str) -> Iterator[Warm]:
    """A process that has imported `modules`: `package.module`, or `package.module:name`.

    With one thread: more would not survive a fork.
    """
    command = [sys.executable, "-c", _SERVER.format(modules=modules)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    with (
        TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as server,
    ):
        assert server.stdout and server.stdout.readline() == "ready\n"
        try:
            yield Warm(server, Path(folder))
        finally:
            server.terminate()
