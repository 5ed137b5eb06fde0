"""Which licence an input picture says it is under: Creative Commons addresses in its XMP.

Asked at planning and recorded with the run (catalog/licensing.py), so that an export knows the
licences of photos whose files may be gone. What a picture says *against* its use is read by
pipeline/restrictions.py.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from pipeline.images import ImageRefused, read_limited
from pipeline.licences import creative_commons_in

# Most telling first. dc:rights and usage terms are prose that often holds the address.
_FIELDS = ("cc:license", "xmpRights:WebStatement", "xmpRights:UsageTerms", "dc:rights")
_CREDITS = ("cc:attributionName", "photoshop:Credit", "dc:creator")
_LONGEST = 500


@dataclass(frozen=True)
class LicenceMark:
    """The SPDX id that a picture names, whom to credit (may be empty), and where it says so."""

    licence: str
    credit: str
    says: str


def licence_of(data: bytes) -> LicenceMark | None:
    """What the XMP of the picture `data` says of its licence; None: nothing that is understood.

    Never raises for the file's sake: a packet that cannot be read is refused elsewhere.
    """
    from PIL import Image

    from pipeline.label import LabelError, read_packet

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
        fields = read_packet(packet) if packet else {}
    except (LabelError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    for name in _FIELDS:
        text = _text(fields.get(name))
        if licence := creative_commons_in(text):
            credit = next((found for key in _CREDITS if (found := _text(fields.get(key)))), "")
            return LicenceMark(licence, credit, f"XMP {name}: {' '.join(text.split())[:80]}")
    return None


def licence_of_file(path: Path) -> LicenceMark | None:
    """The same of a file; None as well when it cannot be read, which others tell."""
    try:
        return licence_of(read_limited(path))
    except (OSError, ImageRefused):
        return None


def _text(value: str | list[str] | None) -> str:
    text = ", ".join(value) if isinstance(value, list) else value or ""
    return " ".join(text.split())[:_LONGEST]
