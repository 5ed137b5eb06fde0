"""Time stamps owed and given later, over a real authority, workspace and catalog."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from timestamp_authority import TimestampAuthority, timestamp_authority
from workspace_samples import HELD, MILD, shoot

from catalog.lake import reading, writing
from catalog.ledger_erase import erase
from catalog.read import knows
from catalog.release import approve
from catalog.rows import owed_table
from catalog.stamp import owed, record_owed, stamp_files, unstamped
from catalog.verifications import record_verifications
from pipeline import timestamps
from pipeline.errors import SetupError
from pipeline.keys import trust_anchors
from pipeline.records import Asset, Produced, Signed
from pipeline.request import Request
from pipeline.settings import Settings
from pipeline.store import path_of
from pipeline.verify import Report, verify_file


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[TimestampAuthority]:
    with timestamp_authority(tmp_path / "tsa") as serving:
        yield serving
    timestamps._out_until.clear()


@pytest.fixture
def settings(authority: TimestampAuthority, tmp_path: Path) -> Settings:
    return Settings(workspace=tmp_path / "ws", signing={"timestamp_url": authority.url})


def signed_files(settings: Settings) -> dict[str, str]:
    with reading(settings.catalog) as lake:
        rows = lake.rows("SELECT sha256, request_id FROM images WHERE asset_state = 'signed'")
    return {row["sha256"]: row["request_id"] for row in rows}


@pytest.fixture
def shot(settings: Settings, authority: TimestampAuthority) -> list[Request]:
    """Two images signed during an outage, one before it."""
    requests = shoot(settings, MILD, ["pass"])
    timestamps.note_outage(authority.url)
    requests += shoot(settings, MILD, ["pass", "pass"], first=1)
    timestamps._out_until.clear()
    return requests


def test_files_of_an_outage_are_found_stamped_and_stay_known(
    settings: Settings, shot: list[Request], authority: TimestampAuthority
) -> None:
    before = signed_files(settings)
    with writing(settings.catalog) as lake:
        lacking = unstamped(lake)
        assert {before[sha256] for sha256 in lacking} == {each.request_id for each in shot[1:]}
        record_owed(lake, lacking)
        record_owed(lake, lacking)
        assert sorted(owed(lake)) == lacking
        assert len(owed(lake, limit=1)) == 1
        seen: list[tuple[int, int]] = []
        done = stamp_files(settings, lake, owed(lake), lambda *at: seen.append(at))
        assert (sorted(done.files), done.failed, seen) == (lacking, (), [(2, 2)])
        assert (owed(lake), unstamped(lake)) == ([], [])
        assert stamp_files(settings, lake, owed(lake)).files == {}
    after = signed_files(settings)
    assert sorted(after.values()) == sorted(before.values())
    assert {after[new] for new in done.files.values()} == {before[old] for old in done.files}
    with reading(settings.catalog) as lake:
        known = knows(lake, [*done.files, *done.files.values()])
        assert len(known) == 4
        assert all(row["state"] == "signed" and row["counts"] for row in known.values())
        rows = lake.rows(
            "SELECT a.url, a.made_by, a.sha256, i.c2pa_label, i.cleared FROM assets AS a "
            "JOIN images AS i USING (sha256) JOIN stamps AS s ON s.stamped_sha256 = a.sha256"
        )
    assert len(rows) == 2
    for row in rows:
        report = verify_file(path_of(settings, row["url"]), trust_anchors(settings))
        assert (report.ok, report.time_stamp, report.sha256) == (True, "Valid", row["sha256"])
        assert report.label == row["c2pa_label"]
        assert (row["made_by"], row["cleared"]) == ("stamp", True)
    assert not list((settings.root / "staging").glob("*/*"))


def test_what_cannot_be_stamped_stays_owed_with_the_reason(
    settings: Settings, shot: list[Request], authority: TimestampAuthority
) -> None:
    with writing(settings.catalog) as lake:
        record_owed(lake, unstamped(lake))
        first, second = owed(lake)
        rows = lake.rows("SELECT sha256, url FROM assets")
        paths = {row["sha256"]: path_of(settings, row["url"]) for row in rows}
        paths[first].write_bytes(b"another file")
        paths[second].unlink()
        done = stamp_files(settings, lake, [first, second, "0" * 64])
        assert done.files == {}
        why = {each.asset_sha256: each.why for each in done.failed}
        assert "is not the file that was signed" in why[first]
        assert "cannot be read" in why[second]
        assert why["0" * 64] == "the catalog has no such signed file"
        assert owed(lake) == [first, second]


def test_what_is_erased_while_others_are_stamped_gets_no_new_manifest(
    settings: Settings, shot: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catalog.stamp.AT_ONCE", 1)
    with writing(settings.catalog) as lake:
        record_owed(lake, unstamped(lake))
        waiting = owed(lake)
        requests = signed_files(settings)

        def erase_the_other(done: int, of: int) -> None:
            if done == 1:
                key = {"request_id": requests[waiting[1]]}
                erase(settings, key, reason="asked", by="ada")

        made = stamp_files(settings, lake, waiting, erase_the_other)
    assert list(made.files) == waiting[:1]
    assert [(each.asset_sha256, each.why) for each in made.failed] == [
        (waiting[1], "its manifest was erased")
    ]


def test_an_authority_that_fails_between_two_files_leaves_the_rest_owed(
    settings: Settings, shot: list[Request], authority: TimestampAuthority
) -> None:
    with writing(settings.catalog) as lake:
        record_owed(lake, unstamped(lake))
        authority.mood = "refuses"
        with pytest.raises(SetupError, match="does not serve"):
            stamp_files(settings, lake, owed(lake))
        # It answers the check at the start, and nothing that can be used after it.
        authority.mood = "talks nonsense"
        done = stamp_files(settings, lake, owed(lake))
        assert (done.files, len(done.failed)) == ({}, 2)
        assert len(owed(lake)) == 2
        with pytest.raises(SetupError, match="no time-stamp authority is configured"):
            stamp_files(Settings(workspace=settings.workspace), lake, owed(lake))


def test_what_a_person_approves_in_an_outage_is_owed_its_stamp_too(
    settings: Settings, authority: TimestampAuthority
) -> None:
    shoot(settings, HELD, ["review", "review"])
    approve(settings, "MUG-00000", "ada", "fine")
    timestamps.note_outage(authority.url)
    late = approve(settings, "MUG-00001", "ada", "fine as well")
    with reading(settings.catalog) as lake:
        assert owed(lake) == [late["sha256"]]


def test_a_batch_owes_what_it_signed_without_a_stamp(shot: list[Request]) -> None:
    def one(manifest: bytes) -> Produced:
        asset = Asset("ab" * 32, "signed", "assets/ab/x.png", "image/png", 1, 1, 1, "")
        return Produced(shot[0], asset=asset, signed=Signed(manifest, "urn:c2pa:1", "c"))

    now = datetime.now(UTC)
    bare, stamped = one(b"..urn:c2pa:1 sigTst"), one(b"..urn:c2pa:1 .. \x67sigTst2")
    theirs = one(b"urn:c2pa:0 \x67sigTst2 urn:c2pa:1 ..")
    failed = Produced(shot[0], error="no")
    table = owed_table([bare, stamped, theirs, failed], now)
    assert table is not None
    assert table.to_pylist() == [{"asset_sha256": "ab" * 32, "owed_since": now}] * 2
    assert owed_table([stamped, failed], now) is None


def test_verifiers_that_disagree_are_an_audit(settings: Settings, shot: list[Request]) -> None:
    from catalog.audit import ask

    old = Report("a", state="Trusted", sha256="a" * 64, verifier="c2pa-rs 1", decodes=True)
    new = Report("a", state="Invalid", sha256="a" * 64, verifier="c2pa-rs 2")
    same = Report("b", state="Valid", sha256="b" * 64, verifier="c2pa-rs 1")
    with writing(settings.catalog) as lake:
        assert record_verifications(lake, [old, same, Report("c")]) == 2
        assert record_verifications(lake, [new, same]) == 2
        assert record_verifications(lake, []) == 0
        record_owed(lake, unstamped(lake))
    rows = ask(settings.catalog, "verifier-drift", {}).table.to_pylist()
    assert [row["sha256"] for row in rows] == ["a" * 64]
    assert sorted(rows[0]["judgements"]) == ["Invalid by c2pa-rs 2", "Trusted by c2pa-rs 1"]
    waiting = ask(settings.catalog, "stamps-owed", {}).table.to_pylist()
    assert {row["request_id"] for row in waiting} == {each.request_id for each in shot[1:]}
