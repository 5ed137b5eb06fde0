"""The long fuzz run: `python -m bench.fuzz [verify] [recover] [briefs] [--minutes N] [--seed N]`.

Damaged images go through verify in worker processes, and through recover over a catalog that has
them; damaged briefs go through the reader of briefs; each for so many minutes. What crashes, hangs
or raises is kept in a folder and named, and the exit code is 1; the same seed finds the same.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from itertools import count, product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.recovery import catalogue
from catalog.lake import reading
from catalog.recover import recover
from pipeline.brief import load_brief
from pipeline.errors import PlatemarkError
from pipeline.images import decode_limited
from pipeline.keys import signing_identity
from pipeline.models import load_models, resolve
from pipeline.policy import load_policy
from pipeline.policy_model import ImageFormat
from pipeline.records import Verdict
from pipeline.request import Request
from pipeline.seal import seal
from pipeline.settings import ROOT, Settings
from pipeline.trust import as_trust
from pipeline.verify_files import Item
from pipeline.verify_many import verify_all

sys.path.insert(0, str(ROOT / "tests"))
from mutations import DAMAGES, mutant, text_mutant

SLOW = 20.0
"""Seconds within which each file must be judged."""
BRIEF = """client: Acme
campaign: spring
template: "a {{ colour }} {{ object }}"
model: starter
count: 2
items: TABLE
terms: {id: acme, licensor: Acme, channels: [web], expires: 2099-12-31}
"""
TABLES = {
    "items.csv": 'sku,object,colour\nA,mug,red\nB,lamp,"blue, dark"\n',
    "items.jsonl": '{"sku": "A", "object": "mug"}\n{"sku": "B", "object": 1}\n',
    "items.yaml": "- {sku: A, object: mug, colour: red}\n- {sku: B, object: lamp}\n",
}


def main() -> int:
    """The run that the command line asks for; 1 when something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", metavar="|".join(RUNS), default=list(RUNS))
    parser.add_argument("--minutes", type=float, default=5.0, help="for each of them")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if unknown := set(options.what) - RUNS.keys():
        parser.error(f"no run of this name: {', '.join(sorted(unknown))}")
    return max(_run(name, options.seed, options.minutes) for name in options.what)


def _run(name: str, seed: int, minutes: float) -> int:
    folder = Path(tempfile.mkdtemp(prefix="platemark-fuzz-"))
    found, states = RUNS[name](folder, seed, time.monotonic() + minutes * 60)
    counts = ", ".join(f"{state} {many:,}" for state, many in states.items())
    print(f"{name}: {states.total():,} mutants: {counts}")
    for each in found:
        print(f"FOUND {each}")
    print(f"{name}: {len(found)} finds{f', kept in {folder}' if found else ''}", flush=True)
    return 1 if found else 0


def _verify(folder: Path, seed: int, until: float) -> tuple[list[str], Counter[str]]:
    settings = Settings(workspace=folder / "workspace")
    files = _files(settings)
    trust = as_trust((settings.keys / "ca.pem").read_bytes())
    pixels = {name: decode_limited(data) for name, data in files.items()}
    states: Counter[str] = Counter()
    found = []
    sent: dict[str, bytes] = {}

    def items() -> Iterator[Item]:
        for number in count(seed * 1_000_000):
            for name, data in files.items():
                for kind in DAMAGES:
                    if time.monotonic() > until:
                        return
                    damaged = mutant(data, kind, number)
                    member = f"{kind}-{number}"
                    sent[f"{name}/{member}"] = damaged
                    yield Item(Path(name), member, size=len(damaged), data=damaged)

    for report in verify_all(items(), trust, "pixels", seconds=SLOW):
        data = sent.pop(report.path)
        states[report.state] += 1
        said = str(report.error)
        wrong = "crash" in said or "longer than" in said
        if report.state in ("Trusted", "Valid"):
            made = pixels[report.path.split("/")[0]]
            # What no signature covers in a PNG may keep it from being decoded: that is told.
            wrong |= report.ok and not report.decodes
            wrong |= bool(report.decodes) and not np.array_equal(decode_limited(data), made)
        if wrong:
            found.append(f"{report.path}: {report.state}, {said}")
            (folder / report.path.replace("/", "-")).write_bytes(data)
    return found, states


def _files(settings: Settings) -> dict[str, bytes]:
    """One file of ours in each format, and the small public ones."""
    files = {}
    policy, model = load_policy("starter"), resolve(load_models(), "starter", "text-to-image")
    verdict = Verdict("pass", (), policy.policy, policy.version, policy.digest)
    request = Request(**_REQUEST, model=model.name, model_revision=model.revision)
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    for fmt in ("jpeg", "png", "webp"):
        image = ImageFormat(format=fmt, quality=90)
        chosen = policy.model_copy(update={"image": image})
        sealed = seal(picture, request, model, chosen, verdict, signing_identity(settings))
        files[f"our.{fmt}"] = sealed.data
    for path in (ROOT / "tests" / "c2pa_files").iterdir():
        if path.suffix in (".jpg", ".png") and 1_000 < path.stat().st_size < 200_000:
            files[path.name] = path.read_bytes()
    return files


_REQUEST: dict[str, Any] = {
    "sku": "A", "index": 0, "mode": "text-to-image", "prompt": "a red mug", "negative_prompt": "",
    "seed": 1, "width": 96, "height": 64, "steps": 2, "guidance": 7.5,
    "scheduler": "DDIMScheduler", "campaign": "c", "client": "a", "terms": {},
}  # fmt: skip


def _recover(folder: Path, seed: int, until: float) -> tuple[list[str], Counter[str]]:
    settings = Settings(workspace=folder / "workspace")
    patches = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    pictures = (np.asarray(Image.fromarray(each).resize((128, 128))) for each in patches)
    signed, _ = catalogue(settings, pictures)
    made = [(request_id, file) for request_id, data in signed for file in _saved(data)]
    states: Counter[str] = Counter()
    found: list[str] = []
    with reading(settings.catalog) as lake:
        for number in count(seed * 1_000_000):
            for (request_id, data), kind in product(made, DAMAGES):
                if time.monotonic() > until:
                    return found, states
                damaged = mutant(data, kind, number)
                began = time.monotonic()
                said = ""
                try:
                    matches = recover(lake, damaged).matches
                    states["found" if matches else "not found"] += 1
                    if matches and matches[0].request_id != request_id:
                        said = f"taken for {matches[0].request_id[:12]}"
                except PlatemarkError:
                    states["refused"] += 1
                except Exception as error:  # what is looked for
                    states["raised"] += 1
                    said = _told(error)
                if (seconds := time.monotonic() - began) > SLOW:
                    said += f" {seconds:.0f} s"
                if said:
                    name = f"{request_id[:12]}-{len(data)}-{kind}-{number}"
                    found.append(f"{name}: {said}")
                    (folder / name).write_bytes(damaged)
    return found, states


def _saved(data: bytes) -> Iterator[bytes]:
    """The signed PNG, and what platforms make of it: JPEG and WebP without a manifest."""
    yield data
    with Image.open(io.BytesIO(data)) as picture:
        for fmt in ("JPEG", "WEBP"):
            out = io.BytesIO()
            picture.save(out, fmt, quality=90)
            yield out.getvalue()


def _told(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{error!r} at {Path(last.filename).name}:{last.lineno}"


def _briefs(folder: Path, seed: int, until: float) -> tuple[list[str], Counter[str]]:
    states: Counter[str] = Counter()
    found = []
    for number in count(seed * 1_000_000):
        if time.monotonic() > until:
            break
        table = sorted(TABLES)[number % 3]
        head = number % 2 == 0
        brief = BRIEF.replace("TABLE", table)
        rows = TABLES[table].encode() if head else text_mutant(TABLES[table], number)
        (folder / table).write_bytes(rows)
        (folder / "brief.yaml").write_bytes(text_mutant(brief, number) if head else brief.encode())
        began = time.monotonic()
        try:
            load_brief(folder / "brief.yaml")
            states["read"] += 1
        except PlatemarkError:
            states["refused"] += 1
        except Exception as error:  # what is looked for
            states["raised"] += 1
            found.append(f"{number}: {_told(error)}")
        if (seconds := time.monotonic() - began) > SLOW:
            found.append(f"{number}: {seconds:.0f} s")
    return found, states


RUNS = {"verify": _verify, "recover": _recover, "briefs": _briefs}


if __name__ == "__main__":
    sys.exit(main())
