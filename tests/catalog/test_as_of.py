"""The catalog as it was: between commits, through merges and upgrades, with the clock of then."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from catalog_samples import begin, produced_of, request_of
from test_upgrade import earlier_version, version  # noqa: F401

from catalog.as_of import metadata_as_of, moment_of, reading_as_of, set_clock
from catalog.audit import ask, ask_sql, explain_sql
from catalog.isolated import Limits, isolated, select
from catalog.lake import reading, writing
from catalog.review import Approval, record_review
from catalog.upkeep import merge_small_files
from catalog.write import commit_batch
from pipeline.errors import InputError
from pipeline.records import Asset, Review, Signed

COUNT = "SELECT count(*) AS n, max(seed) AS last, min(seed) AS first FROM images"


@dataclass(frozen=True)
class History:
    """A catalog and moments of its life: after each of four commits, a merge, and an approval."""

    folder: Path
    moments: tuple[datetime, ...]
    approved: datetime


def now() -> datetime:
    """A moment that no commit shares."""
    time.sleep(0.01)
    moment = datetime.now(UTC)
    time.sleep(0.01)
    return moment


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    folder = tmp_path_factory.mktemp("history") / "catalog"
    moments = []
    with writing(folder) as lake:
        begin(lake)
        for batch in range(4):
            numbers = range(batch * 5, batch * 5 + 5)
            commit_batch(lake, "run-1", f"b{batch}", [produced_of(number) for number in numbers])
            moments.append(now())
            if batch == 2:
                merge_small_files(lake)
        asset = Asset("f" * 64, "signed", "assets/ff/f.png", "image/png", 8, 8, 9, "aa")
        lapses = datetime.now(UTC) + timedelta(hours=1)
        record_review(
            lake, request_of(3).request_id, Review("ada", "approve", "ours", datetime.now(UTC)),
            asset, Signed(b"store", "urn:c2pa:a", "CN=dev"), Approval(expires=lapses),
        )  # fmt: skip
        approved = now()
    return History(folder, tuple(moments), approved)


def rows(answer: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer.table.to_pylist()
    return found


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("batch", range(4))
def test_a_moment_sees_what_was_committed_and_no_more(history: History, batch: int) -> None:
    before = contents(history.folder)
    with reading_as_of(history.folder, history.moments[batch]) as lake:
        assert lake.rows(COUNT) == [{"n": batch * 5 + 5, "last": batch * 5 + 4, "first": 0}]
    assert contents(history.folder) == before


@pytest.mark.parametrize("batch", [0, 2])
def test_a_cut_copy_says_what_ducklake_says_of_that_snapshot(history: History, batch: int) -> None:
    """Merged files hold rows of later snapshots too."""
    moment = history.moments[batch]
    with metadata_as_of(history.folder, moment) as (_, found):
        assert found and found.snapshot_at <= moment
    sql = "SELECT * FROM raw.batches {} ORDER BY ALL"
    with reading(history.folder) as lake:
        travelled = lake.rows(sql.format(f"AT (VERSION => {found.snapshot})"))
    with reading_as_of(history.folder, moment) as lake:
        assert lake.rows(sql.format("")) == travelled
    assert len(travelled) == batch + 1


HOLDS = (
    "SELECT now() AS t, current_date AS d, approval_holds AS holds, cleared FROM images "
    "WHERE decision = 'approve'"
)


def test_now_is_then(history: History) -> None:
    with reading_as_of(history.folder, history.approved) as lake:
        (by_reading,) = lake.rows(HOLDS)
    for then in (by_reading, *rows(ask_sql(history.folder, HOLDS, as_of=history.approved))):
        assert (then["t"], then["d"]) == (history.approved, history.approved.date())
        assert (then["holds"], then["cleared"]) == (True, True)
    with reading_as_of(history.folder, history.moments[0]) as lake:
        assert lake.rows(HOLDS) == []


def test_an_approval_holds_by_the_clock_that_is_set(history: History) -> None:
    """It lapses in an hour: a clock that is two hours on says that it has."""
    limits = Limits()
    with isolated(history.folder, limits) as connection:
        set_clock(connection, history.approved + timedelta(hours=2))
        (later,) = rows(select(connection, HOLDS, {}, limits, history.folder))
    assert (later["holds"], later["cleared"]) == (False, False)


def test_questions_are_asked_of_then(history: History) -> None:
    answer = rows(ask(history.folder, "verdicts-by-policy-and-day", as_of=history.moments[1]))
    assert sum(row["images"] for row in answer) == 10
    snapshots = rows(ask(history.folder, "snapshots", as_of=history.moments[0]))
    assert snapshots[0]["as_of"] <= history.moments[0]


def test_a_plan_can_be_had_of_then(history: History) -> None:
    explained = explain_sql(history.folder, "SELECT sku FROM images", history.moments[0])
    assert "PROJECTION" in (explained.plan or "")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1999-01-01", "knows nothing of 1999-01-01T23:59:59.999999Z.*any moment since 20"),
        ("0001-01-01T00:00", "knows nothing"),
        ("9999-12-31", "yet to come"),
        ("2999-01-01T00:00+01:00", "yet to come"),
        ("9999-12-31T23:59-10:00", "is no time"),
        ("yesterday", "is no time"),
        ("", "is no time"),
        ("2026-02-30", "is no time"),
        ("2026-01-01'; DROP VIEW images; --", "is no time"),
        ("${now}", "is no time"),
        ("VERSION => 1", "is no time"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_can(
    history: History, text: str, told: str
) -> None:
    with pytest.raises(InputError, match=f"(?s){told}"):
        ask(history.folder, "packs", as_of=moment_of(text))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-02T03:04", "2026-01-02T03:04:00+00:00"),
        ("2026-01-02 03:04:05", "2026-01-02T03:04:05+00:00"),
        ("2026-01-02T03:04Z", "2026-01-02T03:04:00+00:00"),
        ("2026-01-02T03:04+02:00", "2026-01-02T01:04:00+00:00"),
        ("2026-01-02", "2026-01-02T23:59:59.999999+00:00"),
    ],
)
def test_moments_are_utc_and_a_day_means_its_end(text: str, moment: str) -> None:
    assert moment_of(text) == datetime.fromisoformat(moment)


def test_today_means_now() -> None:
    today = datetime.now(UTC)
    assert today <= moment_of(today.date().isoformat()) <= datetime.now(UTC)


def test_snapshots_that_expired_are_refused_and_their_neighbours_are_not(tmp_path: Path) -> None:
    folder, moments = tmp_path / "catalog", []
    with writing(folder) as lake:
        for batch in range(4):
            commit_batch(lake, "run-1", f"b{batch}", [produced_of(batch)])
            moments.append(now())
        (last,) = lake.rows("SELECT max(snapshot_id) AS id FROM ducklake_snapshots('lake')")
        with lake.alone() as connection:
            gone = [last["id"] - 2, last["id"] - 1]
            connection.execute(f"CALL ducklake_expire_snapshots('lake', versions => {gone})")
    for moment, expected in zip(moments, (None, None, None, 4), strict=True):
        if expected:
            with reading_as_of(folder, moment) as lake:
                assert lake.rows(COUNT)[0]["n"] == expected
        else:
            with pytest.raises(InputError, match=r"(?s)have expired.*any moment since"):
                metadata_as_of(folder, moment).__enter__()


@pytest.mark.parametrize("version", [2], indirect=True)
def test_an_older_schema_is_read_as_of_before_its_upgrade(
    earlier_version: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    folder = tmp_path / "catalog"
    shutil.copytree(earlier_version, folder)
    before = now()
    with writing(folder) as lake:
        commit_batch(lake, "run-2", "b2", [produced_of(number) for number in range(50, 60)])
        assert lake.rows("SELECT count(*) AS n FROM images") == [{"n": 16}]
    with reading_as_of(folder, before) as lake:
        found = lake.rows("SELECT sku, outcome FROM images ORDER BY sku")
    outcomes = ["pass", "pass", "pass", "review", "block", None]
    assert [row["outcome"] for row in found] == outcomes
