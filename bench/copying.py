"""Measures copy detection, signal by signal and together: python -m bench.copying

By default on renders of the starter world whose geometries no model has seen: protected subjects
(which copy the shipped references) and everything else, each plain and through the fixed transforms
of pipeline/checks/transforms.py. With --references and --queries on folders of yours, with --disc21
or --copydays on those sets. Bounds come from one half of the originals, results from the other.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.copying_rates import bound_for, in_calibration, wilson
from bench.copying_sets import CopySet, Query, copydays, disc21, own_folders
from bench.copying_sheet import sheet
from bench.copying_starter import starter
from pipeline.checks.crops import region_embeddings, regions
from pipeline.checks.descriptor import Descriptor, load_descriptor
from pipeline.checks.embed import ClipEncoder, load_clip
from pipeline.checks.pdq import BITS, RELIABLE_QUALITY, pdq
from pipeline.images import RgbImage
from pipeline.models import load_models, resolve

PDQ_MATCH = 31
"""PDQ's own threshold of a match (ThreatExchange)."""
SIGNALS = ("PDQ", "descriptor, whole", "descriptor, crops", "CLIP", "together")
_BATCH = 64
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Scores:
    """Nearness, larger is nearer, float64 [queries, signals]: to the references that a query
    copies (-inf: it copies none) and to all others; `nearest` is the nearest reference of all by
    the descriptor with crops, int [queries].
    """

    right: NDArray[np.float64]
    other: NDArray[np.float64]
    nearest: NDArray[np.int64]


def measure(data: CopySet, descriptor: Descriptor, clip: ClipEncoder, levels: int) -> Scores:
    """Every query against every reference by every signal. PDQ's nearness is minus its distance.

    `together` is the descriptor with crops, or 2 where PDQ says match.
    """
    works = [each.load() for each in data.references]
    library = descriptor.images(works), clip.images(works)
    hashes = [_hash(np.stack([turned])) for work in works for turned in (work, work[:, ::-1])]
    bits = np.concatenate([found for found, _ in hashes])
    plain = np.concatenate([quality <= RELIABLE_QUALITY for _, quality in hashes])
    right, other, nearest = [], [], []
    for queries, images in _batches(data.queries):
        own = np.zeros((len(queries), len(works)), bool)
        for row, query in enumerate(queries):
            own[row, list(query.copies)] = True
        places = regions(images.shape[1], images.shape[2], levels)
        embedded = region_embeddings(descriptor, images, places)
        cosines = embedded @ library[0].T
        found, quality = _hash(images)
        distance = np.bitwise_count(found[:, None] ^ bits).sum(2).astype(np.float64)
        distance[:, plain] = BITS
        distance[quality <= RELIABLE_QUALITY] = BITS
        distance = distance.reshape(len(queries), len(works), 2).min(2)
        crops = cosines.max(1)
        near = np.stack(
            [
                -distance,
                cosines[:, 0],
                crops,
                clip.images(images) @ library[1].T,
                np.where(distance <= PDQ_MATCH, 2.0, crops),
            ],
            axis=2,
        )
        right.append(np.where(own[..., None], near, -np.inf).max(1))
        other.append(np.where(own[..., None], -np.inf, near).max(1))
        nearest.append(crops.argmax(1))
    return Scores(np.concatenate(right), np.concatenate(other), np.concatenate(nearest))


def _hash(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    return pdq(images @ _LUMA)


def _batches(queries: Sequence[Query]) -> Iterator[tuple[list[Query], NDArray[np.uint8]]]:
    """Queries in their order, those of one size together, and their pixels [N, H, W, 3]."""
    for start in range(0, len(queries), _BATCH):
        loaded: list[tuple[Query, RgbImage]] = [
            (query, query.picture.load()) for query in queries[start : start + _BATCH]
        ]
        for _, group in groupby(loaded, key=lambda each: each[1].shape):
            members = list(group)
            yield [query for query, _ in members], np.stack([image for _, image in members])


@dataclass(frozen=True)
class Result:
    """What was found at which bounds. All arrays are of queries, in their order."""

    bounds: NDArray[np.float64]
    reported: NDArray[np.bool_]
    copies: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    """Queries over which false alarms are counted."""
    found: NDArray[np.bool_]
    alarmed: NDArray[np.bool_]
    rivals: bool
    """Every query copies something, so alarms are counted over those that a query does not copy."""


def judge(data: CopySet, scores: Scores, rate: float) -> Result:
    """Bounds from the calibrated half at `rate` false alarms an image, applied to all."""
    copies = np.array([bool(query.copies) for query in data.queries])
    rivals = bool(copies.all())
    counted = copies if rivals else ~copies
    calibrated = np.array([in_calibration(query.group) for query in data.queries])
    bounds = np.array(
        [bound_for(scores.other[calibrated & counted, k], rate) for k in range(len(SIGNALS))]
    )
    bounds[0] = -PDQ_MATCH
    found, alarmed = scores.right >= bounds, scores.other >= bounds
    return Result(bounds, ~calibrated, copies, counted, found, alarmed, rivals)


def report(data: CopySet, result: Result, rate: float) -> str:
    """The tables as Markdown."""
    calibrated = int((result.counted & ~result.reported).sum())
    over = "against the references that they do not copy" if result.rivals else "that copy nothing"
    bounds = ", ".join(
        f"{name} {-bound:.0f}" if name == "PDQ" else f"{name} {bound:.3f}"
        for name, bound in zip(SIGNALS, result.bounds, strict=True)
    )
    return "\n".join(
        [
            f"{len(data.references)} references. Bounds: {bounds}. PDQ's is its own; each other is "
            f"the least at which, with 97.5 % confidence, at most {rate:.1%} of images alarm, from "
            f"{calibrated} images {over}, none of whose originals is in the tables.",
            "",
            "Recall: the share of copies found, by a reference that they copy.",
            "",
            *_table(data, result, result.copies, result.found),
            "",
            f"False alarms: the share of images {over} that alarm.",
            "",
            *_table(data, result, result.counted, result.alarmed),
            "",
            "In brackets: 95 % Wilson intervals. `together` alarms where the descriptor with crops "
            f"reaches its bound or PDQ is {PDQ_MATCH} or less.",
            "",
        ]
    )


def _table(
    data: CopySet, result: Result, among: NDArray[np.bool_], hit: NDArray[np.bool_]
) -> list[str]:
    kinds = np.array([query.kind for query in data.queries])
    lines = [f"| transform | images | {' | '.join(SIGNALS)} |", "|---" * (len(SIGNALS) + 2) + "|"]
    for kind in dict.fromkeys(kinds[among]):
        rows = among & result.reported & (kinds == kind)
        if rows.any():
            cells = " | ".join(f"{share:.3f}" for share in hit[rows].mean(0))
            lines.append(f"| {kind} | {rows.sum()} | {cells} |")
    rows = among & result.reported
    cells = " | ".join(_share(int(hits), int(rows.sum())) for hits in hit[rows].sum(0))
    return [*lines, f"| **all** | {rows.sum()} | {cells} |"]


def _share(hits: int, count: int) -> str:
    low, high = wilson(hits, count)
    return f"{hits / max(1, count):.4f} ({low:.4f}–{high:.4f})"


def main() -> None:
    """Measure, print the tables, and write them and the sheet where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--references", type=Path, help="a folder of references")
    parser.add_argument("--queries", type=Path, help="a folder of pictures to find copies among")
    parser.add_argument("--truth", type=Path, help="CSV of query,reference; else by file names")
    parser.add_argument("--disc21", type=Path, help="a folder in DISC21's layout")
    parser.add_argument("--copydays", type=Path, help="a folder in Copydays' layout")
    parser.add_argument("--models", type=Path, help="a models file beside the shipped ones")
    parser.add_argument("--descriptor", default="starter-copy", help="a copy-descriptor model")
    parser.add_argument("--clip", default="starter-clip", help="an open-clip model")
    parser.add_argument(
        "--levels", type=int, default=3, help="levels of regions, the whole included"
    )
    parser.add_argument("--rate", type=float, default=0.01, help="false alarms an image")
    parser.add_argument("--out", type=Path, help="folder for copying.md and copying.jpg")
    chosen = parser.parse_args()
    data = _chosen_set(chosen)
    models = load_models(chosen.models)
    device = _device()
    descriptor = load_descriptor(resolve(models, chosen.descriptor, "copy-descriptor"), device)
    clip = load_clip(resolve(models, chosen.clip, "open-clip"), device)
    scores = measure(data, descriptor, clip, chosen.levels)
    result = judge(data, scores, chosen.rate)
    text = report(data, result, chosen.rate)
    print(text)
    if chosen.out:
        chosen.out.mkdir(parents=True, exist_ok=True)
        (chosen.out / "copying.md").write_text(text, encoding="utf-8")
        missed = result.copies & ~result.found[:, -1] & result.reported
        alarmed = result.counted & result.alarmed[:, -1] & result.reported
        sheet(data, scores.nearest, missed, alarmed, chosen.out / "copying.jpg")


def _chosen_set(chosen: argparse.Namespace) -> CopySet:
    if chosen.disc21:
        return disc21(chosen.disc21)
    if chosen.copydays:
        return copydays(chosen.copydays)
    if chosen.references and chosen.queries:
        return own_folders(chosen.references, chosen.queries, chosen.truth)
    if chosen.references or chosen.queries:
        raise SystemExit("give both --references and --queries")
    return starter()


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    main()
