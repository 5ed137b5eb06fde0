"""rights.csv: every fault at once with its row; works listed as the table has them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from check_samples import RIGHTS_HEADER

from pipeline.checks.rights import picture_names, read_rights
from pipeline.errors import InputError


def faults_of(folder: Path) -> list[str]:
    try:
        return [str(fault) for fault in read_rights("works", folder)[1]]
    except InputError as error:
        return [str(fault) for fault in error.faults]


def test_works_are_listed_with_their_rights(library_folder: Path) -> None:
    works, faults = read_rights("works", library_folder)
    assert faults == []
    assert [work.file for work in works] == ["a.png", "logos/b.png", "own.png"]
    star = works[1]
    assert star.path == library_folder / "logos" / "b.png"
    assert (star.title, star.rights_holder, star.role) == ("Star, red", "Nova AG", "protected")
    assert (star.note, star.expires) == ("registered 2011", None)
    assert star.where.endswith("rights.csv, row 3")


@pytest.mark.parametrize(
    ("cell", "expires", "said"),
    [
        ("", None, ""),
        ("2027-12-31", date(2027, 12, 31), ""),
        (" 2027-12-31 ", date(2027, 12, 31), ""),
        ("31.12.2027", None, "'31.12.2027' is no day (write it as 2027-12-31)"),
        ("2027-02-30", None, "'2027-02-30' is no day"),
        ("soon", None, "'soon' is no day"),
    ],
)
def test_expiry_is_a_day_in_a_column_that_may_be_left_out(
    library_folder: Path, cell: str, expires: date | None, said: str
) -> None:
    table = library_folder / "rights.csv"
    lines = table.read_text().splitlines()
    table.write_text(
        "\n".join([f"{lines[0]},expires", f"{lines[1]}{',' + cell}", *(f"{x}," for x in lines[2:])])
    )
    works, faults = read_rights("works", library_folder)
    if said:
        assert said in str(faults[0]) and "row 2, expires" in faults[0].where
    else:
        assert works[0].expires == expires and not faults


def test_all_faults_are_told_at_once_with_file_row_and_remedy(library_folder: Path) -> None:
    (library_folder / "stray.jpg").write_bytes(b"x")
    (library_folder.parent / "secret.png").write_bytes(b"x")
    table = library_folder / "rights.csv"
    table.write_text(
        f"{RIGHTS_HEADER}\n"
        "a.png,Fox,Fable Ltd,reserved,protected,\n"
        "./a.png,Fox,Fable Ltd,reserved,protected,\n"
        "logos/b.png,Star,Nova AG,reserved,rented,\n"
        "gone.png,Gone,Nova AG,reserved,protected,\n"
        "../secret.png,Secret,Nova AG,reserved,protected,\n"
        f"{library_folder.parent}/secret.png,Secret,Nova AG,reserved,protected,\n"
        "own.png,,Us,own work,own,\n"
        "too,few\n"
        ",Nameless,Us,own work,own,\n"
        "own\x07.png,Bell,Us,own work,own,\n"
    )
    faults = faults_of(library_folder)
    for where, what, remedy in [
        ("row 3", "listed in row 2 already", "one row a file"),
        ("row 4, role", "'rented' is no role", "protected or own"),
        ("row 5, file", "'gone.png' is missing", "drop the row"),
        ("row 6, file", "leaves the library's folder", "inside it"),
        ("row 7, file", "leaves the library's folder", "inside it"),
        ("row 8, title", "empty", "fill it in"),
        ("row 9", "not 6 fields", "quote fields"),
        ("row 10, file", "empty", "fill it in"),
        ("row 11, file", "the character U+0007", "take it out"),
        ("rights.csv", "'stray.jpg' has no row", "add one"),
    ]:
        assert any(where in each and what in each and remedy in each for each in faults), what
    # The bell's file is missing besides.
    assert len(faults) == 11


@pytest.mark.parametrize(
    ("name", "work"),
    [
        ("license-plate.png", True),
        ("Notice-Me.png", True),
        ("readme.JPG", True),
        ("LICENCE.webp", True),
        ("readme.txt", False),
        ("README.md", False),
        ("LICENSE.txt", False),
        ("LICENSE", False),
        (".notice.png", False),
    ],
)
def test_a_picture_is_a_work_whatever_its_name_and_what_tells_of_the_folder_is_none(
    library_folder: Path, name: str, work: bool
) -> None:
    (library_folder / name).write_bytes(b"x")
    assert (name in picture_names(library_folder)) == work
    unlisted = [fault for fault in faults_of(library_folder) if f"'{name}' has no row" in fault]
    assert len(unlisted) == work


def test_a_link_that_leaves_the_folder_is_refused(library_folder: Path) -> None:
    outside = library_folder.parent / "outside.png"
    (library_folder / "a.png").rename(outside)
    (library_folder / "a.png").symlink_to(outside)
    assert any("leaves the library's folder" in fault for fault in faults_of(library_folder))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "no column 'file'"),
        (b"file,title\na.png,Fox\n", "no column 'rights_holder'"),
        (RIGHTS_HEADER.encode() + b",extra\n", "unknown column 'extra'"),
        (RIGHTS_HEADER.encode() + b",expire\n", "unknown column 'expire'"),
        (RIGHTS_HEADER.encode() + b",note\n", "column 'note' stands twice"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (RIGHTS_HEADER.encode() + b'\n"a.png,Fox\n', "unexpected end of data"),
    ],
)
def test_a_table_that_cannot_be_read_is_told(
    library_folder: Path, content: bytes | None, said: str
) -> None:
    table = library_folder / "rights.csv"
    table.unlink()
    if content is not None:
        table.write_bytes(content)
    assert any(said in fault for fault in faults_of(library_folder))


def test_bom_crlf_and_semicolons_are_read(library_folder: Path) -> None:
    table = library_folder / "rights.csv"
    rows = table.read_text().replace("Star, red", "Star").replace('"', "").replace(",", ";")
    table.write_bytes(b"\xef\xbb\xbf" + rows.replace("\n", "\r\n").encode())
    works, faults = read_rights("works", library_folder)
    assert len(works) == 3 and not faults


def test_empty_cells_are_filled_with_what_is_given(library_folder: Path) -> None:
    table = library_folder / "rights.csv"
    table.write_text(f"{RIGHTS_HEADER}\na.png,Fox,,reserved,,\n")
    (library_folder / "own.png").unlink()
    (library_folder / "logos" / "b.png").unlink()
    works, faults = read_rights("works", library_folder, {"rights_holder": "Us", "role": "own"})
    assert not faults
    assert (works[0].rights_holder, works[0].role) == ("Us", "own")
