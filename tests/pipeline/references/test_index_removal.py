from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from index_samples import MODEL, D, bytes_in, clustered, unit

from pipeline.errors import InputError
from pipeline.references.index import VectorIndex
from pipeline.references.inverted import InvertedLists
from pipeline.references.rebuild import rebuild
from pipeline.references.state import commit, read_state


def test_removed_vectors_lie_in_no_file(lists: Path) -> None:
    vectors, late = clustered(12_000), clustered(100, seed=3)
    index = VectorIndex.open(lists, MODEL)
    index.add(late, np.arange(100) * 10 + 1)
    reader = VectorIndex.open(lists, MODEL)
    gone = np.concatenate([vectors[:50], late[:50]])
    ids = np.concatenate([np.arange(50) * 10, np.arange(50) * 10 + 1])
    assert sorted(bytes_in(lists, gone)) == ["000001.faiss", "000001.vectors"]
    index.remove(ids)
    assert bytes_in(lists, gone) == []
    for each in (index, reader, VectorIndex.open(lists, MODEL)):
        assert len(each) == 12_000
        assert not np.isin(each.search(gone, 20)[1], ids).any()
        with pytest.raises(InputError, match="id 0: is not in the index"):
            each.vectors(ids[:1])
    kept = np.arange(50, 100)
    assert (index.search(late[50:], 1)[1][:, 0] == kept * 10 + 1).all()
    index.add(gone[:1], ids[:1])
    assert index.search(gone[:1], 1)[1].tolist() == [[0]]


def test_a_removed_vector_does_not_stay_as_the_centroid_of_its_list(folder: Path) -> None:
    vectors = clustered(4_000)
    # Far from all else: k-means gives it a list of its own, with itself as the centroid.
    alone = np.zeros((1, D), np.float32)
    centres = unit(np.linalg.svd(vectors, full_matrices=False)[2])
    alone[0] = -unit(vectors.mean(axis=0, keepdims=True))[0] * 0.9 + centres[-1] * 0.4
    alone = unit(alone)
    vectors = np.concatenate([vectors, np.repeat(alone, 40, axis=0)])
    index = VectorIndex.create(folder, D, MODEL, exact_up_to=1_000)
    index.add(vectors, np.arange(4_040))
    rebuild(folder, threads=1)
    path = read_state(folder).file(folder, "faiss")
    assert (InvertedLists(path).centroids() @ alone[0]).max() > 0.9999
    VectorIndex.open(folder, MODEL).remove(np.arange(4_000, 4_040))
    assert bytes_in(folder, alone) == []
    assert (InvertedLists(path).centroids() @ alone[0]).max() < 0.99
    assert VectorIndex.open(folder, MODEL).search(vectors[:4_000], 1)[0].min() > 0.999


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_a_removal_that_was_killed_is_hidden_and_finished_by_the_next_writer(
    kind: str, lists: Path, tmp_path: Path
) -> None:
    vectors = clustered(12_000)
    folder = lists
    if kind == "exact":
        folder = tmp_path / "exact"
        VectorIndex.create(folder, D, MODEL).add(vectors, np.arange(12_000) * 10)
    index = VectorIndex.open(folder, MODEL)
    rows = index._generation.ids[:30].copy()
    commit(folder, replace(read_state(folder), removing=tuple(range(30))))
    gone = vectors[rows // 10]
    reader = VectorIndex.open(folder, MODEL)
    assert len(reader) == 11_970
    ids = reader.search(gone, 10)[1]
    assert not np.isin(ids, rows).any() and (ids >= 0).all()
    assert bytes_in(folder, gone)
    index.add(clustered(1, seed=8), [7])
    assert bytes_in(folder, gone) == []
    assert len(index) == 11_971
