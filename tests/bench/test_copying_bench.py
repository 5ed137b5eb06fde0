"""The harness of copy detection: layouts are read as their publishers describe them, bounds keep
the stated rate, and the tables count what was found by the right reference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.copying import judge, measure, report
from bench.copying_rates import bound_for, wilson
from bench.copying_sets import copydays, disc21, own_folders
from bench.copying_sheet import sheet
from pipeline.errors import InputError


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC).save(path)


def told(data):
    """Query name → (what was done, group, names of the references it copies)."""
    return {
        query.picture.name: (
            query.kind,
            query.group,
            {data.references[index].name for index in query.copies},
        )
        for query in data.queries
    }


def test_own_folders_match_by_the_longest_name(tmp_path):
    for name in ("fox.png", "fox_red.png"):
        picture(tmp_path / "works" / name, 1)
    for name in ("fox.jpg", "fox_red-2.png", "jpeg.v1/fox.small.png", "foxes.png", "hen.png"):
        picture(tmp_path / "asked" / name, 2)
    assert told(own_folders(tmp_path / "works", tmp_path / "asked")) == {
        "fox.jpg": ("queries", "fox", {"fox.png"}),
        "fox_red-2.png": ("queries", "fox_red", {"fox_red.png"}),
        "fox.small.png": ("jpeg.v1", "fox", {"fox.png"}),
        "foxes.png": ("queries", "foxes", set()),
        "hen.png": ("queries", "hen", set()),
    }


def test_own_folders_match_by_table(tmp_path):
    for name in ("a.png", "b.png"):
        picture(tmp_path / "works" / name, 1)
    for name in ("one.png", "two.png", "three.png"):
        picture(tmp_path / "asked" / name, 2)
    table = tmp_path / "truth.csv"
    table.write_text("query,reference\none.png,a.png\none.png,b\ntwo.png,\n")
    found = told(own_folders(tmp_path / "works", tmp_path / "asked", table))
    assert found["one.png"] == ("queries", "a", {"a.png", "b.png"})
    assert found["two.png"][2] == found["three.png"][2] == set()
    table.write_text("query,reference\nnone.png,a.png\ntwo.png,c.png\n")
    with pytest.raises(InputError) as told_off:
        own_folders(tmp_path / "works", tmp_path / "asked", table)
    assert [fault.where for fault in told_off.value.faults] == [
        "truth.csv, line 2", "truth.csv, line 3",
    ]  # fmt: skip


def test_disc21(tmp_path):
    for name in ("R000001.jpg", "R000002.jpg"):
        picture(tmp_path / "references" / name, 1)
    for name in ("Q00001.jpg", "Q00002.jpg", "Q00003.jpg"):
        picture(tmp_path / "queries" / name, 2)
    with pytest.raises(InputError, match="ground_truth"):
        disc21(tmp_path)
    (tmp_path / "dev_ground_truth.csv").write_text(
        "query_id,reference_id\nQ00001,R000002\nQ00002,\nQ00003,R000001\n"
    )
    assert told(disc21(tmp_path)) == {
        "Q00001.jpg": ("queries", "R000002", {"R000002.jpg"}),
        "Q00002.jpg": ("queries", "Q00002", set()),
        "Q00003.jpg": ("queries", "R000001", {"R000001.jpg"}),
    }


def test_copydays(tmp_path):
    for name in ("200000.jpg", "200300.jpg"):
        picture(tmp_path / "original" / name, 1)
        picture(tmp_path / "jpeg" / "15" / name, 2)
        picture(tmp_path / "crops" / "50" / name, 3)
    picture(tmp_path / "strong" / "200301.jpg", 4)
    data = copydays(tmp_path)
    assert [
        (query.kind, query.group, query.picture.name, sorted(query.copies))
        for query in data.queries
    ] == [
        ("jpeg 15", "2000", "200000.jpg", [0]),
        ("jpeg 15", "2003", "200300.jpg", [1]),
        ("crops 50", "2000", "200000.jpg", [0]),
        ("crops 50", "2003", "200300.jpg", [1]),
        ("strong", "2003", "200301.jpg", [1]),
    ]  # fmt: skip


def test_an_empty_folder_says_so(tmp_path):
    with pytest.raises(InputError, match="no pictures"):
        own_folders(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    # From R's prop.test(hits, count, correct = FALSE).
    [(0, 100, 0.0, 0.0370), (5, 100, 0.0215, 0.1118), (50, 100, 0.4038, 0.5962), (0, 0, 0, 1)],
)
def test_wilson_intervals(hits, count, low, high):
    assert wilson(hits, count) == pytest.approx((low, high), abs=1e-4)


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=900), st.sampled_from([0.001, 0.01, 0.1, 0.5])
)
def test_a_bound_keeps_its_rate_with_confidence_and_is_the_least(scores, rate):
    negatives = np.array(scores)
    bound = bound_for(negatives, rate)
    alarms = int((negatives >= bound).sum())
    if np.isinf(bound):
        assert wilson(0, len(negatives))[1] > rate
    else:
        assert wilson(alarms, len(negatives))[1] <= rate
        lower = negatives[negatives < bound].max(initial=-np.inf)
        more = int((negatives >= lower).sum())
        assert more == 0 or not np.isfinite(lower) or wilson(more, len(negatives))[1] > rate


class Colours:
    """An encoder of mean colours: so that what is found and missed is known beforehand."""

    def images(self, images):
        means = np.stack([np.asarray(image, np.float32).mean((0, 1)) for image in images])
        means = means - 127.5
        return means / np.linalg.norm(means, axis=1, keepdims=True)


def test_only_the_right_reference_counts_as_found(tmp_path):
    def flat(path, colour):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), colour).save(path)

    flat(tmp_path / "works" / "red.png", "red")
    flat(tmp_path / "works" / "blue.png", "blue")
    for number in range(60):
        flat(tmp_path / "asked" / f"red-{number}.png", (250, number, 0))
        flat(tmp_path / "asked" / f"blue-{number}.png", "red" if number % 2 else "blue")
        flat(tmp_path / "asked" / f"green-{number}.png", (0, 255 - number, 0))
    data = own_folders(tmp_path / "works", tmp_path / "asked")
    scores = measure(data, Colours(), Colours(), 2)
    result = judge(data, scores, 0.2)
    names = np.array([query.group for query in data.queries])
    assert result.found[names == "red", 2].all()
    assert result.found[names == "blue", 2].mean() == 0.5
    assert not result.found[:, 0].any(), "flat pictures have no PDQ hash"
    text = report(data, result, 0.2)
    assert "| **all** |" in text
    missed = result.copies & ~result.found[:, 2]
    sheet(data, scores.nearest, missed, result.alarmed[:, 2], tmp_path / "sheet.jpg")
    assert Image.open(tmp_path / "sheet.jpg").width > 500


def test_without_strangers_alarms_are_counted_over_references_not_copied(tmp_path):
    for block in range(12):
        picture(tmp_path / "original" / f"{2000 + block}00.jpg", block)
        picture(tmp_path / "strong" / f"{2000 + block}01.jpg", block)
    data = copydays(tmp_path)
    result = judge(data, measure(data, Colours(), Colours(), 1), 0.5)
    assert result.rivals
    assert result.counted.all()
    assert "against the references that they do not copy" in report(data, result, 0.5)
