"""Checkpoints as text: the log's size and root, signed (C2SP signed-note and tlog-checkpoint).

The Ed25519 key is minted on first use. Who has the verifier key checks a checkpoint with this
file alone, without a catalog.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from pipeline.errors import SetupError

KEY_FILE, VERIFIER_FILE, LAST_FILE = "key.pem", "verifier.txt", "checkpoint.txt"
_ED25519 = b"\x01"
"""Signature type of a note's key (c2sp.org/signed-note)."""
_MARK = "— "
STAMP_MARK = "stamp "
"""What the line of the time stamp begins with."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says: `size` entries of the log `origin` have the root `root`.

    `time` (ISO 8601, UTC) and `occasion` say when and why it was signed, `previous` is the SHA-256
    of the checkpoint before it in base64 (empty for the first), so that none can be left out.
    `stamp` is a time stamp of the root, a TimeStampResp (DER, RFC 3161); empty when there is none.
    """

    origin: str
    size: int
    root: bytes
    time: str
    occasion: str
    previous: str
    stamp: bytes = b""

    @property
    def text(self) -> str:
        """The signed part of the note (c2sp.org/tlog-checkpoint), with extension lines."""
        root = base64.b64encode(self.root).decode()
        stamp = f"{STAMP_MARK}{base64.b64encode(self.stamp).decode()}\n" if self.stamp else ""
        return (
            f"{self.origin}\n{self.size}\n{root}\n"
            f"time {self.time}\noccasion {self.occasion}\nprevious {self.previous or '-'}\n{stamp}"
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the signed text in base64, by which the next checkpoint names it."""
        return base64.b64encode(hashlib.sha256(self.text.encode()).digest()).decode()


class NoteError(ValueError):
    """Why a note is no checkpoint of this log, in words."""


@dataclass(frozen=True)
class Verifier:
    """A public key and its name, which is the log's origin too."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The first four bytes of SHA-256(name, newline, type, key) (c2sp.org/signed-note)."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    @property
    def text(self) -> str:
        """`name+id+key`, the encoding of a verifier key in the Go checksum database."""
        key = base64.b64encode(_ED25519 + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{key}"

    def holds(self, statement: bytes, signature: bytes) -> bool:
        """Whether the key's owner signed this statement."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, statement)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True)
class Signer:
    """The log's private key."""

    verifier: Verifier
    key: Ed25519PrivateKey

    def sign_statement(self, statement: bytes) -> bytes:
        """The key's signature of anything but a checkpoint."""
        return self.key.sign(statement)

    def sign(self, checkpoint: Checkpoint) -> str:
        """The checkpoint as a signed note."""
        text = checkpoint.text
        signature = self.verifier.key_id + self.key.sign(text.encode())
        line = f"{_MARK}{self.verifier.name} {base64.b64encode(signature).decode()}\n"
        return f"{text}\n{line}"


def signer_in(place: Path) -> Signer:
    """The key in `place`, minted with 0600 in a 0700 folder when there is none.

    Raises SetupError when it cannot be written or is no Ed25519 key.
    """
    path = place / KEY_FILE
    try:
        if not path.exists():
            _mint(path)
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("not an Ed25519 key")
        verifier = _verifier_of(key)
        if not (place / VERIFIER_FILE).exists():
            _write(place / VERIFIER_FILE, f"{verifier.text}\n".encode(), 0o644)
    except (OSError, ValueError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SetupError(
            f"the ledger's key {path} is unusable: {reason}; restore it from a backup, or move "
            f"{place} away to mint another (checkpoints of the old key then need its verifier key)"
        ) from None
    return Signer(verifier, key)


def verifier_in(place: Path) -> Verifier | None:
    """The verifier key of the log whose key is in `place`, None when none was minted.

    Taken from the private key where there is one: that cannot be swapped for another unnoticed by
    the next run. Raises SetupError when it is damaged, or not for this user to read.
    """
    try:
        if (place / KEY_FILE).is_file():
            return signer_in(place).verifier
        return verifier_from_text((place / VERIFIER_FILE).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SetupError(
            f"the ledger's folder {place} cannot be read: {reason}; ask its owner for "
            f"{VERIFIER_FILE} and name the copy: --key FILE"
        ) from None


def verifier_from_text(text: str) -> Verifier:
    """A verifier key as `Verifier.text` gives it. Raises SetupError when it is none."""
    try:
        name, key_id, encoded = text.strip().split("+", 2)
        data = base64.b64decode(encoded, validate=True)
        verifier = Verifier(name, data[1:])
        if data[:1] != _ED25519 or len(data) != 33 or verifier.key_id.hex() != key_id:
            raise ValueError
    except ValueError:
        raise SetupError(
            f"{text.strip()[:60]!r} is no verifier key: it has the form name+id+key, as in the "
            f"ledger's {VERIFIER_FILE}"
        ) from None
    return verifier


def opened(note: str, verifiers: Sequence[Verifier]) -> Checkpoint:
    """The checkpoint of a note that one of `verifiers` signed. Raises NoteError otherwise.

    Signatures of unknown keys are ignored, as the specification has it: a witness adds its own.
    """
    head, separator, tail = note.rpartition("\n\n")
    text = head + "\n"
    lines = head.split("\n")
    if not separator or not tail.endswith("\n"):
        raise NoteError("it is no signed checkpoint")
    signed = [_signature(line) for line in tail.removesuffix("\n").split("\n")]
    for verifier in verifiers:
        for name, data in signed:
            if (name, data[:4]) != (verifier.name, verifier.key_id):
                continue
            try:
                Ed25519PublicKey.from_public_bytes(verifier.public).verify(data[4:], text.encode())
            except InvalidSignature:
                raise NoteError("its signature does not fit") from None
            if lines[0] != verifier.name:
                raise NoteError(f"it is of another log, {lines[0]}")
            return _checkpoint(lines)
    raise NoteError(f"it is not signed by {' or '.join(one.name for one in verifiers) or 'a key'}")


def notes_in(text: str) -> list[str]:
    """The notes of a file that holds one or several, one after the other.

    What has no signatures, as a note that was torn while it was written, comes as it is.
    """
    found: list[str] = []
    # Text and signatures of a note are parted by an empty line, and so are notes.
    for block in filter(None, (block.strip("\n") for block in text.split("\n\n"))):
        signed = all(line.startswith(_MARK) for line in block.split("\n"))
        if signed and found and not _is_signed(found[-1]):
            found[-1] += f"\n{block}\n"
        else:
            found.append(f"{block}\n")
    return found


def torn_from(fragment: str, notes: Iterable[str]) -> bool:
    """Whether a text is the beginning of one of `notes`: its writer was stopped."""
    # The last character may be torn too.
    begun = fragment.rstrip("\n\ufffd")
    return any(note.startswith(begun) for note in notes)


def _is_signed(note: str) -> bool:
    return f"\n\n{_MARK}" in note or note.startswith(_MARK)


def _signature(line: str) -> tuple[str, bytes]:
    name, _, encoded = line.removeprefix(_MARK).partition(" ")
    try:
        data = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        data = b""
    # Of several spellings of the same bytes one counts, so that no character can be changed.
    canonical = base64.b64encode(data).decode() == encoded
    if not line.startswith(_MARK) or len(data) < 5 or not canonical:
        raise NoteError("a line of its signatures is damaged")
    return name, data


def _checkpoint(lines: Sequence[str]) -> Checkpoint:
    try:
        origin, size, root, time, occasion, previous, *stamp = lines
        found = Checkpoint(
            origin,
            int(size),
            base64.b64decode(root, validate=True),
            time.removeprefix("time "),
            occasion.removeprefix("occasion "),
            previous.removeprefix("previous ").removeprefix("-"),
            base64.b64decode("".join(stamp).removeprefix(STAMP_MARK), validate=True),
        )
    except ValueError:
        raise NoteError("its lines are not those of a checkpoint") from None
    if found.text != "\n".join(lines) + "\n":
        raise NoteError("its lines are not those of a checkpoint")
    return found


def _mint(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    form = serialization.PrivateFormat.PKCS8
    data = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        _write(part, data, 0o600)
        # Of several processes that mint at once, one wins.
        with suppress(FileExistsError):
            os.link(part, path)
    finally:
        part.unlink(missing_ok=True)


def _verifier_of(key: Ed25519PrivateKey) -> Verifier:
    public = key.public_key().public_bytes_raw()
    return Verifier(f"platemark/{hashlib.sha256(public).hexdigest()[:16]}", public)


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
