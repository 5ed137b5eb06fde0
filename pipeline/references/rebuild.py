"""Rebuilds an index beside its readers and its writer: holes closed, lists trained or extended.

The next generation is written next to the present one and takes its place in one atomic step, so a
killed rebuild changes nothing. It takes as much disk again while it runs. In the background:
`rebuild_in_background(folder)`, or `python -m pipeline.references.rebuild FOLDER`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BusyError, PlatemarkError, SetupError
from pipeline.references.exact import nearest_rows
from pipeline.references.generation import Generation
from pipeline.references.inverted import BLOCK, InvertedLists, assign, train, write_lists
from pipeline.references.state import (
    BUILDING,
    ListsState,
    State,
    commit,
    damaged,
    read_state,
    rebuild_lock,
    write_lock,
)
from pipeline.references.writing import settle, write_blocks
from pipeline.store import flush

WANTED_RECALL = 0.99
_RETRAIN_AT = 2
"""Growth since training at which centroids are trained anew; below, the lists are extended."""
_TRAINED_ON_EACH = 40
"""Vectors a centroid is trained on; FAISS asks for 39 at least. More takes longer to train."""
_SAMPLE = 1_024
"""Vectors that recall is measured on."""
_EDITED = 0.6
"""Length of the noise that makes a stored vector an edited copy's: a cosine of about 0.86."""
_ATTEMPTS = 3
_LAST_STEP = 60.0
"""Seconds that a finished rebuild waits for a writer."""


def rebuild(folder: Path, threads: int | None = None) -> None:
    """Write the index anew, whether or not it is stale, on `threads` processors (default: half).

    Additions go on meanwhile and are carried over. Lists: about 4·√n of them, n the number of
    vectors; as many are searched as give recall@1 of 0.99 (the lower end of its 95 % interval)
    against exact on 1,024 perturbed vectors. Raises BusyError when another rebuild is under way or
    removals overtake this one, SetupError when files are damaged.
    """
    import faiss

    faiss.omp_set_num_threads(threads or max(1, (os.cpu_count() or 1) // 2))
    with rebuild_lock(folder):
        try:
            for _ in range(_ATTEMPTS):
                if _rebuilt(folder):
                    return
        except OSError as error:
            (folder / BUILDING).unlink(missing_ok=True)
            raise SetupError(
                f"the index in {folder} cannot be rebuilt: {error.strerror}; it is as before. A "
                f"rebuild takes as much disk again as the index"
            ) from error
    raise BusyError(
        f"references were removed from the index in {folder} while it was rebuilt; "
        f"run the rebuild again"
    )


def rebuild_in_background(folder: Path) -> subprocess.Popen[bytes]:
    """Start a rebuild as a process of low priority; it outlives this one.

    What goes wrong is in `rebuild.log` in the folder, and the index stays `stale`.
    """
    with (folder / "rebuild.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.references.rebuild", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _rebuilt(folder: Path) -> bool:
    """Whether a new generation was committed: not when a removal came in between."""
    building = folder / BUILDING
    with write_lock(folder, _LAST_STEP):
        old = settle(folder)
        live = np.flatnonzero(old.live())
        if len(live) <= old.state.exact_up_to:
            _commit(old, live, None, old)
            return True
        # Made under the lock and written through this handle: a removal can take its name away.
        file = building.open("wb")
    with file:
        order, lists = _write(old, live, building, file)
    with write_lock(folder, _LAST_STEP):
        now = settle(folder)
        if lists is None or now.state.removals != old.state.removals:
            building.unlink(missing_ok=True)
            return False
        _commit(old, live[order], lists, now)
    return True


def _write(
    old: Generation, live: NDArray[np.int64], building: Path, file: IO[bytes]
) -> tuple[NDArray[np.int64], ListsState | None]:
    """Lists of the live rows: their order, and what was measured; None when a removal came."""
    trained_on, centroids = _centroids(old, live)
    assigned = _assigned(old, live, centroids)

    def gather(numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        vectors = old.gather(live[numbers])
        # A removal may take a vector at any time, and then this rebuild is void.
        if not np.isfinite(vectors).all() and read_state(old.folder) == old.state:
            raise damaged(old.folder, "a vector is not a number")
        return vectors

    order, centroids_at = write_lists(file, centroids, assigned, gather)
    file.flush()
    os.fsync(file.fileno())
    try:
        nprobe, recall = _tuned(InvertedLists(building))
    # FAISS's error for a file that is no longer there.
    except (RuntimeError, FileNotFoundError):
        if building.exists():
            raise
        return order, None
    return order, ListsState(len(live), trained_on, nprobe, recall, centroids_at)


def _centroids(old: Generation, live: NDArray[np.int64]) -> tuple[int, NDArray[np.float32]]:
    lists = old.state.lists
    if old.lists and lists and len(live) <= _RETRAIN_AT * lists.trained_on:
        return lists.trained_on, old.lists.centroids()
    count = max(1, min(int(4 * len(live) ** 0.5), len(live) // _TRAINED_ON_EACH))
    wanted = min(len(live), count * _TRAINED_ON_EACH)
    chosen = np.random.default_rng(0).choice(live, wanted, replace=False)
    sample = old.gather(np.sort(chosen))
    return len(live), train(sample[np.isfinite(sample).all(axis=1)], count)


def _assigned(
    old: Generation, live: NDArray[np.int64], centroids: NDArray[np.float32]
) -> NDArray[np.int64]:
    """The list of each live row; rows keep theirs while the centroids are the same."""
    kept = np.zeros(0, np.int64)
    if old.lists and np.array_equal(old.lists.centroids(), centroids):
        kept = old.lists.list_of(live[live < old.listed])
    rest = live[len(kept) :]
    parts = [
        assign(np.nan_to_num(old.gather(rest[start : start + BLOCK])), centroids)
        for start in range(0, len(rest), BLOCK)
    ]
    return np.concatenate([kept, *parts])


def _tuned(lists: InvertedLists) -> tuple[int, float]:
    """The lists to search, and the recall@1 that it gives."""
    random = np.random.default_rng(1)
    chosen = random.choice(lists.rows, min(_SAMPLE, lists.rows), replace=False)
    queries = lists.gather(chosen)
    noise = random.standard_normal(queries.shape, np.float32)
    queries = queries + noise * np.float32(_EDITED / queries.shape[1] ** 0.5)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    everything = np.zeros(lists.rows, np.int64)
    exact = nearest_rows(queries, lists.blocks(), everything, 1)[:, 0]
    best = (lists.gather(exact) * queries).sum(axis=1)
    nprobe, count = 1, len(lists.starts) - 1
    while True:
        found = lists.search(queries, 1, nprobe)[0][:, 0]
        # Equal vectors are equally right.
        near = (lists.gather(np.maximum(found, 0)) * queries).sum(axis=1)
        recall = float(((found >= 0) & (near >= best - 1e-6)).mean())
        if _lower_end(recall, len(queries)) >= WANTED_RECALL or nprobe == count:
            return nprobe, recall
        nprobe = min(2 * nprobe, count)


def _lower_end(share: float, count: int) -> float:
    """The lower end of the 95 % interval of a share of `count` (Wilson 1927), one-sided."""
    z = 1.645
    middle = share + z * z / (2 * count)
    spread = z * ((share * (1 - share) + z * z / (4 * count)) / count) ** 0.5
    return float((middle - spread) / (1 + z * z / count))


def _commit(
    old: Generation, rows: NDArray[np.int64], lists: ListsState | None, now: Generation
) -> None:
    """Make a generation of `rows` of `old`, in lists or flat, and what `now` has beyond `old`."""
    folder = now.folder
    state: State = replace(
        now.state,
        generation=now.state.generation + 1,
        rows=len(rows) + now.state.rows - old.state.rows,
        lists=lists,
    )
    added = np.arange(old.state.rows, now.state.rows)
    with state.file(folder, "ids").open("wb") as file:
        write_blocks(file, [old.ids[rows], now.ids[added]])
    with state.file(folder, "vectors").open("wb") as file:
        write_blocks(file, _vectors(now, added if lists else rows))
    if lists:
        centroids = InvertedLists(folder / BUILDING).centroids()
        with state.file(folder, "assigned").open("wb") as file:
            write_blocks(file, [assign(now.gather(added), centroids)])
        (folder / BUILDING).rename(state.file(folder, "faiss"))
    flush(folder)
    commit(folder, state)
    settle(folder)


def _vectors(generation: Generation, rows: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(rows), BLOCK):
        vectors = generation.gather(rows[start : start + BLOCK])
        if not np.isfinite(vectors).all():
            raise damaged(generation.folder, "a vector is not a number")
        yield vectors


def main(arguments: list[str]) -> int:
    """The command: rebuild one folder, at low priority."""
    os.nice(10)
    try:
        rebuild(Path(arguments[0]))
    except PlatemarkError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
