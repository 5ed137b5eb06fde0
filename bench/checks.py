"""What a policy's checks cost beside generation: milliseconds an image, in turns, in one process.

A batch is generated, then checked, again and again, nothing else running, so that the two do not
compete as in a run, where batch k+1 is generated while batch k is checked. Also told: how often
each open_clip model embedded a batch.

    python -m bench.checks [--batches 12] [--policy starter]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from bench.throughput import write_brief
from catalog.checking import ready_checks
from catalog.lake import writing
from pipeline.checks.embed import ClipEncoder
from pipeline.checks.protocol import ImageBatch, remember, run_checks
from pipeline.generate.device import pick_device
from pipeline.generate.engine import Diffusers
from pipeline.inputs import InputStore
from pipeline.plan import make_plan
from pipeline.settings import Settings


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--policy", default="starter")
    chosen = parser.parse_args()
    device = pick_device("auto")
    passes = _counted()
    generated: list[float] = []
    checked: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = Settings(workspace=folder / "workspace")
        settings.make_root()
        brief = write_brief(folder, (chosen.batches + 1) * device.batch_size)
        plan = make_plan(settings, brief, chosen.policy)
        store = InputStore(settings, plan.pictures)
        engine = Diffusers(plan.models, store, device, device.batch_size)
        with writing(settings.catalog) as lake:
            checks = ready_checks(
                lake, settings, plan.policy, device=device.name, models=plan.detectors,
                items=plan.words, picture=store.pixels,
            )  # fmt: skip
            # The first batch warms both sides and is not counted.
            for number, batch in enumerate(plan.batches(set(), device.batch_size)):
                start = time.perf_counter()
                images = engine(batch).images
                spent = (time.perf_counter() - start) * 1000 / len(images)
                passes.clear()
                measured = ImageBatch(images, batch.requests)
                results = run_checks(checks, measured)
                remember(checks, measured)
                if number:
                    generated.append(spent)
                    for check, milliseconds in results[0].milliseconds.items():
                        checked[check].append(milliseconds)
    generation = statistics.median(generated)
    print(f"{len(generated)} batches of {device.batch_size}, policy {chosen.policy}\n")
    print(f"{'':14} ms/image  of generation")
    print(f"{'generation':14} {generation:8.2f}")
    costs = {check: statistics.median(each) for check, each in checked.items()}
    for check, milliseconds in costs.items():
        print(f"{check:14} {milliseconds:8.2f}  {milliseconds / generation:6.1%}")
    whole = sum(costs.values())
    print(f"{'all checks':14} {whole:8.2f}  {whole / generation:6.1%}")
    for model, count in passes.items():
        print(f"{model} embedded the last batch {count} time{'s' if count > 1 else ''}")


def _counted() -> Counter[str]:
    """Counts each open_clip model's passes over images from now on."""
    passes: Counter[str] = Counter()
    embed = ClipEncoder.images

    def counted(self: ClipEncoder, images):  # type: ignore[no-untyped-def]
        passes[self.spec.name] += 1
        return embed(self, images)

    ClipEncoder.images = counted  # type: ignore[method-assign]
    return passes


if __name__ == "__main__":
    main()
