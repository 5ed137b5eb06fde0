from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from catalog_samples import begin, failed_of, produced_of, request_of, sha256

from catalog.lake import Lake
from catalog.read import (
    catalogued_images,
    done_request_ids,
    done_under_other_policies,
    find_asset,
    find_assets,
    knows,
    measured_speed,
)
from catalog.story import story
from catalog.write import commit_batch
from pipeline.errors import InputError
from pipeline.records import Produced


def test_done_ids_of_a_long_brief_come_at_once(lake: Lake) -> None:
    commit_batch(lake, "run-1", "b1", [produced_of(n) for n in range(20)])
    ids = [request_of(n).request_id for n in range(20)] + [sha256(str(n)) for n in range(100_000)]
    begun = time.perf_counter()
    assert done_request_ids(lake, ids) == set(ids[:20])
    assert time.perf_counter() - begun < 5


def test_images_judged_by_another_policy_are_counted_by_it(lake: Lake) -> None:
    def judged(number: int, version: str) -> Produced:
        one = produced_of(number)
        assert one.verdict
        digest = sha256(f"policy {version}")
        verdict = replace(one.verdict, policy_version=version, policy_digest=digest)
        return replace(one, verdict=verdict)

    batch = [judged(1, "1"), judged(2, "1"), judged(3, "2"), judged(4, "3"), failed_of(5)]
    commit_batch(lake, "run-1", "b1", batch)
    commit_batch(lake, "run-2", "b1", [judged(1, "3")])
    ids = [request_of(n).request_id for n in (1, 2, 3, 5, 6)]
    counts = {"retail 1": 2, "retail 2": 1}
    assert done_under_other_policies(lake, ids, sha256("policy 3")) == counts
    del counts["retail 2"]
    assert done_under_other_policies(lake, ids * 2, sha256("policy 2")) == counts
    assert done_under_other_policies(lake, [], sha256("policy 2")) == {}


def test_catalogued_images_come_once_each_without_failures(lake: Lake) -> None:
    commit_batch(lake, "run-1", "b1", [produced_of(1), produced_of(3), failed_of(2)])
    commit_batch(lake, "run-2", "b1", [produced_of(1, content=b"again")])
    images = list(catalogued_images(lake))
    assert [image.sku for image in images] == ["MUG-00001", "MUG-00003"] or len(images) == 2
    assert {image.perceptual_hash for image in images} == {sha256("hash 1"), sha256("hash 3")}


def test_files_are_known_by_their_bytes_superseded_ones_included(lake: Lake) -> None:
    first, second = produced_of(1, content=b"first"), produced_of(1, content=b"second")
    commit_batch(lake, "run-1", "b1", [first])
    commit_batch(lake, "run-2", "b1", [second])
    assert first.asset and second.asset
    digests = [first.asset.sha256, second.asset.sha256.upper(), sha256("unknown")]
    known = knows(lake, digests)
    assert set(known) == {first.asset.sha256, second.asset.sha256}
    told = known[first.asset.sha256]
    assert (told["sku"], told["outcome"], told["state"], told["counts"]) == (
        "MUG-00001",
        "pass",
        "signed",
        True,
    )
    assert known[second.asset.sha256]["counts"] is False
    assert knows(lake, []) == {}


def test_an_image_is_found_by_sku_hash_request_or_path(lake: Lake) -> None:
    one = produced_of(1)
    commit_batch(lake, "run-1", "b1", [one, produced_of(2)])
    assert one.asset and one.asset.url
    names = [
        "MUG-00001",
        one.asset.sha256[:8],
        one.asset.sha256.upper(),
        one.request.request_id[:10],
        one.asset.url,
        f"/somewhere/{one.asset.url}",
    ]
    assert {find_asset(lake, name).request_id for name in names} == {one.request.request_id}


def test_a_copy_of_a_file_is_found_by_its_bytes_whatever_its_name(
    lake: Lake, tmp_path: Path
) -> None:
    commit_batch(lake, "run-1", "b1", [produced_of(1), produced_of(2)])
    copy = tmp_path / "MUG-00002"
    copy.write_bytes(b"file 1")
    assert find_asset(lake, str(copy)).sku == "MUG-00001"
    copy.write_bytes(b"somebody else's")
    with pytest.raises(InputError, match="no such image"):
        find_asset(lake, str(copy))
    altered = tmp_path / f"{sha256('file 2')}.png"
    altered.write_bytes(b"altered since")
    assert find_asset(lake, str(altered)).sku == "MUG-00002"


def test_a_name_for_several_or_none_is_answered_with_what_to_give(lake: Lake) -> None:
    commit_batch(lake, "run-1", "b1", [produced_of(1), produced_of(1, index=1)])
    assert [found.index for found in find_assets(lake, "MUG-00001")] == [0, 1]
    with pytest.raises(InputError, match="names 2 images"):
        find_asset(lake, "MUG-00001")
    for unknown in ("MUG-9", "abcdef12", "", "%", "' OR 1=1 --", "a\0b", "a" * 5000):
        with pytest.raises(InputError, match="no such image"):
            find_asset(lake, unknown)


def test_a_story_is_json_with_every_chapter(lake: Lake) -> None:
    begin(lake)
    commit_batch(lake, "run-1", "b1", [failed_of(1)])
    commit_batch(lake, "run-1", "b2", [produced_of(1)])
    told = story(lake, request_of(1).request_id)
    json.dumps(told, allow_nan=False)
    assert told["run"]["brief"] == "spring.csv"
    assert told["request"]["milliseconds"]["sign"] == 6.0
    assert told["request"]["terms"]["licensor"] == "Studio"
    assert [attempt["state"] for attempt in told["attempts"]] == ["failed", "done"]
    assert told["manifests"][0]["bytes"] == 128
    assert told["reviews"] == told["packs"] == []


def test_a_failed_image_has_a_story_too(lake: Lake) -> None:
    commit_batch(lake, "run-1", "b1", [failed_of(1)])
    told = story(lake, request_of(1).request_id)
    assert told["request"]["error"] == "out of memory"
    assert told["verdict"] is told["policy"] is None
    with pytest.raises(InputError, match="no such request"):
        story(lake, "unknown")


def test_speed_is_measured_by_model_on_this_machine(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.node", lambda: "studio")
    assert measured_speed(lake) == {}
    begin(lake)
    commit_batch(lake, "run-1", "b0", [failed_of(5), failed_of(6)])
    assert measured_speed(lake) == {}
    commit_batch(lake, "run-1", "b1", [produced_of(n) for n in (1, 2, 3)])
    speed = measured_speed(lake)
    assert set(speed) == {"starter/text-to-image"}
    assert 0.01 < speed["starter/text-to-image"] < 1000
    commit_batch(lake, "run-1", "b2", [produced_of(9), failed_of(7), failed_of(10), failed_of(11)])
    (seconds,) = lake.rows("SELECT epoch(max(committed_at) - min(committed_at)) AS n FROM batches")
    assert measured_speed(lake)["starter/text-to-image"] == pytest.approx(4 / seconds["n"])
    monkeypatch.setattr("platform.node", lambda: "elsewhere")
    assert measured_speed(lake) == {}
