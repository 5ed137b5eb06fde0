"""Labels: every field there, any text safe, and any packet read without harm."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.encode import encode
from pipeline.images import RgbImage
from pipeline.label import LabelError, read_packet, text_sha256, xmp_packet
from pipeline.policy import Policy
from pipeline.policy_model import ImageFormat
from pipeline.request import Request

RequestOf = Callable[..., Request]
WHEN = datetime(2026, 11, 22, 13, 0, 5, 999, tzinfo=UTC)
TERMS = {
    "id": "web-2026",
    "licensor": "Studio <A&B>",
    "credit": "Studio / AI",
    "text": "Line one\nLine two",
    "web_statement": "https://studio.example/terms?a=1&b=2",
}


def with_labels(policy: Policy, **labels: Any) -> Policy:
    return policy.model_copy(update={"labels": policy.labels.model_copy(update=labels)})


def fields_of(request: Request, model: Any, policy: Policy, producer: str = "Studio") -> dict:
    return read_packet(xmp_packet(request, model, policy, producer, WHEN))


def test_the_packet_holds_what_iptc_plus_and_rights_ask_for(
    request_of: RequestOf, model: Any, policy: Policy
) -> None:
    fields = fields_of(request_of(terms=TERMS), model, policy)
    assert fields == {
        "xmp:CreatorTool": fields["xmp:CreatorTool"],
        "xmp:CreateDate": "2026-11-22T13:00:05Z",
        "dc:creator": ["Studio"],
        "Iptc4xmpExt:DigitalSourceType": (
            "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
        ),
        "Iptc4xmpExt:AISystemUsed": "Platemark with starter",
        "Iptc4xmpExt:AISystemVersionUsed": model.revision,
        "Iptc4xmpExt:AIPromptInformation": f"sha256:{text_sha256('a red mug')}",
        "Iptc4xmpExt:AIPromptWriterName": "Studio",
        "dc:rights": "Licensed by Studio <A&B>, terms web-2026",
        "xmpRights:Marked": "True",
        "xmpRights:UsageTerms": "Line one\nLine two",
        "xmpRights:WebStatement": "https://studio.example/terms?a=1&b=2",
        "photoshop:Credit": "Studio / AI",
        "plus:Licensor": ["Studio <A&B>"],
        "plus:DataMining": (
            "http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING"
        ),
    }
    assert fields["xmp:CreatorTool"].startswith("Platemark ")


@pytest.mark.parametrize(
    ("disclosure", "expected"),
    [("text", "a red mug\nexcludes: blur"), ("hash", None), ("none", "")],
)
def test_the_prompt_is_disclosed_as_the_policy_says(
    disclosure: str, expected: str | None, request_of: RequestOf, model: Any, policy: Policy
) -> None:
    packet = xmp_packet(request_of(), model, with_labels(policy, prompt=disclosure), "S", WHEN)
    found = read_packet(packet).get("Iptc4xmpExt:AIPromptInformation", "")
    assert found == (f"sha256:{text_sha256('a red mug')}" if expected is None else expected)
    assert (b"red mug" in packet) is (disclosure == "text")


@pytest.mark.parametrize(("china", "code"), [(True, "Studio"), ("001191X", "001191X")])
def test_chinas_label_is_its_json(
    china: bool | str, code: str, request_of: RequestOf, model: Any, policy: Policy
) -> None:
    request = request_of()
    fields = fields_of(request, model, with_labels(policy, china_aigc=china))
    label = json.loads(fields["TC260:AIGC"])
    assert label == {
        "Label": "1",
        "ContentProducer": code,
        "ProduceID": request.request_id,
        "ReservedCode1": "",
        "ContentPropagator": "",
        "PropagateID": "",
        "ReservedCode2": "",
    }
    assert "TC260:AIGC" not in fields_of(request, model, policy)


def test_mining_is_allowed_when_the_policy_says_so(
    request_of: RequestOf, model: Any, policy: Policy
) -> None:
    fields = fields_of(request_of(), model, with_labels(policy, training_mining="allowed"))
    assert fields["plus:DataMining"] == "http://ns.useplus.org/ldf/vocab/DMI-ALLOWED"


def test_terms_of_the_policy_stand_in_for_a_briefs(
    request_of: RequestOf, model: Any, policy: Policy
) -> None:
    assert policy.terms is not None
    fields = fields_of(request_of(terms={}), model, policy)
    assert policy.terms.licensor in str(fields["dc:rights"])


XML_CHARACTER = re.compile("[ -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
any_text = st.text(st.characters(codec=None, categories=None, exclude_categories=[]), max_size=60)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=any_text, producer=any_text)
def test_any_text_gives_a_well_formed_packet_that_reads_back(
    text: str, producer: str, request_of: RequestOf, model: Any, policy: Policy
) -> None:
    request = request_of(prompt=text, negative_prompt="", terms={**TERMS, "credit": text or "x"})
    packet = xmp_packet(request, model, with_labels(policy, prompt="text"), producer, WHEN)
    root = ElementTree.fromstring(packet.decode())
    assert root.tag == "{adobe:ns:meta/}xmpmeta"
    fields = read_packet(packet)
    kept = "".join(c if c in "\t\n\r" or XML_CHARACTER.fullmatch(c) else "\ufffd" for c in text)
    if text:
        assert fields["Iptc4xmpExt:AIPromptInformation"] == kept.strip()


def test_a_long_prompt_is_cut_and_its_hash_kept(
    request_of: RequestOf, model: Any, policy: Policy
) -> None:
    prompt = "mug " * 20_000
    packet = xmp_packet(
        request_of(prompt=prompt, negative_prompt=""), model, with_labels(policy, prompt="text"),
        "S", WHEN,
    )  # fmt: skip
    assert len(packet) < 20_000
    assert text_sha256(prompt).encode() in packet


@pytest.mark.parametrize("fmt", ["png", "jpeg", "webp"])
def test_the_packet_travels_in_every_format(
    fmt: str, picture: RgbImage, request_of: RequestOf, model: Any, policy: Policy
) -> None:
    packet = xmp_packet(request_of(prompt="тест 试验"), model, policy, "Süd", WHEN)
    data, mime = encode(picture, ImageFormat(format=fmt, quality=90), packet)  # type: ignore[arg-type]
    with Image.open(io.BytesIO(data)) as image:
        assert Image.MIME[image.format or ""] == mime
        stored = image.info["xmp"]
        assert image.size == (96, 64)
    assert read_packet(stored) == read_packet(packet)


BOMB = """<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>
<x:xmpmeta xmlns:x="adobe:ns:meta/">&b;</x:xmpmeta>"""


@pytest.mark.parametrize(
    "packet",
    [
        BOMB.encode(),
        BOMB,
        BOMB.encode("utf-16"),
        BOMB.replace("<?xml version", "<?xml encoding='utf-16' version").encode(),
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>',
        b"<x",
        b"\xff\x00\xff",
        b"plain words",
        b"<x>" + b" " * (1 << 20) + b"</x>",
        b"",
    ],
)
def test_packets_with_entities_or_faults_are_refused(packet: bytes | str) -> None:
    with pytest.raises(LabelError):
        read_packet(packet)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(packet: bytes) -> None:
    with contextlib.suppress(LabelError):
        read_packet(packet)


def test_attributes_and_other_peoples_namespaces_are_read(policy: Policy) -> None:
    packet = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
      xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
      <rdf:Description xmlns:i="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:o="urn:other"
       i:DigitalSourceType="http://x/digitalCapture" o:thing="1"/></rdf:RDF></x:xmpmeta>"""
    assert read_packet(packet) == {"Iptc4xmpExt:DigitalSourceType": "http://x/digitalCapture"}
