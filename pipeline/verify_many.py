"""Many files verified at once, in processes of their own: all cores, and no file can stop the rest.

The SDK's threads cap at two or three cores and its contexts survive no fork, so each worker is a
fresh Python. A file that crashes one, or holds it up, becomes a report like any other.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from pipeline.trust import Trust
from pipeline.verify import Depth, Report, verify_bytes, verify_file
from pipeline.verify_files import PACK_ERRORS, Item, read

SECONDS = 60.0
"""Longest time for one file."""
_START_SECONDS = 120.0
"""Longest time for a worker to start, on a machine that is busy."""
MEMORY = 6 << 30
"""Address space of one worker in bytes: what wants more fails there, not on the machine."""
_CHUNK, _CHUNK_BYTES = 16, 32 << 20
_START = "import sys; from pipeline.verify_many import serve; serve(int(sys.argv[1]))"


def verify_all(
    items: Iterable[Item],
    trust: Trust,
    depth: Depth = "labels",
    workers: int | None = None,
    seconds: float = SECONDS,
    hashed: bool = True,
) -> Iterator[Report]:
    """A report for each item, in their order, while later ones are being verified.

    `workers` processes, one a core by default. `items` is read as it is needed, so that memory
    stays bounded. Without `hashed` reports have no SHA-256. Nothing raises for a file.
    """
    with _Crew(How(trust, depth, hashed), workers or _cores(), seconds) as crew:
        yield from crew.reports(items)


def serve(descriptor: int) -> None:
    """The worker's side: how to verify first, then lists of items, answered by reports."""
    _limit_memory()
    with Connection(descriptor) as parent, contextlib.suppress(EOFError, BrokenPipeError):
        how = parent.recv()
        parent.send(None)
        while True:
            parent.send([_report(item, how) for item in parent.recv()])


@dataclass(frozen=True)
class How:
    """What every file is verified by."""

    trust: Trust
    depth: Depth
    hashed: bool


def _report(item: Item, how: How) -> Report:
    if item.member is None and item.fault is None:
        return verify_file(item.path, how.trust, how.depth, how.hashed)
    try:
        return verify_bytes(read(item), item.name, how.trust, how.depth, how.hashed)
    except PACK_ERRORS as error:
        reason = str(error) or type(error).__name__
        return Report(str(item.name), error=reason, why=("it could not be read",))


@dataclass
class _Task:
    """Items of one chunk, from `start` on."""

    chunk: int
    start: int
    items: list[Item]


class _Worker:
    """A process and the task that it is at."""

    def __init__(self, how: How) -> None:
        ours, theirs = socket.socketpair()
        path = os.pathsep.join(each for each in sys.path if each)
        # What a crash prints is told in the report of the file that caused it.
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path},
        )
        theirs.close()
        self.pipe = Connection(ours.detach())
        self.pipe.send(how)
        self.task: _Task | None = None
        self.until = 0.0
        self.ready = False

    def begin(self, task: _Task, seconds: float) -> None:
        self.task = task
        self.until = time.monotonic() + (seconds if self.ready else _START_SECONDS)
        # One that died meanwhile is noticed when it does not answer.
        with contextlib.suppress(OSError):
            self.pipe.send(task.items)

    def end(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.wait()


class _Crew:
    """The workers; `with` ends them, whatever happens."""

    def __init__(self, how: How, size: int, seconds: float) -> None:
        self.how, self.size, self.seconds = how, size, seconds
        self.workers: list[_Worker] = []

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.end()

    def reports(self, items: Iterable[Item]) -> Iterator[Report]:
        chunks = enumerate(_chunks(items))
        again: deque[_Task] = deque()
        answers: dict[int, list[Report | None]] = {}
        given, more = 0, True
        while True:
            while free := self._free():
                if again:
                    free.begin(again.popleft(), self.seconds)
                    continue
                # Answers that wait for an earlier one are few.
                if not more or len(answers) >= 4 * self.size:
                    break
                number, chunk = next(chunks, (0, None))
                if chunk is None:
                    more = False
                    break
                answers[number] = [None] * len(chunk)
                free.begin(_Task(number, 0, chunk), self.seconds)
            if not answers:
                return
            for task, found in self._answers():
                if found is None:
                    again.extend(
                        _Task(task.chunk, task.start + place, [item])
                        for place, item in enumerate(task.items)
                    )
                else:
                    answers[task.chunk][task.start : task.start + len(found)] = found
            while (first := answers.get(given)) is not None and None not in first:
                yield from (each for each in first if each)
                del answers[given]
                given += 1

    def _free(self) -> _Worker | None:
        for worker in self.workers:
            if worker.task is None:
                return worker
        if len(self.workers) >= self.size:
            return None
        self.workers.append(_Worker(self.how))
        return self.workers[-1]

    def _answers(self) -> Iterator[tuple[_Task, list[Report] | None]]:
        """Tasks that ended, with their reports; None: to be tried again, item by item."""
        busy = [worker for worker in self.workers if worker.task]
        left = min(worker.until for worker in busy) - time.monotonic()
        ready = wait([worker.pipe for worker in busy], max(left, 0.0))
        for worker in busy:
            late = time.monotonic() >= worker.until
            task = worker.task
            if task is None or not (late or worker.pipe in ready):
                continue
            try:
                if worker.pipe not in ready:
                    raise TimeoutError
                found = worker.pipe.recv()
                if found is None:
                    worker.ready, worker.until = True, time.monotonic() + self.seconds
                    continue
                worker.task = None
                yield task, found
            except (EOFError, OSError) as error:
                worker.task = None
                self.workers.remove(worker)
                worker.end()
                yield task, _blamed(task, isinstance(error, TimeoutError), self.seconds)


def _blamed(task: _Task, late: bool, seconds: float) -> list[Report] | None:
    if len(task.items) > 1:
        return None
    said = f"took longer than {seconds:.0f} s" if late else "makes the reader crash"
    why = ("it was not verified: be wary of it",)
    return [Report(str(task.items[0].name), error=said, why=why, decodes=False)]


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    size = 0
    for item in items:
        chunk.append(item)
        size += item.size
        if len(chunk) >= _CHUNK or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _limit_memory() -> None:
    # Windows has no such limit, macOS does not keep to it.
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
