from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from catalog_samples import TERMS, begin, failed_of, produced_of, request_of, sha256

from catalog.lake import Lake, reading
from catalog.read import done_request_ids
from catalog.story import story
from catalog.upkeep import merge_small_files
from catalog.write import (
    MERGE_EVERY,
    commit_batch,
    finish_run,
    record_terms,
    register_model,
    register_policy,
)


def images(lake: Lake) -> list[dict[str, object]]:
    return lake.rows('SELECT * FROM images ORDER BY sku, "index"')


def test_everything_about_an_image_is_a_column(lake: Lake) -> None:
    register_model(
        lake, name="starter/text-to-image", revision="r1", licence="Apache-2.0", source="local"
    )
    produced = produced_of(1)
    commit_batch(lake, "run-1", "b1", [produced])
    (row,) = images(lake)
    assert produced.asset and produced.verdict and produced.signed
    expected = {
        "request_id": produced.request.request_id,
        "sku": "MUG-00001",
        "prompt": produced.request.prompt,
        "prompt_sha256": sha256(produced.request.prompt),
        "seed": 1,
        "model_licence": "Apache-2.0",
        "terms_id": "spring-web",
        "expires": date(2030, 12, 31),
        "outcome": "pass",
        "policy_digest": produced.verdict.policy_digest,
        "sha256": produced.asset.sha256,
        "asset_state": "signed",
        "perceptual_hash": produced.perceptual_hash,
        "c2pa_label": "urn:c2pa:1",
        "certificate": "CN=dev",
        "cleared": True,
    }
    assert {name: row[name] for name in expected} == expected
    manifest = lake.rows("SELECT manifest FROM manifests")[0]["manifest"]
    assert manifest == produced.signed.manifest


def test_scores_and_reasons_are_kept_raw_with_their_evidence(lake: Lake) -> None:
    produced = produced_of(4)
    commit_batch(lake, "run-1", "b1", [produced])
    told = story(lake, produced.request.request_id)
    assert [(row["score"], row["value"]) for row in told["scores"]] == [
        ("nsfw.unclothed", 0.4),
        ("quality.sharpness", 0.9),
        ("similarity.nearest", produced.scores[0].value),
    ]
    assert told["scores"][2]["evidence"] == produced.scores[0].evidence
    (reason,) = told["verdict"]["reasons"]
    assert (reason["outcome"], reason["bound"]) == ("block", 0.5)
    assert reason["evidence"]["nearest"][0]["title"] == "Logo 4"


def test_numbers_that_json_cannot_say_do_not_stop_a_batch(lake: Lake) -> None:
    one = produced_of(1)
    odd = replace(one.scores[0], value=float("nan"), evidence={"margin": float("inf")})
    commit_batch(lake, "run-1", "b1", [replace(one, scores=(odd,))])
    (row,) = lake.rows("SELECT isnan(value) AS nan, evidence ->> 'margin' AS margin FROM scores")
    assert row == {"nan": True, "margin": "inf"}


def test_a_batch_sent_twice_is_recorded_once(lake: Lake) -> None:
    batch = [produced_of(1), produced_of(2)]
    assert commit_batch(lake, "run-1", "b1", batch)
    assert not commit_batch(lake, "run-1", "b1", batch)
    assert lake.rows("SELECT count(*) AS n FROM raw.images") == [{"n": 2}]
    assert commit_batch(lake, "run-2", "b1", batch), "another run's batch is another batch"


def test_a_request_made_by_two_runs_counts_once_and_the_first_one_counts(lake: Lake) -> None:
    first, second = produced_of(1, content=b"first"), produced_of(1, "block", content=b"second")
    commit_batch(lake, "run-1", "b1", [first])
    commit_batch(lake, "run-2", "b1", [second])
    (row,) = images(lake)
    assert first.asset
    assert (row["sha256"], row["outcome"], row["run_id"]) == (first.asset.sha256, "pass", "run-1")
    for view, rows in {
        "requests": 1,
        "verdicts": 1,
        "assets": 1,
        "manifests": 1,
        "scores": 3,
    }.items():
        assert lake.rows(f"SELECT count(*) AS n FROM {view}") == [{"n": rows}], view
    assert lake.rows("SELECT run_id FROM attempts WHERE counts") == [{"run_id": "run-1"}]
    assert lake.rows("SELECT count(*) AS n FROM attempts") == [{"n": 2}]


def test_a_failure_is_a_row_and_a_later_success_supersedes_it(lake: Lake) -> None:
    commit_batch(lake, "run-1", "b1", [failed_of(1, "first"), produced_of(2)])
    commit_batch(lake, "run-1", "b2", [failed_of(1, "second")])
    failed = images(lake)[0]
    assert (failed["state"], failed["error"], failed["outcome"]) == ("failed", "second", None)
    ids = [request_of(n).request_id for n in (1, 2, 3)]
    assert done_request_ids(lake, ids) == {ids[1]}
    commit_batch(lake, "run-2", "b1", [produced_of(1)])
    made = images(lake)[0]
    assert (made["state"], made["error"], made["outcome"]) == ("done", None, "pass")
    commit_batch(lake, "run-3", "b1", [failed_of(1, "late")])
    assert images(lake)[0]["state"] == "done"
    assert done_request_ids(lake, ids) == set(ids[:2])


def test_an_image_without_error_or_verdict_is_refused_before_anything_is_written(
    lake: Lake,
) -> None:
    with pytest.raises(ValueError, match="neither"):
        commit_batch(lake, "run-1", "b1", [produced_of(1), replace(produced_of(2), verdict=None)])
    assert images(lake) == []


def test_runs_say_how_they_ended_and_what_they_made(lake: Lake) -> None:
    begin(lake)
    begin(lake)
    (row,) = lake.rows("SELECT * FROM runs")
    assert (row["status"], row["images"], row["brief_sha256"]) == ("unfinished", 0, sha256("brief"))
    commit_batch(lake, "run-1", "b1", [produced_of(1), failed_of(2)])
    finish_run(lake, "run-1", "interrupted")
    finish_run(lake, "run-1", "completed")
    (row,) = lake.rows("SELECT * FROM runs")
    assert (row["status"], row["images"], row["failed"]) == ("completed", 2, 1)


def test_new_terms_replace_old_ones_without_a_new_image(lake: Lake) -> None:
    commit_batch(lake, "run-1", "b1", [produced_of(1), produced_of(2)])
    longer = {**TERMS, "id": "longer", "expires": None}
    assert record_terms(lake, [request_of(1), request_of(2), request_of(3)]) == 0
    assert record_terms(lake, [request_of(1, terms=longer), request_of(2)]) == 1
    assert record_terms(lake, [request_of(1, terms=longer)]) == 0
    assert [(row["terms_id"], row["expires"]) for row in images(lake)] == [
        ("longer", None),
        ("spring-web", date(2030, 12, 31)),
    ]
    assert record_terms(lake, [request_of(1)]) == 1
    assert images(lake)[0]["terms_id"] == "spring-web"
    assert record_terms(lake, [request_of(1, terms={})]) == 1
    assert images(lake)[0]["terms"] is None


def test_a_policy_is_kept_once_with_its_text(lake: Lake) -> None:
    for _ in range(2):
        register_policy(lake, digest="d1", name="retail", version="1", text="rules: {}\n")
    assert [row["text"] for row in lake.rows("SELECT * FROM policies")] == ["rules: {}\n"]
    assert lake.rows("SELECT count(*) AS n FROM raw.policies") == [{"n": 1}]


def test_a_models_licence_is_the_last_one_registered_and_history_is_kept(lake: Lake) -> None:
    for licence in ("openrail", "openrail", "Apache-2.0", "openrail"):
        register_model(
            lake, name="m", revision="1", licence=licence, source="hub", details={"a": 1}
        )
    assert [row["licence"] for row in lake.rows("SELECT * FROM models")] == ["openrail"]
    history = lake.rows("SELECT licence FROM raw.models ORDER BY registered_at")
    assert [row["licence"] for row in history] == ["openrail", "Apache-2.0", "openrail"]


def test_many_batches_are_merged_along_the_way(lake: Lake) -> None:
    lake.unmerged = MERGE_EVERY - 2
    for number in range(3):
        commit_batch(lake, "run-1", f"b{number}", [produced_of(number)])
    files = lake.rows("SELECT * FROM ducklake_list_files('lake', 'images', schema => 'raw')")
    assert len(files) == 2
    assert lake.unmerged == 1


def test_a_reader_goes_on_while_the_files_it_reads_are_merged(lake: Lake) -> None:
    for number in range(3):
        commit_batch(lake, "run-1", f"b{number}", [produced_of(number)])
    with reading(lake.folder) as reader:
        for number in range(3, 6):
            merge_small_files(lake)
            commit_batch(lake, "run-1", f"b{number}", [produced_of(number)])
        merge_small_files(lake)
        assert len(reader.rows("SELECT * FROM images")) == 3
    assert len(images(lake)) == 6
