"""The manifest of a rendition: what was done to the original, and what holds for both.

Sources: C2PA 2.4, "Actions" (opened, resized, cropped, converted, edited) and "Ingredients".
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.label import NAMESPACES, plain, platemark_version, safe_text, timestamp
from pipeline.licences import Licences
from pipeline.licensing_fields import LICENSING, licensing_fields
from pipeline.manifest import GENERATION, POLICY, SPEC_VERSION
from pipeline.sign import reader_settings
from pipeline.soft_binding.assertion import LABEL as SOFT_BINDING
from pipeline.soft_binding.assertion import SoftBinding, assertions, watermark_action
from pipeline.soft_binding.watermarks import BY_ALGORITHM
from pipeline.terms import UsageTerms
from pipeline.verify_c2pa import before_updates
from pipeline.xmp_values import Link, Structures

PARENT = "parent"
"""What the manifest calls the original."""
_METADATA = "cawg.metadata"
# What the original says of its making holds for its renditions as well.
_CARRIED = ("c2pa.ai-disclosure", GENERATION, POLICY)
_GATHERED = ("cawg.training-mining", _METADATA)

Done = tuple[str, str]
"""A C2PA action, and what it did in words."""


@dataclass(frozen=True)
class Original:
    """What the manifest of an original says: its title, its assertions by label, and the watermark
    that it declares, None without one."""

    title: str
    assertions: Mapping[str, Any]
    watermark: SoftBinding | None


def read_original(data: bytes, mime: str, anchors: bytes) -> Original:
    """The active manifest of a signed file; `anchors` are PEM roots. Raises C2paError."""
    from c2pa import Context, Reader, Settings

    context = Context(Settings.from_dict(reader_settings(anchors)))
    with Reader(mime, io.BytesIO(data), context=context) as reader:
        store: Mapping[str, Any] = json.loads(reader.json())
    active = before_updates(store["manifests"][store["active_manifest"]], store["manifests"])
    found = [(each["label"], each["data"]) for each in active.get("assertions", [])]
    marks = [
        SoftBinding(data["alg"], str(data["blocks"][0]["value"]))
        for label, data in found
        if label.startswith(SOFT_BINDING) and data.get("alg") in BY_ALGORITHM
    ]
    title = str(active.get("title") or "image")
    return Original(title, dict(found), marks[0] if marks else None)


def rendition_manifest(
    original: Original,
    done: Sequence[Done],
    when: datetime,
    source_type: str | None,
    bindings: Sequence[SoftBinding],
    *,
    embedded: bool,
    terms: UsageTerms | None = None,
    licences: Licences | None = None,
) -> dict[str, Any]:
    """The manifest definition of a rendition made at `when` (aware).

    `source_type` is the IPTC digital source type of the original (full URI). `embedded`: a
    watermark was embedded anew. `terms` are told in place of the original's, if given.
    """
    made_at = timestamp(when)
    agent = {"name": "Platemark", "version": platemark_version()}
    opened = {
        "action": "c2pa.opened",
        "when": made_at,
        "parameters": {"ingredientIds": [PARENT]},
    }
    actions = [
        {
            "action": action,
            "when": made_at,
            "softwareAgent": agent,
            "description": what,
            **({"digitalSourceType": source_type} if source_type else {}),
        }
        for action, what in done
    ]
    if embedded:
        actions += watermark_action(bindings, made_at)
    told = dict(original.assertions)
    if terms is not None and _METADATA in told:
        told[_METADATA] = _under(terms, told[_METADATA], licences)
    return {
        "claim_generator_info": [{**agent, "specVersion": SPEC_VERSION}],
        "title": f"{original.title}, rendition",
        "assertions": [
            {
                "label": "c2pa.actions.v2",
                "created": True,
                "data": {"allActionsIncluded": True, "actions": [opened, *actions]},
            },
            *(
                {"label": each, "created": True, "data": told[each]}
                for each in _CARRIED
                if each in told
            ),
            *({"label": each, "data": told[each]} for each in _GATHERED if each in told),
            *assertions(bindings),
        ],
    }


def _under(
    terms: UsageTerms, metadata: Mapping[str, Any], licences: Licences | None
) -> dict[str, Any]:
    """The descriptive fields with the licensing ones of `terms`, as pipeline/manifest.py has them:
    without structures and links."""
    kept = {name: value for name, value in metadata.items() if name not in (*LICENSING, "@context")}
    for name, value in licensing_fields(terms, licences).items():
        if not isinstance(value, Structures | Link):
            text = plain(value)
            safe = safe_text(text) if isinstance(text, str) else [safe_text(one) for one in text]
            kept[name] = safe
    used = sorted({name.partition(":")[0] for name in kept} & set(NAMESPACES))
    return {"@context": {prefix: NAMESPACES[prefix] for prefix in used}, **kept}
