"""A policy's unit tests: labelled examples, and whether the policy says of them what it should.

`NAME.tests.yaml` lies beside the policy:

    examples:
      - {image: good/mug.png, outcome: pass}
      - {image: bad/bear.png, outcome: block, rules: [copying.descriptor], prompt: a toy bear}
      - {prompt: a portrait in the style of somebody, outcome: block}
    folders:
      - {folder: bad, outcome: [review, block], rules: [copying.descriptor]}

An example without an image is about its prompt alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pipeline.checks.protocol import Check
from pipeline.errors import Fault, InputError
from pipeline.measure import Measured, measure_files, pictures_in, request_for
from pipeline.policy import Policy
from pipeline.records import Outcome, Verdict
from pipeline.verdict import decide
from pipeline.yaml_lines import Located, read_yaml, written_path

Outcomes = Annotated[
    tuple[Outcome, ...],
    Field(min_length=1),
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
]


class _Expected(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    outcome: Outcomes
    """One outcome, or those that are all right."""
    rules: tuple[str, ...] = ()
    """Rules that must have spoken."""
    prompt: str = ""
    channels: tuple[str, ...] = ()


class _Example(_Expected):
    image: str | None = None

    @model_validator(mode="after")
    def _something(self) -> _Example:
        if self.image is None and not self.prompt:
            raise ValueError("an example has an image, a prompt, or both")
        return self


class _Folder(_Expected):
    folder: str


class _Examples(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    examples: tuple[_Example, ...] = ()
    folders: tuple[_Folder, ...] = ()


@dataclass(frozen=True)
class Example:
    """One labelled example. `where` is the file and line that states it; no `image`: words only."""

    where: str
    image: Path | None
    outcomes: tuple[Outcome, ...]
    rules: tuple[str, ...]
    prompt: str
    channels: tuple[str, ...]

    @property
    def name(self) -> str:
        """What it is called in a report."""
        return self.image.name if self.image else repr(self.prompt)


@dataclass(frozen=True)
class Tried:
    """An example and what the policy said of it; `faults` are what is not as it should be."""

    example: Example
    verdict: Verdict | None
    faults: tuple[str, ...]


def tests_beside(policy: Path) -> Path:
    """Where the tests of a policy file lie: `retail.tests.yaml` for `retail.yaml`."""
    return policy.with_suffix(".tests.yaml")


def read_examples(path: Path) -> list[Example]:
    """All examples of a tests file. Raises InputError with the lines of its faults."""
    tree, faults = read_yaml(path)
    if tree is None:
        raise InputError("policy tests", faults)
    try:
        stated = _Examples.model_validate(tree.plain())
    except ValidationError as error:
        faults += [_fault(each, tree) for each in error.errors()]
        raise InputError("policy tests", faults) from None
    examples: list[Example] = []
    for index, example in enumerate(stated.examples):
        examples += _expanded(path.parent, example, tree.at(("examples", index)).where, faults)
    for index, folder in enumerate(stated.folders):
        examples += _expanded(path.parent, folder, tree.at(("folders", index)).where, faults)
    if not examples and not faults:
        faults.append(Fault("holds no examples", str(path), "list some under `examples`"))
    if faults:
        raise InputError("policy tests", faults)
    return examples


def _fault(found: Any, tree: Located) -> Fault:
    path = written_path(found["loc"], tree.plain(), found["type"] == "missing")
    name = ".".join(str(step) for step in path)
    return Fault(f"{name}: {found['msg']}".removeprefix(": "), tree.at(path).where)


def _expanded(
    folder: Path, row: _Example | _Folder, where: str, faults: list[Fault]
) -> Iterator[Example]:
    named = row.folder if isinstance(row, _Folder) else row.image
    images: Sequence[Path | None] = [None]
    if named is not None:
        path = folder / named
        if not path.resolve().is_relative_to(folder.resolve()):
            faults.append(Fault(f"{named!r} leaves the tests' folder", where, "copy it there"))
            return
        images = pictures_in(path) if isinstance(row, _Folder) else [path]
        if not images or not path.exists():
            what = "holds no pictures" if path.is_dir() else "does not exist"
            faults.append(Fault(f"{named!r} {what}", where, "mend the name"))
            return
    for image in images:
        yield Example(where, image, row.outcome, row.rules, row.prompt, row.channels)


def try_examples(
    policy: Policy, checks: Sequence[Check], examples: Sequence[Example]
) -> Iterator[Tried]:
    """Each example, measured and decided, those of words alone first.

    Model licences are taken to be allowed: an example has no model.
    """
    alone = [each for each in examples if each.image is None]
    for example in alone:
        verdict = _decided(policy, example, Measured(Path(example.prompt)))
        words = tuple(r for r in verdict.reasons if r.rule == "prompts.deny")
        outcome: Outcome = "block" if words else "pass"
        yield _judged(
            example,
            Verdict(outcome, words, verdict.policy, verdict.policy_version, verdict.policy_digest),
        )
    shown = [each for each in examples if each.image is not None]
    files = [each.image for each in shown if each.image is not None]
    measured = measure_files(checks, files, [each.prompt for each in shown])
    for example, found in zip(shown, measured, strict=True):
        if found.error:
            yield Tried(example, None, (f"cannot be measured: {found.error}",))
        else:
            yield _judged(example, _decided(policy, example, found))


def _decided(policy: Policy, example: Example, measured: Measured) -> Verdict:
    request = request_for(measured.file, 0, 0, example.prompt, example.channels)
    return decide(policy, request, policy.licences[0], measured.scores)


def _judged(example: Example, verdict: Verdict) -> Tried:
    spoke = {reason.rule for reason in verdict.reasons}
    faults = []
    if verdict.outcome not in example.outcomes:
        why = "; ".join(reason.text for reason in verdict.reasons) or "no rule spoke"
        faults.append(f"{verdict.outcome}, not {' or '.join(example.outcomes)}: {why}")
    faults += [
        f"the rule {rule} did not speak"
        for rule in example.rules
        if not any(name == rule or name.startswith((f"{rule}@", f"{rule}[")) for name in spoke)
    ]
    return Tried(example, verdict, tuple(faults))
