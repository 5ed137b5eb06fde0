"""Asks a time-stamp authority (RFC 3161) whether it serves, before a run depends on it.

A dead one makes every signature fail and a silent one holds each up for half a minute.
"""

from __future__ import annotations

import urllib.request

from pipeline.errors import SetupError

# TimeStampReq: version 1, the SHA-256 of nothing in particular, certReq (RFC 3161, 2.4.1).
_QUERY = (
    bytes.fromhex("3039 020101 3031 300d 0609608648016503040201 0500 0420")
    + bytes(32)
    + bytes.fromhex("0101ff")
)


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
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise SetupError(
            f"the time-stamp authority {url} does not serve: {reason}; "
            f"try again, or leave signing.timestamp_url out to sign without time stamps"
        ) from None
