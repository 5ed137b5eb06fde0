"""Usage terms as XMP fields: what a delivered file says of its licence to any reader.

Written into the label while an image is made (pipeline/label.py), and again where a pack gives it
under other terms. Names and vocabularies: PLUS License Data Format 1.2.1 as IPTC Photo Metadata
2025.1 uses it (iptc.org/std/photometadata), XMP rights (XMP specification, part 1, 8.5), Creative
Commons' XMP (wiki.creativecommons.org/wiki/XMP).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline.licences import Licence, Licences, shipped_licences
from pipeline.scope import ANY, WORLDWIDE
from pipeline.terms import UsageTerms
from pipeline.xmp_values import Alternative, Link, Structures, Unordered, Value, shortened

LICENSING = (
    "dc:rights", "xmpRights:Marked", "xmpRights:Owner", "xmpRights:UsageTerms",
    "xmpRights:WebStatement", "photoshop:Credit", "plus:Licensor", "plus:Licensee",
    "plus:EndUser", "plus:CopyrightOwner", "plus:ImageCreator", "plus:ImageSupplier",
    "plus:LicenseStartDate", "plus:LicenseEndDate", "plus:MediaSummaryCode",
    "plus:MediaConstraints", "plus:RegionConstraints", "plus:OtherConstraints",
    "plus:CreditLineRequired", "plus:ModelReleaseStatus", "plus:ModelReleaseID",
    "plus:PropertyReleaseStatus", "plus:PropertyReleaseID", "cc:license", "cc:attributionName",
)  # fmt: skip
"""Every field that terms may set: whoever writes new terms into a file takes these out first."""

_VOCABULARY = "http://ns.useplus.org/ldf/vocab/"
_PLACEMENT = {"adjacent": "CR-CAI", "credits-area": "CR-CCA", "on-image": "CR-COI"}
_PARTIES = {
    "licensor": "Licensor",
    "licensee": "Licensee",
    "end-user": "EndUser",
    "copyright-owner": "CopyrightOwner",
    "image-creator": "ImageCreator",
    "image-supplier": "ImageSupplier",
}


def licensing_fields(
    terms: UsageTerms | Mapping[str, Any], licences: Licences | None = None
) -> dict[str, Value]:
    """The XMP fields of usage terms, by name; of empty terms none.

    `terms` may be their JSON form, as requests hold it; what it lacks is not written. `licences` is
    the table that tells of the licences in them, default the shipped one.
    """
    told = terms.model_dump(mode="json") if isinstance(terms, UsageTerms) else dict(terms)
    return dict(_fields(told, licences or shipped_licences())) if told else {}


def _fields(terms: Mapping[str, Any], licences: Licences) -> Iterator[tuple[str, Value]]:
    licence = licences.find(terms["licence"]) if terms.get("licence") else None
    notice = terms.get("copyright_notice") or (
        f"Licensed by {terms['licensor']}, terms {terms['id']}"
    )
    yield "dc:rights", Alternative(str(notice))
    free = licence is not None and licence.entry.public_domain
    yield "xmpRights:Marked", "False" if free else "True"
    if owners := tuple(each["name"] for each in _parties(terms, "copyright-owner")):
        yield "xmpRights:Owner", Unordered(owners)
    if terms.get("text"):
        yield "xmpRights:UsageTerms", Alternative(shortened(str(terms["text"])))
    if page := terms.get("web_statement") or (licence.url if licence else None):
        yield "xmpRights:WebStatement", str(page)
    if terms.get("credit"):
        yield "photoshop:Credit", str(terms["credit"])
    yield from _named(terms)
    yield from _limits(terms, licences)
    yield from _releases(terms)
    yield from _creative_commons(terms, licence)


def _named(terms: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    """Who licenses to whom; the bare names of terms without parties count too."""
    for role, name in _PARTIES.items():
        parties = _parties(terms, role)
        if not parties and role in ("licensor", "licensee") and terms.get(role) not in (None, ANY):
            parties = [{"name": terms[role]}]
        if parties:
            yield f"plus:{name}", Structures(tuple(_party(name, each) for each in parties))


def _parties(terms: Mapping[str, Any], role: str) -> list[Mapping[str, Any]]:
    return [each for each in terms.get("parties") or () if each["role"] == role]


def _party(kind: str, party: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    fields = {"name": "Name", "id": "ID"}
    if kind == "Licensor":
        # Only licensors have an address in PLUS: they are whom a reader may ask for a licence.
        fields |= {"email": "Email", "url": "URL", "telephone": "Telephone1"}
    return tuple(
        (f"plus:{kind}{name}", str(party[key])) for key, name in fields.items() if party.get(key)
    )


def _limits(terms: Mapping[str, Any], licences: Licences) -> Iterator[tuple[str, Value]]:
    for key, name in (("starts", "plus:LicenseStartDate"), ("expires", "plus:LicenseEndDate")):
        if terms.get(key):
            yield name, str(terms[key])
    if terms.get("media_summary_code"):
        yield "plus:MediaSummaryCode", str(terms["media_summary_code"])
    where = [*_limited(terms, "channels"), *_limited(terms, "media")]
    if where:
        yield "plus:MediaConstraints", Alternative(f"Only: {', '.join(where)}")
    if territories := _limited(terms, "territories", WORLDWIDE):
        yield "plus:RegionConstraints", Alternative(f"Only: {', '.join(territories)}")
    others = [f"Only for {each} use" for each in _limited(terms, "purposes")]
    if terms.get("exclusive"):
        others.append("Exclusive")
    if terms.get("flow_down"):
        named = _with_addresses(terms["flow_down"], licences)
        others.append(f"Use restrictions of {named} apply")
    if others:
        yield "plus:OtherConstraints", Alternative(". ".join(others))
    if placement := _PLACEMENT.get(str(terms.get("credit_placement"))):
        yield "plus:CreditLineRequired", _VOCABULARY + placement


def _limited(terms: Mapping[str, Any], key: str, everything: str = ANY) -> list[str]:
    names = [str(name) for name in terms.get(key) or ()]
    return [] if everything in names else names


def _with_addresses(names: Iterable[str], licences: Licences) -> str:
    found = [(name, licences.find(name)) for name in names]
    return ", ".join(f"{name} ({known.url})" if known else name for name, known in found)


def _releases(terms: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    """Their ids, and whether all of them are without limits (PLUS: unlimited, else limited)."""
    for kind, name, unlimited, limited in (
        ("model", "Model", "MR-UMR", "MR-LMR"),
        ("property", "Property", "PR-UPR", "PR-LPR"),
    ):
        found = [each for each in terms.get("releases") or () if each["kind"] == kind]
        if not found:
            continue
        bound = any(
            each.get("expires") or _limited(each, "territories", WORLDWIDE)
            or _limited(each, "channels") or each.get("skus")
            for each in found
        )  # fmt: skip
        yield f"plus:{name}ReleaseStatus", _VOCABULARY + (limited if bound else unlimited)
        yield f"plus:{name}ReleaseID", Unordered(tuple(str(each["id"]) for each in found))


def _creative_commons(
    terms: Mapping[str, Any], licence: Licence | None
) -> Iterator[tuple[str, Value]]:
    if licence is None or "creativecommons.org" not in licence.url:
        return
    yield "cc:license", Link(licence.url)
    if terms.get("credit"):
        yield "cc:attributionName", str(terms["credit"])
