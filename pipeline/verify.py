"""What any file says of its origin, and whether that holds: C2PA state, labels, decoding.

Works on files of ours and of others, whole or broken; a bad file is a report, never an exception.
"""

from __future__ import annotations

import hashlib
import io
import json
import mimetypes
import stat
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.image_heads import ImageHead, head_of
from pipeline.label import LabelError, read_packet
from pipeline.trust import Trust, as_trust
from pipeline.verify_c2pa import State, judged, verifier

Depth = Literal["manifest", "labels", "pixels"]
"""How much of a file is looked at: its manifest alone; also its labels, and the pixels of what is
not Trusted; or all of it, every pixel decoded."""

MAX_BYTES = 512 * 1024 * 1024
"""Larger files are hashed, but neither decoded nor searched for a manifest."""
MAX_PIXELS = 200_000_000
_MAX_CARRIED = 1 << 16
"""Bytes of a packet that a report carries as it is; larger ones are parsed at once."""


class Labels(Mapping[str, Any]):
    """The fields of an XMP packet by name, parsed when somebody asks for one: of thousands of files
    that are well nobody does. Of one that cannot be read, why, under `unreadable`."""

    def __init__(self, packet: bytes | str) -> None:
        self._packet = packet
        self._fields: dict[str, Any] | None = None

    def __getitem__(self, name: str) -> Any:
        return self._parsed()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed())

    def __len__(self) -> int:
        return len(self._parsed())

    def __repr__(self) -> str:
        return repr(self._parsed())

    def __reduce__(self) -> tuple[type[Labels], tuple[bytes | str]]:
        return Labels, (self._packet,)

    def _parsed(self) -> dict[str, Any]:
        if self._fields is None:
            try:
                self._fields = dict(read_packet(self._packet))
            except LabelError as error:
                self._fields = {"unreadable": str(error)}
        return self._fields


@dataclass(frozen=True)
class Report:
    """What was found in one file. All of it is JSON (`as_json`).

    `state` is the C2PA validation state: Trusted (valid, and a configured root vouches for the
    signer), Valid, Invalid, or None without a manifest; `why` says so in words. `error` says why a
    file could not be looked at in full.
    """

    path: str
    state: State = "None"
    why: tuple[str, ...] = ()
    error: str | None = None
    sha256: str | None = None
    size: int | None = None
    mime: str | None = None
    width: int | None = None
    height: int | None = None
    decodes: bool | None = False
    """None: not tried, as the signature vouches for every byte."""
    development: bool = False
    signer: str | None = None
    signed_at: str | None = None
    claim_generator: str | None = None
    label: str | None = None
    trust_list: str | None = None
    """Name of the list whose root vouches for the signer (pipeline/trust.py)."""
    time_stamp: Literal["Trusted", "Valid"] | None = None
    """Of the active manifest: Trusted when a configured root vouches for the authority."""
    source_types: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    ingredients: tuple[Mapping[str, Any], ...] = ()
    """What it was made from: title, relationship, instance id, and their own manifests' labels."""
    assertions: tuple[str, ...] = ()
    """Labels of the statements in the manifest, hashes of the file not among them."""
    disclosure: Mapping[str, Any] | None = None
    """`c2pa.ai-disclosure`: which model."""
    generation: Mapping[str, Any] | None = None
    policy: Mapping[str, Any] | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)
    verifier: str = ""

    @property
    def ok(self) -> bool:
        """Trusted, and no pixel fails to decode: what a script may take for a yes."""
        return self.state == "Trusted" and self.decodes is not False

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON values, `ok` included."""
        fields = {**vars(self), "labels": dict(self.labels)}
        plain: dict[str, Any] = json.loads(json.dumps(fields, default=str))
        return {"ok": self.ok, **plain}


def verify_file(
    path: Path, anchors: bytes | Trust, depth: Depth = "pixels", hashed: bool = True
) -> Report:
    """What `path` says of its origin, checked against `anchors` (PEM roots, or lists of them).

    Without `hashed` its SHA-256 is left out: nothing is looked up by it then, and it costs up to a
    quarter of the time that the C2PA library takes. Never raises for a file, whatever it holds or
    lacks. Reads nothing but that file: a manifest
    that lies elsewhere is reported, not fetched.
    """
    found: dict[str, Any] = {"path": str(path), "verifier": verifier()}
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return Report(**found, error="is not a regular file", why=("there is no file to read",))
        with path.open("rb") as file:
            found["size"] = status.st_size
            if status.st_size > MAX_BYTES:
                if hashed:
                    found["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
                return Report(**found, **too_large())
            # Not up to the limit: Python sets aside as much memory as it is asked to read.
            data = file.read(status.st_size)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Report(**found, error=reason, why=("it could not be read",))
    return verify_bytes(data, path, anchors, depth, hashed)


def too_large() -> dict[str, Any]:
    """What a report says of a file over the limit."""
    return {"error": f"is larger than {MAX_BYTES >> 20} MiB", "why": ("it was hashed only",)}


def verify_bytes(
    data: bytes,
    path: Path,
    anchors: bytes | Trust,
    depth: Depth = "pixels",
    hashed: bool = True,
) -> Report:
    """As `verify_file`, for bytes at hand; `path` names them in the report."""
    trust = as_trust(anchors)
    known: dict[str, Any] = {"path": str(path), "verifier": verifier(), "size": len(data)}
    if hashed:
        known["sha256"] = hashlib.sha256(data).hexdigest()
    guessed = _kind(data) or mimetypes.guess_type(path.name)[0]
    told = judged(data, guessed, trust)
    if depth == "manifest":
        return Report(**known, mime=guessed, decodes=None, **told)
    decode = depth == "pixels" or told["state"] != "Trusted"
    head = None if decode else head_of(data)
    if head and head.width * head.height <= MAX_PIXELS:
        picture = _headed(head)
    else:
        picture = _look_at(data, decode)
    mime = picture.pop("mime", None) or guessed
    # Decoders know kinds that the first bytes do not tell.
    if mime != guessed and told["state"] == "None":
        told = judged(data, mime, trust)
    return Report(**known, mime=mime, **picture, **told)


_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF8", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)


def _kind(data: bytes) -> str | None:
    """The MIME type that the first bytes tell."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "image/avif"
    return next((mime for magic, mime in _MAGIC if data.startswith(magic)), None)


def verify_signature(path: Path, mime: str, anchors: bytes | Trust) -> Report:
    """The C2PA part of `verify_file` alone, for a file whose SHA-256 is known to be unchanged.

    Neither decodes the pixels nor reads other labels: both were seen to when the file was signed.
    Raises OSError when it cannot be read.
    """
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    found = judged(data, mime, as_trust(anchors))
    return Report(str(path), mime=mime, size=len(data), sha256=sha256, verifier=verifier(), **found)


def _look_at(data: bytes, decode: bool) -> dict[str, Any]:
    """Size, labels and, with `decode`, every pixel; what is known when one fails stays."""
    from PIL import Image, UnidentifiedImageError

    found: dict[str, Any] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                # Many phones' JPEGs hold a second picture; to everybody else they are JPEGs.
                kind = "JPEG" if image.format == "MPO" else image.format or ""
                found["mime"] = Image.MIME.get(kind)
                found["width"], found["height"] = image.size
                if image.width * image.height > MAX_PIXELS:
                    found["error"] = f"has more than {MAX_PIXELS:,} pixels and was not decoded"
                    found["labels"] = _labels(image.info)
                    return found
                if not decode:
                    found["decodes"] = None
                    found["labels"] = _labels(image.info)
                    return found
                try:
                    image.load()
                    found["decodes"] = True
                finally:
                    # After loading: PNG text may stand behind the pixels.
                    found["labels"] = _labels(image.info)
    except UnidentifiedImageError:
        found["error"] = "is no image that can be decoded"
    except Exception as error:  # decoders raise anything on broken files
        found["error"] = f"does not decode: {str(error) or type(error).__name__}"
    return found


def _headed(head: ImageHead) -> dict[str, Any]:
    """As `_look_at` without decoding."""
    labels = Labels(head.xmp) if head.xmp and len(head.xmp) <= _MAX_CARRIED else None
    return {
        "decodes": None,
        "width": head.width,
        "height": head.height,
        "labels": _labels({"xmp": head.xmp}) if labels is None else labels,
    }


def _labels(info: Mapping[Any, Any]) -> Mapping[str, Any]:
    packet = info.get("xmp") or info.get("XML:com.adobe.xmp")
    return dict(Labels(packet)) if isinstance(packet, bytes | str) and packet else {}
