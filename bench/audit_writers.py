"""Processes that write while audits run, for bench/audit.py: is a row lost, does anybody wait?"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "catalog")]

from catalog.audit import ask, ask_sql  # noqa: E402

BATCH = 64
ASKED = ("pass-rate-by-campaign", "review-queue", "failures")
RUN = "bench-writer"


def write_and_audit(folder: Path, writers: int, seconds: float) -> bool:
    """Lets `writers` processes commit batches for so long, asks meanwhile, prints what came of it.

    Returns whether every acknowledged row is there.
    """
    quiet = [_asked(folder, name) for name in ASKED]
    number = _rows(folder)
    command = [sys.executable, __file__, str(folder), str(seconds), str(number)]
    processes = [
        subprocess.Popen([*command, str(writer)], stdout=subprocess.PIPE, text=True)
        for writer in range(writers)
    ]
    waits: list[float] = []
    while any(process.poll() is None for process in processes):
        waits += [_asked(folder, name) for name in ASKED]
    told = [json.loads(process.communicate()[0] or "[]") for process in processes]
    commits = [wait for each in told for wait in each]
    found = _rows(folder) - number
    print(
        f"\n{writers} processes, {len(commits)} commits of {BATCH} images in {seconds:.0f} s: "
        f"{len(commits) * BATCH} acknowledged, {found} found\n"
        f"a commit took {statistics.median(commits):.2f} s, at worst {max(commits):.2f} s; "
        f"{len(waits)} audits meanwhile took {statistics.median(waits):.2f} s, at worst "
        f"{max(waits):.2f} s (without writers {statistics.median(quiet):.2f} s)"
    )
    failed = [process.returncode for process in processes if process.returncode]
    return not failed and found == len(commits) * BATCH


def _asked(folder: Path, name: str) -> float:
    begun = time.perf_counter()
    ask(folder, name)
    return time.perf_counter() - begun


def _rows(folder: Path) -> int:
    sql = f"SELECT count(*) AS rows FROM raw.images WHERE starts_with(run_id, '{RUN}')"
    found: int = ask_sql(folder, sql).table.to_pylist()[0]["rows"]
    return found


def write(folder: Path, seconds: float, earlier: int, writer: int) -> list[float]:
    """Commits batches of new images for so long; returns the seconds that each commit took.

    `earlier` images of such writers are there already: all have numbers of their own.
    """
    from catalog_samples import produced_of

    from catalog.lake import writing
    from catalog.write import commit_batch

    times: list[float] = []
    run = f"{RUN}-{earlier}-{writer}"
    first = 1_000_000_000 + 1_000_000 * writer + earlier
    with writing(folder) as lake:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            begin = first + len(times) * BATCH
            produced = [produced_of(number) for number in range(begin, begin + BATCH)]
            begun = time.perf_counter()
            if commit_batch(lake, run, f"b{len(times)}", produced):
                times.append(time.perf_counter() - begun)
    return times


if __name__ == "__main__":
    print(json.dumps(write(Path(sys.argv[1]), float(sys.argv[2]), *map(int, sys.argv[3:5]))))
