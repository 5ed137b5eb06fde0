"""Fidelity with a small real model: words against plain formulas, photos by cut and region."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from check_samples import pictures, request_of
from hypothesis import given
from hypothesis import strategies as st

from pipeline.checks import ImageBatch, build_checks, run_checks
from pipeline.checks.embed import load_clip
from pipeline.checks.fidelity import Fidelity
from pipeline.checks.reference_photo import CENTRE, reference_photo
from pipeline.checks.rivals import GENERIC, Rivals, folded
from pipeline.errors import SetupError
from pipeline.request import Input, Region

ITEMS = {
    "a": "a red mug",
    "b": "a blue bottle",
    "c": "a green book",
    "d": "A  RED mug ",
    "e": "a black chair",
}


@pytest.fixture(scope="module")
def encoder(clip_spec):
    return load_clip(clip_spec, "cpu")


class Colours:
    """An embedder without weights: the mean colour, which tells where a picture was cut."""

    def __init__(self, spec):
        self.spec, self.digest, self.asked = spec, "0" * 64, 0

    def images(self, images):
        self.asked += len(images)
        means = np.stack([image.reshape(-1, 3).mean(axis=0) - 128 for image in images])
        return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)


def scores_of(check, batch):
    return [{score.name: score for score in scores} for scores in check(batch)]


def batch_with(images, *inputs, **changes):
    size = {"width": images.shape[2], "height": images.shape[1]}
    requests = [
        replace(request_of(f"s{index}", **size), inputs=tuple(given), **changes)
        for index, given in enumerate(inputs)
    ]
    return ImageBatch(images, tuple(requests))


def photo(sha256="f0", role="image", source="file"):
    return Input(role, source, sha256, "photo.png")


def test_text_is_the_softmax_of_own_words_among_the_others_and_rank_their_place(encoder, batch_of):
    batch = batch_of(pictures(3), "a", "b", "c")
    check = Fidelity(encoder, ITEMS, 3, None, None)
    for index, (sku, found) in enumerate(zip("abc", scores_of(check, batch), strict=True)):
        assert set(found) == {"text", "rank"}
        others = {folded(words): words for words in ITEMS.values()}
        own = others.pop(folded(ITEMS[sku]))
        texts = encoder.texts([own, *others.values()])
        cosines = texts @ encoder.images(batch.images)[index]
        weights = np.exp(encoder.logit_scale * cosines.astype(np.float64))
        assert found["text"].value == pytest.approx(weights[0] / weights.sum(), rel=1e-3)
        assert found["rank"].value == 1 + (cosines[1:] > cosines[0]).sum()
        evidence = found["text"].evidence
        strongest = [*others.values()][int(np.argmax(cosines[1:]))]
        assert folded(evidence["rival"]) == folded(strongest)
        assert evidence["rival_probability"] == pytest.approx(
            weights[1:].max() / weights.sum(), rel=1e-3
        )
        assert (evidence["words"], evidence["distractors"]) == (ITEMS[sku], 3)
        assert evidence["detector"] == "tiny-clip"
        json.dumps(evidence, allow_nan=False)


def test_an_item_alone_is_weighed_against_generic_phrases_and_says_so(encoder, batch_of):
    (found,) = scores_of(
        Fidelity(encoder, {"a": "a red mug"}, 16, None, None), batch_of(pictures(1), "a")
    )
    evidence = found["text"].evidence
    assert 0 < found["text"].value < 1
    assert (evidence["distractors"], evidence["generic"]) == (0, len(GENERIC))
    assert "no other item" in evidence["note"]


def test_the_prompt_speaks_for_an_item_that_is_not_in_the_brief(encoder, batch_of):
    (found,) = scores_of(Fidelity(encoder, ITEMS, 2, None, None), batch_of(pictures(1), "unknown"))
    assert found["text"].evidence["words"] == "a mug"


def test_an_item_without_words_asked_for_nothing(encoder, batch_of):
    check = Fidelity(encoder, {**ITEMS, "a": "  "}, 4, None, None)
    (found,) = scores_of(check, batch_of(pictures(1), "a"))
    assert (found["text"].value, found["rank"].value) == (1, 1)
    assert "no words" in found["text"].evidence["note"]


def test_a_nan_is_passed_on(encoder, batch_of):
    batch = batch_of(pictures(2), "a", "b")
    batch.embedding(encoder)[1] = np.nan
    first, second = scores_of(Fidelity(encoder, ITEMS, 3, None, None), batch)
    assert all(math.isfinite(score.value) for score in first.values())
    assert all(math.isnan(score.value) for score in second.values())
    json.dumps(second["text"].evidence, allow_nan=False)


words = st.lists(st.sampled_from(["mug", "cup", "Mug", " cup", "vase", "bowl", "", "lamp"]))


@given(words, st.integers(1, 6), st.randoms())
def test_rivals_are_distinct_other_texts_and_do_not_depend_on_the_order(texts, count, random):
    items = {f"s{index}": text for index, text in enumerate(texts)}
    shuffled = list(items.items())
    random.shuffle(shuffled)
    there = {folded(text) for text in texts} - {""}
    for sku, own in items.items():
        found = Rivals(items).of(sku, own, count)
        assert found == Rivals(dict(shuffled)).of(sku, own, count)
        assert len({folded(text) for text in found}) == len(found)
        assert {folded(text) for text in found} <= there - {folded(own)}
        assert len(found) == min(count, len(there - {folded(own)}))


def test_one_more_item_changes_few_of_the_rivals():
    items = {f"s{index}": f"thing {index}" for index in range(200)}
    before, after = Rivals(items), Rivals({**items, "new": "another thing"})
    changed = [sku for sku, own in items.items() if before.of(sku, own, 8) != after.of(sku, own, 8)]
    assert len(changed) < 40


def test_reference_is_the_larger_cosine_of_the_whole_and_of_the_middle(encoder, clip_spec):
    given_photo = pictures(1, 40, 40, seed=3)[0]
    images = np.stack([given_photo, 255 - given_photo, given_photo])
    # The third keeps the middle alone.
    mask = np.ones((40, 40), bool)
    start = (40 - round(40 * CENTRE)) // 2
    mask[start : start + round(40 * CENTRE), start : start + round(40 * CENTRE)] = False
    images[2][mask] = 255 - images[2][mask]
    check = Fidelity(encoder, ITEMS, 3, Colours(clip_spec), lambda sha256: given_photo)
    same, inverted, edited = scores_of(check, batch_with(images, *[[photo()]] * 3))
    assert same["reference"].value == pytest.approx(1)
    assert inverted["reference"].value < 0
    evidence = edited["reference"].evidence
    assert edited["reference"].value == pytest.approx(1) == evidence["middle"]
    assert evidence["whole"] < 0.9
    assert evidence["photo"] == {"name": "photo.png", "sha256": "f0"}


def test_the_photo_is_compared_as_generation_fitted_it_and_without_the_added_border(
    encoder, clip_spec
):
    # Red on the left, blue in the middle square, red on the right: generation keeps the square.
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[..., 0] = 255
    wide[:, 20:40] = (0, 0, 255)
    square = np.full((1, 40, 40, 3), (0, 0, 255), np.uint8)
    check = Fidelity(encoder, ITEMS, 3, Colours(clip_spec), lambda sha256: wide)
    (found,) = scores_of(check, batch_with(square, [photo()]))
    assert found["reference"].evidence["whole"] == pytest.approx(1, abs=0.02)
    outpainted = np.full((1, 40, 80, 3), (0, 255, 0), np.uint8)
    outpainted[:, :, 30:70] = (0, 0, 255)
    border = Region("border", (30, 0, 10, 0))
    (found,) = scores_of(check, batch_with(outpainted, [photo()], region=border))
    assert found["reference"].evidence["whole"] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("inputs", "earlier", "expected"),
    [
        ([], [], None),
        ([photo("p")], [], "p"),
        ([photo("m", "mask"), photo("p")], [], "p"),
        ([photo("e", "control")], [], None),
        ([photo("d", "depth")], [], None),
        ([photo("a", source="asset")], [], "a"),
        ([photo("s", source="step")], [photo("p")], "p"),
        ([photo("s", source="step")], [], None),
    ],
)
def test_the_reference_photo_is_the_first_picture_from_outside(inputs, earlier, expected):
    first = replace(request_of("a"), inputs=tuple(earlier))
    request = replace(request_of("a"), inputs=tuple(inputs), earlier=(first,))
    found = reference_photo(request)
    assert (found and found.sha256) == expected


def test_an_item_without_a_photo_has_nothing_to_differ_from(encoder, clip_spec):
    check = Fidelity(encoder, ITEMS, 3, Colours(clip_spec), None)
    (found,) = scores_of(check, batch_with(pictures(1), []))
    assert found["reference"].value == 1
    assert "no photo" in found["reference"].evidence["note"]


def test_photos_are_embedded_once_and_one_pass_serves_all_of_a_model(encoder, clip_spec):
    colours = Colours(clip_spec)
    check = Fidelity(encoder, ITEMS, 3, colours, lambda sha256: pictures(1)[0])
    batch = batch_with(pictures(3), [photo()], [photo()], [photo()])
    check(batch)
    # Three images, their three middles, one photo and its middle.
    assert colours.asked == 8
    check(batch_with(pictures(3), [photo()], [], []))
    assert colours.asked == 8 + 3 + 1
    shared = Fidelity(encoder, ITEMS, 3, encoder, lambda sha256: pictures(1)[0])
    (found,) = scores_of(shared, batch_with(pictures(1), [photo()]))
    assert found["reference"].value == pytest.approx(1, abs=1e-4)


def test_a_photo_that_cannot_be_had_is_the_error_of_its_image_alone(encoder, clip_spec):
    def gone(sha256):
        raise SetupError(f"the input {sha256} is gone")

    images = pictures(2)
    for picture, words in ((gone, "is gone"), (None, "keeps no input pictures")):
        check = Fidelity(encoder, ITEMS, 3, Colours(clip_spec), picture)
        with_photo, without = run_checks([check], batch_with(images, [photo()], []))
        assert words in with_photo.error
        assert without.error is None


def test_a_nan_of_the_comparison_is_passed_on(encoder, clip_spec):
    colours = Colours(clip_spec)
    check = Fidelity(encoder, ITEMS, 3, colours, lambda sha256: pictures(1)[0])
    batch = batch_with(pictures(1), [photo()])
    batch.embedding(colours)[:] = np.nan
    (found,) = scores_of(check, batch)
    assert math.isnan(found["reference"].value)
    json.dumps(found["reference"].evidence, allow_nan=False)


def test_a_policy_section_builds_it(clip_spec, context_of):
    section = {"fidelity": {"model": "tiny-clip", "distractors": 4, "reference": "tiny-clip"}}
    (check,) = build_checks(section, context_of(clip_spec, items=ITEMS))
    assert isinstance(check, Fidelity)
    with pytest.raises(SetupError, match="no copy-descriptor model 'unknown'"):
        section["fidelity"]["reference"] = "unknown"
        build_checks(section, context_of(clip_spec))


@pytest.fixture
def context_of():
    from pipeline.checks.build import Context

    def make(spec, **fields):
        return Context(models={spec.name: spec}, library=lambda name: None, device="cpu", **fields)

    return make
