"""What `library add` is given: folders, tables of paths and pictures, with all faults at once."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.references.sources import read_sources

STRANGER = "~no-such-user"
"""A home folder of nobody."""
OURS = {"role": "own", "rights_holder": "Us", "licence": "own work"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with `pictures/a.png` and `pictures/b.jpg`, and a picture beside it."""
    (tmp_path / "pictures").mkdir()
    for name in ("pictures/a.png", "pictures/b.jpg", "c.png"):
        Image.new("RGB", (8, 8), "teal").save(tmp_path / name)
    return tmp_path


def read(*sources: Path, **defaults: str) -> tuple[list[Any], list[str]]:
    works, faults = read_sources("lib", sources, defaults)
    return works, [str(fault) for fault in faults]


def test_a_table_names_paths_from_its_own_folder(place: Path) -> None:
    table = place / "works.csv"
    table.write_text(
        "path,title,rights_holder,licence,role,expires,note\n"
        "pictures/a.png,Fox,Fable,reserved,protected,2027-12-31,seen\n"
        f"{place}/c.png,Star,Nova,reserved,own,,\n"
    )
    (fox, star), faults = read(table)
    assert faults == []
    assert (fox.path, fox.file) == (place / "pictures/a.png", str(place / "pictures/a.png"))
    assert (fox.title, fox.role, fox.expires, fox.note) == (
        "Fox", "protected", date(2027, 12, 31), "seen",
    )  # fmt: skip
    assert (star.path, star.role, star.expires) == (place / "c.png", "own", None)
    assert fox.where == "works.csv, line 2"


def test_a_parquet_table_may_hold_days_and_empty_cells(place: Path) -> None:
    columns = {
        "file": ["pictures/a.png", "c.png"],
        "title": ["Fox", None],
        "rights_holder": [None, "Nova"],
        "expires": [date(2027, 12, 31), None],
        "role": ["protected", "own"],
    }
    pq.write_table(pa.table(columns), place / "works.parquet")
    (fox, second), faults = read(place / "works.parquet", licence="reserved", rights_holder="Us")
    assert faults == []
    assert (fox.expires, fox.rights_holder, fox.licence) == (date(2027, 12, 31), "Us", "reserved")
    # A picture without a title is called by its file.
    assert (second.title, second.rights_holder) == ("c", "Nova")
    columns["expires"] = [datetime(2027, 12, 31, 23, 59), None]
    pq.write_table(pa.table(columns), place / "works.parquet")
    works, faults = read(place / "works.parquet", licence="reserved", rights_holder="Us")
    assert works[0].expires == date(2027, 12, 31) and not faults


def test_a_folder_without_a_table_and_pictures_are_all_under_what_is_given(place: Path) -> None:
    works, faults = read(place / "pictures", place / "c.png", **OURS, expires="2030-01-01")
    assert faults == []
    assert [(work.title, work.role, work.expires) for work in works] == [
        (title, "own", date(2030, 1, 1)) for title in ("a", "b", "c")
    ]


def test_what_is_not_said_is_told_once_a_folder(place: Path) -> None:
    works, faults = read(place / "pictures", role="own")
    assert works == []
    (fault,) = faults
    assert "nothing says the licence and rights_holder" in fault
    assert "--licence, --rights-holder" in fault


def test_a_folder_with_a_table_is_read_by_it(place: Path) -> None:
    (place / "pictures" / "rights.csv").write_text(
        "file,title,rights_holder,licence,role,note\n"
        "a.png,Fox,Fable,reserved,protected,\nb.jpg,Star,,,protected,\n"
    )
    works, faults = read(place / "pictures", rights_holder="Us", licence="CC0")
    assert faults == []
    assert [work.file for work in works] == [str(work.path) for work in works]
    assert [(work.rights_holder, work.licence) for work in works] == [
        ("Fable", "reserved"), ("Us", "CC0"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("path,expire\nc.png,2027-12-31\n", ["unknown column 'expire'", "expires"]),
        ("title\nFox\n", ["no column 'file' or 'path'"]),
        ("path\ngone.png\nc.png\nalso.png\n", ["line 2", "line 4", "'also.png' is missing"]),
        ("path,role\nc.png,rented\n", ["line 2, role", "'rented' is no role"]),
        ("path,role,role\nc.png,own,own\n", ["'role' stands twice"]),
        ("path,expires\nc.png,31.12.27\nc.png,\n,\n", ["line 2, expires", "is no day"]),
        ("path\nc.png\n\npictures\n", ["line 4, file", "'pictures' is missing"]),
        (f"path\n{STRANGER}/x.png\n", ["line 2, file", f"'{STRANGER}/x.png' is missing"]),
        (f"path\nc.png\n{STRANGER}\n", ["line 3, file", f"'{STRANGER}' is missing"]),
    ],
)
def test_all_faults_of_a_table_are_told_with_their_lines(
    place: Path, table: str, said: list[str]
) -> None:
    (place / "works.csv").write_text(table)
    _, faults = read(place / "works.csv", **OURS)
    assert all(any(each in fault for fault in faults) for each in said), faults


def test_faults_of_all_sources_are_told_at_once(place: Path) -> None:
    (place / "works.csv").write_text("path\ngone.png\n")
    _, faults = read(
        place / "works.csv", place / "nowhere.png", place / "works.docx", place / "none", **OURS
    )
    assert len(faults) == 4
    for each in ("gone.png", "nowhere.png", "works.docx", "none"):
        assert any(each in fault for fault in faults)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (f"{STRANGER}/x.png", f"'{STRANGER}/x.png' is missing"),
        (f"{STRANGER}/works.csv", "works.csv"),
        (f"{STRANGER}/works", "no source of works"),
        (STRANGER, "no source of works"),
    ],
)
def test_a_home_of_nobody_is_a_fault_and_no_crash(source: str, said: str) -> None:
    works, faults = read(Path(source), **OURS)
    assert works == [] and len(faults) == 1
    assert said in faults[0].replace(str(Path.cwd()) + "/", "")


def test_a_home_folder_is_written_as_everywhere(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(place))
    (place / "works.csv").write_text("path\n~/pictures/a.png\n")
    works, faults = read(Path("~/works.csv"), Path("~/c.png"), **OURS)
    assert faults == []
    assert [work.path for work in works] == [place / "pictures/a.png", place / "c.png"]


def test_a_broken_parquet_file_is_a_fault(place: Path) -> None:
    (place / "works.parquet").write_bytes(b"PAR1 not really")
    assert "not readable as Parquet" in read(place / "works.parquet", **OURS)[1][0]
