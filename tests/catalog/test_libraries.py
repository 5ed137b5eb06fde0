"""Reference libraries: incremental, resumable, deduplicated; removed is gone; models never mix."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalog_samples import produced_of
from library_samples import (
    STARTER,
    Counting,
    Spec,
    add,
    folder_of_works,
    picture,
    picture_file,
    rights_row,
    starter_clip,
    write_rights,
)

from catalog.lake import Lake, reading, writing
from catalog.libraries import (
    confirm_library,
    create_library,
    library_rows,
    library_works,
)
from catalog.libraries_open import Library, open_library
from catalog.libraries_remove import find_works, remove_works
from catalog.libraries_sync import open_libraries, sync_folder
from catalog.write import commit_batch
from pipeline.checks import ImageBatch
from pipeline.checks.similarity import Similarity
from pipeline.errors import BusyError, InputError, SetupError
from pipeline.references.derive import pdq_of
from pipeline.references.hashes import read_hashes
from pipeline.references.index import VectorIndex
from pipeline.references.place import Place, changing, content_id, place_of
from pipeline.settings import Settings

TODAY = datetime.now(UTC).date()
YESTERDAY, TOMORROW = TODAY - timedelta(days=1), TODAY + timedelta(days=1)


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder of four works."""
    return folder_of_works(tmp_path / "shelf", 4)


@pytest.fixture
def brand(lake: Lake, shelf: Path) -> Lake:
    """A catalog with the library `brand` of the shelf's works."""
    create_library(lake, "brand", "what rivals own")
    add(lake, "brand", shelf)
    return lake


def place(lake: Lake) -> Place:
    return place_of(lake.folder, "brand")


def titles(lake: Lake, name: str = "brand") -> list[str]:
    return [row["title"] for row in library_works(lake, name)]


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def records(files: dict[str, bytes]) -> list[bytes]:
    """The hashes' records, taken out: their order says nothing."""
    data = files.pop("hashes.pdq")
    return [data[start : start + 48] for start in range(0, len(data), 48)]


def snapshot(lake: Lake) -> int:
    (row,) = lake.rows("SELECT max(snapshot_id) AS id FROM ducklake_snapshots('lake')")
    return int(row["id"])


def nearest_titles(library: Library, embedder: Any, seed: int, role: str, top: int = 1) -> list:
    vectors = embedder.images([picture(seed)])
    found = library.nearest(embedder, vectors, top, role)[0]
    return [near.reference.title for near in found]


# Making and naming.


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("brand", "there is a library 'brand'"),
        ("", "cannot name a library"),
        (".hidden", "cannot name a library"),
        ("../brand", "cannot name a library"),
        ("a/b", "cannot name a library"),
        ("a@b", "cannot name a library"),
        ("x" * 65, "cannot name a library"),
        ("trailing ", "cannot name a library"),
    ],
)
def test_names_that_are_taken_or_cannot_be_are_refused(lake: Lake, name: str, said: str) -> None:
    create_library(lake, "brand")
    with pytest.raises(InputError, match=said):
        create_library(lake, name)


@pytest.mark.parametrize(
    "call",
    [
        lambda lake: confirm_library(lake, "nix"),
        lambda lake: library_works(lake, "nix"),
        lambda lake: open_library(lake, "nix"),
        lambda lake: remove_works(lake, "nix", [1], "why", "ann"),
        lambda lake: add(lake, "nix"),
    ],
    ids=["confirm", "list", "open", "remove", "add"],
)
def test_an_unknown_library_is_told_with_those_there_are(brand: Lake, call: Any) -> None:
    with pytest.raises(SetupError, match=r"no library 'nix' \(there are: brand\)"):
        call(brand)


def test_a_library_lists_its_works_and_what_is_known_of_them(brand: Lake, shelf: Path) -> None:
    (row,) = library_rows(brand)
    assert (row["works"], row["protected"], row["own"], row["expired"]) == (4, 4, 0, 0)
    assert row["note"] == "what rivals own"
    assert row["models"] == {} and row["bytes"] > 0
    works = library_works(brand, "brand")
    assert [work["work_id"] for work in works] == [1, 2, 3, 4]
    assert works[0]["file"] == str(shelf / "w0.png")
    opened = open_library(brand, "brand")
    assert (opened.count("protected"), opened.count("own")) == (4, 0)
    hashes, _ = pdq_of(picture(2))
    (near,) = opened.nearest_hashes(hashes[None], 1, "protected")[0]
    assert (near.value, near.reference.title) == (0, "Work w2.png")
    small = opened.picture(near.reference)
    assert small is not None and small.shape == (64, 64, 3)
    assert opened.nearest_hashes(hashes[None], 1, "own") == [[]]


def test_small_pictures_are_small(lake: Lake, tmp_path: Path) -> None:
    create_library(lake, "brand")
    add(lake, "brand", folder_of_works(tmp_path / "large", 1, side=700))
    opened = open_library(lake, "brand")
    (near,) = opened.nearest_hashes(np.zeros((1, 4), np.uint64), 1, "protected")[0]
    assert opened.picture(near.reference).shape == (192, 192, 3)


# Incremental, deduplicated, superseded.


def test_what_is_known_is_not_added_again(brand: Lake, shelf: Path) -> None:
    before, derived = snapshot(brand), files_of(place(brand).folder)
    again = add(brand, "brand", shelf)
    assert (again.new, again.changed, again.known) == (0, 0, 4)
    assert snapshot(brand) == before
    assert files_of(place(brand).folder) == derived
    picture_file(shelf / "w4.png", 4)
    write_rights(shelf, *(rights_row(f"w{number}.png") for number in range(5)))
    more = add(brand, "brand", shelf)
    assert (more.new, more.known) == (1, 4)
    assert [row["work_id"] for row in library_works(brand, "brand")] == [1, 2, 3, 4, 5]


def test_a_picture_is_one_work_however_often_it_is_listed(brand: Lake, shelf: Path) -> None:
    shutil.copy(shelf / "w0.png", shelf / "copy.png")
    write_rights(shelf, rights_row("w0.png", "Same"), rights_row("copy.png", "Same"))
    for name in ("w1.png", "w2.png", "w3.png"):
        (shelf / name).unlink()
    added = add(brand, "brand", shelf)
    assert (added.new, added.changed) == (0, 1)
    assert titles(brand).count("Same") == 1
    # The other way round it is still the same work in the same place.
    write_rights(shelf, rights_row("copy.png", "Same"), rights_row("w0.png", "Same"))
    assert add(brand, "brand", shelf).known == 1


def test_the_same_picture_under_two_rights_is_a_fault_of_its_row(brand: Lake, shelf: Path) -> None:
    shutil.copy(shelf / "w0.png", shelf / "copy.png")
    rows = [rights_row(f"w{number}.png") for number in range(4)]
    write_rights(shelf, *rows, rights_row("copy.png", "Work w0.png", role="own"))
    with pytest.raises(InputError) as caught:
        add(brand, "brand", shelf)
    (fault,) = caught.value.faults
    assert "row 6" in fault.where and "same picture as in" in fault.what and "row 2" in fault.what


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({"role": "own"}, (3, 1)),
        ({"rights_holder": "Zeta"}, (4, 0)),
        ({"licence": "CC0"}, (4, 0)),
        ({"expires": str(TOMORROW)}, (4, 0)),
        ({"expires": str(YESTERDAY)}, (3, 0)),
        ({"role": "own", "expires": str(YESTERDAY)}, (4, 0)),
    ],
)
def test_a_changed_right_is_entered_anew_and_nothing_is_embedded_again(
    brand: Lake, shelf: Path, change: dict[str, str], counts: tuple[int, int]
) -> None:
    encoder = Counting()
    opened = open_library(brand, "brand")
    opened.prepare(encoder)
    digest = opened.digest
    write_rights(
        shelf,
        rights_row("w0.png", **change),
        *(rights_row(f"w{number}.png") for number in (1, 2, 3)),
    )
    added = add(brand, "brand", shelf)
    assert (added.new, added.changed, added.known) == (0, 1, 3)
    (gone,) = brand.rows("SELECT work_id, reason, removed_by FROM removed_references")
    assert gone == {"work_id": 1, "reason": "its entry changed", "removed_by": "ann"}
    shutil.rmtree(shelf)
    opened = open_library(brand, "brand")
    opened.prepare(encoder)
    assert encoder.seen == 4
    assert (opened.count("protected"), opened.count("own")) == counts
    assert opened.digest != digest
    role = "own" if counts[1] else "protected"
    vectors = encoder.images([picture(0)])
    found = opened.nearest(encoder, vectors, 9, role)[0]
    near = next((each for each in found if each.reference.file.endswith("w0.png")), None)
    if counts[0] + counts[1] == 4:
        assert near is not None and near.value > 0.999
        for column, value in change.items():
            assert str(getattr(near.reference, column)) == value
    else:
        assert near is None


@pytest.mark.parametrize("something_else_lies_there", [False, True])
def test_a_file_that_moved_is_found_where_it_is_now(
    brand: Lake, shelf: Path, something_else_lies_there: bool
) -> None:
    moved = shelf.with_name("archive")
    shelf.rename(moved)
    if something_else_lies_there:
        for number in range(4):
            picture_file(shelf / f"w{number}.png", 90 + number)
    assert add(brand, "brand", moved).changed == 4
    open_library(brand, "brand").prepare(starter_clip())


def test_the_digest_is_of_what_counts(brand: Lake, shelf: Path) -> None:
    digest = open_library(brand, "brand").digest
    assert open_library(brand, "brand").digest == digest
    rows = [rights_row(f"w{number}.png", note="found in 2011") for number in range(4)]
    write_rights(shelf, *rows)
    assert add(brand, "brand", shelf).changed == 4
    assert open_library(brand, "brand").digest == digest
    remove_works(brand, "brand", [5], "sold", "ann")
    assert open_library(brand, "brand").digest != digest


def test_two_thousand_works_are_added_in_seconds(lake: Lake, tmp_path: Path) -> None:
    folder = folder_of_works(tmp_path / "many", 2000, side=16)
    create_library(lake, "brand")
    started = time.perf_counter()
    assert add(lake, "brand", folder).new == 2000
    first = time.perf_counter() - started
    started = time.perf_counter()
    assert add(lake, "brand", folder).known == 2000
    again = time.perf_counter() - started
    assert len(read_hashes(place(lake).hashes)) == 2000
    # A machine that also does other work needs 20 s; alone it is 5.
    assert first < 90 and again < 30


# Killed, broken off, at once.


ADDING = (
    "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[3])\n"
    "from catalog.lake import writing\n"
    "from library_samples import add\n"
    "with writing(Path(sys.argv[1])) as lake: print(add(lake, 'brand', Path(sys.argv[2])).new)\n"
)


def test_killed_anywhere_and_run_again_nothing_is_twice_and_nothing_missing(
    folder: Path, tmp_path: Path
) -> None:
    works = 600
    shelf = folder_of_works(tmp_path / "many", works, side=16)
    with writing(folder) as lake:
        create_library(lake, "brand")
    command = [sys.executable, "-c", ADDING, str(folder), str(shelf), str(Path(__file__).parent)]
    moments = random.Random(3)
    lock = place_of(folder, "brand").folder / ".lock"
    held, counts = 0, [0]
    for _ in range(6):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=_environment())
        while process.poll() is None and not (
            lock.exists() and lock.read_text() == str(process.pid)
        ):
            time.sleep(0.01)
        try:
            process.wait(moments.uniform(0, 0.8))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            held += 1
        with reading(folder) as lake:
            (row,) = lake.rows(
                "SELECT count(*) AS n, count(DISTINCT sha256) AS pictures, "
                'count(DISTINCT work_id) AS ids FROM "references"'
            )
            assert row["n"] == row["pictures"] == row["ids"]
            hashed = {content_id(each["sha256"]) for each in library_works(lake, "brand")}
            assert hashed <= set(read_hashes(place_of(folder, "brand").hashes)["id"].tolist())
            counts.append(row["n"])
    assert held >= 2 and counts == sorted(counts)
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=_environment())
    assert int(done.stdout) == works - counts[-1]
    with writing(folder) as lake:
        opened = open_library(lake, "brand")
        assert opened.count("protected") == works
    derived = place_of(folder, "brand")
    assert len(list(derived.folder.glob("pictures/*"))) == works
    assert derived.hashes.stat().st_size == works * 48


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


def test_what_a_killed_writer_left_is_swept_by_the_next(brand: Lake, shelf: Path) -> None:
    derived = place(brand)
    before = files_of(derived.folder)
    derived.picture("f" * 64).write_bytes(b"an orphan")
    (derived.folder / "pictures" / "aa.jpg.1234.part").write_bytes(b"half")
    with derived.hashes.open("ab") as file:
        file.write(b"x" * (48 + 17))
    assert add(brand, "brand", shelf).known == 4
    after = files_of(derived.folder)
    assert sorted(records(after)) == sorted(records(before))
    assert after == before


def test_embedding_that_broke_off_goes_on(lake: Lake, tmp_path: Path) -> None:
    create_library(lake, "brand")
    add(lake, "brand", folder_of_works(tmp_path / "many", 150, side=16))
    broken = Counting(fails_at=100)
    told: list[tuple[int, int]] = []
    with pytest.raises(MemoryError):
        open_library(lake, "brand").prepare(broken, lambda *at: told.append(at))
    assert told == [(64, 150)]
    whole = Counting()
    opened = open_library(lake, "brand")
    opened.prepare(whole)
    assert whole.seen == 150 - 64
    assert nearest_titles(opened, whole, 149, "protected") == ["Work w149.png"]
    assert (
        len(VectorIndex.open(place(lake).vectors(whole.digest, "protected"), whole.digest)) == 150
    )


def test_one_process_at_a_time_changes_a_library(brand: Lake) -> None:
    with (
        changing(place(brand)),
        pytest.raises(BusyError, match=f"process {os.getpid()}"),
        changing(place(brand), patience=0),
    ):
        pass


# Models.


def test_another_model_has_embeddings_of_its_own(brand: Lake, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from pipeline.checks.embed import load_clip

    first = starter_clip()
    folder = tmp_path / "other"
    shutil.copytree(STARTER.source, folder)
    (weights,) = folder.glob("*.safetensors")
    tensors = load_file(weights)
    *_, last = sorted(name for name in tensors if "visual" in name and tensors[name].ndim == 2)
    tensors[last] = -tensors[last].flip(0)
    save_file(tensors, weights)
    second = load_clip(Spec("other", str(folder)), "cpu")
    assert first.digest != second.digest
    opened = open_library(brand, "brand")
    opened.prepare(first)
    with pytest.raises(SetupError, match=r"not prepared for the model 'other'"):
        opened.nearest(second, second.images([picture(1)]), 1, "protected")
    opened.prepare(second)
    for encoder in (first, second):
        (near,) = opened.nearest(encoder, encoder.images([picture(1)]), 1, "protected")[0]
        assert near.reference.title == "Work w1.png"
        assert near.value == pytest.approx(1, abs=1e-5)
    (row,) = library_rows(brand)
    assert row["models"] == {
        f"other {second.digest[:8]}": 4,
        f"starter-clip {first.digest[:8]}": 4,
    }
    with pytest.raises(SetupError, match="never mixed"):
        VectorIndex.open(place(brand).vectors(first.digest, "protected"), second.digest)


def test_a_vector_of_nan_is_near_nan_and_roles_without_works_have_none(brand: Lake) -> None:
    encoder = starter_clip()
    opened = open_library(brand, "brand")
    opened.prepare(encoder)
    vectors = encoder.images([picture(0), picture(1)])
    vectors[0] = np.nan
    spoilt, sound = opened.nearest(encoder, vectors, 2, "protected")
    assert len(spoilt) == 1 and np.isnan(spoilt[0].value)
    assert len(sound) == 2 and sound[0].reference.title == "Work w1.png"
    assert [*opened.nearest(encoder, vectors, 2, "own")] == [(), ()]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda file: file.unlink(), "w1.png: gone"),
        (lambda file: picture_file(file, 99), "no longer those of the work that was added"),
    ],
)
def test_works_to_embed_whose_files_are_gone_stop_it(
    brand: Lake, shelf: Path, harm: Any, said: str
) -> None:
    harm(shelf / "w1.png")
    with pytest.raises(SetupError, match=said) as caught:
        open_library(brand, "brand").prepare(starter_clip())
    assert "add them again" in str(caught.value) and "remove them" in str(caught.value)


def test_lost_hashes_are_made_again_from_the_files_or_stop_it(brand: Lake, shelf: Path) -> None:
    before = files_of(place(brand).folder)
    shutil.rmtree(place(brand).folder)
    assert open_library(brand, "brand").count("protected") == 4
    after = files_of(place(brand).folder)
    assert sorted(records(after)) == sorted(records(before))
    assert after == before
    shutil.rmtree(place(brand).folder)
    shutil.rmtree(shelf)
    with pytest.raises(SetupError, match=r"w0\.png: gone"):
        open_library(brand, "brand")


# Removed.


def test_a_removed_work_is_really_gone_and_old_evidence_still_reads(
    brand: Lake, shelf: Path
) -> None:
    encoder = starter_clip()
    opened = open_library(brand, "brand")
    opened.prepare(encoder)
    produced = produced_of(1)
    batch = ImageBatch(picture(2)[None], (produced.request,))
    ((score,),) = Similarity(encoder, [opened], top=1)(batch)
    assert score.evidence["library_digests"] == {"brand": opened.digest}
    commit_batch(brand, "run-1", "b1", [replace(produced, scores=(score,))])

    (work,) = find_works(brand, "brand", ["3"])
    folder = place(brand).vectors(encoder.digest, "protected")
    index = VectorIndex.open(folder, encoder.digest)
    traces = [
        index.vectors([content_id(work["sha256"])])[0].tobytes(),
        pdq_of(picture(2))[0].tobytes(),
        place(brand).picture(work["sha256"]).read_bytes(),
    ]

    def left() -> list[bool]:
        contents = files_of(place(brand).folder).values()
        return [any(trace in content for content in contents) for trace in traces]

    assert left() == [True, True, True]
    assert remove_works(brand, "brand", [3], "leave withdrawn", "ann") == 1
    assert left() == [False, False, False]
    assert not place(brand).picture(work["sha256"]).exists()
    # Whoever has it open does not find its embedding either.
    assert nearest_titles(opened, encoder, 2, "protected") != ["Work w2.png"]
    again = open_library(brand, "brand")
    assert again.count("protected") == 3
    assert again.picture(opened._reference(2)) is None

    (kept,) = brand.rows("SELECT evidence FROM scores WHERE score = 'similarity.nearest'")
    (near,) = json.loads(kept["evidence"])["nearest"]
    assert near["title"] == "Work w2.png" and near["rights_holder"] == "Nova AG"
    assert near["sha256"] == work["sha256"]
    (removed,) = brand.rows("SELECT * FROM removed_references")
    assert (removed["reason"], removed["removed_by"]) == ("leave withdrawn", "ann")
    assert (removed["title"], removed["sha256"]) == ("Work w2.png", work["sha256"])
    assert remove_works(brand, "brand", [3], "twice", "ann") == 0
    # The same picture may come back, as a new entry.
    assert add(brand, "brand", shelf).new == 1
    assert [row["work_id"] for row in library_works(brand, "brand")] == [1, 2, 4, 5]


def test_who_opened_a_library_before_a_removal_does_not_bring_it_back(brand: Lake) -> None:
    encoder = Counting()
    opened = open_library(brand, "brand")
    remove_works(brand, "brand", [1], "leave withdrawn", "ann")
    opened.prepare(encoder)
    assert encoder.seen == 3 and opened.count("protected") == 3


def test_works_are_found_by_number_file_hash_or_holder(brand: Lake, shelf: Path) -> None:
    works = library_works(brand, "brand")
    for given in ("2", str(shelf / "w1.png"), works[1]["sha256"][:8], works[1]["sha256"]):
        assert find_works(brand, "brand", [given]) == [works[1]]
    assert find_works(brand, "brand", [], "Nova AG") == works
    assert find_works(brand, "brand", ["1"], "Nova AG") == works


@pytest.mark.parametrize(
    ("works", "holder", "said"),
    [
        ([], None, ["no work is named"]),
        (["17", "gone.png"], None, ["no work '17'", "no work 'gone.png'"]),
        ([], "Acme", ["no work of 'Acme'", "rights holders: Nova AG"]),
        (["abc"], None, ["no work 'abc'"]),
        (["~no-such-user/x.png"], None, ["no work '~no-such-user/x.png'"]),
        (["~no-such-user"], None, ["no work '~no-such-user'"]),
    ],
)
def test_works_that_are_not_there_are_all_told(
    brand: Lake, works: list[str], holder: str | None, said: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        find_works(brand, "brand", works, holder)
    assert all(each in str(caught.value) for each in said)


# Expiry.


@pytest.mark.parametrize(
    ("role", "expires", "counts_as"),
    [
        ("protected", None, "protected"),
        ("protected", TOMORROW, "protected"),
        ("protected", TODAY, "protected"),
        ("protected", YESTERDAY, None),
        ("own", None, "own"),
        ("own", TODAY, "own"),
        ("own", YESTERDAY, "protected"),
    ],
)
def test_what_a_work_counts_as_on_a_day(
    lake: Lake, tmp_path: Path, role: str, expires: Any, counts_as: str | None
) -> None:
    create_library(lake, "brand")
    picture_file(tmp_path / "s" / "a.png", 1)
    write_rights(tmp_path / "s", rights_row("a.png", role=role, expires=str(expires or "")))
    add(lake, "brand", tmp_path / "s")
    encoder = starter_clip()
    opened = open_library(lake, "brand")
    opened.prepare(encoder)
    found = {
        each: (
            opened.count(each),
            len(opened.nearest(encoder, encoder.images([picture(1)]), 3, each)[0]),
        )
        for each in ("protected", "own")
    }
    assert found == {each: (int(each == counts_as),) * 2 for each in ("protected", "own")}
    hashes, _ = pdq_of(picture(1))
    for each in ("protected", "own"):
        assert len(opened.nearest_hashes(hashes[None], 3, each)[0]) == int(each == counts_as)
    (row,) = library_rows(lake)
    assert row["works"] == 1 and row["expired"] == int(expires == YESTERDAY)


def test_a_library_is_as_fresh_as_its_last_addition_or_confirmation(brand: Lake) -> None:
    added = open_library(brand, "brand").checked_at
    assert added.tzinfo is not None and datetime.now(UTC) - added < timedelta(minutes=5)
    at = confirm_library(brand, "brand", "bea")
    assert open_library(brand, "brand").checked_at == at > added


# Faults.


def test_pictures_that_cannot_be_read_are_faults_of_their_rows(brand: Lake, shelf: Path) -> None:
    (shelf / "torn.png").write_bytes((shelf / "w0.png").read_bytes()[:90])
    (shelf / "note.gif").write_bytes(b"GIF89a")
    picture_file(shelf / "w4.png", 4)
    rows = [rights_row(name) for name in ("torn.png", "w0.png", "note.gif", "w4.png")]
    rows += [rights_row(f"w{number}.png") for number in (1, 2, 3)]
    write_rights(shelf, *rows)
    with pytest.raises(InputError) as caught:
        add(brand, "brand", shelf)
    torn, gif = caught.value.faults
    assert "row 2" in torn.where and "broken" in torn.what
    assert "row 4" in gif.where and "not a PNG" in gif.what
    assert len(titles(brand)) == 4
    added = add(brand, "brand", shelf, skip_faulty=True)
    assert (added.new, added.known, len(added.faults)) == (1, 4, 2)


# Libraries that are folders.


@pytest.fixture
def settings(folder: Path, shelf: Path, tmp_path: Path) -> Settings:
    url = folder.as_uri()
    return Settings(workspace=tmp_path / "ws", catalog_url=url, libraries={"brand": shelf})


def test_a_folder_is_taken_over_and_kept_equal(lake: Lake, settings: Settings, shelf: Path) -> None:
    encoder = Counting()
    opened = open_libraries(lake, settings)("brand")
    opened.prepare(encoder)
    assert opened.count("protected") == 4
    assert library_works(lake, "brand")[0]["file"] == "w0.png"
    # w0 is renamed, w1 has another right, w2 is gone, w4 is new, w3 has other pixels.
    (shelf / "w0.png").rename(shelf / "first.png")
    (shelf / "w2.png").unlink()
    picture_file(shelf / "w3.png", 33)
    picture_file(shelf / "w4.png", 4)
    rows = [rights_row("first.png", "Work w0.png"), rights_row("w1.png", role="own")]
    write_rights(shelf, *rows, rights_row("w3.png"), rights_row("w4.png"))
    opened = open_libraries(lake, settings)("brand")
    opened.prepare(encoder)
    assert encoder.seen == 4 + 2
    assert sorted(row["file"] for row in library_works(lake, "brand")) == [
        "first.png", "w1.png", "w3.png", "w4.png",
    ]  # fmt: skip
    assert (opened.count("protected"), opened.count("own")) == (3, 1)
    reasons = lake.rows("SELECT file, reason, removed_by FROM removed_references ORDER BY file")
    assert [(row["file"], row["reason"][:12]) for row in reasons] == [
        ("w0.png", "its entry ch"),
        ("w1.png", "its entry ch"),
        ("w2.png", "no longer in"),
        ("w3.png", "no longer in"),
    ]
    assert {row["removed_by"] for row in reasons} == {"rights.csv"}


def test_a_folder_that_is_as_it_was_changes_nothing(lake: Lake, settings: Settings) -> None:
    open_libraries(lake, settings)("brand")
    before = snapshot(lake)
    opened = open_libraries(lake, settings)
    assert opened("brand") is opened("brand")
    assert snapshot(lake) == before
    assert opened("starter-protected").count("protected") == 18
    assert {row["library"] for row in library_rows(lake)} == {"brand", "starter-protected"}


def test_a_file_replaced_under_its_old_size_and_time_is_noticed(
    lake: Lake, settings: Settings, shelf: Path
) -> None:
    file = shelf / "w0.png"
    sync_folder(lake, "brand", shelf)
    # Long enough ago that its stamp is trusted from now on.
    time.sleep(2.1)
    sync_folder(lake, "brand", shelf)
    known = json.loads(place(lake).stamps.read_text())
    assert str(file) in known
    before = file.stat()
    data = bytearray(file.read_bytes())
    # The text of a PNG's IEND checksum is not looked at by anybody but its hash is.
    replaced = bytes(data[:-4]) + bytes(4)
    file.write_bytes(replaced)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    old = library_works(lake, "brand")[0]["sha256"]
    sync_folder(lake, "brand", shelf)
    assert old not in {row["sha256"] for row in library_works(lake, "brand")}


def test_all_faults_of_a_folder_stop_the_run_at_once(
    lake: Lake, settings: Settings, shelf: Path
) -> None:
    (shelf / "w1.png").write_bytes(b"")
    (shelf / "w2.png").unlink()
    write_rights(
        shelf,
        rights_row("w0.png", role="rented"),
        *(rights_row(f"w{number}.png") for number in (1, 2, 3)),
    )
    with pytest.raises(InputError, match="'rented' is no role") as caught:
        open_libraries(lake, settings)("brand")
    assert "'w2.png' is missing" in str(caught.value)
    assert lake.rows("SELECT * FROM libraries") == []


def test_works_added_by_hand_are_not_taken_for_those_of_a_folder(
    brand: Lake, settings: Settings
) -> None:
    with pytest.raises(SetupError, match="by hand: choose another name"):
        open_libraries(brand, settings)("brand")
    assert len(titles(brand)) == 4


def test_a_name_that_is_no_library_is_told_with_folders_too(lake: Lake, settings: Settings) -> None:
    with pytest.raises(SetupError, match=r"no library 'mine' \(there are: brand, starter-protec"):
        open_libraries(lake, settings)("mine")


def test_an_empty_library_counts_nothing(lake: Lake) -> None:
    create_library(lake, "brand")
    opened = open_library(lake, "brand")
    opened.prepare(starter_clip())
    assert opened.count("protected") == 0
    assert opened.nearest_hashes(np.zeros((2, 4), np.uint64), 3, "protected") == [[], []]
    with pytest.raises(SetupError, match="'brand' has no work that counts today"):
        Similarity(starter_clip(), [opened])
