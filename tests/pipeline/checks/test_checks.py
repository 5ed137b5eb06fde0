"""Checks together: made from a policy, one image's failure is its own, plugins by entry point."""

import inspect
import json
import sys
import textwrap
import threading

import numpy as np
import pytest
from check_samples import pictures

import pipeline.checks
from pipeline.checks import Context, build_checks, remember, run_checks
from pipeline.errors import InputError, SetupError
from pipeline.policy_checks import KNOWN_SCORES
from pipeline.records import Score


@pytest.fixture
def build(clip_spec, classifier_spec, library_folder, open_folders):
    models = {"tiny-clip": clip_spec, "tiny-nsfw": classifier_spec}

    def make(policy_checks):
        context = Context(models, open_folders(works=library_folder), "cpu")
        return build_checks(policy_checks, context)

    return make


EVERYTHING = {
    "nsfw": {
        "concepts": {"model": "tiny-clip", "unsafe": ["a nude"], "safe": ["a mug", "a chair"]},
        "classifier": {"model": "tiny-nsfw", "unsafe_labels": ["nsfw"]},
    },
    "sensitive": {
        "detectors": {
            "people": {
                "kind": "concepts",
                "model": "tiny-clip",
                "classes": {"people": ["a person"]},
                "neutral": ["a mug"],
            }
        }
    },
    "similarity": {"model": "tiny-clip", "libraries": ["works"], "top": 2},
    "copying": {
        "libraries": ["works"],
        "shortlist": "tiny-clip",
        "concepts": {"phrases": ["a famous fox"], "neutral": ["a mug"]},
        "crops": 1,
        "top": 2,
    },
    "fidelity": {"model": "tiny-clip", "distractors": 4},
    "duplicates": {},
    "quality": {},
}


class Failing:
    """Raises for a batch that holds a black image, and for that image."""

    name = "failing"

    def __call__(self, batch):
        if (batch.images.reshape(len(batch), -1) == 0).all(axis=1).any():
            raise ZeroDivisionError("black")
        return [(Score("failing", "share", 1.0),)] * len(batch)


def test_a_policys_checks_give_every_score_it_may_rule_on(build, batch_of):
    checks = build(EVERYTHING)
    checked = run_checks(checks, batch_of(pictures(3)))
    for image in checked:
        assert image.error is None
        measured = [f"{score.check}.{score.name}" for score in image.scores]
        assert sorted(measured) == sorted(
            [
                "nsfw.concept", "nsfw.classifier", "sensitive.people", "similarity.nearest",
                "copying.pdq@works", "copying.clip@works", "copying.concept",
                "fidelity.text", "fidelity.rank",
                *(f"duplicates.{name}" for name in KNOWN_SCORES["duplicates"]),
                *(f"quality.{name}" for name in KNOWN_SCORES["quality"] if name != "bytes"),
            ]
        )  # fmt: skip
        for score in image.scores:
            assert {"detector", "revision"} <= score.evidence.keys()
            json.dumps(score.evidence, allow_nan=False)
        assert set(image.milliseconds) == set(EVERYTHING)


def test_all_open_clip_checks_share_one_embedding_pass(build, batch_of, monkeypatch):
    from pipeline.checks.embed import ClipEncoder

    passes = []
    real = ClipEncoder.images
    checks = build(EVERYTHING)
    monkeypatch.setattr(
        ClipEncoder, "images", lambda self, images: passes.append(1) or real(self, images)
    )
    run_checks(checks, batch_of(pictures(2)))
    assert len(passes) == 1


@pytest.mark.parametrize("options", [None, {}])
def test_a_section_that_is_none_is_off_and_an_empty_one_is_on(build, options):
    assert len(build({"quality": options})) == (0 if options is None else 1)


def test_one_image_that_a_check_fails_on_keeps_its_other_scores_and_costs_no_other_image(
    build, batch_of
):
    images = pictures(3)
    images[1] = 0
    checked = run_checks([*build({"quality": {}}), Failing()], batch_of(images))
    assert [len(image.scores) for image in checked] == [12, 11, 12]
    assert [image.error for image in checked] == [
        None,
        "check 'failing' failed: ZeroDivisionError: black",
        None,
    ]


def test_a_check_that_loses_an_image_fails_instead_of_shifting_scores(batch_of):
    class Short:
        name = "short"

        def __call__(self, batch):
            return [(Score("short", "x", 1.0),)] * (len(batch) // 2)

    checked = run_checks([Short()], batch_of(pictures(2)))
    assert all("0 results for 1 images" in image.error for image in checked)


def test_remember_tells_only_those_that_ask_to_be_told(build, batch_of):
    checks = build({"quality": {}, "duplicates": {}})
    batch = batch_of(pictures(1), "first")
    remember(checks, batch)
    (checked,) = run_checks(checks, batch_of(batch.images, "second"))
    values = {f"{score.check}.{score.name}": score.value for score in checked.scores}
    assert values["duplicates.exact"] == 1


@pytest.mark.parametrize(
    ("policy_checks", "said"),
    [
        ({"similarity": {"model": "other", "libraries": ["works"]}}, "one of: tiny-clip"),
        ({"similarity": {"model": "tiny-nsfw", "libraries": ["works"]}}, "no open-clip model"),
        (
            {"similarity": {"model": "tiny-clip", "libraries": ["toys"]}},
            r"no library 'toys'.*works",
        ),
        (
            {"nsfw": {"classifier": {"model": "tiny-nsfw", "unsafe_labels": ["x"]}}},
            "'normal', 'nsfw'",
        ),
        ({"aesthetics": {}}, "not installed"),
    ],
)
def test_what_cannot_run_stops_everything_and_says_what_to_do(build, policy_checks, said):
    with pytest.raises(SetupError, match=said):
        build({"quality": {}, **policy_checks})


def test_everything_that_cannot_run_is_told_at_once(build):
    with pytest.raises(SetupError) as caught:
        build({"aesthetics": {}, "similarity": {"model": "x", "libraries": ["works"]}})
    assert "aesthetics" in str(caught.value)
    assert "'x'" in str(caught.value)


def test_a_faulty_library_stops_the_run_with_its_faults(build, library_folder):
    (library_folder / "a.png").unlink()
    with pytest.raises(InputError, match="is missing"):
        build(EVERYTHING)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """The example of the documentation, installed as a package would be."""
    text = inspect.cleandoc(pipeline.checks.__doc__)
    code = text[text.index("    # frame_check.py") : text.index("    # pyproject.toml")]
    (tmp_path / "frame_check.py").write_text(textwrap.dedent(code))
    info = tmp_path / "frame_check-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: frame-check\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[platemark.checks]\nwhite_frame = frame_check:make\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("frame_check", None)


def test_the_documented_plugin_works(plugin, build, batch_of):
    images = pictures(2)
    images[0] = 255
    checks = build({"white_frame": {"level": 250}})
    (white,), (other,) = (image.scores for image in run_checks(checks, batch_of(images)))
    assert (white.check, white.name, white.value) == ("white_frame", "share", 1.0)
    assert other.value < 0.5


@pytest.mark.parametrize(
    ("level", "said"), [(999, "write a number from 0 to 255"), ("x", "cannot be set up")]
)
def test_a_plugin_that_cannot_be_set_up_stops_the_run(plugin, build, level, said):
    with pytest.raises(SetupError, match=said):
        build({"white_frame": {"level": level}})


def test_a_batch_must_be_what_it_says(batch_of):
    with pytest.raises(ValueError, match="not uint8"):
        batch_of(np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match="1 images for 2 requests"):
        batch_of(np.zeros((1, 8, 8, 3), np.uint8), "a", "b")


def test_checks_may_run_in_several_threads(build, batch_of):
    checks = build(EVERYTHING)
    batches = [batch_of(pictures(4, seed=seed)) for seed in range(6)]
    alone = [run_checks(checks, batch) for batch in batches]
    together: dict[int, list] = {}
    threads = [
        threading.Thread(
            target=lambda number=number: together.update(
                {number: run_checks(checks, batch_of(batches[number].images))}
            )
        )
        for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, expected in enumerate(alone):
        for one, other in zip(expected, together[number], strict=True):
            assert one.error is other.error is None
            for a, b in zip(one.scores, other.scores, strict=True):
                assert a.value == pytest.approx(b.value, abs=1e-5)
