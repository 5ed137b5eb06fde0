"""The C2PA Soft Binding Resolution API over HTTP: which manifest belongs to this image?

After the OpenAPI document of C2PA's "Soft Binding API" (spec.c2pa.org, softbinding/Decoupled, read
2026-11). Reads the catalog as it is at each request, writes nothing, opens no path it is given.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from catalog.lake import reading
from catalog.recover import Kind, Match, by_binding, manifest_store, recover
from pipeline.errors import PlatemarkError
from pipeline.images import MAX_BYTES, ImageRefused
from pipeline.soft_binding.fingerprint import ISCC, PDQ
from pipeline.soft_binding.watermarks import BY_ALGORITHM

MAX_QUERY = 4_096
"""Characters of a request's path and query."""
_MAX_JSON = 65_536
_MAX_RESULTS = 100
_AT_ONCE = 4
_SECONDS = 30
_KINDS: dict[str, tuple[Kind, ...]] = {
    **dict.fromkeys(BY_ALGORITHM, ("watermark",)),
    PDQ: ("fingerprint",),
    ISCC: ("fingerprint",),
}


class _Refused(Exception):
    """An HTTP status and what to tell the caller."""

    def __init__(self, status: int, message: str):
        self.status = status
        super().__init__(message)


def server(catalog: Path, host: str, port: int) -> ThreadingHTTPServer:
    """A server bound to `host` and `port` (0: a free one) for the catalog in a folder.

    At most four requests are looked up at once, uploads are at most 64 MiB, and callers have 30 s
    to send theirs. Raises OSError when the address is taken.
    """

    class Handler(_Handler):
        folder = catalog
        turn = threading.BoundedSemaphore(_AT_ONCE)

    made = ThreadingHTTPServer((host, port), Handler)
    made.daemon_threads = True
    return made


class _Handler(BaseHTTPRequestHandler):
    folder: Path
    turn: threading.BoundedSemaphore
    timeout = _SECONDS
    server_version = "Platemark"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, *_: Any) -> None:
        """Nothing: what people look for is theirs."""

    def _answer(self, handle: Callable[[str, dict[str, str], bytes], tuple[str, bytes]]) -> None:
        try:
            if len(self.path) > MAX_QUERY:
                raise _Refused(414, "the query is too long: POST it instead")
            url = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(url.query).items()}
            asked = self._body(url.path)
            with self.turn:
                mime, body = handle(url.path, query, asked)
            status = 200
        except _Refused as refused:
            status, mime, body = refused.status, *_json({"error": str(refused)})
        except TimeoutError:
            self.close_connection = True
            return
        except PlatemarkError:
            status, mime, body = 500, *_json({"error": "the catalog cannot be read"})
        # Whatever an upload makes a decoder or a query raise is no reason to drop the connection.
        except Exception:
            status, mime, body = 500, *_json({"error": "this cannot be looked up"})
        # A refused upload may be unread still: the connection cannot serve another request.
        self.close_connection = self.close_connection or status != 200
        self.send_response(status)
        self.send_header("Content-Type", mime)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def _get(self, path: str, query: dict[str, str], _: bytes) -> tuple[str, bytes]:
        if path == "/services/supportedAlgorithms":
            return _json(supported_algorithms())
        if path == "/matches/byBinding":
            return self._by_binding(query, query)
        if path.startswith("/manifests/"):
            return self._manifest(unquote(path.removeprefix("/manifests/")), query)
        raise _Refused(404, "there is no such address")

    def _post(self, path: str, query: dict[str, str], body: bytes) -> tuple[str, bytes]:
        if path == "/matches/byBinding":
            try:
                asked = json.loads(body)
            except ValueError:
                raise _Refused(400, "the body is no JSON") from None
            if not isinstance(asked, dict):
                raise _Refused(400, "the body is no JSON object")
            return self._by_binding(asked, query)
        if path == "/matches/byContent":
            return self._by_content(query, body)
        raise _Refused(404, "there is no such address")

    def _by_binding(self, asked: dict[str, Any], query: dict[str, str]) -> tuple[str, bytes]:
        limit = _limit(query)
        alg, value = str(asked.get("alg", "")), str(asked.get("value", ""))
        if alg not in _KINDS:
            raise _Refused(400, f"unknown alg; one of: {', '.join(_KINDS)}")
        try:
            plain = base64.b64decode(value, validate=True).decode("ascii")
            with reading(self.folder) as lake:
                return _matches(by_binding(lake, alg, plain), limit)
        except (binascii.Error, ValueError, OverflowError):
            raise _Refused(400, "value is not the base64 of a value of that algorithm") from None

    def _by_content(self, query: dict[str, str], data: bytes) -> tuple[str, bytes]:
        limit = _limit(query)
        alg = query.get("alg")
        if alg is not None and alg not in _KINDS:
            raise _Refused(400, f"unknown alg; one of: {', '.join(_KINDS)}")
        if not self.headers.get("Content-Type", "").startswith("image/"):
            raise _Refused(415, "only image/* can be looked up")
        try:
            with reading(self.folder) as lake:
                return _matches(recover(lake, data, _KINDS.get(alg or "")).matches, limit)
        except ImageRefused as refused:
            raise _Refused(415, str(refused)) from None

    def _manifest(self, label: str, query: dict[str, str]) -> tuple[str, bytes]:
        if query.get("returnActiveManifest", "false") != "false":
            raise _Refused(
                400, "only whole manifest stores are kept: leave out returnActiveManifest"
            )
        with reading(self.folder) as lake:
            store = manifest_store(lake, label)
        if store is None:
            raise _Refused(404, "there is no such manifest")
        return "application/c2pa", store

    def _body(self, path: str) -> bytes:
        """What was uploaded, read before a turn is taken: a slow client holds up nobody else."""
        if self.command != "POST" or path not in ("/matches/byBinding", "/matches/byContent"):
            return b""
        most = MAX_BYTES if path == "/matches/byContent" else _MAX_JSON
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise _Refused(411, "say the Content-Length")
        if len(length) > 12 or int(length) > most:
            raise _Refused(413, f"at most {most:,} bytes")
        deadline = time.monotonic() + _SECONDS
        parts, left = [], int(length)
        while left:
            part = self.rfile.read1(min(left, 1 << 20))
            if not part:
                raise _Refused(400, "the body ended early")
            if time.monotonic() > deadline:
                raise TimeoutError
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


def supported_algorithms() -> dict[str, list[dict[str, str]]]:
    """What `/services/supportedAlgorithms` answers: names of watermarks and fingerprints."""
    return {
        "watermarks": [{"alg": name} for name in BY_ALGORITHM],
        "fingerprints": [{"alg": name} for name in (PDQ, ISCC)],
    }


def _matches(found: Any, limit: int) -> tuple[str, bytes]:
    matches: list[Match] = list(found)[:limit]
    return _json(
        {"matches": [{"manifestId": m.label, "similarityScore": m.score} for m in matches]}
    )


def _limit(query: dict[str, str]) -> int:
    text = query.get("maxResults", "10")
    if not text.isdecimal() or not 1 <= int(text) <= _MAX_RESULTS:
        raise _Refused(400, f"maxResults is a number from 1 to {_MAX_RESULTS}")
    return int(text)


def _json(value: Any) -> tuple[str, bytes]:
    return "application/json", json.dumps(value).encode()
