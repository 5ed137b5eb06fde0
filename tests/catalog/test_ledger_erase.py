"""What law requires to go is gone from every file; a tombstone stays and the rest verifies."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from catalog_samples import produced_of, request_of
from ledger_samples import add_works, commit, copied, sample, tampered, verified

from catalog.lake import reading, writing
from catalog.ledger import enter_found, place_of
from catalog.ledger_checkpoints import write_checkpoint
from catalog.ledger_erase import erase
from catalog.ledger_files import verify_files
from catalog.ledger_notes import Verifier, verifier_in
from catalog.recover import manifest_store
from catalog.stamp import owed, record_owed, unstamped
from catalog.write import commit_batch
from pipeline.errors import BusyError, InputError, SetupError
from pipeline.lock import workspace_lock
from pipeline.records import Reason, Score
from pipeline.request import Adapter
from pipeline.settings import Settings

WORK = {"library": "own", "work_id": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample(tmp_path_factory.mktemp("erase") / "workspace")


@pytest.fixture
def settings(made: Path, tmp_path: Path) -> Settings:
    return Settings(workspace=copied(made, tmp_path / "workspace"))


def texts(settings: Settings, table: str) -> str:
    """All that any data file or the metadata still say, as text."""
    import duckdb

    found = b"".join(path.read_bytes() for path in settings.catalog.glob("catalog.sqlite*"))
    files = [str(path) for path in settings.catalog.glob(f"data/raw/{table}/**/*.parquet")]
    rows = duckdb.execute("SELECT * FROM read_parquet(?, union_by_name = true)", [files]).fetchall()
    return found.decode("latin-1") + repr(rows)


def test_an_erased_work_is_gone_and_the_rest_verifies(settings: Settings) -> None:
    assert "Portrait of Person 3" in texts(settings, "library_works")

    erased = erase(settings, WORK, reason="request under Art. 17 GDPR", by="ann")

    assert dict(erased.rows) == {"library_works": 1}
    assert set(erased.columns) == {"file", "note", "rights_holder", "title"}
    left = texts(settings, "library_works")
    assert "Person 3" not in left and "person-3" not in left
    assert "Person 2" in left
    answer = verified(settings.root)
    assert answer.ok, answer.findings
    assert answer.erased_rows == 1
    with reading(settings.catalog) as lake:
        (work,) = lake.rows("SELECT * FROM raw.library_works WHERE work_id = 3")
        (tomb,) = lake.rows("SELECT * FROM raw.ledger_erasures")
    assert work["title"] is None and work["licence"] == "CC0-1.0"
    assert tomb["reason"] == "request under Art. 17 GDPR" and tomb["erased_by"] == "ann"


def test_the_least_and_greatest_values_leave_the_statistics(settings: Settings) -> None:
    for work in (0, 5):
        erase(settings, {**WORK, "work_id": work}, reason="asked", by="ann")

    left = texts(settings, "library_works")
    assert "Person 0" not in left and "Person 5" not in left
    assert verified(settings.root).ok
    with reading(settings.catalog) as lake:
        assert (
            len(lake.rows("SELECT * FROM raw.library_works WHERE title = 'Portrait of Person 2'"))
            == 1
        )


def test_one_column_goes_then_another(settings: Settings) -> None:
    erase(settings, WORK, columns=["note"], reason="asked", by="ann")
    assert verified(settings.root).ok
    erase(settings, WORK, columns=["title", "rights_holder"], reason="asked again", by="ann")

    answer = verified(settings.root)

    assert answer.ok, answer.findings
    with reading(settings.catalog) as lake:
        (work,) = lake.rows("SELECT * FROM raw.library_works WHERE work_id = 3")
    assert (work["note"], work["title"], work["file"]) == (None, None, "portraits/person-3.png")


@pytest.mark.parametrize(
    "change",
    [
        "title = 'somebody else'",
        "file = 'other.png'",
        "licence = 'MIT'",
        "salt = NULL",
        "salt = 'x'::BLOB",
    ],
)
def test_an_erasure_hides_no_other_change(settings: Settings, change: str) -> None:
    erase(settings, WORK, columns=["title"], reason="asked", by="ann")

    found = tampered(settings.root, f"UPDATE raw.library_works SET {change} WHERE work_id = 3")

    assert [(one.what, one.where) for one in found] == [("changed", "row")]


def test_nobody_erases_without_a_tombstone(settings: Settings) -> None:
    found = tampered(settings.root, "UPDATE raw.library_works SET title = NULL WHERE work_id = 3")
    assert found[0].what == "changed"

    erase(settings, {**WORK, "work_id": 1}, reason="asked", by="ann")
    found = tampered(settings.root, "DELETE FROM raw.ledger_erasures")
    assert any("ledger_erasures" in one.key for one in found)


def test_rows_from_before_the_salt_are_erased_too(settings: Settings) -> None:
    with writing(settings.catalog) as lake:
        lake.connection.execute("ALTER TABLE raw.library_works DROP COLUMN salt")
        lake.connection.execute("DELETE FROM raw.library_works; DELETE FROM raw.ledger_checkpoints")
        (settings.root / "ledger" / "checkpoint.txt").unlink()
        add_works(lake, 3)
        lake.connection.execute("DELETE FROM raw.ledger_entries")
        lake.transact(enter_found)
        lake.connection.execute("ALTER TABLE raw.library_works ADD COLUMN salt BLOB")
        write_checkpoint(lake, settings.root / "ledger", "upgrade")
    key = {**WORK, "work_id": 1}

    erase(settings, key, columns=["title"], reason="asked", by="ann")
    assert verified(settings.root).ok
    erase(settings, key, reason="asked", by="ann")

    answer = verified(settings.root)
    assert answer.ok, answer.findings
    assert "Person 1" not in texts(settings, "library_works")
    assert tampered(settings.root, "UPDATE raw.library_works SET licence = 'MIT' WHERE work_id = 1")


SECRET, AVOID, FIRST = "Ann Smith of Elm Street 3", "her sister", "Ann Smith, asleep"
MODELS = {"model": "hub/house-style", "model_revision": "r7"}


def commit_portrait(
    settings: Settings, number: int = 70, denied: str | None = None, **changes: object
) -> str:
    """An image in review whose prompt is somebody's name and address; returns its request id.

    Its policy may have `denied` a name in it.
    """
    first = request_of(number + 1, prompt=FIRST, negative_prompt=AVOID)
    made = produced_of(
        number,
        outcome="review",
        prompt=SECRET,
        negative_prompt=AVOID,
        adapters=(Adapter(**MODELS),),
        earlier=(first,),
        **changes,
    )
    evidence = {"detector": "clip", "revision": "r1", "words": SECRET, "rival": "a mug"}
    words = Score("fidelity", "text", 0.5, evidence)
    assert made.verdict
    said = Reason("review", "fidelity.text", "shows something else", 0.5, 0.6, evidence)
    reasons = [*made.verdict.reasons, said]
    if denied:
        told = f"the prompt holds the denied word {denied!r} (block)"
        reasons.append(Reason("block", "prompts.deny", told))
    made = replace(
        made,
        scores=(*made.scores, words),
        verdict=replace(made.verdict, reasons=tuple(reasons)),
    )
    with writing(settings.catalog) as lake:
        commit_batch(lake, "run-1", f"portrait-{number}", [made])
        write_checkpoint(lake, settings.root / "ledger", "run run-1")
    return made.request.request_id


@pytest.fixture(scope="module")
def erased_portrait(made: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    settings = Settings(workspace=copied(made, tmp_path_factory.mktemp("erased") / "workspace"))
    request_id = commit_portrait(settings)
    erase(settings, {"request_id": request_id}, reason="asked", by="ann")
    return settings.root, request_id


def test_an_erased_prompt_leaves_what_licences_and_approvers_need(settings: Settings) -> None:
    request_id = commit_portrait(settings)
    before = one_image(settings, request_id)
    assert SECRET in texts(settings, "images") and FIRST in texts(settings, "images")

    erased = erase(settings, {"request_id": request_id}, reason="asked", by="ann")

    assert set(erased.columns) == {
        *("prompt", "prompt_sha256", "negative_prompt", "recipe", "evidence", "reasons"),
    }
    left = texts(settings, "images")
    assert not [text for text in (SECRET, AVOID, FIRST) if text in left]
    after = one_image(settings, request_id)
    assert after["prompt"] is None
    recipe = json.loads(after["recipe"])
    assert recipe["adapters"] == json.loads(before["recipe"])["adapters"]
    assert recipe["earlier"][0]["prompt"] is None and recipe["earlier"][0]["steps"] == 20
    kept = ("outcome", "rule", "text", "score", "bound")
    assert [[each[name] for name in kept] for each in after["reasons"]] == [
        [each[name] for name in kept] for each in before["reasons"]
    ]
    assert json.loads(after["reasons"][1]["evidence"]) == {
        "detector": "clip",
        "revision": "r1",
        "words": "(erased)",
        "rival": "a mug",
    }
    assert json.loads(after["evidence"][0]) == json.loads(before["evidence"][0])
    with reading(settings.catalog) as lake:
        used = lake.rows(
            "SELECT model FROM models_used WHERE request_id = $id AND part = 'adapter'",
            {"id": request_id},
        )
    assert used == [{"model": "hub/house-style"}]
    answer = verified(settings.root)
    assert answer.ok, answer.findings
    with pytest.raises(InputError, match="has anything to erase"):
        erase(settings, {"request_id": request_id}, reason="asked", by="ann")


@pytest.mark.parametrize(
    "change",
    [
        "recipe = replace(recipe::VARCHAR, 'house-style', 'other')::JSON",
        "recipe = NULL",
        "reasons = NULL",
        "reasons = list_slice(reasons, 1, 1)",
        "evidence = list_transform(evidence, lambda one: '{}'::JSON)",
        "prompt = 'a mug'",
        "sku = 'MUG-1'",
    ],
)
def test_what_an_erasure_left_of_a_value_is_protected_too(
    erased_portrait: tuple[Path, str], tmp_path: Path, change: str
) -> None:
    erased, request_id = erased_portrait
    root = copied(erased, tmp_path / "workspace")

    found = tampered(root, f"UPDATE raw.images SET {change} WHERE request_id = '{request_id}'")

    assert [(one.what, one.where) for one in found] == [("changed", "row")]


def test_a_denied_name_that_a_reason_tells_goes_as_well(settings: Settings) -> None:
    request_id = commit_portrait(settings, denied="Ann Smith")
    assert "Ann Smith" in str(one_image(settings, request_id)["reasons"])
    erase(settings, {"request_id": request_id}, reason="asked", by="ann")
    reasons = one_image(settings, request_id)["reasons"]
    assert "Ann Smith" not in texts(settings, "images")
    assert reasons[-1]["rule"] == "prompts.deny" and reasons[-1]["text"] == "(erased)"


def test_where_the_prompt_alone_went_before_all_that_may_quote_it_goes(settings: Settings) -> None:
    key = {"request_id": commit_portrait(settings)}
    erase(settings, key, columns=["prompt"], reason="asked", by="ann")
    assert SECRET in texts(settings, "images")
    erase(settings, key, reason="asked again", by="ann")
    assert SECRET not in texts(settings, "images")
    assert verified(settings.root).ok


def test_what_was_erased_is_neither_stamped_nor_handed_out_again(settings: Settings) -> None:
    made = produced_of(90)
    assert made.asset and made.signed
    with writing(settings.catalog) as lake:
        commit_batch(lake, "run-1", "owing", [made])
        record_owed(lake, [made.asset.sha256])
        assert owed(lake) == [made.asset.sha256]
        assert manifest_store(lake, made.signed.label)
        write_checkpoint(lake, settings.root / "ledger", "run run-1")
    erase(settings, {"request_id": made.request.request_id}, reason="asked", by="ann")
    with reading(settings.catalog) as lake:
        assert owed(lake) == []
        assert made.asset.sha256 not in unstamped(lake)
        assert manifest_store(lake, made.signed.label) is None


def test_a_second_erasure_takes_more_of_the_same_value(settings: Settings) -> None:
    request_id = commit_portrait(settings)
    key = {"request_id": request_id}
    for columns in (["negative_prompt"], [], ["reasons"], ["evidence", "recipe"]):
        erase(settings, key, columns=columns, reason="asked", by="ann")
        answer = verified(settings.root)
        assert answer.ok, (columns, answer.findings)

    row = one_image(settings, request_id)
    assert [each["rule"] for each in row["reasons"]] == ["similarity.nearest", "fidelity.text"]
    assert {each["text"] for each in row["reasons"]} == {"(erased)"}
    assert set(row["evidence"]) == {"{}"}


def one_image(settings: Settings, request_id: str) -> dict[str, Any]:
    with reading(settings.catalog) as lake:
        (row,) = lake.rows("SELECT * FROM raw.images WHERE request_id = $id", {"id": request_id})
    return row


def test_files_that_a_killed_writer_left_lose_the_text_as_well(settings: Settings) -> None:
    folder = settings.catalog / "data" / "raw" / "library_works"
    (file,) = folder.glob("*.parquet")
    orphan, other = folder / "ducklake-left-behind.parquet", folder / "ducklake-other.parquet"
    orphan.write_bytes(file.read_bytes())
    # A young one may be of a commit under way.
    with pytest.raises(SetupError, match=r"ducklake-left-behind\.parquet still holds them"):
        erase(settings, WORK, reason="asked", by="ann")
    os.utime(orphan, (0, 0))
    with writing(settings.catalog) as lake:
        lake.connection.execute(
            f"COPY (SELECT * FROM raw.library_works WHERE work_id = 2) TO '{other}'"
        )

    erase(settings, WORK, reason="asked", by="ann")

    assert not orphan.exists() and other.exists()
    assert "Person 3" not in texts(settings, "library_works")


def test_a_file_that_two_images_share_goes_with_the_second(settings: Settings) -> None:
    ids = [commit_portrait(settings, number, content=b"the same") for number in (80, 90)]
    url = one_image(settings, ids[0])["url"]
    path = settings.root / url
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"the same")

    first = erase(settings, {"request_id": ids[0]}, files=True, reason="asked", by="ann")

    assert (first.files, first.kept_files) == ((), (url,))
    assert path.exists()
    assert not [one for one in about_files(settings) if url in one]

    second = erase(settings, {"request_id": ids[1]}, files=True, reason="asked", by="ann")

    assert (second.files, second.kept_files) == ((url,), ())
    assert not path.exists()
    assert not [one for one in about_files(settings) if url in one]


def about_files(settings: Settings) -> list[str]:
    with reading(settings.catalog) as lake:
        return [str(one) for one in verify_files(lake, settings, verifiers_of(settings))[1]]


def test_nothing_is_erased_under_a_run(settings: Settings) -> None:
    with workspace_lock(settings), pytest.raises(BusyError, match="another run is at work"):
        erase(settings, WORK, reason="asked", by="ann")


def verifiers_of(settings: Settings) -> list[Verifier]:
    verifier = verifier_in(place_of(settings))
    return [verifier] if verifier else []


def test_files_go_with_the_texts_that_they_quote(settings: Settings) -> None:
    with reading(settings.catalog) as lake:
        asset = lake.rows("SELECT * FROM assets WHERE state = 'signed' ORDER BY sha256")[0]
        for row in lake.rows("SELECT url, request_id FROM assets"):
            path = settings.root / row["url"]
            path.parent.mkdir(parents=True, exist_ok=True)
        for number in range(20):
            one = produced_of(number)
            assert one.asset
            (settings.root / str(one.asset.url)).write_bytes(f"file {number}".encode())
        assert verify_files(lake, settings, verifiers_of(settings)) == (20, [])

    erased = erase(
        settings, {"request_id": asset["request_id"]}, files=True, reason="asked", by="ann"
    )

    assert erased.files == (asset["url"],)
    assert not (settings.root / asset["url"]).exists()
    with reading(settings.catalog) as lake:
        assert verify_files(lake, settings, verifiers_of(settings))[1] == []
        others = [row["url"] for row in lake.rows("SELECT url FROM assets ORDER BY url")]
        others.remove(asset["url"])
        (settings.root / others[0]).write_bytes(b"other")
        (settings.root / others[1]).unlink()
        stray = settings.assets / "ab" / "stray.png"
        stray.parent.mkdir(exist_ok=True)
        stray.write_bytes(b"stray")
        (settings.root / asset["url"]).write_bytes(b"back")
        found = {
            (one.what, one.key.split(" ")[0])
            for one in verify_files(lake, settings, verifiers_of(settings))[1]
        }
    assert found == {
        ("changed", others[0]),
        ("removed", others[1]),
        ("added", "assets/ab/stray.png"),
        ("added", asset["url"]),
    }


def test_what_cannot_be_erased_is_said(settings: Settings) -> None:
    with pytest.raises(InputError, match="'sku' is no column") as caught:
        erase(settings, WORK, columns=["sku"], reason=" ", by="ann")
    assert len(caught.value.faults) == 2
    with pytest.raises(InputError, match="has anything to erase"):
        erase(settings, {**WORK, "work_id": 99}, reason="asked", by="ann")


def test_a_run_goes_on_after_an_erasure(settings: Settings) -> None:
    erase(settings, WORK, reason="asked", by="ann")
    with writing(settings.catalog) as lake:
        commit(lake, range(90, 92), "after")
        write_checkpoint(lake, settings.root / "ledger", "run after")

    assert verified(settings.root).ok
