"""The short form `nsfw: {concepts, classifier}`: the detectors of `sensitive`, by another name."""

import pytest
from check_samples import pictures

from pipeline.checks import build_checks
from pipeline.checks.build import Context
from pipeline.errors import SetupError
from pipeline.policy_checks import Checks

SHORT = {
    "concepts": {
        "model": "tiny-clip",
        "unsafe": ["a nude", "gore"],
        "safe": ["a mug", "a chair", "a lamp"],
    },
    "classifier": {"model": "tiny-nsfw", "unsafe_labels": ["nsfw"]},
}
LONG = {
    "words": {
        "kind": "concepts",
        "model": "tiny-clip",
        "classes": {"concept": SHORT["concepts"]["unsafe"]},
        "neutral": SHORT["concepts"]["safe"],
    },
    "trained": {"kind": "classifier", "model": "tiny-nsfw", "classes": {"classifier": ["nsfw"]}},
}


@pytest.fixture
def build(clip_spec, classifier_spec):
    models = {"tiny-clip": clip_spec, "tiny-nsfw": classifier_spec}

    def make(section):
        checks = Checks.model_validate(section).model_dump(mode="json", exclude_none=True)
        return build_checks(checks, Context(models, _no_library, "cpu"))

    return make


def _no_library(name):
    raise SetupError(f"no library {name!r}")


def test_the_short_form_measures_what_the_long_form_does(build, batch_of):
    batch = batch_of(pictures(3))
    short, long = (
        [check(batch) for check in build(section)]
        for section in ({"nsfw": SHORT}, {"sensitive": {"detectors": LONG}})
    )
    for of_short, of_long in zip(short, long, strict=True):
        for (one,), (other,) in zip(of_short, of_long, strict=True):
            assert (one.check, other.check) == ("nsfw", "sensitive")
            assert (one.name, one.value, one.evidence) == (other.name, other.value, other.evidence)


@pytest.mark.parametrize(
    ("part", "names"), [("concepts", ["concept"]), ("classifier", ["classifier"])]
)
def test_either_part_runs_alone(build, batch_of, part, names):
    (check,) = build({"nsfw": {part: SHORT[part]}})
    (scores,) = check(batch_of(pictures(1)))
    assert [score.name for score in scores] == names
    assert 0 <= scores[0].value <= 1
