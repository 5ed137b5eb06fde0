"""Recovery, measured: python -m bench.recovery [--images 1000] [--others 10000] [--side 128].

Images of the starter world are marked, signed and catalogued as a run does it, then edited and
looked up; others of the same world, never catalogued, must not be found. Then look-ups at scale.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from catalog.fingerprints import index_signed
from catalog.lake import Lake, reading, writing
from catalog.recover import by_binding, recover
from catalog.write import commit_batch, insert_table, start_run
from pipeline.encode import encode
from pipeline.images import RgbImage
from pipeline.keys import signing_identity
from pipeline.manifest import manifest_for
from pipeline.models import load_models, resolve
from pipeline.policy import load_policy
from pipeline.policy_model import ImageFormat
from pipeline.records import Asset, Produced, Verdict
from pipeline.request import Request
from pipeline.settings import Settings
from pipeline.sign import sign
from pipeline.soft_binding import mark
from pipeline.store import sha256_of

Edit = Callable[[Image.Image, Random], bytes]


def _encoded(picture: Image.Image, fmt: str, quality: int) -> bytes:
    out = io.BytesIO()
    picture.save(out, fmt, quality=quality)
    return out.getvalue()


def _resized(picture: Image.Image, side: int) -> Image.Image:
    return picture.resize((side, side), Image.Resampling.LANCZOS)


def _cropped(picture: Image.Image, kept: float, rng: Random) -> Image.Image:
    width, height = round(picture.width * kept), round(picture.height * kept)
    left = rng.randint(0, picture.width - width)
    top = rng.randint(0, picture.height - height)
    return picture.crop((left, top, left + width, top + height))


EDITS: dict[str, Edit] = {
    "stripped (PNG)": lambda p, r: _encoded(p, "PNG", 0),
    "JPEG 90": lambda p, r: _encoded(p, "JPEG", 90),
    "JPEG 75": lambda p, r: _encoded(p, "JPEG", 75),
    "JPEG 50": lambda p, r: _encoded(p, "JPEG", 50),
    "JPEG 30": lambda p, r: _encoded(p, "JPEG", 30),
    "WebP 80": lambda p, r: _encoded(p, "WEBP", 80),
    "WebP 50": lambda p, r: _encoded(p, "WEBP", 50),
    "resize to 256, JPEG 85": lambda p, r: _encoded(_resized(p, 256), "JPEG", 85),
    "resize to 75 %, JPEG 75": lambda p, r: _encoded(_resized(p, p.width * 3 // 4), "JPEG", 75),
    "crop 10 % a side, PNG": lambda p, r: _encoded(_cropped(p, 0.9, r), "PNG", 0),
    "crop 10 % a side, JPEG 75": lambda p, r: _encoded(_cropped(p, 0.9, r), "JPEG", 75),
    "crop 5 %, to 256, JPEG 75": lambda p, r: _encoded(
        _resized(_cropped(p, 0.95, r), 256), "JPEG", 75
    ),
    "rotated by 2°, JPEG 90": lambda p, r: _encoded(
        p.rotate(2, Image.Resampling.BICUBIC, fillcolor="white"), "JPEG", 90
    ),
    "mirrored, JPEG 90": lambda p, r: _encoded(
        p.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "JPEG", 90
    ),
}


def pictures(count: int, side: int, first: int, paints: int) -> Iterator[RgbImage]:
    """Renders of the starter world, uint8 [side, side, 3]; each shape in `paints` colourings."""
    import torch

    from starter.tracer import trace
    from starter.vocabulary import OBJECTS, VIEWS
    from starter.world import composite, random_scene

    rng, made = Random(first), 0
    with torch.inference_mode():
        while made < count:
            subject, view, seed = rng.choice(OBJECTS), rng.choice(list(VIEWS)), first + made
            shape = trace(subject, view, [seed], side)
            for _ in range(min(paints, count - made)):
                scene = random_scene(subject, rng, seed, view)
                rgb = composite(shape, [scene])[0].permute(1, 2, 0)
                made += 1
                yield (rgb * 255).round().byte().contiguous().numpy()


def catalogue(
    settings: Settings, images: Iterator[RgbImage]
) -> tuple[list[tuple[str, bytes]], Any]:
    """Marks, signs and catalogues images: (request id, file) of each; PSNRs, ms of marking."""
    policy, identity = load_policy("starter"), signing_identity(settings)
    model = resolve(load_models(), "starter", "text-to-image")
    verdict = Verdict("pass", (), policy.policy, policy.version, policy.digest)
    made, produced, psnr, spent = [], [], [], []
    for number, pixels in enumerate(images):
        height, width = pixels.shape[:2]
        request = Request(
            f"SKU-{number}", 0, "text-to-image", model.name, model.revision, "a product", "",
            number, width, height, 20, 3.0, "", "bench", "bench",
        )  # fmt: skip
        start = time.process_time()
        marked = mark(pixels, request, policy)
        spent.append((time.process_time() - start) * 1000)
        apart = np.mean((marked.pixels.astype(np.float64) - pixels) ** 2)
        psnr.append(10 * np.log10(255**2 / apart))
        manifest = manifest_for(request, model, policy, verdict, bindings=marked.bindings)
        data, mime = encode(marked.pixels, ImageFormat(format="png"))
        data, signed = sign(data, mime, manifest, identity)
        digest = sha256_of(data)
        asset = Asset(digest, "signed", None, mime, width, height, len(data), digest)
        produced.append(Produced(request, (), verdict, asset, signed))
        made.append((request.request_id, data))
    with writing(settings.catalog) as lake:
        start_run(
            lake, "bench", brief="bench", brief_sha256="", policy=policy.policy,
            policy_version=policy.version, policy_digest=policy.digest, requested=len(made),
            host="bench", device="cpu", versions={},
        )  # fmt: skip
        commit_batch(lake, "bench", "bench", produced)
        begun = time.perf_counter()
        index_signed(lake)
        indexed = (time.perf_counter() - begun) * 1000 / len(made)
    return made, (psnr, spent, indexed)


def at_scale(folder: Path, records: int) -> dict[str, list[float]]:
    """Seconds of look-ups among `records` records of random hashes."""
    rng = np.random.default_rng(1)
    with writing(folder) as lake:
        for start in range(0, records, 250_000):
            count = min(250_000, records - start)
            numbers = [f"{start + place:064x}" for place in range(count)]
            words = [f"{part}_{word}" for part in ("pdq", "middle") for word in range(4)]
            columns: dict[str, Any] = {
                "request_id": numbers, "asset_sha256": numbers,
                "label": [f"urn:c2pa:{number}" for number in numbers],
                "watermark": rng.integers(1 << 48, size=count, dtype=np.uint64),
                "recorded_at": pa.array([datetime.now(UTC)] * count, pa.timestamp("us", tz="UTC")),
            }  # fmt: skip
            for word in words:
                columns[word] = rng.integers(1 << 63, size=count, dtype=np.uint64) * 2
            table = pa.table(columns)
            lake.transact(partial(insert_table, name="fingerprints", table=table))
    noise = rng.integers(0, 256, (512, 512, 3), dtype=np.uint8)
    query = _encoded(_resized(Image.fromarray(noise[:64, :64]), 512), "JPEG", 90)
    from base64 import b16encode

    spent: dict[str, list[float]] = {"whole picture, nothing found": [], "by watermark value": []}
    spent["by PDQ value"] = []
    with reading(folder) as lake:
        for _ in range(5):
            spent["whole picture, nothing found"].append(_timed(recover, lake, query))
            value = "0000deadbeef"
            spent["by watermark value"].append(
                _timed(by_binding, lake, "org.platemark.watermark.1", value)
            )
            digest = b16encode(rng.bytes(32)).decode().lower()
            spent["by PDQ value"].append(_timed(by_binding, lake, "org.platemark.pdq.1", digest))
    return spent


def _timed(ask: Callable[..., Any], lake: Lake, *arguments: Any) -> float:
    start = time.perf_counter()
    ask(lake, *arguments)
    return time.perf_counter() - start


def main() -> None:
    """Prints the tables of docs/recovery.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("images", 1000), ("others", 10_000), ("side", 128), ("records", 10**6)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--asked", type=int, help="look up only so many of the images")
    parser.add_argument("--paints", type=int, default=4, help="colourings of one shape")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        settings = Settings(workspace=Path(scratch) / "workspace")
        source = pictures(chosen.images, chosen.side, 10_000_000, chosen.paints)
        made, (psnr, spent, indexed) = catalogue(settings, source)
        print(
            f"{len(made)} images of {chosen.side} px: PSNR mean {np.mean(psnr):.1f} dB, least "
            f"{np.min(psnr):.1f}; marking {np.median(spent):.1f} ms, indexing {indexed:.1f} ms each"
        )
        _report_edits(settings, made[:: max(1, len(made) // (chosen.asked or len(made)))])
        _report_others(settings, pictures(chosen.others, chosen.side, 30_000_000, chosen.paints))
        for name, seconds in at_scale(Path(scratch) / "large", chosen.records).items():
            print(f"{chosen.records:,} records, {name}: median {np.median(seconds):.2f} s")


def _report_edits(settings: Settings, made: list[tuple[str, bytes]]) -> None:
    print(f"{'edit':28} {'found':>7} {'watermark':>10} {'fingerprint':>12} {'wrong':>6} {'ms':>5}")
    with reading(settings.catalog) as lake:
        for name, edit in EDITS.items():
            rng, kinds, wrong, begun = Random(7), {"watermark": 0, "fingerprint": 0}, 0, time.time()
            for request_id, data in made:
                with Image.open(io.BytesIO(data)) as picture:
                    edited = edit(picture.convert("RGB"), rng)
                found = recover(lake, edited).found
                if found and found.request_id == request_id:
                    kinds[found.kind] += 1
                wrong += found is not None and found.request_id != request_id
            each = (time.time() - begun) * 1000 / len(made)
            share = {kind: f"{100 * count / len(made):.1f} %" for kind, count in kinds.items()}
            total = f"{100 * sum(kinds.values()) / len(made):.1f} %"
            print(
                f"{name:28} {total:>7} {share['watermark']:>10} {share['fingerprint']:>12} "
                f"{wrong:>6} {each:>5.0f}",
                flush=True,
            )


def _report_others(settings: Settings, others: Iterator[RgbImage]) -> None:
    false, count = {"watermark": 0, "fingerprint": 0}, 0
    with reading(settings.catalog) as lake:
        for pixels in others:
            count += 1
            if found := recover(lake, _encoded(Image.fromarray(pixels), "JPEG", 90)).found:
                false[found.kind] += 1
            if count % 1000 == 0:
                print(f"{count} others, false finds so far {false}", flush=True)
    print(f"others: {count}, falsely found {false}: {100 * sum(false.values()) / count:.2f} %")


if __name__ == "__main__":
    main()
