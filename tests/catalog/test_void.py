"""What takes a clearance back though nobody decided so: an erasure, an attempt that is void."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from catalog_samples import begin, produced_of
from test_reviews import review, signed_asset

from catalog.audit import ask
from catalog.lake import Lake, reading, writing
from catalog.ledger_erase import erase
from catalog.review import record_review, review_queue
from catalog.write import commit_batch
from pipeline.settings import Settings


def test_an_erased_image_is_neither_cleared_nor_to_be_signed(tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path / "workspace")
    passed, other, unsigned = (produced_of(number, "pass") for number in (1, 2, 3))
    assert unsigned.asset is not None
    unsigned = replace(unsigned, asset=replace(unsigned.asset, state="quarantined"), signed=None)
    with writing(settings.catalog) as lake:
        begin(lake)
        commit_batch(lake, "run-1", "b1", [passed, other, unsigned])
    assert ask(settings.catalog, "to-sign").table.num_rows == 1

    for one in (passed, unsigned):
        erase(settings, {"request_id": one.request.request_id}, reason="asked", by="ann")

    assert ask(settings.catalog, "to-sign").table.num_rows == 0
    with reading(settings.catalog) as lake:
        assert lake.rows("SELECT * FROM to_sign") == []
        assert lake.rows("SELECT request_id FROM images WHERE cleared") == [
            {"request_id": other.request.request_id}
        ]


@pytest.mark.parametrize(
    ("decision", "counts", "stays", "queued"),
    [("approve", False, None, 1), ("reject", True, "reject", 0)],
)
def test_of_an_attempt_that_does_not_count_an_approval_is_void_and_a_rejection_is_not(
    lake: Lake, decision: str, counts: bool, stays: str | None, queued: int
) -> None:
    one = produced_of(3)
    request_id = one.request.request_id
    commit_batch(lake, "run-1", "b1", [one])
    files = signed_asset(one) if decision == "approve" else ()
    record_review(lake, request_id, review(decision), *files)
    # Another run began to commit the same request before, and ended later: its attempt counts.
    with lake.alone() as connection:
        for table in ("images", "batches"):
            connection.execute(
                f"INSERT INTO raw.{table} SELECT * REPLACE ('00' || attempt[3:] AS attempt, "
                f"'run-0' AS run_id) FROM raw.{table}"
            )
    (row,) = lake.rows("SELECT decision, cleared FROM images")
    assert row == {"decision": stays, "cleared": False}
    assert [each["counts"] for each in lake.rows("SELECT counts FROM reviews")] == [counts]
    assert len(review_queue(lake)) == queued
