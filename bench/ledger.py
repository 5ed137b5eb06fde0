"""Measures the ledger: cost of an append, a whole verification, and 1,000 tamperings to find.

One command: python bench/ledger.py; a count of 0 leaves its part out. Exit code 1 when a target is
missed: append ≤ 2 % of a run, verification of 1,000,000 rows ≤ 30 s, every tampering found, no
alarm in 1,000 clean runs.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "catalog")]

from catalog_samples import produced_of  # noqa: E402

from bench.throughput import write_brief  # noqa: E402
from catalog.lake import Lake, reading, writing  # noqa: E402
from catalog.ledger import append_rows, append_table  # noqa: E402
from catalog.ledger_checkpoints import kept_beside_key, write_checkpoint  # noqa: E402
from catalog.ledger_files import verify_files  # noqa: E402
from catalog.ledger_notes import LAST_FILE, Signer, signer_in  # noqa: E402
from catalog.ledger_verify import verify_ledger  # noqa: E402
from catalog.rows import arrow, batch_tables, new_attempt  # noqa: E402
from catalog.upkeep import merge_small_files  # noqa: E402
from flows.production import open_production  # noqa: E402
from pipeline.plan import make_plan  # noqa: E402
from pipeline.settings import Settings  # noqa: E402


def main() -> int:
    """Runs all three, prints tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=40)
    parser.add_argument("--batch", type=int, default=64, help="images a commit")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--tamperings", type=int, default=1_000)
    parser.add_argument("--clean", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        share = seconds = 0.0
        if options.commits:
            share = append_cost(root / "append", options.commits, options.batch)
        if options.rows:
            seconds = whole_verification(root / "whole", options.rows)
        missed = alarms = 0
        if options.tamperings or options.clean:
            looks = options.tamperings, options.clean, options.seed
            missed, alarms = tamperings(root / "tamper", *looks)
    misses = [
        name
        for name, bad in (
            ("append > 2 %", share > 0.02),
            ("verification > 30 s", seconds > 30),
            (f"{missed} tamperings missed", missed),
            (f"{alarms} false alarms", alarms),
        )
        if bad
    ]
    print(f"\nmissed: {', '.join(misses) or 'nothing'}")
    return 1 if misses else 0


@dataclass(frozen=True)
class Run:
    """A batch of a run with the starter models: what it cost, and the rows that it committed."""

    cpu_seconds: float
    seconds: float
    tables: dict[str, Any]


def starter_run(root: Path, batch: int) -> Run:
    """Two batches, each generated, checked, signed and committed; the first one warms up."""
    root.mkdir()
    settings = Settings(workspace=root / "workspace", batch_size=batch)
    plan = make_plan(settings, write_brief(root, 2 * batch), "starter")
    with open_production(settings, plan) as production:
        for number in range(len(production.batches)):
            begun, used = time.perf_counter(), time.process_time()
            production.seal(number, production.generate(number))
            seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    with reading(settings.catalog) as lake:
        last = "WHERE attempt = (SELECT max(attempt) FROM raw.batches)"
        rows = {name: lake.rows(f"FROM raw.{name} {last}") for name in ("images", "manifests")}
        batches = lake.read(f"FROM raw.batches {last}")
    for row in rows["images"]:
        row["request_key"] = uuid.UUID(str(row["request_key"])).bytes
    tables = {name: arrow(name, found) for name, found in rows.items()}
    return Run(cpu, seconds, {**tables, "batches": batches})


def append_cost(root: Path, commits: int, batch: int) -> float:
    """The rows of a run's batch committed with and without the ledger in turn.

    Returns the difference as a share of the batch's processor time.
    """
    run = starter_run(root, batch)
    print(f"a run's batch of {batch} images: {run.cpu_seconds:.1f} s cpu, {run.seconds:.1f} s")
    times: dict[bool, list[float]] = {True: [], False: []}
    cpu: dict[bool, list[float]] = {True: [], False: []}
    with writing(root / "with") as with_ledger, writing(root / "without") as without:
        for _ in range(commits):
            for entered, lake in ((True, with_ledger), (False, without)):
                begun, used = time.perf_counter(), time.process_time()
                lake.transact(_insert(run.tables, entered))
                times[entered].append(time.perf_counter() - begun)
                cpu[entered].append(time.process_time() - used)
    print(f"\ncommits of {batch} images        median ms   cpu ms")
    for entered, name in ((False, "rows alone"), (True, "rows and entries")):
        wall, used = statistics.median(times[entered]), statistics.median(cpu[entered])
        print(f"{name:28} {wall * 1000:12.1f} {used * 1000:8.1f}")
    more = statistics.median(cpu[True]) - statistics.median(cpu[False])
    share = more / run.cpu_seconds
    print(f"{more * 1000:.1f} ms cpu more: {share:.2%} of the run's")
    return share


def _insert(tables: dict[str, Any], entered: bool) -> Callable[[Any], None]:
    def work(connection: Any) -> None:
        for name, table in tables.items():
            if entered:
                append_rows(connection, name, table)
            else:
                connection.register("incoming", table)
                connection.execute(f"INSERT INTO raw.{name} BY NAME SELECT * FROM incoming")
                connection.unregister("incoming")

    return work


def whole_verification(root: Path, rows: int) -> float:
    """Half of the rows are the images' own, wide ones, half their manifests."""
    with writing(root / "catalog") as lake:
        tables = batch_tables(
            "r", "b", new_attempt(), [produced_of(n) for n in range(64)], datetime.now(UTC)
        )
        for name in ("images", "manifests"):
            connection = lake.connection
            connection.register("incoming", tables[name])
            connection.execute(
                "CREATE OR REPLACE TEMP TABLE many AS SELECT incoming.* REPLACE "
                "(sha256(incoming.request_id || each.range) AS request_id) "
                f"FROM incoming, range({rows // 2 // len(tables[name]) + 1}) AS each "
                f"LIMIT {rows // 2}"
            )
            connection.unregister("incoming")
            lake.transact(partial(append_table, name=name, source="temp.many"))
        signer = signer_in(root / "ledger")
        write_checkpoint(lake, root / "ledger", "run")
    begun, used = time.perf_counter(), time.process_time()
    with reading(root / "catalog") as lake:
        answer = verify_ledger(lake, [signer.verifier])
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    print(f"\nverification of {answer.rows:,} rows: {seconds:.1f} s, {cpu:.1f} s cpu")
    if not answer.ok:
        print(f"  NOT intact: {answer.findings[0]}")
    return seconds


@dataclass(frozen=True)
class Tampering:
    """SQL made up from a random generator, or what is done to a file."""

    name: str
    harm: Callable[[random.Random], str] | str


ROW_TABLES = ("images", "manifests", "libraries")
TEXTS = {
    "images": ("prompt", "sku", "outcome", "policy_digest", "sha256", "asset_state", "url"),
    "manifests": ("label", "certificate", "asset_sha256", "request_id"),
    "libraries": ("library", "note", "library", "note"),
}


def _row(table: str) -> str:
    """A random row: by place among all, whatever their ids."""
    return (
        f"rowid = (SELECT rowid FROM raw.{table} ORDER BY rowid "
        f"LIMIT 1 OFFSET {{place}} % (SELECT count(*) FROM raw.{table})::BIGINT)"
    )


def _tamperings() -> list[Tampering]:
    found = [
        Tampering("entry changed", _entry_changed),
        Tampering("entry removed", partial(_some, "DELETE FROM raw.ledger_entries")),
        Tampering("entry added", partial(_doubled, "ledger_entries")),
        Tampering("entries swapped", partial(_swapped, "ledger_entries")),
        Tampering("checkpoint changed", _checkpoint_changed),
        Tampering("checkpoint removed", partial(_some, "DELETE FROM raw.ledger_checkpoints")),
        Tampering("checkpoint added", partial(_doubled, "ledger_checkpoints")),
        Tampering("checkpoints swapped", partial(_swapped, "ledger_checkpoints")),
        Tampering("kept checkpoint changed", "changed"),
        Tampering("kept checkpoint removed", "removed"),
        *(Tampering(f"file {harm}", harm) for harm in ("changed", "removed", "added")),
    ]
    for table in ROW_TABLES:
        found += [
            Tampering("row changed", partial(_changed, table)),
            Tampering("row removed", partial(_some, f"DELETE FROM raw.{table}")),
            Tampering("row added", partial(_doubled, table)),
            Tampering("rows swapped", partial(_swapped, table)),
        ]
    return found


def _some(statement: str, rng: random.Random) -> str:
    table = statement.partition("raw.")[2].split(" ")[0]
    return f"{statement} WHERE {_row(table).format(place=rng.randrange(10**6))}"


def _changed(table: str, rng: random.Random) -> str:
    column = rng.choice(TEXTS[table])
    value = f"'\"{rng.getrandbits(64):x}\"'"
    return _some(f"UPDATE raw.{table} SET {column} = {value}", rng)


def _entry_changed(rng: random.Random) -> str:
    change = rng.choice(
        (
            "entered_at = entered_at + INTERVAL 1 MICROSECOND",
            "kind = 'found'",
            "table_name = 'reviews'",
            "commit_id = commit_id || '0'",
            "row_count = row_count + 1",
            "root = unhex(sha256(root))",
            "row_hashes = row_hashes || unhex(sha256(root))",
            "row_keys = row_keys || '.'",
        )
    )
    return _some(f"UPDATE raw.ledger_entries SET {change}", rng)


def _checkpoint_changed(rng: random.Random) -> str:
    change = rng.choice(
        (
            "checkpoint = replace(checkpoint, 'time 2', 'time 1')",
            "checkpoint = replace(checkpoint, 'occasion ', 'occasion a')",
            "checkpoint = left(checkpoint, length(checkpoint) - 6)",
            'checkpoint = replace(checkpoint, "size" || chr(10), ("size" + 1) || chr(10))',
            '"size" = "size" + 1',
            "peaks = peaks || peaks",
        )
    )
    return _some(f"UPDATE raw.ledger_checkpoints SET {change}", rng)


def _doubled(table: str, rng: random.Random) -> str:
    where = _row(table).format(place=rng.randrange(10**6))
    return f"INSERT INTO raw.{table} SELECT * FROM raw.{table} WHERE {where}"


def _swapped(table: str, rng: random.Random) -> str:
    """Two neighbours change places: the later one is taken out and put before the other."""
    place = rng.randrange(10**6)
    return (
        "CREATE OR REPLACE TEMP TABLE all_rows AS "
        f"SELECT row_number() OVER (ORDER BY rowid) AS nth, * FROM raw.{table}; "
        f"DELETE FROM raw.{table}; "
        f"INSERT INTO raw.{table} SELECT * EXCLUDE (nth) FROM temp.all_rows "
        f"ORDER BY CASE WHEN nth = 1 + {place} % (SELECT count(*) - 1 FROM temp.all_rows)::BIGINT "
        f"THEN nth + 1.5 ELSE nth END"
    )


def tamperings(root: Path, wanted: int, clean: int, seed: int) -> tuple[int, int]:
    """(Missed ones, false alarms). Each one in a transaction that is rolled back after looking."""
    rng = random.Random(seed)
    verifier = build(root)
    kinds = _tamperings()
    settings = Settings(workspace=root)
    tried: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    alarms = 0
    begun = time.perf_counter()
    with writing(root / "catalog") as lake:
        for number in range(max(wanted, clean)):
            if number % 50 == 0:
                # The state that is clean differs by what was appended, and how it lies in files.
                _append_some(lake, root, number)
            kept = kept_beside_key(root / "ledger")
            if number < clean:
                answer = verify_ledger(lake, [verifier], kept)
                alarms += not answer.ok or bool(verify_files(lake, settings, [verifier])[1])
            if number < wanted:
                kind = kinds[number % len(kinds)]
                tried[kind.name] += 1
                if kind.name.startswith("kept"):
                    found = _found_kept(lake, root, str(kind.harm), rng, verifier)
                elif isinstance(kind.harm, str):
                    found = _found_file(lake, settings, kind.harm, rng)
                else:
                    found = _found(lake, kind.harm(rng), verifier, kept)
                missed[kind.name] += not found
            if number % 50 == 49 or number + 1 == max(wanted, clean):
                print(
                    f"{min(number + 1, wanted)} tamperings, {missed.total()} missed; "
                    f"{min(number + 1, clean)} clean runs, {alarms} alarms; "
                    f"{time.perf_counter() - begun:.0f} s",
                    flush=True,
                )
    print(f"\n{'tampering':24} {'tried':>6} {'found':>6}")
    for name, count in sorted(tried.items()):
        print(f"{name:24} {count:6} {count - missed[name]:6}")
    return missed.total(), alarms


def build(root: Path) -> Any:
    """A small catalog with all kinds of rows and several checkpoints; returns its verifier key."""
    signer: Signer = signer_in(root / "ledger")
    with writing(root / "catalog") as lake:
        for number in range(4):
            _append_some(lake, root, 10_000 + number)
    return signer.verifier


def _append_some(lake: Lake, root: Path, number: int) -> None:
    import pyarrow as pa

    produced = [produced_of(number * 3 + each, outcome="pass") for each in range(3)]
    tables = batch_tables("r", f"b{number}", new_attempt(), produced, datetime.now(UTC))
    tables["libraries"] = pa.Table.from_pylist([{"library": f"l{number}", "note": "n"}])
    lake.transact(_insert(tables, True))
    for each in range(3):
        asset = produced[each].asset
        path = root / str(asset and asset.url)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"file {number * 3 + each}".encode())
    if number % 100 == 0:
        merge_small_files(lake)
    write_checkpoint(lake, root / "ledger", f"run {number}")


def _found_file(lake: Lake, settings: Settings, harm: str, rng: random.Random) -> bool:
    """Harms one file, looks, and puts it right."""
    path = rng.choice(sorted(path for path in settings.assets.rglob("*") if path.is_file()))
    data = path.read_bytes()
    stray = path.with_name(f"{rng.getrandbits(256):064x}.png")
    if harm == "changed":
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
    elif harm == "removed":
        path.unlink()
    else:
        stray.write_bytes(data)
    found = verify_files(lake, settings, [])[1]
    path.write_bytes(data)
    stray.unlink(missing_ok=True)
    return any(one.what == harm for one in found)


def _found_kept(lake: Lake, root: Path, harm: str, rng: random.Random, verifier: Any) -> bool:
    """Harms the checkpoint beside the key, looks, and puts it right."""
    path = root / "ledger" / LAST_FILE
    data = path.read_bytes()
    if harm == "changed":
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(7)
        path.write_bytes(changed)
    else:
        path.unlink()
    found = not verify_ledger(lake, [verifier], kept_beside_key(root / "ledger")).ok
    path.write_bytes(data)
    return found


def _found(lake: Lake, sql: str, verifier: Any, kept: dict[str, list[str]]) -> bool:
    connection = lake.connection
    connection.execute("BEGIN")
    try:
        connection.execute(sql)
        return not verify_ledger(lake, [verifier], kept).ok
    finally:
        connection.execute("ROLLBACK")


if __name__ == "__main__":
    sys.exit(main())
