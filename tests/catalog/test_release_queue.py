"""What a replay let pass is signed; what it sent to review is approved by whom the policy names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import catalog_samples
import pytest
from workspace_samples import HELD, MILD, policy_named, shoot

import catalog.release as release_module
import pipeline.store as store_module
from catalog.lake import reading, writing
from catalog.ledger import append_rows
from catalog.ledger_erase import erase
from catalog.release import approve, reject
from catalog.release_queue import release_queued
from catalog.replay import replay
from catalog.replay_apply import Applied, apply
from catalog.rescore import erased_images
from catalog.review import review_queue
from pipeline.errors import InputError
from pipeline.keys import trust_anchors
from pipeline.policy_model import Policy
from pipeline.settings import Settings
from pipeline.store import path_of
from pipeline.verify import verify_file


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(workspace=tmp_path / "ws", reviewers={"ada": ["legal"], "bob": ["brand"]})


def applied(settings: Settings, policy: Policy) -> Applied:
    with writing(settings.catalog) as lake:
        return apply(lake, policy, replay(lake, policy), "ada")


def rows(settings: Settings, sql: str) -> list[dict[str, Any]]:
    with reading(settings.catalog) as lake:
        return lake.rows(sql)


def test_what_passes_now_is_signed_once_and_says_so(settings: Settings) -> None:
    shoot(settings, HELD, ["review", "review", "block"])
    assert applied(settings, MILD).to_sign == 3
    released = release_queued(settings)
    assert (released.signed, released.failed) == (3, ())
    found = rows(settings, "SELECT url, cleared, policy, c2pa_label, perceptual_hash FROM images")
    for row in found:
        assert row["cleared"] and row["policy"] == "mild" and row["perceptual_hash"]
        report = verify_file(path_of(settings, row["url"]), trust_anchors(settings))
        assert (report.state, report.label) == ("Trusted", row["c2pa_label"])
    assert release_queued(settings).signed == 0
    assert not list((settings.root / "staging").rglob("*.*"))


def test_one_lost_file_does_not_keep_the_others(settings: Settings) -> None:
    lost, altered, *_ = shoot(settings, HELD, ["review"] * 4)
    applied(settings, MILD)
    urls = {
        row["request_id"]: row["url"]
        for row in rows(settings, "SELECT request_id, url FROM to_sign")
    }
    path_of(settings, urls[lost.request_id]).unlink()
    path_of(settings, urls[altered.request_id]).write_bytes(b"something else")
    released = release_queued(settings)
    assert released.signed == 2
    why = {each.request_id: each.error for each in released.failed}
    assert "cannot be read" in why[lost.request_id]
    assert "is not the image that was checked" in why[altered.request_id]
    assert len(rows(settings, "SELECT * FROM to_sign")) == 2


@pytest.mark.parametrize("way", ["approved", "released"])
def test_what_is_signed_later_tells_of_licences_by_the_workspaces_own_table(
    settings: Settings, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "licences.yaml"
    own.write_text(
        "licences:\n  Acme-Internal: {name: Acme's terms, url: 'https://acme.example/internal', "
        "source: contract 7, dated: 2026-05-01, commercial: true}\n"
    )
    settings = settings.model_copy(update={"licences": own})
    monkeypatch.setitem(catalog_samples.TERMS, "licence", "Acme-Internal")
    (request,) = shoot(settings, HELD, ["review"])
    if way == "approved":
        approve(settings, request.request_id, "ada", "our own design")
    else:
        applied(settings, MILD)
        release_queued(settings)
    (row,) = rows(settings, "SELECT url FROM images")
    report = verify_file(path_of(settings, row["url"]), trust_anchors(settings))
    assert report.labels["xmpRights:WebStatement"] == "https://acme.example/internal"


@pytest.mark.parametrize("event", ["a run finished an earlier attempt", "a replay was applied"])
def test_what_was_replaced_while_it_was_signed_is_not_recorded(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    shoot(settings, HELD, ["review"])
    applied(settings, MILD)
    flush = store_module.flush_staging

    def meanwhile(*arguments: Any) -> None:
        flush(*arguments)
        monkeypatch.setattr(store_module, "flush_staging", flush)
        if event.startswith("a replay"):
            applied(settings, policy_named("milder", [{**DECODES, "block": {"below": 0}}]))
            return
        with writing(settings.catalog) as lake:
            row = lake.read("FROM raw.images").to_pylist()[0]
            earlier = f"{int(row['attempt'][:14], 16) - 1:014x}{row['attempt'][14:]}"
            replayed = lake.read("FROM raw.replayed_verdicts")

            def again(connection: Any) -> None:
                for name, table in (
                    ("images", lake.read("FROM raw.images")),
                    ("replayed_verdicts", replayed),
                ):
                    place = table.column_names.index("attempt")
                    changed = table.set_column(place, "attempt", [[earlier] * len(table)])
                    append_rows(connection, name, changed)

            lake.transact(again)

    monkeypatch.setattr(store_module, "flush_staging", meanwhile)
    released = release_queued(settings)
    assert (released.signed, released.failed) == (0, ())
    assert rows(settings, "SELECT * FROM manifests") == []
    assert not list((settings.root / "staging").rglob("*.*"))
    assert release_queued(settings).signed == 1


def test_an_image_whose_prompt_was_erased_is_neither_signed_nor_approved(
    settings: Settings,
) -> None:
    queued, reviewed, *_ = shoot(settings, HELD, ["review", "review"])
    with writing(settings.catalog) as lake:
        apply(lake, MILD, replay(lake, MILD, "sku = 'MUG-00000'"), "ada")
    for request in (queued, reviewed):
        erase(settings, {"request_id": request.request_id}, reason="asked", by="ada")
    with pytest.raises(InputError, match="its prompt was erased"):
        approve(settings, "MUG-00001", "ada", "fine")
    assert release_queued(settings).signed == 0
    (failed,) = release_queued(settings, "sku = 'MUG-00000'").failed
    assert failed.sku == "MUG-00000" and "its prompt was erased" in failed.error
    with reading(settings.catalog) as lake:
        lost = erased_images(lake, "sku = 'MUG-00000'")
    assert [(each.sku, each.error[:20]) for each in lost] == [("MUG-00000", "a text of it was era")]
    assert reject(settings, "MUG-00001", "ada", "erased")["decision"] == "reject"


def test_only_what_a_condition_names_is_signed(settings: Settings) -> None:
    shoot(settings, HELD, ["review"] * 3)
    applied(settings, MILD)
    assert release_queued(settings, "sku = 'MUG-00001'").signed == 1
    assert len(rows(settings, "SELECT * FROM to_sign")) == 2


def test_a_rejected_image_is_never_queued(settings: Settings) -> None:
    shoot(settings, HELD, ["review", "review"])
    reject(settings, "MUG-00000", "bob", "looks like a logo")
    assert applied(settings, MILD).to_sign == 1
    assert release_queued(settings).signed == 1


DECODES: dict[str, object] = {"check": "quality", "score": "decodes"}
SHARP: dict[str, object] = {
    "check": "quality",
    "score": "sharpness",
    "review": {"at_least": 0},
    "approvers": ["legal"],
}
STRICT = policy_named(
    "strict",
    [SHARP],
    approvals={"roles": ["brand"], "expire_after_days": 30},
)


def test_an_image_that_passed_once_is_approved_with_the_file_it_has(settings: Settings) -> None:
    shoot(settings, MILD, ["pass"])
    (before,) = rows(settings, "SELECT sha256 FROM images")
    applied(settings, STRICT)
    (waiting,) = rows(settings, "SELECT sha256, cleared FROM images")
    assert waiting == before | {"cleared": False}
    decided = approve(settings, "MUG-00000", "ada", "it is ours")
    assert decided["sha256"] == before["sha256"]
    (row,) = rows(settings, "SELECT cleared, reviewer, approved_until FROM images")
    assert row["cleared"] and row["reviewer"] == "ada"
    assert row["approved_until"] - datetime.now(UTC) > timedelta(days=29)
    (review,) = rows(settings, "SELECT roles, expires FROM reviews")
    assert review["roles"] == ["legal"]


def test_an_image_whose_pixels_were_not_kept_cannot_be_approved(settings: Settings) -> None:
    shoot(settings, HELD, [None])
    applied(settings, STRICT)
    assert rows(settings, "SELECT outcome, asset_state FROM images") == [
        {"outcome": "review", "asset_state": "discarded"}
    ]
    with pytest.raises(InputError, match="its pixels were not kept"):
        approve(settings, "MUG-00000", "ada", "fine")
    assert rows(settings, "SELECT * FROM reviews") == []
    assert reject(settings, "MUG-00000", "ada", "gone")["decision"] == "reject"


def test_an_approval_of_a_verdict_that_is_replaced_meanwhile_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    shoot(settings, STRICT, ["review"])
    refuse = release_module._refuse

    def looked_at_while_a_replay_is_applied(*arguments: Any) -> None:
        refuse(*arguments)
        applied(settings, policy_named("stricter", [SHARP]))

    monkeypatch.setattr(release_module, "_refuse", looked_at_while_a_replay_is_applied)
    with pytest.raises(InputError, match="another policy was applied meanwhile"):
        approve(settings, "MUG-00000", "ada", "fine")
    assert rows(settings, "SELECT * FROM reviews") == []
    assert rows(settings, "SELECT state FROM assets") == [{"state": "quarantined"}]
    assert not [file for file in (settings.root / "assets").rglob("*.*") if file.is_file()]
    assert not list((settings.root / "staging").rglob("*.*"))


def test_only_roles_that_the_rule_names_may_approve(settings: Settings) -> None:
    shoot(settings, STRICT, ["review"])
    for name in ("bob", "eve"):
        with pytest.raises(InputError, match=r"quality\.sharpness is approved by legal"):
            approve(settings, "MUG-00000", name, "fine")
    assert rows(settings, "SELECT * FROM reviews") == []
    approve(settings, "MUG-00000", "ada", "fine")
    with pytest.raises(InputError, match="decided so already"):
        approve(settings, "MUG-00000", "ada", "fine")


def test_an_expired_approval_waits_again_and_may_be_given_again(settings: Settings) -> None:
    shoot(settings, STRICT, ["review"])
    approve(settings, "MUG-00000", "ada", "fine for a month")
    with writing(settings.catalog) as lake:
        lake.transact(
            lambda connection: connection.execute(
                "UPDATE raw.reviews SET expires = now() - INTERVAL 1 DAY, "
                "decided_at = decided_at - INTERVAL 31 DAY"
            )
        )
        (waiting,) = review_queue(lake)
        assert waiting["reviewer"] == "ada" and waiting["approved_until"] < datetime.now(UTC)
    assert rows(settings, "SELECT cleared FROM images") == [{"cleared": False}]
    approve(settings, "MUG-00000", "ada", "still fine")
    assert rows(settings, "SELECT cleared FROM images") == [{"cleared": True}]
    assert len(rows(settings, "SELECT * FROM reviews")) == 2
