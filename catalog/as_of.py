"""The catalog as it was at a moment: a private copy of the metadata, cut back to a snapshot.

What came later is taken out of the copy, so that readers and questions need not know of it; an
older schema is then brought up to date like that of any older catalog. Nothing touches the catalog.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.lake import Lake, attached, reading
from catalog.metadata import metadata_copy
from pipeline.errors import Fault, InputError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_CLOCKS = {
    "TIMESTAMPTZ": ("now", "get_current_timestamp", "transaction_timestamp"),
    "DATE": ("current_date", "today"),
    "TIMESTAMP": ("current_localtimestamp",),
}
"""DuckDB's functions that tell the time, by type; views ask them which approvals still hold."""


@dataclass(frozen=True)
class AsOf:
    """A moment that was asked for (aware, UTC), and the snapshot that was the last one then."""

    moment: datetime
    snapshot: int
    snapshot_at: datetime


def moment_of(text: str) -> datetime:
    """The moment that people mean, in UTC: ISO 8601, its time zone UTC unless it says another.

    A date alone means the end of that day, and now if it is today's. Raises InputError for what is
    no time, and for times to come.
    """
    now = datetime.now(UTC)
    try:
        if _DAY.fullmatch(text):
            day = date.fromisoformat(text)
            moment = datetime.combine(day, time.max, UTC)
            return min(moment, now) if day <= now.date() else _refuse_future(text, now)
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    # The least and the largest year overflow on the way to UTC.
    except (ValueError, OverflowError) as error:
        remedy = "write 2026-11-01T12:00 (UTC), or 2026-11-01 for the end of that day"
        raise InputError("as of", [Fault(f"{text!r} is no time", remedy=remedy)]) from error
    return moment if moment <= now else _refuse_future(text, now)


@contextmanager
def metadata_as_of(folder: Path, moment: datetime | None) -> Iterator[tuple[Path, AsOf | None]]:
    """A private copy of the metadata, cut back to `moment`; as it is now when that is None.

    Raises InputError, naming what can be asked, for a moment before the catalog was made or whose
    snapshot has expired since; SetupError when there is no catalog.
    """
    with metadata_copy(folder) as copy:
        if moment is None:
            yield copy, None
            return
        # Closed before DuckDB opens it: the two bring an SQLite each, blind to the other's locks.
        with closing(sqlite3.connect(copy)) as metadata, metadata:
            found = _snapshot(metadata, moment)
            _cut(metadata, found.snapshot)
        yield copy, found


@contextmanager
def reading_as_of(folder: Path, moment: datetime | None) -> Iterator[Lake]:
    """`catalog.lake.reading`, of the catalog as it was at `moment`."""
    if moment is None:
        with reading(folder) as lake:
            yield lake
        return
    with (
        metadata_as_of(folder, moment) as (copy, _),
        attached(copy, folder, read_only=True) as connection,
    ):
        yield _LakeOfThen(folder, connection, moment)


class _LakeOfThen(Lake):
    """A lake that tells the time of `moment`: each read has its own clock."""

    def __init__(
        self, folder: Path, connection: duckdb.DuckDBPyConnection, moment: datetime
    ) -> None:
        super().__init__(folder, connection)
        self.moment = moment

    def read(
        self,
        sql: str,
        parameters: Mapping[str, Any] | Sequence[Any] = (),
        **tables: pa.Table,
    ) -> pa.Table:
        """The rows of one SELECT; nobody writes to a private copy, so it is not tried again."""
        with self.connection.cursor() as cursor:
            cursor.execute("USE lake")
            set_clock(cursor, self.moment)
            for name, table in tables.items():
                cursor.register(name, table)
            return cursor.execute(sql, parameters or None).to_arrow_table()


def set_clock(connection: duckdb.DuckDBPyConnection, moment: datetime) -> None:
    """Makes `now()`, `current_date` and their like tell `moment` on this connection.

    Else an approval that held then but has expired since would not count.
    """
    told = {
        "TIMESTAMPTZ": moment.isoformat(sep=" "),
        "DATE": moment.date().isoformat(),
        "TIMESTAMP": moment.replace(tzinfo=None).isoformat(sep=" "),
    }
    for kind, names in _CLOCKS.items():
        for name in names:
            connection.execute(f"CREATE TEMP MACRO {name}() AS {kind} '{told[kind]}'")


def _refuse_future(text: str, now: datetime) -> datetime:
    fault = Fault(f"{text} is yet to come", remedy=f"it is {now:%Y-%m-%dT%H:%M:%SZ}")
    raise InputError("as of", [fault])


def _snapshot(metadata: sqlite3.Connection, moment: datetime) -> AsOf:
    """The last snapshot at `moment`. Raises InputError when that one is not kept."""
    kept = [
        (number, datetime.fromisoformat(text).astimezone(UTC))
        for number, text in metadata.execute(
            "SELECT snapshot_id, snapshot_time FROM ducklake_snapshot ORDER BY snapshot_id"
        )
    ]
    # The first snapshot is of a lake without tables, the next brings them.
    first = next((each for each in kept if each[0] > 0), kept[0])
    before = [each for each in kept if each[0] >= first[0] and each[1] <= moment]
    if not before:
        raise _not_kept(f"the catalog knows nothing of {_words(moment)}", first[1], kept[-1][1])
    number, at = before[-1]
    following = next((each for each in kept if each[0] > number), None)
    # Numbers are consecutive: a gap is snapshots that expired, and one of them may be meant.
    if following and following[0] != number + 1:
        raise _not_kept(
            f"snapshots between {_words(at)} and {_words(following[1])} have expired",
            following[1],
            kept[-1][1],
        )
    return AsOf(moment, number, at)


def _not_kept(what: str, since: datetime, last: datetime) -> InputError:
    remedy = f"it can be asked as of any moment since {_words(since)}; the last commit was at "
    return InputError("as of", [Fault(what, remedy=remedy + _words(last))])


def _words(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _cut(metadata: sqlite3.Connection, snapshot: int) -> None:
    """Takes out all that was recorded after `snapshot`, and brings back what was ended after it.

    Each row of DuckLake's metadata says from which snapshot on it holds and until which (DuckLake
    specification 1.0, "Tables", ducklake.select/docs, read 2026-11). Data files that a later merge
    made hold each row's snapshot, which DuckLake compares with the catalog's last one by itself.
    """
    columns: dict[str, set[str]] = {}
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'ducklake_%'"
    for (table,) in metadata.execute(tables).fetchall():
        columns[table] = {row[1] for row in metadata.execute(f'PRAGMA table_info("{table}")')}
    for table, names in columns.items():
        if "end_snapshot" in names:
            metadata.execute(
                f'UPDATE "{table}" SET end_snapshot = NULL WHERE end_snapshot > ?', [snapshot]
            )
        for name in ("begin_snapshot", "snapshot_id"):
            if name in names:
                metadata.execute(f'DELETE FROM "{table}" WHERE {name} > ?', [snapshot])
    # An upgrade of the copy gives numbers anew: what is left of the later ones would collide.
    for table, names in columns.items():
        for key, owner in (("data_file_id", "ducklake_data_file"), ("table_id", "ducklake_table")):
            if key in names and table not in ("ducklake_data_file", "ducklake_table"):
                metadata.execute(
                    f'DELETE FROM "{table}" WHERE {key} NOT IN (SELECT {key} FROM {owner})'
                )
