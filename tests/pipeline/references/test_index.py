from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_samples import MODEL, OTHER, D, Vectors, clustered, edited, unit

from pipeline.errors import InputError, SetupError
from pipeline.references.index import VectorIndex
from pipeline.references.inverted import InvertedLists
from pipeline.references.rebuild import rebuild
from pipeline.references.state import read_state

# --- what a plain dictionary of vectors would say ------------------------------------------------

steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 30)),
        st.tuples(st.just("remove"), st.integers(0, 12)),
        st.tuples(st.sampled_from(["rebuild", "reopen", "search"]), st.integers(1, 40)),
    ),
    max_size=12,
)


@pytest.mark.parametrize("exact_up_to", [1_000, 10], ids=["exact", "lists"])
@settings(max_examples=40, deadline=None)
@given(steps=steps, seed=st.integers(0, 1_000))
def test_any_sequence_is_as_a_dictionary_of_vectors(
    exact_up_to: int, steps: list[tuple[str, int]], seed: int
) -> None:
    random = np.random.default_rng(seed)
    model: dict[int, Vectors] = {}
    # Few directions, so that equal vectors, and equal cosines, are common.
    pool = unit(random.standard_normal((25, 8)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "index"
        index = VectorIndex.create(folder, 8, MODEL, exact_up_to=exact_up_to)
        for what, number in [*steps, ("search", 7)]:
            if what == "add":
                free = np.setdiff1d(np.arange(200), list(model))
                ids = random.choice(free, min(number, len(free)), replace=False)
                vectors = pool[random.integers(0, len(pool), len(ids))]
                index.add(vectors, ids)
                model.update(zip(ids.tolist(), vectors, strict=True))
            elif what == "remove":
                gone = random.permutation(list(model))[:number].astype(np.int64)
                index.remove(gone)
                for one in gone.tolist():
                    del model[one]
            elif what == "rebuild":
                rebuild(folder, threads=1)
            if what in ("rebuild", "reopen"):
                index = VectorIndex.open(folder, MODEL)
            assert len(index) == len(model)
            assert sorted(index.ids.tolist()) == sorted(model)
            if what == "search":
                same_as_model(index, model, pool[:5], top=number)


def same_as_model(
    index: VectorIndex, model: dict[int, Vectors], queries: Vectors, top: int
) -> None:
    ids = np.array(sorted(model), np.int64)
    held = np.array([model[one] for one in ids.tolist()], np.float32).reshape(len(ids), 8)
    cosines, found = index.search(queries, top)
    assert (cosines.dtype, found.dtype) == (np.float32, np.int64)
    for query, near, named in zip(queries, cosines, found, strict=True):
        expected = np.sort(held @ query if len(ids) else np.zeros(0))[::-1][:top]
        assert np.allclose(near[: len(expected)], expected, atol=1e-6)
        assert (near[len(expected) :] == -np.inf).all()
        assert (named[len(expected) :] == -1).all()
        chosen = named[: len(expected)].tolist()
        assert len(set(chosen)) == len(chosen)
        assert np.allclose([model[one] @ query for one in chosen], expected, atol=1e-6)
    assert np.array_equal(index.vectors(ids), held)


# --- lists ---------------------------------------------------------------------------------------


def test_lists_find_the_nearest_of_edited_copies(built: Path) -> None:
    vectors = clustered(12_000)
    index = VectorIndex.open(built, MODEL)
    assert (index.kind, index.stale, len(index)) == ("ivf", "", 12_000)
    assert index.recall >= 0.99
    queries = edited(vectors[::12])
    cosines, ids = index.search(queries, 5)
    exact = (queries @ vectors.T).argmax(axis=1)
    assert (ids[:, 0] == exact * 10).mean() >= 0.99
    assert (np.diff(cosines) <= 0).all()
    state = read_state(built)
    assert state.lists
    lists = InvertedLists(state.file(built, "faiss")).index.nlist
    assert state.lists.nprobe < lists / 4


def test_faiss_reads_the_file_of_lists_itself(built: Path) -> None:
    import faiss

    index = faiss.read_index(str(read_state(built).file(built, "faiss")))
    assert (index.ntotal, index.d, index.is_trained) == (12_000, D, True)
    index.nprobe = index.nlist
    queries = edited(clustered(12_000)[:50])
    assert np.allclose(
        index.search(queries, 1)[0][:, 0], (queries @ clustered(12_000).T).max(axis=1), atol=1e-6
    )


def test_a_pair_has_one_cosine_whatever_the_kind_and_the_batch(built: Path, folder: Path) -> None:
    exact = VectorIndex.create(folder, D, MODEL)
    exact.add(clustered(12_000), np.arange(12_000) * 10)
    queries = edited(clustered(12_000)[:40])
    pairs = set()
    for index in (exact, VectorIndex.open(built, MODEL)):
        for size in (1, 7, 40):
            for start in range(0, 40, size):
                cosines, ids = index.search(queries[start : start + size], 1)
                pairs |= {
                    (start + row, int(one), float(cosine))
                    for row, (one, cosine) in enumerate(zip(ids[:, 0], cosines[:, 0], strict=True))
                }
    assert len(pairs) == len({pair[:2] for pair in pairs})


def test_additions_are_found_at_once_and_call_for_a_rebuild_when_they_are_many(
    lists: Path,
) -> None:
    index = VectorIndex.open(lists, MODEL)
    vectors = clustered(3_000, seed=1)
    trained = read_state(lists)
    index.add(vectors[:200], np.arange(200) * 10 + 1)
    assert index.stale == ""
    assert (index.search(vectors[:200], 1)[1][:, 0] == np.arange(200) * 10 + 1).all()
    assert read_state(lists).generation == trained.generation
    index.add(vectors[200:], np.arange(200, 3_000) * 10 + 1)
    assert "3,000 references were added" in index.stale

    rebuild(lists, threads=1)
    extended = VectorIndex.open(lists, MODEL)
    state = read_state(lists)
    assert state.lists and trained.lists
    assert (state.lists.rows, state.lists.trained_on) == (15_000, trained.lists.trained_on)
    assert extended.stale == "" and extended.recall >= 0.99
    assert (extended.search(vectors, 1)[1][:, 0] == np.arange(3_000) * 10 + 1).all()
    # The one that was open goes on with the generation it has.
    assert np.array_equal(index.search(vectors, 1)[1], extended.search(vectors, 1)[1])


def test_centroids_are_trained_anew_when_the_index_has_doubled(lists: Path) -> None:
    index = VectorIndex.open(lists, MODEL)
    index.add(clustered(13_000, seed=2), np.arange(13_000) * 10 + 1)
    rebuild(lists, threads=1)
    state = read_state(lists).lists
    assert state and state.trained_on == 25_000


def test_lists_that_shrink_become_exact_again(lists: Path) -> None:
    index = VectorIndex.open(lists, MODEL)
    index.remove(np.arange(900, 12_000) * 10)
    assert "holes" in index.stale
    rebuild(lists)
    small = VectorIndex.open(lists, MODEL)
    assert (small.kind, small.recall, len(small), small.stale) == ("exact", 1.0, 900, "")
    assert [path.name for path in sorted(lists.glob("0*"))] == ["000002.ids", "000002.vectors"]


def test_search_is_right_beside_torch_inference(built: Path) -> None:
    """FAISS and torch each bring an OpenMP."""
    import torch

    layer, picture = torch.nn.Conv2d(3, 32, 3), torch.randn(4, 3, 128, 128)
    index = VectorIndex.open(built, MODEL)
    queries = edited(clustered(12_000)[:64])
    before, result = layer(picture), index.search(queries, 3)
    for _ in range(5):
        assert torch.equal(layer(picture), before)
        again = index.search(queries, 3)
        assert all(np.array_equal(*pair) for pair in zip(result, again, strict=True))


@pytest.mark.skipif("not __import__('torch').cuda.is_available()")
def test_an_accelerator_compares_with_all(built: Path) -> None:
    queries, vectors = edited(clustered(12_000)), clustered(12_000)
    ids = VectorIndex.open(built, MODEL).search(queries, 1, "cuda")[1]
    assert (ids[:, 0] == (queries @ vectors.T).argmax(axis=1) * 10).mean() > 0.9999


# --- what is refused -----------------------------------------------------------------------------


def test_all_faults_of_an_addition_are_told_at_once(folder: Path) -> None:
    index = VectorIndex.create(folder, D, MODEL)
    index.add(clustered(3), [1, 2, 3])
    vectors = clustered(6)
    vectors[0, 0], vectors[1, 1] = np.nan, np.inf
    vectors[2] *= 2
    with pytest.raises(InputError) as refused:
        index.add(vectors, [2, 3, 7, 7, -4, 9])
    assert [f"{fault.where}: {fault.what}" for fault in refused.value.faults] == [
        "vector 0: is not a number",
        "vector 1: is not a number",
        "vector 2: has length 2, not 1",
        "id -4: is negative",
        "id 7: is given twice",
        "id 2: is in the index already",
        "id 3: is in the index already",
    ]
    assert sorted(index.ids.tolist()) == [1, 2, 3]


@pytest.mark.parametrize(
    ("vectors", "ids", "message"),
    [
        (clustered(2, dimension=16), [1, 2], "shape is 2 × 16, not N × 32"),
        (clustered(2)[0], [1], "shape is 32, not N × 32"),
        (clustered(2), [1], "1 ids for 2 vectors"),
        (clustered(2), [1.0, 2.0], "ids are float64"),
        (clustered(2), [[1], [2]], "2 ids for 2 vectors"),
        (np.zeros((1, D)), [1], "length 0, not 1"),
        (clustered(1), np.array([2**64 - 1], np.uint64), "id -1: is negative"),
    ],
)
def test_additions_of_the_wrong_form_are_refused(
    folder: Path, vectors: Vectors, ids: list[int], message: str
) -> None:
    index = VectorIndex.create(folder, D, MODEL)
    with pytest.raises(InputError, match=message):
        index.add(vectors, ids)
    assert len(index) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_query_that_is_not_a_number_is_not_called_unlike(built: Path, value: float) -> None:
    index = VectorIndex.open(built, MODEL)
    queries = clustered(3)
    queries[1, 4] = value
    cosines, ids = index.search(queries, 4)
    assert np.isnan(cosines[1]).all() and (ids[1] == -1).all()
    assert np.isfinite(cosines[[0, 2]]).all() and (ids[[0, 2]] >= 0).all()


@pytest.mark.parametrize("queries", [np.ones((1, D)), clustered(1, dimension=8), clustered(1)[0]])
def test_queries_that_are_not_unit_vectors_are_refused(built: Path, queries: Vectors) -> None:
    with pytest.raises(InputError, match="queries"):
        VectorIndex.open(built, MODEL).search(queries, 1)


def test_an_unknown_id_is_refused_and_nothing_is_removed(folder: Path) -> None:
    index = VectorIndex.create(folder, D, MODEL)
    index.add(clustered(3), [1, 2, 3])
    with pytest.raises(InputError, match=r"id 8.*\n.*id 9"):
        index.remove([1, 8, 9])
    assert len(index) == 3


def test_embeddings_of_another_model_are_not_opened(built: Path) -> None:
    with pytest.raises(SetupError, match=r"model aaaa.*not of bbbb.*never mixed; embed"):
        VectorIndex.open(built, OTHER)


@pytest.mark.parametrize("change", [rebuild, lambda folder: VectorIndex.open(folder, MODEL)])
def test_an_absent_index_is_told_as_such(change: Callable[[Path], object], folder: Path) -> None:
    with pytest.raises(SetupError, match="create the library first"):
        change(folder)


def test_an_index_is_not_created_over_another(built: Path) -> None:
    with pytest.raises(SetupError, match="already; open it"):
        VectorIndex.create(built, D, MODEL)


@pytest.mark.parametrize(
    ("name", "harm", "message"),
    [
        ("index.json", None, "no index in"),
        ("index.json", lambda data: data[:-20], "index.json cannot be read"),
        ("index.json", lambda data: b"[]", "index.json cannot be read"),
        ("index.json", lambda data: data.replace(b'"rows"', b'"rose"'), "cannot be read"),
        ("index.json", lambda data: data.replace(b'"format": 1', b'"format": 9'), "version"),
        ("000001.ids", None, "000001.ids is absent"),
        ("000001.ids", lambda data: data[:-8], "000001.ids is too short"),
        ("000001.vectors", None, "000001.vectors is absent"),
        ("000001.vectors", lambda data: data[:-1], "000001.vectors is too short"),
        ("000001.assigned", None, "000001.assigned is absent"),
        ("000001.assigned", lambda data: data[:-1], "000001.assigned is too short"),
        ("000001.faiss", None, "000001.faiss is absent"),
        ("000001.faiss", lambda data: data[:-10_000], "000001.faiss"),
        ("000001.faiss", lambda data: b"IxFI" + data[4:], "000001.faiss"),
        ("000001.faiss", lambda data: b"", "000001.faiss cannot be read"),
    ],
)
def test_damaged_files_are_not_opened(
    lists: Path, name: str, harm: Callable[[bytes], bytes] | None, message: str
) -> None:
    VectorIndex.open(lists, MODEL).add(clustered(3, seed=9), [1, 2, 3])
    path = lists / name
    if harm:
        path.write_bytes(harm(path.read_bytes()))
    else:
        path.unlink()
    with pytest.raises(SetupError, match=message):
        VectorIndex.open(lists, MODEL)


def test_a_vector_that_became_no_number_on_disk_stops_the_search(folder: Path) -> None:
    VectorIndex.create(folder, D, MODEL).add(clustered(50), np.arange(50))
    path = folder / "000000.vectors"
    data = bytearray(path.read_bytes())
    data[400:404] = np.float32(np.nan).tobytes()
    path.write_bytes(data)
    with pytest.raises(SetupError, match=r"damaged.*not a number"):
        VectorIndex.open(folder, MODEL).search(clustered(2), 1)
