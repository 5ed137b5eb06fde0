"""Recovery, measured: python -m bench.recovery [--images 1000] [--side 512] [--others 10000].

Images of the starter world are marked, signed and catalogued as a run does it, then edited and
looked up; others of the same world, never catalogued, must not be found. Then look-ups at scale.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from base64 import b16encode
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
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


@contextmanager
def in_memory(catalog: Path) -> Iterator[Lake]:
    """A copy of what look-ups read. What is found is the same, and thousands are asked sooner."""
    with reading(catalog) as lake:
        tables = {name: lake.read(f"FROM {name}") for name in ("fingerprints", "raw.manifests")}
    with duckdb.connect() as connection:
        connection.execute("ATTACH ':memory:' AS lake; USE lake; CREATE SCHEMA raw")
        for name, table in tables.items():
            connection.register("read", table)
            connection.execute(f"CREATE TABLE {name} AS FROM read")
        yield Lake(catalog, connection)


def at_scale(
    folder: Path, records: int, ours: NDArray[np.uint64], queries: list[bytes]
) -> dict[str, list[tuple[float, float]]]:
    """Seconds by the clock and of processor time of look-ups among so many records.

    Their hashes are those of `ours`, uint64 [N, 8], whole and middle, with a tenth of the bits
    changed: as alike as pictures of the same kinds of things are. `queries` are other pictures.
    """
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
            hashes = ours[rng.integers(len(ours), size=count)] ^ _changes(rng, (count, 8))
            columns |= {word: hashes[:, place] for place, word in enumerate(words)}
            table = pa.table(columns)
            lake.transact(partial(insert_table, name="fingerprints", table=table))
    spent: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with reading(folder) as lake:
        for query in queries:
            spent["other pictures"].append(_timed(recover, lake, query))
            value = "0000deadbeef"
            spent["by watermark value"].append(
                _timed(by_binding, lake, "org.platemark.watermark.1", value)
            )
            digest = b16encode(rng.bytes(32)).decode().lower()
            spent["by PDQ value"].append(_timed(by_binding, lake, "org.platemark.pdq.1", digest))
    return spent


def _changes(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.uint64]:
    """Words of which a tenth of the bits are set."""
    found = np.zeros(shape, np.uint64)
    for bit in range(64):
        found |= (rng.random(shape, np.float32) < 0.1).astype(np.uint64) << np.uint64(bit)
    return found


def _timed(ask: Callable[..., Any], lake: Lake, *arguments: Any) -> tuple[float, float]:
    start, used = time.perf_counter(), time.process_time()
    ask(lake, *arguments)
    return time.perf_counter() - start, time.process_time() - used


def main() -> None:
    """Prints the tables of docs/recovery.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("images", 1000), ("others", 10_000), ("side", 512), ("records", 10**6)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--others-side", type=int, default=256, help="pixels of the others")
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
        if chosen.others:
            others = pictures(chosen.others, chosen.others_side, 30_000_000, chosen.paints)
            _report_others(settings, others)
        if chosen.records:
            _report_scale(settings, Path(scratch) / "large", chosen.records)


def _report_scale(settings: Settings, folder: Path, records: int) -> None:
    words = ", ".join(f"{part}_{word}" for part in ("pdq", "middle") for word in range(4))
    with reading(settings.catalog) as lake:
        table = lake.read(f"SELECT {words} FROM fingerprints")
    ours = np.stack([column.to_numpy() for column in table.columns], axis=1)
    others = pictures(20, 512, 50_000_000, 4)
    queries = [_encoded(Image.fromarray(pixels), "JPEG", 90) for pixels in others]
    for name, seconds in at_scale(folder, records, ours, queries).items():
        clock, used = np.median(seconds, axis=0)
        print(f"{records:,} records, {name}: {clock:.2f} s, {used:.2f} s processor time")


def _report_edits(settings: Settings, made: list[tuple[str, bytes]]) -> None:
    print(
        f"{'edit':26} {'asked':>5} {'found':>7} {'sureness':>8} {'watermark':>9} "
        f"{'fingerprint':>11} {'wrong':>5} {'ms':>5}"
    )
    with in_memory(settings.catalog) as lake:
        for name in EDITS:
            asked = [look_up(lake, name, request_id, data) for request_id, data in made]
            print(told(name, asked), flush=True)


@dataclass(frozen=True)
class Asked:
    """One look-up: the kind of what was found and its score, whether it was another image of
    ours, and processor time in ms.
    """

    kind: str | None
    score: int
    wrong: bool
    spent: float


def look_up(lake: Lake, name: str, request_id: str, data: bytes) -> Asked:
    """Looks a catalogued file up after an edit; the same crop for the same request."""
    with Image.open(io.BytesIO(data)) as picture:
        edited = EDITS[name](picture.convert("RGB"), Random(request_id))
    start = time.process_time()
    found = recover(lake, edited).found
    spent = (time.process_time() - start) * 1000
    if found is None:
        return Asked(None, 0, False, spent)
    return Asked(found.kind, found.score, found.request_id != request_id, spent)


def told(name: str, asked: list[Asked]) -> str:
    """The line of an edit in the table."""
    right = [each for each in asked if each.kind and not each.wrong]
    sure = np.mean([each.score for each in right]) if right else 0.0
    kinds = Counter(each.kind for each in right)
    share = [100 * count / len(asked) for count in (len(right), *_counts(kinds))]
    wrong, spent = sum(each.wrong for each in asked), np.median([each.spent for each in asked])
    return (
        f"{name:26} {len(asked):>5} {share[0]:>5.1f} % {sure:>8.1f} {share[1]:>7.1f} % "
        f"{share[2]:>9.1f} % {wrong:>5} {spent:>5.0f}"
    )


def _counts(kinds: Mapping[str | None, int]) -> tuple[int, int]:
    return kinds.get("watermark", 0), kinds.get("fingerprint", 0)


def _report_others(settings: Settings, others: Iterator[RgbImage]) -> None:
    false, count = {"watermark": 0, "fingerprint": 0}, 0
    with in_memory(settings.catalog) as lake:
        for pixels in others:
            count += 1
            if found := recover(lake, _encoded(Image.fromarray(pixels), "JPEG", 90)).found:
                false[found.kind] += 1
            if count % 1000 == 0:
                print(f"{count} others, false finds so far {false}", flush=True)
    print(f"others: {count}, falsely found {false}: {100 * sum(false.values()) / count:.2f} %")


if __name__ == "__main__":
    main()
