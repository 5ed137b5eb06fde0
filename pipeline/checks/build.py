"""Makes the checks that a policy declares, before the first image: what cannot run stops all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pipeline.checks.duplicates import Catalogued, Duplicates
from pipeline.checks.protocol import Check, ModelSpec
from pipeline.checks.quality import Quality
from pipeline.errors import PlatemarkError, SetupError

ENTRY_POINTS = "platemark.checks"


@dataclass(frozen=True)
class Context:
    """What checks are made of. `models` and `libraries` are those declared, by name.

    `device` is `cpu`, `cuda` or `mps`; `cache` is a folder in the workspace that may be deleted;
    `catalogued` are the images made before.
    """

    models: Mapping[str, ModelSpec]
    libraries: Mapping[str, Path]
    device: str
    catalogued: Iterable[Catalogued]
    cache: Path

    def model(self, name: str, kind: str) -> ModelSpec:
        """The model of that name and kind. Raises SetupError naming those there are."""
        spec = self.models.get(name)
        if spec is None or spec.kind != kind:
            known = sorted(each for each, model in self.models.items() if model.kind == kind)
            raise SetupError(
                f"no {kind} model {name!r} is declared; declare it in the models file, "
                f"or use one of: {', '.join(known) or 'none'}"
            )
        return spec


def build_checks(
    policy_checks: Mapping[str, Any],
    models: Mapping[str, ModelSpec],
    libraries: Mapping[str, Path],
    device: str,
    catalogued: Iterable[Catalogued],
    cache: Path,
) -> list[Check]:
    """The checks of a policy's `checks` section, in its order, ready to measure.

    A section that is None is switched off.
    A section that is no check of ours is looked for among the plugins. Raises SetupError or
    InputError (a faulty library); when several checks fail, one SetupError tells of all.
    """
    context = Context(models, libraries, device, catalogued, cache)
    checks: list[Check] = []
    failures: list[PlatemarkError] = []
    for name, options in policy_checks.items():
        for make in _makers(name, options) if options is not None else ():
            try:
                checks.append(make(context))
            except PlatemarkError as error:
                failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise SetupError("\n".join(str(failure) for failure in failures))
    return checks


Maker = Callable[[Context], Check]


def _makers(name: str, options: Mapping[str, Any]) -> list[Maker]:
    match name:
        case "quality":
            return [lambda context: Quality()]
        case "duplicates":
            return [lambda context: Duplicates(context.catalogued)]
        case "similarity":
            return [partial(_similarity, **options)]
        case "nsfw":
            parts: dict[str, Callable[..., Check]] = {
                "concepts": _concepts,
                "classifier": _classifier,
            }
            return [
                partial(make, **options[part]) for part, make in parts.items() if options.get(part)
            ]
        case _:
            return [lambda context: _plugin(name, options, context)]


def _concepts(context: Context, model: str, unsafe: list[str], safe: list[str]) -> Check:
    from pipeline.checks.embed import load_clip
    from pipeline.checks.nsfw import Concepts

    return Concepts(load_clip(context.model(model, "open-clip"), context.device), unsafe, safe)


def _classifier(context: Context, model: str, unsafe_labels: list[str]) -> Check:
    from pipeline.checks.nsfw import Classifier

    return Classifier(context.model(model, "image-classifier"), unsafe_labels, context.device)


def _similarity(context: Context, model: str, libraries: list[str], top: int = 5) -> Check:
    from pipeline.checks.embed import load_clip
    from pipeline.checks.library import load_library
    from pipeline.checks.similarity import Similarity

    unknown = [name for name in libraries if name not in context.libraries]
    if unknown:
        raise SetupError(
            f"no library {', '.join(map(repr, unknown))}; name its folder under `libraries` in "
            f"platemark.toml (there are: {', '.join(sorted(context.libraries)) or 'none'})"
        )
    encoder = load_clip(context.model(model, "open-clip"), context.device)
    return Similarity(
        encoder,
        [load_library(name, context.libraries[name], encoder, context.cache) for name in libraries],
        top,
    )


def _plugin(name: str, options: Mapping[str, Any], context: Context) -> Check:
    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in found:
        known = ["nsfw", "similarity", "duplicates", "quality", *sorted(found)]
        raise SetupError(
            f"the policy asks for the check {name!r}, which is not installed; install the package "
            f"that brings it, or take it out (there are: {', '.join(known)})"
        )
    try:
        check: Check = found[name].load()(options, context)
    except PlatemarkError:
        raise
    # A plugin may fail in any way; the run must not start without its check.
    except Exception as error:
        raise SetupError(
            f"check {name!r} of {found[name].value} cannot be set up: {error}; mend the plugin"
        ) from error
    return check
