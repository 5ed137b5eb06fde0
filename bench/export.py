"""Times `platemark export` of signed images beside copying their bytes: python bench/export.py

Beside it, on the same files: copying them into a zip, and into a folder, and the C2PA library alone
reading and verifying each. Copies go to the same disk and are as durable when the clock stops as a
pack is: every file, and the folder that names it, flushed (fsync), by as many threads. They go
through the system's cache, as `cp` goes; a folder's export goes past it. The images are noise,
really signed. Peak memory is of the whole process.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "catalog")]

from catalog_samples import produced_of, sha256  # noqa: E402

from catalog.export import export  # noqa: E402
from catalog.lake import writing  # noqa: E402
from catalog.write import commit_batch, finish_run, start_run  # noqa: E402
from pipeline.keys import signing_identity, trust_anchors  # noqa: E402
from pipeline.models import load_models, resolve  # noqa: E402
from pipeline.policy import load_policy  # noqa: E402
from pipeline.records import Asset  # noqa: E402
from pipeline.seal import Sealed, seal  # noqa: E402
from pipeline.settings import Settings  # noqa: E402
from pipeline.sign import reader_settings  # noqa: E402
from pipeline.store import flush, path_of, place, stage  # noqa: E402

_BATCH = 64
_COPIERS = 8
"""Files that are copied at the same time: as many as an export of a folder copies."""


def main() -> None:
    """Build a workspace, time all on the same files, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=128, help="pixels")
    parser.add_argument("--rounds", type=int, default=3, help="the best counts")
    parser.add_argument("--distinct", type=int, default=10_000, help="files really made")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = Settings(workspace=folder / "ws")
        files = build(settings, given.images, given.side, given.distinct)
        size = sum(file.stat().st_size for file in files)
        anchors = trust_anchors(settings)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        jobs: dict[str, Callable[[], object]] = {
            "copy to zip": lambda: copy(files, folder / "copy.zip"),
            "export to zip": lambda: export(settings, folder / "pack.zip"),
            "copy to folder": lambda: copy_tree(files, folder / "copies"),
            "export to folder": lambda: export(settings, folder / "pack"),
            "C2PA library alone": lambda: verify_bare(files, anchors),
        }
        best = dict.fromkeys(jobs, (float("inf"), 0.0))
        for _ in range(given.rounds):
            for what, job in jobs.items():
                best[what] = min(best[what], timed(job))
                for left in ("copy.zip", "pack.zip"):
                    (folder / left).unlink(missing_ok=True)
                for left in ("copies", "pack"):
                    shutil.rmtree(folder / left, ignore_errors=True)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{given.images} images of {given.side} px, {size / 1e6:.0f} MB, {os.cpu_count()} cores")
    for what, (wall, cpu) in best.items():
        rate = size / wall / 1e6
        print(f"{what:18} {wall:7.2f} s wall {cpu:7.2f} s CPU {rate:7.0f} MB/s")
    for kind in ("zip", "folder"):
        speed = best[f"copy to {kind}"][0] / best[f"export to {kind}"][0]
        print(f"export to {kind} at {speed:.0%} of the copy's speed")
    print(f"peak memory {before:.0f} MiB before, {after:.0f} MiB after")


def build(settings: Settings, images: int, side: int = 128, distinct: int = 10_000) -> list[Path]:
    """A catalog of `images` signed files, all cleared; their paths.

    Beyond `distinct` ones, files are catalogued again for other items: sealing takes longest.
    """
    identity, policy = signing_identity(settings), load_policy("starter")
    model = resolve(load_models(), "starter", "text-to-image")
    random = np.random.default_rng(7)
    paths: list[Path] = []
    made: list[Sealed] = []
    with writing(settings.catalog) as lake:
        start_run(
            lake,
            "run-1",
            brief="bench",
            brief_sha256=sha256("bench"),
            policy="starter",
            policy_version="1",
            policy_digest=policy.digest,
            requested=images,
            host="bench",
            device="cpu",
            versions={"c2pa-python": version("c2pa-python")},
        )
        for first in range(0, images, _BATCH):
            batch = []
            for number in range(first, min(first + _BATCH, images)):
                one = produced_of(number, outcome="pass", width=side, height=side)
                assert one.verdict
                if number < distinct:
                    pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
                    made.append(seal(pixels, one.request, model, policy, one.verdict, identity))
                sealed = made[number % distinct]
                digest, url = stage(settings, "assets", sealed.data, sealed.mime)
                size = len(sealed.data)
                asset = Asset(digest, "signed", url, sealed.mime, side, side, size, digest)
                batch.append(replace(one, asset=asset, signed=sealed.signed))
            commit_batch(lake, "run-1", f"b{first}", batch)
            urls = [str(one.asset.url) for one in batch if one.asset]
            place(settings, urls)
            paths += [path_of(settings, url) for url in urls]
        finish_run(lake, "run-1", "completed")
    return paths


def verify_bare(files: list[Path], anchors: bytes) -> None:
    """Read and verify every file with the SDK, nothing else."""
    from c2pa import Context, Reader
    from c2pa import Settings as SdkSettings

    context = Context(SdkSettings.from_dict(reader_settings(anchors)))

    def verify(path: Path) -> str:
        with Reader("image/png", io.BytesIO(path.read_bytes()), context=context) as reader:
            return str(reader.get_validation_state())

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        assert set(threads.map(verify, files)) == {"Trusted"}


def copy(files: list[Path], out: Path) -> None:
    """All bytes into an uncompressed zip, flushed to disk."""
    with out.open("wb") as stream:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for number, path in enumerate(files):
                archive.write(path, f"{number}-{path.name}")
        stream.flush()
        os.fsync(stream.fileno())
    flush(out.parent)


def copy_tree(files: list[Path], out: Path) -> None:
    """All files into a folder, each flushed to disk, and the folder."""
    out.mkdir()

    def one(number: int) -> None:
        with (out / f"{number}.png").open("wb") as stream:
            stream.write(files[number].read_bytes())
            stream.flush()
            os.fsync(stream.fileno())

    with ThreadPoolExecutor(_COPIERS) as threads:
        list(threads.map(one, range(len(files))))
    flush(out)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
