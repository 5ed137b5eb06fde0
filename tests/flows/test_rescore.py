"""The rescore flow on real files: what lacks is measured, once, and what cannot be is told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "catalog"))

from catalog_samples import begin, produced_of, request_of
from workspace_samples import HELD, MILD, shoot

from catalog.lake import reading, writing
from catalog.replay import replay
from catalog.rescore import record_rescores, words_of_items
from catalog.write import commit_batch
from pipeline.records import Score
from pipeline.settings import Settings
from pipeline.store import path_of

NEW = """
policy: new
version: '1'
checks: {quality: {}, duplicates: {}, nsfw: {concepts: {model: starter-clip, unsafe: [a logo],
  safe: [noise, a mug]}}}
licences: [Apache-2.0]
rules:
- {check: quality, score: decodes, block: {below: 1}}
- {check: duplicates, score: exact, block: {at_least: 1}}
- {check: nsfw, score: concept, block: {at_least: 1}}
"""
Rescore = Callable[..., dict[str, Any]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(workspace=tmp_path / "ws")


@pytest.fixture
def rescore(settings: Settings, tmp_path: Path, prefect_api: str) -> Rescore:
    from flows.rescore import rescore as flow

    (tmp_path / "new.yaml").write_text(NEW)

    def run(where: str | None = None) -> dict[str, Any]:
        told: dict[str, Any] = flow(str(tmp_path / "new.yaml"), where, str(settings.workspace))
        return told

    return run


def rows(settings: Settings, sql: str) -> list[dict[str, Any]]:
    with reading(settings.catalog) as lake:
        return lake.rows(sql)


def test_what_lacks_is_measured_once_and_the_new_policy_can_judge(
    settings: Settings, rescore: Rescore
) -> None:
    from pipeline.policy import policy_from_text

    shoot(settings, MILD, ["pass", "pass"])
    (discarded,) = shoot(settings, HELD, [None], first=5)
    (lost,) = shoot(settings, HELD, ["review"], first=6)
    (url,) = rows(settings, "SELECT url FROM images WHERE sku = 'MUG-00006'")
    path_of(settings, url["url"]).write_bytes(b"something else")
    before = rows(settings, "SELECT * FROM raw.images ORDER BY ALL")

    told = rescore()
    assert (told["asked"], told["measured"]) == (4, 2)
    assert told["checks"] == ["duplicates", "nsfw"]
    why = {each["request_id"]: each["error"] for each in told["not_measured"]}
    assert "discarded" in why[discarded.request_id]
    assert "not the file that was catalogued" in why[lost.request_id]
    # What was measured at first stays, beside it what was measured now.
    assert rows(settings, "SELECT * FROM raw.images ORDER BY ALL") == before
    found = rows(settings, "SELECT score, count(*) AS n FROM scores GROUP BY 1 ORDER BY 1")
    counts = {row["score"]: row["n"] for row in found}
    assert counts["nsfw.concept"] == counts["duplicates.exact"] == counts["duplicates.near"] == 2
    assert counts["quality.sharpness"] == 4

    again = rescore()
    assert (again["asked"], again["measured"]) == (2, 0)
    judged = replay(settings.catalog, policy_from_text(NEW))
    assert judged.now == {"pass": 2, "review": 0, "block": 2}
    assert judged.missing == {"duplicates.exact": 2, "nsfw.concept": 2}


def test_an_image_is_no_duplicate_of_itself_and_of_an_earlier_one_it_is(
    settings: Settings, rescore: Rescore
) -> None:
    first, second = shoot(settings, MILD, ["pass", "pass"])
    with writing(settings.catalog) as lake:
        lake.transact(
            lambda connection: connection.execute("UPDATE raw.images SET pixels_sha256 = 'same'")
        )
    rescore()
    found = rows(
        settings,
        "SELECT request_id, value, evidence ->> '$.duplicate_of.request_id' AS of FROM scores "
        "WHERE score = 'duplicates.exact'",
    )
    by_id = {row["request_id"]: (row["value"], row["of"]) for row in found}
    earlier, later = sorted([first.request_id, second.request_id])
    assert by_id == {earlier: (0.0, None), later: (1.0, earlier)}


def test_scores_of_other_weights_are_measured_again(settings: Settings, rescore: Rescore) -> None:
    (request,) = shoot(settings, MILD, ["pass"])
    rescore()
    (tried,) = rows(settings, "SELECT attempt FROM attempts")
    old = Score("nsfw", "concept", 1.0, {"detector": "open-clip", "weights_sha256": "old"})
    with writing(settings.catalog) as lake:
        record_rescores(lake, {(request.request_id, tried["attempt"]): [old]})
    told = rescore()
    assert (told["measured"], told["checks"]) == (1, ["nsfw"])
    (row,) = rows(settings, "SELECT value, revision FROM scores WHERE score = 'nsfw.concept'")
    assert row["value"] < 1 and row["revision"] != "old"
    assert rescore()["asked"] == 0


def test_only_what_a_condition_names_is_measured(settings: Settings, rescore: Rescore) -> None:
    shoot(settings, MILD, ["pass", "pass"])
    assert rescore("sku = 'MUG-00001'")["measured"] == 1
    assert rescore()["measured"] == 1


def test_the_words_of_an_item_are_those_of_its_first_step(settings: Settings) -> None:
    first = request_of(101, prompt="a white mug on a beige background")
    made = [
        produced_of(1, campaign="spring"),
        produced_of(2, campaign="spring", prompt="on a pale green background", earlier=(first,)),
        produced_of(3, campaign="spring", prompt="once more", earlier=(first, request_of(102))),
        produced_of(4, campaign="autumn"),
        produced_of(5, campaign="spring", client="rival"),
    ]
    with writing(settings.catalog) as lake:
        begin(lake)
        commit_batch(lake, "run-1", "b1", made)
        assert words_of_items(lake, "spring", "acme") == {
            "MUG-00001": "a blue mug number 1",
            "MUG-00002": "a white mug on a beige background",
            "MUG-00003": "a white mug on a beige background",
        }
