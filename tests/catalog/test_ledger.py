"""The ledger notices what was done behind its back, names it, and cries no wolf."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_samples import commit, copied, sample, tampered, verified

from catalog.lake import reading, writing
from catalog.ledger import append_rows, append_table, enter_found
from catalog.ledger_checkpoints import ready_to_sign, write_checkpoint
from catalog.ledger_forms import columns_of, row_form
from catalog.ledger_notes import LAST_FILE, notes_in, verifier_in
from catalog.ledger_rows import hashed_rows, row_hash, row_parts
from catalog.upkeep import merge_small_files
from pipeline.errors import SetupError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample(tmp_path_factory.mktemp("ledger") / "workspace")


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return copied(made, tmp_path / "workspace")


def test_a_clean_catalog_verifies(root: Path) -> None:
    answer = verified(root)

    assert answer.ok, answer.findings
    assert answer.rows > 30
    assert (answer.checkpoints, answer.open_entries, answer.found_rows) == (2, 0, 0)


def test_it_verifies_after_files_are_merged_columns_added_and_runs_gone_on(root: Path) -> None:
    with writing(root / "catalog") as lake:
        merge_small_files(lake)
        lake.connection.execute("ALTER TABLE raw.library_works ADD COLUMN mood VARCHAR")
        lake.connection.execute("ALTER TABLE raw.terms ADD COLUMN salt BLOB")
        commit(lake, range(30, 33), "b3")

    answer = verified(root)

    assert answer.ok, answer.findings
    assert answer.open_entries == 3


@pytest.mark.parametrize(
    ("sql", "what", "named"),
    [
        (
            "UPDATE raw.library_works SET licence = 'MIT' WHERE work_id = 3",
            "changed row",
            r"library_works 0{12} \(row 4 of commit \w+",
        ),
        ("DELETE FROM raw.library_works WHERE work_id = 0", "removed row", "row 1 of commit"),
        ("DELETE FROM raw.library_works", "removed row", "row 6 of commit"),
        (
            "INSERT INTO raw.library_works SELECT * FROM raw.library_works LIMIT 1",
            "added row",
            "library_works 0{12}",
        ),
        (
            "CREATE TEMP TABLE two AS SELECT * FROM raw.library_works WHERE work_id IN (1, 4);"
            "UPDATE raw.library_works SET title = t.title, work_id = t.work_id, note = t.note, "
            "file = t.file, rights_holder = t.rights_holder, sha256 = t.sha256, salt = t.salt, "
            "added_at = t.added_at "
            "FROM two AS t "
            "WHERE t.work_id <> library_works.work_id AND library_works.work_id IN (1, 4)",
            "reordered row",
            "2 rows changed places",
        ),
        ("UPDATE raw.library_works SET note = NULL WHERE work_id = 2", "changed row", "row 3"),
        ("UPDATE raw.library_works SET note = '' WHERE note IS NULL", "", ""),
        ("UPDATE raw.library_works SET expires = DATE '2030-01-01'", "changed row", "row 6"),
        ("UPDATE raw.manifests SET manifest = 'x'::BLOB WHERE rowid = 0", "changed row", "row 1"),
        ("UPDATE raw.manifests SET salt = NULL WHERE rowid = 0", "changed row", "manifests"),
        ("DROP TABLE raw.library_works", "removed table", "library_works"),
        ("DELETE FROM raw.ledger_entries WHERE rowid = 2", "changed ledger", "entries 0–"),
        ("DELETE FROM raw.ledger_entries", "removed ledger", "entries from 0"),
        (
            "UPDATE raw.ledger_entries SET entered_at = now() WHERE rowid = 1",
            "changed ledger",
            "entries 0–",
        ),
        (
            "UPDATE raw.ledger_entries SET row_keys = 'x' WHERE rowid = 1",
            "changed ledger",
            "its row keys were changed",
        ),
        (
            "UPDATE raw.ledger_entries SET row_hashes = row_hashes || row_hashes WHERE rowid = 1",
            "changed ledger",
            "row hashes for",
        ),
        (
            "INSERT INTO raw.ledger_entries SELECT * FROM raw.ledger_entries LIMIT 1",
            "removed row",
            "of commit",
        ),
        (
            "UPDATE raw.ledger_checkpoints SET checkpoint = replace(checkpoint, 'run-1', 'run-2')",
            "forged checkpoint",
            "1 .*signature does not fit",
        ),
        ("DELETE FROM raw.ledger_checkpoints WHERE rowid = 0", "removed checkpoint", "before 1"),
        ("DELETE FROM raw.ledger_checkpoints WHERE rowid = 1", "removed checkpoint", "kept in"),
        ("DELETE FROM raw.ledger_checkpoints", "removed checkpoint", "kept in"),
        ('UPDATE raw.ledger_checkpoints SET "size" = 3', "changed checkpoint", "what it signs"),
    ],
)
def test_what_was_tampered_with_is_named(root: Path, sql: str, what: str, named: str) -> None:
    found = [str(one) for one in tampered(root, sql)]

    if not what:
        assert not found
    else:
        assert any(one.startswith(what) and re.search(named, one) for one in found), found


def test_a_damaged_parquet_file_is_named_not_raised(root: Path) -> None:
    file = max((root / "catalog").rglob("*.parquet"), key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    data[40:200] = bytes(160)
    file.write_bytes(data)

    assert verified(root).findings

    file.unlink()

    assert any(one.what == "unreadable" for one in verified(root).findings)


def test_an_older_catalog_put_back_is_found_and_nothing_is_signed_upon_it(
    root: Path, tmp_path: Path
) -> None:
    old = copied(root / "catalog", tmp_path / "old")
    with writing(root / "catalog") as lake:
        commit(lake, range(40, 42), "b9")
        newest = write_checkpoint(lake, root / "ledger", "run run-2").note
    shutil.rmtree(root / "catalog")
    shutil.move(old, root / "catalog")

    assert any("is not in the catalog" in str(one) for one in verified(root).findings)
    with writing(root / "catalog") as lake, pytest.raises(SetupError, match="older than its last"):
        write_checkpoint(lake, root / "ledger", "run run-3")

    # An attacker who removes the kept checkpoint too fails against a witness.
    before = root / "ledger" / LAST_FILE
    before.unlink()
    with writing(root / "catalog") as lake:
        write_checkpoint(lake, root / "ledger", "run run-3")
    assert verified(root).ok
    assert any("kept in a witness" in str(one) for one in verified(root, newest).findings)


def test_a_missing_kept_checkpoint_is_told(root: Path) -> None:
    (root / "ledger" / LAST_FILE).unlink()

    (found,) = verified(root).findings

    assert str(found).startswith("removed checkpoint kept in") and LAST_FILE in found.key


@pytest.mark.parametrize("left", [1, 30, 120, -60, -2])
def test_a_witness_whose_writer_was_stopped_is_whole_after_the_next_checkpoint(
    root: Path, tmp_path: Path, left: int
) -> None:
    witness = tmp_path / "witness.txt"
    with writing(root / "catalog") as lake:
        for number in range(2):
            commit(lake, [40 + number], f"w{number}")
            write_checkpoint(lake, root / "ledger", f"run {number}", [str(witness)])
    first, second = notes_in(witness.read_text())
    whole = f"{first}\n{second}".encode()
    witness.write_bytes(whole[: len(whole) + left if left < 0 else len(first.encode()) + 1 + left])
    assert verified(root, *notes_in(witness.read_text("utf-8", "replace"))).ok

    with writing(root / "catalog") as lake:
        commit(lake, [50], "w2")
        third = write_checkpoint(lake, root / "ledger", "run 2", [str(witness)])

    notes = notes_in(witness.read_text("utf-8", "replace"))
    assert (notes[0], notes[-1], third.unreached) == (first, third.note, ())
    assert verified(root, *notes).ok


def test_a_witness_that_holds_nothing_whole_is_told(root: Path) -> None:
    note = (root / "ledger" / LAST_FILE).read_text()

    assert any("kept in a witness" in str(one) for one in verified(root, note[:50]).findings)


@pytest.mark.parametrize("content", [b"no key", b"", None])
def test_an_unusable_key_is_told_before_a_run(root: Path, content: bytes | None) -> None:
    key = root / "ledger" / "key.pem"
    key.unlink()
    if content is None:
        key.mkdir()
    else:
        key.write_bytes(content)

    with writing(root / "catalog") as lake, pytest.raises(SetupError, match="is unusable"):
        ready_to_sign(lake, root / "ledger")


def test_a_folder_that_cannot_be_read_is_told_with_what_helps(tmp_path: Path) -> None:
    (tmp_path / "verifier.txt").symlink_to("verifier.txt")

    with pytest.raises(SetupError, match="--key FILE"):
        verifier_in(tmp_path)


def test_who_has_the_key_and_rewrites_all_fails_against_a_witness(root: Path) -> None:
    kept = (root / "ledger" / LAST_FILE).read_text()
    with writing(root / "catalog") as lake:
        lake.connection.execute(
            "DELETE FROM raw.ledger_entries; DELETE FROM raw.ledger_checkpoints;"
            "UPDATE raw.library_works SET licence = 'MIT'"
        )
        (root / "ledger" / LAST_FILE).unlink()
        lake.transact(enter_found)
        write_checkpoint(lake, root / "ledger", "run run-1")

    assert verified(root).ok
    assert not verified(root, kept).ok


def test_rows_from_before_the_ledger_are_entered_as_found(root: Path) -> None:
    with writing(root / "catalog") as lake:
        lake.connection.execute(
            "DELETE FROM raw.ledger_entries; DELETE FROM raw.ledger_checkpoints"
        )
        (root / "ledger" / LAST_FILE).unlink()
        entered = lake.transact(enter_found)
        assert lake.transact(enter_found) == 0
        commit(lake, range(50, 52), "b5")
        write_checkpoint(lake, root / "ledger", "upgrade")

    answer = verified(root)

    assert answer.ok, answer.findings
    assert answer.found_rows == entered > 0


def test_a_commit_that_fails_leaves_no_entry(root: Path) -> None:
    table = pa.Table.from_pylist([{"library": "gone", "note": "n"}])

    def fail(connection: object) -> None:
        append_rows(connection, "libraries", table)  # type: ignore[arg-type]
        raise RuntimeError

    with writing(root / "catalog") as lake:
        with pytest.raises(RuntimeError):
            lake.transact(fail)
        commit(lake, range(60, 62), "b6")

    assert verified(root).ok


def test_large_commits_are_several_entries(root: Path) -> None:
    with writing(root / "catalog") as lake:
        lake.connection.execute(
            "CREATE TEMP TABLE many AS SELECT 'l' || range AS library, 'n' AS note "
            "FROM range(70_000)"
        )
        lake.transact(lambda connection: append_table(connection, "libraries", "temp.many"))

    answer = verified(root)

    assert answer.ok, answer.findings
    assert answer.open_entries == 2


TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
REASON = st.fixed_dictionaries(
    {
        "outcome": st.none() | TEXT,
        "text": st.none() | TEXT,
        "score": st.none() | st.floats(),
        "evidence": st.none() | st.just('{"a": [1, null]}'),
    }
)
ROW = st.fixed_dictionaries(
    {
        "request_id": TEXT,
        "reasons": st.none() | st.lists(st.none() | REASON, max_size=3),
        "decided_at": st.none()
        | st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)),
    }
)
OTHER = st.fixed_dictionaries(
    {
        "review_id": TEXT,
        "roles": st.none() | st.lists(st.none() | TEXT, max_size=3),
        "reason": st.none() | TEXT,
        "reviewer": st.none() | TEXT,
    }
)
SCORE = st.fixed_dictionaries(
    {"pack_id": TEXT, "expires": st.none() | st.dates(date(1, 1, 1)), "size": st.integers(0, 2**62)}
)


@given(
    st.lists(ROW, min_size=5, max_size=20),
    st.lists(OTHER, min_size=5, max_size=20),
    st.lists(SCORE, min_size=5, max_size=20),
)
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_row_reads_back_to_its_hash(
    root: Path, rows: list[object], others: list[object], packs: list[object]
) -> None:
    reason = pa.struct(
        [
            ("outcome", pa.string()),
            ("text", pa.string()),
            ("score", pa.float64()),
            ("evidence", pa.string()),
        ]
    )
    schema = pa.schema(
        [
            ("request_id", pa.string()),
            ("reasons", pa.list_(reason)),
            ("decided_at", pa.timestamp("us", tz="UTC")),
        ]
    )
    full = pa.schema(
        [
            ("review_id", pa.string()),
            ("roles", pa.list_(pa.string())),
            ("reason", pa.string()),
            ("reviewer", pa.string()),
        ]
    )

    def append(connection: object) -> None:
        for name, table in (
            ("replayed_verdicts", _whole_reasons(pa.Table.from_pylist(rows, schema=schema))),
            ("reviews", pa.Table.from_pylist(others, schema=full)),
            ("packs", pa.Table.from_pylist(packs)),
        ):
            append_rows(connection, name, table)  # type: ignore[arg-type]

    with writing(root / "catalog") as lake:
        lake.transact(append)

    answer = verified(root)
    assert answer.ok, answer.findings
    # Both ways of hashing a row say the same: DuckDB's, of whole tables, and Python's, of one row.
    with reading(root / "catalog") as lake:
        for name in ("replayed_verdicts", "reviews", "packs", "manifests", "images", "settled"):
            form = row_form(columns_of(lake.connection, f"raw.{name}"))
            blocks = hashed_rows(lake.connection, f"raw.{name}", form, {})
            by_duckdb = b"".join(block.hashes for block in blocks)
            table = lake.connection.execute(
                f"SELECT rowid, {form.select} FROM raw.{name} ORDER BY rowid"
            ).to_arrow_table()
            parts = [one for batch in table.to_batches() for one in row_parts(batch, form)]
            assert by_duckdb == b"".join(row_hash(one, {}) for one in parts), name


def _whole_reasons(table: pa.Table) -> pa.Table:
    """With the struct's other fields, as the catalog's own writers give them."""
    names = ("outcome", "rule", "text", "score", "bound", "evidence", "severity", "declared")
    names += ("detector", "revision")
    real = {"score", "bound"}
    reason = pa.struct([(n, pa.float64() if n in real else pa.string()) for n in names])
    rows = [
        {
            **row,
            "reasons": row["reasons"]
            and [one and dict.fromkeys(names) | one for one in row["reasons"]],
        }
        for row in table.to_pylist()
    ]
    fields = [
        pa.field("reasons", pa.list_(reason)) if field.name == "reasons" else field
        for field in table.schema
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))
