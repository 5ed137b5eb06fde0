"""Soft bindings as C2PA assertions, and back from a manifest store.

C2PA 2.4, "Soft binding" (`c2pa.soft-binding`) and "Actions" (`c2pa.watermarked.bound`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.soft_binding.fingerprint import Window
from pipeline.soft_binding.watermarks import BY_ALGORITHM

LABEL = "c2pa.soft-binding"


@dataclass(frozen=True)
class SoftBinding:
    """A value that an algorithm finds in an image; `part` is where, None: in the whole of it.

    `alg` is a name of the C2PA soft binding algorithm list, or ours. Values are text: hex digits of
    watermarks and PDQ hashes, an ISCC as it is written.
    """

    alg: str
    value: str
    part: Window | None = None


def assertions(bindings: Iterable[SoftBinding]) -> list[dict[str, Any]]:
    """The assertions of these bindings, one an algorithm."""
    blocks: dict[str, list[dict[str, Any]]] = {}
    for each in bindings:
        scope = {"region": _region(each.part)} if each.part else {}
        blocks.setdefault(each.alg, []).append({"scope": scope, "value": each.value})
    # The specification has `pad` as bytes, which the SDK's JSON cannot say: an empty list is the
    # nearest, and c2pa-rs reads it as no bytes.
    return [
        {"label": LABEL, "created": True, "data": {"alg": alg, "blocks": each, "pad": []}}
        for alg, each in blocks.items()
    ]


def watermark_action(bindings: Iterable[SoftBinding], made_at: str) -> list[dict[str, Any]]:
    """The action that tells of a watermark, where there is one; all actions must be listed."""
    if not any(each.alg in BY_ALGORITHM for each in bindings):
        return []
    return [{"action": "c2pa.watermarked.bound", "when": made_at, "softwareAgent": _agent()}]


def bindings_of(manifest: bytes) -> tuple[SoftBinding, ...]:
    """The soft bindings that the active manifest of a stored manifest store declares.

    Raises ValueError when it cannot be read.
    """
    from c2pa import C2paError, Reader

    from pipeline.verify_c2pa import offline_context

    try:
        stream = io.BytesIO(manifest)
        with Reader("application/c2pa", stream, context=offline_context()) as reader:
            store = json.loads(reader.json())
    except C2paError as error:
        raise ValueError(f"no manifest store that can be read: {error}") from error
    active = store.get("manifests", {}).get(store.get("active_manifest"), {})
    return tuple(
        SoftBinding(str(data.get("alg")), str(block.get("value")), _window(block.get("scope")))
        for each in active.get("assertions", [])
        if str(each.get("label")).startswith(LABEL) and isinstance(data := each.get("data"), dict)
        for block in data.get("blocks", [])
    )


def _agent() -> dict[str, str]:
    from pipeline.label import platemark_version

    return {"name": "Platemark", "version": platemark_version()}


def _region(part: Window) -> dict[str, Any]:
    left, top, right, bottom = (round(edge * 100, 3) for edge in part)
    shape = {
        "type": "rectangle",
        "unit": "percent",
        "origin": {"x": left, "y": top},
        "width": round(right - left, 3),
        "height": round(bottom - top, 3),
    }
    return {"region": [{"type": "spatial", "shape": shape}]}


def _window(scope: Any) -> Window | None:
    try:
        shape: Mapping[str, Any] = scope["region"]["region"][0]["shape"]
        left, top = float(shape["origin"]["x"]), float(shape["origin"]["y"])
        right, bottom = left + float(shape["width"]), top + float(shape["height"])
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return (
        round(left / 100, 5), round(top / 100, 5), round(right / 100, 5), round(bottom / 100, 5)
    )  # fmt: skip
