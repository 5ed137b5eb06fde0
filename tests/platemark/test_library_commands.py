"""`platemark library`: made, filled, listed, searched, confirmed, removed, as people type it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from warm_platemark import Warm, warm

from pipeline.errors import InputError, SetupError
from pipeline.settings import ROOT

CALL = (
    "import sys, typer\n"
    "from pipeline.errors import PlatemarkError\n"
    "from platemark import library_commands\n"
    "app = typer.Typer()\n"
    "library_commands.register(app)\n"
    "app.callback()(lambda: None)\n"
    "code = 0\n"
    "try: app()\n"
    "except SystemExit as stop: code = stop.code\n"
    "except PlatemarkError as error: print(error, file=sys.stderr); code = error.exit_code\n"
    "heavy = {'torch', 'faiss', 'open_clip', 'prefect', 'transformers'} & set(sys.modules)\n"
    "print('loaded', sorted(heavy), file=sys.stderr)\n"
    "sys.exit(code)"
)
Call = Callable[..., subprocess.CompletedProcess[str]]
LIGHT = "loaded []"
STARTER = ROOT / "starter" / "references"


class Shop:
    """The command alone, in a process of its own and a workspace; stderr ends with what heavy was
    loaded."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        self.folder = folder
        self.environment = environment

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        import os

        return subprocess.run(
            [sys.executable, "-c", CALL, "library", *arguments, "-w", str(self.folder / "ws")],
            capture_output=True, text=True, check=False, cwd=self.folder,
            env=os.environ | {"COLUMNS": "200", "PYTHONPATH": str(ROOT), **self.environment},
        )  # fmt: skip

    def done(self, *arguments: str) -> Any:
        """JSON of a command that succeeds without anything heavy."""
        result = self.call(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        assert LIGHT in result.stderr
        return json.loads(result.stdout)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    for number, colour in enumerate(("teal", "navy", "gold")):
        image = Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 20 + 30 * number)
        Image.merge("RGB", [image, Image.new("L", (64, 64), colour), image]).save(
            tmp_path / f"{colour}.png"
        )
    (tmp_path / "works.csv").write_text(
        "path,title,rights_holder,role\n"
        "teal.png,Teal mark,Nova AG,protected\nnavy.png,Navy mark,Fable Ltd,protected\n"
    )
    return Shop(tmp_path, {})


def test_a_library_from_its_making_to_its_removals(shop: Shop) -> None:
    assert shop.done("create", "brand", "--note", "rivals") == {"library": "brand"}
    added = shop.done("add", "brand", "works.csv", "--licence", "all rights reserved")
    assert added == {"library": "brand", "new": 2, "changed": 0, "known": 0, "left_out": []}
    ours = ("--role", "own", "--rights-holder", "Us", "--licence", "own", "--expires", "2099-01-01")
    assert shop.done("add", "brand", "gold.png", *ours)["new"] == 1
    assert shop.done("add", "brand", "gold.png", *ours)["known"] == 1
    listed = {row["library"]: row for row in shop.done("list")}
    assert (listed["brand"]["works"], listed["brand"]["own"], listed["brand"]["note"]) == (
        3, 1, "rivals",
    )  # fmt: skip
    assert "read at the next run" in listed["starter-protected"]["note"]
    works = shop.done("list", "brand")
    assert [(work["work_id"], work["title"], work["expires"]) for work in works] == [
        (1, "Teal mark", None), (2, "Navy mark", None), (3, "gold", "2099-01-01"),
    ]  # fmt: skip
    assert shop.done("confirm", "brand")["checked_at"] > works[0]["added_at"]
    removed = shop.done("remove", "brand", "2", "--reason", "sold")["removed"]
    assert [work["title"] for work in removed] == ["Navy mark"]
    shop.done("remove", "brand", "--rights-holder", "Nova AG", "--reason", "withdrawn")
    assert [work["title"] for work in shop.done("list", "brand")] == ["gold"]


def test_sheets_and_caches_that_show_a_removed_work_go_with_it(shop: Shop, branded: Path) -> None:
    shutil.copytree(branded, shop.folder / "ws")
    shop.done("add", "brand", "works.csv", "--licence", "all rights reserved")
    made = [
        shop.folder / "ws" / name
        for name in ("searches/teal.jpg", "comparisons/aa/teal.jpg", "references/brand/v.npy")
    ]
    for file in made:
        file.parent.mkdir(parents=True)
        file.write_bytes(b"teal")
    result = shop.call("remove", "brand", "17", "--reason", "sold")
    assert result.returncode == InputError.exit_code
    assert all(file.exists() for file in made)
    shop.done("remove", "brand", "1", "--reason", "sold")
    assert [file for file in made if file.exists()] == []


def test_for_people_it_is_tables_and_lines(shop: Shop, branded: Path) -> None:
    shutil.copytree(branded, shop.folder / "ws")
    result = shop.call("add", "brand", "works.csv", "--licence", "reserved")
    assert "brand: 2 new, 0 changed, 0 known already" in result.stdout
    result = shop.call("list")
    assert "library" in result.stdout and "confirmed" in result.stdout
    result = shop.call("list", "brand")
    assert "Teal mark" in result.stdout and "Fable Ltd" in result.stdout


@pytest.fixture(scope="module")
def branded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a library `brand`, to be copied."""
    shop = Shop(tmp_path_factory.mktemp("branded"), {})
    shop.done("create", "brand")
    return shop.folder / "ws"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["add", "brand", "works.csv"], InputError.exit_code, "works.csv, line 2, licence: empty"),
        (["add", "nix", "gold.png"], SetupError.exit_code, "no library 'nix'"),
        (["add", "starter-protected", "gold.png"], InputError.exit_code, "change its files"),
        (["remove", "starter-protected", "1", "--reason", "x"], InputError.exit_code, "rights.csv"),
        (["create", "starter-protected"], InputError.exit_code, "is the folder"),
        (["remove", "brand", "9", "--reason", "x"], InputError.exit_code, "no work '9'"),
        (["remove", "brand", "9"], 2, "--reason"),
        (["create", "brand"], InputError.exit_code, "there is a library 'brand'"),
        (["list", "nix"], SetupError.exit_code, "no library 'nix'"),
        (["confirm", "nix"], SetupError.exit_code, "there are: brand"),
    ],
)
def test_what_cannot_be_done_says_why_and_loads_nothing_heavy(
    shop: Shop, branded: Path, arguments: list[str], code: int, said: str
) -> None:
    shutil.copytree(branded, shop.folder / "ws")
    result = shop.call(*arguments)
    assert result.returncode == code
    assert said in result.stderr and LIGHT in result.stderr


def test_faulty_works_stop_it_or_are_left_out_and_listed(shop: Shop, branded: Path) -> None:
    shutil.copytree(branded, shop.folder / "ws")
    (shop.folder / "torn.png").write_bytes((shop.folder / "teal.png").read_bytes()[:99])
    with (shop.folder / "works.csv").open("a") as table:
        table.write("torn.png,Torn,Nova AG,protected\ngone.png,Gone,Nova AG,protected\n")
    arguments = ("add", "brand", "works.csv", "--licence", "reserved")
    result = shop.call(*arguments)
    assert result.returncode == 2 and "'gone.png' is missing" in result.stderr
    result = shop.call(*arguments, "--skip-faulty")
    assert result.returncode == 0
    assert "2 new" in result.stdout and "2 faults" in result.stdout
    assert "works.csv, line 4, torn.png: broken" in result.stderr
    assert "works.csv, line 5, file: 'gone.png' is missing" in result.stderr


@pytest.fixture(scope="module")
def started() -> Iterator[Warm]:
    with warm("open_clip", "faiss", "duckdb", "catalog.checking") as started:
        yield started


@pytest.fixture
def heavy(shop: Shop, started: Warm, monkeypatch: pytest.MonkeyPatch) -> Call:
    """`library` where models are needed."""
    monkeypatch.chdir(shop.folder)
    return lambda *arguments: started("library", *arguments, "-w", "ws")


def test_search_by_picture_and_by_words_gives_rows_and_a_sheet(shop: Shop, heavy: Call) -> None:
    copy = shop.folder / "copy.jpg"
    Image.open(STARTER / "zanti-2.png").save(copy, quality=80)
    result = heavy("search", "starter-protected", "copy.jpg", "--top", "3", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    first = found["found"][0]
    assert (first["file"], first["counts_as"]) == ("zanti-2.png", "protected")
    assert first["cosine"] > 0.95 and first["pdq"] < 31
    with Image.open(found["sheet"]) as sheet:
        assert sheet.format == "JPEG" and sheet.width > 500
    result = heavy("search", "starter-protected", "a red mug")
    assert result.returncode == 0, result.stderr
    assert "counts as" in result.stdout and ".jpg" in result.stdout
    result = heavy("search", "starter-protected", "gone.png")
    assert result.returncode == InputError.exit_code and "no such picture" in result.stderr
    listed = json.loads(shop.call("list", "--json").stdout)
    (models,) = (row["models"] for row in listed)
    assert list(models.values()) == [18] and next(iter(models)).startswith("starter-clip ")


def test_add_embeds_at_once_when_asked(shop: Shop, branded: Path, heavy: Call) -> None:
    shutil.copytree(branded, shop.folder / "ws")
    arguments = ("add", "brand", "works.csv", "--licence", "x", "--model", "starter-clip")
    result = heavy(*arguments)
    assert result.returncode == 0, result.stderr
    (row,) = (row for row in shop.done("list") if row["library"] == "brand")
    assert list(row["models"].values()) == [2]
