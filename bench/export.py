"""Times `platemark export` over signed images beside what cannot be saved: python bench/export.py

Beside it, on the same files with as many threads: the C2PA SDK alone reading and verifying each
file, and copying the bytes into a zip. The images are noise, 128 px, really signed.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "catalog")]

from catalog_samples import begin, produced_of  # noqa: E402

from catalog.export import export  # noqa: E402
from catalog.lake import writing  # noqa: E402
from catalog.write import commit_batch, finish_run  # noqa: E402
from pipeline.keys import signing_identity, trust_anchors  # noqa: E402
from pipeline.models import load_models, resolve  # noqa: E402
from pipeline.policy import load_policy  # noqa: E402
from pipeline.records import Asset  # noqa: E402
from pipeline.seal import seal  # noqa: E402
from pipeline.settings import Settings  # noqa: E402
from pipeline.sign import reader_settings  # noqa: E402
from pipeline.store import path_of, place, stage  # noqa: E402

_BATCH = 64


def main() -> None:
    """Build a workspace, time the three, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    images = parser.parse_args().images
    with tempfile.TemporaryDirectory() as name:
        settings = Settings(workspace=Path(name) / "ws")
        files = build(settings, images)
        anchors = trust_anchors(settings)
        ours = timed(lambda: export(settings, Path(name) / "pack.zip", terms="spring-web"))
        bare = timed(lambda: verify_bare(files, anchors))
        copied = timed(lambda: copy(files, Path(name) / "copy.zip"))
    size = sum(1 for _ in files)
    print(f"{size} images")
    for what, (wall, cpu) in (("export", ours), ("C2PA SDK alone", bare), ("copy", copied)):
        print(f"{what:15} {wall:7.2f} s wall {cpu:7.2f} s CPU  {1000 * wall / size:6.2f} ms/image")
    print(f"export over SDK and copy: {ours[0] / (bare[0] + copied[0]):.2f}")


def build(settings: Settings, images: int) -> list[Path]:
    """A catalog of `images` signed files, all cleared; their paths."""
    identity, policy = signing_identity(settings), load_policy("starter")
    model = resolve(load_models(), "starter", "text-to-image")
    random = np.random.default_rng(7)
    paths = []
    with writing(settings.catalog) as lake:
        begin(lake)
        for first in range(0, images, _BATCH):
            batch = []
            for number in range(first, min(first + _BATCH, images)):
                one = produced_of(number, outcome="pass")
                pixels = random.integers(0, 256, (128, 128, 3), dtype=np.uint8)
                assert one.verdict
                sealed = seal(pixels, one.request, model, policy, one.verdict, identity)
                sha256, url = stage(settings, "assets", sealed.data, sealed.mime)
                asset = Asset(
                    sha256, "signed", url, sealed.mime, 128, 128, len(sealed.data), sha256
                )
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
            for path in files:
                archive.write(path, path.name)
        stream.flush()
        os.fsync(stream.fileno())


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
