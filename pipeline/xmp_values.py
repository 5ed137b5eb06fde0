"""The values that XMP fields have, and how each is written as RDF (XMP specification, part 1)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
NAMESPACES = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "plus": "http://ns.useplus.org/ldf/xmp/1.0/",
    "cc": "http://creativecommons.org/ns#",
    "TC260": "http://www.tc260.org.cn/ns/AIGC/1.0/",
}


@dataclass(frozen=True)
class Alternative:
    """A text in the default language (`rdf:Alt`)."""

    text: str


@dataclass(frozen=True)
class Ordered:
    """An ordered list (`rdf:Seq`)."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Unordered:
    """A list without order (`rdf:Bag`)."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Link:
    """An address as a resource (`rdf:resource`)."""

    address: str


@dataclass(frozen=True)
class Structures:
    """An ordered list of structures: fields by name (`plus:LicensorName`) of each."""

    items: tuple[tuple[tuple[str, str], ...], ...]


FlatValue = str | Alternative | Ordered | Unordered
Value = FlatValue | Link | Structures

MAX_TEXT = 4_000
"""Characters of a prompt or licence in the packet: a JPEG holds 64 KiB of XMP in all."""

# What XML 1.0 (2.2 Char) cannot hold in any form.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def safe_text(text: str) -> str:
    """The text with what neither XML nor UTF-8 can hold replaced by U+FFFD."""
    return _FORBIDDEN.sub("\ufffd", text)


def text_sha256(text: str) -> str:
    """SHA-256 (hex) of a text's UTF-8 form."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def shortened(text: str) -> str:
    """The text, cut at MAX_TEXT with the SHA-256 of the whole."""
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT]}… (cut; sha256:{text_sha256(text)})"


def description(fields: Mapping[str, Value]) -> str:
    """The fields as elements, one a line, indented for a packet."""
    return "\n".join(f"   {_element(name, value)}" for name, value in fields.items())


def declarations(fields: Mapping[str, Value]) -> str:
    """The namespace declarations that these fields need, each with a space before it."""
    used = sorted({name.split(":")[0] for name in fields})
    return "".join(f" xmlns:{prefix}={quoteattr(NAMESPACES[prefix])}" for prefix in used)


def _element(name: str, value: Value) -> str:
    if isinstance(value, Link):
        return f"<{name} rdf:resource={quoteattr(safe_text(value.address))}/>"
    return f"<{name}>{_inner(value)}</{name}>"


def _inner(value: FlatValue | Structures) -> str:
    match value:
        case Alternative(text):
            text = _escaped(text)
            return f'<rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li></rdf:Alt>'
        case Ordered(items):
            return f"<rdf:Seq>{_listed(items)}</rdf:Seq>"
        case Unordered(items):
            return f"<rdf:Bag>{_listed(items)}</rdf:Bag>"
        case Structures(structures):
            inner = "".join(
                '<rdf:li rdf:parseType="Resource">'
                + "".join(f"<{name}>{_escaped(text)}</{name}>" for name, text in fields)
                + "</rdf:li>"
                for fields in structures
            )
            return f"<rdf:Seq>{inner}</rdf:Seq>"
    return _escaped(value)


def _listed(items: tuple[str, ...]) -> str:
    return "".join(f"<rdf:li>{_escaped(item)}</rdf:li>" for item in items)


def _escaped(text: str) -> str:
    # A bare carriage return would be read back as a line feed (XML 1.0, 2.11).
    return escape(safe_text(text), {"\r": "&#13;"})
