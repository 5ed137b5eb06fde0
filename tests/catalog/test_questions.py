from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from catalog_samples import TERMS, begin, failed_of, produced_of, request_of

from catalog.audit import Answer, ask, ask_sql, explain, explain_sql, questions
from catalog.lake import Lake, writing
from catalog.review import record_review
from catalog.write import commit_batch, finish_run, insert_row, register_model
from pipeline.errors import InputError
from pipeline.records import Asset, Review, Score, Signed

REQUIRED = {
    "why-blocked": "asset",
    "made-with-model": "model",
    "packs-contents": "pack",
    "assets-of-sku": "sku",
    "made-from": "asset",
    "made-out-of": "picture",
    "verdict-history": "asset",
}
SOON = {
    **TERMS,
    "id": "soon",
    "expires": (datetime.now(UTC).date() + timedelta(days=9)).isoformat(),
}


@pytest.fixture(scope="module")
def shoot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty images, one failure made later and one not, an approval, a rejection, a duplicate."""
    made = tmp_path_factory.mktemp("asked") / "catalog"
    with writing(made) as lake:
        begin(lake)
        register_model(lake, name="hub/other", revision="r1", licence="openrail", source="hub")
        batch = [produced_of(n) for n in range(18)]
        batch.append(produced_of(18, "pass", terms=SOON))
        batch.append(duplicate_of(19, 1))
        commit_batch(lake, "run-1", "b1", [*batch, failed_of(20), failed_of(21, "no room")])
        commit_batch(lake, "run-1", "b2", [produced_of(21)])
        finish_run(lake, "run-1", "completed")
        decide(lake, 3, "approve", "ada", "likeness is licensed")
        decide(lake, 8, "reject", "bob", "looks like a logo")
    return made


def duplicate_of(number: int, earlier: int) -> Any:
    from dataclasses import replace

    one = produced_of(number, "block")
    of = {"request_id": request_of(earlier).request_id, "sku": f"MUG-{earlier:05d}"}
    scores = (
        Score("duplicates", "exact", 0.0, {"duplicate_of": None}),
        Score("duplicates", "near", 6.0, {"nearest": of}),
    )
    return replace(one, scores=scores)


def decide(lake: Lake, number: int, decision: str, who: str, why: str) -> None:
    files: tuple[Any, ...] = ()
    if decision == "approve":
        asset = Asset("f" * 64, "signed", "assets/ff/f.png", "image/png", 8, 8, 9, "aa")
        files = (asset, Signed(b"store", "urn:c2pa:a", "CN=dev"))
    review = Review(who, decision, why, datetime.now(UTC))  # type: ignore[arg-type]
    record_review(lake, request_of(number).request_id, review, *files)


def rows(answer: Answer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer.table.to_pylist()
    return found


@pytest.mark.parametrize("name", sorted(questions()))
def test_every_question_has_a_title_and_an_answer(shoot: Path, name: str) -> None:
    question = questions()[name]
    assert 20 < len(question.title) < 130 and not question.title.endswith(".")
    given = {REQUIRED[name]: "MUG-00004"} if name in REQUIRED else {}
    assert {each.name for each in question.parameters if each.required} == set(given)
    assert all(each.about for each in question.parameters)
    assert ask(shoot, name, given).columns


@pytest.mark.parametrize("name", sorted(questions()))
def test_every_question_can_be_asked_of_an_empty_catalog(empty_catalog: Path, name: str) -> None:
    given = {REQUIRED[name]: "MUG-00004"} if name in REQUIRED else {}
    answer = ask(empty_catalog, name, given)
    assert answer.table.num_rows == 0 or name in ("snapshots", "tables")


def test_verdicts_are_counted_by_policy_and_day(shoot: Path) -> None:
    (row,) = rows(ask(shoot, "verdicts-by-policy-and-day"))
    assert (row["passed"], row["review"], row["blocked"], row["images"]) == (14, 3, 4, 21)
    assert row["day"] == datetime.now(UTC).date()


def test_each_reason_stands_with_score_bound_and_nearest_reference(shoot: Path) -> None:
    found = rows(ask(shoot, "why-not-passed", {"campaign": "campaign-1"}))
    assert {row["campaign"] for row in found} == {"campaign-1"}
    row = next(row for row in found if row["sku"] == "MUG-00004")
    assert (row["rule"], row["says"], row["bound"]) == ("similarity.nearest", "block", 0.5)
    assert row["score"] == pytest.approx(0.54)
    assert '"Logo 4"' in row["nearest"]


def test_one_image_is_explained_score_by_score(shoot: Path) -> None:
    found = rows(ask(shoot, "why-blocked", {"asset": "MUG-00004"}))
    assert [(row["score"], row["says"]) for row in found] == [
        ("similarity.nearest", "block"),
        ("nsfw.unclothed", None),
        ("quality.sharpness", None),
    ]
    assert found[0]["detector"] == "open-clip"
    by_hash = rows(ask(shoot, "why-blocked", {"asset": found[0]["request_id"][:9]}))
    assert by_hash == found


def test_nearest_references_come_nearest_first(shoot: Path) -> None:
    found = rows(ask(shoot, "nearest-references", {"limit": "3"}))
    values = [row["value"] for row in found]
    assert len(found) == 3 and values == sorted(values, reverse=True)
    assert found[0]["rights_holder"] == "Rival"
    assert rows(ask(shoot, "nearest-references", {"library": "none"})) == []


def test_all_that_a_model_made_is_listed_failures_too(shoot: Path) -> None:
    found = rows(ask(shoot, "made-with-model", {"model": "hub/"}))
    assert {row["model"] for row in found} == {"hub/other"} and len(found) == 6
    assert {row["model_licence"] for row in found} == {"openrail"}
    assert {row["state"] for row in found} == {"done", "failed"}


def test_decisions_name_who_when_and_why(shoot: Path) -> None:
    found = rows(ask(shoot, "approvals"))
    assert [(row["reviewer"], row["decision"], row["reason"]) for row in found] == [
        ("bob", "reject", "looks like a logo"),
        ("ada", "approve", "likeness is licensed"),
    ]
    assert len(rows(ask(shoot, "approvals", {"reviewer": "ada"}))) == 1
    assert len(rows(ask(shoot, "review-queue"))) == 1


def test_only_terms_that_end_within_the_days_are_expiring(shoot: Path) -> None:
    (row,) = rows(ask(shoot, "expiring", {"days": "30"}))
    assert (row["sku"], row["days_left"], row["terms_id"]) == ("MUG-00018", 9, "soon")
    assert rows(ask(shoot, "expiring", {"days": "8"})) == []


def test_rules_are_counted_with_the_scores_they_saw(shoot: Path) -> None:
    found = {row["says"]: row for row in rows(ask(shoot, "rejects-by-rule"))}
    assert (found["review"]["images"], found["block"]["images"]) == (3, 4)
    assert found["review"]["lowest"] == pytest.approx(0.53)


def test_failures_tell_whether_they_were_made_since(shoot: Path) -> None:
    found = {row["sku"]: row for row in rows(ask(shoot, "failures"))}
    assert {sku: row["made_since"] for sku, row in found.items()} == {
        "MUG-00020": False,
        "MUG-00021": True,
    }
    assert found["MUG-00021"]["error"] == "no room"


def test_runs_and_their_speed_are_told(shoot: Path) -> None:
    (run,) = rows(ask(shoot, "runs"))
    assert (run["status"], run["images"], run["failed"]) == ("completed", 23, 2)
    (speed,) = rows(ask(shoot, "throughput"))
    assert speed["images"] == 21 and speed["images_per_second"] > 0
    assert dict(speed["ms_per_image"])["sign"] == 6.0


def test_campaigns_show_their_pass_rate_and_what_reviews_came_to(shoot: Path) -> None:
    found = rows(ask(shoot, "pass-rate-by-campaign"))
    assert sum(row["images"] for row in found) == 22
    assert (sum(r["approved"] for r in found), sum(r["rejected"] for r in found)) == (1, 1)
    assert sum(row["cleared"] for row in found) == 15


def test_near_duplicates_name_the_earlier_image(shoot: Path) -> None:
    (row,) = rows(ask(shoot, "duplicates"))
    assert (row["sku"], row["earlier_sku"], row["distance"]) == ("MUG-00019", "MUG-00001", 6)
    assert rows(ask(shoot, "duplicates", {"distance": "5"})) == []


def test_a_catalog_that_is_whole_has_no_unsigned_passes(shoot: Path, lake: Lake) -> None:
    assert rows(ask(shoot, "unsigned-or-missing-manifest")) == []
    from dataclasses import replace

    whole, stripped, smuggled = produced_of(1), produced_of(2), produced_of(4)
    assert smuggled.asset
    smuggled = replace(smuggled, asset=replace(smuggled.asset, state="signed"))
    commit_batch(lake, "run-1", "b1", [whole, replace(stripped, signed=None), smuggled])
    found = rows(ask(lake.folder, "unsigned-or-missing-manifest"))
    assert {row["sku"]: row["fault"] for row in found} == {
        "MUG-00002": "no manifest",
        "MUG-00004": "blocked, but signed",
    }


def test_the_tables_are_listed_for_those_who_write_sql(shoot: Path) -> None:
    tables = {row["table"] for row in rows(ask(shoot, "tables"))}
    spoken = (
        "runs requests assets scores verdicts reviews manifests policies models references packs"
    )
    assert set(spoken.split()) <= tables


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("nonsense", {}, "no such question.*approvals"),
        ("why-blocked", {}, "must be given"),
        ("expiring", {"days": "soon"}, "'soon' is not a number"),
        ("expiring", {"weeks": "1"}, "known: days"),
        ("runs", {"days": "1", "x": "2", "y": "3"}, "(?s)x: there.*y: there"),
    ],
)
def test_wrong_arguments_are_named_all_at_once(
    shoot: Path, name: str, given: dict[str, str], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        ask(shoot, name, given)


def test_arguments_are_values_never_sql(shoot: Path) -> None:
    for value in ("' OR 1=1 --", "x'; DROP VIEW images; --", "$sku"):
        assert rows(ask(shoot, "assets-of-sku", {"sku": value})) == []


@pytest.mark.parametrize("name", sorted(questions()))
def test_every_answer_is_bounded_or_about_one_thing(name: str) -> None:
    known = {parameter.name for parameter in questions()[name].parameters}
    assert "limit" in known or name in REQUIRED or name == "tables"


@pytest.mark.parametrize("name", ["approvals", "rejects-by-rule", "snapshots", "runs"])
def test_a_limit_limits(shoot: Path, name: str) -> None:
    assert ask(shoot, name, {"limit": "1"}).table.num_rows == 1


def test_cost_and_yield_are_told_by_model_brief_and_policy(shoot: Path) -> None:
    by_model = {row["model"]: row for row in rows(ask(shoot, "yield-by-model"))}
    other = by_model["hub/other"]
    assert (other["images"], other["failed"], other["model_licence"]) == (6, 1, "openrail")
    assert sum(row["images"] for row in by_model.values()) == 22
    # A tenth of a second each, the failed one did not come to it.
    assert sum(row["accelerator_seconds"] for row in by_model.values()) == pytest.approx(2.1)
    (brief,) = rows(ask(shoot, "yield-by-brief"))
    assert (brief["brief"], brief["images"], brief["passed"]) == ("spring.csv", 22, 14)
    assert (brief["approved"], brief["pass_rate"]) == (1, round(14 / 21, 4))
    assert brief["seconds_per_usable_image"] == pytest.approx(2.1 / 15)
    policies = {row["policy"]: row["images"] for row in rows(ask(shoot, "yield-by-policy"))}
    assert policies == {"retail": 21, None: 1}
    campaign = rows(ask(shoot, "yield-by-brief", {"campaign": "campaign-0"}))
    assert campaign[0]["images"] == 8


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people who disagree, one who changes her mind, and a policy that overrules another."""
    made = tmp_path_factory.mktemp("divided") / "catalog"
    with writing(made) as lake:
        begin(lake)
        commit_batch(lake, "run-1", "b1", [produced_of(n, "review") for n in range(5)])
        decide(lake, 0, "approve", "ada", "fine")
        decide(lake, 0, "reject", "bob", "a logo")
        decide(lake, 1, "approve", "ada", "fine")
        decide(lake, 1, "reject", "ada", "on second thoughts")
        decide(lake, 2, "approve", "ada", "fine")
        decide(lake, 3, "reject", "bob", "dull")
        (row,) = lake.rows(
            "SELECT request_id, attempt FROM raw.current WHERE request_id = $id",
            {"id": request_of(3).request_id},
        )
        replayed = {
            **row, "replay_id": "r1", "outcome": "pass", "policy": "mild", "policy_version": "2",
            "policy_digest": "d", "decided_at": datetime.now(UTC),
        }  # fmt: skip
        lake.transact(lambda connection: insert_row(connection, "replayed_verdicts", replayed))
    return made


def test_reviewers_are_told_with_how_often_they_are_reversed(divided: Path) -> None:
    found = {row["reviewer"]: row for row in rows(ask(divided, "reviewers"))}
    ada, bob = found["ada"], found["bob"]
    assert (ada["decisions"], ada["approved"], ada["rejected"]) == (4, 3, 1)
    assert (ada["reversed_by_others"], ada["reversed_by_self"], ada["reversed_by_replay"]) == (
        1,
        1,
        0,
    )
    assert (bob["decisions"], bob["reversed_by_others"], bob["reversed_by_replay"]) == (2, 0, 1)
    assert 0 <= ada["median_hours_to_decision"] < 0.1


def test_disagreements_are_listed_by_kind(divided: Path) -> None:
    found = {row["sku"]: row for row in rows(ask(divided, "disagreements"))}
    assert {sku: row["between"] for sku, row in found.items()} == {
        "MUG-00000": "two people",
        "MUG-00001": "one person, twice",
        "MUG-00003": "a person and a policy",
    }
    assert found["MUG-00000"]["decisions"] == ["ada: approve – fine", "bob: reject – a logo"]
    assert found["MUG-00003"]["verdict_today"] == "pass"


def test_rules_are_told_with_what_people_make_of_them(divided: Path) -> None:
    (rule,) = rows(ask(divided, "decisions-by-rule"))
    assert (rule["rule"], rule["decisions"], rule["reviewers"]) == ("similarity.nearest", 6, 2)
    assert (rule["approved"], rule["approval_rate"]) == (3, 0.5)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("why-blocked", {"asset": "MUG-00004"}),
        ("expiring", {"days": "3650"}),
        ("duplicates", {"distance": "6"}),
        ("assets-of-sku", {"sku": "it's'; -- $days"}),
        ("tables", {}),
    ],
)
def test_what_is_explained_is_what_is_run(shoot: Path, name: str, given: dict[str, str]) -> None:
    """The SQL can be asked again as it is printed."""
    explained = explain(shoot, name, given)
    assert explained.plan is None and "\n-- $" not in explained.sql
    assert rows(ask_sql(shoot, explained.sql)) == rows(ask(shoot, name, given))


def test_a_plan_is_told_and_nothing_is_run(shoot: Path, tmp_path: Path) -> None:
    told = explain(shoot, "why-not-passed", planned=True)
    assert told.plan and "DUCKLAKE_SCAN" in told.plan.upper().replace(" ", "_")
    bomb = "SELECT count(*) FROM range(10000000000) t(i) WHERE i % 7 = 8"
    assert "RANGE" in (explain_sql(shoot, bomb).plan or "")
    with pytest.raises(InputError):
        explain_sql(shoot, f"ANALYZE COPY (SELECT 1) TO '{tmp_path / 'x'}'")
    assert not list(tmp_path.iterdir())


def test_explaining_needs_no_catalog(tmp_path: Path) -> None:
    assert "LIMIT 7" in explain(tmp_path / "none", "packs", {"limit": "7"}).sql
    with pytest.raises(InputError, match="known: limit"):
        explain(tmp_path, "packs", {"x": "1"})
