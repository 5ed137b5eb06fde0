"""Pictures that no run has made: measured as a run would, but never against one another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.checks.duplicates import Duplicates
from pipeline.checks.protocol import Check
from pipeline.checks.quality import Quality
from pipeline.images import RgbImage
from pipeline.measure import measure_files, pictures_in


def values(checks: Sequence[Check], folder: Path) -> dict[str, dict[str, float]]:
    """Scores by file name; no file may fail."""
    found = list(measure_files(checks, pictures_in(folder)))
    assert [each.error for each in found] == [None] * len(found)
    return {
        each.file.name: {f"{score.check}.{score.name}": score.value for score in each.scores}
        for each in found
    }


@pytest.fixture
def twins(tmp_path: Path, picture: RgbImage) -> Path:
    """A folder with the same picture twice, the negative of it, and one of another size."""
    folder = tmp_path / "good"
    folder.mkdir()
    for name, pixels in (
        ("a.png", picture), ("b.png", picture), ("c.png", 255 - picture), ("d.png", picture[:40]),
    ):  # fmt: skip
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / name)
    return folder


def test_equal_pictures_in_a_folder_are_not_each_others_duplicates(twins: Path) -> None:
    found = values([Quality(None), Duplicates()], twins)
    assert list(found) == ["a.png", "b.png", "c.png", "d.png"]
    for scores in found.values():
        assert (scores["duplicates.exact"], scores["duplicates.near"]) == (0, 256)
        assert scores["quality.decodes"] == 1
    assert found["a.png"] == found["b.png"]


def test_a_file_that_is_no_picture_is_told_and_the_others_are_measured(twins: Path) -> None:
    (twins / "b.png").write_bytes(b"no picture")
    found = list(measure_files([Duplicates()], pictures_in(twins)))
    assert [bool(each.error) for each in found] == [False, True, False, False]
    assert [bool(each.scores) for each in found] == [True, False, True, True]
