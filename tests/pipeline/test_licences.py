"""Licences as data: the table, terms as YAML, conflicts, and what a delivered file says."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.encode import encode
from pipeline.errors import InputError
from pipeline.images import RgbImage
from pipeline.inputs import Picture
from pipeline.label import LabelError, licensed_again, read_packet, xmp_packet
from pipeline.licence_conflicts import Ingredient, licence_conflicts
from pipeline.licence_marks import licence_of
from pipeline.licence_planning import licence_refusals
from pipeline.licences import load_licences, shipped_licences
from pipeline.licensing_fields import LICENSING, licensing_fields
from pipeline.policy import load_policy
from pipeline.policy_model import ImageFormat
from pipeline.request import Input
from pipeline.scope import ANY, GROUPS, WORLDWIDE, beyond, both_run, overlap
from pipeline.terms import UsageTerms
from pipeline.terms_file import read_terms
from pipeline.terms_text import licence_text

TODAY = date(2027, 1, 15)
OLD = {
    "id": "spring-web",
    "licensor": "Studio",
    "licensee": "acme",
    "territories": ["DE", "FR"],
    "channels": ["web"],
    "starts": "2026-01-01",
    "expires": "2030-12-31",
    "exclusive": True,
    "credit": "Photo: Studio",
    "web_statement": "https://studio.example/terms",
    "text": "You may.",
}
"""Every field that terms had before version 4."""
FULL = """\
id: acme-web-2027
licensor: Acme Studio
licensee: Acme Home
territories: [DE, AT]
channels: [web]
media: [social]
media_summary_code: "|PLUS|V0121|U001|1IAK1UNA2BFU3PTZ4SKG5VUY6QUL7DXX8RAA8LAA9ENE|"
purposes: [commercial]
starts: 2027-01-01
expires: 2027-12-31
credit: "Acme Studio / mug photo: Jane Doe"
credit_placement: adjacent
copyright_notice: © 2027 Acme Studio
flow_down: [CreativeML-OpenRAIL-M]
parties:
  - {role: licensor, name: Acme Studio, id: PLUS-1234, url: "https://acme.example/license",
     email: rights@acme.example, telephone: "+49 30 1"}
  - {role: licensee, name: Acme Home, id: "DUNS 123456789"}
  - {role: copyright-owner, name: Acme Studio}
releases:
  - {kind: model, id: MR-7, of: Jane Roe, expires: 2028-01-01}
  - {kind: property, id: PR-3}
materials:
  - {name: mug.jpg, licence: CC-BY-4.0, credit: "mug photo: Jane Doe"}
clearances:
  - {of: Stability-AI-Community, lifts: [licence.revenue], document: revenue statement 2026}
"""


def terms(**fields: Any) -> UsageTerms:
    return UsageTerms.model_validate({"id": "t", "licensor": "Acme", **fields})


# Terms of earlier versions


def test_the_json_of_older_terms_is_what_it_was() -> None:
    for written in (OLD, {"id": "t", "licensor": "A"}):
        unset = {
            "licensee": "any",
            "territories": ["worldwide"],
            "channels": ["any"],
            "exclusive": False,
            **dict.fromkeys(("starts", "expires", "credit", "web_statement", "text")),
        }
        found = UsageTerms.model_validate(written).model_dump(mode="json")
        assert found == {**unset, **written}


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("starter", "e260e33d7ec9316a5cbdf5164c4d1623a87b9fc9138d3e4e709624c3388655f3"),
        ("retail", "df8c7f31cc111165be06e2adee123b7fc3f731c6caa6f9a079baa6a611aaf965"),
    ],
)
def test_policies_with_older_terms_keep_their_digests(name: str, digest: str) -> None:
    assert load_policy(name).digest == digest


def test_what_is_set_comes_back_from_json(tmp_path: Path) -> None:
    path = tmp_path / "terms.yaml"
    path.write_text(FULL)
    found = read_terms(path)
    assert UsageTerms.model_validate(json.loads(found.model_dump_json())) == found
    assert len({found, terms()}) == 2


# Terms as YAML


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("channels: [web]", "chanels: [web]", 5, "did you mean 'channels'?"),
        # Read as no limit by some, as nothing by others.
        ("channels: [web]", "channels: []", 5, "channels: Tuple should have at least 1 item"),
        ("telephone:", "phone:", 17, "did you mean 'telephone'?"),
        ("rights@acme.example", "rights at acme", 17, "parties.0.email"),
        ("role: licensor, name: Acme Studio", "role: licensor, name: A", 1, "is named 'Acme"),
        ("expires: 2027-12-31", "expires: 2026-12-31", 1, "lies before starts"),
        ("kind: model", "kind: modell", 21, "releases.0.kind"),
        ("licence.revenue", "licence.revenues", 26, "clearances.0.lifts.0"),
        ("name: mug.jpg, licence", "licence", 24, "give `name` or `sha256`"),
        ('"|PLUS|V0121', '"|MINUS|V0121', 7, "media_summary_code"),
        ("id: PR-3", 'id: ""', 22, "releases.1.id"),
        ("credit_placement: adjacent", "exclusive: true\nlicence: MIT", 1, "everybody"),
        ("licensor: Acme Studio\nlicensee", "licensee", 1, "licensor: is missing"),
    ],
)  # fmt: skip
def test_each_fault_of_a_terms_file_has_its_line(
    tmp_path: Path, old: str, new: str, line: int, said: str
) -> None:
    path = tmp_path / "terms.yaml"
    assert old in FULL
    path.write_text(FULL.replace(old, new))
    with pytest.raises(InputError) as told:
        read_terms(path)
    assert said in str(told.value)
    assert any(fault.where == f"{path}:{line}" for fault in told.value.faults), told.value


def test_all_faults_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "terms.yaml"
    path.write_text(FULL.replace("kind: model", "kind: x").replace("id: PR-3", "nr: PR-3"))
    with pytest.raises(InputError) as told:
        read_terms(path)
    assert len(told.value.faults) == 3


def test_the_licence_text_names_parties_works_and_restrictions(tmp_path: Path) -> None:
    path = tmp_path / "terms.yaml"
    path.write_text(FULL)
    text = licence_text(read_terms(path))
    for part in (
        "- licensor: Acme Studio, PLUS-1234, https://acme.example/license, rights@acme.example",
        "- model release MR-7, until 2028-01-01",
        "- mug.jpg, mug photo: Jane Doe, CC-BY-4.0",
        "under CreativeML-OpenRAIL-M (https://",
        "- to give medical advice or to interpret medical results",
        "Credit goes: next to the image",
    ):
        assert part in text
    assert "Jane Roe" not in text


# The table


def test_every_licence_names_its_text_and_that_texts_date() -> None:
    found = list(shipped_licences())
    assert len(found) > 40
    for licence in found:
        assert licence.url.startswith("https://") and licence.source
        assert "{" not in licence.url + licence.source
        assert date(1988, 1, 1) <= licence.dated <= date(2026, 11, 25)
        assert shipped_licences().find(licence.id.upper()) is licence


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("cc-by-4.0", "CC-BY-4.0"),
        ("CC BY-SA 3.0", "CC-BY-SA-3.0"),
        ("https://creativecommons.org/licenses/by-nd/4.0/", "CC-BY-ND-4.0"),
        ("http://creativecommons.org/licenses/by-nd-nc/1.0/deed.en", "CC-BY-NC-ND-1.0"),
        ("https://creativecommons.org/licenses/by/3.0/de/", "CC-BY-3.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("openrail++", "OpenRAIL++-M"),
        ("creativeml-openrail-m", "CreativeML-OpenRAIL-M"),
        ("openrail", "BigScience-OpenRAIL-M"),
        ("gemma", "Gemma"),
        ("own work", "LicenseRef-Own"),
        ("see adapter.json", "LicenseRef-See-Adapter"),
        ("MIT AND CC-BY-4.0", None),
        ("ours; not https://creativecommons.org/publicdomain/zero/1.0/", None),
        ("https://acme.example/?not=https://creativecommons.org/licenses/by/4.0/", None),
        ("https://creativecommons.org/licenses/by/4.0/ but not for ads", None),
        ("Acme-Internal", None),
        ("", None),
    ],
)
def test_licences_are_found_by_their_many_names(name: str, found: str | None) -> None:
    licence = shipped_licences().find(name)
    assert (licence.id if licence else None) == found


@pytest.mark.parametrize(
    ("model", "licence"),
    [("sd-1.5", "CreativeML-OpenRAIL-M"), ("sdxl-1.0", "OpenRAIL++-M"), ("starter", "Apache-2.0")],
)
def test_the_licences_of_the_models_file_are_known(model: str, licence: str) -> None:
    from pipeline.models import load_models

    found = shipped_licences().find(load_models()[model].entry.licence)
    assert found is not None and found.id == licence


OWN = """\
licences:
  Acme-Internal:
    name: Acme's terms for its own adapters
    url: https://acme.example/internal
    source: contract 7
    dated: 2026-05-01
    commercial: true
    attribution: outputs
    credit_line: Made with Acme
"""


def test_a_users_file_declares_more_licences(tmp_path: Path) -> None:
    path = tmp_path / "licences.yaml"
    path.write_text(OWN)
    table = load_licences(path)
    assert table.find("acme-internal") and table.find("MIT")
    assert shipped_licences().find("Acme-Internal") is None


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("commercial:", "comercial:", 7, "did you mean 'commercial'?"),
        ("    commercial: true\n", "", 2, "commercial: is missing"),
        ("    dated: 2026-05-01\n", "", 2, "give `dated`"),
        ("attribution: outputs", "attribution: sometimes", 8, "attribution"),
        ("dated: 2026-05-01", "dated: 2026-05-41", 6, "2026-05-41"),
        ("    credit_line: Made", "    flow_down: true\n    credit_line: Made", 2, "name them"),
    ],
)
def test_each_fault_of_a_licences_file_has_its_line(
    tmp_path: Path, old: str, new: str, line: int, said: str
) -> None:
    path = tmp_path / "licences.yaml"
    assert old in OWN
    path.write_text(OWN.replace(old, new))
    with pytest.raises(InputError) as told:
        load_licences(path)
    assert said in str(told.value)
    assert any(fault.where == f"{path}:{line}" for fault in told.value.faults), told.value


# Conflicts

FLUX = Ingredient("model", "flux-dev", "FLUX-1-dev-Non-Commercial")
RAIL = Ingredient("model", "sd-1.5", "CreativeML-OpenRAIL-M")
BY = Ingredient("input", "mug.jpg", "CC-BY-4.0", "Jane Doe")
NOBODY = Ingredient("input", "mug.jpg", "CC-BY-4.0")
SA = Ingredient("input", "mug.jpg", "CC-BY-SA-3.0", "Jane Doe")
ND = Ingredient("input", "mug.jpg", "https://creativecommons.org/licenses/by-nd/4.0/", "J")
SAI = Ingredient("model", "sd-3.5", "Stability-AI-Community")
HUNYUAN = Ingredient("model", "hunyuan", "Tencent-Hunyuan-Community")
UNKNOWN = Ingredient("adapter", "mugs", "Acme-Internal")
REFUSING = Ingredient("input", "mug.jpg", "", refuses=("C2PA says ai_inference notAllowed",))
JANE = {"credit": "Acme; photo: Jane Doe"}
DONE = {"document": "contract 7"}


@pytest.mark.parametrize(
    ("one", "pack", "rule"),
    [
        (Ingredient("model", "starter", "Apache-2.0"), {}, None),
        (Ingredient("model", "by", "CC-BY-4.0"), {}, None),
        (FLUX, {}, "licence.commercial"),
        (FLUX, {"purposes": ["editorial"]}, "licence.commercial"),
        (FLUX, {"purposes": ["non-commercial"]}, None),
        (Ingredient("adapter", "mugs", "CC-BY-NC-4.0"), {}, "licence.commercial"),
        (Ingredient("training picture", "a", "CC-BY-NC-4.0"), {}, "licence.commercial"),
        (Ingredient("training picture", "a", "CC-BY-SA-4.0"), {}, None),
        (Ingredient("training picture", "a", "by handshake"), {}, None),
        (RAIL, {}, "licence.flow-down"),
        (RAIL, {"flow_down": ["creativeml-openrail-m"]}, None),
        (RAIL, {"flow_down": ["OpenRAIL++-M"]}, "licence.flow-down"),
        (BY, {}, "licence.credit"),
        (BY, {"credit": "Acme"}, "licence.credit"),
        (BY, JANE, None),
        (BY, {"credit": "photo: jane  doe"}, None),
        (NOBODY, JANE, "licence.credit"),
        (SA, JANE, "licence.share-alike"),
        (SA, {**JANE, "licence": "CC-BY-SA-4.0"}, None),
        (SA, {**JANE, "licence": "CC-BY-SA-2.0"}, "licence.share-alike"),
        (SA, {**JANE, "licence": "CC-BY-4.0"}, "licence.share-alike"),
        (SA, {**JANE, "exclusive": True}, "licence.share-alike"),
        (ND, {"credit": "J"}, "licence.derivatives"),
        (SAI, {"flow_down": ["Stability-AI-Community"]}, "licence.revenue"),
        (
            SAI,
            {"flow_down": ["Stability-AI-Community"], "purposes": ["non-commercial"]},
            None,
        ),
        (HUNYUAN, {"flow_down": [HUNYUAN.licence]}, "licence.territory"),
        (HUNYUAN, {"flow_down": [HUNYUAN.licence], "territories": ["FR"]}, "licence.territory"),
        (HUNYUAN, {"flow_down": [HUNYUAN.licence], "territories": ["US"]}, None),
        (UNKNOWN, {}, "licence.unknown"),
        (Ingredient("model", "unregistered", ""), {}, None),
        (REFUSING, {}, "licence.ai-use"),
    ],
)
def test_what_a_licence_demands_is_held_against_the_pack(
    one: Ingredient, pack: dict[str, Any], rule: str | None
) -> None:
    found = licence_conflicts(terms(**pack), terms(), [one], shipped_licences(), TODAY)
    assert [each.rule for each in found] == ([rule] if rule else [])
    for conflict in found:
        text = str(conflict)
        assert one.name in text and conflict.rule in text and conflict.fix in text


@pytest.mark.parametrize(
    ("one", "clearance", "holds"),
    [
        (UNKNOWN, {"of": "acme-internal", "lifts": ["licence.unknown"]}, True),
        (UNKNOWN, {"of": "mugs", "lifts": ["licence.unknown"]}, True),
        (UNKNOWN, {"of": "cups", "lifts": ["licence.unknown"]}, False),
        (UNKNOWN, {"of": "mugs", "lifts": ["licence.commercial"]}, False),
        (FLUX, {"of": FLUX.licence, "lifts": ["licence.commercial"]}, True),
        (FLUX, {"of": "flux-1-dev-non-commercial-license", "lifts": ["licence.commercial"]}, True),
        (FLUX, {"of": "flux-dev", "lifts": ["licence.commercial"], "expires": "2027-06-30"}, True),
        (FLUX, {"of": "flux-dev", "lifts": ["licence.commercial"], "expires": "2027-06-29"}, False),
        (FLUX, {"of": "flux-dev", "lifts": ["licence.commercial"], "expires": "2026-01-01"}, False),
        (ND, {"of": "CC-BY-ND-4.0", "lifts": ["licence.derivatives", "licence.credit"]}, True),
        (REFUSING, {"of": "mug.jpg", "lifts": ["licence.ai-use"]}, True),
    ],
)
def test_what_was_agreed_outside_the_licence_lifts_its_rule(
    one: Ingredient, clearance: dict[str, Any], holds: bool
) -> None:
    pack = terms(expires="2027-06-30")
    asset = terms(clearances=[{**DONE, **clearance}])
    found = licence_conflicts(pack, asset, [one], shipped_licences(), TODAY)
    assert (not found) is holds
    if not holds and clearance.get("expires"):
        assert "the clearance contract 7 ends on" in found[0].fix


def test_the_fix_that_is_named_fixes_it() -> None:
    """Each remedy, followed to the letter, leaves no conflict."""
    pack = terms(
        credit="Jane Doe; Made with Acme",
        licence="CC-BY-SA-3.0",
        flow_down=["CreativeML-OpenRAIL-M", "Stability-AI-Community", "Tencent-Hunyuan-Community"],
        territories=["US"],
        clearances=[
            {**DONE, "of": "FLUX-1-dev-Non-Commercial", "lifts": ["licence.commercial"]},
            {**DONE, "of": "Stability-AI-Community", "lifts": ["licence.revenue"]},
            {**DONE, "of": "Acme-Internal", "lifts": ["licence.unknown"]},
            {**DONE, "of": "mug.jpg", "lifts": ["licence.ai-use"]},
        ],
    )
    everything = [FLUX, RAIL, BY, SA, SAI, HUNYUAN, UNKNOWN, REFUSING]
    assert not licence_conflicts(pack, terms(), everything, shipped_licences(), TODAY)
    assert len(licence_conflicts(terms(), terms(), everything, shipped_licences(), TODAY)) == 11


def test_a_users_licence_may_demand_credit_for_outputs(tmp_path: Path) -> None:
    path = tmp_path / "licences.yaml"
    path.write_text(OWN)
    table = load_licences(path)
    (found,) = licence_conflicts(terms(), terms(), [UNKNOWN], table, TODAY)
    assert found.rule == "licence.credit" and "'Made with Acme'" in found.says
    pack = terms(credit="Acme. Made with ACME")
    assert not licence_conflicts(pack, terms(), [UNKNOWN], table, TODAY)


@pytest.mark.parametrize(
    ("pack", "asset", "rule"),
    [
        ({"expires": "2027-06-30"}, {"kind": "model", "expires": "2027-06-30"}, None),
        ({"expires": "2027-07-01"}, {"kind": "model", "expires": "2027-06-30"}, "release.model"),
        ({}, {"kind": "property", "expires": "2027-06-30"}, "release.property"),
        ({"expires": "2027-01-31"}, {"kind": "model", "expires": "2027-01-14"}, "release.model"),
        ({"purposes": ["editorial"]}, {"kind": "model", "expires": "2027-01-14"}, None),
        ({}, {"kind": "model", "territories": ["DE"]}, "release.model"),
        ({"territories": ["DE"]}, {"kind": "model", "territories": ["EU"]}, None),
        ({}, {"kind": "model", "channels": ["web"]}, "release.model"),
        ({}, {"kind": "model", "expires": "2027-01-14", "skus": ["CUP"]}, None),
        ({}, {"kind": "model", "expires": "2027-01-14", "skus": ["MUG"]}, "release.model"),
    ],
)
def test_releases_must_last_and_reach_as_far_as_the_pack(
    pack: dict[str, Any], asset: dict[str, Any], rule: str | None
) -> None:
    granted = terms(releases=[{"id": "MR-7", **asset}])
    found = terms(**pack).conflicts(granted, TODAY, "MUG")
    assert [each.rule for each in found] == ([rule] if rule else [])
    assert all("MR-7" in str(each) for each in found)


@pytest.mark.parametrize(
    ("pack", "asset", "rule"),
    [
        ({"media": ["social"]}, {"media": ["social", "billboard"]}, None),
        ({}, {"media": ["social"]}, "terms.medium"),
        ({}, {"purposes": ["editorial"]}, "terms.purpose"),
        ({"purposes": ["editorial"]}, {}, None),
        ({"territories": ["FR"]}, {"territories": ["EU"]}, None),
        ({"territories": ["EU"]}, {"territories": ["EEA"]}, None),
        ({"territories": ["EEA"]}, {"territories": ["EU"]}, "terms.territory"),
        ({"territories": ["EU"]}, {"territories": ["FR", "DE"]}, "terms.territory"),
        ({"credit": "Acme, Jane"}, {"credit": "Acme"}, None),
    ],
)
def test_a_pack_stays_within_media_purposes_and_groups_of_countries(
    pack: dict[str, Any], asset: dict[str, Any], rule: str | None
) -> None:
    found = terms(**pack).conflicts(terms(**asset), TODAY)
    assert [each.rule for each in found] == ([rule] if rule else [])


PLACES = st.sets(st.sampled_from(["DE", "FR", "US", "EU", "EEA", "Benelux", WORLDWIDE]), min_size=1)


@given(PLACES, PLACES)
def test_what_one_grants_and_the_other_too_overlaps(one: set[str], other: set[str]) -> None:
    common = overlap(one, other, WORLDWIDE)
    assert common == overlap(other, one, WORLDWIDE)
    if not beyond(one, other, WORLDWIDE):
        assert common
    if WORLDWIDE not in one | other and "Benelux" not in one | other:
        spread = [{c for name in each for c in GROUPS.get(name, {name})} for each in (one, other)]
        assert set(common) == spread[0] & spread[1]


DAYS = st.none() | st.dates(date(2027, 1, 1), date(2027, 1, 9))


@given(DAYS, DAYS, DAYS, DAYS)
def test_spans_meet_where_they_have_a_day_in_common(
    a: date | None, b: date | None, c: date | None, d: date | None
) -> None:
    if (a and b and a > b) or (c and d and c > d):
        return
    days = [date(2026, 12, 31), *(date(2027, 1, day) for day in range(1, 11))]
    within = [
        day
        for day in days
        if all(start is None or start <= day for start in (a, c))
        and all(end is None or day <= end for end in (b, d))
    ]
    assert both_run(a, b, c, d) == bool(within)


# Planning


def test_planning_refuses_what_the_briefs_own_terms_could_never_give(
    tmp_path: Path, request_of: Any, model: Any
) -> None:
    from dataclasses import dataclass, replace

    @dataclass(frozen=True)
    class Declared:
        licence: str
        kind: str = "text-to-image"
        is_folder: bool = False
        source: str = ""

    photo = tmp_path / "mug.png"
    photo.write_bytes(marked("https://creativecommons.org/licenses/by-nd/4.0/"))
    picture = Picture("ab" * 32, photo, "image/png", 8, 8, "mug.png")
    shown = Input("image", "file", picture.sha256, "mug.png")
    requests = [request_of(), replace(request_of(), sku="CUP-2", inputs=(shown,))]
    models: Any = {requests[0].model: Declared("FLUX-1-dev-Non-Commercial")}
    pictures = {picture.sha256: picture}

    def told(**fields: Any) -> list[str]:
        own = terms(**fields)
        found = licence_refusals(own, requests, models, pictures, shipped_licences(), TODAY)
        return [str(each) for each in found]

    commercial, derivative, credit = told()
    assert "[licence.commercial]" in commercial and "CUP-2" in commercial
    assert requests[0].sku in commercial
    assert "[licence.derivatives]" in derivative and requests[0].sku not in derivative
    assert "'Jane Doe'" in credit
    declared = [{"name": "mug.png", "licence": "CC0"}]
    assert told(purposes=["non-commercial"], materials=declared) == []
    over = told(
        purposes=["non-commercial"],
        materials=declared,
        releases=[{"kind": "model", "id": "MR-1", "expires": "2026-01-01", "skus": ["CUP-2"]}],
    )
    assert len(over) == 1 and "MR-1 expired" in over[0] and "CUP-2" in over[0]


# What pictures say of themselves


def marked(address: str, credit: str = "Jane Doe") -> bytes:
    """A photo whose XMP names a licence and an author, as Creative Commons' tools write it."""
    packet = f"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
      xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
      xmlns:cc="http://creativecommons.org/ns#" xmlns:dc="http://purl.org/dc/elements/1.1/">
      <cc:license rdf:resource="{address}"/>
      <dc:creator><rdf:Seq><rdf:li>{credit}</rdf:li></rdf:Seq></dc:creator>
      </rdf:Description></rdf:RDF></x:xmpmeta>""".encode()
    picture: RgbImage = __import__("numpy").full((8, 8, 3), 200, "uint8")
    return encode(picture, ImageFormat(format="png"), packet)[0]


def test_a_photos_own_licence_is_read() -> None:
    mark = licence_of(marked("http://creativecommons.org/licenses/by-sa/2.0/"))
    assert mark and (mark.licence, mark.credit) == ("CC-BY-SA-2.0", "Jane Doe")
    assert "cc:license" in mark.says


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_have_a_licence_or_none(data: bytes) -> None:
    assert licence_of(data) is None
    assert licence_of(marked("https://x.example/") + data) is None


# The delivered file

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
PLUS = "{http://ns.useplus.org/ldf/xmp/1.0/}"
WHEN = datetime(2026, 11, 22, 13, 0, 5, tzinfo=UTC)


def independent(data: bytes) -> ElementTree.Element:
    """The one rdf:Description of a file's XMP, read with Pillow and ElementTree alone."""
    with Image.open(io.BytesIO(data)) as image:
        packet = image.info["xmp"]
    text = packet.decode() if isinstance(packet, bytes) else packet
    (described,) = ElementTree.fromstring(text.strip("\ufeff\x00 \n")).iter(f"{RDF}Description")
    return described


@pytest.fixture
def full(tmp_path: Path) -> UsageTerms:
    path = tmp_path / "terms.yaml"
    path.write_text(FULL)
    return read_terms(path)


@pytest.mark.parametrize("fmt", ["png", "jpeg", "webp"])
def test_an_independent_reader_finds_the_licence_in_the_file(
    fmt: Any, full: UsageTerms, picture: RgbImage, request_of: Any, model: Any, policy: Any
) -> None:
    request = request_of(terms=full.model_dump(mode="json"))
    packet = xmp_packet(request, model, policy, "Studio", WHEN)
    described = independent(encode(picture, ImageFormat(format=fmt, quality=90), packet)[0])
    licensor = described.find(f"{PLUS}Licensor/{RDF}Seq/{RDF}li")
    assert licensor is not None and licensor.get(f"{RDF}parseType") == "Resource"
    assert {each.tag.removeprefix(PLUS): each.text for each in licensor} == {
        "LicensorName": "Acme Studio",
        "LicensorID": "PLUS-1234",
        "LicensorEmail": "rights@acme.example",
        "LicensorURL": "https://acme.example/license",
        "LicensorTelephone1": "+49 30 1",
    }
    texts = {
        each.tag: "".join(each.itertext()).strip() for each in described if each.tag != licensor.tag
    }
    vocabulary = "http://ns.useplus.org/ldf/vocab/"
    rights = "{http://ns.adobe.com/xap/1.0/rights/}"
    assert texts.items() >= {
        (f"{PLUS}Licensee", "Acme HomeDUNS 123456789"),
        (f"{PLUS}CopyrightOwner", "Acme Studio"),
        (f"{PLUS}LicenseStartDate", "2027-01-01"),
        (f"{PLUS}LicenseEndDate", "2027-12-31"),
        (f"{PLUS}MediaSummaryCode", full.media_summary_code),
        (f"{PLUS}MediaConstraints", "Only: web, social"),
        (f"{PLUS}RegionConstraints", "Only: DE, AT"),
        (f"{PLUS}CreditLineRequired", f"{vocabulary}CR-CAI"),
        (f"{PLUS}ModelReleaseStatus", f"{vocabulary}MR-LMR"),
        (f"{PLUS}ModelReleaseID", "MR-7"),
        (f"{PLUS}PropertyReleaseStatus", f"{vocabulary}PR-UPR"),
        (f"{rights}Marked", "True"),
        (f"{rights}Owner", "Acme Studio"),
        ("{http://ns.adobe.com/photoshop/1.0/}Credit", "Acme Studio / mug photo: Jane Doe"),
        ("{http://purl.org/dc/elements/1.1/}rights", "© 2027 Acme Studio"),
    }
    constraints = texts[f"{PLUS}OtherConstraints"]
    assert constraints.startswith(
        "Only for commercial use. Use restrictions of CreativeML-OpenRAIL-M"
    )
    assert "Jane Roe" not in packet.decode()


def test_a_public_licence_is_a_link_and_a_web_statement(picture: RgbImage) -> None:
    fields = licensing_fields(terms(licence="cc-by-4.0", credit="Jane"))
    address = "https://creativecommons.org/licenses/by/4.0/"
    assert fields["xmpRights:WebStatement"] == address
    assert read_packet(licensed_again(EMPTY, terms(licence="cc-by-4.0", credit="Jane"))) == {
        "dc:rights": "Licensed by Acme, terms t",
        "xmpRights:Marked": "True",
        "xmpRights:WebStatement": address,
        "photoshop:Credit": "Jane",
        "plus:Licensor": ["Acme"],
        "cc:license": address,
        "cc:attributionName": "Jane",
    }
    assert licensing_fields(terms(licence="CC0-1.0"))["xmpRights:Marked"] == "False"


EMPTY = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""/>
</rdf:RDF></x:xmpmeta>"""


def test_other_terms_replace_the_licence_and_nothing_else(
    full: UsageTerms, request_of: Any, model: Any, policy: Any, picture: RgbImage
) -> None:
    packet = xmp_packet(
        request_of(terms=full.model_dump(mode="json")), model, policy, "Studio <&>", WHEN
    )
    other = terms(licensee="Nova & Söhne", expires="2027-03-31", text="Wort für Wort")
    again = licensed_again(packet, other)
    before, after = read_packet(packet), read_packet(again)
    kept = {name: value for name, value in before.items() if name not in LICENSING}
    assert {name: value for name, value in after.items() if name not in LICENSING} == kept
    assert {name for name in after if name in LICENSING} == set(licensing_fields(other))
    assert after["plus:Licensee"] == ["Nova & Söhne"]
    assert after["xmpRights:UsageTerms"] == "Wort für Wort"
    assert licensed_again(again, other) == again
    described = independent(encode(picture, ImageFormat(format="jpeg", quality=90), again)[0])
    assert len(described.findall(f"{PLUS}Licensor")) == 1


def test_a_file_without_terms_says_nothing_of_a_licence() -> None:
    assert licensing_fields({}) == {}
    before = licensed_again(EMPTY, terms())
    assert "plus:Licensor" in read_packet(before)
    assert read_packet(licensed_again(before, {})) == {}
    with pytest.raises(LabelError):
        licensed_again("<x/>", terms())


ANY_TEXT = st.text(max_size=40)


@given(ANY_TEXT.filter(str.strip), ANY_TEXT, ANY_TEXT)
def test_any_words_in_terms_give_a_packet_that_reads_back(
    licensor: str, credit: str, text: str
) -> None:
    told = {"id": "t", "licensor": licensor, "credit": credit, "text": text, "channels": [ANY]}
    fields = read_packet(licensed_again(EMPTY, told))
    assert "plus:Licensor" in fields and set(fields) <= set(LICENSING)


def test_a_table_of_ones_own_speaks_in_text_and_fields(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "licences:\n  Acme-Internal:\n    name: Acme's terms\n"
        "    url: https://acme.example/internal\n    source: contract 7\n    dated: 2026-05-01\n"
        "    commercial: true\n    attribution: none\n    flow_down: true\n"
        "    restrictions: [shown upside down]\n"
    )
    own = load_licences(path)
    passed_on = terms(licence="Acme-Internal", flow_down=["Acme-Internal"])
    for licences, known in ((own, True), (None, False)):
        assert ("shown upside down" in licence_text(passed_on, licences)) == known
        fields = licensing_fields(passed_on, licences)
        assert (fields.get("xmpRights:WebStatement") == "https://acme.example/internal") == known
        assert ("https://acme.example/internal" in fields["plus:OtherConstraints"].text) == known
