"""A real DuckLake in a temporary folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.lake import Lake, writing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a catalog may lie; there is none yet."""
    return tmp_path / "catalog"


@pytest.fixture(scope="session")
def empty_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: a catalog can be copied as a folder."""
    made = tmp_path_factory.mktemp("empty") / "catalog"
    with writing(made):
        pass
    return made


@pytest.fixture
def lake(folder: Path, empty_catalog: Path) -> Iterator[Lake]:
    shutil.copytree(empty_catalog, folder)
    with writing(folder) as opened:
        yield opened
