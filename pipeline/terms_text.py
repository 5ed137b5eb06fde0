"""Usage terms as people read them: the text of a pack's LICENSE.txt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.licences import Licences, shipped_licences
from pipeline.scope import ANY

if TYPE_CHECKING:
    from pipeline.terms import UsageTerms
    from pipeline.terms_parts import Party


def licence_text(terms: UsageTerms, licences: Licences | None = None) -> str:
    """The licence for people: its own text if there is one, then every field in words.

    `licences` is the table that tells what passed-on licences say, default the shipped one.
    """
    lines = [f"Usage terms: {terms.id}", ""]
    if terms.text:
        lines += [terms.text.strip(), ""]
    lines += [
        f"Licensor:    {terms.licensor}",
        f"Licensee:    {terms.licensee}",
        f"Territories: {', '.join(terms.territories)}",
        f"Channels:    {', '.join(terms.channels)}",
        f"From:        {terms.starts or 'delivery'}",
        f"Until:       {terms.expires or 'no end'}",
        f"Exclusive:   {'yes' if terms.exclusive else 'no'}",
        f"Credit line: {terms.credit or 'none required'}",
    ]
    if terms.web_statement:
        lines.append(f"Web page:    {terms.web_statement}")
    return "\n".join([*lines, *_later(terms, licences or shipped_licences())]) + "\n"


def _later(terms: UsageTerms, licences: Licences) -> Iterator[str]:
    if terms.purposes != (ANY,):
        yield f"Purposes:    {', '.join(terms.purposes)}"
    if terms.media != (ANY,):
        yield f"Media:       {', '.join(terms.media)}"
    if terms.media_summary_code:
        yield f"PLUS code:   {terms.media_summary_code}"
    if terms.licence:
        yield f"Licence:     {terms.licence}"
    if terms.copyright_notice:
        yield f"Copyright:   {terms.copyright_notice}"
    if terms.credit_placement:
        yield f"Credit goes: {_PLACES[terms.credit_placement]}"
    if terms.parties:
        yield from ("", "Parties", *map(_party, terms.parties))
    if terms.releases:
        yield from ("", "Releases")
        for release in terms.releases:
            until = f", until {release.expires}" if release.expires else ""
            yield f"- {release.kind} release {release.id}{until}"
    if terms.materials:
        yield from ("", "Works of others in these images")
        for work in terms.materials:
            yield "- " + ", ".join(filter(None, (work.name, work.credit, work.licence, work.url)))
    yield from _flow_down(terms, licences)


_PLACES = {
    "adjacent": "next to the image",
    "credits-area": "in the credits area",
    "on-image": "on the image",
}


def _party(party: Party) -> str:
    told = (party.name, party.id, party.url, party.email, party.telephone)
    return f"- {party.role}: {', '.join(filter(None, told))}"


def _flow_down(terms: UsageTerms, licences: Licences) -> Iterator[str]:
    """What binds whoever uses the images, because it binds whoever made them."""
    for name in terms.flow_down:
        licence = licences.find(name)
        where = f" ({licence.url})" if licence else ""
        yield from ("", f"A model that made these images is under {name}{where}.")
        if licence and licence.restrictions:
            yield "Its use restrictions bind you as well. The images may not be used:"
            yield from (f"- {each}" for each in licence.restrictions)
        else:
            yield "Its use restrictions bind you as well."
