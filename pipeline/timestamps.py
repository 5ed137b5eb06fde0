"""A time-stamp authority (RFC 3161): asked before a run depends on it, left alone while it is out.

A dead one costs each signature a failed call and a silent one half a minute; pipeline/sign.py signs
without it meanwhile, and `platemark stamp` makes up for it.
"""

from __future__ import annotations

import http.client
import time
import urllib.request

from pipeline.errors import SetupError

# TimeStampReq: version 1, the SHA-256 of nothing in particular, certReq (RFC 3161, 2.4.1).
_QUERY = (
    bytes.fromhex("3039 020101 3031 300d 0609608648016503040201 0500 0420")
    + bytes(32)
    + bytes.fromhex("0101ff")
)
PAUSE_SECONDS = 60.0
"""How long an authority that failed is left alone."""

_out_until: dict[str, float] = {}


def check_timestamp_authority(url: str, timeout: float = 5.0) -> None:
    """Asks for one stamp. Raises SetupError unless it comes within `timeout` seconds."""
    try:
        if not url.startswith(("http://", "https://")):
            raise ValueError("not an http(s) URL")
        headers = {"Content-Type": "application/timestamp-query"}
        request = urllib.request.Request(url, _QUERY, headers)
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            kind = answer.headers.get_content_type()
        if kind != "application/timestamp-reply":
            raise ValueError(f"it answers {kind}, not application/timestamp-reply")
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise SetupError(
            f"the time-stamp authority {url} does not serve: {reason}; "
            f"try again, or leave signing.timestamp_url out to sign without time stamps"
        ) from None


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


def is_stamped(store: bytes, label: str) -> bool:
    """Whether the manifest called `label`, the active one of a store, has a time stamp.

    Stamps of the ingredients' manifests, which stand before it, do not count.
    """
    start = store.find(label.encode())
    # COSE headers sigTst and sigTst2 (C2PA 2.4, 10.3.2.5); `label` first stands at its own box.
    found = store[start:] if start >= 0 else b""
    # As CBOR texts with their length, so that no words of a manifest are taken for them.
    return b"\x66sigTst" in found or b"\x67sigTst2" in found
