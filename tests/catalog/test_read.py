from __future__ import annotations

import json
import time

import pytest
from catalog_samples import begin, failed_of, produced_of, request_of, sha256

from catalog.lake import Lake
from catalog.read import (
    catalogued_images,
    done_request_ids,
    find_asset,
    find_assets,
    knows,
    measured_speed,
    state_counts,
)
from catalog.story import story
from catalog.write import commit_batch
from pipeline.errors import InputError


def test_done_ids_of_a_long_brief_come_at_once(lake: Lake) -> None:
    commit_batch(lake, "run-1", "b1", [produced_of(n) for n in range(20)])
    ids = [request_of(n).request_id for n in range(20)] + [sha256(str(n)) for n in range(100_000)]
    begun = time.perf_counter()
    assert done_request_ids(lake, ids) == set(ids[:20])
    assert time.perf_counter() - begun < 5


def test_counts_tell_what_a_brief_still_needs(lake: Lake) -> None:
    commit_batch(lake, "run-1", "b1", [*(produced_of(n) for n in range(5)), failed_of(7)])
    ids = [request_of(n).request_id for n in (0, 1, 2, 3, 4, 7, 8, 9)]
    counts = state_counts(lake, ids)
    assert counts == {"block": 1, "failed": 1, "new": 2, "pass": 3, "review": 1}


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


def test_a_name_for_several_or_none_is_answered_with_what_to_give(lake: Lake) -> None:
    commit_batch(lake, "run-1", "b1", [produced_of(1), produced_of(1, index=1)])
    assert [found.index for found in find_assets(lake, "MUG-00001")] == [0, 1]
    with pytest.raises(InputError, match="names 2 images"):
        find_asset(lake, "MUG-00001")
    for unknown in ("MUG-9", "abcdef12", "", "%", "' OR 1=1 --"):
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
    commit_batch(lake, "run-1", "b1", [produced_of(n) for n in (1, 2, 3)])
    speed = measured_speed(lake)
    assert set(speed) == {"starter/text-to-image"}
    assert 0.01 < speed["starter/text-to-image"] < 1000
    monkeypatch.setattr("platform.node", lambda: "elsewhere")
    assert measured_speed(lake) == {}
