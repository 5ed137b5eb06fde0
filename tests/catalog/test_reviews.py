from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest
from catalog_samples import failed_of, produced_of

from catalog.lake import Lake
from catalog.review import record_review, review_queue
from catalog.write import commit_batch
from pipeline.errors import InputError
from pipeline.records import Asset, Produced, Review, Signed


def review(decision: str, reason: str = "no likeness", reviewer: str = "ada") -> Review:
    return Review(reviewer, decision, reason, datetime.now(UTC))  # type: ignore[arg-type]


def signed_asset(one: Produced) -> tuple[Asset, Signed]:
    data = b"signed " + one.request.request_id.encode()
    digest = hashlib.sha256(data).hexdigest()
    url = f"assets/{digest[:2]}/{digest}.png"
    asset = Asset(digest, "signed", url, "image/png", 128, 128, len(data), "aa")
    return asset, Signed(b"store", "urn:c2pa:approved", "CN=dev")


@pytest.fixture
def waiting(lake: Lake) -> Produced:
    one = produced_of(3)
    commit_batch(lake, "run-1", "b1", [one, produced_of(1), produced_of(4), failed_of(5)])
    return one


def test_only_images_in_review_wait(lake: Lake, waiting: Produced) -> None:
    (row,) = review_queue(lake)
    assert row["request_id"] == waiting.request.request_id
    assert row["reasons"][0]["text"] == "too near to a protected work"
    assert row["url"].startswith("quarantine/")


def test_an_approval_clears_the_signed_file_and_leaves_the_verdict(
    lake: Lake, waiting: Produced
) -> None:
    asset, signed = signed_asset(waiting)
    record_review(lake, waiting.request.request_id, review("approve"), asset, signed)
    assert review_queue(lake) == []
    (row,) = lake.rows("SELECT * FROM images WHERE outcome = 'review'")
    assert (row["sha256"], row["cleared"], row["reviewer"]) == (asset.sha256, True, "ada")
    assert row["c2pa_label"] == "urn:c2pa:approved"
    assert row["perceptual_hash"] == waiting.perceptual_hash
    files = lake.rows(
        "SELECT state FROM assets WHERE request_id = ? ORDER BY state", [row["request_id"]]
    )
    assert [file["state"] for file in files] == ["quarantined", "signed"]


def test_a_rejection_takes_an_image_out_of_the_queue_uncleared(
    lake: Lake, waiting: Produced
) -> None:
    record_review(lake, waiting.request.request_id, review("reject"))
    assert review_queue(lake) == []
    assert lake.rows("SELECT cleared FROM images WHERE outcome = 'review'") == [{"cleared": False}]


def test_the_last_decision_counts_and_all_are_kept(lake: Lake, waiting: Produced) -> None:
    request_id = waiting.request.request_id
    record_review(lake, request_id, review("approve"), *signed_asset(waiting))
    record_review(lake, request_id, review("reject", "withdrawn", "bob"))
    (row,) = lake.rows("SELECT decision, reviewer, cleared FROM images WHERE outcome = 'review'")
    assert row == {"decision": "reject", "reviewer": "bob", "cleared": False}
    assert lake.rows("SELECT count(*) AS n FROM reviews") == [{"n": 2}]


@pytest.mark.parametrize(
    ("number", "decision", "reason", "told"),
    [
        (1, "reject", "why", "its verdict is pass"),
        (4, "approve", "why", "its verdict is block"),
        (5, "reject", "why", "its verdict is missing"),
        (9, "reject", "why", "no such request"),
        (3, "reject", "  ", "a reviewer and a reason"),
    ],
)
def test_what_nobody_may_decide_is_refused(
    lake: Lake, waiting: Produced, number: int, decision: str, reason: str, told: str
) -> None:
    one = produced_of(number)
    files = signed_asset(one) if decision == "approve" else ()
    with pytest.raises(InputError, match=told):
        record_review(lake, one.request.request_id, review(decision, reason), *files)
    assert lake.rows("SELECT count(*) AS n FROM reviews") == [{"n": 0}]
    assert lake.rows("SELECT count(*) AS n FROM raw.assets WHERE made_by = 'review'") == [{"n": 0}]


def test_the_same_decision_twice_is_refused(lake: Lake, waiting: Produced) -> None:
    record_review(lake, waiting.request.request_id, review("reject"))
    with pytest.raises(InputError, match="decided so already"):
        record_review(lake, waiting.request.request_id, review("reject"))


def test_an_approval_without_a_signed_file_cannot_be_recorded(
    lake: Lake, waiting: Produced
) -> None:
    with pytest.raises(ValueError, match="signed asset"):
        record_review(lake, waiting.request.request_id, review("approve"))
