"""Folders and packs, over all cores: every file gets its report, whatever one of them does."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.keys import Identity
from pipeline.seal import Sealed
from pipeline.trust import Trust, as_trust
from pipeline.verify import Depth, verify_file
from pipeline.verify_files import Item, files_in
from pipeline.verify_many import verify_all

COUNT = 24


@pytest.fixture
def trust(identity: Identity) -> Trust:
    return as_trust(identity.anchors)


@pytest.fixture
def folder(tmp_path: Path, sealed_of: Callable[..., Sealed]) -> Path:
    data = sealed_of().data
    images = tmp_path / "images"
    (images / "below").mkdir(parents=True)
    for number in range(COUNT):
        place = images / "below" if number % 2 else images
        changed = data[:-40] + bytes([data[-40] ^ 1]) + data[-39:]
        (place / f"{number:03}.png").write_bytes(changed if number % 5 == 0 else data)
    (images / "notes.txt").write_text("no image")
    (images / "empty.png").touch()
    return images


def test_a_folder_is_verified_as_its_files_are_alone(folder: Path, trust: Trust) -> None:
    reports = list(verify_all(files_in([folder]), trust, "pixels", workers=2))
    paths = sorted(folder.rglob("*.png"))
    assert [report.path for report in reports] == [str(path) for path in paths]
    assert reports == [verify_file(path, trust) for path in paths]
    assert sum(report.ok for report in reports) == COUNT - len(range(0, COUNT, 5))


@pytest.mark.parametrize("kind", ["zip", "stored zip", "tar", "tar.gz", "tgz"])
def test_a_pack_is_verified_without_unpacking(
    kind: str, folder: Path, trust: Trust, tmp_path: Path
) -> None:
    pack = tmp_path / f"pack.{kind.split()[-1]}"
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))
    if kind.endswith("zip"):
        method = zipfile.ZIP_STORED if kind.startswith("stored") else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(pack, "w", method) as archive:
            for name in names:
                archive.write(folder / name, name)
    else:
        with tarfile.open(pack, "w" if kind == "tar" else "w:gz") as packed:
            for name in names:
                packed.add(folder / name, name)
    found = {report.path: report for report in verify_all(files_in([pack]), trust, workers=1)}
    alone = [verify_file(folder / name, trust, "labels") for name in names if name[-4:] == ".png"]
    expected = {
        str(pack / Path(each.path).relative_to(folder)): (each.state, each.sha256, each.ok)
        for each in alone
    }
    assert {path: (each.state, each.sha256, each.ok) for path, each in found.items()} == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("broken.zip", b"PK\x03\x04 and no more"),
        ("empty.zip", b""),
        ("broken.tar", b"x" * 5_000),
        ("broken.tgz", b"\x1f\x8b\x08" + b"\0" * 50),
    ],
)
def test_a_pack_that_cannot_be_read_is_a_report(
    name: str, content: bytes, tmp_path: Path, trust: Trust
) -> None:
    (tmp_path / name).write_bytes(content)
    (report,) = verify_all(files_in([tmp_path / name]), trust, workers=1)
    assert not report.ok
    assert "is no readable pack" in str(report.error)


def test_a_cut_pack_tells_of_what_is_left(folder: Path, tmp_path: Path, trust: Trust) -> None:
    pack = tmp_path / "pack.tar"
    with tarfile.open(pack, "w") as packed:
        for path in sorted(folder.glob("*.png")):
            packed.add(path, path.name)
    pack.write_bytes(pack.read_bytes()[: pack.stat().st_size // 2])
    reports = list(verify_all(files_in([pack]), trust, workers=1))
    assert any(report.ok for report in reports)
    assert any(report.error for report in reports)


class Deadly(bytes):
    """Bytes that end whichever process receives them, as a crash of the native library would."""

    def __reduce__(self) -> Any:
        return os._exit, (11,)


def test_a_file_that_crashes_the_reader_is_named_and_stops_no_other(
    folder: Path, trust: Trust
) -> None:
    good = [Item(path) for path in sorted(folder.rglob("0*.png"))][:9]
    items = [*good[:7], replace(good[7], member="deadly", data=Deadly(b"x")), *good[8:]]
    reports = list(verify_all(items, trust, workers=2))
    assert [report.path for report in reports] == [str(item.name) for item in items]
    assert reports[7].error == "makes the reader crash"
    assert not reports[7].ok
    others = [report for place, report in enumerate(reports) if place != 7]
    assert others == [verify_file(item.path, trust, "labels") for item in good[:7] + good[8:]]


class Slow(bytes):
    """Bytes that hold up whichever process receives them."""

    def __reduce__(self) -> Any:
        import time

        return time.sleep, (60,)


def test_a_file_that_takes_too_long_is_given_up(folder: Path, trust: Trust) -> None:
    good = [Item(path) for path in sorted((folder / "below").glob("00[137].png"))]
    items = [good[0], Item(Path("x"), "slow", data=Slow(b"x")), *good[1:]]
    reports = list(verify_all(items, trust, workers=1, seconds=8))
    assert [report.ok for report in reports] == [True, False, True, True]
    assert reports[1].error == "took longer than 8 s"


def test_what_is_left_early_leaves_no_process_behind(folder: Path, trust: Trust) -> None:
    before = children()
    reports = verify_all(files_in([folder]), trust, workers=2)
    next(reports)
    assert len(children()) == len(before) + 2
    reports.close()
    assert children() == before


def children() -> list[str]:
    listed = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not listed.exists():
        pytest.skip("needs Linux")
    return listed.read_text().split()


@pytest.mark.parametrize(
    ("depth", "known"),
    [
        ("manifest", {"sha256": True, "labels": False, "decodes": None}),
        ("labels", {"sha256": True, "labels": True, "decodes": None}),
        ("pixels", {"sha256": True, "labels": True, "decodes": True}),
    ],
)
def test_a_depth_looks_at_no_more_than_it_says(
    depth: Depth, known: dict[str, Any], folder: Path, trust: Trust
) -> None:
    report = verify_file(folder / "below" / "001.png", trust, depth)
    assert report.ok
    assert bool(report.sha256) == known["sha256"]
    assert bool(report.labels) == known["labels"]
    assert report.decodes is known["decodes"]
    tampered = verify_file(folder / "000.png", trust, depth)
    assert (tampered.state, tampered.ok) == ("Invalid", False)
