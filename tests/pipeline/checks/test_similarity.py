"""Similarity: exact cosines over several libraries of the catalog, rights and sizes as evidence."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from check_samples import RIGHTS_HEADER, pictures
from PIL import Image

from pipeline.checks.embed import load_clip
from pipeline.checks.similarity import Similarity
from pipeline.errors import SetupError


@pytest.fixture
def encoder(clip_spec):
    return load_clip(clip_spec, "cpu")


def folder_of(folder: Path, images, role: str = "protected") -> Path:
    folder.mkdir()
    rows = [RIGHTS_HEADER]
    for number, image in enumerate(images):
        name = f"{folder.name}{number}.png"
        Image.fromarray(image).save(folder / name)
        rows.append(f"{name},work {number},holder,all,{role},")
    (folder / "rights.csv").write_text("\n".join(rows))
    return folder


def test_a_copy_of_a_protected_work_is_found_with_its_rights(
    open_folders, library_folder, encoder, batch_of
):
    library = open_folders(works=library_folder)("works")
    ((score,),) = Similarity(encoder, [library], top=2)(batch_of(pictures(3, seed=7)[1:2]))
    assert (score.check, score.name) == ("similarity", "nearest")
    assert score.value == pytest.approx(1, abs=1e-5)
    nearest = score.evidence["nearest"]
    assert (nearest[0]["library"], nearest[0]["title"]) == ("works", "Star, red")
    assert nearest[0]["rights_holder"] == "Nova AG"
    assert nearest[0]["cosine"] == pytest.approx(score.value)
    assert len(nearest) == 2 and len(nearest[0]["sha256"]) == 64
    assert score.evidence["library_size"] == 3
    assert score.evidence["libraries"] == {"works": 3}
    assert score.evidence["library_digests"] == {"works": library.digest}
    assert score.evidence["revision"] == "r1"
    json.dumps(score.evidence, allow_nan=False)


def test_own_works_are_reported_and_not_counted(open_folders, library_folder, encoder, batch_of):
    check = Similarity(encoder, [open_folders(works=library_folder)("works")])
    ((score,),) = check(batch_of(pictures(3, seed=7)[2:]))
    assert score.evidence["own"][0]["file"] == "own.png"
    assert score.evidence["own"][0]["cosine"] == pytest.approx(1, abs=1e-5)
    assert score.value < 0.999
    assert {match["role"] for match in score.evidence["nearest"]} == {"protected"}


def test_top_matches_equal_a_full_sort_over_several_libraries(
    open_folders, tmp_path, encoder, batch_of
):
    images = pictures(50, seed=3)
    opened = open_folders(
        x=folder_of(tmp_path / "x", images[:20]), y=folder_of(tmp_path / "y", images[20:])
    )
    names = [f"x{number}.png" for number in range(20)] + [f"y{number}.png" for number in range(30)]
    batch = batch_of(pictures(4))
    scores = Similarity(encoder, [opened("x"), opened("y")], top=7)(batch)
    cosines = batch.embedding(encoder) @ encoder.images(images).T
    for (score,), row in zip(scores, cosines, strict=True):
        ranked = np.argsort(-row)[:7]
        assert [match["file"] for match in score.evidence["nearest"]] == [names[i] for i in ranked]
        assert score.value == pytest.approx(row.max(), abs=1e-5)
        assert score.evidence["libraries"] == {"x": 20, "y": 30}
        assert score.evidence["library_size"] == 50


def test_without_a_protected_work_similarity_cannot_run(open_folders, tmp_path, encoder):
    library = open_folders(ours=folder_of(tmp_path / "ours", pictures(2), "own"))("ours")
    with pytest.raises(SetupError, match=r"'ours'.*none has a `protected`"):
        Similarity(encoder, [library])


def test_an_empty_library_beside_a_full_one_is_refused(
    open_folders, library_folder, tmp_path, encoder
):
    opened = open_folders(works=library_folder, rivals=folder_of(tmp_path / "rivals", []))
    with pytest.raises(SetupError, match=r"'rivals' has no work that counts today.*similarity"):
        Similarity(encoder, [opened("works"), opened("rivals")])


def test_an_own_work_whose_leave_has_ended_counts(open_folders, library_folder, encoder, batch_of):
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    lines = (library_folder / "rights.csv").read_text().splitlines()
    (library_folder / "rights.csv").write_text(
        "\n".join(
            [f"{lines[0]},expires", *(f"{x}," for x in lines[1:3]), f"{lines[3]},{yesterday}"]
        )
    )
    check = Similarity(encoder, [open_folders(works=library_folder)("works")])
    ((score,),) = check(batch_of(pictures(3, seed=7)[2:]))
    assert score.value == pytest.approx(1, abs=1e-5)
    (first, *_) = score.evidence["nearest"]
    assert (first["file"], first["role"], first["expires"]) == ("own.png", "own", str(yesterday))
    assert score.evidence["own"] == []
    json.dumps(score.evidence, allow_nan=False)


def test_a_nan_embedding_gives_a_nan_score(open_folders, library_folder, encoder, batch_of):
    check = Similarity(encoder, [open_folders(works=library_folder)("works")])
    batch = batch_of(pictures(2))
    batch.embedding(encoder)[0] = np.nan
    (spoilt,), (sound,) = check(batch)
    assert np.isnan(spoilt.value) and np.isfinite(sound.value)
    json.dumps(spoilt.evidence, allow_nan=False)
