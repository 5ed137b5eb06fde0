"""Packs held to their SHA256SUMS, folders that hide something, on the command line."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from pipeline.keys import Identity
from pipeline.seal import Sealed
from pipeline.settings import Settings
from pipeline.verify_files import files_in
from pipeline.verify_sums import SUMS, Packs
from platemark import verify_commands

app = typer.Typer()
verify_commands.register(app)
Files = dict[str, bytes]


@pytest.fixture
def files(sealed_of: Callable[..., Sealed]) -> Files:
    """A pack's files: two signed images, and papers, one of which is an unsigned image."""
    signed = [sealed_of(seed=seed).data for seed in (1, 2)]
    made = {"images/a.png": signed[0], "images/b.png": signed[1], "LICENSE.txt": b"as agreed"}
    made |= {"contact-sheet.jpg": b"\xff\xd8\xff no manifest", "pack.json": b"{}"}
    return made | {SUMS: sums_of(made)}


def sums_of(files: Files) -> bytes:
    return "".join(
        f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items())
    ).encode()


def packed(kind: str, files: Files, root: Path) -> Path:
    path = root / f"pack.{kind}" if kind != "folder" else root / "pack"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    elif kind == "folder":
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    else:
        staged = packed("folder", files, root / "staged")
        with tarfile.open(path, "w" if kind == "tar" else "w:gz") as archive:
            for name in files:
                archive.add(staged / name, name)
    return path


def run(path: Path, identity: Identity) -> tuple[int, dict[str, dict[str, Any]]]:
    with tempfile.TemporaryDirectory() as scratch:
        roots = Path(scratch) / "roots.pem"
        roots.write_bytes(identity.anchors)
        # A workspace of somebody else's: nothing but the roots is known there.
        elsewhere = Settings(workspace=Path(scratch) / "ws").root
        done = CliRunner().invoke(
            app, ["verify", str(path), "--trust", str(roots), "-w", str(elsewhere), "--json"]
        )
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    rows = {row["path"].removeprefix(f"{path}/"): row for row in json.loads(done.output)}
    return done.exit_code, rows


def nothing(files: Files) -> None:
    pass


def swapped(files: Files) -> None:
    files["images/a.png"] = files["images/b.png"]


def removed(files: Files) -> None:
    del files["images/b.png"]


def added(files: Files) -> None:
    files["images/c.png"] = files["images/a.png"]


def other_licence(files: Files) -> None:
    files["LICENSE.txt"] = b"all rights to everybody"


def no_licence(files: Files) -> None:
    del files["LICENSE.txt"]


def other_sheet(files: Files) -> None:
    files["contact-sheet.jpg"] += b"x"


def put_in(files: Files) -> None:
    files["images/READ-ME.html"] = b"<script>"


def torn_sums(files: Files) -> None:
    files[SUMS] += b"not a line\n"


LISTED = f"its bytes are not those that {SUMS} lists"


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "folder"])
@pytest.mark.parametrize(
    ("harm", "name", "told"),
    [
        (nothing, None, ""),
        # Both are signed and Trusted: only the sums tell that they changed places.
        (swapped, "images/a.png", LISTED),
        (removed, "images/b.png", "it is missing"),
        (added, "images/c.png", "does not list it"),
        (other_licence, "LICENSE.txt", LISTED),
        (no_licence, "LICENSE.txt", "it is missing"),
        (other_sheet, "contact-sheet.jpg", LISTED),
        (put_in, "images/READ-ME.html", "does not list it"),
        (torn_sums, SUMS, "no check sums"),
    ],
)
def test_a_pack_is_held_to_its_check_sums(
    kind: str,
    harm: Callable[[Files], None],
    name: str | None,
    told: str,
    files: Files,
    identity: Identity,
    tmp_path: Path,
) -> None:
    harm(files)
    path = packed(kind, files, tmp_path)
    reports = Packs([path])
    # Without the crew of processes: the sums alone.
    for item in files_in([path]):
        if item.name.suffix == ".png":
            inside = item.name.relative_to(path).as_posix()
            sha256 = hashlib.sha256(files[inside]).hexdigest()
            fault = reports.fault_of(item.name, sha256)
            assert (fault is not None) == (inside == name), inside
            assert told in (fault or told)
    rest = {Path(each.path).relative_to(path).as_posix(): each for each in reports.rest()}
    if name is None or name.endswith(("a.png", "c.png")):
        assert not rest
    else:
        assert set(rest) == {name} and told in str(rest[name].error)


@pytest.mark.parametrize(("kind", "harm", "code"), [("zip", nothing, 0), ("folder", swapped, 1)])
def test_verify_says_so(
    kind: str, harm: Callable[[Files], None], code: int, files: Files, identity: Identity,
    tmp_path: Path,
) -> None:  # fmt: skip
    harm(files)
    found, rows = run(packed(kind, files, tmp_path), identity)
    assert (found, set(rows)) == (code, {"images/a.png", "images/b.png"})
    assert [row["state"] for row in rows.values()] == ["Trusted", "Trusted"]
    assert [row["sums"] for row in rows.values()] == [LISTED if code else None, None]


def test_an_image_that_the_sums_list_elsewhere_is_verified_all_the_same(
    files: Files, identity: Identity, tmp_path: Path
) -> None:
    del files[SUMS]
    files["fakes/c.jpg"] = files["contact-sheet.jpg"]
    files[SUMS] = sums_of(files)
    code, rows = run(packed("zip", files, tmp_path), identity)
    assert code == 1 and rows["fakes/c.jpg"]["state"] == "None"


@pytest.mark.parametrize(("harm", "code"), [(nothing, 0), (other_licence, 1)])
def test_a_tar_of_the_folder_itself_is_held_to_its_sums(
    harm: Callable[[Files], None], code: int, files: Files, identity: Identity, tmp_path: Path
) -> None:
    harm(files)
    folder = packed("folder", files, tmp_path)
    with tarfile.open(tmp_path / "pack.tar", "w") as archive:
        archive.add(folder, ".")
    found, rows = run(tmp_path / "pack.tar", identity)
    assert found == code
    assert ("LICENSE.txt" in rows) == bool(code)


def test_sums_lead_nowhere_out_of_their_folder(files: Files, tmp_path: Path) -> None:
    outside = tmp_path / "notes.txt"
    outside.write_bytes(b"mine")
    digest = hashlib.sha256(b"mine").hexdigest()
    files[SUMS] += f"{digest}  {outside}\n{digest}  ../notes.txt\n".encode()
    told = list(Packs([packed("folder", files, tmp_path)]).rest())
    assert [each.error for each in told[-2:]] == [f"{SUMS} lists it, and it is missing"] * 2


def test_only_what_people_put_into_a_pack_is_told(files: Files, tmp_path: Path) -> None:
    path = packed("folder", files, tmp_path)
    packed("folder", files, path)  # a pack inside, with sums of its own
    (path / "images" / ".DS_Store").write_bytes(b"of a file manager")
    assert not [each for each in Packs([path]).rest() if "missing" not in str(each.error)]
    (path / "offer.exe").write_bytes(b"MZ")
    told = [(each.path, each.error) for each in Packs([path]).rest()]
    assert (f"{path}/offer.exe", f"{SUMS} does not list it") in told


def test_a_link_in_a_tar_is_told(files: Files, tmp_path: Path) -> None:
    path = packed("tar", files, tmp_path)
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("images/b.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    told = [each.path for each in Packs([path]).rest() if "not list" in str(each.error)]
    assert told == [f"{path}/images/b.jpg"]


def test_a_pack_inside_a_folder_is_looked_into_and_held_to_its_sums(
    files: Files, identity: Identity, tmp_path: Path
) -> None:
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    other_licence(files)
    path = packed("zip", files, tmp_path / "in" / "deeper")
    code, rows = run(tmp_path / "in", identity)
    inside = f"deeper/{path.name}"
    assert code == 1
    assert rows[f"{inside}/images/a.png"]["state"] == "Trusted"
    assert rows[f"{inside}/LICENSE.txt"]["error"] == LISTED


@pytest.fixture
def secret() -> Iterator[Path]:
    """A folder with one below it that may not be listed, also where root runs the tests."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "a.png").touch()
        (root / "hidden").mkdir()
        (root / "hidden" / "b.png").touch()
        (root / "hidden").chmod(0)
        mine = os.geteuid()
        if mine == 0:
            os.seteuid(65534)
        try:
            yield root
        finally:
            if mine == 0:
                os.seteuid(0)
            (root / "hidden").chmod(0o700)


@pytest.mark.skipif(sys.platform == "win32", reason="its folders have no such rights")
def test_a_folder_that_cannot_be_listed_is_told(secret: Path) -> None:
    found = [(item.path.name, item.fault) for item in files_in([secret])]
    assert found == [("a.png", None), ("hidden", "cannot be listed: Permission denied")]


def test_the_sums_of_strangers_bind_only_what_they_list(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "b.png").write_bytes(b"b")
    listed = f"{hashlib.sha256(b'a').hexdigest()} *a.png\n"
    (tmp_path / SUMS).write_text(listed)
    packs = Packs([tmp_path])
    assert packs.fault_of(tmp_path / "b.png", "0" * 64) is None
    assert packs.fault_of(tmp_path / "a.png", "0" * 64) == LISTED
    assert not list(packs.rest())


def test_sums_that_cannot_be_read_are_told(files: Files, tmp_path: Path) -> None:
    path = packed("zip", files, tmp_path)
    data = bytearray(path.read_bytes())
    place = data.index(b"as agreed")
    data[place] ^= 1
    path.write_bytes(data)
    (report,) = Packs([path]).rest()
    assert Path(report.path).name == SUMS and "cannot be read: Bad CRC-32" in str(report.error)
