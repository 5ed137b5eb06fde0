"""The SQL of a replay and `decide` say the same of every image, and what a replay records."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace as changed
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from catalog_samples import failed_of, produced_of, request_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog import replay_apply
from catalog.lake import Lake, writing
from catalog.replay import replay
from catalog.replay_apply import apply
from catalog.replay_evaluate import JUDGED, evaluate
from catalog.replay_sql import CODES
from catalog.rescore import record_rescores
from catalog.review import record_review
from catalog.write import commit_batch, record_terms, register_model
from pipeline.errors import InputError
from pipeline.policy_model import Policy
from pipeline.records import Produced, Review, Score, Signed, Verdict
from pipeline.request import Adapter
from pipeline.verdict import decide

SCORES = (
    ("nsfw", "concept"),
    ("copying", "descriptor@logos"),
    ("copying", "descriptor@toys"),
    ("copying", "pdq@logos"),
    ("sensitive", "nudity"),
    ("inputs", "restricted"),
    ("inputs", "preserved"),
    ("plugin", "a.b"),
)
LICENCES = {"starter/text-to-image": "Apache-2.0", "hub/other": "CreativeML-OpenRAIL-M"}

VALUES = st.one_of(
    st.sampled_from([0.0, 0.5, 1.0, -1.0, 40.0, float("nan"), float("inf"), -float("inf")]),
    st.floats(-2, 2),
)
NUMBERS = st.sampled_from([-0.5, 0.0, 0.25, 0.5, 0.75, 1.0])
CHANNELS = st.sampled_from([["web"], ["Amazon"], ["any"], ["STRASSE", "web"], []])


def bound(draw: st.DrawFn, side: str | None = None) -> dict[str, float]:
    return {side or draw(st.sampled_from(["at_least", "below"])): draw(NUMBERS)}


@st.composite
def measures(draw: st.DrawFn) -> dict[str, str]:
    check, score = draw(
        st.sampled_from(
            [
                ("nsfw", "concept"),
                ("nsfw", "classifier"),
                ("copying", "descriptor"),
                ("copying", "pdq"),
                ("sensitive", "nudity"),
                ("plugin", "a.b"),
                ("plugin.a", "b"),
            ]
        )
    )
    library = draw(st.sampled_from([None, None, "logos", "toys", "gone"]))
    named = {"check": check, "score": score}
    return named | ({"library": library} if library and check == "copying" else {})


@st.composite
def parts(draw: st.DrawFn, depth: int = 2) -> dict[str, Any]:
    if depth and draw(st.booleans()):
        some = draw(st.lists(parts(depth - 1), min_size=1, max_size=3))
        return {draw(st.sampled_from(["all", "any"])): some}
    return draw(measures()) | bound(draw)


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    says: dict[str, Any] = {}
    if draw(st.booleans()):
        says["channels"] = draw(st.sampled_from([["amazon"], ["straße"], ["print", "Web"]]))
    if draw(st.booleans()):
        says["severity"] = draw(st.sampled_from(["low", "critical"]))
    if draw(st.booleans()):
        inside = draw(st.lists(parts(), min_size=1, max_size=3))
        key = draw(st.sampled_from(["all", "any"]))
        name = draw(st.sampled_from(["both", "either"]))
        return (
            says
            | {"name": name, "outcome": draw(st.sampled_from(["review", "block"]))}
            | {key: inside}
        )
    side = draw(st.sampled_from(["at_least", "below"]))
    limits = sorted([draw(NUMBERS), draw(NUMBERS)], reverse=side == "below")
    bounds = {"review": {side: limits[0]}, "block": {side: limits[1]}}
    if limits[0] == limits[1] or draw(st.booleans()):
        bounds.pop(draw(st.sampled_from(["review", "block"])))
    return says | draw(measures()) | bounds


CLASSIFIER = {"kind": "classifier", "classes": {"nudity": ["x"]}}
# What is declared must have been measured: each library, and each detector of a class.
CHECKS = st.fixed_dictionaries(
    {},
    optional={
        "copying": st.sampled_from(
            [
                {"libraries": libraries, "descriptor": "d"}
                for libraries in (["logos"], ["logos", "toys"], ["toys", "new"])
            ]
        ),
        "sensitive": st.sampled_from(
            [
                {"detectors": {name: CLASSIFIER | {"model": name} for name in names}}
                for names in (["one"], ["one", "two"])
            ]
        ),
    },
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    return Policy.model_validate(
        {
            "policy": "drawn",
            "version": "1",
            "checks": draw(CHECKS),
            "rules": draw(st.lists(rules(), max_size=4)),
            "licences": draw(st.sampled_from([["apache-2.0"], [*LICENCES.values()]])),
            "prompts": {"deny": draw(st.sampled_from([[], ["logo"], ["blue mug"]]))},
            "inputs": {"restricted": draw(st.sampled_from(["refuse", "review", "ignore"]))},
        }
    )


@st.composite
def images(draw: st.DrawFn, number: int) -> Produced:
    scores = [
        Score(check, name, draw(VALUES), {"detector": detector, "revision": "1"})
        for check, name in SCORES
        for detector in draw(st.sampled_from([(), ("one",), ("one",), ("one", "two")]))
    ]
    recipe: dict[str, Any] = {}
    prompt = draw(st.sampled_from(["a red cup", "a logo", "a (lo)1.2 (go)1.2 cup"]))
    if draw(st.integers(0, 3)) == 0:
        adapter = Adapter(draw(st.sampled_from([*LICENCES, "unknown"])), "r1")
        recipe = {
            "adapters": (adapter,),
            "prompt_syntax": draw(st.sampled_from(["plain", "compel"])),
        }
    if draw(st.integers(0, 3)) == 0:
        recipe["earlier"] = (request_of(900 + number, prompt="a logo"),)
    terms = {"channels": draw(CHANNELS)} if draw(st.booleans()) else {}
    one = produced_of(number, "pass", prompt=prompt, terms=terms, **recipe)
    outcome = draw(st.sampled_from(CODES))
    assert one.verdict
    return changed(one, scores=tuple(scores), verdict=changed(one.verdict, outcome=outcome))


@st.composite
def shoots(draw: st.DrawFn) -> list[Produced]:
    return [draw(images(number)) for number in range(draw(st.integers(2, 10)))]


@contextmanager
def lake_of(empty: Path) -> Iterator[Lake]:
    with TemporaryDirectory() as name:
        folder = Path(name) / "catalog"
        shutil.copytree(empty, folder)
        with writing(folder) as lake:
            for model, licence in LICENCES.items():
                register_model(lake, name=model, revision="r1", licence=licence, source="hub")
            yield lake


def expected_of(policy: Policy, one: Produced) -> Verdict:
    steps = one.request.chain
    used = {step.model for step in steps} | {a.model for s in steps for a in s.adapters}
    return decide(policy, one.request, [LICENCES.get(name, "") for name in used], one.scores)


def said_by_sql(lake: Lake, policy: Policy) -> dict[str, tuple[str, set[str]]]:
    """Outcome and speaking rules of each image that does not just pass."""
    with lake.alone() as connection:
        words = evaluate(connection, policy).compiled.words
        rows = connection.execute(
            f"SELECT *, replace(request_key::VARCHAR, '-', '') AS begins FROM {JUDGED}"
        ).to_arrow_table()
    return {
        row["begins"]: (
            CODES[row["now"]],
            {word.name for number, word in enumerate(words) if row[f"w{number}"]},
        )
        for row in rows.to_pylist()
        if row["now"]
    }


def assert_as_decided(lake: Lake, policy: Policy, made: list[Produced]) -> None:
    said = said_by_sql(lake, policy)
    for one in made:
        verdict = expected_of(policy, one)
        told = said.get(one.request.request_id[:32], ("pass", set()))
        assert told == (verdict.outcome, {reason.rule for reason in verdict.reasons})


# A lake takes longer to make than a policy to be judged by: each serves several policies.
EXAMPLES = settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, *HealthCheck],
)
SEVERAL = st.lists(policies(), min_size=8, max_size=8)


@EXAMPLES
@given(several=SEVERAL, made=shoots())
def test_sql_and_decide_agree_on_every_image(
    empty_catalog: Path, several: list[Policy], made: list[Produced]
) -> None:
    with lake_of(empty_catalog) as lake:
        commit_batch(lake, "run-1", "b1", made)
        for policy in several:
            assert_as_decided(lake, policy, made)


@EXAMPLES
@given(several=SEVERAL, made=shoots(), again=shoots(), data=st.data())
def test_they_agree_over_attempts_rescores_and_new_terms(
    empty_catalog: Path,
    several: list[Policy],
    made: list[Produced],
    again: list[Produced],
    data: Any,
) -> None:
    """Failed and repeated attempts do not count, the last measurement and the last terms do."""
    with lake_of(empty_catalog) as lake:
        lost = [changed(each, error="lost") for each in again]
        commit_batch(lake, "run-1", "b0", [*lost, failed_of(99)])
        commit_batch(lake, "run-1", "b1", made)
        known = {each.request.request_id: each for each in made}
        # The same requests made once more: the first finished attempt counts.
        commit_batch(lake, "run-2", "b1", [changed(each, scores=()) for each in made])
        for number in range(2):
            values = {request_id: data.draw(VALUES) for request_id in known}
            known = rescored(lake, known, values, number)
        terms = {"channels": data.draw(CHANNELS)}
        known = {k: changed(v, request=changed(v.request, terms=terms)) for k, v in known.items()}
        record_terms(lake, [each.request for each in known.values()])
        for policy in several:
            assert_as_decided(lake, policy, list(known.values()))


def rescored(
    lake: Lake, known: dict[str, Produced], values: dict[str, float], number: int
) -> dict[str, Produced]:
    """Their nsfw scores measured again, by two detectors at first and by one at last."""
    rows = lake.rows(
        "SELECT request_id, attempt FROM raw.current WHERE request_id IN (FROM known)",
        known=pa.table({"request_id": list(known)}),
    )
    attempts = {row["request_id"]: row["attempt"] for row in rows}
    new = {
        request_id: tuple(
            Score("nsfw", "concept", value, {"detector": f"new-{each}", "revision": "2"})
            for each in range(2 - number)
        )
        for request_id, value in values.items()
    }
    record_rescores(lake, {(each, attempts[each]): scores for each, scores in new.items()})
    return {
        request_id: changed(one, scores=(*kept_of(one), *new[request_id]))
        for request_id, one in known.items()
    }


def kept_of(one: Produced) -> list[Score]:
    return [each for each in one.scores if (each.check, each.name) != ("nsfw", "concept")]


STRICT = {
    "policy": "strict",
    "version": "2",
    "checks": {},
    "rules": [
        {"check": "similarity", "score": "nearest", "block": {"at_least": 0.54}},
        {"check": "nsfw", "score": "unclothed", "review": {"at_least": 0.9}, "severity": "high"},
    ],
    "licences": list(LICENCES.values()),
}


def policy_of(**changes: Any) -> Policy:
    return Policy.model_validate(STRICT | changes)


@pytest.fixture
def shoot(lake: Lake) -> Lake:
    """Twelve images: similarity.nearest is 0.50, 0.51 …, of five three pass; and a failed one."""
    for model, licence in LICENCES.items():
        register_model(lake, name=model, revision="r1", licence=licence, source="hub")
    commit_batch(lake, "run-1", "b1", [*(produced_of(number) for number in range(12))])
    commit_batch(lake, "run-1", "b2", [failed_of(12)])
    return lake


def test_a_replay_counts_what_changes_and_which_way(shoot: Lake) -> None:
    told = replay(shoot, policy_of())
    assert (told.judged, told.changed) == (12, 7)
    assert told.before == {"pass": 8, "review": 2, "block": 2}
    assert told.now == {"pass": 4, "review": 0, "block": 8}
    ways: dict[tuple[str, str], int] = {}
    for each in told.changes:
        ways[each.was, each.now] = ways.get((each.was, each.now), 0) + each.images
    assert ways == {("pass", "block"): 5, ("review", "pass"): 1, ("review", "block"): 1}
    assert [(each.rule, each.block, each.changed) for each in told.rules] == [
        ("similarity.nearest", 8, 6),
        ("nsfw.unclothed", 0, 0),
    ]
    assert told.missing == {} and told.other_detectors == ()


def test_only_what_a_condition_names_is_judged(shoot: Lake) -> None:
    told = replay(shoot.folder, policy_of(), "campaign = 'campaign-1' -- of three")
    assert told.judged == 4
    assert {change.campaign for change in told.changes} == {"campaign-1"}
    with pytest.raises(InputError, match="read_text"):
        replay(shoot.folder, policy_of(), "sku IN (SELECT content FROM read_text('/etc/passwd'))")


def test_a_score_that_nobody_measured_blocks_and_is_told(shoot: Lake) -> None:
    rule = {"check": "copying", "score": "descriptor", "block": {"at_least": 0.9}}
    told = replay(shoot, policy_of(rules=[rule]))
    assert told.missing == {"copying.descriptor": 12}
    assert told.now == {"pass": 0, "review": 0, "block": 12}
    assert told.first[0].why == ("copying.descriptor was not measured (block)",)


def test_scores_of_other_weights_and_of_several_detectors_are_told(shoot: Lake) -> None:
    one = produced_of(30)
    scores = [
        changed(each, evidence={**each.evidence, "revision": "r2"}) for each in one.scores[:2]
    ]
    commit_batch(shoot, "run-1", "b3", [changed(one, scores=tuple(scores))])
    told = replay(shoot, policy_of(), expected={"nsfw.unclothed": ["r2"]})
    assert "similarity.nearest comes from several detectors: open-clip r1 (12" in " ".join(
        told.other_detectors
    )
    assert "nsfw.unclothed of 12 images is from other weights" in " ".join(told.other_detectors)


def deliver(lake: Lake, request_id: str) -> None:
    """Puts an image into the pack `p1` for `Shop`."""

    def pack(connection: Any) -> None:
        connection.execute(
            "INSERT INTO raw.packs BY NAME SELECT 'p1' AS pack_id, 'spring.zip' AS file, "
            "'Shop' AS licensee, now() AS created_at"
        )
        connection.execute(
            "INSERT INTO raw.pack_assets BY NAME SELECT 'p1' AS pack_id, ? AS request_id, "
            "'aa' AS asset_sha256, 'a.png' AS file",
            [request_id],
        )

    lake.transact(pack)


def test_the_images_that_matter_most_come_first(shoot: Lake) -> None:
    delivered = request_of(6).request_id
    deliver(shoot, delivered)
    told = replay(shoot, policy_of())
    assert [each.request_id for each in told.first[:3]] == [
        delivered,
        request_of(11).request_id,
        request_of(10).request_id,
    ]
    assert told.first[0].packs == ("p1",)
    assert told.first[0].why == ("similarity.nearest 0.56 is at least 0.54 (block): nearest "
                                 "reference 'logo-6.png' of Rival",)  # fmt: skip
    (pack_told,) = told.packs
    assert (pack_told.licensee, pack_told.images) == ("Shop", 1)
    assert pack_told.rules == {"similarity.nearest": 1}


def test_of_images_alike_those_furthest_beyond_their_bound_come_first(shoot: Lake) -> None:
    numbers = {request_of(number).request_id: number for number in range(12)}
    for bound in ({"below": 0.55}, {"at_least": 0.54}):
        rule = {"check": "similarity", "score": "nearest", "block": bound}
        told = replay(shoot, policy_of(rules=[rule]))
        found = [numbers[each.request_id] for each in told.first if each.was == "pass"]
        assert len(found) > 2 and found == sorted(found, reverse="at_least" in bound)


@pytest.mark.parametrize(
    ("rule", "comes_back"),
    [
        ({"check": "nsfw", "score": "unclothed", "review": {"at_least": 0.3}}, True),
        ({"check": "similarity", "score": "nearest", "review": {"at_least": 0.53}}, False),
    ],
    ids=["another rule", "the same rule"],
)
def test_what_was_approved_for_one_rule_and_delivered_is_told_when_another_holds_it_back(
    shoot: Lake, rule: dict[str, Any], comes_back: bool
) -> None:
    approved = produced_of(3)
    assert approved.asset and approved.verdict and approved.verdict.outcome == "review"
    request_id = approved.request.request_id
    record_review(
        shoot,
        request_id,
        Review("ada", "approve", "no likeness", datetime.now(UTC)),
        changed(approved.asset, state="signed"),
        Signed(b"store", "urn:c2pa:approved", "CN=dev"),
    )
    deliver(shoot, request_id)
    told = replay(shoot, policy_of(rules=[rule]))
    if not comes_back:
        assert told.packs == () and request_id not in {each.request_id for each in told.first}
        return
    first = told.first[0]
    assert (first.request_id, first.was, first.now) == (request_id, "review", "review")
    assert first.packs == ("p1",)
    (pack_told,) = told.packs
    assert (pack_told.pack_id, pack_told.images) == ("p1", 1)
    assert pack_told.rules == {"nsfw.unclothed": 1}
    # A change of verdict it is not.
    assert told.changed == sum(each.was != each.now for each in told.first)


def test_a_batch_committed_while_a_replay_is_applied_keeps_its_verdicts(
    shoot: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = replay_apply._decide

    def judged_while_a_run_commits(*arguments: Any) -> None:
        judge(*arguments)
        with writing(shoot.folder) as other:
            commit_batch(other, "run-2", "b1", [produced_of(13), produced_of(14)])

    monkeypatch.setattr(replay_apply, "_decide", judged_while_a_run_commits)
    policy = policy_of()
    told = apply(shoot, policy, replay(shoot, policy), "ada")
    assert told.replay.judged == 12
    late = [request_of(number).request_id for number in (13, 14)]
    found = shoot.rows(
        "SELECT request_id, outcome, policy, replay_id FROM verdicts "
        "WHERE request_id IN (?, ?) ORDER BY outcome",
        late,
    )
    assert [(row["outcome"], row["policy"], row["replay_id"]) for row in found] == [
        ("block", "retail", None),
        ("review", "retail", None),
    ]
    assert shoot.rows("SELECT count(*) AS n FROM raw.replayed_verdicts") == [{"n": 12}]


def test_applied_verdicts_count_and_the_old_ones_stay(shoot: Lake) -> None:
    policy = policy_of()
    told = apply(shoot, policy, replay(shoot, policy), "ada")
    assert (told.replay.changed, told.to_sign) == (7, 1)
    rows = shoot.rows("SELECT * FROM verdicts ORDER BY request_id")
    assert {row["policy"] for row in rows} == {"strict"} and len(rows) == 12
    history = shoot.rows("SELECT policy, count(*) AS n FROM verdict_history GROUP BY 1 ORDER BY 1")
    assert history == [{"policy": "retail", "n": 12}, {"policy": "strict", "n": 12}]
    (recorded,) = shoot.rows("SELECT * FROM replays")
    assert (recorded["judged"], recorded["changed"], recorded["applied_by"]) == (12, 7, "ada")
    (waiting,) = shoot.rows("SELECT * FROM to_sign")
    assert waiting["request_id"] == request_of(3).request_id
    assert shoot.rows("SELECT name FROM policies")[0]["name"] == "strict"


def test_recorded_reasons_are_those_that_decide_writes(shoot: Lake) -> None:
    policy = policy_of().declared_at({"similarity.nearest": "strict.yaml:7"})
    apply(shoot, policy, replay(shoot, policy), "ada")
    rows = shoot.rows("SELECT request_id, outcome, reasons FROM verdicts")
    by_id = {row["request_id"]: row for row in rows}
    for number in range(12):
        one = produced_of(number)
        verdict = decide(policy, one.request, [LICENCES[one.request.model]], one.scores)
        row = by_id[one.request.request_id]
        assert row["outcome"] == verdict.outcome
        assert [
            (r["text"], r["severity"], r["declared"], r["detector"]) for r in row["reasons"]
        ] == [(r.text, r.severity, r.declared, r.detector) for r in verdict.reasons]
    assert any(r["declared"] == "strict.yaml:7" for row in rows for r in row["reasons"])


def test_a_policy_on_its_own_scores_changes_nothing(shoot: Lake) -> None:
    policy = policy_of()
    apply(shoot, policy, replay(shoot, policy), "ada")
    assert replay(shoot, policy).changed == 0
    # A milder one in between is history.
    mild = policy_of(rules=[], version="3")
    told = apply(shoot, mild, replay(shoot, mild), "ada")
    assert told.replay.now == {"pass": 12, "review": 0, "block": 0}
    assert replay(shoot, policy).now == {"pass": 4, "review": 0, "block": 8}
    assert replay(shoot, mild).changed == 0


def test_what_a_person_rejected_is_not_queued_for_signing(shoot: Lake) -> None:
    rejected = Review("bob", "reject", "looks like a logo", datetime.now(UTC))
    record_review(shoot, request_of(3).request_id, rejected)
    policy = policy_of()
    assert apply(shoot, policy, replay(shoot, policy), "ada").to_sign == 0
    assert shoot.rows("SELECT * FROM to_sign") == []
