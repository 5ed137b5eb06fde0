"""The label: one XMP packet that says what an image is, for readers that know nothing of C2PA.

Written while encoding, before signing. Fields and their sources: IPTC Photo Metadata 2025.1, PLUS,
XMP rights, China's GB 45438-2025 Annex E. Also reads the labels of any file, for verify.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol
from xml.etree import ElementTree

from pipeline.licences import Licences
from pipeline.licensing_fields import LICENSING, licensing_fields
from pipeline.policy_model import Labels, Policy
from pipeline.request import Request
from pipeline.terms import UsageTerms
from pipeline.xmp_values import (
    MAX_TEXT,
    NAMESPACES,
    RDF,
    Alternative,
    FlatValue,
    Link,
    Ordered,
    Structures,
    Unordered,
    Value,
    declarations,
    description,
    safe_text,
    shortened,
    text_sha256,
)

__all__ = [
    "MAX_TEXT",
    "NAMESPACES",
    "SOURCE_TYPE",
    "LabelError",
    "MakerModel",
    "aigc_label",
    "disclosed_prompt",
    "licensed_again",
    "metadata",
    "plain",
    "platemark_version",
    "read_packet",
    "safe_text",
    "system_names",
    "text_sha256",
    "timestamp",
    "writer_name",
    "xmp_packet",
]

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC digital source type of an image made wholly by a trained model; always the full URI."""

# Shops live from search engines, so indexing stays allowed where mining is not.
_DATA_MINING = {
    "notAllowed": "http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING",
    "allowed": "http://ns.useplus.org/ldf/vocab/DMI-ALLOWED",
}
MAX_PACKET = 1 << 20


class MakerModel(Protocol):
    """What labels and manifests say of a model; pipeline/models.py has them."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def source(self) -> str: ...  # noqa: D102
    @property
    def revision(self) -> str: ...  # noqa: D102
    @property
    def licence(self) -> str: ...  # noqa: D102
    @property
    def weights_sha256(self) -> str | None: ...  # noqa: D102
    @property
    def notice(self) -> str: ...  # noqa: D102
    @property
    def is_folder(self) -> bool: ...  # noqa: D102


def xmp_packet(
    request: Request,
    model: MakerModel,
    policy: Policy,
    producer: str,
    when: datetime,
    source_type: str = SOURCE_TYPE,
    licences: Licences | None = None,
) -> bytes:
    """The UTF-8 XMP packet of one image. `when` is aware; any text is made safe for XML.

    `source_type` is the IPTC digital source type, the full URI. `licences` is the table that tells
    of the licences in the terms, default the shipped one.
    """
    fields: dict[str, Value] = {
        "xmp:CreatorTool": f"Platemark {platemark_version()}",
        "xmp:CreateDate": timestamp(when),
        **metadata(request, model, policy, producer, source_type, licences),
        **licensing_fields(_terms(request, policy), licences),
        "plus:DataMining": _DATA_MINING[policy.labels.training_mining],
    }
    if policy.labels.china_aigc:
        fields["TC260:AIGC"] = aigc_label(request, policy.labels, producer)
    return _serialised(fields)


def metadata(
    request: Request,
    model: MakerModel,
    policy: Policy,
    producer: str,
    source_type: str = SOURCE_TYPE,
    licences: Licences | None = None,
) -> dict[str, FlatValue]:
    """The descriptive fields that packet and manifest (`cawg.metadata`) share, by XMP name.

    Structures and links are left to the packet: the manifest's readers expect texts. `licences` as
    for `xmp_packet`.
    """
    fields: dict[str, FlatValue] = {
        "dc:creator": Ordered((producer,)),
        "Iptc4xmpExt:DigitalSourceType": source_type,
        "Iptc4xmpExt:AISystemUsed": f"Platemark with {', '.join(system_names(request, model))}",
        "Iptc4xmpExt:AISystemVersionUsed": model.revision,
    }
    if prompt := disclosed_prompt(request, policy.labels):
        fields["Iptc4xmpExt:AIPromptInformation"] = prompt
        fields["Iptc4xmpExt:AIPromptWriterName"] = writer_name(request, producer)
    licensing = licensing_fields(_terms(request, policy), licences)
    fields |= {
        name: value for name, value in licensing.items() if not isinstance(value, Structures | Link)
    }
    return fields


def licensed_again(
    packet: bytes | str, terms: UsageTerms | Mapping[str, Any], licences: Licences | None = None
) -> bytes:
    """An image's XMP packet with the licensing fields of other terms; the rest as it was.

    For renditions that go to another licensee; `licences` is the table that tells of the licences
    in the terms, default the shipped one. Raises LabelError as read_packet does.
    """
    root = _root(packet)
    for prefix, uri in NAMESPACES.items():
        ElementTree.register_namespace(prefix, uri)
    ElementTree.register_namespace("x", "adobe:ns:meta/")
    ElementTree.register_namespace("rdf", RDF)
    described = list(root.iter(f"{{{RDF}}}Description"))
    if not described:
        raise LabelError("the XMP packet describes nothing")
    for each in described:
        _drop_licensing(each)
    if fields := licensing_fields(terms, licences):
        described[0].extend(ElementTree.fromstring(_description(fields)))
    return _wrapped(ElementTree.tostring(root, encoding="unicode"))


def _drop_licensing(element: ElementTree.Element) -> None:
    prefixes = {uri: prefix for prefix, uri in NAMESPACES.items()}
    for key in [key for key in element.attrib if _prefixed(key, prefixes) in LICENSING]:
        del element.attrib[key]
    for child in [each for each in element if _prefixed(each.tag, prefixes) in LICENSING]:
        element.remove(child)


def _terms(request: Request, policy: Policy) -> Mapping[str, Any]:
    return request.terms or (policy.terms.model_dump(mode="json") if policy.terms else {})


def system_names(request: Request, model: MakerModel) -> list[str]:
    """Every model and adapter that made the image, the finishing model first, each once."""
    steps = reversed(request.chain)
    named = [name for step in steps for name in (step.model, *(a.model for a in step.adapters))]
    return list(dict.fromkeys([model.name, *named]))


def writer_name(request: Request, producer: str) -> str:
    """Who wrote the prompt: `producer`, or the language model, marked as such."""
    written = [step.prompt_writer for step in reversed(request.chain) if step.prompt_writer]
    return f"{written[0]} (AI)" if written else producer


def disclosed_prompt(request: Request, labels: Labels) -> str:
    """As much of the prompt as the policy discloses: its hash, its text, or nothing."""
    if not request.prompt:
        return ""
    if labels.prompt == "text":
        excluded = f"\nexcludes: {request.negative_prompt}" if request.negative_prompt else ""
        return shortened(request.prompt + excluded)
    return f"sha256:{text_sha256(request.prompt)}" if labels.prompt == "hash" else ""


def aigc_label(request: Request, labels: Labels, producer: str) -> str:
    """The implicit label's JSON text (GB 45438-2025, Annex E): made by AI, by whom, which work."""
    code = labels.china_aigc if isinstance(labels.china_aigc, str) else producer
    return json.dumps(
        {
            "Label": "1",
            "ContentProducer": code,
            "ProduceID": request.request_id,
            "ReservedCode1": "",
            "ContentPropagator": "",
            "PropagateID": "",
            "ReservedCode2": "",
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def plain(value: FlatValue) -> str | list[str]:
    """A field's value as JSON: text, or a list of texts."""
    if isinstance(value, Alternative):
        return value.text
    return list(value.items) if isinstance(value, Ordered | Unordered) else value


def timestamp(when: datetime) -> str:
    """RFC 3339 in UTC, to the second: `2026-11-22T13:00:00Z`."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@cache
def platemark_version() -> str:
    """The installed version; `0+source` when run from a source tree that is not installed."""
    try:
        return version("platemark")
    except PackageNotFoundError:
        return "0+source"


class LabelError(ValueError):
    """An XMP packet that is too large, not well-formed, or not safe to parse."""


def read_packet(packet: bytes | str) -> dict[str, str | list[str]]:
    """The fields of an XMP packet by name (`dc:creator`), those of known namespaces only.

    Raises LabelError; a document type or entity declaration is refused, whatever its encoding.
    """
    root = _root(packet)
    prefixes = {uri: prefix for prefix, uri in NAMESPACES.items()}
    fields: dict[str, str | list[str]] = {}
    for described in root.iter(f"{{{RDF}}}Description"):
        for key, value in described.attrib.items():
            if name := _prefixed(key, prefixes):
                fields[name] = value
        for element in described:
            if name := _prefixed(element.tag, prefixes):
                fields[name] = _element_value(element)
    return fields


def _root(packet: bytes | str) -> ElementTree.Element:
    if len(packet) > MAX_PACKET:
        raise LabelError("the XMP packet is larger than 1 MiB")
    text = packet if isinstance(packet, str) else _decoded(packet)
    # Any markup declaration could define entities; XMP (XML with RDF) needs none.
    if re.search(r"<!(?!--|\[CDATA\[)", text):
        raise LabelError("the XMP packet declares a document type or entities")
    try:
        return ElementTree.fromstring(text.strip("\ufeff\x00 \t\r\n"))
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise LabelError(f"the XMP packet is not well-formed: {error}") from None


def _decoded(packet: bytes) -> str:
    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if packet.startswith(mark):
            return packet.decode(encoding, "replace")
    try:
        return packet.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise LabelError("the XMP packet is not UTF-8") from None


def _prefixed(tag: str, prefixes: Mapping[str, str]) -> str | None:
    uri, _, name = tag.removeprefix("{").partition("}")
    return f"{prefixes[uri]}:{name}" if uri in prefixes else None


def _element_value(element: ElementTree.Element) -> str | list[str]:
    items = element.findall(f"./*/{{{RDF}}}li")
    if not items:
        return (element.get(f"{{{RDF}}}resource") or element.text or "").strip()
    texts = [_item_text(item) for item in items]
    return texts[0] if element[0].tag == f"{{{RDF}}}Alt" else texts


_NOT_VALUES = (f"{{{RDF}}}", "{http://www.w3.org/XML/1998/namespace}")


def _item_text(item: ElementTree.Element) -> str:
    """A list's item: its text, or a structure's values one after the other."""
    if len(item) == 0 and item.text:
        return item.text.strip()
    values = []
    for each in item.iter():
        values.append(each.text or "")
        values += [text for key, text in each.attrib.items() if not key.startswith(_NOT_VALUES)]
    return ", ".join(value.strip() for value in values if value.strip())


def _serialised(fields: Mapping[str, Value]) -> bytes:
    return _wrapped(
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
        f' <rdf:RDF xmlns:rdf="{RDF}">\n'
        f'  <rdf:Description rdf:about=""{declarations(fields)}>\n{description(fields)}\n'
        "  </rdf:Description>\n </rdf:RDF>\n</x:xmpmeta>"
    )


def _description(fields: Mapping[str, Value]) -> str:
    """A description that stands on its own, to be added to a packet that was read."""
    spaces = f' xmlns:rdf="{RDF}"{declarations(fields)}'
    return f'<rdf:Description rdf:about=""{spaces}>\n{description(fields)}\n</rdf:Description>'


def _wrapped(body: str) -> bytes:
    # The id and the byte order mark are constants of the XMP specification, part 1, 7.3.2.
    head = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    return f'{head}\n{body}\n<?xpacket end="r"?>'.encode()
