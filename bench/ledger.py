"""Measures the ledger: cost of an append, a whole verification, and 1,000 tamperings to find.

One command: python bench/ledger.py. Exit code 1 when a target is missed: append ≤ 2 % of a run,
verification of 1,000,000 rows ≤ 30 s, every tampering found, no alarm in 1,000 clean runs.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "catalog")]

from catalog_samples import produced_of  # noqa: E402

from catalog.lake import Lake, reading, writing  # noqa: E402
from catalog.ledger import append_rows, append_table  # noqa: E402
from catalog.ledger_checkpoints import write_checkpoint  # noqa: E402
from catalog.ledger_files import verify_files  # noqa: E402
from catalog.ledger_notes import LAST_FILE, Signer, signer_in  # noqa: E402
from catalog.ledger_verify import verify_ledger  # noqa: E402
from catalog.rows import batch_tables, new_attempt  # noqa: E402
from catalog.upkeep import merge_small_files  # noqa: E402
from pipeline.settings import Settings  # noqa: E402


def main() -> int:
    """Runs all three, prints tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=40)
    parser.add_argument("--batch", type=int, default=64, help="images a commit")
    parser.add_argument("--image-seconds", type=float, default=0.1, help="of a run, an image")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--tamperings", type=int, default=1_000)
    parser.add_argument("--clean", type=int, default=1_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        share = append_cost(root / "append", options.commits, options.batch, options.image_seconds)
        seconds = whole_verification(root / "whole", options.rows)
        missed, alarms = tamperings(root / "tamper", options.tamperings, options.clean)
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


def append_cost(root: Path, commits: int, batch: int, image_seconds: float) -> float:
    """Commits with and without the ledger in turn; the difference as a share of a run."""
    times: dict[bool, list[float]] = {True: [], False: []}
    cpu: dict[bool, list[float]] = {True: [], False: []}
    for entered in (True, False):
        with writing(root / str(entered)):
            pass
    with writing(root / "True") as with_ledger, writing(root / "False") as without:
        for number in range(commits):
            first = number * batch
            produced = [produced_of(each) for each in range(first, first + batch)]
            tables = batch_tables("r", f"b{number}", new_attempt(), produced, datetime.now(UTC))
            for entered, lake in ((True, with_ledger), (False, without)):
                begun, used = time.perf_counter(), time.process_time()
                lake.transact(_insert(tables, entered))
                times[entered].append(time.perf_counter() - begun)
                cpu[entered].append(time.process_time() - used)
    more = statistics.median(times[True]) - statistics.median(times[False])
    busy = statistics.median(cpu[True]) - statistics.median(cpu[False])
    share = more / (batch * image_seconds)
    print(f"\ncommits of {batch} images        median ms   cpu ms")
    for entered, name in ((False, "rows alone"), (True, "rows and entries")):
        wall, used = statistics.median(times[entered]), statistics.median(cpu[entered])
        print(f"{name:28} {wall * 1000:12.1f} {used * 1000:8.1f}")
    print(
        f"{more * 1000:.1f} ms ({busy * 1000:.1f} ms cpu) more: {share:.2%} of a run at "
        f"{image_seconds} s an image"
    )
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
            lake.transact(lambda one, name=name: append_table(one, name, "temp.many"))  # type: ignore[misc]
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
        Tampering("entry removed", lambda rng: _some("DELETE FROM raw.ledger_entries", rng)),
        Tampering("entry added", lambda rng: _doubled("ledger_entries", rng)),
        Tampering("entries swapped", lambda rng: _swapped("ledger_entries", rng)),
        Tampering("checkpoint changed", _checkpoint_changed),
        Tampering(
            "checkpoint removed", lambda rng: _some("DELETE FROM raw.ledger_checkpoints", rng)
        ),
        Tampering("checkpoint added", lambda rng: _doubled("ledger_checkpoints", rng)),
        Tampering("checkpoints swapped", lambda rng: _swapped("ledger_checkpoints", rng)),
        *(Tampering(f"file {harm}", harm) for harm in ("changed", "removed", "added")),
    ]
    for table in ROW_TABLES:
        found += [
            Tampering("row changed", lambda rng, table=table: _changed(table, rng)),  # type: ignore[misc]
            Tampering(
                "row removed", lambda rng, table=table: _some(f"DELETE FROM raw.{table}", rng)
            ),  # type: ignore[misc]
            Tampering("row added", lambda rng, table=table: _doubled(table, rng)),  # type: ignore[misc]
            Tampering("rows swapped", lambda rng, table=table: _swapped(table, rng)),  # type: ignore[misc]
        ]
    return found


def _some(statement: str, rng: random.Random) -> str:
    table = statement.rpartition(".")[2].split(" ")[0]
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


def tamperings(root: Path, wanted: int, clean: int) -> tuple[int, int]:
    """(Missed ones, false alarms). Each one in a transaction that is rolled back after looking."""
    rng = random.Random(5)
    verifier = build(root)
    kept = {"beside the key": [(root / "ledger" / LAST_FILE).read_text()]}
    kinds = _tamperings()
    settings = Settings(workspace=root)
    tried: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    alarms = 0
    begun = time.perf_counter()
    with writing(root / "catalog") as lake:
        for number in range(max(wanted, clean)):
            if number < clean and number % 50 == 0:
                # The state that is clean differs by what was appended, and how it lies in files.
                _append_some(lake, root, number)
                kept = {"beside the key": [(root / "ledger" / LAST_FILE).read_text()]}
            if number < clean:
                answer = verify_ledger(lake, [verifier], kept)
                alarms += not answer.ok or bool(verify_files(lake, settings, [verifier])[1])
            if number < wanted:
                kind = kinds[number % len(kinds)]
                tried[kind.name] += 1
                if isinstance(kind.harm, str):
                    found = _found_file(lake, settings, kind.harm, rng)
                else:
                    found = _found(lake, kind.harm(rng), verifier, kept)
                missed[kind.name] += not found
    print(f"\n{'tampering':24} {'tried':>6} {'found':>6}")
    for name, count in sorted(tried.items()):
        print(f"{name:24} {count:6} {count - missed[name]:6}")
    print(
        f"{sum(tried.values())} tamperings, {sum(missed.values())} missed; {clean} clean runs, "
        f"{alarms} alarms; {time.perf_counter() - begun:.0f} s"
    )
    return sum(missed.values()), alarms


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
