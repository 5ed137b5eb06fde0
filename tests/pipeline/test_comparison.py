"""Image and references side by side: what is cited, in which order, and where it is outlined."""

import numpy as np
import pytest
from PIL import ImageColor

from pipeline.comparison import COLOURS, Compared, cited_works, side_by_side


def entry(name, measure="cosine", value=0.5, **more):
    return {
        "library": "logos", "sha256": f"{name}-hash", "file": f"{name}.png", "title": name,
        "rights_holder": "Nova AG", measure: value, **more,
    }  # fmt: skip


def score(name, nearest=(), intended=()):
    return {"score": name, "evidence": {"nearest": list(nearest), "intended": list(intended)}}


OURS = {"title": "Our star", "file": "ours.png"}


def test_a_work_is_cited_once_with_what_every_score_says_of_it():
    (star, bear) = cited_works(
        [
            score("copying.clip@logos", [entry("Bear", value=0.81), entry("Star", value=0.8)]),
            score("copying.descriptor@logos", [entry("Star", value=0.93, region=[0, 0, 9, 9])]),
            score("copying.pdq@logos", [entry("Star", "distance", 12.0, mirrored=True)]),
            {"score": "duplicates.near", "evidence": {"nearest": {"sku": "A", "request_id": "1"}}},
            {"score": "nsfw.concept", "evidence": {"concept": "a mug"}},
        ]
    )
    assert (star.title, star.rights_holder, star.region) == ("Star", "Nova AG", (0, 0, 9, 9))
    assert star.found == (
        "copying.clip@logos 0.800",
        "copying.descriptor@logos 0.930",
        "copying.pdq@logos 12 of 256 bits apart, mirrored",
    )
    assert (bear.title, bear.region) == ("Bear", None)


@pytest.mark.parametrize(
    ("scores", "titles"),
    [
        ([score("a", [entry("A"), entry("B")]), score("b", [entry("C")])], "A C B"),
        ([score("a", [entry("A")]), score("b", [entry("B")]), score("c", [entry("B")])], "B A"),
        ([score("a", [entry("A")], [entry("B", own=OURS)]), score("b", [entry("C")])], "A C B"),
        ([score("a", [entry(name) for name in "ABCDEFG"])], "A B C D E"),
        ([score("a")], ""),
    ],
)
def test_works_that_count_and_the_nearest_come_first(scores, titles):
    assert " ".join(work.title for work in cited_works(scores)) == titles


def test_a_work_is_intended_only_where_own_works_explain_all_that_was_found():
    explained = entry("Star", own=OURS, value=0.9, region=[0, 0, 9, 9])
    counted = entry("Star", value=0.7, region=[5, 5, 9, 9])
    (work,) = cited_works([score("a", intended=[explained])])
    assert (work.intended, work.region) == ("Our star", (0, 0, 9, 9))
    assert work.found == ("a 0.900 (intended)",)
    (work,) = cited_works([score("a", intended=[explained], nearest=[counted])])
    assert (work.intended, work.region) == ("", (5, 5, 9, 9))
    assert set(work.found) == {"a 0.700", "a 0.900 (intended)"}


def colours(picture):
    return {tuple(each) for each in np.asarray(picture).reshape(-1, 3).tolist()}


def test_each_reference_is_framed_in_the_colour_of_its_region():
    image = np.full((100, 200, 3), 128, np.uint8)
    white = np.full((50, 50, 3), 255, np.uint8)
    found = [
        Compared(white, ["Star", "Nova AG"], (100, 0, 200, 100)),
        Compared(white, ["Bear"], (100, 0, 200, 100)),
        Compared(None, ["Gone"]),
    ]
    sheet = side_by_side(image, ["A-0"], found)
    first, second, third = (ImageColor.getrgb(colour) for colour in COLOURS[:3])
    scale = 360 / 200
    left, top = 20, 20 + (360 - 180) // 2
    box = (left + 100 * scale, top, left + 200 * scale, top + 100 * scale)
    assert {first, second} <= colours(sheet.crop(box))
    untouched = sheet.crop((left, top, round(left + 95 * scale), round(top + 180)))
    assert colours(untouched) == {(128, 128, 128)}
    assert {first, second, third} <= colours(sheet)
    assert sheet.size[0] == 3 * 380 + 20
    assert list(side_by_side(image, ["A-0"], found).tobytes()) == list(sheet.tobytes())


@pytest.mark.parametrize(
    ("height", "width", "region"),
    [(1, 1, (0, 0, 1, 1)), (8, 2000, (0, 0, 3, 3)), (2000, 8, None), (64, 64, (63, 63, 64, 64))],
)
def test_pictures_of_any_shape_and_captions_in_any_script_are_drawn(height, width, region):
    image = np.zeros((height, width, 3), np.uint8)
    lines = ["Łódź Öl 日本 " + "x" * 300, "", "a" * 3 + " " + "b" * 3]
    sheet = side_by_side(image, lines, [Compared(image, lines, region)])
    assert sheet.mode == "RGB"
