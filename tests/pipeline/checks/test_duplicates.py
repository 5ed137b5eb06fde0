"""Duplicates: exact and near, never of oneself, in the order of commits, beyond numpy's growth."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from check_samples import pictures, request_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.checks import Catalogued, ImageBatch, remember
from pipeline.checks.duplicates import Duplicates
from pipeline.checks.pdq import pdq_hex


def scores_of(check, batch):
    return [{score.name: score for score in scores} for scores in check(batch)]


def test_the_same_pixels_for_another_request_are_an_exact_duplicate(batch_of):
    image = pictures(1)
    check = Duplicates()
    remember([check], batch_of(image, "first"))
    (found,) = scores_of(check, batch_of(image, "second"))
    assert found["exact"].value == 1
    assert found["near"].value == 0
    for name, key in (("exact", "duplicate_of"), ("near", "nearest")):
        evidence = found[name].evidence
        assert evidence[key] == {"request_id": request_of("first").request_id, "sku": "first"}
        json.dumps(evidence, allow_nan=False)


def test_a_batch_done_again_has_the_same_scores(batch_of):
    images = pictures(4)
    images[3] = images[1]
    check = Duplicates()
    check.add(batch_of(pictures(5, seed=2), *"abcde"))
    batch = batch_of(images)
    before = check(batch)
    check.add(batch)
    check.add(batch_of(pictures(5, seed=3), *"vwxyz"))
    assert check(batch) == before
    assert [scores[0].value for scores in before] == [0, 0, 0, 1]


def test_an_image_is_compared_with_those_before_it_in_its_batch(batch_of):
    image = pictures(1)[0]
    found = scores_of(Duplicates(), batch_of(np.stack([image, image]), "first", "second"))
    assert [each["exact"].value for each in found] == [0, 1]
    assert [each["near"].value for each in found] == [256, 0]


def test_variations_of_an_item_are_compared_among_themselves():
    one, other = pictures(1, 64, 64)[0], pictures(1, 64, 64, seed=5)[0]
    again = np.clip(one.astype(int) + 6, 0, 255).astype(np.uint8)
    asked = (("cup", 0), ("mug", 0), ("cup", 1), ("mug", 1))
    requests = tuple(request_of(sku, index, 64, 64) for sku, index in asked)
    # The second mug looks like the cups, not like the first mug.
    batch = ImageBatch(np.stack([one, other, again, one]), requests)
    check = Duplicates()
    found = scores_of(check, batch)
    assert [each["in_set"].value for each in found[:2]] == [256, 256]
    assert found[2]["in_set"].value <= 31
    nearest = {"request_id": requests[0].request_id, "sku": "cup"}
    assert found[2]["in_set"].evidence["nearest"] == nearest
    assert found[3]["in_set"].value > 60
    assert found[3]["in_set"].evidence["nearest"]["sku"] == "mug"
    assert found[3]["near"].value <= 31
    check.add(batch)
    assert scores_of(check, batch) == found
    (later,) = scores_of(check, ImageBatch(one[None], (request_of("mug", 2, 64, 64),)))
    assert later["in_set"].value == 0
    assert later["in_set"].evidence["nearest"]["request_id"] == requests[3].request_id


def test_catalogued_images_count_and_their_requests_are_named(batch_of):
    batch = batch_of(pictures(1))
    other = Catalogued("r9", "cup", batch.pixels_sha256[0], batch.perceptual_hashes[0])
    without_hash = Catalogued("r8", "plain", "0" * 64, None)
    (found,) = scores_of(Duplicates([without_hash, other]), batch)
    assert found["exact"].evidence["duplicate_of"] == {"request_id": "r9", "sku": "cup"}
    assert found["near"].evidence["nearest"] == {"request_id": "r9", "sku": "cup"}


def test_a_slightly_changed_picture_is_near_and_another_one_is_not(batch_of):
    image = pictures(1, 64, 64)
    changed = np.clip(image.astype(int) + 6, 0, 255).astype(np.uint8)
    check = Duplicates()
    check.add(batch_of(image, "first"))
    near, far = scores_of(
        check, batch_of(np.concatenate([changed, pictures(1, 64, 64, seed=5)]), "second", "third")
    )
    assert near["exact"].value == 0
    assert near["near"].value <= 31
    assert far["near"].value > 60


def test_a_plain_picture_is_not_compared_and_the_evidence_says_so(batch_of):
    plain = np.full((2, 64, 64, 3), 200, np.uint8)
    batch = batch_of(plain, "first", "second")
    assert batch.perceptual_hashes == (None, None)
    _, second = scores_of(Duplicates(), batch)
    assert second["exact"].value == 1
    for name in ("near", "in_set"):
        assert second[name].value == 256
        assert "quality 0" in second[name].evidence["note"]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 2500))
def test_the_nearest_is_that_of_a_plain_search(seed, count):
    rng = np.random.default_rng(seed)
    known = rng.integers(0, 2**64, (count, 4), dtype=np.uint64)
    rows = [Catalogued(f"r{i}", f"s{i}", f"{i}", pdq_hex(bits)) for i, bits in enumerate(known)]
    rows += [
        Catalogued(f"n{i}", "new", f"n{i}", pdq_hex(bits)) for i, bits in enumerate(known[::3])
    ]
    batch = ImageBatch(pictures(1, 64, 64, seed=1), (request_of("new"),))
    (found,) = scores_of(Duplicates(rows), batch)
    distances = [
        sum(int(a ^ b).bit_count() for a, b in zip(batch.pdq[0][0], row, strict=True))
        for row in known
    ]
    assert found["near"].value == min(distances, default=256)
    assert found["in_set"].value == min(distances[::3], default=256)
    if distances:
        assert found["near"].evidence["nearest"]["sku"] == f"s{int(np.argmin(distances))}"


def test_threads_may_ask_while_another_adds(batch_of):
    check = Duplicates()
    batches = [
        batch_of(pictures(4, seed=seed), *(f"{seed}-{i}" for i in range(4))) for seed in range(40)
    ]
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(check, batch) for batch in batches]
        list(threads.map(check.add, batches))
        assert all(len(future.result()) == 4 for future in asked)
    (found,) = scores_of(check, batch_of(batches[17].images[:1], "late"))
    assert found["exact"].evidence["duplicate_of"]["sku"] == "17-0"


def test_a_catalogued_hash_that_is_none_is_refused():
    with pytest.raises(ValueError, match="not a PDQ hash"):
        Duplicates([Catalogued("r", "s", "0", "abc")])
