"""The ledger is signed at the end of a run, with a time stamp where an authority is configured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from timestamp_authority import TimestampAuthority, timestamp_authority

from catalog.lake import reading
from catalog.ledger_checkpoints import recorded
from catalog.ledger_notes import opened, signer_in
from flows.production import open_production
from pipeline import timestamps
from pipeline.plan import make_plan
from pipeline.settings import Settings


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[TimestampAuthority]:
    with timestamp_authority(tmp_path / "tsa") as serving:
        yield serving
    timestamps._out_until.clear()


@pytest.mark.parametrize("is_out", [False, True])
def test_a_run_ends_with_a_stamp_or_a_warning(
    authority: TimestampAuthority,
    shop: Path,
    small_models: Path,
    caplog: pytest.LogCaptureFixture,
    is_out: bool,
) -> None:
    settings = Settings(
        workspace=shop / "ws",
        models=small_models,
        batch_size=2,
        device="cpu",
        signing={"timestamp_url": authority.url},
    )
    brief = shop / "one.yaml"
    item = {"sku": "A", "prompt": "a red mug", "model": "sd1", "steps": 1}
    brief.write_text(yaml.safe_dump({"items": [item]}))

    with open_production(settings, make_plan(settings, brief, "plain.yaml")):
        authority.mood = "refuses" if is_out else "serves"

    with reading(settings.catalog) as lake:
        (_, _, note) = recorded(lake.connection)[-1]
    said = opened(note, [signer_in(settings.root / "ledger").verifier])
    assert said.occasion.startswith("run ")
    assert bool(said.stamp) is not is_out
    warned = f"has no time stamp of {authority.url}" in caplog.text
    assert warned is is_out
