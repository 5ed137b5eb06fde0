"""Hashes the files of the store again: assets, quarantine, inputs lie under their SHA-256.

Part of `platemark ledger verify`; several files at once, each read once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from catalog.lake import Lake, reading
from catalog.ledger import erased_files
from catalog.ledger_compare import Finding
from catalog.ledger_entries import tables_of_files
from catalog.ledger_notes import Verifier
from pipeline.settings import Settings
from pipeline.store import path_of

T = TypeVar("T")

_AHEAD = 64


def verify_files(
    lake: Lake,
    settings: Settings,
    verifiers: Sequence[Verifier],
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[int, list[Finding]]:
    """(Files read, findings): missing ones, altered ones, ones that the catalog does not know.

    Files of a commit whose run was stopped before they were placed lie in staging, and count. An
    erased file is to be gone.
    """
    known = _recorded(lake)
    erased = erased_files(lake.connection, verifiers)
    findings: list[Finding] = []
    jobs = [(url, *known[url]) for url in sorted(known)]
    done = 0
    for (url, sha256, request_id), found in _each(lambda job: _digest(settings, job[0]), jobs):
        done += 1
        progress(done)
        key = f"{url} (image {request_id[:12]})"
        if found is None:
            if sha256 not in erased:
                findings.append(Finding("removed", "file", key))
        elif sha256 in erased:
            findings.append(Finding("added", "file", key, "it was erased, and is there again"))
        elif found != sha256:
            findings.append(Finding("changed", "file", key, f"its SHA-256 is {found}"))
    inputs = [path for path in settings.inputs.rglob("*") if path.is_file()]
    for path, found in _each(_digest_of, inputs):
        done += 1
        progress(done)
        if found is not None and found != path.stem:
            findings.append(Finding("changed", "file", f"inputs/{path.name}", f"is {found}"))
    if list(_unknown(settings, set(known))):
        # Again: what a run or an export placed meanwhile is known by now.
        with reading(settings.catalog) as later:
            findings += _unknown(settings, {*known, *_recorded(later)})
    return done, findings


def _recorded(lake: Lake) -> dict[str, tuple[str, str]]:
    """SHA-256 and request by url, from every table that has them: no attempt's file is unknown."""
    found: dict[str, tuple[str, str]] = {}
    for table in tables_of_files(lake.connection):
        rows = lake.read(
            f"SELECT DISTINCT url, sha256, request_id FROM raw.{table} WHERE url IS NOT NULL"
        )
        columns_read = (rows[name].to_pylist() for name in ("url", "sha256", "request_id"))
        found |= {
            url: (sha256, request) for url, sha256, request in zip(*columns_read, strict=True)
        }
    return found


def _unknown(settings: Settings, urls: set[str]) -> Iterator[Finding]:
    for folder, base in (("assets", settings.assets), ("quarantine", settings.quarantine)):
        for path in sorted(base.rglob("*")):
            url = f"{folder}/{path.relative_to(base).as_posix()}"
            if path.is_file() and path.suffix != ".part" and url not in urls:
                yield Finding("added", "file", url, "the catalog does not know it")


def _digest(settings: Settings, url: str) -> str | None:
    folder, _, name = url.partition("/")
    if folder not in ("assets", "quarantine") or ".." in name:
        return None
    found = _digest_of(path_of(settings, url))
    return found or _digest_of(settings.root / "staging" / folder / Path(name).name)


def _digest_of(path: Path) -> str | None:
    """SHA-256 in hex, None when the file is not there or cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


def _each(work: Callable[[T], str | None], jobs: Iterable[T]) -> Iterator[tuple[T, str | None]]:
    """Each job with its result, in order, a bounded number ahead on all cores."""
    waiting = iter(jobs)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        while block := list(islice(waiting, _AHEAD)):
            yield from zip(block, pool.map(work, block), strict=True)
