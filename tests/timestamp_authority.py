"""`openssl ts -reply` behind HTTP: a whole RFC 3161 authority on this machine, with bad days."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which
from typing import Any, Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM
CONFIG = """[tsa]
default_tsa = t
[t]
serial = {folder}/serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256, sha384, sha512
accuracy = secs:1
ordering = no
tsa_name = no
ess_cert_id_chain = no
ess_cert_id_alg = sha256
"""


class TimestampAuthority:
    """Its `url`, its root's PEM, and how it is today. `asked` counts its visitors."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.url, self.asked = folder, b"", "", 0
        self.mood: Literal["serves", "refuses", "talks nonsense"] = "serves"
        self.lock = threading.Lock()

    def reply(self, query: bytes) -> bytes:
        with self.lock:
            asked, given = self.folder / "query.tsq", self.folder / "reply.tsr"
            asked.write_bytes(query)
            subprocess.run(
                ["openssl", "ts", "-reply", "-config", self.folder / "tsa.cnf", "-section", "t",
                 "-queryfile", asked, "-inkey", self.folder / "key.pem",
                 "-signer", self.folder / "certificate.pem", "-chain", self.folder / "root.pem",
                 "-out", given],
                check=True, capture_output=True,
            )  # fmt: skip
            return given.read_bytes()


@contextmanager
def timestamp_authority(folder: Path) -> Iterator[TimestampAuthority]:
    """An authority that serves until the block ends; skips the test without openssl."""
    if which("openssl") is None:
        pytest.skip("needs openssl")
    authority = TimestampAuthority(folder)
    folder.mkdir(parents=True, exist_ok=True)
    authority.root = _issue(folder)
    (folder / "serial").write_text("01\n")
    (folder / "tsa.cnf").write_text(CONFIG.format(folder=folder))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            authority.asked += 1
            query = self.rfile.read(int(self.headers["Content-Length"]))
            if authority.mood == "refuses":
                self.send_error(503)
                return
            serves = authority.mood == "serves"
            body = authority.reply(query) if serves else b"good morning"
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    authority.url = f"http://127.0.0.1:{server.server_port}/"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield authority
    finally:
        server.shutdown()
        server.server_close()


def _issue(folder: Path) -> bytes:
    """A root and a stamping certificate under it; returns the root's PEM."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        for name in ("Stamp root", "Stamps")
    ]
    now = datetime.now(UTC)
    made = []
    for key, name, is_root in zip(keys, names, (True, False), strict=True):
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(names[0])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(not is_root, False, False, False, False, is_root, is_root,
                              False, False),
                critical=True,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()), False
            )
        )  # fmt: skip
        if not is_root:
            uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
            builder = builder.add_extension(uses, critical=True)
        made.append(builder.sign(keys[0], hashes.SHA256()).public_bytes(PEM))
    form = (PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(keys[1].private_bytes(*form))
    (folder / "root.pem").write_bytes(made[0])
    (folder / "certificate.pem").write_bytes(made[1])
    return made[0]
