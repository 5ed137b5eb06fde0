"""Times every named question over a catalog of 10,000 images. One command: python bench/audit.py

Exit code 1 when the median of a question is a second or more. Each time is a whole audit as people
wait for it: copy of the metadata, DuckDB with its extensions, the question, the answer in memory.
`cpu s` tells a busy machine from a slow question.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "catalog")]

from catalog_samples import begin, failed_of, produced_of  # noqa: E402

from catalog.audit import ask, questions  # noqa: E402
from catalog.lake import writing  # noqa: E402
from catalog.write import commit_batch, finish_run, register_model  # noqa: E402
from pipeline.records import Score  # noqa: E402

ARGUMENTS = {
    "why-blocked": {"asset": "MUG-00004"},
    "made-with-model": {"model": "starter"},
    "packs-contents": {"pack": "none"},
    "assets-of-sku": {"sku": "MUG-00004"},
    "made-from": {"asset": "MUG-00004"},
    "made-out-of": {"picture": "MUG-00004"},
    "verdict-history": {"asset": "MUG-00004"},
}


def main() -> int:
    """Builds the catalog, asks everything, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=64, help="images a commit")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        catalog = Path(folder) / "catalog"
        build(catalog, options.images, options.batch)
        print(f"\n{'question':32} {'rows':>7} {'median s':>9} {'worst s':>8} {'cpu s':>7}")
        slow = [name for name in questions() if measure(catalog, name, options.rounds) >= 1]
    print(f"\na second or more: {', '.join(slow) or 'none'}")
    return 1 if slow else 0


def build(catalog: Path, images: int, batch: int) -> None:
    """Commits in batches as a flow does, with one image in a hundred failed."""
    times = []
    with writing(catalog) as lake:
        begin(lake)
        register_model(lake, name="hub/other", revision="r1", licence="openrail", source="hub")
        for first in range(0, images, batch):
            produced = []
            for number in range(first, min(first + batch, images)):
                one = failed_of(number) if number % 100 == 99 else produced_of(number)
                near = Score("duplicates", "near", number % 256, {"detector": "pdq"})
                produced.append(replace(one, scores=(*one.scores, near)))
            begun = time.perf_counter()
            commit_batch(lake, "run-1", f"b{first}", produced)
            times.append((time.perf_counter() - begun) * 1000)
        finish_run(lake, "run-1", "completed")
    size = sum(path.stat().st_size for path in catalog.rglob("*") if path.is_file())
    print(
        f"{images} images, {len(times)} commits of {batch}: "
        f"median {statistics.median(times):.0f} ms, worst {max(times):.0f} ms, "
        f"{statistics.median(times) / batch:.2f} ms an image, {size / 1e6:.0f} MB"
    )


def measure(catalog: Path, name: str, rounds: int) -> float:
    """Prints one question's row; returns the median in seconds."""
    times, busy, rows = [], [], 0
    for _ in range(rounds):
        begun, used = time.perf_counter(), sum(os.times()[:4])
        rows = ask(catalog, name, ARGUMENTS.get(name)).table.num_rows
        times.append(time.perf_counter() - begun)
        busy.append(sum(os.times()[:4]) - used)
    median = statistics.median(times)
    cpu = statistics.median(busy)
    print(f"{name:32} {rows:7} {median:9.3f} {max(times):8.3f} {cpu:7.2f}")
    return median


if __name__ == "__main__":
    sys.exit(main())
