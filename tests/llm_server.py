"""A real HTTP server that speaks OpenAI's `/v1/chat/completions`, well or badly, as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What the server sends. `chunks` are sent with `pause` seconds before each."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pause: float = 0
    chunks: int = 1


def completion(content: Any, model: str = "tiny-llm-0.1", **changes: Any) -> Reply:
    """A well-formed answer; `changes` go into its one choice, or into its message."""
    message = {"role": "assistant", "content": content, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    for name, value in changes.items():
        (message if name in message else choice)[name] = value
    whole = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_760_000_000, "model": model,
        "choices": [choice],
        "usage": {"prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52},
    }  # fmt: skip
    return Reply(json.dumps(whole).encode())


def failure(status: int, message: str = "no", **headers: str) -> Reply:
    """An error as OpenAI-compatible servers send it."""
    error = {"error": {"message": message, "type": "invalid_request_error", "code": None}}
    return Reply(json.dumps(error).encode(), status, headers)


def facts_of(body: Mapping[str, Any]) -> Any:
    """The facts in a request's body."""
    return json.loads(body["messages"][1]["content"])


def describe(body: Mapping[str, Any]) -> Reply:
    """A good prompt of the facts, in order of their names."""
    words = " ".join(str(value) for value in facts_of(body).values())
    return completion(f"a studio photograph of a {words}", f"{body['model']}-2026-01")


class LlmServer:
    """`with LlmServer() as server:` serves at `server.url`; set `answer` to have it misbehave.

    `bodies` and `authorizations` are the requests in the order they came, `most` how many were
    served at once. With `key` set, all others are refused with 401.
    """

    def __init__(self, answer: Callable[[Mapping[str, Any]], Reply] = describe):
        self.answer = answer
        self.key: str | None = None
        self.bodies: list[dict[str, Any]] = []
        self.authorizations: list[str | None] = []
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> LlmServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving: connections are refused from now on."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def wait(self, seconds: float) -> None:
        """Sleep, but not beyond `close`."""
        self._closing.wait(seconds)

    def reply(self, path: str, authorization: str | None, data: bytes) -> Reply:
        """The answer to one request."""
        if path != "/v1/chat/completions":
            return failure(404, "no such path")
        body = json.loads(data)
        with self._lock:
            self.bodies.append(body)
            self.authorizations.append(authorization)
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            if self.key is not None and authorization != f"Bearer {self.key}":
                return failure(401, f"Incorrect API key provided: {authorization}")
            return self.answer(body)
        finally:
            with self._lock:
                self._now -= 1


class _Handler(BaseHTTPRequestHandler):
    owner: LlmServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        reply = self.owner.reply(self.path, self.headers.get("Authorization"), data)
        self.send_response(reply.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply.body) * reply.chunks))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for _ in range(reply.chunks):
                self.owner.wait(reply.pause)
                self.wfile.write(reply.body)
                self.wfile.flush()
        except OSError:
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


def slowly(seconds: float) -> Callable[[Mapping[str, Any]], Reply]:
    """`describe` after some time, so that requests overlap."""

    def answer(body: Mapping[str, Any]) -> Reply:
        time.sleep(seconds)
        return describe(body)

    return answer
