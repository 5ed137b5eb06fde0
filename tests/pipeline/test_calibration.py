"""Bounds from samples: exact intervals, rates that hold on fresh images, and honest doubt."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.calibration import Calibration, calibrate, calibrations, images_needed, rate_of
from pipeline.calibration_report import as_yaml, plot
from pipeline.errors import InputError
from pipeline.measure import Measured
from pipeline.policy_rules import Rule
from pipeline.records import Score


def sampled(good: list[float], bad: list[float]) -> Calibration:
    """Samples that need not differ."""
    return Calibration("s", "at_least", np.array(good), np.array(bad))


sample = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=60)


# Clopper-Pearson intervals from the tables of the beta distribution.
@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [
        (0, 10, 0.0, 0.308497),
        (1, 10, 0.002529, 0.445016),
        (5, 10, 0.187086, 0.812914),
        (10, 10, 0.691503, 1.0),
        (0, 1000, 0.0, 0.003682),
        (37, 1000, 0.026189, 0.050632),
    ],
)
def test_intervals_are_exact(hits: int, count: int, low: float, high: float) -> None:
    rate = rate_of(hits, count)
    assert rate.low == pytest.approx(low, abs=1e-5)
    assert rate.high == pytest.approx(high, abs=1e-5)


@given(st.integers(0, 300), st.integers(1, 300))
def test_an_interval_holds_the_share(hits: int, count: int) -> None:
    rate = rate_of(min(hits, count), count)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1


@pytest.mark.parametrize("rate", [0.1, 0.01, 0.001, 0.0001])
def test_the_images_needed_are_enough_and_no_fewer(rate: float) -> None:
    needed = images_needed(rate)
    assert rate_of(0, needed).high <= rate + 1e-9
    assert rate_of(0, needed - 1).high > rate


@settings(deadline=None, max_examples=30)
@given(sample, sample, st.floats(0.001, 0.5))
def test_a_bound_keeps_to_the_rate_on_its_own_sample(
    good: list[float], bad: list[float], rate: float
) -> None:
    found = sampled(good, bad).propose(rate)
    assert found.false_alarms.value <= rate
    assert found.low - 1e-9 <= found.high


@settings(deadline=None, max_examples=30)
@given(sample, sample)
def test_a_stricter_rate_never_catches_more(good: list[float], bad: list[float]) -> None:
    calibration = sampled(good, bad)
    loose, strict = calibration.propose(0.2), calibration.propose(0.01)
    assert strict.caught.hits <= loose.caught.hits


@given(sample, sample)
def test_the_area_is_that_under_the_curve(good: list[float], bad: list[float]) -> None:
    calibration = sampled(good, bad)
    assert calibration.area == pytest.approx(np.trapezoid(*calibration.roc()[::-1]), abs=1e-9)
    assert 0 <= calibration.area <= 1


@pytest.mark.parametrize(("sign", "words"), [(1, "at_least"), (-1, "below")])
def test_bounds_hold_on_images_that_were_not_seen(sign: int, words: str) -> None:
    generator = np.random.default_rng(3)
    good, bad = (sign * generator.normal(mean, 0.1, 20_000) for mean in (0.3, 0.7))
    calibration = calibrate("s", list(good[:10_000]), list(bad[:10_000]))
    assert calibration.words == words
    found = calibration.propose(0.01)
    beyond = good[10_000:] >= found.bound if sign == 1 else good[10_000:] < found.bound
    assert beyond.mean() == pytest.approx(0.01, abs=0.003)
    assert found.caught.value == pytest.approx(0.953, abs=0.01)
    assert abs(found.bound) == pytest.approx(0.3 + 0.1 * 2.326, abs=0.01)
    assert found.low <= found.bound <= found.high


@pytest.mark.parametrize(
    ("count", "rate", "proven"), [(100, 0.01, False), (400, 0.01, True), (400, 0.001, False)]
)
def test_a_sample_that_is_too_small_says_so(count: int, rate: float, proven: bool) -> None:
    # All good images score alike, so none alarms.
    found = calibrate("s", [0.1] * count, [0.9] * 10).propose(rate)
    assert found.proven is proven
    assert found.needed == images_needed(rate)


@pytest.mark.parametrize(("count", "rate"), [(400, 0.01), (3_688, 0.001), (10_000, 0.001)])
def test_a_sample_that_is_large_enough_proves_its_bound(count: int, rate: float) -> None:
    good = np.random.default_rng(5).normal(0.3, 0.1, count)
    found = calibrate("s", list(good), [0.9] * 10).propose(rate)
    assert found.proven and found.false_alarms.high <= rate


@pytest.mark.parametrize(
    ("score", "good", "bad"),
    [("copying.pdq", [256.0] * 9, [256.0] * 9), ("fidelity.text", [1.0] * 9, [1.0] * 9)],
)
def test_samples_that_are_alike_are_refused(
    score: str, good: list[float], bad: list[float]
) -> None:
    with pytest.raises(ValueError, match="does not tell these images apart"):
        calibrate(score, good, bad)


def test_the_side_of_a_score_of_ours_is_known_whatever_the_sample_says() -> None:
    assert calibrate("copying.pdq@logos", [256.0] * 99, [3.0] * 40 + [256.0] * 60).words == "below"


def test_two_detectors_of_one_class_count_an_image_once() -> None:
    def seen(one: float, two: float) -> Measured:
        scores = [
            Score("sensitive", "nudity", v, {"detector": n}) for v, n in ((one, "a"), (two, "b"))
        ]
        return Measured(Path("x.png"), tuple(scores))

    (found,) = calibrations("sensitive", "", [seen(0.1, 0.3)] * 5, [seen(0.2, 0.9)] * 5, 0.1, 0.1)
    assert list(found.calibration.good) == [0.3] * 5
    assert list(found.calibration.bad) == [0.9] * 5
    assert found.against == "a ; b "


def measured(values: list[float], name: str = "descriptor@logos") -> list[Measured]:
    evidence = {"detector": "starter-copy", "revision": "r", "library_size": 12}
    return [Measured(Path(f"{v}.png"), (Score("copying", name, v, evidence),)) for v in values]


def test_the_yaml_is_a_rule_of_the_policy() -> None:
    good = measured([0.1, 0.2, 0.3])
    (found,) = calibrations("copying", "descriptor", good, measured([0.8, 0.9]), 0.4, 0.01)
    assert found.review.bound < found.block.bound
    text = as_yaml(found, date(2026, 11, 25))
    (rule,) = yaml.safe_load(text)
    parsed = Rule.model_validate(rule)
    assert parsed.name == "copying.descriptor@logos"
    assert parsed.review and parsed.block and parsed.review.value < parsed.block.value
    assert "library logos of 12 works" in text and "the sample is too small" in text


def test_bounds_that_come_out_the_same_are_one() -> None:
    good = measured([0.1, 0.2, 0.3])
    (found,) = calibrations("copying", "", good, measured([0.8, 0.9]), 0.01, 0.001)
    (rule,) = yaml.safe_load(as_yaml(found, date(2026, 11, 25)))
    assert Rule.model_validate(rule).block is None


@pytest.mark.parametrize(
    ("score", "value", "words"),
    [("pdq", 0.5, "was not measured"), ("descriptor", math.nan, "not all numbers")],
)
def test_what_cannot_be_calibrated_is_refused(score: str, value: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        calibrations("copying", score, measured([0.1, value]), measured([0.9]), 0.1, 0.1)


def test_images_with_errors_are_left_out() -> None:
    broken = [Measured(Path("x.png"), error="broken")]
    (found,) = calibrations("copying", "", [*measured([0.1]), *broken], measured([0.9]), 0.1, 0.1)
    assert len(found.calibration.good) == 1


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    good, bad = (measured(list(generator.normal(mean, 0.1, 200))) for mean in (0.3, 0.7))
    plot(calibrations("copying", "", good, bad, 0.01, 0.001), tmp_path / "sub" / "plot.png")
    with Image.open(tmp_path / "sub" / "plot.png") as image:
        assert image.size[0] > 1000 and len(image.convert("RGB").getcolors(10**7) or ()) > 50
