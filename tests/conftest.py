"""What tests of several folders share: an isolated environment, and one real Prefect server."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from warm_platemark import Warm

# Before anything reads settings or imports Prefect: nothing of the developer's own counts here.
for name in [name for name in os.environ if name.startswith(("PLATEMARK_", "PREFECT_"))]:
    del os.environ[name]
_HOME = tempfile.mkdtemp(prefix="platemark-tests-")
Path(_HOME, "empty.toml").touch()
# Before anything imports torch: workers that run side by side would fight for the cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ["PLATEMARK_CONFIG"] = f"{_HOME}/empty.toml"
os.environ["PREFECT_HOME"] = f"{_HOME}/prefect"


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[str]:
    """The API address of a real Prefect server, which flows and commands then use."""
    from flows.environment import prepare_prefect
    from flows.serving import prefect_server
    from pipeline.settings import Settings

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        os.environ["PREFECT_SERVER_API_PORT"] = str(probe.getsockname()[1])
    settings = Settings(workspace=Path(_HOME) / "workspace")
    prepare_prefect(settings)
    with prefect_server(settings) as url:
        yield url


@pytest.fixture(scope="session")
def warm_platemark(prefect_api: str) -> Iterator[Warm]:
    """Starts commands that produce: a run has imported what it needs before it begins."""
    from warm_platemark import warm

    with warm(
        "flows.produce",
        "pipeline.generate.engine",
        "diffusers:StableDiffusionPipeline",
        "diffusers:AutoPipelineForText2Image",
        "diffusers:AutoencoderTiny",
        "diffusers:UNet2DConditionModel",
        "diffusers.guiders",
        "transformers:CLIPTextModel",
        "transformers:CLIPTokenizer",
        "open_clip",
        "duckdb",
        "c2pa",
    ) as started:
        yield started


POLICIES = {
    # No model needed; what comes out is known beforehand.
    "plain": "rules:\n- {check: quality, score: decodes, block: {below: 1}}\n",
    "held": "rules:\n- {check: quality, score: sharpness, review: {at_least: 0}}\n",
    "barred": "rules:\n- {check: quality, score: sharpness, block: {at_least: 0}}\n",
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a brief of three items (`brief.yaml`) and the policies above."""
    monkeypatch.chdir(tmp_path)
    for name, rules in POLICIES.items():
        (tmp_path / f"{name}.yaml").write_text(
            f"policy: {name}\nversion: '1'\nchecks: {{quality: {{}}, duplicates: {{}}}}\n"
            f"licences: [Apache-2.0]\n{rules}"
        )
    (tmp_path / "items.csv").write_text("sku,thing\nA,red mug\nB,blue vase\nC,green lamp\n")
    (tmp_path / "brief.yaml").write_text(
        "template: 'a {{ thing }} on a white background'\nitems: items.csv\nsteps: 2\n"
        "client: Acme\ncampaign: spring\n"
        "terms: {id: t1, licensor: Acme, expires: 2099-12-31, channels: [web]}\n"
    )
    return tmp_path


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models file of small random checkpoints, one of every family (tests/small_models.py)."""
    import small_models

    return small_models.build(tmp_path_factory.mktemp("small-models"))
