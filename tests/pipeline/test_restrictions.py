"""What images from outside say of their use by AI: real manifests, XMP and IIM, real damage."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from c2pa import Builder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from pipeline.keys import Identity
from pipeline.restrictions import Credentials, Restriction, read_credentials
from pipeline.seal import Sealed
from pipeline.settings import ROOT
from pipeline.sign import _context

CAPTURE = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
VOCABULARY = "http://ns.useplus.org/ldf/vocab/"


def plain(format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((48, 32)).save(buffer, format, **options)
    return buffer.getvalue()


def xmp(properties: str) -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/" '
        'xmlns:cc="http://creativecommons.org/ns#" xmlns:tdm="http://www.w3.org/ns/tdmrep#" '
        'xmlns:xmpRights="http://ns.adobe.com/xap/1.0/rights/" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/" '
        f'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/">{properties}</rdf:Description>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def signed(
    identity: Identity,
    data: bytes,
    mining: dict[str, Any] | None = None,
    label: str = "cawg.training-mining",
    made_from: bytes | None = None,
    relationship: str = "parentOf",
    remote: bool = False,
) -> bytes:
    """`data` signed with a mining assertion, and with another image as an ingredient."""
    action: dict[str, Any] = {"action": "c2pa.created", "digitalSourceType": CAPTURE}
    if made_from is not None and relationship == "parentOf":
        action = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["it"]}}
    assertions: list[dict[str, Any]] = [
        {"label": "c2pa.actions.v2", "created": True, "data": {"actions": [action]}}
    ]
    if mining is not None:
        assertions.append({"label": label, "data": {"entries": mining}})
    manifest = {
        "claim_generator_info": [{"name": "Camera", "version": "3"}],
        "assertions": assertions,
    }
    out = io.BytesIO()
    with Builder(json.dumps(manifest), _context(identity)) as builder:
        if made_from is not None:
            ingredient = {"title": "it", "relationship": relationship, "label": "it"}
            builder.add_ingredient(json.dumps(ingredient), "image/png", io.BytesIO(made_from))
        if remote:
            builder.set_remote_url("https://example.invalid/manifest.c2pa")
            builder.set_no_embed()
        builder.sign("image/png", io.BytesIO(data), out)
    return out.getvalue()


def uses(credentials: Credentials) -> set[str]:
    return {each.use for each in credentials.restrictions}


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
def test_a_file_without_marks_says_nothing(format: str) -> None:
    assert read_credentials(plain(format), None, b"") == Credentials()


@pytest.mark.parametrize(
    ("label", "entries", "expected"),
    [
        ("cawg.training-mining", {"cawg.ai_generative_training": {"use": "notAllowed"}},
         {"training"}),
        ("cawg.training-mining", {"cawg.ai_training": {"use": "constrained"}}, {"training"}),
        ("cawg.training-mining", {"cawg.data_mining": {"use": "notAllowed"}}, {"training"}),
        ("cawg.training-mining", {"cawg.ai_inference": {"use": "notAllowed"}}, {"editing"}),
        ("c2pa.training-mining", {"c2pa.ai_training": {"use": "notAllowed"}}, {"training"}),
        ("c2pa.training-mining", {"c2pa.ai_inference": {"use": "constrained"}}, {"editing"}),
        ("cawg.training-mining", {"cawg.ai_training": {"use": "perhaps"}}, {"training"}),
        ("cawg.training-mining",
         {"cawg.ai_training": {"use": "allowed"}, "cawg.ai_inference": {"use": "allowed"}}, set()),
        ("cawg.training-mining", {"com.example.printing": {"use": "notAllowed"}}, set()),
    ],
)  # fmt: skip
def test_manifest_entries(
    identity: Identity, label: str, entries: dict[str, Any], expected: set[str]
) -> None:
    found = read_credentials(
        signed(identity, plain(), entries, label), "image/png", identity.anchors
    )
    assert uses(found) == expected
    assert found.state == "Trusted"
    assert str(found.manifest).startswith("urn:c2pa:")
    assert found.source_types == (CAPTURE,)
    for each in found.restrictions:
        assert each.says.startswith(f"C2PA {label} says ")


def test_words_name_source_and_condition(identity: Identity) -> None:
    entries = {
        "cawg.ai_generative_training": {"use": "notAllowed"},
        "cawg.ai_inference": {"use": "constrained", "constraint_info": "ask  us\nfirst"},
    }
    found = read_credentials(signed(identity, plain(), entries), None, identity.anchors)
    # The order of entries in a manifest is not kept by the SDK.
    assert set(found.restrictions) == {
        Restriction("training", "C2PA cawg.training-mining says ai_generative_training notAllowed"),
        Restriction(
            "editing",
            "C2PA cawg.training-mining says ai_inference constrained: ask us first",
        ),
    }
    assert found.forbids("editing") == (
        "C2PA cawg.training-mining says ai_inference constrained: ask us first",
    )


def test_what_an_ancestor_ruled_out_is_not_lifted(identity: Identity) -> None:
    forbidden = {"cawg.ai_training": {"use": "notAllowed"}}
    allowed = {"cawg.ai_training": {"use": "allowed"}}
    grandparent = signed(identity, plain(), forbidden)
    parent = signed(identity, plain(), allowed, made_from=grandparent)
    child = signed(identity, plain(), allowed, made_from=parent)
    (said,) = read_credentials(child, None, identity.anchors).restrictions
    assert said.says.startswith("C2PA cawg.training-mining of what it was made from says")
    beside = signed(identity, plain(), None, made_from=grandparent, relationship="componentOf")
    assert read_credentials(beside, None, identity.anchors).restrictions == ()


def test_a_manifest_that_does_not_hold_rules_out_both_uses(identity: Identity) -> None:
    data = bytearray(signed(identity, plain(), {"cawg.ai_training": {"use": "allowed"}}))
    data[data.index(b"tEXt" if b"tEXt" in data else b"IDAT") + 8] ^= 0xFF
    found = read_credentials(bytes(data), "image/png", identity.anchors)
    assert found.state == "Invalid"
    assert uses(found) == {"training", "editing"}
    assert any("its C2PA manifest does not hold: " in each.says for each in found.restrictions)


def test_an_unknown_signer_is_believed_and_an_unread_manifest_is_not(identity: Identity) -> None:
    entries = {"cawg.ai_training": {"use": "notAllowed"}}
    found = read_credentials(signed(identity, plain(), entries), "image/png", b"")
    assert (found.state, uses(found)) == ("Valid", {"training"})
    elsewhere = read_credentials(
        signed(identity, plain(), entries, remote=True), "image/png", identity.anchors
    )
    assert uses(elsewhere) == {"training", "editing"}
    assert "lies elsewhere" in elsewhere.restrictions[0].says


def test_images_of_ours_forbid_training_and_allow_editing(
    sealed_of: Callable[..., Sealed], identity: Identity
) -> None:
    found = read_credentials(sealed_of().data, "image/png", identity.anchors)
    assert uses(found) == {"training"}
    assert {each.says.split()[0] for each in found.restrictions} == {"C2PA", "XMP"}
    assert found.source_types[0].endswith("/trainedAlgorithmicMedia")


DATA_MINING = {
    "DMI-UNSPECIFIED": False,
    "DMI-ALLOWED": False,
    "DMI-PROHIBITED": True,
    "DMI-PROHIBITED-AIMLTRAINING": True,
    "DMI-PROHIBITED-GENAIMLTRAINING": True,
    "DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING": True,
    "DMI-PROHIBITED-SEECONSTRAINT": True,
    "DMI-PROHIBITED-SEEEMBEDDEDRIGHTSEXPR": True,
    "something new": True,
}


@pytest.mark.parametrize("code", DATA_MINING)
@pytest.mark.parametrize("form", ["text", "resource", "attribute", "code"])
def test_plus_data_mining(code: str, form: str) -> None:
    packet = {
        "text": xmp(f"<plus:DataMining>{VOCABULARY}{code}</plus:DataMining>"),
        "code": xmp(f"<plus:DataMining> {code} </plus:DataMining>"),
        "resource": xmp(f'<plus:DataMining rdf:resource="{VOCABULARY}{code}"/>'),
        "attribute": xmp("").replace(
            b'rdf:about=""', f'rdf:about="" plus:DataMining="{VOCABULARY}{code}"'.encode()
        ),
    }[form]
    found = read_credentials(plain("JPEG", xmp=packet), None, b"")
    says = f"XMP plus:DataMining = {code}"
    assert found.restrictions == ((Restriction("training", says),) if DATA_MINING[code] else ())


@pytest.mark.parametrize(
    ("properties", "use"),
    [
        ('<cc:license rdf:resource="https://creativecommons.org/licenses/by-nd/4.0/"/>', "editing"),
        ("<cc:license>http://creativecommons.org/licenses/by-nc-nd/4.0/deed.de</cc:license>",
         "editing"),
        ("<xmpRights:WebStatement>https://creativecommons.org/licenses/nd/1.0/"
         "</xmpRights:WebStatement>", "editing"),
        ('<cc:license rdf:resource="https://creativecommons.org/licenses/by-nc/4.0/"/>', None),
        ("<xmpRights:WebStatement>https://example.org/by-nd/</xmpRights:WebStatement>", None),
        ("<tdm:reservation>1</tdm:reservation>", "training"),
        ("<tdm:reservation>0</tdm:reservation>", None),
        ("<photoshop:Instructions>No AI training, please.</photoshop:Instructions>", "training"),
        ("<dc:subject><rdf:Bag><rdf:li>mug</rdf:li><rdf:li>noai</rdf:li></rdf:Bag></dc:subject>",
         "training"),
        ('<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">AI use prohibited</rdf:li></rdf:Alt>'
         "</dc:rights>", "training"),
        # One that allows does not lift another that does not.
        (f"<plus:DataMining>{VOCABULARY}DMI-PROHIBITED</plus:DataMining>"
         f"<plus:DataMining>{VOCABULARY}DMI-ALLOWED</plus:DataMining>", "training"),
    ],
)  # fmt: skip
def test_xmp_properties(properties: str, use: str | None) -> None:
    found = read_credentials(plain("WEBP", xmp=xmp(properties)), None, b"")
    assert [each.use for each in found.restrictions] == ([use] if use else [])


def test_xmp_behind_the_pixels_of_a_png_counts() -> None:
    data = plain()
    packet = xmp(f"<plus:DataMining>{VOCABULARY}DMI-PROHIBITED</plus:DataMining>")
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", packet.decode())
    _, content, _ = info.chunks[0]
    chunk = io.BytesIO()
    PngImagePlugin.putchunk(chunk, b"iTXt", content)
    end = data.index(b"IEND") - 4
    assert uses(read_credentials(data[:end] + chunk.getvalue() + data[end:], None, b"")) == {
        "training"
    }


@pytest.mark.parametrize(
    "packet",
    [
        b"<x:xmpmeta",
        b"\xff\xfe\x00",
        b"<a>\xff</a>",
        xmp("").replace(b"<x:xmpmeta", b"<!DOCTYPE x [<!ENTITY y 'z'>]><x:xmpmeta", 1),
        xmp("").decode().encode("utf-16") + b"\x00",
        b"<a>" * 3000,
    ],
)
def test_xmp_that_cannot_be_read_rules_out_both_uses(packet: bytes) -> None:
    found = read_credentials(plain("JPEG", xmp=packet), None, b"")
    assert uses(found) == {"training", "editing"}
    assert all(each.says.startswith("its XMP cannot be read: ") for each in found.restrictions)


def iim_jpeg(dataset: int, text: str) -> bytes:
    """A JPEG with one IIM dataset of record 2 in its Photoshop segment."""
    value = text.encode()
    record = b"\x1c\x02" + bytes([dataset]) + struct.pack(">H", len(value)) + value
    block = b"8BIM\x04\x04\x00\x00" + struct.pack(">I", len(record)) + record
    block += b"\x00" * (len(record) % 2)
    body = b"Photoshop 3.0\x00" + block
    segment = b"\xff\xed" + struct.pack(">H", len(body) + 2) + body
    data = plain("JPEG")
    return data[:2] + segment + data[2:]


REFUSALS = [
    "noai", "NoImageAI", "no AI", "no-ai", "No AI training", "no generative AI training",
    "No text and data mining", "No TDM.", "no machine learning", "Do not train AI on this",
    "Not for AI training", "May not be used to train models", "AI training prohibited",
    "not to be used for machine learning", "AI use is not permitted", "never use for AI",
]  # fmt: skip
OTHERS = [
    "No AI was used", "no AI involved", "no air conditioning", "no smoking, training",
    "editorial use only", "not for sale", "AI generated", "no crop", "AI training allowed",
    "not to be cropped; train station", "training", "Hainoai", "hold for AI desk", "",
]  # fmt: skip


@pytest.mark.parametrize("text", [*REFUSALS, *OTHERS])
def test_iim_special_instructions(text: str) -> None:
    found = read_credentials(iim_jpeg(40, text), "image/jpeg", b"")
    assert uses(found) == ({"training"} if text in REFUSALS else set())
    for each in found.restrictions:
        assert each.says == f"IPTC Special Instructions (2:40): {text!r}"


def test_other_iim_fields_count_or_do_not() -> None:
    assert uses(read_credentials(iim_jpeg(25, "noai"), None, b"")) == {"training"}
    assert uses(read_credentials(iim_jpeg(116, "© Me, no AI training"), None, b"")) == {"training"}
    assert uses(read_credentials(iim_jpeg(120, "a robot says: no AI"), None, b"")) == set()


@pytest.mark.parametrize("data", [b"", b"text", plain("JPEG")[:40], plain()[:60], plain()[:-60]])
def test_broken_files_rule_out_both_uses(data: bytes) -> None:
    found = read_credentials(data, None, b"")
    assert uses(found) == {"training", "editing"}
    assert "cannot be read" in found.restrictions[0].says


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damage_never_raises(identity: Identity, data: st.DataObject) -> None:
    whole = signed(identity, plain(), {"cawg.ai_training": {"use": "notAllowed"}})
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    found = read_credentials(
        bytes(broken[: data.draw(st.integers(0, len(broken)))]), "image/png", identity.anchors
    )
    # Whatever the damage: a picture that forbids training does not come to allow it.
    assert "training" in uses(found)


def test_it_loads_neither_torch_nor_the_policy_models() -> None:
    code = (
        "import sys, pipeline.train.samples, pipeline.restrictions\n"
        "heavy = {'torch', 'c2pa', 'pipeline.policy_model', 'pipeline.label'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
