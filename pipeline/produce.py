"""One batch from images to sealed assets: scores → verdict → label → sign → staged file.

Composes the steps of the way of data. What fails for one image is a value that travels on with it;
what is wrong with the set-up raises before the first image.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.checks.inputs import input_scores, preserved_db
from pipeline.checks.protocol import Check, Checked, ImageBatch, run_checks
from pipeline.encode import lossless_png
from pipeline.errors import SetupError
from pipeline.generate import Generated, Kept
from pipeline.ingredients import WORDS_ALONE, made_from
from pipeline.inputs import InputStore, RepaintedRegion
from pipeline.keys import Identity
from pipeline.licences import Licences
from pipeline.models import Model
from pipeline.plan import Batch
from pipeline.policy import Policy
from pipeline.records import Asset, AssetState, Produced, Signed, Verdict
from pipeline.request import Request
from pipeline.resolve import every_model
from pipeline.seal import seal
from pipeline.settings import Settings
from pipeline.store import sha256_of, stage
from pipeline.verdict import decide


@dataclass(frozen=True)
class Bench:
    """What sealing needs, set up once: policy, models by name, checks, the signing identity, and
    the table of licences that labels tell of."""

    settings: Settings
    policy: Policy
    models: Mapping[str, Model]
    checks: Sequence[Check]
    identity: Identity
    store: InputStore
    licences: Licences


def check_and_seal(
    bench: Bench,
    batch: Batch,
    generated: Generated,
    spent: Sequence[Mapping[str, float]],
    threads: ThreadPoolExecutor,
) -> list[Produced]:
    """All of a batch's images, checked, decided and sealed; files are staged.

    `spent` are the milliseconds that each image has taken so far, by stage.
    Raises SetupError when nothing can be written at all (disk full); the batch is then still to do.
    """
    images = generated.images
    measured = ImageBatch(images, batch.requests)
    checked = [
        replace(each, milliseconds={**before, **each.milliseconds})
        for each, before in zip(run_checks(bench.checks, measured), spent, strict=True)
    ]

    def finish(index: int) -> Produced:
        request = batch.requests[index]
        try:
            _note_region(bench.store, request, images[index], generated.kept[index])
            return _finish(bench, request, images[index], checked[index], measured, index)
        except SetupError:
            raise
        # Encoders and the signing library raise what they like; it belongs to this image alone.
        except Exception as error:
            return Produced(request, scores=checked[index].scores, error=_in_words(error))

    return list(threads.map(finish, range(len(batch.requests))))


def keep_steps(store: InputStore, batch: Batch, generated: Generated) -> None:
    """Store the pictures of a batch of steps, for the later steps of their chains.

    Raises SetupError when there is no room.
    """
    for request, image, kept in zip(batch.requests, generated.images, generated.kept, strict=True):
        _note_region(store, request, image, kept)
        store.keep_step(request.request_id, lossless_png(image))


def _note_region(
    store: InputStore, request: Request, image: NDArray[np.uint8], kept: Kept | None
) -> None:
    if kept is not None:
        region = RepaintedRegion(kept.box, preserved_db(image, kept))
        store.keep_region(request.request_id, region)


def failed(request: Request, error: Exception) -> Produced:
    """A request whose image could not be made, with the error as its value."""
    return Produced(request, error=_in_words(error))


def _finish(
    bench: Bench,
    request: Request,
    image: NDArray[np.uint8],
    checked: Checked,
    measured: ImageBatch,
    index: int,
) -> Produced:
    produced = Produced(
        request,
        scores=checked.scores,
        perceptual_hash=measured.perceptual_hashes[index],
        error=checked.error,
        milliseconds=checked.milliseconds,
    )
    if checked.error:
        return produced
    model = bench.models[request.model]
    made = made_from(request, bench.store) if request.recipe else WORDS_ALONE
    scores = (*checked.scores, *input_scores(request, made))
    produced = replace(produced, scores=scores, used=made.used)
    licences = [bench.models[name].licence for name in every_model(request)]
    verdict = decide(bench.policy, request, licences, scores)
    timings = dict(checked.milliseconds)
    signed: Signed | None = None
    pixels = measured.pixels_sha256[index]
    if verdict.outcome == "pass":
        data, mime, signed, sealing = seal(
            image,
            request,
            model,
            bench.policy,
            verdict,
            bench.identity,
            made=made,
            licences=bench.licences,
        )
        timings |= sealing
        start = time.perf_counter()
        sha256, url = stage(bench.settings, "assets", data, mime)
        asset = _asset(sha256, "signed", url, data, mime, image, pixels)
        timings["store"] = (time.perf_counter() - start) * 1000
    else:
        asset = _kept(bench, verdict, image, pixels)
    return replace(produced, verdict=verdict, asset=asset, signed=signed, milliseconds=timings)


def _kept(bench: Bench, verdict: Verdict, image: NDArray[np.uint8], pixels: str) -> Asset:
    """An image that did not pass: unsigned, lossless, in quarantine, or only its hashes."""
    data = lossless_png(image)
    if verdict.outcome == "block" and bench.policy.rejects.keep == "none":
        return _asset(sha256_of(data), "discarded", None, data, "image/png", image, pixels)
    sha256, url = stage(bench.settings, "quarantine", data, "image/png")
    return _asset(sha256, "quarantined", url, data, "image/png", image, pixels)


def _asset(
    sha256: str,
    state: AssetState,
    url: str | None,
    data: bytes,
    mime: str,
    image: NDArray[np.uint8],
    pixels: str,
) -> Asset:
    height, width = image.shape[:2]
    return Asset(sha256, state, url, mime, width, height, len(data), pixels)


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:2000]
