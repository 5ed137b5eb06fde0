"""Witnesses at addresses, over real HTTP: who has the checkpoint, and who is told not to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ledger_samples import commit

from catalog.lake import Lake
from catalog.ledger_checkpoints import write_checkpoint

Answer = Callable[[BaseHTTPRequestHandler], None]


class Witness(ThreadingHTTPServer):
    """Answers as it is told, and keeps what it was given."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Answer = taken
        self.notes: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who hangs up on one that drips is expected."""


class Handler(BaseHTTPRequestHandler):
    server: Witness

    def do_POST(self) -> None:
        note = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.server.answer is taken:
            self.server.notes.append(note)
        self.server.answer(self)

    def do_GET(self) -> None:
        taken(self)

    def log_message(self, *_: Any) -> None:
        pass


def taken(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()


def moved(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(302)
    handler.send_header("Location", "/elsewhere")
    handler.end_headers()


def drip(handler: BaseHTTPRequestHandler) -> None:
    with suppress(OSError):
        for _ in range(200):
            handler.wfile.write(b"0")
            time.sleep(0.05)


@pytest.fixture
def witness() -> Iterator[Witness]:
    with Witness() as serving:
        serving.daemon_threads = True
        serving.block_on_close = False
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving
        serving.shutdown()


def test_a_witness_has_the_checkpoint(lake: Lake, witness: Witness, tmp_path: Path) -> None:
    commit(lake, range(2), "b1")
    made = write_checkpoint(lake, tmp_path / "ledger", "run run-1", [witness.url])
    assert (made.unreached, witness.notes) == ((), [made.note])


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda handler: handler.send_error(503), "Service Unavailable"),
        (moved, "/elsewhere: name that address"),
        (drip, "no answer within 1 seconds"),
    ],
    ids=["refuses", "has moved", "drips"],
)
def test_a_witness_that_may_not_have_it_is_told(
    lake: Lake,
    witness: Witness,
    tmp_path: Path,
    answer: Answer,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("catalog.ledger_checkpoints._WITNESS_SECONDS", 1.0)
    witness.answer = answer
    commit(lake, range(2), "b1")
    begun = time.monotonic()
    (told,) = write_checkpoint(lake, tmp_path / "ledger", "run run-1", [witness.url]).unreached
    assert told.startswith(witness.url) and why in told
    assert time.monotonic() - begun < 6
