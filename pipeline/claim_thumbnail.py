"""The thumbnail in a signed file's manifest: a small picture without decoding the large one.

For files whose bytes are known to be those that were signed; nothing is verified here.
"""

from __future__ import annotations

import io
import json
import os
from functools import lru_cache
from typing import Any

from pipeline.images import ImageRefused, RgbImage, decode_limited


def claim_thumbnail(data: bytes, mime: str) -> RgbImage | None:
    """The claim thumbnail of the active manifest, uint8 [H, W, 3]; None without one."""
    from c2pa import C2paError, Reader

    out = io.BytesIO()
    try:
        with Reader(mime, io.BytesIO(data), context=_context(os.getpid())) as reader:
            store = json.loads(reader.json())
            active = store["manifests"][store["active_manifest"]]
            reader.resource_to_stream(active["thumbnail"]["identifier"], out)
        return decode_limited(out.getvalue())
    # Also a manifest that only brings a time stamp has none.
    except (C2paError, ImageRefused, KeyError, ValueError):
        return None


@lru_cache(maxsize=1)
def _context(pid: int) -> Any:
    """A context for this process that neither verifies nor fetches."""
    from c2pa import Context, Settings

    quiet = {"verify_after_reading": False, "remote_manifest_fetch": False}
    return Context(Settings.from_dict({"verify": quiet}))
