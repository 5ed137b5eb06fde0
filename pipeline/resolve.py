"""Brief → requests: every item's prompt rendered, its model found, its sizes and seeds settled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from pipeline.brief import Brief, Item
from pipeline.brief_table import no_text
from pipeline.errors import Fault, InputError, SetupError
from pipeline.models import Model
from pipeline.prompt import Render, check_prompt, compile_template, render_prompt
from pipeline.request import Request, derived_seed
from pipeline.terms import UsageTerms


def resolve_requests(
    brief: Brief, find_model: Callable[[str], Model], terms: UsageTerms | None
) -> list[Request]:
    """All requests of a brief, in its order; `terms` are the policy's, used when it has none.

    Raises InputError with every item whose prompt cannot be made or whose model is not declared,
    and SetupError, once the brief has no fault, for absent models.
    """
    faults: list[Fault] = []
    models, unknown, absent = _models(brief, find_model)
    faults += _unknown_models(brief, unknown)
    granted = brief.terms or terms
    terms_json = granted.model_dump(mode="json") if granted else {}
    render = _renderer(brief, faults)
    requests: list[Request] = []
    for item in brief.items:
        prompt = _prompt(item, render, brief.template is not None, faults)
        if model := models.get(item.settings.model):
            requests.extend(_requests(brief, item, model, prompt, terms_json))
    if faults:
        raise InputError(f"brief {brief.name}", faults)
    if absent:
        raise absent
    return requests


def _models(
    brief: Brief, find_model: Callable[[str], Model]
) -> tuple[dict[str, Model], dict[str, tuple[Fault, ...]], SetupError | None]:
    """Models by name, the faults of names that are not declared, and the first absent model."""
    models: dict[str, Model] = {}
    unknown: dict[str, tuple[Fault, ...]] = {}
    absent: SetupError | None = None
    for name in dict.fromkeys(item.settings.model for item in brief.items):
        try:
            models[name] = find_model(name)
        except InputError as error:
            unknown[name] = error.faults
        except SetupError as error:
            absent = absent or error
    return models, unknown, absent


def _unknown_models(brief: Brief, unknown: Mapping[str, Sequence[Fault]]) -> Iterator[Fault]:
    """A fault for every row that names such a model, and one for the brief's own `model`."""
    places: dict[tuple[str, str], None] = {}
    for item in brief.items:
        if (name := item.settings.model) in unknown:
            in_row = item.columns.get("model") not in (None, "")
            places[name, f"{item.where}, column model" if in_row else "model"] = None
    for name, where in places:
        yield from (Fault(fault.what, where, fault.remedy) for fault in unknown[name])


def _renderer(brief: Brief, faults: list[Fault]) -> Render | None:
    if brief.template is None:
        return None
    columns = set().union(*(item.columns for item in brief.items))
    return compile_template(brief.template, columns, "template", faults)


def _prompt(item: Item, render: Render | None, templated: bool, faults: list[Fault]) -> str:
    own = item.columns.get("prompt")
    empty = own is None or (isinstance(own, str) and not own.strip())
    if render is not None and empty:
        return render_prompt(render, item.columns, item.where, faults)
    if empty and templated:
        return ""
    if empty:
        remedy = "add a `prompt` column, or a template (--template, or `template:` in a YAML brief)"
        faults.append(Fault("no prompt and no template", item.where, remedy))
        return ""
    where = f"{item.where}, column prompt"
    if problem := no_text(own):
        faults.append(Fault(problem, where, "write the prompt as text"))
        return ""
    return check_prompt(" ".join(str(own).split()), where, faults)


def _requests(
    brief: Brief, item: Item, model: Model, prompt: str, terms: dict[str, object]
) -> list[Request]:
    settings = item.settings
    made = []
    for index in range(settings.count):
        content = {
            "sku": item.sku,
            "index": index,
            "mode": settings.mode,
            "model": model.name,
            "model_revision": model.revision,
            "prompt": prompt,
            "negative_prompt": settings.negative_prompt,
            "width": settings.width or model.width,
            "height": settings.height or model.height,
            "steps": settings.steps or model.steps,
            "guidance": model.guidance if settings.guidance is None else settings.guidance,
            "scheduler": model.scheduler,
        }
        seed = derived_seed(content) if settings.seed == "derived" else settings.seed + index
        made.append(
            Request(**content, seed=seed, campaign=brief.campaign, client=brief.client, terms=terms)  # type: ignore[arg-type]
        )
    return made
