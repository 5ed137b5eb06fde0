"""Signs the log: a checkpoint at the end of every run and at every export, kept in three places.

In the catalog, beside the key, and with witnesses: files and addresses that an attacker of this
machine does not reach.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from catalog.lake import Lake
from catalog.ledger_entries import leaves
from catalog.ledger_merkle import HASH_BYTES, Peaks, hashes_in
from catalog.ledger_notes import (
    LAST_FILE,
    Checkpoint,
    NoteError,
    Signer,
    notes_in,
    opened,
    signer_in,
)
from catalog.ledger_reads import read_patiently
from pipeline.errors import SetupError
from pipeline.store import write_file
from pipeline.timestamp_token import StampError
from pipeline.timestamps import ask_stamp, within

if TYPE_CHECKING:
    import duckdb

_WITNESS_SECONDS = 10.0


@dataclass(frozen=True)
class Signed:
    """A checkpoint as recorded. `fresh`: made now, not the last one again.

    `unreached` are the witnesses that did not take it, with the reason; `unstamped` is why the
    time-stamp authority gave no stamp, if it was asked.
    """

    size: int
    note: str
    fresh: bool
    unreached: tuple[str, ...] = ()
    unstamped: str = ""


@dataclass(frozen=True)
class _Log:
    """The log as it is to be signed: its tree, and the last checkpoint with its note, if any."""

    tree: Peaks
    last: Checkpoint | None
    note: str

    @property
    def is_signed(self) -> bool:
        return self.last is not None and self.last.size == self.tree.size


def write_checkpoint(
    lake: Lake,
    place: Path,
    occasion: str,
    witnesses: Sequence[str] = (),
    timestamp_url: str | None = None,
) -> Signed:
    """Signs the log as it is now; the last checkpoint again when nothing was appended since.

    `place` is the ledger's folder, `occasion` says why (`run …`, `export …`). `witnesses` are
    files, which it is appended to, or http(s) addresses, which get it by POST: one that cannot be
    reached is told, not raised, and gets it with the next checkpoint. `timestamp_url` is an
    authority (RFC 3161) that is asked to stamp the root first: what others append meanwhile gets
    the next checkpoint. If it gives none within some seconds, that is told, not raised. Raises
    SetupError when the key is unusable.
    """
    signer = signer_in(place)
    with _alone(place):
        kept = _kept(place, signer)
        stamped, unstamped = None, ""
        if timestamp_url:
            # In a transaction of its own: writers do not wait for an authority.
            log = lake.transact(lambda connection: _log(connection, signer, kept))
            if not log.is_signed:
                try:
                    stamped = log.tree, ask_stamp(timestamp_url, log.tree.root)
                except StampError as error:
                    unstamped = f"{timestamp_url}: {error}"
        made = lake.transact(
            lambda connection: _signed(connection, signer, occasion, kept, stamped)
        )
        write_file(place / LAST_FILE, made.note.encode())
    unreached = [f"{one}: {why}" for one in witnesses if (why := _told(one, made.note))]
    return Signed(made.size, made.note, made.fresh, tuple(unreached), unstamped)


def ready_to_sign(lake: Lake, place: Path) -> None:
    """Says before a run what would keep its checkpoint from being signed after it.

    Raises SetupError: the key is unusable, the folder not writable, the catalog an older one.
    """
    signer = signer_in(place)
    with _alone(place):
        kept = _kept(place, signer)
    last = read_patiently(lake, lambda connection: _last(connection, signer))
    _refuse_older(kept, last[1] if last else None)


def kept_beside_key(place: Path) -> dict[str, list[str]]:
    """The last checkpoint as kept in the ledger's folder, by where it is; none when it is missing.

    For `verify_ledger`. Raises SetupError when it cannot be read.
    """
    path = place / LAST_FILE
    try:
        return {str(path): notes_in(path.read_text("utf-8", "replace"))}
    except FileNotFoundError:
        return {str(path): []}
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}; verify as its owner") from None


def recorded(connection: duckdb.DuckDBPyConnection) -> list[tuple[int, bytes, str]]:
    """Size, peaks and note of every recorded checkpoint, as recorded, in their order."""
    return connection.execute(
        'SELECT "size", peaks, checkpoint FROM raw.ledger_checkpoints ORDER BY rowid'
    ).fetchall()


def peaks_of(size: int, data: bytes) -> Peaks | None:
    """The tree in short as recorded beside a checkpoint; None when it cannot be one."""
    if len(data) != HASH_BYTES * size.bit_count():
        return None
    return Peaks(size, tuple(hashes_in(data)))


def _log(
    connection: duckdb.DuckDBPyConnection,
    signer: Signer,
    kept: Checkpoint | None,
    size: int | None = None,
) -> _Log:
    """The log as it is, or as it was with its first `size` entries."""
    tree, last, note = _last(connection, signer) or (Peaks(), None, "")
    _refuse_older(kept, last)
    new = leaves(connection, tree.size)
    if size is not None:
        new = new[: max(0, size - tree.size)]
    return _Log(tree.grown([entry.leaf for entry in new]), last, note)


def _signed(
    connection: duckdb.DuckDBPyConnection,
    signer: Signer,
    occasion: str,
    kept: Checkpoint | None,
    stamped: tuple[Peaks, bytes] | None,
) -> Signed:
    log = _log(connection, signer, kept, stamped[0].size if stamped else None)
    if log.is_signed:
        return Signed(log.tree.size, log.note, fresh=False)
    made = Checkpoint(
        origin=signer.verifier.name,
        size=log.tree.size,
        root=log.tree.root,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        occasion=" ".join(occasion.split()) or "-",
        previous=log.last.digest if log.last else "",
        # Of this very tree, should the catalog have been put back meanwhile.
        stamp=stamped[1] if stamped and stamped[0] == log.tree else b"",
    )
    note = signer.sign(made)
    connection.execute(
        "INSERT INTO raw.ledger_checkpoints VALUES (?, ?, ?)",
        [log.tree.size, b"".join(log.tree.hashes), note],
    )
    return Signed(log.tree.size, note, fresh=True)


def _refuse_older(kept: Checkpoint | None, last: Checkpoint | None) -> None:
    if kept and (last is None or kept.size > last.size):
        raise SetupError(
            f"the catalog is older than its last checkpoint of {kept.time}: nothing was signed. "
            f"Put the newer catalog back; if that is lost, `platemark ledger verify` says what is "
            f"missing, and moving the ledger's {LAST_FILE} away accepts it"
        )


def _kept(place: Path, signer: Signer) -> Checkpoint | None:
    """The last checkpoint as kept beside the key; None when there is none of this key."""
    try:
        return opened((place / LAST_FILE).read_text("utf-8"), [signer.verifier])
    except (FileNotFoundError, UnicodeDecodeError, NoteError):
        return None


def _last(
    connection: duckdb.DuckDBPyConnection, signer: Signer
) -> tuple[Peaks, Checkpoint, str] | None:
    """The last checkpoint, to build upon: its tree, what it says, its note.

    One that does not hold is not built upon: the log is then hashed from its beginning, and
    verification tells the two apart.
    """
    # All rows: a result read halfway keeps SQLite's lock, and a run makes images from here on.
    rows = connection.execute(
        'SELECT "size", peaks, checkpoint FROM raw.ledger_checkpoints '
        'ORDER BY "size" DESC, rowid DESC LIMIT 1'
    ).fetchall()
    if not rows:
        return None
    ((size, data, note),) = rows
    peaks = peaks_of(size, data)
    try:
        said = opened(note, [signer.verifier])
    except NoteError:
        return None
    if peaks is None or (said.size, said.root) != (size, peaks.root):
        return None
    return peaks, said, note


def _told(witness: str, note: str) -> str | None:
    """Gives a witness the note; why it did not take it, else None."""
    try:
        if witness.startswith(("http://", "https://")):
            within(_WITNESS_SECONDS, lambda: _post(witness, note))
            return None
        path = Path(witness)
        before = path.read_text("utf-8", "replace") if path.is_file() else ""
        if before.endswith(note):
            return None
        # What a writer that was stopped has left there ends before an empty line.
        gap = "" if not before else "\n" if before.endswith("\n") else "\n\n"
        with path.open("a", encoding="utf-8") as stream:
            stream.write(gap + note)
            stream.flush()
            os.fsync(stream.fileno())
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(getattr(error, "strerror", None) or getattr(error, "reason", None) or error)
    return None


def _post(witness: str, note: str) -> None:
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    request = urllib.request.Request(witness, note.encode(), headers)
    with urllib.request.urlopen(request, timeout=_WITNESS_SECONDS) as answer:
        # Where a redirection leads nothing was posted: it is asked for as a page.
        if answer.url != request.full_url:
            raise ValueError(f"it has moved to {answer.url}: name that address")


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """One checkpoint at a time, so that two processes never sign one state twice."""
    try:
        with (place / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except PermissionError as error:
        raise SetupError(f"cannot write into {place}: {error.strerror}; check the folder") from None
