"""Renditions in the catalog: recorded before they are placed, proven, found again, stamped."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from catalog_samples import TERMS
from pack_samples import studio
from PIL import Image
from timestamp_authority import TimestampAuthority, timestamp_authority
from typer import Typer
from typer.testing import CliRunner

from catalog.export import export
from catalog.lake import reading, writing
from catalog.ledger import place_of
from catalog.ledger_notes import verifier_in
from catalog.ledger_proof import check_proof, proofs_of
from catalog.pack import Pack
from catalog.read import knows
from catalog.recover import recover
from catalog.renditions import catalogued_renditions
from catalog.stamp import owed, stamp_files
from pipeline import timestamps
from pipeline.images import RgbImage
from pipeline.keys import trust_anchors
from pipeline.settings import Settings
from pipeline.store import path_of, settle, sha256_of
from pipeline.verify import verify_bytes
from platemark import verify_commands

CHANNEL = """
channel: own
title: Own
delivery: {format: jpeg}
sources:
  a: {page: 'https://a.example', checked: 2026-01-01}
rules:
  - {measure: format, one_of: [jpeg], source: a}
"""


def scene(number: int = 0) -> RgbImage:
    """A smooth picture, in which a watermark can be read."""
    across, down = np.linspace(20, 200, 200)[None, :, None], np.linspace(0, 40, 160)[:, None, None]
    return (across + down + np.array([0, 5 * number, 10])).clip(0, 250).astype(np.uint8)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = Settings(workspace=tmp_path / "ws")
    studio(found, [("MUG-1", scene())])
    return found


@pytest.fixture(scope="session")
def channel(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("channel") / "own.yaml"
    path.write_text(CHANNEL)
    return str(path)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, channel: str) -> tuple[Settings, Pack]:
    """A workspace and a pack of one rendition, for those who only look."""
    root = tmp_path_factory.mktemp("exported")
    found = Settings(workspace=root / "ws")
    studio(found, [("MUG-1", scene())])
    return found, export(found, root / "a.zip", channel=channel)


def images_in(pack: Pack) -> dict[str, bytes]:
    with zipfile.ZipFile(pack.path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if "images/" in name}


def only(pack: Pack) -> bytes:
    (data,) = images_in(pack).values()
    return data


def file_of(settings: Settings, data: bytes) -> Path:
    with reading(settings.catalog) as lake:
        (row,) = lake.rows("SELECT url FROM renditions WHERE sha256 = ?", [sha256_of(data)])
    return path_of(settings, row["url"])


KILLED = """
import os, signal, sys, threading
from pathlib import Path
from catalog.export import export
from pipeline.settings import Settings
root = Path(sys.argv[1])
before = set(root.glob("assets/*/*"))
def watch():
    while True:
        staged = [each for each in root.glob("staging/assets/*.jpg")]
        if staged or set(root.glob("assets/*/*.jpg")) - before:
            os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
export(Settings(workspace=root), sys.argv[2], channel=sys.argv[3])
"""


def test_a_killed_export_leaves_no_file_that_the_catalog_does_not_know(
    settings: Settings, channel: str, tmp_path: Path
) -> None:
    out = tmp_path / "a.zip"
    command = [sys.executable, "-c", KILLED, settings.root, out, channel]
    subprocess.run(list(map(str, command)), capture_output=True, timeout=120)
    with reading(settings.catalog) as lake:
        rows = lake.rows("SELECT sha256 FROM assets UNION ALL SELECT sha256 FROM renditions")
    known = {row["sha256"] for row in rows}
    assert {path.stem for path in settings.assets.glob("*/*")} <= known
    again = export(settings, tmp_path / "b.zip", channel=channel)
    assert verify_bytes(only(again), Path("a"), trust_anchors(settings)).ok


def test_a_rendition_that_was_recorded_and_not_placed_is_known_and_placed(
    settings: Settings, channel: str, tmp_path: Path
) -> None:
    first = export(settings, tmp_path / "a.zip", channel=channel)
    placed = file_of(settings, only(first))
    staged = settings.root / "staging" / "assets" / placed.name
    placed.rename(staged)
    again = export(settings, tmp_path / "b.zip", channel=channel)
    assert again.sha256 == first.sha256 and placed.is_file()
    placed.rename(staged)
    with reading(settings.catalog) as lake:

        def known(sha256s: list[str]) -> set[str]:
            return {*knows(lake, sha256s), *catalogued_renditions(lake, sha256s)}

        assert settle(settings, known) == (1, 0)
    assert placed.is_file()


def test_an_altered_rendition_is_made_again(
    settings: Settings, channel: str, tmp_path: Path
) -> None:
    first = only(export(settings, tmp_path / "a.zip", channel=channel))
    file_of(settings, first).write_bytes(first[:-1] + b"x")
    pack = export(settings, tmp_path / "b.zip", channel=channel)
    assert pack.images == 1 and only(pack) != first
    assert verify_bytes(only(pack), Path("a"), trust_anchors(settings)).ok


def test_a_stripped_rendition_is_recovered(exported: tuple[Settings, Pack]) -> None:
    settings, pack = exported
    data = only(pack)
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).save(out, "JPEG", quality=80)
    with reading(settings.catalog) as lake:
        found = recover(lake, out.getvalue())
        (row,) = lake.rows("SELECT request_id FROM images")
    assert sha256_of(data) in {each.asset_sha256 for each in found.matches}
    assert {each.request_id for each in found.matches} == {row["request_id"]}


def test_the_pack_proves_its_renditions(exported: tuple[Settings, Pack]) -> None:
    settings, pack = exported
    sha256 = sha256_of(only(pack))
    with zipfile.ZipFile(pack.path) as archive:
        proofs = proofs_of(json.loads(archive.read("proofs.json")))
    verifier = verifier_in(place_of(settings))
    assert verifier and set(proofs) == {sha256}
    assert check_proof(proofs[sha256], sha256, [verifier]).asset_sha256 == sha256


def test_verify_knows_a_rendition(exported: tuple[Settings, Pack], tmp_path: Path) -> None:
    settings, pack = exported
    path = tmp_path / "mug.jpg"
    path.write_bytes(only(pack))
    app = Typer()
    verify_commands.register(app)
    done = CliRunner().invoke(app, ["verify", str(path), "-w", str(settings.root), "--json"])
    (row,) = json.loads(done.output)
    assert done.exit_code == 0
    assert (row["catalog"]["sku"], row["catalog"]["state"]) == ("MUG-1", "signed")


def test_each_terms_have_a_rendition_that_says_them(
    settings: Settings, channel: str, tmp_path: Path
) -> None:
    packs = {}
    for name in ("acme", "rival"):
        terms = tmp_path / f"{name}.yaml"
        terms.write_text(
            f"id: {name}\nlicensor: {TERMS['licensor']}\nlicensee: {name}\nexpires: 2029-01-01\n"
            f"credit: Studio for {name}\n"
        )
        packs[name] = export(
            settings, tmp_path / f"{name}.zip", "true", str(terms), channel=channel
        )
    for name, pack in packs.items():
        report = verify_bytes(only(pack), Path(name), trust_anchors(settings))
        assert report.ok
        assert report.labels["photoshop:Credit"] == f"Studio for {name}"
        assert report.labels["plus:LicenseEndDate"] == "2029-01-01"


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[TimestampAuthority]:
    with timestamp_authority(tmp_path / "tsa") as serving:
        yield serving
    timestamps._out_until.clear()


def test_a_rendition_of_an_outage_is_owed_its_time_stamp_and_gets_it(
    authority: TimestampAuthority, channel: str, tmp_path: Path
) -> None:
    signing = {"timestamp_url": authority.url}
    settings = Settings(workspace=tmp_path / "ws", signing=signing)
    studio(settings, [("MUG-1", scene())])
    timestamps.note_outage(authority.url)
    data = only(export(settings, tmp_path / "a.zip", channel=channel))
    timestamps._out_until.clear()
    with writing(settings.catalog) as lake:
        assert owed(lake) == [sha256_of(data)]
        done = stamp_files(settings, lake, owed(lake))
        assert (list(done.files), done.failed, owed(lake)) == ([sha256_of(data)], (), [])
    later = only(export(settings, tmp_path / "b.zip", channel=channel))
    assert sha256_of(later) == done.files[sha256_of(data)]
    report = verify_bytes(later, Path("b"), trust_anchors(settings))
    assert report.ok and report.time_stamp
