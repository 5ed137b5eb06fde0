"""The label: one XMP packet that says what an image is, for readers that know nothing of C2PA.

Written while encoding, before signing. Fields and their sources: IPTC Photo Metadata 2025.1, PLUS,
XMP rights, China's GB 45438-2025 Annex E. Also reads the labels of any file, for verify.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from pipeline.policy_model import Labels, Policy
from pipeline.request import Request

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC digital source type of an image made wholly by a trained model; always the full URI."""

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
NAMESPACES = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "plus": "http://ns.useplus.org/ldf/xmp/1.0/",
    "TC260": "http://www.tc260.org.cn/ns/AIGC/1.0/",
}
# Shops live from search engines, so indexing stays allowed where mining is not.
_DATA_MINING = {
    "notAllowed": "http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING",
    "allowed": "http://ns.useplus.org/ldf/vocab/DMI-ALLOWED",
}
MAX_TEXT = 4_000
"""Characters of a prompt or licence in the packet: a JPEG holds 64 KiB of XMP in all."""
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


@dataclass(frozen=True)
class _Alternative:
    """A text in the default language (`rdf:Alt`)."""

    text: str


@dataclass(frozen=True)
class _Ordered:
    """An ordered list (`rdf:Seq`)."""

    items: tuple[str, ...]


_Value = str | _Alternative | _Ordered


def xmp_packet(
    request: Request,
    model: MakerModel,
    policy: Policy,
    producer: str,
    when: datetime,
    source_type: str = SOURCE_TYPE,
) -> bytes:
    """The UTF-8 XMP packet of one image. `when` is aware; any text is made safe for XML.

    `source_type` is the IPTC digital source type, the full URI.
    """
    fields: dict[str, _Value] = {
        "xmp:CreatorTool": f"Platemark {platemark_version()}",
        "xmp:CreateDate": timestamp(when),
        **metadata(request, model, policy, producer, source_type),
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
) -> dict[str, _Value]:
    """The descriptive fields that packet and manifest (`cawg.metadata`) share, by XMP name."""
    fields: dict[str, _Value] = {
        "dc:creator": _Ordered((producer,)),
        "Iptc4xmpExt:DigitalSourceType": source_type,
        "Iptc4xmpExt:AISystemUsed": f"Platemark with {', '.join(system_names(request, model))}",
        "Iptc4xmpExt:AISystemVersionUsed": model.revision,
    }
    if prompt := disclosed_prompt(request, policy.labels):
        fields["Iptc4xmpExt:AIPromptInformation"] = prompt
        fields["Iptc4xmpExt:AIPromptWriterName"] = writer_name(request, producer)
    terms = request.terms or (policy.terms.model_dump(mode="json") if policy.terms else {})
    if terms:
        fields["dc:rights"] = _Alternative(f"Licensed by {terms['licensor']}, terms {terms['id']}")
        fields["xmpRights:Marked"] = "True"
        if terms.get("text"):
            fields["xmpRights:UsageTerms"] = _Alternative(_shortened(str(terms["text"])))
        if terms.get("web_statement"):
            fields["xmpRights:WebStatement"] = str(terms["web_statement"])
        if terms.get("credit"):
            fields["photoshop:Credit"] = str(terms["credit"])
    return fields


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
        return _shortened(request.prompt + excluded)
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


def plain(value: _Value) -> str | list[str]:
    """A field's value as JSON: text, or a list of texts."""
    if isinstance(value, _Alternative):
        return value.text
    return list(value.items) if isinstance(value, _Ordered) else value


def text_sha256(text: str) -> str:
    """SHA-256 (hex) of a text's UTF-8 form."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


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
    if len(packet) > MAX_PACKET:
        raise LabelError("the XMP packet is larger than 1 MiB")
    text = packet if isinstance(packet, str) else _decoded(packet)
    # Any markup declaration could define entities; XMP (XML with RDF) needs none.
    if re.search(r"<!(?!--|\[CDATA\[)", text):
        raise LabelError("the XMP packet declares a document type or entities")
    try:
        root = ElementTree.fromstring(text.strip("\ufeff\x00 \t\r\n"))
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise LabelError(f"the XMP packet is not well-formed: {error}") from None
    prefixes = {uri: prefix for prefix, uri in NAMESPACES.items()}
    fields: dict[str, str | list[str]] = {}
    for description in root.iter(f"{{{_RDF}}}Description"):
        for key, value in description.attrib.items():
            if name := _prefixed(key, prefixes):
                fields[name] = value
        for element in description:
            if name := _prefixed(element.tag, prefixes):
                fields[name] = _element_value(element)
    return fields


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
    items = element.findall(f"./*/{{{_RDF}}}li")
    if not items:
        return (element.get(f"{{{_RDF}}}resource") or element.text or "").strip()
    texts = ["".join(item.itertext()).strip() for item in items]
    return texts[0] if element[0].tag == f"{{{_RDF}}}Alt" else texts


def _shortened(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT]}… (cut; sha256:{text_sha256(text)})"


# What XML 1.0 (2.2 Char) cannot hold in any form.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def safe_text(text: str) -> str:
    """The text with what neither XML nor UTF-8 can hold replaced by U+FFFD."""
    return _FORBIDDEN.sub("\ufffd", text)


def _serialised(fields: Mapping[str, _Value]) -> bytes:
    used = sorted({name.split(":")[0] for name in fields})
    spaces = "".join(f" xmlns:{prefix}={quoteattr(NAMESPACES[prefix])}" for prefix in used)
    body = "\n".join(f"   {_element(name, value)}" for name, value in fields.items())
    # The id and the byte order mark are constants of the XMP specification, part 1, 7.3.2.
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
        f' <rdf:RDF xmlns:rdf="{_RDF}">\n'
        f'  <rdf:Description rdf:about=""{spaces}>\n{body}\n'
        "  </rdf:Description>\n </rdf:RDF>\n</x:xmpmeta>\n"
        '<?xpacket end="r"?>'
    ).encode()


def _element(name: str, value: _Value) -> str:
    if isinstance(value, _Alternative):
        text = _escaped(value.text)
        inner = f'<rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li></rdf:Alt>'
    elif isinstance(value, _Ordered):
        items = "".join(f"<rdf:li>{_escaped(item)}</rdf:li>" for item in value.items)
        inner = f"<rdf:Seq>{items}</rdf:Seq>"
    else:
        inner = _escaped(value)
    return f"<{name}>{inner}</{name}>"


def _escaped(text: str) -> str:
    # A bare carriage return would be read back as a line feed (XML 1.0, 2.11).
    return escape(safe_text(text), {"\r": "&#13;"})
