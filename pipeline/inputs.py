"""Input pictures of a brief, looked at before any work: are they there, whole, and free to use.

A brief names files beside it, or catalogued assets; a request names pictures by their SHA-256. A
run copies them into the workspace, so that an image can be signed, or made again, years later.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.errors import Fault, InputError, SetupError
from pipeline.images import ImageRefused, RgbImage, decode_limited, read_limited
from pipeline.request import Request, canonical_json
from pipeline.restrictions import Credentials, read_credentials
from pipeline.settings import Settings
from pipeline.store import EXTENSIONS, sha256_of, write_file

_SIGNATURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}
_UNSIGNED = Credentials("None", None, (), ())


@dataclass(frozen=True)
class CatalogAsset:
    """A signed image of the catalog that another may be made from."""

    request_id: str
    sha256: str
    path: Path
    name: str
    licences: tuple[str, ...] = ()
    """Of all models that had a part in it, and in the assets that it was made from."""


FindAsset = Callable[[str], CatalogAsset]
"""From a sku, file or hash prefix to the asset. Raises InputError when none or several match, or
when it was not cleared."""


@dataclass(frozen=True)
class Picture:
    """One input picture at hand. `asset` is set for images of our own catalog."""

    sha256: str
    path: Path
    mime: str
    width: int
    height: int
    name: str
    credentials: Credentials = _UNSIGNED
    asset: CatalogAsset | None = field(default=None, compare=False)

    def as_json(self) -> dict[str, Any]:
        """What the catalog keeps of it."""
        told = asdict(self.credentials)
        return {
            "sha256": self.sha256,
            "mime": self.mime,
            "width": self.width,
            "height": self.height,
            "name": self.name,
            "credentials": told,
            "asset_request_id": self.asset.request_id if self.asset else None,
        }


def open_picture(
    folder: Path, name: str, where: str, anchors: bytes, faults: list[Fault]
) -> Picture | None:
    """The picture `name` beside the brief in `folder`, decoded once and its credentials read.

    A file that is absent, outside the folder, broken, of another format or over a limit is a fault
    at `where`, and None.
    """
    path = folder / name
    try:
        resolved = path.resolve()
        if not resolved.is_relative_to(folder.resolve()):
            remedy = "keep input pictures in the brief's folder"
            faults.append(Fault(f"{name!r} leaves the folder", where, remedy))
            return None
        status = resolved.stat()
        if not stat.S_ISREG(status.st_mode):
            faults.append(Fault(f"{name}: not a regular file", where, "check the path"))
            return None
        return _looked_at(resolved, name, status.st_mtime_ns, status.st_size, anchors)
    except ImageRefused as error:
        faults.append(Fault(f"{name}: {error.what}", where, error.remedy))
    # Links that go in a circle are a RuntimeError.
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        faults.append(Fault(f"{name}: {reason}", where, "check the path"))
    return None


def open_asset(
    name: str, find: FindAsset | None, where: str, anchors: bytes, faults: list[Fault]
) -> Picture | None:
    """The approved or passed asset called `name`; what the catalog says against it is a fault."""
    if find is None:
        faults.append(Fault(f"asset {name!r}: there is no catalog yet", where, "run a brief first"))
        return None
    try:
        asset = find(name)
        found = _looked_at(asset.path, asset.name, 0, 0, anchors)
    except InputError as error:
        faults += [Fault(f"asset {name!r}: {f.what}", where, f.remedy) for f in error.faults]
        return None
    except (ImageRefused, OSError) as error:
        faults.append(Fault(f"asset {name!r}: {error}", where, "restore the file"))
        return None
    if found.sha256 != asset.sha256:
        what = f"asset {name!r}: {asset.path} is not the file that was signed"
        faults.append(Fault(what, where, "restore the file from a backup"))
        return None
    return Picture(**{**found.__dict__, "asset": asset})


# The same photo serves several items, and a run plans twice: decoding it once is enough.
@lru_cache(maxsize=20_000)
def _looked_at(path: Path, name: str, _changed: int, _size: int, anchors: bytes) -> Picture:
    data = read_limited(path)
    pixels = decode_limited(data)
    mime = next((m for head, m in _SIGNATURES.items() if data.startswith(head)), "image/png")
    height, width = pixels.shape[:2]
    credentials = read_credentials(data, mime, anchors)
    return Picture(sha256_of(data), path, mime, width, height, name, credentials)


@dataclass(frozen=True)
class RepaintedRegion:
    """Where an edit painted: x, y, width, height in pixels; and the PSNR of the rest, in dB."""

    box: tuple[int, ...]
    preserved_db: float


class InputStore:
    """The workspace's copies of input pictures, and the intermediates that chains leave there.

    Files are named by the SHA-256 of their bytes, intermediates also by the request id of the step
    that made them.
    """

    def __init__(self, settings: Settings, pictures: Mapping[str, Picture] | None = None):
        """`pictures` are the plan's, by SHA-256; copies are made by `keep`."""
        self._folder = settings.inputs
        self._pictures = dict(pictures or {})
        self._kept: set[str] = set()

    def keep(self, request: Request) -> None:
        """Copy what a chain's requests name into the workspace.

        Raises SetupError when a file is not the one that was planned with, or the disk is full.
        """
        for each in {i.sha256 for step in request.chain for i in step.inputs if i.source != "step"}:
            picture = self._pictures.get(each)
            if picture is None or each in self._kept:
                continue
            if not self.path(each, picture.mime).exists():
                try:
                    data = read_limited(picture.path)
                except (OSError, ImageRefused) as error:
                    raise SetupError(f"{picture.path}: {error}; restore it and run again") from None
                if sha256_of(data) != each:
                    raise SetupError(f"{picture.path} changed since it was planned with; run again")
                write_file(self.path(each, picture.mime), data)
            # Written anew: what is known of a picture may have become more.
            told = picture.as_json()
            # What earlier runs knew of an asset stays known when its bytes come as a file.
            if told["asset_request_id"] is None and self._beside(each).exists():
                told["asset_request_id"] = self.facts(each).get("asset_request_id")
            write_file(self._beside(each), canonical_json(told))
            self._kept.add(each)

    def path(self, sha256: str, mime: str) -> Path:
        """Where the copy of a picture lies."""
        return self._folder / sha256[:2] / f"{sha256}.{EXTENSIONS[mime]}"

    def read(self, sha256: str) -> tuple[bytes, str]:
        """A kept picture's bytes and MIME type, its hash checked. Raises SetupError."""
        for mime in EXTENSIONS:
            path = self.path(sha256, mime)
            if path.exists():
                data = path.read_bytes()
                if sha256_of(data) != sha256:
                    raise SetupError(f"{path} was changed; restore it from a backup")
                return data, mime
        raise SetupError(f"the input {sha256[:12]}… is not in {self._folder}; restore it")

    def pixels(self, sha256: str) -> RgbImage:
        """A kept picture decoded."""
        return decode_limited(self.read(sha256)[0])

    def keep_step(self, request_id: str, png: bytes) -> str:
        """Store the picture that a step made; returns the SHA-256 of its bytes."""
        sha256 = sha256_of(png)
        target = self.path(sha256, "image/png")
        if not target.exists():
            write_file(target, png)
        write_file(self._step(request_id), f"{sha256}\n".encode())
        return sha256

    def step(self, request_id: str) -> str | None:
        """SHA-256 of the picture that a step made, None when it is still to be made."""
        try:
            sha256 = self._step(request_id).read_text().strip()
        except OSError:
            return None
        return sha256 if self.path(sha256, "image/png").exists() else None

    def has_step(self, request_id: str) -> bool:
        """Whether the picture of a step has been made."""
        return self.step(request_id) is not None

    def facts(self, sha256: str) -> dict[str, Any]:
        """What was known of a picture when it was kept: its credentials, whose asset it is."""
        try:
            found: dict[str, Any] = json.loads(self._beside(sha256).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SetupError(f"{self._beside(sha256)}: {error}; run the brief again") from error
        return found

    def keep_region(self, request_id: str, region: RepaintedRegion) -> None:
        """Remember where a request repainted its input."""
        write_file(self._step(request_id).with_suffix(".region"), canonical_json(asdict(region)))

    def region(self, request_id: str) -> RepaintedRegion | None:
        """Where a request repainted its input, None where it did not."""
        try:
            found = json.loads(self._step(request_id).with_suffix(".region").read_text())
        except OSError:
            return None
        return RepaintedRegion(tuple(found["box"]), found["preserved_db"])

    def _beside(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / f"{sha256}.json"

    def _step(self, request_id: str) -> Path:
        return self._folder / "steps" / request_id[:2] / request_id
