"""Where a right reaches: territories, channels, media and time, compared and overlapped.

Used by usage terms (pipeline/terms.py) and by what licences exclude (pipeline/licences.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

WORLDWIDE = "worldwide"
ANY = "any"

_EU = frozenset(
    (
        *("AT", "BE", "BG", "HR", "CY", "CZ", "DK", "EE", "FI", "FR", "DE", "GR", "HU", "IE"),
        *("IT", "LV", "LT", "LU", "MT", "NL", "PL", "PT", "RO", "SK", "SI", "ES", "SE"),
    )
)
GROUPS = {"EU": _EU, "EEA": _EU | {"IS", "LI", "NO"}}
"""Territories that stand for several countries: the members of the European Union (27 since
1 February 2020, european-union.europa.eu) and of the European Economic Area (efta.int)."""


def beyond(wanted: Iterable[str], granted: Iterable[str], everything: str) -> list[str]:
    """The names in `wanted` that `granted` does not cover; `everything` covers all."""
    given = set(granted)
    if everything in given:
        return []
    covered = given | _countries(given)
    return [name for name in wanted if name not in covered and not _inside(name, covered)]


def overlap(one: Iterable[str], other: Iterable[str], everything: str) -> list[str]:
    """The names that both reach, sorted; empty only where they surely have nothing in common.

    Territories that are neither a two-letter code nor a known group may lie anywhere: they overlap
    with all.
    """
    first, second = set(one), set(other)
    if everything in first and everything in second:
        return [everything]
    if everything in first:
        return sorted(second)
    if everything in second:
        return sorted(first)
    if everything == WORLDWIDE:
        vague = {name for name in first | second if not _known(name)}
        if vague:
            return sorted(vague)
        return sorted(_countries(first) & _countries(second))
    return sorted(first & second)


def both_run(
    starts: date | None, expires: date | None, other_starts: date | None, other_expires: date | None
) -> bool:
    """Whether two spans have a day in common; None is without a beginning or an end."""
    return not (
        (expires is not None and other_starts is not None and expires < other_starts)
        or (other_expires is not None and starts is not None and other_expires < starts)
    )


def _known(name: str) -> bool:
    return name in GROUPS or (len(name) == 2 and name.isalpha() and name.isupper())


def _countries(names: Iterable[str]) -> set[str]:
    return {country for name in names for country in GROUPS.get(name, (name,))}


def _inside(name: str, covered: set[str]) -> bool:
    return name in GROUPS and GROUPS[name] <= covered
