"""The file of PDQ hashes: appended to, rewritten without what is gone, searched exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.checks.pdq import pdq
from pipeline.references import hashes as module
from pipeline.references.derive import pdq_of
from pipeline.references.hashes import RECORD, append_hashes, keep_hashes, nearest, read_hashes


def records(*ids: int) -> np.ndarray:
    return np.array([(each, [each] * 4, 80) for each in ids], RECORD)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 300), st.integers(1, 5), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_the_nearest_are_those_of_a_full_sort(
    works: int, queries: int, top: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    # Few different bits, so that many distances are equal.
    known = random.integers(0, 4, (works, 4), dtype=np.uint64)
    asked = random.integers(0, 4, (queries, 4), dtype=np.uint64)
    block = module._BLOCK
    module._BLOCK = 64
    try:
        distances, rows = nearest(asked, known, top)
    finally:
        module._BLOCK = block
    apart = np.bitwise_count(asked[:, None] ^ known[None]).sum(axis=2).astype(int)
    order = np.argsort(apart, axis=1, kind="stable")[:, :top]
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_array_equal(distances, np.take_along_axis(apart, order, 1))


def test_appended_records_are_read_and_a_torn_one_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "hashes.pdq"
    assert len(read_hashes(path)) == 0
    append_hashes(path, records(3, 1))
    with path.open("ab") as file:
        file.write(b"half a record")
    assert read_hashes(path)["id"].tolist() == [1, 3]
    append_hashes(path, records(2))
    assert read_hashes(path)["id"].tolist() == [1, 2, 3]
    assert path.stat().st_size == 3 * RECORD.itemsize


def test_of_an_id_the_last_record_counts_and_a_rewrite_keeps_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "hashes.pdq"
    second = records(7)
    second["quality"] = 99
    append_hashes(path, np.concatenate([records(7, 8, 9), second]))
    assert read_hashes(path)["quality"].tolist() == [99, 80, 80]
    keep_hashes(path, np.array([7, 9]))
    assert path.stat().st_size == 2 * RECORD.itemsize
    assert records(8).tobytes() not in path.read_bytes()
    before = path.stat()
    keep_hashes(path, np.array([7, 9, 11]))
    assert path.stat().st_ino == before.st_ino


@pytest.mark.parametrize("shape", [(64, 64), (40, 57), (3, 90)])
def test_a_picture_is_hashed_as_images_are_that_are_checked(shape: tuple[int, int]) -> None:
    from pipeline.checks import ImageBatch
    from pipeline.request import Request

    picture = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    request = Request(
        sku="a", index=0, mode="text-to-image", model="m", model_revision="r", prompt="",
        negative_prompt="", seed=0, width=shape[1], height=shape[0], steps=1, guidance=1.0,
        scheduler="", campaign="", client="",
    )  # fmt: skip
    hashes, quality = ImageBatch(picture[None], (request,)).pdq
    found, clear = pdq_of(picture)
    np.testing.assert_array_equal(found, hashes[0])
    assert clear == quality[0] and pdq is not None
