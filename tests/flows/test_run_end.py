"""The ledger's key is looked at before a run, and what stopped a run is what people are told."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from catalog.lake import reading
from flows.production import open_production
from pipeline.errors import SetupError
from pipeline.plan import Plan, make_plan
from pipeline.settings import Settings


@pytest.fixture
def settings(shop: Path, small_models: Path) -> Settings:
    return Settings(workspace=shop / "ws", models=small_models, batch_size=2, device="cpu")


def planned(settings: Settings, shop: Path) -> Plan:
    brief = shop / "one.yaml"
    item = {"sku": "A", "prompt": "a red mug", "model": "sd1", "steps": 1}
    brief.write_text(yaml.safe_dump({"items": [item]}))
    return make_plan(settings, brief, "plain.yaml")


def break_key(settings: Settings) -> None:
    (settings.root / "ledger").mkdir(parents=True, exist_ok=True)
    (settings.root / "ledger" / "key.pem").write_text("no key")


def test_an_unusable_ledger_key_stops_a_run_before_it_is_recorded(
    settings: Settings, shop: Path
) -> None:
    plan = planned(settings, shop)
    break_key(settings)

    with (
        pytest.raises(SetupError, match=r"the ledger's key .* is unusable"),
        open_production(settings, plan),
    ):
        pytest.fail("the run began")

    with reading(settings.catalog) as lake:
        assert lake.rows("SELECT * FROM runs") == []


@pytest.mark.parametrize("stop", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_what_stopped_a_run_is_told_though_its_end_cannot_be_signed(
    settings: Settings, shop: Path, stop: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    plan = planned(settings, shop)

    with pytest.raises(type(stop)) as caught, open_production(settings, plan):
        break_key(settings)
        raise stop

    assert caught.value is stop
    assert "the ledger's key" in caplog.text
    with reading(settings.catalog) as lake:
        (run,) = lake.rows("SELECT status FROM runs")
    assert run["status"] == ("failed" if isinstance(stop, Exception) else "interrupted")
