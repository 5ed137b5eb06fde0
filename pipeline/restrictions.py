"""What an image from outside says of its use by AI: in its C2PA manifest, its XMP and its IPTC IIM.

Asked of every picture that is trained on or fed to a model. Silence is no restriction; a mark that
is there but cannot be read or does not hold is taken for a no. A bad file is an answer, never an
exception. Not read: what lies in a JPEG's extended XMP, and rights that only a web page states.
"""

from __future__ import annotations

import io
import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal
from xml.etree import ElementTree

# pipeline.label and pipeline.sign are imported where they are used: they import the policy's
# models, which may themselves name what is here and in pipeline/train/samples.py.

State = Literal["Trusted", "Valid", "Invalid", "None"]
Use = Literal["training", "editing"]

MAX_PIXELS = 200_000_000
"""Larger pictures are not decoded, so what stands behind their pixels is not known."""

_MINING = re.compile(r"(?:c2pa|cawg)\.training-mining(?:\.v\d+)?(?:__\d+)?")
# CAWG training and data mining 1.1, and the deprecated C2PA assertion with the same entries.
_ENTRIES: dict[str, Use] = {
    "ai_generative_training": "training",
    "ai_training": "training",
    "data_mining": "training",
    "ai_inference": "editing",
}

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_XMP = {
    "{http://ns.useplus.org/ldf/xmp/1.0/}DataMining": "plus:DataMining",
    "{http://ns.adobe.com/xap/1.0/rights/}WebStatement": "xmpRights:WebStatement",
    "{http://ns.adobe.com/xap/1.0/rights/}UsageTerms": "xmpRights:UsageTerms",
    "{http://ns.adobe.com/photoshop/1.0/}Instructions": "photoshop:Instructions",
    "{http://purl.org/dc/elements/1.1/}rights": "dc:rights",
    "{http://purl.org/dc/elements/1.1/}subject": "dc:subject",
    "{http://creativecommons.org/ns#}license": "cc:license",
    "{http://web.resource.org/cc/}license": "cc:license",
    "{http://www.w3.org/ns/tdmrep}reservation": "tdm:reservation",
    "{http://www.w3.org/ns/tdmrep#}reservation": "tdm:reservation",
    "{http://www.w3.org/ns/tdmrep/}reservation": "tdm:reservation",
}
_DATA_MINING_FREE = ("DMI-ALLOWED", "DMI-UNSPECIFIED", "")
# by-nd, by-nc-nd and the 1.0 licences nd, nd-nc and by-nd-nc.
_NO_DERIVATIVES = re.compile(r"creativecommons\.org/licen[cs]es/(?:[a-z]+-)*nd\b", re.IGNORECASE)
# IIM datasets of record 2 (IPTC IIM 4.2) in which people write such things.
_IIM = {25: "Keywords", 40: "Special Instructions", 116: "Copyright Notice"}
_FREE_TEXT = ("xmpRights:UsageTerms", "photoshop:Instructions", "dc:rights", "dc:subject")

# A refusal in words, whole words only. "No AI was used" tells of the making, not of the use.
_NO_AI = re.compile(
    r"""\b(?:
      no[\s_-]?(?:image|gen)?[\s_-]?ai\b (?!\W+(?:was|were|is|has|have|used|involved|content)\b)
    | no\W+(?:(?:gen\w*|ai|ml|machine\W+learning|model|text|and|&)\W+){0,4}
      (?:training|tdm|data\W?mining)\b
    | no\W+machine\W+learning\b
    | do\W+not\W+(?:train|mine)\b
    | (?:not|never)\W+(?:to\W+)?(?:be\W+)?(?:(?:used?|licen[cs]ed|allowed|permitted)\W+)?
      (?:for|to|in)\s+(?:\w+\s+){0,3}?(?:ai|ml|machine\W+learning|train\w*|data\W?mining)\b
    | (?:ai|ml|machine\W+learning)\W+(?:training|use|learning)\W+(?:is\W+)?
      (?:prohibited|forbidden|not\W+(?:allowed|permitted|licen[cs]ed))\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_SHOWN = 80


@dataclass(frozen=True)
class Restriction:
    """One use that a file rules out. `says` names the source and repeats its words."""

    use: Use
    says: str


@dataclass(frozen=True)
class Credentials:
    """What a file says. `state` is the C2PA state (`None` without a manifest), `manifest` the label
    of the active one, `source_types` its IPTC digital source types; `restrictions` without doubles.
    """

    state: State = "None"
    manifest: str | None = None
    source_types: tuple[str, ...] = ()
    restrictions: tuple[Restriction, ...] = ()

    def forbids(self, use: Use) -> tuple[str, ...]:
        """What the file says against `use`; empty when it says nothing."""
        return tuple(each.says for each in self.restrictions if each.use == use)


def read_credentials(data: bytes, mime: str | None, anchors: bytes) -> Credentials:
    """What the image `data` says; `mime` None: as its bytes tell. `anchors` are PEM roots.

    Never raises for the file's sake and reads nothing but `data`. Of a manifest, the active one and
    those it descends from (`parentOf` ingredients) count, and a later `allowed` does not lift what
    an ancestor ruled out.
    """
    found, marks = _marks(data)
    state, manifest, source_types, said = _c2pa(data, mime or found, anchors)
    restrictions = tuple(dict.fromkeys((*said, *marks)))
    return Credentials(state, manifest, source_types, restrictions)


def _both(says: str) -> list[Restriction]:
    return [Restriction("training", says), Restriction("editing", says)]


# C2PA


def _c2pa(
    data: bytes, mime: str | None, anchors: bytes
) -> tuple[State, str | None, tuple[str, ...], list[Restriction]]:
    from c2pa import C2paError, Reader

    if mime is None or mime not in Reader.get_supported_mime_types():
        return "None", None, (), []
    try:
        with Reader(mime, io.BytesIO(data), context=_context(os.getpid(), anchors)) as reader:
            store = json.loads(reader.json())
    except C2paError as error:
        return _unread(str(error))
    except ValueError as error:
        return "Invalid", None, (), _both(f"its C2PA manifest cannot be read: {error}")
    state: State = store.get("validation_state") or "Invalid"
    if state == "Invalid":
        restrictions = _both(f"its C2PA manifest does not hold: {_failures(store)}")
    else:
        restrictions = list(_said(store))
    label = store.get("active_manifest")
    return state, label, tuple(dict.fromkeys(_source_types(_manifest(store, label)))), restrictions


def _unread(message: str) -> tuple[State, None, tuple[str, ...], list[Restriction]]:
    # The SDK has one exception; its message's prefix tells the kind (as in pipeline/verify.py).
    kind = message.split(":")[0]
    if kind == "ManifestNotFound":
        return "None", None, (), []
    if kind in ("Remote", "RemoteManifest"):
        return "None", None, (), _both(f"its C2PA manifest lies elsewhere, unread: {message}")
    if kind in ("NotSupported", "Io", "Other") and "jumbf" not in message.lower():
        return "None", None, (), []
    return "Invalid", None, (), _both(f"its C2PA manifest cannot be read: {message}")


def _said(store: Mapping[str, Any]) -> Iterator[Restriction]:
    """The restrictions of the active manifest and of all that it descends from."""
    todo, seen = [(store.get("active_manifest"), "")], set()
    while todo:
        label, whose = todo.pop()
        if not isinstance(label, str) or label in seen:
            continue
        seen.add(label)
        manifest = _manifest(store, label)
        for assertion in manifest.get("assertions") or []:
            name = str(assertion.get("label"))
            if _MINING.fullmatch(name):
                yield from _of_entries(f"C2PA {name}{whose}", assertion.get("data"))
        for ingredient in manifest.get("ingredients") or []:
            if ingredient.get("relationship") == "parentOf":
                todo.append((ingredient.get("active_manifest"), " of what it was made from"))


def _of_entries(source: str, data: Any) -> Iterator[Restriction]:
    entries = data.get("entries") if isinstance(data, dict) else None
    if not isinstance(entries, dict):
        yield from _both(f"{source} cannot be understood")
        return
    for key, entry in entries.items():
        name = str(key).rsplit(".", 1)[-1]
        use = entry.get("use") if isinstance(entry, dict) else None
        if name not in _ENTRIES or use == "allowed":
            continue
        # `constrained` sends to conditions that no program here can judge; unknown words as well.
        condition = entry.get("constraint_info") if isinstance(entry, dict) else None
        said = f"{use}: {_short(str(condition))}" if condition else str(use)
        yield Restriction(_ENTRIES[name], f"{source} says {name} {said}")


def _manifest(store: Mapping[str, Any], label: Any) -> Mapping[str, Any]:
    found = (store.get("manifests") or {}).get(label)
    return found if isinstance(found, dict) else {}


def _source_types(manifest: Mapping[str, Any]) -> Iterator[str]:
    for assertion in manifest.get("assertions") or []:
        data = assertion.get("data")
        if str(assertion.get("label")).startswith("c2pa.actions") and isinstance(data, dict):
            for action in data.get("actions") or []:
                if isinstance(action, dict) and action.get("digitalSourceType"):
                    yield str(action["digitalSourceType"])


def _failures(store: Mapping[str, Any]) -> str:
    results = store.get("validation_results") or {}
    parts = [results.get("activeManifest") or {}]
    # One failing ingredient alone can make a file Invalid.
    for delta in results.get("ingredientDeltas") or []:
        parts.append(delta.get("validationDeltas") or {})
    codes = [str(fault.get("code")) for part in parts for fault in part.get("failure") or []]
    return ", ".join(dict.fromkeys(codes)) or "not further explained"


@lru_cache(maxsize=8)
def _context(pid: int, anchors: bytes) -> Any:
    """A context a process: they do not survive a fork."""
    from c2pa import Context, Settings

    from pipeline.sign import reader_settings

    return Context(Settings.from_dict(reader_settings(anchors)))


# XMP and IPTC


def _marks(data: bytes) -> tuple[str | None, list[Restriction]]:
    """The MIME type that the bytes tell, and what XMP and IIM say."""
    from PIL import Image, IptcImagePlugin

    mime: str | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                # Many phones' JPEGs hold a second picture; to everybody else they are JPEGs.
                mime = Image.MIME.get("JPEG" if image.format == "MPO" else image.format or "")
                if image.format == "PNG":
                    if image.width * image.height > MAX_PIXELS:
                        return mime, _both(f"more than {MAX_PIXELS:,} pixels, so it was not read")
                    image.load()  # text may stand behind the pixels
                packets = [image.info[key] for key in _PACKETS if image.info.get(key)]
                iim = IptcImagePlugin.getiptcinfo(image) or {}
    except Exception as error:  # decoders raise anything on broken files
        return mime, _both(f"the image cannot be read: {str(error) or type(error).__name__}")
    said = [each for packet in packets for each in _of_packet(packet)]
    return mime, said + list(_of_iim(iim))


_PACKETS = ("xmp", "XML:com.adobe.xmp")


def _of_packet(packet: Any) -> list[Restriction]:
    try:
        properties = _properties(packet)
    except ValueError as error:  # LabelError is one
        return _both(f"its XMP cannot be read: {error}")
    return [each for name, value in properties for each in _of_property(name, value)]


def _properties(packet: Any) -> list[tuple[str, str]]:
    """Name and value of every property asked for, however often it stands there, at any depth.

    Raises ValueError for packets that are broken or not safe to parse.
    """
    from pipeline.label import read_packet

    if isinstance(packet, str):
        text = packet
    elif isinstance(packet, bytes):
        wide = packet.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = packet.decode("utf-16" if wide else "utf-8-sig")
    else:
        raise ValueError("it is no text")
    read_packet(text)  # its guards: size, declarations, form
    root = ElementTree.fromstring(text.strip("\ufeff\x00 \t\r\n"))
    found = []
    for element in root.iter():
        for key, value in element.attrib.items():
            if key in _XMP:
                found.append((_XMP[key], value))
        if element.tag in _XMP:
            inner = [each.get(f"{_RDF}resource") or "" for each in element.iter()]
            found += [(_XMP[element.tag], each) for each in (*inner, *element.itertext())]
    return [(name, value.strip()) for name, value in found if value.strip()]


def _of_property(name: str, value: str) -> Iterable[Restriction]:
    source = f"XMP {name}"
    if name == "plus:DataMining":
        code = value.rstrip("/").rsplit("/", 1)[-1]
        if code.upper() not in _DATA_MINING_FREE:
            yield Restriction("training", f"{source} = {_short(code)}")
    elif name == "tdm:reservation":
        if value != "0":
            yield Restriction("training", f"{source} = {_short(value)}")
    elif name in _FREE_TEXT and _NO_AI.search(value):
        yield Restriction("training", f"{source}: {_short(value)!r}")
    if name in ("cc:license", "xmpRights:WebStatement") and _NO_DERIVATIVES.search(value):
        yield Restriction("editing", f"{source} = {_short(value)}, which allows no derivatives")


def _of_iim(iim: Mapping[tuple[int, int], Any]) -> Iterator[Restriction]:
    """Free text, so only plain refusals count: `noai`, "no AI training", "not for AI" and the like.

    Editors keep these fields beside the XMP ones of the same meaning, which are read alike.
    """
    for dataset, name in _IIM.items():
        values = iim.get((2, dataset)) or []
        for value in values if isinstance(values, list) else [values]:
            text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
            if _NO_AI.search(text):
                yield Restriction("training", f"IPTC {name} (2:{dataset}): {_short(text)!r}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"
