"""Verify beside the SDK's bare reader: `python -m bench.verify [--files N] [--side PX]`.

The same signed files, in as many processes, in turn: bare is `Reader(...).json()` over bytes read
from disk with the same trust, and nothing else. `hash`: with each file's SHA-256, as where there is
a catalog to ask, a pack to hold to its sums, or JSON to write. `ratio` is verify's speed over
bare's; `steady` leaves out how long the processes take to start, which a folder of thousands pays
once. `cpu` is the ratio of processor time in one process, file by file in turn: what a busy machine
does not blur.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import pickle
import statistics
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.keys import signing_identity
from pipeline.models import load_models, resolve
from pipeline.policy import load_policy
from pipeline.policy_model import ImageFormat
from pipeline.records import Verdict
from pipeline.request import Request
from pipeline.seal import seal
from pipeline.settings import Settings
from pipeline.sign import reader_settings
from pipeline.store import MIMES
from pipeline.trust import as_trust
from pipeline.verify import Depth, verify_file
from pipeline.verify_files import files_in
from pipeline.verify_many import How, verify_all

DISTINCT = 40
"""Different images a format; the other files are further names of them."""
ROUNDS = 3


def main() -> None:
    """Prints one line a format and depth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        settings = Settings(workspace=root / "workspace")
        anchors = signing_identity(settings).anchors
        print(f"{options.files} files of {options.side} px, {options.workers} processes")
        print("format depth     hash  bare/s  verify/s  ratio  steady   cpu")
        for fmt in ("jpeg", "png", "webp"):
            folder = _folder(root / fmt, fmt, options, settings)
            depths: list[tuple[Depth, bool]] = [("manifest", False), ("labels", False)]
            for depth, hashed in [*depths, ("labels", True)]:
                how = How(as_trust(anchors), depth, hashed)
                _compare(folder, fmt, how, anchors, options.workers)


def _compare(folder: Path, fmt: str, how: How, anchors: bytes, workers: int) -> None:
    paths = sorted(folder.iterdir())
    rounds = []
    for _ in range(ROUNDS):
        bare_whole, bare_steady = _bare(paths, anchors, workers)
        whole, steady = _ours(folder, how, workers, len(paths))
        rounds.append((bare_whole, whole, bare_steady, steady))
    bare, ours = (statistics.median(each[i] for each in rounds) for i in (0, 1))
    ratio = statistics.median(each[1] / each[0] for each in rounds)
    still = statistics.median(each[3] / each[2] for each in rounds)
    cpu = _processor_time(paths[:DISTINCT], how, anchors)
    hashed = "yes" if how.hashed else "no"
    line = f"{fmt:6} {how.depth:9} {hashed:4}  {bare:6.0f}  {ours:8.0f}  {ratio:5.2f}"
    line += f"  {still:6.2f}  {cpu:4.2f}"
    print(line, flush=True)


def _processor_time(paths: list[Path], how: How, anchors: bytes) -> float:
    """Bare's processor time over verify's, the report's way between processes included."""
    from c2pa import Context
    from c2pa import Settings as Sdk

    context = Context(Sdk.from_dict(reader_settings(anchors)))
    spent = [0.0, 0.0]
    for path in paths * ROUNDS:
        start = time.process_time()
        _read_one(path, context)
        middle = time.process_time()
        pickle.loads(pickle.dumps(verify_file(path, how.trust, how.depth, how.hashed)))
        spent[0] += middle - start
        spent[1] += time.process_time() - middle
    return spent[0] / spent[1]


def _ours(folder: Path, how: How, workers: int, count: int) -> tuple[float, float]:
    """Files a second, with start and from the first report on."""
    begin = time.perf_counter()
    first, seen = 0.0, 0
    items = files_in([folder])
    for report in verify_all(items, how.trust, how.depth, workers, hashed=how.hashed):
        assert report.ok, report
        first = first or time.perf_counter()
        seen += 1
    end = time.perf_counter()
    assert seen == count
    # The first report comes with its chunk, and the other workers are as far.
    return count / (end - begin), (count - 16 * workers) / (end - first)


def _bare(paths: list[Path], anchors: bytes, workers: int) -> tuple[float, float]:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(workers + 1)
    begin = time.perf_counter()
    processes = [
        context.Process(target=_read, args=(paths[number::workers], anchors, barrier))
        for number in range(workers)
    ]
    for process in processes:
        process.start()
    barrier.wait()
    first = time.perf_counter()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    end = time.perf_counter()
    return len(paths) / (end - begin), len(paths) / (end - first)


def _read(paths: list[Path], anchors: bytes, barrier: Barrier) -> None:
    from c2pa import Context
    from c2pa import Settings as Sdk

    context = Context(Sdk.from_dict(reader_settings(anchors)))
    barrier.wait()
    for path in paths:
        _read_one(path, context)


def _read_one(path: Path, context: Any) -> None:
    from c2pa import Reader

    with Reader(MIMES[path.suffix], io.BytesIO(path.read_bytes()), context=context) as reader:
        reader.json()


def _folder(folder: Path, fmt: Any, options: argparse.Namespace, settings: Settings) -> Path:
    """Signed files of smooth pictures with grain, as photos have it."""
    folder.mkdir()
    policy, model = load_policy("starter"), resolve(load_models(), "starter", "text-to-image")
    chosen = policy.model_copy(update={"image": ImageFormat(format=fmt, quality=90)})
    verdict = Verdict("pass", (), policy.policy, policy.version, policy.digest)
    rng, side = np.random.default_rng(0), options.side
    for number in range(options.files):
        suffix = {"jpeg": "jpg"}.get(fmt, fmt)
        path = folder / f"{number:06}.{suffix}"
        if number >= DISTINCT:
            path.hardlink_to(folder / f"{number % DISTINCT:06}.{suffix}")
            continue
        small = Image.fromarray(rng.integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8))
        smooth = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC)).astype(int)
        picture = (smooth + rng.integers(-2, 3, smooth.shape)).clip(0, 255).astype(np.uint8)
        request = Request(
            sku=f"A{number}", index=0, mode="text-to-image", model=model.name,
            model_revision=model.revision, prompt="a red mug", negative_prompt="", seed=number,
            width=side, height=side, steps=20, guidance=7.5, scheduler="DDIMScheduler",
            campaign="c", client="a", terms={},
        )  # fmt: skip
        sealed = seal(picture, request, model, chosen, verdict, signing_identity(settings))
        path.write_bytes(sealed.data)
    return folder


if __name__ == "__main__":
    main()
