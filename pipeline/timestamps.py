"""A time-stamp authority (RFC 3161): asked before a run depends on it, left alone while it is out.

A dead one costs each signature a failed call and a silent one half a minute; pipeline/sign.py signs
without it meanwhile, and `platemark stamp` makes up for it. The ledger's checkpoints ask it too.
"""

from __future__ import annotations

import http.client
import secrets
import threading
import time
import urllib.request
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

from pipeline.errors import SetupError
from pipeline.timestamp_token import StampError, read_stamp, refusal

T = TypeVar("T")

ANSWER_SECONDS = 10.0
"""How long an authority has to stamp a checkpoint, name look-up and all."""
_ANSWER_BYTES = 1 << 16
PAUSE_SECONDS = 60.0
"""How long an authority that failed is left alone."""

_out_until: dict[str, float] = {}


def check_timestamp_authority(url: str, timeout: float = 5.0) -> None:
    """Asks for one stamp. Raises SetupError unless it comes within `timeout` seconds.

    Whether it can be used is asked of each stamp anew; an answer that refuses is none.
    """
    try:
        # The SHA-256 of nothing in particular.
        reply = within(timeout, lambda: _answer(url, _query(bytes(32)), timeout))
        if why := refusal(reply):
            raise StampError(f"it refuses, {why}")
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise SetupError(
            f"the time-stamp authority {url} does not serve: {reason}; "
            f"try again, or leave signing.timestamp_url out to sign without time stamps"
        ) from None


def ask_stamp(url: str, imprint: bytes, seconds: float = ANSWER_SECONDS) -> bytes:
    """A TimeStampResp (DER, RFC 3161) of `imprint`, a SHA-256 of 32 bytes, checked to be of it.

    Raises StampError within `seconds` when none comes or it does not fit, and when the authority
    failed a short while ago: it is left alone for a while then.
    """
    # Eight bytes whose first bit is 0 and whose second is 1: a positive INTEGER in DER.
    nonce = 1 << 62 | secrets.randbits(62)

    def ask() -> bytes | None:
        return None if is_out(url) else _answer(url, _query(imprint, nonce), seconds)

    try:
        reply = within(seconds, ask)
        if reply is not None:
            read_stamp(reply, imprint, (), nonce)
    except StampError as error:
        note_outage(url)
        raise StampError(f"its stamp {error}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        note_outage(url)
        raise StampError(str(getattr(error, "reason", None) or error)) from None
    if reply is None:
        raise StampError("it failed a short while ago")
    return reply


def note_outage(url: str) -> None:
    """The authority failed: leave it alone for a while, in this process."""
    _out_until[url] = time.monotonic() + PAUSE_SECONDS


def is_out(url: str) -> bool:
    """Whether the authority failed a short while ago, or has not come back since.

    After the pause it is asked once, with 5 seconds' patience, before a signature depends on it.
    """
    until = _out_until.get(url)
    if until is None:
        return False
    if time.monotonic() < until:
        return True
    # At once, so that of many threads one asks.
    note_outage(url)
    try:
        check_timestamp_authority(url)
    except SetupError:
        note_outage(url)
        return True
    _out_until.pop(url, None)
    return False


def _query(imprint: bytes, nonce: int | None = None) -> bytes:
    """TimeStampReq: version 1, SHA-256 and the imprint, nonce, certReq (RFC 3161, 2.4.1)."""
    body = bytes.fromhex("020101 3031 300d 0609608648016503040201 0500 0420") + imprint
    if nonce is not None:
        body += b"\x02\x08" + nonce.to_bytes(8)
    body += bytes.fromhex("0101ff")
    return bytes([0x30, len(body)]) + body


def _answer(url: str, query: bytes, timeout: float) -> bytes:
    if not url.startswith(("http://", "https://")):
        raise ValueError("not an http(s) URL")
    headers = {"Content-Type": "application/timestamp-query"}
    request = urllib.request.Request(url, query, headers)
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        kind = answer.headers.get_content_type()
        if kind != "application/timestamp-reply":
            raise ValueError(f"it answers {kind}, not application/timestamp-reply")
        reply: bytes = answer.read(_ANSWER_BYTES + 1)
    if len(reply) > _ANSWER_BYTES:
        raise ValueError("its answer has no end")
    return reply


def within(seconds: float, ask: Callable[[], T]) -> T:
    """The answer, or what asking raised; TimeoutError after so many seconds.

    A socket's timeout bounds neither name look-ups nor an answer that comes byte by byte.
    """
    answers: SimpleQueue[T | Exception] = SimpleQueue()

    def run() -> None:
        try:
            answers.put(ask())
        except Exception as error:
            answers.put(error)

    # A daemon, so that one that still waits keeps no process from ending.
    threading.Thread(target=run, daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"no answer within {seconds:.0f} seconds") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def is_stamped(store: bytes, label: str) -> bool:
    """Whether the manifest called `label`, the active one of a store, has a time stamp.

    Stamps of the ingredients' manifests, which stand before it, do not count.
    """
    start = store.find(label.encode())
    # COSE headers sigTst and sigTst2 (C2PA 2.4, 10.3.2.5); `label` first stands at its own box.
    found = store[start:] if start >= 0 else b""
    # As CBOR texts with their length, so that no words of a manifest are taken for them.
    return b"\x66sigTst" in found or b"\x67sigTst2" in found
