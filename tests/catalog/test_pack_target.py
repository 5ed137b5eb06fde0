from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tracemalloc
import uuid
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pack_samples import product, studio

from catalog.export import export
from catalog.lake import reading
from catalog.ledger_proof import proofs_of
from catalog.pack_copy import Unreadable, copy_file, write_file
from catalog.pack_target import Target, open_target
from catalog.verified import proven_by_hash
from pipeline.errors import BusyError, InputError
from pipeline.keys import trust_anchors
from pipeline.settings import Settings
from pipeline.store import path_of
from pipeline.verify import Report, verify_signature
from pipeline.verify_sums import SUMS

FILES = [(f"images/{n:02d}-{'x' * (n * 9)}.bin", os.urandom(900 + n)) for n in range(12)]
WHOLE = [*FILES, (SUMS, b"sums")]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write(target: Target, files: list[tuple[str, bytes]]) -> int:
    """Adds the files that the target does not hold yet; how many it held."""
    held = 0
    for name, data in files:
        if target.holds(name, sha256(data), len(data)):
            held += 1
        else:
            target.add(name, data, sha256(data))
    return held


def finish(out: str, files: list[tuple[str, bytes]] = WHOLE, plan: str = "plan") -> tuple[int, str]:
    target = open_target(out, plan)
    held = write(target, files)
    digest, _ = target.complete()
    target.publish()
    return held, digest


def interrupt(out: str, files: list[tuple[str, bytes]], plan: str = "plan") -> None:
    target = open_target(out, plan)
    write(target, files)
    target.close()


def content(path: Path) -> dict[str, bytes]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            return {name: archive.read(name) for name in archive.namelist()}
    if path.suffix == ".tar":
        with tarfile.open(path) as archive:
            return {each.name: archive.extractfile(each).read() for each in archive}  # type: ignore[union-attr]
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize("name", ["pack.zip", "pack.tar", "pack"])
def test_a_pack_shows_only_when_it_is_whole(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    interrupt(str(out), FILES[:5])
    assert not out.exists()
    held, _ = finish(str(out))
    assert held == 5
    assert content(out) == dict(WHOLE)
    assert [each.name for each in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["pack.zip", "pack.tar"])
@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 14_000), harm=st.none() | st.integers(0, 14_000))
@example(cut=944, harm=4)
@example(cut=1536, harm=155)
def test_any_part_of_an_archive_is_taken_up_to_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, name: str, cut: int, harm: int | None
) -> None:
    folder = tmp_path_factory.mktemp("part")
    finish(str(folder / f"whole-{name}"))
    interrupt(str(folder / name), FILES)
    part = folder / f".{name}.part"
    data = bytearray(part.read_bytes()[:cut])
    if harm is not None and harm < len(data):
        data[harm] ^= 1  # what a power cut may leave
    part.write_bytes(data)
    finish(str(folder / name))
    assert (folder / name).read_bytes() == (folder / f"whole-{name}").read_bytes()


@pytest.mark.parametrize("past_cache", [True, False])
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9000) | st.sampled_from([1 << 20, (1 << 20) + 1, (2 << 20) - 1, 2 << 20]))
def test_a_copy_has_the_bytes_that_were_hashed(
    tmp_path_factory: pytest.TempPathFactory, past_cache: bool, size: int
) -> None:
    folder = tmp_path_factory.mktemp("copy")
    data = os.urandom(size)
    (folder / "source").write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        if not past_cache:
            patch.setattr(os, "open", _open_as_some_disks_do)
        assert copy_file(folder / "source", folder / "copy") == (sha256(data), size)
        write_file(data, folder / "written")
    assert (folder / "copy").read_bytes() == (folder / "written").read_bytes() == data


_really_open = os.open


def _open_as_some_disks_do(path: Any, flags: int, mode: int = 0o777) -> int:
    if flags & os.O_DIRECT:
        raise OSError(errno.EINVAL, "Invalid argument")
    return _really_open(path, flags, mode)


def test_a_copy_that_finds_no_room_is_no_fault_of_its_source(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 5000)
    with pytest.raises(OSError, match="No space left"):
        copy_file(tmp_path / "source", Path("/dev/full"))
    with pytest.raises(Unreadable, match="No such file"):
        copy_file(tmp_path / "missing", tmp_path / "copy")


def test_what_was_copied_counts_as_soon_as_it_is_held(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"picture")
    out = tmp_path / "pack"
    target = open_target(str(out), "plan")
    assert target.copy
    for name in ("images/a.bin", "images/refused.bin"):
        assert target.copy(name, tmp_path / "source") == sha256(b"picture")
    assert target.holds("images/a.bin", sha256(b"picture"), 7)
    assert not target.holds("images/refused.bin", sha256(b"another"), 7)
    target.close()
    (tmp_path / ".pack.part" / "images" / "a.bin").write_bytes(b"half")
    target = open_target(str(out), "plan")
    assert target.copy and target.copy("images/a.bin", tmp_path / "source") == sha256(b"picture")
    assert target.holds("images/a.bin", sha256(b"picture"), 7)
    target.add(SUMS, b"sums", sha256(b"sums"))
    assert target.complete() == (sha256(b"sums"), 11)
    target.publish()
    assert content(out) == {"images/a.bin": b"picture", SUMS: b"sums"}


@pytest.mark.parametrize(
    ("name", "lies_there"), [("pack", "file"), ("pack", "folder"), ("pack.zip", "folder")]
)
def test_what_is_no_pack_is_refused_before_anything_is_written(
    tmp_path: Path, name: str, lies_there: str
) -> None:
    out = tmp_path / name
    if lies_there == "folder":
        out.mkdir()
        (out / "notes.txt").write_bytes(b"mine")
    else:
        out.write_bytes(b"mine")
    with pytest.raises(InputError, match="something else lies there"):
        open_target(str(out), "plan")
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_an_empty_folder_becomes_the_pack(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    finish(str(tmp_path / "pack"))
    assert content(tmp_path / "pack") == dict(WHOLE)


@pytest.mark.parametrize("name", ["pack.zip", "pack"])
def test_an_export_that_ends_just_now_is_not_written_into(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / name
    first = open_target(str(out), "plan")
    write(first, WHOLE)
    first.complete()
    really_lock = fcntl.flock

    def ends_between_opening_and_locking(stream: Any, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", really_lock)
        first.publish()
        really_lock(stream, how)

    monkeypatch.setattr(fcntl, "flock", ends_between_opening_and_locking)
    with pytest.raises(BusyError, match="another export writes"):
        open_target(str(out), "other plan")
    assert content(out) == dict(WHOLE)


def test_a_folder_is_taken_up_file_by_file(tmp_path: Path) -> None:
    out = tmp_path / "pack"
    interrupt(str(out), [*FILES[:5], ("stale.txt", b"of another export")])
    (tmp_path / ".pack.part" / FILES[2][0]).write_bytes(b"half")
    assert finish(str(out))[0] == 4
    assert content(out) == dict(WHOLE)


def test_a_store_is_taken_up_where_the_same_export_stopped(tmp_path: Path) -> None:
    out = f"memory://{uuid.uuid4()}/pack"
    interrupt(out, FILES[:5])
    assert finish(out)[0] == 5
    assert finish(out)[0] == len(FILES)  # the finished pack stays as it is
    other = f"memory://{uuid.uuid4()}/pack"
    interrupt(other, FILES[:5], plan="another")
    assert finish(other)[0] == 0


def test_half_an_object_of_a_store_is_put_again(tmp_path: Path) -> None:
    out = f"file://{tmp_path}/pack"
    interrupt(out, FILES[:5])
    (tmp_path / "pack" / FILES[2][0]).write_bytes(FILES[2][1][:100])
    assert finish(out)[0] == 4
    assert content(tmp_path / "pack") == dict(WHOLE)


@pytest.mark.parametrize("name", ["pack.zip", "pack.tar", "pack", "store"])
def test_another_pack_is_left_alone(tmp_path: Path, name: str) -> None:
    out = str(tmp_path / name) if name != "store" else f"memory://{uuid.uuid4()}/pack"
    finish(out)
    with pytest.raises(InputError, match="another pack"):
        finish(out, [("images/new.bin", b"new"), (SUMS, b"others")], plan="other")
    assert finish(out)[1]


@pytest.mark.parametrize("harm", ["altered", "missing"])
def test_the_same_pack_lying_there_altered_is_told_file_by_file(tmp_path: Path, harm: str) -> None:
    out = tmp_path / "pack"
    finish(str(out))
    file = out / FILES[3][0]
    file.write_bytes(b"other") if harm == "altered" else file.unlink()
    with pytest.raises(InputError, match="altered, or is missing") as told:
        finish(str(out))
    assert [fault.where for fault in told.value.faults] == [str(file)]


def test_two_exports_at_once_do_not_mix(tmp_path: Path) -> None:
    first = open_target(str(tmp_path / "a.zip"), "plan")
    with pytest.raises(BusyError, match="another export writes"):
        open_target(str(tmp_path / "a.zip"), "plan")
    first.discard()
    assert not list(tmp_path.iterdir())


def test_an_unknown_store_is_a_fault_of_the_input() -> None:
    with pytest.raises(InputError, match="Protocol not known"):
        open_target("nosuch://bucket/pack", "plan")


@pytest.mark.parametrize("name", ["pack.zip", "pack"])
def test_memory_stays_bounded(tmp_path: Path, name: str) -> None:
    data = os.urandom(1 << 20)
    target = open_target(str(tmp_path / name), "plan")
    tracemalloc.start()
    # More than is given to the disk at once.
    for number in range(140):
        target.add(f"images/{number}.bin", data, sha256(data))
    target.add(SUMS, b"sums", sha256(b"sums"))
    digest, size = target.complete()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    target.publish()
    assert peak < 16 << 20
    if name == "pack.zip":
        written = (tmp_path / name).read_bytes()
        assert (sha256(written), len(written)) == (digest, size)


KILLED = """
import os, signal, sys
from pathlib import Path
from catalog.export import export
from pipeline.settings import Settings
def stop(done, of):
    if done == 4:
        os.kill(os.getpid(), signal.SIGKILL)
export(Settings(workspace=Path(sys.argv[1])), sys.argv[2], progress=stop)
"""


def test_a_killed_export_goes_on_to_the_same_pack(tmp_path: Path) -> None:
    workspace = Settings(workspace=tmp_path / "ws")
    studio(workspace, [(f"MUG-{n}", product(64, 64)) for n in range(8)])
    out = tmp_path / "pack.zip"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "ws"), str(out)], capture_output=True
    )
    part = tmp_path / ".pack.zip.part"
    assert killed.returncode == -9 and not out.exists() and part.exists()
    pack = export(workspace, out)
    other = export(workspace, tmp_path / "other.zip")
    assert out.read_bytes() == (tmp_path / "other.zip").read_bytes()
    assert pack.sha256 == other.sha256 and pack.images == 8 and not part.exists()


def test_proofs_are_of_the_files_that_went_in(tmp_path: Path) -> None:
    workspace = Settings(workspace=tmp_path / "ws")
    studio(workspace, [(f"MUG-{n}", product(32, 32)) for n in range(3)])
    files = sorted(path for path in (tmp_path / "ws" / "assets").rglob("*") if path.is_file())
    files[1].write_bytes(b"altered")
    pack = export(workspace, tmp_path / "pack")
    proofs = proofs_of(json.loads((tmp_path / "pack" / "proofs.json").read_bytes()))
    assert pack.images == len(proofs) == 2 and files[1].stem not in proofs
    assert set(proofs) == {sha256(file.read_bytes()) for file in (files[0], files[2])}


def test_what_was_read_in_full_is_recorded_and_not_read_again(tmp_path: Path) -> None:
    workspace = Settings(workspace=tmp_path / "ws")
    studio(workspace, [(f"MUG-{n}", product(32, 32)) for n in range(3)], library="0.1.0")
    for name in ("a.zip", "b.zip"):
        export(workspace, tmp_path / name)
    with reading(workspace.catalog) as lake:
        found = lake.rows("SELECT state, count(*) AS n FROM verifications GROUP BY ALL")
    assert found == [{"state": "Trusted", "n": 3}]


class Counting:
    """Verifies for real, and counts."""

    def __init__(self, workspace: Settings) -> None:
        self.anchors, self.files = trust_anchors(workspace), 0

    def __call__(self, path: Path) -> Report:
        self.files += 1
        return verify_signature(path, "image/png", self.anchors)


@pytest.mark.parametrize(
    ("library", "anchors", "proven", "read"),
    [("", True, 5, 1), ("0.1.0", True, 0, 0), ("", False, 0, 1)],
)
def test_files_are_proven_by_hash_while_library_and_roots_are_the_same(
    tmp_path: Path, library: str, anchors: bool, proven: int, read: int
) -> None:
    workspace = Settings(workspace=tmp_path)
    studio(workspace, [(f"MUG-{n}", product(32, 32)) for n in range(5)], library=library)
    verify = Counting(workspace)
    if not anchors:
        verify.anchors = b""
    with reading(workspace.catalog) as lake:
        rows = lake.rows("SELECT sha256, url, certificate FROM images")
        found = proven_by_hash(lake, rows, verify, lambda url: path_of(workspace, url))
        assert (len(found), verify.files) == (proven, read)
        if proven:
            from datetime import UTC, datetime

            late = datetime(2099, 1, 1, tzinfo=UTC)
            assert not proven_by_hash(lake, rows, verify, lambda u: path_of(workspace, u), late)
