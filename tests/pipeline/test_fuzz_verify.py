"""Damaged files through verify, in worker processes: no crash, no hang, nothing forged.

The long run is `python -m bench.fuzz`.

A find is repeated with `mutant(file, kind, seed)`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import DAMAGES, mutant, text_mutant

from pipeline.brief import load_brief
from pipeline.errors import PlatemarkError
from pipeline.images import decode_limited
from pipeline.keys import Identity
from pipeline.seal import Sealed
from pipeline.trust import as_trust
from pipeline.verify import Report, verify_bytes
from pipeline.verify_files import Item
from pipeline.verify_many import verify_all

FORMATS = ("jpeg", "png", "webp")
EACH = 12
"""Mutants of each kind of damage and format."""


@pytest.fixture
def files(sealed_of: Callable[..., Sealed]) -> dict[str, bytes]:
    return {fmt: sealed_of(fmt).data for fmt in FORMATS}


def told(report: Report) -> dict[str, Any]:
    return {**report.as_json(), "sha256": None, "size": None}


def test_no_damage_crashes_hangs_or_passes(files: dict[str, bytes], identity: Identity) -> None:
    items = [
        Item(Path(fmt), f"{kind}-{seed}", data=mutant(files[fmt], kind, seed))
        for fmt in FORMATS
        for kind in DAMAGES
        for seed in range(EACH)
    ]
    reports = list(verify_all(items, as_trust(identity.anchors), "pixels", 2, seconds=20))
    assert [report.path for report in reports] == [str(item.name) for item in items]
    for item, report in zip(items, reports, strict=True):
        assert "crash" not in str(report.error), report.path
        assert "longer than" not in str(report.error), report.path
        if report.ok:
            # Sizes and flags of boxes are in no hash (C2PA 2.4, 13.1); what they hold is.
            whole = verify_bytes(files[str(item.path)], item.name, identity.anchors)
            assert told(report) == told(whole), report.path
            seen, made = (
                decode_limited(each) for each in (item.data or b"", files[str(item.path)])
            )
            assert np.array_equal(seen, made), report.path
        json.dumps(report.as_json())


BRIEF = """client: Acme
campaign: spring
template: "a {{ colour }} {{ object }}"
model: starter
count: 2
items: items.csv
terms: {id: acme, licensor: Acme, channels: [web], expires: 2099-12-31}
"""
TABLES = {
    "items.csv": "sku,object,colour\nA,mug,red\nB,lamp,\"blue, dark\"\n",
    "items.jsonl": '{"sku": "A", "object": "mug", "colour": "red"}\n{"sku": "B", "object": 1}\n',
    "items.yaml": "- {sku: A, object: mug, colour: red}\n- {sku: B, object: lamp}\n",
}  # fmt: skip


@settings(
    max_examples=150, deadline=5_000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), table=st.sampled_from(sorted(TABLES)), head=st.booleans())
def test_no_brief_makes_a_traceback(seed: int, table: str, head: bool, tmp_path: Path) -> None:
    brief = BRIEF.replace("items.csv", table)
    (tmp_path / table).write_bytes(
        TABLES[table].encode() if head else text_mutant(TABLES[table], seed)
    )
    (tmp_path / "brief.yaml").write_bytes(text_mutant(brief, seed) if head else brief.encode())
    try:
        load_brief(tmp_path / "brief.yaml")
    except PlatemarkError as error:
        assert str(error)
