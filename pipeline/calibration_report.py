"""What a calibration looks like: a plot to look at, and YAML to paste into a policy."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.calibration import Calibrated, Proposed, Rate
from pipeline.errors import SetupError

_GOOD, _BAD, _REVIEW, _BLOCK = "#2e7d32", "#c62828", "#ef6c00", "#6a1b9a"


def as_json(found: Calibrated, today: date) -> dict[str, Any]:
    """All figures as plain data, and the YAML."""
    calibration = found.calibration
    return {
        "score": calibration.score,
        "against": found.against,
        "known_good": len(calibration.good),
        "known_bad": len(calibration.bad),
        "area_under_roc": round(calibration.area, 4),
        "review": _proposed(found.review, calibration.words),
        "block": _proposed(found.block, calibration.words),
        "yaml": as_yaml(found, today),
    }


def as_yaml(found: Calibrated, today: date) -> str:
    """A rule to paste, with where its bounds come from as comments."""
    calibration = found.calibration
    lines = [
        f"  # Calibrated on {today}: {len(calibration.good)} known-good and "
        f"{len(calibration.bad)} known-bad images,",
        f"  # {found.against}.",
    ]
    for name, proposed in (("review", found.review), ("block", found.block)):
        lines.append(
            f"  # {name}: false alarms {in_words(proposed.false_alarms)}, "
            f"caught {in_words(proposed.caught)}"
        )
        if not proposed.proven:
            lines.append(f"  # {too_small(proposed)}")
    library = f", library: {found.library}" if found.library else ""
    rule = f"check: {found.check}, score: {found.name}{library}"
    words = calibration.words
    # Where both come out the same, one of them would never be reached.
    same = found.review.bound == found.block.bound
    bounds = [
        f"{name}: {{{words}: {proposed.bound!r}}}"
        for name, proposed in (("review", found.review), ("block", found.block))
        if not (same and name == "block")
    ]
    lines += [
        f"  - {{{rule},",
        f"     {', '.join(bounds)}}}",
    ]
    return "\n".join(lines) + "\n"


def in_words(rate: Rate) -> str:
    """`0.5 % (0.1-1.4 %)`: the share and its 95 % interval."""
    return f"{rate.value:.2%} ({rate.low:.2%}-{rate.high:.2%})".replace("%", " %")


def too_small(proposed: Proposed) -> str:
    """That the sample cannot show the rate asked, and how large it would have to be."""
    return (
        f"the sample is too small for {proposed.rate:g} false alarms an image: "
        f"{proposed.false_alarms.count} known-good images show no better than "
        f"{proposed.false_alarms.high:.2g}; it takes {proposed.needed} without an alarm"
    )


def _proposed(proposed: Proposed, words: str) -> dict[str, Any]:
    return {
        words: proposed.bound,
        "bound_interval": [proposed.low, proposed.high],
        "rate_asked": proposed.rate,
        "false_alarms": _rate(proposed.false_alarms),
        "caught": _rate(proposed.caught),
        "proven": proposed.proven,
        "needs": proposed.needed,
    }


def _rate(rate: Rate) -> dict[str, Any]:
    return {"share": rate.value, "low": rate.low, "high": rate.high, "of": rate.count}


def plot(found: Sequence[Calibrated], path: Path) -> None:
    """A PNG with a row a score: both distributions with the bounds, and the ROC.

    Raises SetupError without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SetupError(
            f"matplotlib cannot be imported ({error}); pip install '.[studio]'"
        ) from error
    figure = Figure(figsize=(11, 3.6 * len(found)), layout="constrained")
    axes = figure.subplots(len(found), 2, squeeze=False)
    for (left, right), each in zip(axes, found, strict=True):
        _distributions(left, each)
        _roc(right, each)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _distributions(axes: Any, found: Calibrated) -> None:
    calibration = found.calibration
    both = np.concatenate([calibration.good, calibration.bad])
    bins = np.linspace(both.min(), both.max() or 1, 41)
    for name, values, colour in (
        ("known good", calibration.good, _GOOD),
        ("known bad", calibration.bad, _BAD),
    ):
        weights = np.full(len(values), 100 / len(values))
        label = f"{name} ({len(values)})"
        axes.hist(values, bins, weights=weights, alpha=0.55, color=colour, label=label)
    for name, proposed, colour in (
        ("review", found.review, _REVIEW),
        ("block", found.block, _BLOCK),
    ):
        axes.axvline(proposed.bound, color=colour, label=f"{name} {proposed.bound:g}")
        axes.axvspan(proposed.low, proposed.high, color=colour, alpha=0.12)
    axes.set_title(f"{calibration.score}, per image", fontsize=11)
    axes.set_xlabel(found.against, fontsize=8)
    axes.set_ylabel("% of images")
    axes.legend(fontsize=8)


def _roc(axes: Any, found: Calibrated) -> None:
    false, caught = found.calibration.roc()
    axes.plot(false, caught, color="#1565c0")
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8)
    for proposed, colour in ((found.review, _REVIEW), (found.block, _BLOCK)):
        alarms, hits = proposed.false_alarms, proposed.caught
        axes.errorbar(
            alarms.value,
            hits.value,
            xerr=[[alarms.value - alarms.low], [alarms.high - alarms.value]],
            yerr=[[hits.value - hits.low], [hits.high - hits.value]],
            fmt="o",
            color=colour,
            capsize=3,
            label=f"{proposed.bound:g}: {in_words(hits)} caught",
        )
    axes.set_title(f"ROC, area {found.calibration.area:.4f}", fontsize=11)
    axes.set_xlabel("false alarms per image")
    axes.set_ylabel("caught")
    axes.legend(loc="lower right", fontsize=8)
