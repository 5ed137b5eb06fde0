"""Reference libraries: every fault at once, embeddings kept, similarity by exact cosines."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from check_samples import RIGHTS_HEADER, Spec, pictures
from PIL import Image

from pipeline.checks.embed import load_clip
from pipeline.checks.library import Library, load_library
from pipeline.checks.rights import Reference
from pipeline.checks.similarity import Similarity
from pipeline.errors import InputError, SetupError


@pytest.fixture
def encoder(clip_spec):
    return load_clip(clip_spec, "cpu")


def load(folder: Path, encoder) -> Library:
    return load_library("works", folder, encoder, folder.parent / "cache")


def faults_of(folder: Path, encoder) -> list[str]:
    with pytest.raises(InputError) as caught:
        load(folder, encoder)
    return [str(fault) for fault in caught.value.faults]


def test_a_library_holds_its_works_with_rights_hashes_and_embeddings(library_folder, encoder):
    library = load(library_folder, encoder)
    assert [work.file for work in library.references] == ["a.png", "logos/b.png", "own.png"]
    star = library.references[1]
    assert (star.title, star.rights_holder, star.role) == ("Star, red", "Nova AG", "protected")
    assert len(star.sha256) == 64
    np.testing.assert_allclose(
        library.embeddings, encoder.images(pictures(3, seed=7)), rtol=0, atol=1e-5
    )


def test_embeddings_are_kept_until_a_file_changes(library_folder, encoder):
    first = load(library_folder, encoder)
    (kept,) = (library_folder.parent / "cache").iterdir()
    marked = np.load(kept)
    marked[:] = 0.25
    np.save(kept, marked)
    assert (load(library_folder, encoder).embeddings == 0.25).all()
    Image.fromarray(pictures(1, seed=9)[0]).save(library_folder / "a.png")
    changed = load(library_folder, encoder)
    assert changed.content_sha256 != first.content_sha256
    assert not (changed.embeddings == 0.25).any()


def test_another_model_gets_embeddings_of_its_own(library_folder, encoder, clip_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(clip_folder, other)
    weights = load_file(other / "open_clip_model.safetensors")
    weights["visual.proj"] = -weights["visual.proj"].flip(0)
    save_file(weights, other / "open_clip_model.safetensors")
    first = load(library_folder, encoder)
    second = load(library_folder, load_clip(Spec("other", "open-clip", str(other)), "cpu"))
    assert second.content_sha256 == first.content_sha256
    assert np.abs(second.embeddings - first.embeddings).max() > 0.1


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY broken", None])
def test_a_damaged_cache_is_made_anew(library_folder, encoder, damage):
    first = load(library_folder, encoder)
    (kept,) = (library_folder.parent / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:-40] if damage is None else damage)
    np.testing.assert_array_equal(load(library_folder, encoder).embeddings, first.embeddings)


def test_all_faults_are_told_at_once_with_file_row_and_remedy(library_folder, encoder):
    truncated = (library_folder / "own.png").read_bytes()[:200]
    (library_folder / "broken.png").write_bytes(truncated)
    (library_folder / "stray.jpg").write_bytes(b"x")
    (library_folder.parent / "secret.png").write_bytes(truncated)
    table = library_folder / "rights.csv"
    table.write_text(
        f"{RIGHTS_HEADER}\n"
        "a.png,Fox,Fable Ltd,reserved,protected,\n"
        "./a.png,Fox,Fable Ltd,reserved,protected,\n"
        "logos/b.png,Star,Nova AG,reserved,rented,\n"
        "gone.png,Gone,Nova AG,reserved,protected,\n"
        "../secret.png,Secret,Nova AG,reserved,protected,\n"
        f"{library_folder.parent}/secret.png,Secret,Nova AG,reserved,protected,\n"
        "own.png,,Us,own work,own,\n"
        "broken.png,Broken,Nova AG,reserved,protected,\n"
        "too,few\n"
    )
    faults = faults_of(library_folder, encoder)
    for where, what, remedy in [
        ("row 3", "listed in row 2 already", "one row a file"),
        ("row 4, role", "'rented' is no role", "protected or own"),
        ("row 5, file", "'gone.png' is missing", "drop the row"),
        ("row 6, file", "leaves the library's folder", "inside it"),
        ("row 7, file", "leaves the library's folder", "inside it"),
        ("row 8, title", "empty", "fill it in"),
        ("broken.png", "broken: ", "replace the file"),
        ("row 10", "not 6 fields", "quote fields"),
        ("rights.csv", "'stray.jpg' has no row", "add one"),
    ]:
        assert any(where in each and what in each and remedy in each for each in faults), what
    assert len(faults) == 9


def test_a_link_that_leaves_the_folder_is_refused(library_folder, encoder):
    outside = library_folder.parent / "outside.png"
    (library_folder / "a.png").rename(outside)
    (library_folder / "a.png").symlink_to(outside)
    assert any(
        "leaves the library's folder" in fault for fault in faults_of(library_folder, encoder)
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "no column 'file'"),
        (b"file,title\na.png,Fox\n", "no column 'rights_holder'"),
        (RIGHTS_HEADER.encode() + b",extra\n", "unknown column 'extra'"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (RIGHTS_HEADER.encode() + b'\n"a.png,Fox\n', "unexpected end of data"),
    ],
)
def test_a_table_that_cannot_be_read_is_told(library_folder, encoder, content, said):
    table = library_folder / "rights.csv"
    table.unlink()
    if content is not None:
        table.write_bytes(content)
    assert any(said in fault for fault in faults_of(library_folder, encoder))


def test_bom_crlf_and_semicolons_are_read(library_folder, encoder):
    table = library_folder / "rights.csv"
    rows = table.read_text().replace("Star, red", "Star").replace('"', "").replace(",", ";")
    table.write_bytes(b"\xef\xbb\xbf" + rows.replace("\n", "\r\n").encode())
    assert len(load(library_folder, encoder).references) == 3


def test_a_cache_that_cannot_be_written_is_told(library_folder, encoder):
    (library_folder.parent / "cache").write_text("a file where the folder should be")
    with pytest.raises(SetupError, match="cannot be kept"):
        load(library_folder, encoder)


def test_an_empty_library_stops_the_run(library_folder, encoder):
    for file in library_folder.rglob("*.png"):
        file.unlink()
    (library_folder / "rights.csv").write_text(RIGHTS_HEADER + "\n")
    with pytest.raises(SetupError, match="is empty"):
        load(library_folder, encoder)


def reference(index: int, role: str = "protected") -> Reference:
    return Reference("big", f"{index}.png", "0" * 64, f"work {index}", "holder", "all", role)


def test_a_copy_of_a_protected_work_is_found_with_its_rights(library_folder, encoder, batch_of):
    check = Similarity(encoder, [load(library_folder, encoder)], top=2)
    copy = pictures(3, seed=7)[1:2]
    ((score,),) = check(batch_of(copy))
    assert (score.check, score.name) == ("similarity", "nearest")
    assert score.value == pytest.approx(1, abs=1e-5)
    nearest = score.evidence["nearest"]
    assert nearest[0]["title"] == "Star, red"
    assert nearest[0]["rights_holder"] == "Nova AG"
    assert nearest[0]["cosine"] == pytest.approx(score.value)
    assert len(nearest) == 2
    assert score.evidence["library_size"] == 3
    assert score.evidence["revision"] == "r1"
    json.dumps(score.evidence, allow_nan=False)


def test_own_works_are_reported_and_not_counted(library_folder, encoder, batch_of):
    check = Similarity(encoder, [load(library_folder, encoder)])
    ((score,),) = check(batch_of(pictures(3, seed=7)[2:]))
    assert score.evidence["own"][0]["file"] == "own.png"
    assert score.evidence["own"][0]["cosine"] == pytest.approx(1, abs=1e-5)
    assert score.value < 0.999
    assert {match["role"] for match in score.evidence["nearest"]} == {"protected"}


def test_top_matches_equal_a_full_sort_over_several_libraries(encoder, batch_of):
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(500, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    works = tuple(reference(index) for index in range(500))
    halves = [Library("x", works[:200], rows[:200], ""), Library("y", works[200:], rows[200:], "")]
    batch = batch_of(pictures(4))
    scores = Similarity(encoder, halves, top=7)(batch)
    cosines = batch.embedding(encoder) @ rows.T
    for (score,), row in zip(scores, cosines, strict=True):
        ranked = np.argsort(-row)[:7]
        assert [match["file"] for match in score.evidence["nearest"]] == [
            f"{i}.png" for i in ranked
        ]
        assert score.value == pytest.approx(row.max())
        assert score.evidence["libraries"] == {"x": 200, "y": 300}


def test_without_a_protected_work_similarity_cannot_run(encoder):
    works = (reference(0, "own"),)
    with pytest.raises(SetupError, match="at least one `protected`"):
        Similarity(encoder, [Library("x", works, np.ones((1, 16), np.float32), "")])


def test_a_nan_embedding_gives_a_nan_score(library_folder, encoder, batch_of):
    check = Similarity(encoder, [load(library_folder, encoder)])
    batch = batch_of(pictures(1))
    batch.embedding(encoder)[0] = np.nan
    ((score,),) = check(batch)
    assert np.isnan(score.value)
    json.dumps(score.evidence, allow_nan=False)
