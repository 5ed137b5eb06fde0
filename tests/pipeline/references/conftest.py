"""An index of inverted lists, built once, and copies of it to change."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from index_samples import MODEL, D, clustered

from pipeline.references.index import VectorIndex
from pipeline.references.rebuild import rebuild


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """FAISS shares torch's OpenMP: a rebuild's threads would stay torch's for all later tests."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inverted lists of 12,000 vectors with ids 0, 10, 20 …; copied by the tests that change it."""
    folder = tmp_path_factory.mktemp("built") / "index"
    index = VectorIndex.create(folder, D, MODEL, exact_up_to=1_000)
    index.add(clustered(12_000), np.arange(12_000) * 10)
    rebuild(folder, threads=1)
    return folder


@pytest.fixture
def lists(built: Path, folder: Path) -> Path:
    return Path(shutil.copytree(built, folder))
