"""Brief → requests: every item's prompt made, its models and inputs found, sizes and seeds settled.

What is wrong with an item is told with its row and column; with `faulty_items: skip` the brief goes
on without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.brief import Brief, Item, Refused
from pipeline.brief_table import no_text
from pipeline.errors import Fault, InputError, SetupError
from pipeline.inputs import FindAsset, Picture
from pipeline.models import Kind, Model
from pipeline.prompt import Render, check_prompt, compile_template, render_prompt
from pipeline.prompt_writer import PromptWriter, Written, write_prompts
from pipeline.request import Request, derived_seed
from pipeline.resolve_step import Prompt, Steps
from pipeline.terms import UsageTerms

FindModel = Callable[..., Model]
"""`find(name, *kinds)`; raises as `pipeline.models.resolve` does."""


@dataclass(frozen=True)
class Surroundings:
    """What requests are resolved against: catalog, trusted roots, a language model and its cache.

    `forbidden` says why a picture may not be used, by the policy; empty when it may.
    """

    anchors: bytes = b""
    find_asset: FindAsset | None = None
    writer: PromptWriter | None = None
    prompt_cache: Path | None = None
    forbidden: Callable[[Picture], Sequence[str]] = lambda picture: ()
    refuse: Callable[[Request], Sequence[Fault]] = lambda request: ()
    """What the policy has against a request before it is made (denied words)."""
    refuse_models: Callable[[Mapping[str, Model], Mapping[str, int]], Sequence[Fault]] = (
        lambda models, images: ()
    )
    """What it has against models, by name, and how many images each is for (licences)."""


@dataclass(frozen=True)
class Resolved:
    """All requests of a brief in its order, and what they refer to: models by name, pictures by
    SHA-256. `refused` are the items that were skipped, `notices` what people must be told.
    """

    requests: tuple[Request, ...]
    models: Mapping[str, Model]
    pictures: Mapping[str, Picture]
    refused: tuple[Refused, ...]
    notices: tuple[str, ...]


def resolve_requests(
    brief: Brief,
    find_model: FindModel,
    terms: UsageTerms | None,
    around: Surroundings = Surroundings(),
) -> Resolved:
    """All requests of a brief; `terms` are the policy's, used when the brief has none.

    Raises InputError with every fault of every item, and SetupError, once the brief has no fault,
    for absent models.
    """
    faults: list[Fault] = []
    notices: list[str] = []
    models = Models(brief, find_model)
    granted = brief.terms or terms
    terms_json = granted.model_dump(mode="json") if granted else {}
    templates = _templates(brief, faults)
    written, unwritten = _written(brief, around, faults, notices)
    requests: list[Request] = []
    pictures: dict[str, Picture] = {}
    refused = list(brief.refused)
    for item in brief.items:
        own = list(unwritten.get(item.where, ()))
        prompt = _prompt(brief, item, templates, written.get(item.where), own)
        steps = Steps(brief, item, models, around, templates.step, own)
        made = [
            _image_request(item, steps, prompt, index, terms_json)
            for index in range(item.settings.count)
        ]
        if not own and made and made[0]:
            own.extend(around.refuse(made[0]))
        if not own:
            requests += [request for request in made if request]
            # The same bytes may be a file here and an asset there: the asset says more.
            pictures |= {
                sha256: picture
                for sha256, picture in steps.pictures.items()
                if picture.asset or sha256 not in pictures
            }
        elif brief.skip_faulty:
            refused.append(Refused(item.sku, item.where, tuple(dict.fromkeys(own))))
        else:
            faults += own
    images: dict[str, int] = {}
    for request in requests:
        for name in set(every_model(request)):
            images[name] = images.get(name, 0) + 1
    used = {name: model for name, model in models.found.items() if name in images}
    faults += models.faults
    faults += around.refuse_models(used, images)
    if not requests and not faults:
        faults += [fault for each in refused for fault in each.faults]
    if faults:
        raise InputError(f"brief {brief.name}", list(dict.fromkeys(faults)))
    if models.absent:
        raise models.absent
    return Resolved(tuple(requests), used, pictures, tuple(refused), tuple(notices))


def _image_request(
    item: Item,
    steps: Steps,
    prompt: Prompt,
    index: int,
    terms: Mapping[str, object],
) -> Request | None:
    """Image `index` of an item: its chain's last request, None where something is at fault."""
    chain = steps.chain(prompt, index)
    if not chain:
        return None
    own = item.settings.seed
    earlier: list[Request] = []
    # Steps name each other by request id, which their seeds are part of.
    ids: dict[str, str] = {}
    for step in chain:
        seed = derived_seed(step.as_json()) if own == "derived" else own + index
        inputs = tuple(replace(i, sha256=ids.get(i.sha256, i.sha256)) for i in step.inputs)
        settled = replace(step, inputs=inputs, seed=seed, terms=terms, earlier=tuple(earlier))
        if step is chain[-1]:
            return settled
        ids[step.request_id] = settled.request_id
        earlier.append(replace(settled, terms={}, earlier=()))
    return None


class Models:
    """Models found so far, by name; what is wrong with their names, and the first absent one."""

    def __init__(self, brief: Brief, find: FindModel):
        """`find` as in `resolve_requests`."""
        self._find = find
        self._brief = brief
        self._unknown: dict[tuple[str, tuple[Kind, ...]], tuple[Fault, ...]] = {}
        self.found: dict[str, Model] = {}
        self.faults: list[Fault] = []
        self.absent: SetupError | None = None

    def get(
        self, name: str, kinds: tuple[Kind, ...], item: Item, column: str, faults: list[Fault]
    ) -> Model | None:
        """The model, or None and its fault: the item's where its row names it, else the brief's."""
        if (model := self.found.get(name)) and model.kind in kinds:
            return model
        if (name, kinds) not in self._unknown:
            try:
                self.found[name] = self._find(name, *kinds)
                return self.found[name]
            except InputError as error:
                self._unknown[name, kinds] = error.faults
            except SetupError as error:
                self.absent = self.absent or error
                self._unknown[name, kinds] = ()
        in_row = item.columns.get(column) not in (None, "")
        where = f"{item.where}, column {column}" if in_row else column
        told = [Fault(fault.what, where, fault.remedy) for fault in self._unknown[name, kinds]]
        (faults if in_row else self.faults).extend(told)
        return None


@dataclass
class Templates:
    """The brief's templates, compiled: the default, by locale, and those of further steps."""

    default: Render | None = None
    by_locale: dict[str, Render | None] = field(default_factory=dict)
    step: dict[str, Render | None] = field(default_factory=dict)


def _templates(brief: Brief, faults: list[Fault]) -> Templates:
    columns = set().union(*(item.columns for item in brief.items))
    made = Templates()
    if brief.template is not None:
        made.default = compile_template(brief.template, columns, "template", faults)
    for locale, text in brief.templates.items():
        made.by_locale[locale] = compile_template(text, columns, f"templates.{locale}", faults)
    for text in dict.fromkeys(s.prompt for item in brief.items for s in item.settings.then):
        if text:
            made.step[text] = compile_template(text, columns, "then, prompt", faults)
    return made


def _written(
    brief: Brief, around: Surroundings, faults: list[Fault], notices: list[str]
) -> tuple[dict[str, Written], dict[str, list[Fault]]]:
    """Prompts by a language model, by the item's place, and the faults of what it answered."""
    if brief.write_prompts is None:
        return {}, {}
    if around.writer is None or around.prompt_cache is None:
        remedy = "set url and model under [prompt_writer] in platemark.toml"
        faults.append(Fault("no language model is configured", "write_prompts", remedy))
        return {}, {}
    items = [item for item in brief.items if not _has_text(item.columns.get("prompt"))]
    facts = [(item.where, _facts(item)) for item in items]
    problems: list[Fault] = []
    told = write_prompts(
        around.writer, brief.write_prompts, facts, around.prompt_cache, problems, notices
    )
    by_place: dict[str, list[Fault]] = {}
    for problem in problems:
        by_place.setdefault(problem.where, []).append(problem)
    found = {item.where: text for item, text in zip(items, told, strict=True) if text}
    return found, by_place


def _facts(item: Item) -> dict[str, object]:
    """What the language model is told of an item: its columns, without those that steer us."""
    steering = {*type(item.settings).model_fields, "prompt"} - {"locale"}
    return {key: value for key, value in item.columns.items() if key not in steering}


def _has_text(value: object) -> bool:
    return value is not None and not (isinstance(value, str) and not value.strip())


def _prompt(
    brief: Brief, item: Item, templates: Templates, written: Written | None, faults: list[Fault]
) -> Prompt:
    own = item.columns.get("prompt")
    if _has_text(own):
        where = f"{item.where}, column prompt"
        if problem := no_text(own):
            faults.append(Fault(problem, where, "write the prompt as text"))
            return Prompt("")
        return Prompt(check_prompt(" ".join(str(own).split()), where, faults))
    if written is not None:
        return Prompt(check_prompt(written.text, item.where, faults), written.writer)
    locale = item.settings.locale
    if locale and locale not in templates.by_locale and brief.templates:
        known = ", ".join(brief.templates)
        fault = Fault(f"no template for locale {locale!r}", f"{item.where}, column locale", known)
        faults.append(fault)
        return Prompt("")
    templated = brief.template is not None or locale in templates.by_locale
    render = templates.by_locale.get(locale, templates.default)
    if render is not None:
        return Prompt(render_prompt(render, item.columns, item.where, faults))
    # An upscaler sharpens without words; a template that does not compile is a fault already.
    if not templated and item.settings.mode != "upscaling":
        remedy = "add a `prompt` column, or a template (--template, or `template:` in a YAML brief)"
        faults.append(Fault("no prompt and no template", item.where, remedy))
    return Prompt("")


def every_model(request: Request) -> Iterator[str]:
    """Names of all models that make a request's pixels: of every step, its controls, adapters and
    tools."""
    for step in request.chain:
        yield step.model
        for control in step.controls:
            yield control.model
            if control.tool:
                yield control.tool
        yield from (adapter.model for adapter in step.adapters)
        if step.region and step.region.tool:
            yield step.region.tool
