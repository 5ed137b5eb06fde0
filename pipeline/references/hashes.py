"""The PDQ hashes of a library: one file of records that is appended to, and searched exactly.

A record that a killed writer left half-written is not there; records are found by the works' ids.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.store import write_file

RECORD = np.dtype([("id", "<i8"), ("hash", "<u8", (4,)), ("quality", "<i8")])
"""A work's id, its 256 bits (most significant first) and their quality 0..100."""

Records = NDArray[Any]
"""RECORD [M]."""

_BLOCK = 65_536
"""Hashes compared at a time: 64 queries against them take 100 MB."""


def read_hashes(path: Path) -> Records:
    """All records of a file, none where there is no file; the last one of an id counts."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return np.zeros(0, RECORD)
    records = np.frombuffer(data, RECORD, len(data) // RECORD.itemsize)
    # From the end, so that of records of one id the last is the first met.
    _, last = np.unique(records["id"][::-1], return_index=True)
    return records[len(records) - 1 - last]


def append_hashes(path: Path, records: Records) -> None:
    """Adds records, flushed to the disk. One writer at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        whole = file.tell() // RECORD.itemsize * RECORD.itemsize
        file.truncate(whole)
        file.write(records.tobytes())
        file.flush()
        os.fsync(file.fileno())


def keep_hashes(path: Path, ids: NDArray[np.int64]) -> None:
    """Rewrites the file without all other records, if there are any. One writer at a time."""
    records = read_hashes(path)
    kept = records[np.isin(records["id"], ids)]
    if path.exists() and len(kept) * RECORD.itemsize != path.stat().st_size:
        write_file(path, kept.tobytes())


def nearest(
    queries: NDArray[np.uint64], hashes: NDArray[np.uint64], top: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hamming distances 0..256 and rows, int64 [Q, min(top, M)], of the nearest of [M, 4].

    Nearest first; equal distances come by row. Exact.
    """
    # Distance and row in one number, so that ranking it ranks by distance, then by row.
    best = np.zeros((len(queries), 0), np.int64)
    for start in range(0, len(hashes), _BLOCK):
        block = hashes[start : start + _BLOCK]
        distances = np.zeros((len(queries), len(block)), np.uint16)
        for word in range(4):
            distances += np.bitwise_count(queries[:, word, None] ^ block[None, :, word])
        rows = np.arange(len(block))
        if best.shape[1] == top:
            # Once there are enough, few are near enough to be ranked.
            rows = np.flatnonzero((distances <= (best[:, -1:] >> 32)).any(axis=0))
        found = (distances[:, rows].astype(np.int64) << 32) | (start + rows)
        if top < found.shape[1]:
            found = np.partition(found, top - 1, axis=1)[:, :top]
        best = np.sort(np.concatenate([best, found], axis=1), axis=1)[:, :top]
    return best >> 32, best & 0xFFFFFFFF
