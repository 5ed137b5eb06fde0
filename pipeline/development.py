"""A development certificate authority, minted on first use, so that signing works at once.

Its certificates say what they are, and every face repeats it. Used by pipeline/keys.py.
"""

from __future__ import annotations

import os
import secrets
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pipeline.certificates import CLAIM_SIGNING, DEVELOPMENT_NAME, pem
from pipeline.errors import SetupError

CA_FILE, CHAIN_FILE, KEY_FILE = "ca.pem", "certificates.pem", "key.pem"
_YEARS = timedelta(days=3650)


def init_development_keys(folder: Path) -> bool:
    """Mint a development CA and leaf into `folder`; False when they are there already.

    All files appear at once, 0600 in a 0700 folder, so that of many processes one wins. The CA's
    key is not kept: nobody can issue another certificate under it.
    """
    if _complete(folder):
        return False
    fresh = folder.parent / f".{folder.name}-{secrets.token_hex(8)}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh.mkdir(mode=0o700)
        for name, content in _minted().items():
            _write_private(fresh / name, content)
        fresh.rename(folder)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if _complete(folder):
            return False
        raise SetupError(
            f"development keys cannot be put into {folder}: {error.strerror}; "
            f"remove what is there, or choose another workspace"
        ) from None
    return True


def _complete(folder: Path) -> bool:
    present = _present(folder)
    if 0 < len(present) < 3:
        # Another process may have put the whole folder there between two of the looks.
        present = _present(folder)
    if 0 < len(present) < 3:
        raise SetupError(
            f"{folder} holds only {', '.join(present)}; restore the missing files, or move the "
            f"folder away to mint new keys"
        )
    return bool(present)


def _present(folder: Path) -> list[str]:
    return [name for name in (CA_FILE, CHAIN_FILE, KEY_FILE) if (folder / name).is_file()]


def _minted() -> dict[str, bytes]:
    """A CA and a leaf under it, ten years each: an unstamped file turns Invalid when they end."""
    now = datetime.now(UTC)
    serial = secrets.token_hex(4)
    ca_key, leaf_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = _name(f"Platemark development root {serial}")
    ca = (
        _builder(ca_name, ca_name, ca_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    leaf = (
        _builder(_name(DEVELOPMENT_NAME), ca_name, leaf_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        # claimSigning alone reads as Invalid in verifiers that set no trust configuration.
        .add_extension(
            x509.ExtendedKeyUsage([CLAIM_SIGNING, ExtendedKeyUsageOID.EMAIL_PROTECTION]),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()),
            critical=False,
        )
        .sign(ca_key, hashes.SHA256())
    )
    key = leaf_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {CA_FILE: pem(ca), CHAIN_FILE: pem(leaf) + pem(ca), KEY_FILE: key}


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # Clocks of workers differ by minutes.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _YEARS)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Platemark development, not for release"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
