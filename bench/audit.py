"""Times every named question over a large catalog, beside plain Parquet and PostgreSQL.

One command: python -m bench.audit --images 10000000. It needs 1.5 GB of disk and about a minute for
each million images. `ask` is a whole audit as people wait for it (copy of the metadata, DuckDB with
its extensions, the question, the answer in memory), `query` the question alone on an open catalog,
`Parquet` the same SQL and views in a plain DuckDB over the same Parquet files, `PostgreSQL` some of
the questions over one wide, indexed table. All have two threads; times are medians, in turn. Exit
code 1 when an audit takes more than 2 s, or 1.3 times what plain Parquet takes and 0.1 s more, or
a row is lost.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.audit_parquet import plain_parquet  # noqa: E402
from bench.audit_postgres import Postgres, postgres_of  # noqa: E402
from bench.audit_writers import write_and_audit  # noqa: E402
from bench.large_catalog import build  # noqa: E402
from catalog.audit import Limits, ask, explain, isolated, questions  # noqa: E402

if TYPE_CHECKING:
    import duckdb

SECONDS = 2.0
RATIO = 1.3
NOTICED = 0.1
"""Seconds below which nobody notices a difference: of such the ratio is told, not judged."""
_LAKE_ONLY = ("snapshots",)


@dataclass(frozen=True)
class Timed:
    """One question's medians in seconds; `cpu` of a whole audit; None where it was not asked."""

    name: str
    rows: int
    ask: float
    cpu: float
    query: float
    parquet: float | None
    postgres: float | None

    @property
    def ratio(self) -> float | None:
        """The catalog's time over that of plain Parquet."""
        return self.query / self.parquet if self.parquet else None

    @property
    def misses(self) -> bool:
        """Whether a person waits longer than promised."""
        slower = self.query - (self.parquet or self.query) > NOTICED
        return self.ask > SECONDS or (slower and (self.ratio or 0) > RATIO)


def main() -> int:
    """Builds the catalog, asks everything, lets processes write meanwhile, prints tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="these questions")
    parser.add_argument("--postgres", type=int, help="images in PostgreSQL (0: leave it out)")
    parser.add_argument("--writers", type=int, default=4, help="processes that write (0: none)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long they write")
    parser.add_argument("--folder", type=Path, help="keeps the catalog here; one is used again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        catalog = folder / "catalog"
        if not catalog.exists():
            begun = time.perf_counter()
            build(catalog, options.images, whole=True)
            size = sum(path.stat().st_size for path in catalog.rglob("*") if path.is_file())
            print(f"built in {time.perf_counter() - begun:.0f} s, {size / 1e9:.1f} GB")
        else:
            with isolated(catalog, Limits()) as lake:
                counted = lake.execute("SELECT count(*) FROM images").fetchall()
            print(f"the catalog in {catalog} has {counted[0][0]:,} images")
        in_postgres = options.images if options.postgres is None else options.postgres
        with postgres_of(catalog, min(in_postgres, options.images)) as postgres:
            timed = compare(catalog, options, postgres)
        lost = bool(options.writers) and not write_and_audit(
            catalog, options.writers, options.seconds
        )
    missed = [one.name for one in timed if one.misses]
    print(
        f"\nmore than {SECONDS:g} s, or {RATIO} x Parquet and {NOTICED:g} s more: "
        f"{', '.join(missed) or 'none'}"
    )
    return 1 if missed or lost else 0


def compare(catalog: Path, options: argparse.Namespace, postgres: Postgres | None) -> list[Timed]:
    """Asks each question in all ways and prints its row."""
    limits = Limits()
    found = []
    print(
        f"\n{'question':30} {'rows':>6} {'ask s':>7} {'cpu s':>6} {'query s':>8} {'Parquet':>8} "
        f"{'ratio':>6} {'PostgreSQL':>11}"
    )
    with isolated(catalog, limits) as lake, plain_parquet(catalog, limits) as plain:
        for name, question in questions().items():
            if options.only and name not in options.only:
                continue
            given = arguments(options.images).get(name, {})
            sql = explain(catalog, name, given).sql
            values = {one.name: one.default for one in question.parameters} | dict(given)
            rows, asked, busy, queried, scanned, indexed = 0, [], [], [], [], []
            for _ in range(options.rounds):
                used, begun = sum(os.times()[:4]), time.perf_counter()
                rows = ask(catalog, name, given).table.num_rows
                asked.append(time.perf_counter() - begun)
                busy.append(sum(os.times()[:4]) - used)
                queried.append(seconds(lake, sql))
                if name not in _LAKE_ONLY:
                    scanned.append(seconds(plain, sql))
                if postgres and name in postgres.questions:
                    indexed.append(postgres.seconds(name, values))
            one = Timed(
                name,
                rows,
                statistics.median(asked),
                statistics.median(busy),
                statistics.median(queried),
                _median(scanned),
                _median(indexed),
            )
            found.append(one)
            print(
                f"{name:30} {rows:6} {one.ask:7.2f} {one.cpu:6.2f} {one.query:8.3f} "
                f"{_told(one.parquet, 8, 3)} {_told(one.ratio, 6, 2)} "
                f"{_told(one.postgres, 11, 3)}{'  *' if one.misses else ''}",
                flush=True,
            )
    return found


def arguments(images: int) -> Mapping[str, Mapping[str, str]]:
    """What the questions that need it are given: things from the middle of the catalog."""
    middle = f"SKU-{images // 8 + 1}"
    return {
        "why-blocked": {"asset": middle},
        "made-with-model": {"model": "diffusion"},
        "packs-contents": {"pack": f"pack-{images // 40_000}"},
        "assets-of-sku": {"sku": middle},
        "made-from": {"asset": f"SKU-{images // 2 // 20 * 5}"},
        "made-out-of": {"picture": "photo-77.jpg"},
        "verdict-history": {"asset": middle},
    }


def seconds(connection: duckdb.DuckDBPyConnection, sql: str) -> float:
    """How long one SELECT takes, its answer in memory."""
    begun = time.perf_counter()
    connection.execute(sql).to_arrow_table()
    return time.perf_counter() - begun


def _median(times: list[float]) -> float | None:
    return statistics.median(times) if times else None


def _told(value: float | None, width: int, digits: int) -> str:
    return f"{value:{width}.{digits}f}" if value is not None else f"{'–':>{width}}"


if __name__ == "__main__":
    sys.exit(main())
