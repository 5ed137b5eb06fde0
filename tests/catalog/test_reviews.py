from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from catalog_samples import failed_of, produced_of

from catalog.approval import approved_until, may_not_approve
from catalog.lake import Lake
from catalog.replay import replay
from catalog.replay_apply import apply
from catalog.review import Approval, record_review, review_queue
from catalog.write import commit_batch, register_model
from pipeline.errors import InputError
from pipeline.policy_model import Policy
from pipeline.records import Asset, Produced, Reason, Review, Severity, Signed, Verdict


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
    assert lake.rows("SELECT * FROM raw.later_files WHERE made_by = 'review'") == []


def test_the_same_decision_twice_is_refused(lake: Lake, waiting: Produced) -> None:
    record_review(lake, waiting.request.request_id, review("reject"))
    with pytest.raises(InputError, match="decided so already"):
        record_review(lake, waiting.request.request_id, review("reject"))


def test_an_approval_without_a_signed_file_cannot_be_recorded(
    lake: Lake, waiting: Produced
) -> None:
    with pytest.raises(ValueError, match="signed asset"):
        record_review(lake, waiting.request.request_id, review("approve"))


def test_the_most_urgent_come_first_then_the_oldest(lake: Lake) -> None:
    severities: tuple[Severity, ...] = ("low", "critical", "normal", "critical")
    for number, severity in enumerate(severities):
        one = produced_of(number, "review")
        assert one.verdict
        reasons = tuple(replace(each, severity=severity) for each in one.verdict.reasons)
        verdict = replace(one.verdict, reasons=reasons)
        commit_batch(lake, "run-1", f"b{number}", [replace(one, verdict=verdict)])
    found = [(row["sku"], row["severity"]) for row in review_queue(lake)]
    assert found == [
        ("MUG-00001", "critical"),
        ("MUG-00003", "critical"),
        ("MUG-00002", "normal"),
        ("MUG-00000", "low"),
    ]


def test_an_approval_that_has_ended_waits_and_can_be_given_again(
    lake: Lake, waiting: Produced
) -> None:
    request_id, files = waiting.request.request_id, signed_asset(waiting)
    ended = Approval(["legal"], datetime.now(UTC) - timedelta(seconds=1))
    record_review(lake, request_id, review("approve"), *files, approval=ended)
    (row,) = review_queue(lake)
    assert (row["reviewer"], row["approved_until"]) == ("ada", ended.expires)
    assert lake.rows("SELECT cleared FROM images WHERE outcome = 'review'") == [{"cleared": False}]
    holds = Approval(["legal"], datetime.now(UTC) + timedelta(days=1))
    record_review(lake, request_id, review("approve"), files[0], approval=holds)
    assert review_queue(lake) == []
    assert lake.rows("SELECT cleared FROM images WHERE outcome = 'review'") == [{"cleared": True}]
    with pytest.raises(InputError, match="decided so already"):
        record_review(lake, request_id, review("approve"), files[0], approval=holds)


RULES = [
    {"check": "copying", "score": "pdq", "review": {"below": 31}, "approvers": ["legal", "board"]},
    {
        "check": "copying",
        "score": "pdq",
        "library": "logos",
        "review": {"below": 31},
        "approvers": ["board"],
    },
    {"check": "nsfw", "score": "concept", "review": {"at_least": 0.5}, "channels": ["web"]},
    {
        "name": "both",
        "outcome": "review",
        "any": [{"check": "nsfw", "score": "concept", "at_least": 0.2}],
        "approvers": ["brand"],
    },
]


@pytest.mark.parametrize(
    ("spoke", "roles", "refused_for"),
    [
        (["copying.pdq@toys"], ["legal"], []),
        (["copying.pdq@toys"], ["brand"], ["copying.pdq@toys"]),
        (["copying.pdq@logos"], ["legal"], ["copying.pdq@logos"]),
        (["copying.pdq@logos", "copying.pdq@toys"], ["board"], []),
        (["copying.pdq@toys", "both"], ["legal"], ["both"]),
        (["copying.pdq@toys", "both"], ["legal", "brand"], []),
        (["nsfw.concept[web]"], ["studio"], []),
        (["nsfw.concept[web]"], [], ["nsfw.concept[web]"]),
        (["inputs.restricted"], ["Studio"], ["inputs.restricted"]),
    ],
)
def test_a_reviewer_needs_an_accepted_role_for_each_rule(
    spoke: list[str], roles: list[str], refused_for: list[str]
) -> None:
    policy = policy_of(approvals={"roles": ["studio"]})
    reasons = (*(Reason("review", rule, "said") for rule in spoke),)
    verdict = Verdict("review", reasons, "p", "1", policy.digest)
    faults = may_not_approve(policy, verdict, "ada", roles)
    assert [fault.what.split(" is approved")[0] for fault in faults] == refused_for


def test_without_roles_anybody_approves_and_without_days_for_ever() -> None:
    policy = policy_of(rules=RULES[2:3])
    verdict = Verdict("review", (Reason("review", "nsfw.concept[web]", ""),), "p", "1", "d")
    assert may_not_approve(policy, verdict, "eve", []) == []
    now = datetime.now(UTC)
    assert approved_until(policy, now) is None
    month = policy_of(approvals={"expire_after_days": 30})
    assert approved_until(month, now) == now + timedelta(days=30)


def replayed(lake: Lake, one: Produced, *rules: dict[str, object]) -> None:
    """Judges one image again, by `rules` alone."""
    register_model(lake, name=one.request.model, revision="r1", licence="Apache-2.0", source="hub")
    policy = policy_of(rules=list(rules), licences=["Apache-2.0"], version=f"of {len(rules)}")
    apply(lake, policy, replay(lake, policy, f"sku = '{one.request.sku}'"), "ada")


SAME: dict[str, object] = {
    "check": "similarity", "score": "nearest", "review": {"at_least": 0.5},
}  # fmt: skip
OTHER: dict[str, object] = {
    "check": "nsfw", "score": "unclothed", "review": {"at_least": 0.2},
}  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "holds"),
    [([SAME], True), ([OTHER], False), ([SAME, OTHER], False)],
    ids=["the same rule", "another rule", "one more rule"],
)
def test_an_approval_holds_for_the_rules_that_it_was_given_for(
    lake: Lake, waiting: Produced, rules: list[dict[str, object]], holds: bool
) -> None:
    request_id, files = waiting.request.request_id, signed_asset(waiting)
    record_review(lake, request_id, review("approve"), *files)
    replayed(lake, waiting, *rules)
    image = f"SELECT outcome, approval_holds, cleared FROM images WHERE request_id = '{request_id}'"
    assert lake.rows(image) == [{"outcome": "review", "approval_holds": holds, "cleared": holds}]
    assert [row["request_id"] for row in review_queue(lake)] == [request_id] * (not holds)
    if holds:
        with pytest.raises(InputError, match="decided so already"):
            record_review(lake, request_id, review("approve"), files[0])
        return
    record_review(lake, request_id, review("approve", "seen for this too"), files[0])
    assert lake.rows(image) == [{"outcome": "review", "approval_holds": True, "cleared": True}]
    assert review_queue(lake) == []


def test_an_approval_of_before_rules_were_recorded_holds_until_a_replay(
    lake: Lake, waiting: Produced
) -> None:
    request_id = waiting.request.request_id
    record_review(lake, request_id, review("approve"), *signed_asset(waiting))
    lake.transact(lambda connection: connection.execute("UPDATE raw.reviews SET rules = NULL"))
    image = f"SELECT cleared FROM images WHERE request_id = '{request_id}'"
    assert lake.rows(image) == [{"cleared": True}]
    replayed(lake, waiting, SAME)
    assert lake.rows(image) == [{"cleared": False}]


def test_what_a_person_rejected_is_not_cleared_when_a_replay_passes_it(
    lake: Lake, waiting: Produced
) -> None:
    request_id = waiting.request.request_id
    record_review(lake, request_id, review("approve"), *signed_asset(waiting))
    record_review(lake, request_id, review("reject", "withdrawn"))
    replayed(lake, waiting)
    (row,) = lake.rows(
        f"SELECT outcome, asset_state, cleared FROM images WHERE request_id = '{request_id}'"
    )
    assert row == {"outcome": "pass", "asset_state": "signed", "cleared": False}


def test_a_decision_on_another_policys_verdict_is_refused(lake: Lake, waiting: Produced) -> None:
    request_id, files = waiting.request.request_id, signed_asset(waiting)
    assert waiting.verdict
    looked_at = Approval(["legal"], policy_digest=waiting.verdict.policy_digest)
    replayed(lake, waiting, OTHER)
    with pytest.raises(InputError, match="another policy was applied meanwhile"):
        record_review(lake, request_id, review("approve"), *files, approval=looked_at)
    assert lake.rows("SELECT * FROM reviews") == []
    assert lake.rows("SELECT * FROM raw.later_files WHERE made_by = 'review'") == []


def policy_of(**changes: object) -> Policy:
    return Policy.model_validate(
        {"policy": "p", "version": "1", "checks": {}, "rules": RULES, "licences": ["MIT"]} | changes
    )
