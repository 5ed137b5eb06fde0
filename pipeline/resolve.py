"""Brief → requests: every item's prompt rendered, its model found, its sizes and seeds settled."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.brief import Brief, Item
from pipeline.errors import Fault, InputError
from pipeline.models import Model
from pipeline.prompt import Render, check_prompt, compile_template, render_prompt
from pipeline.request import Request, derived_seed
from pipeline.terms import UsageTerms


def resolve_requests(
    brief: Brief, find_model: Callable[[str], Model], terms: UsageTerms | None
) -> list[Request]:
    """All requests of a brief, in its order; `terms` are the policy's, used when it has none.

    Raises InputError with every item whose prompt cannot be made, SetupError for absent models.
    """
    faults: list[Fault] = []
    models = {name: find_model(name) for name in {item.settings.model for item in brief.items}}
    granted = brief.terms or terms
    terms_json = granted.model_dump(mode="json") if granted else {}
    render = _renderer(brief, faults)
    requests: list[Request] = []
    for item in brief.items:
        if faults and render is None and brief.template is not None:
            break
        prompt = _prompt(item, render, faults)
        model = models[item.settings.model]
        requests.extend(_requests(brief, item, model, prompt, terms_json))
    if faults:
        raise InputError(f"brief {brief.name}", faults)
    return requests


def _renderer(brief: Brief, faults: list[Fault]) -> Render | None:
    if brief.template is None:
        return None
    columns = set().union(*(item.columns for item in brief.items))
    return compile_template(brief.template, columns, "template", faults)


def _prompt(item: Item, render: Render | None, faults: list[Fault]) -> str:
    own = item.columns.get("prompt")
    if render is not None and own in (None, ""):
        return render_prompt(render, item.columns, item.where, faults)
    if own in (None, ""):
        remedy = "add a `prompt` column, or a template (--template, or `template:` in a YAML brief)"
        faults.append(Fault("no prompt and no template", item.where, remedy))
        return ""
    return check_prompt(" ".join(str(own).split()), f"{item.where}, column prompt", faults)


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
