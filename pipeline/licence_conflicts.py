"""Holds what a pack grants against the licences of everything that had a part in an image.

Pure: asked at planning with a brief's own terms, and at export with a pack's and the images'.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Literal

from pipeline.licences import Licence, Licences, same_licence
from pipeline.scope import WORLDWIDE, overlap
from pipeline.terms import Conflict, UsageTerms
from pipeline.terms_parts import Clearance, Rule

Kind = Literal["model", "adapter", "control", "tool", "training picture", "input"]


@dataclass(frozen=True)
class Ingredient:
    """Something under a licence that had a part in an image.

    `credit` are the words that name its author, where they are known; `refuses` is what an input
    picture itself says against being edited by a model.
    """

    kind: Kind
    name: str
    licence: str
    credit: str = ""
    refuses: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def licence_conflicts(
    pack: UsageTerms,
    asset: UsageTerms,
    ingredients: Iterable[Ingredient],
    licences: Licences,
    today: date,
) -> tuple[Conflict, ...]:
    """What stands in the way of giving an image under `pack` whose own terms are `asset`.

    Of training pictures only that their licence forbids commerce counts: their rights holders
    allowed the training itself in so many words (`rights.csv`, `training: yes`).
    """
    cleared = _Cleared((*pack.clearances, *asset.clearances), pack.expires, today)
    found: list[Conflict] = []
    for one in dict.fromkeys(ingredients):
        for conflict in _conflicts_of(one, pack, licences):
            lifted, lapsed = cleared.lifts(one, conflict.rule, licences)
            if lifted:
                continue
            fix = f"{conflict.fix}; {lapsed}" if lapsed else conflict.fix
            found.append(Conflict(conflict.rule, conflict.says, fix))
    return tuple(found)


@dataclass(frozen=True)
class _Cleared:
    clearances: tuple[Clearance, ...]
    until: date | None
    today: date

    def lifts(self, one: Ingredient, rule: str, licences: Licences) -> tuple[bool, str]:
        """Whether a clearance lifts the rule, and why one that speaks of it does not."""
        lapsed = ""
        for each in self.clearances:
            if rule not in each.lifts or not _speaks_of(each.of, one, licences):
                continue
            ends = each.expires
            if ends is None or (
                ends >= self.today and self.until is not None and self.until <= ends
            ):
                return True, ""
            lapsed = f"the clearance {each.document} ends on {ends}, which is too early"
        return False, lapsed


def _speaks_of(name: str, one: Ingredient, licences: Licences) -> bool:
    if name == one.name or same_licence(name, one.licence):
        return True
    meant, its = licences.find(name), licences.find(one.licence)
    return meant is not None and its is not None and meant.id == its.id


def _conflicts_of(one: Ingredient, pack: UsageTerms, licences: Licences) -> Iterator[Conflict]:
    for says in one.refuses:
        yield _conflict(
            "licence.ai-use",
            f"{one} says of itself {says}, and a model made this image from it",
            f"leave the image out, or {_clearance(one, 'licence.ai-use', named=True)}",
        )
    if not one.licence:
        return
    licence = licences.find(one.licence)
    if licence is None:
        if one.kind != "training picture":
            yield _conflict(
                "licence.unknown",
                f"{one} is under {one.licence!r}, which the table of licences does not know, so "
                "that nobody can tell what it grants",
                f"declare it in a licences file, or {_clearance(one, 'licence.unknown')}",
            )
        return
    yield from _use(one, licence, pack)
    if one.kind != "training picture":
        yield from _demands(one, licence, pack, licences)


def _use(one: Ingredient, licence: Licence, pack: UsageTerms) -> Iterator[Conflict]:
    """Uses that the licence does not allow at all."""
    entry = licence.entry
    under = f"{one} is under {licence.id}"
    if pack.commercial and not entry.commercial:
        yield _conflict(
            "licence.commercial",
            f"{under}, which allows no commercial use, and the pack grants "
            f"{', '.join(pack.purposes)}",
            f"grant purposes: [non-commercial] only, or {_clearance(one, 'licence.commercial')}",
        )
    if one.kind == "training picture":
        return
    if pack.commercial and (limit := entry.revenue_limit):
        yield _conflict(
            "licence.revenue",
            f"{under}, free for commercial use only below a yearly revenue of {limit.currency} "
            f"{limit.amount:,}, and the pack grants {', '.join(pack.purposes)}",
            f"state that yours is below it, or what you paid for: "
            f"{_clearance(one, 'licence.revenue')}",
        )
    if entry.not_in and (where := overlap(pack.territories, entry.not_in, WORLDWIDE)):
        yield _conflict(
            "licence.territory",
            f"{under}, which grants nothing in {', '.join(entry.not_in)}, and the pack is for "
            f"{', '.join(pack.territories)} ({_few(where)})",
            f"name the pack's territories without them, or {_clearance(one, 'licence.territory')}",
        )
    if one.kind == "input" and not entry.derivatives:
        yield _conflict(
            "licence.derivatives",
            f"{under}, which allows no derivatives, and this image is one",
            f"leave the image out, or {_clearance(one, 'licence.derivatives')}",
        )
    if one.kind == "input" and not entry.ai_use:
        yield _conflict(
            "licence.ai-use",
            f"{under}, which allows no use by AI, and a model made this image from it",
            f"leave the image out, or {_clearance(one, 'licence.ai-use')}",
        )


def _demands(
    one: Ingredient, licence: Licence, pack: UsageTerms, licences: Licences
) -> Iterator[Conflict]:
    """What the licence demands in return."""
    entry = licence.entry
    applies = ("works", "outputs") if one.kind == "input" else ("outputs",)
    under = f"{one} is under {licence.id}"
    if entry.attribution in applies:
        words = one.credit or entry.credit_line or ("" if one.kind == "input" else one.name)
        has = f"is {pack.credit!r}" if pack.credit else "is empty"
        if not words:
            yield _conflict(
                "licence.credit",
                f"{under}, which demands credit, and nobody said whom to credit",
                f"name its author in the images' terms: materials: [{{name: {one.name}, "
                f"licence: {licence.id}, credit: …}}]",
            )
        elif not _holds(pack.credit, words):
            yield _conflict(
                "licence.credit",
                f"{under}, which demands the credit {words!r}, and the pack's credit line {has}",
                f"write {words!r} into `credit`, or {_clearance(one, 'licence.credit')}",
            )
    if entry.share_alike in applies and not _alike(licence, pack, licences):
        given = f"under {pack.licence}" if pack.licence else "under no public licence"
        terms = "exclusively" if pack.exclusive else given
        yield _conflict(
            "licence.share-alike",
            f"{under}, which demands the same licence for what is made of it, and the pack gives "
            f"it {terms}",
            f"write licence: {licence.id} into the pack's terms (not exclusive), or "
            f"{_clearance(one, 'licence.share-alike')}",
        )
    if entry.flow_down and not any(
        (found := licences.find(name)) and found.id == licence.id for name in pack.flow_down
    ):
        yield _conflict(
            "licence.flow-down",
            f"{under}, whose {len(entry.restrictions)} use restrictions bind whoever uses its "
            "images, and the pack's terms do not pass them on",
            f"write flow_down: [{licence.id}] into the pack's terms",
        )


def _alike(licence: Licence, pack: UsageTerms, licences: Licences) -> bool:
    given = licences.find(pack.licence) if pack.licence else None
    return given is not None and licence.may_become(given) and not pack.exclusive


def _holds(credit: str | None, words: str) -> bool:
    return _plain(words) in _plain(credit or "")


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _conflict(rule: Rule, says: str, fix: str) -> Conflict:
    return Conflict(rule, says, fix)


def _clearance(one: Ingredient, rule: Rule, named: bool = False) -> str:
    return (
        f"name what was agreed: clearances: [{{of: {one.name if named else one.licence}, "
        f"lifts: [{rule}], document: …}}]"
    )


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
