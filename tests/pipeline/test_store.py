"""The store: whole files or none, and what a crash leaves behind is finished or dropped."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import SetupError
from pipeline.settings import Settings
from pipeline.store import path_of, place, settle, stage, write_file


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(workspace=tmp_path / "ws")


def test_a_file_is_invisible_until_placed_and_then_named_by_its_hash(settings: Settings) -> None:
    sha256, url = stage(settings, "assets", b"pixels", "image/png")
    assert sha256 == hashlib.sha256(b"pixels").hexdigest()
    assert not settings.assets.exists()
    place(settings, [url])
    assert path_of(settings, url).read_bytes() == b"pixels"
    assert path_of(settings, url) == settings.assets / sha256[:2] / f"{sha256}.png"


def test_threads_may_stage_equal_files_at_once(settings: Settings) -> None:
    with ThreadPoolExecutor(8) as threads:
        for number in range(20):
            data = bytes([number]) * 1000
            staged = list(
                threads.map(lambda _: stage(settings, "quarantine", data, "image/png"), range(8))  # noqa: B023
            )
            place(settings, [url for _, url in staged])
            assert path_of(settings, staged[0][1]).read_bytes() == data


def test_equal_files_are_placed_once(settings: Settings) -> None:
    urls = [stage(settings, "quarantine", b"same", "image/png")[1] for _ in range(2)]
    place(settings, urls)
    place(settings, urls)
    assert path_of(settings, urls[0]).read_bytes() == b"same"


def test_after_a_crash_catalogued_files_are_placed_and_others_dropped(settings: Settings) -> None:
    kept, kept_url = stage(settings, "assets", b"committed", "image/webp")
    _, lost_url = stage(settings, "assets", b"not committed", "image/jpeg")
    half = settings.root / "staging" / "assets" / "abc.png.99.part"
    half.write_bytes(b"half")
    assert settle(settings, lambda shas: {kept} & set(shas)) == (1, 2)
    assert path_of(settings, kept_url).read_bytes() == b"committed"
    assert not path_of(settings, lost_url).exists()
    assert not [path for path in (settings.root / "staging").rglob("*") if path.is_file()]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "inside").write_text("old")
    with pytest.raises(SetupError, match="cannot write"):
        write_file(target, b"new")
    assert (target / "inside").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
