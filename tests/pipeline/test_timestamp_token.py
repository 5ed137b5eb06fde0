"""Stamps asked of a real authority, of bad ones, and what is read out of bytes of any kind."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from timestamp_authority import TimestampAuthority, timestamp_authority

from pipeline import timestamps
from pipeline.errors import SetupError
from pipeline.timestamp_cms import signature_holds
from pipeline.timestamp_token import StampError, read_stamp
from pipeline.timestamps import ask_stamp, check_timestamp_authority, is_out

IMPRINT, OTHER = hashlib.sha256(b"a").digest(), hashlib.sha256(b"b").digest()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TimestampAuthority]:
    with timestamp_authority(tmp_path_factory.mktemp("tsa")) as serving:
        yield serving


@pytest.fixture(autouse=True)
def no_outages() -> Iterator[None]:
    yield
    timestamps._out_until.clear()


@pytest.fixture(scope="module")
def reply(authority: TimestampAuthority) -> bytes:
    return ask_stamp(authority.url, IMPRINT)


@contextmanager
def server(say: Callable[[BaseHTTPRequestHandler, bytes], None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.end_headers()
            with suppress(OSError):
                say(self, query)

        def log_message(self, *_: Any) -> None:
            pass

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{serving.server_port}/"
    finally:
        serving.shutdown()
        # Handlers that wait for something are not waited for.
        serving.socket.close()


def roots_of(authority: TimestampAuthority) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(authority.root)


def test_a_stamp_says_when_and_by_whom(
    authority: TimestampAuthority, reply: bytes, tmp_path: Path
) -> None:
    stamp = read_stamp(reply, IMPRINT, roots_of(authority))

    assert abs(stamp.time.timestamp() - time.time()) < 600
    assert (stamp.authority, stamp.trusted) == ("Stamps", True)
    assert not read_stamp(reply, IMPRINT, ()).trusted
    with timestamp_authority(tmp_path) as other:
        assert not read_stamp(reply, IMPRINT, roots_of(other)).trusted


PSS = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)


@pytest.mark.parametrize(
    ("algorithm", "scheme"),
    [
        (hashes.SHA256(), None),
        (hashes.SHA512(), None),
        (hashes.SHA256(), PSS),
        (hashes.SHA384(), "ECDSA"),
    ],
)
def test_signatures_of_strangers_are_looked_at(algorithm: Any, scheme: Any) -> None:
    key: Any = rsa.generate_private_key(65537, 2048)
    if scheme == "ECDSA":
        key, scheme = ec.generate_private_key(ec.SECP384R1()), None
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Stranger")])
    now = datetime.now(UTC)
    signer = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    builder = pkcs7.PKCS7SignatureBuilder().set_data(b"what is signed")
    builder = builder.add_signer(signer, key, algorithm, rsa_padding=scheme)
    token = builder.sign(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])
    body = bytes.fromhex("3003 020100") + token
    reply = b"\x30\x82" + len(body).to_bytes(2) + body

    assert signature_holds(reply, signer)
    assert not signature_holds(reply.replace(b"what is", b"whatwas"), signer)
    assert not signature_holds(reply[:-1] + bytes([reply[-1] ^ 1]), signer)


REFUSED = bytes.fromhex("3005 3003 020102")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda reply: (reply, OTHER), "is of something else"),
        (lambda reply: (reply.replace(IMPRINT, OTHER), OTHER), "signature that does not hold"),
        (lambda reply: (reply.replace(b"\x18\x0f20", b"\x18\x0f19"), IMPRINT), "does not hold"),
        (lambda reply: (reply[:-1], IMPRINT), "is damaged"),
        (lambda reply: (REFUSED, IMPRINT), "refused with status 2"),
        (lambda reply: (b"", IMPRINT), "is damaged"),
        (lambda reply: (b"good morning", IMPRINT), "is damaged"),
        (lambda reply: (b"\x30\x80" + reply, IMPRINT), "is damaged"),
    ],
)
def test_a_stamp_that_does_not_hold_is_refused(
    authority: TimestampAuthority,
    reply: bytes,
    change: Callable[[bytes], tuple[bytes, bytes]],
    why: str,
) -> None:
    changed, imprint = change(reply)

    # By whoever knows the authority and by who does not: it gives its root with the stamp.
    for roots in (roots_of(authority), []):
        with pytest.raises(StampError, match=why):
            read_stamp(changed, imprint, roots)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_bytes_of_any_kind_are_read_or_refused(
    authority: TimestampAuthority, reply: bytes, data: st.DataObject
) -> None:
    roots, good = roots_of(authority), read_stamp(reply, IMPRINT, ())
    changed = bytearray(reply)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(reply) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(reply)) | st.just(len(reply)))

    try:
        read = read_stamp(bytes(changed[:cut]), IMPRINT, roots)
    except StampError:
        return
    # Only what is not signed was changed.
    assert read.time == good.time


def drip(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    for _ in range(200):
        handler.wfile.write(b"0")
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("say", "why"),
    [
        (lambda handler, query: time.sleep(10), "no answer within 1 seconds|timed out"),
        (drip, "no answer within 1 seconds"),
        (lambda handler, query: handler.wfile.write(bytes(1 << 17)), "has no end"),
        (lambda handler, query: handler.wfile.write(REFUSED), "refused with status 2"),
        (lambda handler, query: None, "is damaged"),
    ],
    ids=["silent", "byte by byte", "endless", "refuses", "nothing"],
)
def test_a_bad_authority_is_bounded_told_and_left_alone(
    say: Callable[[BaseHTTPRequestHandler, bytes], None], why: str
) -> None:
    with server(say) as url:
        begun = time.monotonic()
        with pytest.raises(StampError, match=why):
            ask_stamp(url, IMPRINT, seconds=1)
        assert time.monotonic() - begun < 6
        assert is_out(url)
        with pytest.raises(StampError, match="failed a short while ago"):
            ask_stamp(url, IMPRINT)


@pytest.mark.parametrize(
    ("say", "why"),
    [
        (drip, "no answer within 1 seconds"),
        (lambda handler, query: handler.wfile.write(REFUSED), "it refuses, with status 2"),
    ],
    ids=["byte by byte", "refuses"],
)
def test_a_bad_authority_is_told_of_before_a_run_depends_on_it(
    say: Callable[[BaseHTTPRequestHandler, bytes], None], why: str
) -> None:
    with server(say) as url:
        begun = time.monotonic()
        with pytest.raises(SetupError, match=f"does not serve: {why}"):
            check_timestamp_authority(url, timeout=1)
        assert time.monotonic() - begun < 6


def test_an_old_stamp_of_the_same_is_no_answer(reply: bytes) -> None:
    with (
        server(lambda handler, query: handler.wfile.write(reply)) as url,  # type: ignore[arg-type, return-value]
        pytest.raises(StampError, match="answers another request"),
    ):
        ask_stamp(url, IMPRINT)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "file:///etc/passwd", "http://127.0.0.1:1/"])
def test_addresses_that_serve_nobody_are_told(url: str) -> None:
    with pytest.raises(StampError, match=r"not an http|refused"):
        ask_stamp(url, IMPRINT)
