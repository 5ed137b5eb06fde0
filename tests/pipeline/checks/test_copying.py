"""Copying: several signals, library by library, with own works that explain what is intended.

The starter's CLIP stands for any embedder; what the trained descriptor finds is measured elsewhere.
"""

import json
import math
import threading
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from check_samples import Spec, request_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reference_samples import PictureLibrary, demo_picture, starter_works, work

from pipeline.checks import ImageBatch
from pipeline.checks.copying import UNLIKE, Copying
from pipeline.checks.crops import regions
from pipeline.checks.descriptor import load_descriptor
from pipeline.checks.embed import load_clip
from pipeline.errors import SetupError
from pipeline.models import load_models, resolve
from pipeline.settings import ROOT

PHRASES = {
    "phrases": ["Mirolo the round bear", "Zanti the antenna robot"],
    "neutral": ["a mug", "a teapot", "a vase", "the Orvanto logo on a plaque"],
}
WORKS = starter_works()
MIROLO, ZANTI, LOGO = (
    next(each for each in WORKS if each[0].file == f"{name}-1.png")
    for name in ("mirolo", "zanti", "orvanto")
)
TEAPOT, VASE = demo_picture("teapot"), demo_picture("vase")
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def clip():
    folder = ROOT / "starter" / "weights" / "open-clip"
    return load_clip(Spec("starter-clip", "open-clip", str(folder)), "cpu")


@pytest.fixture
def check(clip):
    def make(*libraries, **changes):
        options = {
            "descriptor": clip, "crops": 1, "shortlist": clip, "concepts": PHRASES, "top": 3,
            "fresh_days": None,
        }  # fmt: skip
        return Copying(libraries, **{**options, **changes})

    return make


@pytest.fixture
def scores_of(batch_of):
    def measure(copying, *images):
        found = copying(batch_of(np.stack(images)))
        return [{score.name: score for score in scores} for scores in found]

    return measure


def pasted(picture, region, onto=TEAPOT):
    left, top, right, bottom = region
    image = onto.copy()
    small = Image.fromarray(picture).resize((right - left, bottom - top), Image.Resampling.BICUBIC)
    image[top:bottom, left:right] = np.asarray(small)
    return image


def retaken(picture):
    """The same subject, photographed from a little nearer."""
    height, width = picture.shape[:2]
    inside = (1, 1, width - 1, height - 1)
    return np.asarray(Image.fromarray(picture).resize((width, height), box=inside))


SMALLEST = min(regions(128, 128, 2), key=lambda each: each[2] - each[0])
CORNERS = [each for each in regions(128, 128, 2) if each[2] - each[0] < 128]


def test_every_library_has_its_own_scores_with_all_that_a_person_must_know(check, scores_of, clip):
    figures = PictureLibrary("figures", WORKS[:12])
    logos = PictureLibrary("logos", WORKS[12:])
    (scores,) = scores_of(check(figures, logos), MIROLO[1])
    assert list(scores) == [
        "pdq@figures", "pdq@logos", "descriptor@figures", "descriptor@logos", "clip@figures",
        "clip@logos", "concept",
    ]  # fmt: skip
    for name, score in scores.items():
        evidence = score.evidence
        json.dumps(evidence, allow_nan=False)
        assert score.check == "copying"
        assert {"detector", "revision"} <= evidence.keys()
        if name != "concept":
            library = figures if name.endswith("figures") else logos
            assert evidence["library"] == library.name
            assert evidence["library_size"] == library.count("protected")
            assert evidence["library_digest"] == library.digest
            assert len(evidence["nearest"]) == 3
        if "pdq" not in name:
            assert evidence["weights_sha256"] == clip.digest
    for name in ("pdq@figures", "descriptor@figures", "clip@figures"):
        nearest = scores[name].evidence["nearest"][0]
        assert (nearest["title"], nearest["file"]) == ("Mirolo", "mirolo-1.png")
        assert nearest["rights_holder"] == "Atelier Fennimore (invented)"
    assert scores["pdq@figures"].value == 0
    assert scores["clip@figures"].value == pytest.approx(1, abs=1e-5)
    assert scores["pdq@logos"].value > 60
    assert scores["clip@logos"].value < 0.9
    assert scores["concept"].evidence["concept"] == "Mirolo the round bear"
    assert scores["concept"].value > 0.9


@pytest.mark.parametrize("corner", CORNERS, ids=str)
def test_a_work_in_a_corner_is_found_in_its_region_and_not_in_the_whole(check, scores_of, corner):
    library = PictureLibrary("works", WORKS)
    image = pasted(ZANTI[1], corner)
    (with_crops,) = scores_of(check(library), image)
    (without,) = scores_of(check(library, crops=0), image)
    nearest = with_crops["descriptor@works"].evidence["nearest"][0]
    assert nearest["title"] == "Zanti"
    assert nearest["region"] == list(corner)
    assert with_crops["descriptor@works"].value == nearest["cosine"]
    assert without["descriptor@works"].value < with_crops["descriptor@works"].value - 0.1
    assert without["descriptor@works"].evidence["nearest"][0]["region"] == [0, 0, 128, 128]


@pytest.mark.parametrize("work", [MIROLO, ZANTI, LOGO], ids=lambda work: work[0].title)
def test_the_shipped_descriptor_finds_a_quarter_of_an_image_by_its_crops(check, scores_of, work):
    descriptor = load_descriptor(resolve(load_models(), "starter-copy", "copy-descriptor"), "cpu")
    library = PictureLibrary("works", WORKS)
    place = (64, 64, 128, 128)
    found, whole = (
        scores_of(
            check(library, descriptor=descriptor, crops=crops, shortlist=None, concepts=None),
            pasted(work[1], place),
            VASE,
        )
        for crops in (2, 0)
    )
    nearest = found[0]["descriptor@works"].evidence["nearest"][0]
    assert nearest["title"] == work[0].title
    assert nearest["region"] == list(place)
    assert found[0]["descriptor@works"].value > whole[0]["descriptor@works"].value + 0.03
    assert found[0]["descriptor@works"].value > found[1]["descriptor@works"].value + 0.1


@pytest.mark.parametrize(
    ("image", "file", "mirrored", "most"),
    [
        (ZANTI[1], "zanti-1.png", False, 0),
        (ZANTI[1][:, ::-1], "zanti-1.png", True, 0),
        (retaken(LOGO[1]), "orvanto-1.png", False, 20),
        (retaken(LOGO[1])[:, ::-1], "orvanto-1.png", True, 20),
    ],
)
def test_pdq_finds_copies_and_mirrored_copies(check, scores_of, image, file, mirrored, most):
    (scores,) = scores_of(check(PictureLibrary("works", WORKS)), image)
    pdq = scores["pdq@works"]
    nearest = pdq.evidence["nearest"][0]
    assert (nearest["file"], nearest["mirrored"]) == (file, mirrored)
    assert pdq.value == nearest["distance"] <= most
    assert (pdq.evidence["detector"], pdq.evidence["revision"]) == ("pdq", "2019")


def test_a_plain_image_has_no_hash_and_says_so(check, scores_of):
    plain = np.full((128, 128, 3), 200, np.uint8)
    scores, other = scores_of(check(PictureLibrary("works", WORKS)), plain, ZANTI[1])
    assert scores["pdq@works"].value == 256
    assert "too plain" in scores["pdq@works"].evidence["note"]
    assert scores["pdq@works"].evidence["nearest"] == []
    assert other["pdq@works"].value == 0
    assert "note" not in other["pdq@works"].evidence


def test_a_library_of_plain_works_matches_nothing_by_hash(check, scores_of):
    plain = work(np.full((64, 64, 3), 90, np.uint8), "Grey", "protected")
    (scores,) = scores_of(check(PictureLibrary("greys", [plain])), ZANTI[1])
    assert scores["pdq@greys"].value == 256
    assert scores["pdq@greys"].evidence["nearest"] == []
    assert scores["pdq@greys"].evidence["library_size"] == 1


OWN = work(retaken(MIROLO[1]), "Our licensed bear")
"""An own photo that looks much like the protected reference."""


@pytest.mark.parametrize(
    ("image", "own", "intended"),
    [
        pytest.param(OWN[1], [OWN], True, id="own photo that looks like the protected one"),
        pytest.param(MIROLO[1], [OWN], False, id="the protected one itself"),
        pytest.param(MIROLO[1], [work(VASE, "Our vase")], False, id="own works of other things"),
        pytest.param(OWN[1], [], False, id="no own works"),
        pytest.param(MIROLO[1], [work(MIROLO[1], "Our bear")], True, id="both are as near"),
        pytest.param(
            OWN[1],
            [work(OWN[1], "Our bear", expires=date(2020, 1, 1))],
            False,
            id="an own work whose leave has ended",
        ),
    ],
)
@pytest.mark.parametrize("together", [True, False], ids=["one library", "two libraries"])
def test_a_match_counts_unless_an_own_work_is_as_near(
    check, scores_of, image, own, intended, together
):
    libraries = [PictureLibrary("works", [*WORKS, *own] if together else WORKS)]
    libraries += [PictureLibrary("ours", own)] if own and not together else []
    (scores,) = scores_of(check(*libraries, crops=0), image)
    for name, nothing in (("descriptor", UNLIKE), ("clip", UNLIKE), ("pdq", 256)):
        score = scores[f"{name}@works"]
        bears = [each for each in score.evidence["intended"] if each["file"] == "mirolo-1.png"]
        counted = [each for each in score.evidence["nearest"] if each["file"] == "mirolo-1.png"]
        if intended:
            assert score.value == nothing
            assert score.evidence["nearest"] == []
            assert bears[0]["own"]["title"] == own[0][0].title
            assert score.evidence["own"][0]["title"] == own[0][0].title
        else:
            assert not bears
            assert score.value <= 30 if name == "pdq" else score.value >= 0.95
            assert counted


def test_an_own_product_gives_no_leave_for_a_logo_in_its_corner(check, scores_of):
    library = PictureLibrary("works", [*WORKS[12:], work(TEAPOT, "Our teapot")])
    image = pasted(LOGO[1], (0, 0, 60, 60))
    found, whole = (
        scores_of(check(library, crops=crops), image)[0]["descriptor@works"] for crops in (1, 0)
    )
    nearest, own = found.evidence["nearest"][0], found.evidence["own"][0]
    assert (nearest["title"], nearest["region"]) == ("Orvanto logo", [0, 0, 85, 85])
    assert (own["title"], own["region"]) == ("Our teapot", [0, 0, 128, 128])
    assert own["cosine"] > found.value + 0.3 > 0.3
    assert whole.value == UNLIKE


def test_a_library_of_own_works_only_explains_and_scores_nothing(check, scores_of):
    ours = PictureLibrary("ours", [OWN])
    (scores,) = scores_of(check(PictureLibrary("works", WORKS), ours), ZANTI[1])
    assert (scores["clip@ours"].value, scores["pdq@ours"].value) == (UNLIKE, 256)
    assert scores["clip@ours"].evidence["library_size"] == 0
    assert scores["clip@ours"].evidence["own"][0]["title"] == "Our licensed bear"


@pytest.mark.parametrize(
    ("libraries", "fresh_days", "said"),
    [
        ([PictureLibrary("bare", [])], None, ["library 'bare' has no work", "library add bare"]),
        (
            [PictureLibrary("bare", []), PictureLibrary("works", WORKS)],
            None,
            ["library 'bare' has no work"],
        ),
        ([PictureLibrary("ours", [OWN])], None, ["nothing to compare with", "'ours'"]),
        ([], None, ["nothing to compare with (libraries: none)"]),
        (
            [PictureLibrary("old", [work(VASE, "Vase", "protected", date(2020, 1, 1))])],
            None,
            ["library 'old' has no work that counts today"],
        ),
        (
            [PictureLibrary("works", WORKS, NOW - timedelta(days=31))],
            30,
            ["library 'works'", "30 days ago", "platemark library confirm works"],
        ),
        (
            [PictureLibrary("works", WORKS, NOW - timedelta(days=31)), PictureLibrary("bare", [])],
            30,
            ["library confirm works", "library add bare"],
        ),
    ],
)
def test_libraries_that_cannot_be_compared_with_stop_the_run(check, libraries, fresh_days, said):
    with pytest.raises(SetupError) as caught:
        check(*libraries, fresh_days=fresh_days)
    for each in said:
        assert each in str(caught.value)


@pytest.mark.parametrize(("age", "fresh_days"), [(29, 30), (4000, None)])
def test_a_fresh_library_or_a_policy_that_does_not_ask_runs(check, age, fresh_days):
    check(PictureLibrary("works", WORKS, NOW - timedelta(days=age)), fresh_days=fresh_days)


class NoNumbersForBlack:
    """The encoder, failing as half-precision models do: black images have no embedding."""

    def __init__(self, encoder):
        self.spec, self.digest, self.images_of = encoder.spec, encoder.digest, encoder.images

    def images(self, images):
        vectors = self.images_of(images)
        vectors[[not np.asarray(image).any() for image in images]] = np.nan
        return vectors


@pytest.mark.parametrize("works", [WORKS, [*WORKS, OWN]], ids=["protected", "and own"])
def test_an_embedding_that_is_no_number_is_a_score_that_is_none_and_costs_no_other(
    check, scores_of, clip, works
):
    broken = NoNumbersForBlack(clip)
    library = PictureLibrary("works", works)
    copying = check(library, descriptor=broken, shortlist=broken, concepts=None)
    half_black = pasted(np.zeros((8, 8, 3), np.uint8), SMALLEST)
    black, half, other = scores_of(copying, np.zeros((128, 128, 3), np.uint8), half_black, ZANTI[1])
    for scores, name in ((black, "descriptor"), (black, "clip"), (half, "descriptor")):
        assert math.isnan(scores[f"{name}@works"].value)
        assert "not a number" in scores[f"{name}@works"].evidence["note"]
        json.dumps(scores[f"{name}@works"].evidence, allow_nan=False)
    assert math.isfinite(half["clip@works"].value)
    assert other["descriptor@works"].value == pytest.approx(1, abs=1e-5)


def test_signals_that_the_policy_does_not_ask_for_are_not_measured(check, scores_of):
    library = PictureLibrary("works", WORKS)
    hashes_only = check(library, descriptor=None, shortlist=None, concepts=None)
    assert list(scores_of(hashes_only, ZANTI[1])[0]) == ["pdq@works"]
    assert list(scores_of(check(library, concepts=None, descriptor=None), ZANTI[1])[0]) == [
        "pdq@works",
        "clip@works",
    ]


class Remembering:
    """The encoder, asked for the same pictures once."""

    def __init__(self, encoder):
        self.spec, self.digest, self.images_of = encoder.spec, encoder.digest, encoder.images
        self.known = {}

    def images(self, images):
        key = np.asarray(images).tobytes()
        if key not in self.known:
            self.known[key] = self.images_of(images)
        return self.known[key]


@pytest.fixture(scope="module")
def remembering(clip):
    return Remembering(clip)


SOME_WORKS = st.lists(st.sampled_from(range(len(WORKS))), min_size=1, unique=True)


@settings(max_examples=25, deadline=None)
@given(chosen=SOME_WORKS, more=SOME_WORKS, own=st.booleans())
def test_more_references_never_make_an_image_look_less_of_a_copy(remembering, chosen, more, own):
    pictures = [TEAPOT, retaken(ZANTI[1])[:, ::-1], pasted(LOGO[1], SMALLEST), OWN[1]]
    requests = tuple(request_of(str(number)) for number in range(len(pictures)))
    batch = ImageBatch(np.stack(pictures), requests)

    def nearness(rows, ours):
        copying = Copying(
            [PictureLibrary("works", [*(WORKS[row] for row in rows), *ours])],
            descriptor=remembering, crops=1, shortlist=remembering, concepts=None, top=2,
            fresh_days=None,
        )  # fmt: skip
        sign = {"pdq": -1, "descriptor": 1, "clip": 1}
        scores = [score for each in copying(batch) for score in each]
        return np.array([score.value * sign[score.name.partition("@")[0]] for score in scores])

    ours = [OWN, work(TEAPOT, "Our teapot")] if own else []
    few = nearness(chosen, ours)
    assert (nearness(dict.fromkeys([*chosen, *more]), ours) >= few - 1e-5).all()
    assert (few <= nearness(chosen, []) + 1e-5).all()


def test_threads_and_batches_of_any_size_get_the_same_scores(check, batch_of):
    copying = check(PictureLibrary("works", [*WORKS, OWN]))
    images = np.stack([TEAPOT, ZANTI[1], pasted(LOGO[1], SMALLEST), OWN[1]])
    together = copying(batch_of(images))
    found = {}

    def measure(number):
        found[number] = copying(batch_of(images[number : number + 1]))[0]

    threads = [threading.Thread(target=measure, args=(number,)) for number in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, scores in enumerate(together):
        for one, other in zip(scores, found[number], strict=True):
            assert one.name == other.name
            assert one.value == pytest.approx(other.value, abs=1e-5)
