"""The table of licences: what the licences of models, adapters and pictures grant and demand.

Read from pipeline/licences.yaml and a user's file over it; pipeline/licence_conflicts.py holds a
pack's terms against it. A summary for machines, not legal advice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.errors import Fault, InputError
from pipeline.settings import ROOT
from pipeline.terms_file import validated
from pipeline.terms_parts import Line, Part
from pipeline.yaml_lines import Located, read_yaml

SHIPPED = ROOT / "pipeline" / "licences.yaml"


class RevenueLimit(Part):
    """Yearly revenue of whoever runs the model, from which on its licence grants nothing."""

    amount: int = Field(gt=0)
    currency: Line


class LicenceEntry(Part):
    """One licence of the file; see the comments at its top."""

    name: Line
    url: Line
    """Where people read it."""
    source: Line
    """The text that this entry was taken from, a page or a file."""
    dated: date | None = None
    """Of that text; with `versions` each has its own."""
    checked: date | None = None
    """When this entry was last compared with it."""
    versions: dict[str, date] = Field(default_factory=dict)
    """Versions that grant the same; the id, name, url and source get each version's number."""
    aliases: tuple[Line, ...] = ()
    """Other names, such as a model hub's tag; case, spaces and underscores do not matter."""
    commercial: bool
    derivatives: bool = True
    ai_use: bool = True
    """Whether a work may be fed to a model."""
    public_domain: bool = False
    attribution: Literal["none", "works", "outputs"] = "none"
    credit_line: Line | None = None
    """The words that the licence itself demands."""
    share_alike: Literal["none", "works", "outputs"] = "none"
    restrictions: tuple[Line, ...] = ()
    flow_down: bool = False
    revenue_limit: RevenueLimit | None = None
    not_in: tuple[Line, ...] = ()
    note: Line | None = None

    @model_validator(mode="after")
    def _has_a_date(self) -> Self:
        if (self.dated is None) == (not self.versions):
            raise ValueError("give `dated`, or `versions` with the date of each")
        if self.flow_down and not self.restrictions:
            raise ValueError("flow_down without restrictions: name them")
        return self


@dataclass(frozen=True)
class Licence:
    """One licence in one version. `family` and `version` (`CC-BY-SA`, 4.0) tell what may follow."""

    id: str
    family: str
    version: str
    dated: date
    entry: LicenceEntry = field(repr=False)

    @property
    def url(self) -> str:  # noqa: D102
        return self.entry.url.replace("{version}", self.version)

    @property
    def source(self) -> str:  # noqa: D102
        return self.entry.source.replace("{version}", self.version)

    @property
    def restrictions(self) -> tuple[str, ...]:  # noqa: D102
        return self.entry.restrictions

    def may_become(self, other: Licence) -> bool:
        """Whether a share-alike work may be given on under `other`: the same or a later version."""
        return other.family == self.family and _number(other.version) >= _number(self.version)

    def demands(self, work: bool) -> list[str]:
        """What it demands of a pack, in words: of one with such a `work` in it, or made by such a
        model."""
        entry = self.entry
        applies = ("works", "outputs") if work else ("outputs",)
        told = [
            (not entry.commercial, "no commercial use"),
            (work and not entry.derivatives, "no derivatives"),
            (work and not entry.ai_use, "no use by AI"),
            (entry.attribution in applies, "credit"),
            (entry.share_alike in applies, "share alike"),
            (entry.flow_down, "pass on its use restrictions"),
            (bool(entry.not_in), f"nothing granted in {', '.join(entry.not_in)}"),
        ]
        if entry.revenue_limit:
            limit = f"revenue below {entry.revenue_limit.currency} {entry.revenue_limit.amount:,}"
            told.append((True, limit))
        return [words for holds, words in told if holds]


class Licences:
    """Licences by any of their names."""

    def __init__(self, licences: Iterable[Licence]):
        """Of two with one name the later counts."""
        self._named: dict[str, Licence] = {}
        for each in licences:
            for name in _names(each):
                self._named[name] = each

    def find(self, name: str) -> Licence | None:
        """The licence of an SPDX id, another name, or a Creative Commons address; None: unknown."""
        return self._named.get(_normal(_as_id(name)))

    def __iter__(self) -> Iterator[Licence]:
        """Each licence once, by id."""
        return iter(sorted({each.id: each for each in self._named.values()}.values(), key=_id))


def same_licence(one: str, other: str) -> bool:
    """Whether two names differ in case, spaces and underscores at most."""
    return _normal(one) == _normal(other)


@cache
def shipped_licences() -> Licences:
    """The table that comes with Platemark."""
    return Licences(_read(SHIPPED))


def load_licences(own: Path | None = None) -> Licences:
    """The shipped table with the entries of the user's file over it.

    Raises InputError with every fault's file and line.
    """
    return Licences([*shipped_licences(), *_read(own)]) if own else shipped_licences()


class _Head(Part):
    licences: dict[str, Any] = Field(min_length=1)


def _read(path: Path) -> list[Licence]:
    tree, faults = read_yaml(path)
    found: list[Licence] = []
    head = validated(_Head, tree, faults) if tree is not None and not faults else None
    if tree is not None and head is not None:
        for name, item in tree.value["licences"].value.items():
            found += _versions(name, item, faults)
    if faults:
        raise InputError("licences", faults)
    return found


def _versions(name: str, item: Located, faults: list[Fault]) -> list[Licence]:
    if not isinstance(item.value, dict):
        faults.append(Fault(f"{name}: is no licence", item.where, "see docs/licences.md"))
        return []
    entry = validated(LicenceEntry, item, faults)
    if entry is None:
        return []
    if entry.dated:
        return [Licence(name, name, "", entry.dated, entry)]
    return [
        Licence(f"{name}-{version}", name, version, dated, entry)
        for version, dated in entry.versions.items()
    ]


def _names(licence: Licence) -> list[str]:
    suffix = f"-{licence.version}" if licence.version else ""
    own = [licence.id, *(f"{alias}{suffix}" for alias in licence.entry.aliases)]
    if licence.id.startswith("LicenseRef-"):
        own.append(licence.id.removeprefix("LicenseRef-"))
    return [_normal(name) for name in own]


# Deeds of the six licences and the two dedications; ports to a jurisdiction (`/3.0/de/`) grant the
# same for our purposes.
_ADDRESS = re.compile(
    r"https?://(?:www\.)?creativecommons\.org/(?:licen[cs]es/(?P<kind>[a-z-]+)/(?P<version>\d\.\d)"
    r"|publicdomain/(?P<dedication>zero|mark)/1\.0)",
    re.IGNORECASE,
)


def _as_id(name: str) -> str:
    # Words around an address may say anything of it: "all but https://…".
    alone = _ADDRESS.match(name.strip()) and len(name.split()) == 1
    return (alone and creative_commons_in(name)) or name


def creative_commons_in(text: str) -> str | None:
    """The SPDX id of the first Creative Commons address in a text; None without one."""
    found = _ADDRESS.search(text)
    if found is None:
        return None
    if found["dedication"]:
        return "CC0-1.0" if found["dedication"].lower() == "zero" else "CC-PDM-1.0"
    # Version 1.0 wrote by-nd-nc, later ones by-nc-nd.
    parts = set(found["kind"].lower().split("-"))
    kind = "-".join(part for part in ("by", "nc", "nd", "sa") if part in parts)
    return f"CC-{kind.upper()}-{found['version']}"


def _normal(name: str) -> str:
    return re.sub(r"[\s_-]+", "-", name.strip().casefold())


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _id(licence: Licence) -> str:
    return licence.id


def question_rows() -> str:
    """The shipped table as the SQL rows of catalog/questions/licences.sql, demands first.

    `python -m pipeline.licences` prints them.
    """
    alike: dict[tuple[str, str], list[str]] = {}
    for licence in shipped_licences():
        demands = [", ".join(licence.demands(work)) for work in (False, True)]
        alike.setdefault((demands[0], demands[1]), []).extend(_names(licence))
    rows = []
    for (model, work), names in sorted(alike.items()):
        quoted = [f"'{name}'" for name in sorted(set(names))]
        rows += [f"    ('{model}',", f"     '{work}',", *_lines(quoted)]
    return "\n".join(rows).removesuffix(",")


def _lines(names: list[str]) -> list[str]:
    """A list of SQL as lines of at most 100 characters."""
    lines = [f"     [{names[0]}"]
    for name in names[1:]:
        lines[-1] += ","
        if len(lines[-1]) + len(name) > 96:
            lines.append("     ")
        lines[-1] += f" {name}"
    lines[-1] += "]),"
    return lines


if __name__ == "__main__":
    print(question_rows())
