"""Catalogs of earlier schemas: read as they are, brought up to date by whoever writes."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from catalog_samples import failed_of, produced_of, request_of, sha256

from catalog.audit import Limits, ask, isolated, questions, select
from catalog.extensions import connected
from catalog.lake import DATA, SCHEMA_VERSION, Lake, _attach, reading, writing
from catalog.ledger_pending import enter_pending, forget_pending
from catalog.ledger_verify import verify_ledger
from catalog.libraries import create_library
from catalog.metadata import METADATA
from catalog.read import done_request_ids
from catalog.rescore import record_rescores
from catalog.rows import batch_tables
from catalog.story import story
from catalog.write import commit_batch, insert_row, insert_table
from pipeline.errors import SetupError
from pipeline.records import Score, UsedInput

SCHEMAS = {version: Path(__file__).with_name(f"schema-{version}.sql") for version in (1, 2, 3, 4)}
"""Tables and views as that version of Platemark made them."""
RANKED = ("duplicate_distance", "nearest_pdq", "nearest_clip", "nearest_descriptor")
NEW_COLUMNS: dict[int, dict[str, list[str]]] = {
    1: {"requests": ["recipe"], "scores": ["detector", "revision"]},
    2: {"scores": ["detector", "revision"]},
    3: {},
    4: {"images": [*RANKED, "urgency"], "signatures": []},
}
"""What later versions added to tables that a batch fills."""
NEW_IN_REASONS = ("severity", "declared", "detector", "revision")
GIVEN = {
    "why-blocked": {"asset": "MUG-00004"},
    "made-with-model": {"model": "starter"},
    "packs-contents": {"pack": "p"},
    "assets-of-sku": {"sku": "MUG-00001"},
    "made-from": {"asset": "MUG-00001"},
    "made-out-of": {"picture": "photo"},
}


@pytest.fixture(scope="module", params=[*SCHEMAS])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def earlier_version(version: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog as that version of Platemark made it: five images and a failure, a work."""
    folder = tmp_path_factory.mktemp("earlier") / "catalog"
    (folder / DATA).mkdir(parents=True)
    now = datetime.now(UTC)
    produced = [*(produced_of(number) for number in range(5)), failed_of(5)]
    tables = batch_tables("run-1", "b1", "0001", produced, now)
    if version < 4:
        tables = _narrow(tables)
    for name, columns in NEW_COLUMNS[version].items():
        tables[name] = tables[name].drop_columns(columns)
    if version < 3:
        tables["verdicts"] = _without_later_reasons(tables["verdicts"])
    connection = connected()
    _attach(connection, folder / METADATA, folder / DATA, read_only=False)
    connection.execute("BEGIN")
    connection.execute(SCHEMAS[version].read_text(encoding="utf-8"))
    connection.execute("INSERT INTO raw.schema_version VALUES (?, ?)", [version, now])
    for name, table in tables.items():
        insert_table(connection, name, table)
    batch = {
        "run_id": "run-1", "batch_id": "b1", "attempt": "0001", "images": 6, "failed": 1,
        "committed_at": now,
    }  # fmt: skip
    insert_row(connection, "batches", batch)
    review = {
        "review_id": "v1", "request_id": request_of(4).request_id, "attempt": "0001",
        "decision": "reject", "reviewer": "ann", "reason": "ours", "decided_at": now,
    }  # fmt: skip
    insert_row(connection, "reviews", review)
    work = {
        "library": "protected",
        "library_digest": "d1",
        "file": "logo.png",
        "registered_at": now,
    }
    insert_row(connection, "reference_works", work)
    if version == 4:
        enter_pending(connection)
    else:
        forget_pending(connection)
    connection.execute("COMMIT")
    connection.close()
    return folder


KEY = ("request_id", "attempt")
IN_VERDICTS = ("outcome", "policy", "policy_version", "policy_digest", "reasons")
IN_ASSETS = {
    "sha256": "sha256", "asset_state": "state", "url": "url", "mime": "mime",
    "made_width": "width", "made_height": "height", "size": "size",
    "pixels_sha256": "pixels_sha256", "perceptual_hash": "perceptual_hash",
}  # fmt: skip


def _narrow(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """A batch's rows in the tables that versions before 4 spread them over."""
    wide = tables.pop("images")
    (names,) = (row["scores"] for row in tables.pop("signatures").to_pylist() if row["scores"])
    elsewhere = {*IN_VERDICTS, *IN_ASSETS, "signature", "values", "evidence", "request_key"}
    elsewhere |= {"generate_ms", "c2pa_label", "certificate", *RANKED, "urgency"}
    tables["requests"] = wide.drop_columns([*elsewhere])
    scores = [
        {key: row[key] for key in KEY}
        | {"check_name": each["check_name"], "name": each["name"], "value": value}
        | {"evidence": evidence, "detector": each["detector"], "revision": each["revision"]}
        for row in wide.to_pylist()
        for each, value, evidence in zip(names, row["values"], row["evidence"], strict=False)
    ]
    tables["scores"] = pa.Table.from_pylist(scores)
    made = wide.filter(pc.is_valid(wide["sha256"]))
    tables["verdicts"] = made.select([*KEY, *IN_VERDICTS]).append_column(
        "decided_at", made["recorded_at"]
    )
    files = made.select([*KEY, "recorded_at", *IN_ASSETS])
    files = files.rename_columns([*KEY, "recorded_at", *IN_ASSETS.values()])
    tables["assets"] = files.append_column("made_by", pa.array(["run"] * len(files)))
    return tables


def _without_later_reasons(verdicts: pa.Table) -> pa.Table:
    rows = verdicts.to_pylist()
    for row in rows:
        for reason in row["reasons"]:
            for name in NEW_IN_REASONS:
                del reason[name]
    text, real = pa.string(), pa.float64()
    reason = {"outcome": text, "rule": text, "text": text, "score": real, "bound": real}
    reasons = pa.list_(pa.struct({**reason, "evidence": text}))
    place = verdicts.schema.get_field_index("reasons")
    return pa.Table.from_pylist(rows, verdicts.schema.set(place, pa.field("reasons", reasons)))


@pytest.fixture
def old(earlier_version: Path, folder: Path) -> Path:
    shutil.copytree(earlier_version, folder)
    return folder


@pytest.fixture
def locked(old: Path) -> Iterator[Path]:
    """The same for somebody who may not write it (root may, but must not)."""
    places = [old, *(path for path in old.rglob("*"))]
    for path in places:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield old
    for path in places:
        path.chmod(0o755 if path.is_dir() else 0o644)


def state(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file with its time of change and hash."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def versions(lake: Lake) -> list[int]:
    return [r["version"] for r in lake.rows("SELECT version FROM raw.schema_version ORDER BY 1")]


def images(lake: Lake) -> list[dict[str, Any]]:
    return lake.rows(
        "SELECT request_id, sku, outcome, state, sha256, cleared FROM images ORDER BY sku"
    )


def is_as_it_was_made(lake: Lake) -> None:
    found = images(lake)
    assert [row["sku"] for row in found] == [f"MUG-{number:05d}" for number in range(6)]
    assert [row["outcome"] for row in found] == ["pass", "pass", "pass", "review", "block", None]
    assert [row["cleared"] for row in found] == [True, True, True, False, False, False]
    assert found[0]["request_id"] == request_of(0).request_id
    assert lake.rows("SELECT DISTINCT recipe FROM requests") == [{"recipe": None}]
    (blocked,) = lake.rows("SELECT reasons FROM verdicts WHERE outcome = 'block'")
    (reason,) = blocked["reasons"]
    assert reason["rule"]
    assert [reason[name] for name in NEW_IN_REASONS] in ([None] * 4, ["normal", "", "", ""])
    scores = lake.rows("SELECT score, value, detector, revision, evidence FROM scores")
    assert len(scores) == 15
    assert {row["score"]: (row["detector"], row["revision"]) for row in scores} == {
        "similarity.nearest": ("open-clip", "r1"),
        "nsfw.unclothed": ("nsfw", "r1"),
        "quality.sharpness": ("laplace", "1"),
    }
    assert {row["value"] for row in scores if row["score"] == "quality.sharpness"} == {0.9}
    assert all(json.loads(row["evidence"])["detector"] == row["detector"] for row in scores)
    (review,) = lake.rows("SELECT * FROM reviews")
    assert (review["reviewer"], review["roles"], review["expires"]) == ("ann", None, None)
    assert [row["file"] for row in lake.rows("SELECT file FROM raw.reference_works")] == [
        "logo.png"
    ]
    for view in (
        "inputs", "training_images", "refused_items", "libraries", '"references"',
        "removed_references", "replays",
    ):  # fmt: skip
        assert lake.rows(f"SELECT * FROM {view}") == []
    used = lake.rows("SELECT DISTINCT part, model FROM models_used ORDER BY model")
    assert [(row["part"], row["model"]) for row in used] == [
        ("model", "hub/other"),
        ("model", "starter/text-to-image"),
    ]


def test_the_fixture_is_of_an_earlier_schema(old: Path, version: int) -> None:
    connection = connected()
    connection.execute("SET python_enable_replacements = false")
    _attach(connection, old / METADATA, old / DATA, read_only=True)
    later = {
        1: ("raw.inputs", "recipe FROM raw.requests"),
        2: ("raw.libraries", "raw.rescores", "detector FROM raw.scores"),
        3: ("raw.images", "raw.signatures"),
        4: ("urgency FROM raw.images", "duplicate_distance FROM raw.rescored"),
    }
    for table in later[version]:
        with pytest.raises((duckdb.CatalogException, duckdb.BinderException)):
            connection.execute(f"SELECT {table if 'FROM' in table else '* FROM ' + table}")
    connection.close()
    assert max(SCHEMAS) + 1 == SCHEMA_VERSION


def test_an_old_catalog_is_read_without_being_changed(locked: Path) -> None:
    before = state(locked)
    with reading(locked) as lake:
        is_as_it_was_made(lake)
        told = story(lake, request_of(1).request_id)
        assert told["inputs"] == [] and told["request"]["recipe"] is None
        assert len(told["scores"]) == 3 and told["manifests"]
    assert state(locked) == before
    if os.geteuid() != 0:
        with pytest.raises((SetupError, duckdb.Error)), writing(locked):
            pass


def every_question(folder: Path) -> dict[str, int]:
    """Rows by question, all asked over one copy."""
    limits = Limits()
    with isolated(folder, limits) as connection:
        found = {}
        for name, question in questions().items():
            values = {each.name: each.default for each in question.parameters}
            given = values | GIVEN.get(name, {})
            found[name] = select(connection, question.sql, given, limits, folder).table.num_rows
    return found


def test_every_question_can_be_asked_before_and_after(locked: Path, folder: Path) -> None:
    before = state(locked)
    asked = every_question(locked)
    assert state(locked) == before
    assert (asked["made-with-model"], asked["made-from"], asked["review-queue"]) == (4, 0, 1)
    for path in (locked, *locked.rglob("*")):
        path.chmod(0o755)
    with writing(folder):
        pass
    upgraded = every_question(folder)
    assert set(upgraded) == set(questions())
    assert upgraded == asked


def test_isolated_audits_cannot_change_an_old_catalog_either(old: Path) -> None:
    before = state(old)
    answer = ask(old, "assets-of-sku", {"sku": "MUG-00001"})
    assert answer.table.num_rows == 1
    with (
        isolated(old, Limits()) as connection,
        pytest.raises(duckdb.Error, match="read-only"),
    ):
        connection.execute("DELETE FROM raw.batches")
    assert state(old) == before


def test_whoever_writes_brings_it_up_to_date_and_rows_survive(old: Path, version: int) -> None:
    data = {name: kept for name, kept in state(old).items() if name.startswith(DATA)}
    with writing(old) as lake:
        assert versions(lake) == [version, SCHEMA_VERSION]
        is_as_it_was_made(lake)
        done = [request_of(number).request_id for number in range(7)]
        assert done_request_ids(lake, done) == set(done[:5])
        photo = UsedInput(0, "image", "file", "photo.png", sha256("photo"), "image/png")
        new = replace(produced_of(6, "pass"), used=(photo,))
        assert commit_batch(lake, "run-2", "b2", [new, produced_of(5)])
        create_library(lake, "brand")
    with reading(old) as lake:
        assert len(images(lake)) == 7
        assert [row["name"] for row in lake.rows("SELECT name FROM inputs")] == ["photo.png"]
        assert [row["library"] for row in lake.rows("SELECT * FROM libraries")] == ["brand"]
        assert len(lake.rows("SELECT * FROM scores")) == 21
        assert versions(lake) == [version, SCHEMA_VERSION]
    # No Parquet file of the old catalog was rewritten.
    kept = state(old)
    assert {name: kept[name] for name in data} == data
    with writing(old) as lake:
        assert versions(lake) == [version, SCHEMA_VERSION]


def _write(folder: Path, number: int) -> int:
    with writing(folder) as lake:
        commit_batch(lake, f"run-{number}", "b", [produced_of(number)])
        return len(versions(lake))


def test_writers_that_come_at_once_bring_it_up_to_date_once(old: Path, version: int) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        found = pool.starmap(_write, [(old, number) for number in (11, 12, 13)])
    assert found == [2, 2, 2]
    with reading(old) as lake:
        assert versions(lake) == [version, SCHEMA_VERSION]
        assert len(images(lake)) == 9


def test_a_reader_of_an_old_catalog_sees_what_is_written_later(old: Path) -> None:
    with reading(old) as early:
        with writing(old) as lake:
            commit_batch(lake, "run-2", "b", [produced_of(7)])
        is_as_it_was_made(early)
    with reading(old) as late:
        assert len(images(late)) == 7


def test_a_ledger_of_an_earlier_version_still_holds(old: Path, version: int) -> None:
    with writing(old) as lake:
        commit_batch(lake, "run-2", "b2", [produced_of(6, "pass")])
        verified = verify_ledger(lake, [])
    wrong = {finding.where for finding in verified.findings}
    # Nobody has signed a checkpoint.
    assert verified.rows > 6 and wrong == {"checkpoint"}, verified.findings


def test_old_rows_rank_among_new_ones_by_their_lists(old: Path) -> None:
    """What has columns of its own since version 5 is told of rows before it, too."""
    with writing(old) as lake:
        new = [produced_of(number) for number in range(5, 10)]
        commit_batch(lake, "run-2", "b2", new)
        record_rescores(lake, {(request_of(1).request_id, "0001"): duplicate_scores()})
    nearest = ask(old, "nearest-references", {"limit": "20"}).table.to_pylist()
    assert [(row["sku"], row["score"]) for row in nearest] == [
        (f"MUG-{number:05d}", "similarity.nearest") for number in (9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
    ]
    assert [row["value"] for row in nearest] == [0.5 + number / 100 for number in range(9, -1, -1)]
    (twice,) = ask(old, "duplicates").table.to_pylist()
    assert (twice["sku"], twice["distance"], twice["kind"]) == ("MUG-00001", 4, "near")
    assert twice["earlier_sku"] == "MUG-00000"
    waiting = ask(old, "review-queue").table.to_pylist()
    assert [(row["sku"], row["urgency"]) for row in waiting] == [("MUG-00003", 2), ("MUG-00008", 2)]


def duplicate_scores() -> tuple[Score, ...]:
    return (
        Score("duplicates", "exact", 0.0, {"duplicate_of": None}),
        Score("duplicates", "near", 4.0, {"nearest": {"request_id": request_of(0).request_id}}),
    )
