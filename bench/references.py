"""Searches a library of 1,000,000 references beside FAISS. One command: bench/references.py

Vectors are synthetic, in clusters as embeddings are; queries are stored vectors with noise. Ours
and FAISS take turns on the same file with as many lists; exact is a plain product over all vectors.
Exit code 1 when a search takes more than twice FAISS's time, recall@1 is below 0.99, or adding
10,000 made a rebuild. Takes 2 times the vectors' size on disk while it builds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.references.index import VectorIndex
from pipeline.references.rebuild import rebuild
from pipeline.references.state import read_state

MODEL = "synthetic"
DIMENSION = 512
CENTRES = 2_000
CHUNK = 10_000
BATCH = 64
BATCHES = 24
TOP = 5


def main() -> int:
    """Builds, searches, adds and removes; prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="a multiple of 10,000")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for the build")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "index"
        line("references", f"{options.count:,} × {DIMENSION}")
        build(folder, options.count, options.threads)
        queries = edited(options.count)
        truth = nearest(queries, options.count)
        return 1 if in_process(search, folder, options.count, queries, truth)[0] else 0


def vectors(number: int) -> NDArray[np.float32]:
    """The `number`th chunk of references, the same each time, float32 [CHUNK, D]."""
    centres = np.random.default_rng(0).standard_normal((CENTRES, DIMENSION), np.float32)
    random = np.random.default_rng([1, number])
    near = centres[random.integers(0, CENTRES, CHUNK)]
    return unit(near + random.standard_normal((CHUNK, DIMENSION), np.float32))


def edited(count: int) -> NDArray[np.float32]:
    """Queries: references with noise of lengths 0.2 to 0.8 (cosines 0.98 to 0.78)."""
    random = np.random.default_rng(2)
    wanted = BATCH * BATCHES
    chosen = np.sort(random.choice(count, wanted, replace=False))
    rows = [vectors(number)[chosen[chosen // CHUNK == number] % CHUNK] for number in chunks(count)]
    noise = random.standard_normal((wanted, DIMENSION), np.float32) / DIMENSION**0.5
    return unit(np.concatenate(rows) + noise * random.uniform(0.2, 0.8, (wanted, 1)))


def unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Rows of length 1."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / lengths, np.float32)


def chunks(count: int) -> Iterator[int]:
    """Numbers of the chunks of a library."""
    return iter(range(count // CHUNK))


def nearest(queries: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """The largest cosine of each query over all references, by a plain product."""
    import torch

    best = torch.full((len(queries),), -torch.inf)
    begun = time.perf_counter()
    spent = 0.0
    for number in chunks(count):
        rows = torch.from_numpy(vectors(number))
        begun = time.perf_counter()
        best = torch.maximum(best, (torch.from_numpy(queries) @ rows.T).amax(1))
        spent += time.perf_counter() - begun
    line("exact, plain product", f"{1000 * spent / BATCHES:,.0f} ms a batch of {BATCH}")
    return np.asarray(best.numpy())


def build(folder: Path, count: int, threads: int) -> None:
    """Adds everything in chunks, then trains and writes the lists."""
    index = VectorIndex.create(folder, DIMENSION, MODEL, exact_up_to=min(200_000, count // 2))
    times = []
    for number in chunks(count):
        rows = vectors(number)
        begun = time.perf_counter()
        index.add(rows, np.arange(number * CHUNK, (number + 1) * CHUNK))
        times.append(time.perf_counter() - begun)
    worst = max(times)
    line(f"add {CHUNK:,}, nothing built", f"{statistics.median(times):.2f} s, worst {worst:.2f} s")
    del index
    begun = time.perf_counter()
    _, anonymous = in_process(rebuild, folder, threads)
    took = time.perf_counter() - begun
    line(f"build, {threads} threads", f"{took:.0f} s, {anonymous / 1e9:.2f} GB anonymous at most")
    state = read_state(folder)
    if not state.lists:
        raise SystemExit("no lists were built")
    files = sum(path.stat().st_size for path in folder.iterdir())
    rate = files / (4 * DIMENSION * count)
    line("on disk", f"{files / 1e9:.2f} GB, {rate:.3f} × the vectors")
    line("lists searched", f"{state.lists.nprobe}, recall@1 by the index {state.lists.recall:.4f}")


def search(
    folder: Path, count: int, queries: NDArray[np.float32], truth: NDArray[np.float32]
) -> bool:
    """Opens and searches as a check does; returns whether a target was missed."""
    import faiss
    import torch

    torch.randn(64, 64) @ torch.randn(64, 64)
    memory("before opening")
    begun = time.perf_counter()
    index = VectorIndex.open(folder, MODEL)
    line("open", f"{1000 * (time.perf_counter() - begun):.0f} ms")
    memory("opened")
    cosines = np.concatenate([index.search(batch, TOP)[0] for batch in batches(queries)])
    memory(f"after {len(queries):,} queries")
    recall = float((cosines[:, 0] >= truth - 1e-5).mean())
    line("recall@1 against exact", f"{recall:.4f} of {len(queries):,} queries")

    state = read_state(folder)
    if not state.lists:
        raise SystemExit("no lists were built")
    path = str(state.file(folder, "faiss"))
    bare: dict[str, Any] = {
        "FAISS, mapped": faiss.read_index(path, faiss.IO_FLAG_MMAP),
        "FAISS, mapped, no prefetch": faiss.read_index(path, faiss.IO_FLAG_MMAP),
        "FAISS, in memory": faiss.read_index(path),
    }
    lists: Any = faiss.downcast_InvertedLists(bare["FAISS, mapped, no prefetch"].invlists)
    lists.prefetch_nthread = 0
    for each in bare.values():
        each.nprobe = state.lists.nprobe
    ways: dict[str, Callable[[NDArray[np.float32]], Any]] = {
        "ours": lambda batch: index.search(batch, TOP),
        **{name: partial(one.search, k=TOP) for name, one in bare.items()},
    }
    ratio = compare(f"{count:,}", ways, queries)

    late = vectors(count // CHUNK)
    begun = time.perf_counter()
    index.add(late, np.arange(count, count + CHUNK))
    line(f"add {CHUNK:,}", f"{time.perf_counter() - begun:.2f} s")
    rebuilt = read_state(folder).generation != state.generation
    line("rebuild made, or due", f"{rebuilt}, {index.stale or 'no'}")
    found = np.concatenate([index.search(batch, 1)[1] for batch in batches(late[:640])])
    line("found of those added", f"{(found[:, 0] == np.arange(count, count + 640)).mean():.4f}")
    grown = compare(f"{count + CHUNK:,}", ways, queries)

    gone = np.random.default_rng(3).choice(count, 100, replace=False)
    begun = time.perf_counter()
    index.remove(gone)
    line("remove 100", f"{time.perf_counter() - begun:.2f} s")
    missed = recall < 0.99 or max(ratio, grown) > 2 or rebuilt
    line("targets", "missed" if missed else "reached")
    return missed


def batches(queries: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Queries in batches."""
    return (queries[start : start + BATCH] for start in range(0, len(queries), BATCH))


def compare(
    size: str, ways: dict[str, Callable[[NDArray[np.float32]], Any]], queries: NDArray[np.float32]
) -> float:
    """Lets all take turns at each batch, prints medians; returns ours over the fastest other."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number, batch in enumerate(batches(queries)):
        # Each begins in its turn: the first has the vectors of a batch fetched for the others.
        first = number % len(ways)
        for name in [*list(ways)[first:], *list(ways)[:first]]:
            begun = time.perf_counter()
            ways[name](batch)
            times[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(each) for name, each in times.items()}
    for name, median in medians.items():
        ratio = f"ours is {medians['ours'] / median:.2f} ×" if name != "ours" else ""
        line(f"{size}: {name}", f"{1000 * median:6.1f} ms a batch of {BATCH}  {ratio}")
    return medians["ours"] / min(median for name, median in medians.items() if name != "ours")


def memory(when: str) -> None:
    """Prints this process's resident memory."""
    anonymous, mapped = resident(os.getpid())
    line(f"memory, {when}", f"{anonymous / 1e6:,.0f} MB anonymous, {mapped / 1e6:,.0f} MB of files")


def resident(process: int) -> tuple[int, int]:
    """Resident bytes of a process: anonymous, and of mapped files (shared, given back at need)."""
    fields = dict(
        row.split(":", 1) for row in Path(f"/proc/{process}/status").read_text().splitlines()
    )
    return tuple(1024 * int(fields[name].split()[0]) for name in ("RssAnon", "RssFile"))  # type: ignore[return-value]


def in_process(work: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
    """Runs in a process of its own; returns the result and its most anonymous memory, bytes."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        worker = multiprocessing.active_children()[0].pid
        result = pool.apply_async(work, arguments)
        most = 0
        while not result.ready():
            most = max(most, resident(worker or 0)[0])
            result.wait(0.2)
        return result.get(), most


def line(name: str, value: str) -> None:
    """One row of the table."""
    print(f"{name:36} {value}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
