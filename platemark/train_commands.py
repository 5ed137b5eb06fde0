"""train: adapters from your own pictures, refused before any model is loaded when rights lack."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import Fault, InputError, collect
from pipeline.settings import load_settings
from platemark.display import duration, err, out, print_json, print_notices, print_rows
from platemark.options import AsJson, PolicyName, Workspace

if TYPE_CHECKING:
    from pipeline.models import Model
    from pipeline.policy_model import Policy
    from pipeline.train.lora import Progress


train = typer.Typer(help="Train adapters on your own pictures.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.add_typer(train, name="train", rich_help_panel="Produce")


@train.callback()
def _train() -> None:
    """Train adapters on your own pictures."""


@train.command()
def lora(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Pictures and rights.csv: file,rights_holder,licence,training and, if you like, "
            "title,caption.",
            show_default=False,
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the adapter.", show_default=False)],
    base: Annotated[str, typer.Option(help="Text-to-image model to adapt.")] = "starter",
    rank: Annotated[int, typer.Option(help="Size of the adapter.")] = 8,
    steps: Annotated[int, typer.Option(help="Steps of training.")] = 200,
    seed: Annotated[int, typer.Option(help="Same seed, same adapter (on one machine).")] = 0,
    rate: Annotated[float, typer.Option(help="Learning rate.")] = 5e-4,
    batch_size: Annotated[int, typer.Option(help="Pictures in a step.")] = 4,
    resolution: Annotated[
        int | None, typer.Option(help="Side in pixels. Default: the model's size.")
    ] = None,
    caption: Annotated[
        str, typer.Option(help="Caption of pictures that have none; {title} is theirs.")
    ] = "{title}",
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompt", help="Painted as it goes; may be repeated. Default: captions."),
    ] = None,
    policy: PolicyName = "starter",
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Train a LoRA adapter on a folder of pictures. Interrupted? Run it again: it goes on."""
    from pipeline.keys import trust_anchors
    from pipeline.models import load_models, resolve
    from pipeline.policy import load_policy
    from pipeline.train.samples import load_samples

    settings = load_settings(workspace)
    faults: list[Fault] = []
    loaded = collect(lambda: load_policy(policy), faults)
    declared = collect(lambda: load_models(settings.models), faults) or {}
    if name in declared:
        remedy = "choose another name: the adapter would replace that model"
        faults.append(Fault(f"a model {name!r} is declared", "--name", remedy))
    model = collect(lambda: resolve(declared, base, "text-to-image"), faults) if declared else None
    if loaded and model:
        faults += _licence_faults(loaded, model)
    # Until waivers are known, no picture can be judged.
    samples = None
    if loaded:
        anchors = trust_anchors(settings)
        samples = collect(lambda: load_samples(folder, anchors, loaded.training.waivers), faults)
    if faults or model is None or samples is None:
        raise InputError(f"training on {folder} under policy {policy}", faults)

    from pipeline.train.lora import train_lora

    settings.make_root()
    try:
        with _progress() as show:
            made = train_lora(
                model,
                samples,
                settings.adapters,
                name=name,
                rank=rank,
                steps=steps,
                seed=seed,
                resolution=resolution,
                rate=rate,
                batch_size=batch_size,
                device=settings.device,
                caption=caption,
                sample_prompts=prompts or (),
                progress=show,
            )
    except KeyboardInterrupt:
        err.print("Interrupted. Run the same command again: it goes on from its last kept step.")
        raise typer.Exit(130) from None
    report = _report(made)
    if as_json:
        print_json(report)
        return
    _print_report(report)


def _licence_faults(policy: Policy, model: Model) -> list[Fault]:
    if policy.allows_licence(model.licence):
        return []
    what = f"licence {model.licence!r} is not among those the policy lists"
    remedy = "choose another base, or list the licence in the policy"
    return [Fault(what, f"model {model.name}", remedy)]


def _report(made: Path) -> dict[str, Any]:
    card = json.loads((made / "adapter.json").read_text(encoding="utf-8"))
    return {
        "folder": str(made),
        "models_file": str(made / "model.yaml"),
        "samples": str(made / "samples.jpg"),
        "name": card["name"],
        "base": card["base"],
        "licence": card["licence"],
        "weights_sha256": card["weights"]["sha256"],
        "images": len(card["images"]),
        "waived": sum(each["waiver"] is not None for each in card["images"]),
        "training": card["training"],
        "loss": card["loss"],
        "notices": [card["notice"]],
    }


def _print_report(report: dict[str, Any]) -> None:
    """A finished training for people: what was learnt from what, and where it lies."""
    out.print(f"{report['folder']}: adapter {report['name']} of {report['base']['name']}")
    waived = f", {report['waived']} by a waiver" if report["waived"] else ""
    pictures = f"{report['images']} picture{'' if report['images'] == 1 else 's'}"
    out.print(f"Trained on {pictures}{waived}; licence {report['licence']}")
    print_rows([{"step": step, "loss": loss} for step, loss in report["loss"]["probe"]])
    out.print(f"Pictures as it learnt: {report['samples']}")
    out.print(f"Entry for your models file: {report['models_file']}")
    print_notices(report["notices"])


class _progress:
    """A bar with loss and time left; a line while the base loads."""

    def __enter__(self) -> Callable[[Progress], None]:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
        )
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
            console=err,
            transient=True,
        )
        self._task = self._bar.add_task("Loading the base", total=None, told="")
        self._bar.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _show(self, at: Progress) -> None:
        left = "" if at.seconds_left is None else f", {duration(at.seconds_left)} left"
        self._bar.update(
            self._task,
            description="Training",
            completed=at.step,
            total=at.steps,
            told=f"loss {at.loss:.3f}{left}",
        )
