"""What somebody who cannot be trusted may type, and what it must not do."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from catalog_samples import begin, produced_of

from catalog.audit import Answer, Limits, ask_sql, isolated, select
from catalog.guard import TABLE_FUNCTIONS
from catalog.lake import reading, writing
from catalog.metadata import METADATA
from catalog.write import commit_batch
from pipeline.errors import InputError, SetupError

QUICK = Limits(seconds=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("attacked") / "catalog"
    with writing(made) as lake:
        begin(lake)
        commit_batch(lake, "run-1", "b1", [produced_of(n) for n in range(20)])
    (made.parent / "secret.csv").write_text("a,b\n1,2\n")
    return made


@pytest.fixture(autouse=True)
def untouched(folder: Path) -> Iterator[None]:
    """Whatever is asked, neither the catalog's files nor their neighbours change."""
    before = contents(folder.parent)
    yield
    assert contents(folder.parent) == before


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): sha256(path.read_bytes()).hexdigest() for path in files}


def rows(answer: Answer) -> list[dict[str, object]]:
    found: list[dict[str, object]] = answer.table.to_pylist()
    return found


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) AS n FROM images",
        "select count(*) as n from lake.images;",
        "SELECT count(*) AS n FROM lake.main.images -- a comment",
        "FROM images SELECT count(*) AS n",
        "WITH a AS (SELECT * FROM images) SELECT count(*) AS n FROM a",
        'SELECT 20 + count(*) AS n FROM "references"',
        "SELECT count(*) AS n FROM raw.requests",
        "SELECT count(*)::BIGINT AS n FROM (SELECT unnest(range(20)))",
        "SELECT max(seed) + 1 AS n FROM images AT (VERSION => 3)",
    ],
)
def test_one_select_over_the_catalog_is_answered(folder: Path, sql: str) -> None:
    assert rows(ask_sql(folder, sql, QUICK)) == [{"n": 20}]


@pytest.mark.parametrize("sql", ["DESCRIBE images", "SUMMARIZE requests", "SHOW TABLES"])
def test_tables_can_be_described(folder: Path, sql: str) -> None:
    assert rows(ask_sql(folder, sql, QUICK))


def attacks(folder: Path) -> list[str]:
    metadata, secret = folder / METADATA, folder.parent / "secret.csv"
    parquet = next((folder / "data").rglob("*.parquet"))
    target = folder.parent / "evil"
    return [
        # Other statements, alone, after a SELECT, explained, or hidden
        f"COPY (SELECT 1) TO '{target}'",
        f"COPY (SELECT 1) TO '{metadata}' (use_tmp_file false)",
        f"SELECT 1; COPY (SELECT 1) TO '{target}'",
        f"EXPLAIN ANALYZE COPY (SELECT 1) TO '{target}'",
        "EXPLAIN SELECT 1",
        "DELETE FROM raw.requests",
        "INSERT INTO raw.run_ends (run_id) VALUES ('x') RETURNING *",
        "UPDATE raw.requests SET sku = 'x'",
        "DROP VIEW images",
        "CREATE TABLE t (a INTEGER)",
        "CREATE TEMP MACRO f() AS 1",
        f"ATTACH '{metadata}' AS other (TYPE sqlite)",
        f"ATTACH '{target}' AS other",
        "DETACH lake",
        "USE memory",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "RESET allowed_directories",
        "PRAGMA database_list",
        "PRAGMA version",
        "PRAGMA enable_logging",
        "CALL ducklake_delete_orphaned_files('lake', cleanup_all => true)",
        "CALL enable_logging()",
        "CREATE SECRET s (TYPE s3)",
        "INSTALL httpfs",
        "LOAD httpfs",
        "EXPORT DATABASE 'x'",
        "IMPORT DATABASE 'x'",
        "CHECKPOINT lake",
        "VACUUM",
        "BEGIN",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "SELECT 1; SELECT 2",
        "",
        "-- nothing",
        ";",
        "nonsense",
        "SELECT 1 INTO t",
        "WITH x AS (DELETE FROM raw.requests RETURNING *) SELECT * FROM x",
        "PIVOT images ON outcome USING count(*)",
        # Files
        f"SELECT * FROM '{secret}'",
        f'SELECT * FROM "{secret}"',
        f"SELECT * FROM '{parquet}'",
        f"DESCRIBE '{parquet}'",
        f"SUMMARIZE '{secret}'",
        *(
            f"SELECT * FROM {function}('{path}')"
            for function in ("read_text", "read_blob", "read_csv", "read_parquet", "glob")
            for path in (secret, parquet, metadata, "/etc/passwd")
        ),
        f"SELECT * FROM parquet_metadata('{parquet}')",
        f"SELECT * FROM sniff_csv('{secret}')",
        f"SELECT * FROM read_json_auto('{secret}')",
        f"SELECT * FROM read_duckdb('{secret}')",
        "SELECT * FROM read_csv('http://127.0.0.1:9/x')",
        "SELECT * FROM 'https://example.com/x.parquet'",
        f"SELECT (SELECT content FROM read_text('{secret}'))",
        f"SELECT * FROM images WHERE sku IN (SELECT content FROM read_text('{secret}'))",
        f"WITH a AS (SELECT * FROM read_text('{secret}')) SELECT * FROM a",
        f"SELECT * FROM images, LATERAL (SELECT * FROM read_text('{secret}'))",
        f"SELECT * FROM images UNION ALL SELECT * FROM read_text('{secret}')",
        f"SELECT * FROM images ORDER BY (SELECT count(*) FROM glob('{secret}'))",
        f"SELECT list_transform([1], lambda x: (SELECT count(*) FROM glob('{secret}')))",
        f"FROM READ_TEXT('{secret}')",
        f"FROM main.read_text('{secret}')",
        f"FROM \"read_text\"('{secret}')",
        # Metadata, other databases, settings, secrets, environment
        f"SELECT * FROM sqlite_scan('{metadata}', 'ducklake_metadata')",
        "SELECT * FROM sqlite_query('__ducklake_metadata_lake', 'DELETE FROM ducklake_table')",
        f"SELECT * FROM sqlite_attach('{metadata}')",
        "SELECT * FROM __ducklake_metadata_lake.ducklake_data_file",
        "SELECT * FROM __ducklake_metadata_lake.main.ducklake_data_file",
        "SELECT * FROM duckdb_secrets()",
        "SELECT * FROM which_secret('s3://x', 's3')",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM duckdb_databases()",
        "SELECT * FROM duckdb_extensions()",
        "SELECT * FROM duckdb_logs()",
        "SELECT current_setting('allowed_directories')",
        "SELECT getenv('HOME')",
        "SELECT 'HOME'.getenv()",
        "SELECT write_log('x')",
        "SELECT sleep_ms(100000)",
        # SQL within SQL, and functions that change a lake
        f"SELECT * FROM query('COPY (SELECT 1) TO ''{target}''')",
        "SELECT * FROM query('FROM duckdb_secrets()')",
        "SELECT * FROM query_table('images')",
        "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
        "SELECT * FROM ducklake_delete_orphaned_files('lake', cleanup_all => true)",
        "SELECT * FROM ducklake_cleanup_old_files('lake', cleanup_all => true)",
        "SELECT * FROM ducklake_expire_snapshots('lake', versions => [1])",
        "SELECT * FROM ducklake_merge_adjacent_files('lake')",
        "SELECT * FROM ducklake_flush_inlined_data('lake')",
        "SELECT * FROM ducklake_set_option('lake', 'parquet_compression', 'zstd')",
        f"SELECT * FROM ducklake_add_data_files('lake', 'requests', '{secret}', schema => 'raw')",
        "SELECT * FROM ducklake_list_files('lake', 'requests', schema => 'raw')",
        "SELECT * FROM checkpoint('lake')",
        "SELECT * FROM enable_logging()",
        "SELECT * FROM python_map_function()",
    ]


def test_nothing_but_a_select_over_the_catalog_gets_through(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    got_through = []
    with isolated(folder, QUICK) as connection:
        for sql in attacks(folder):
            try:
                select(connection, sql, {}, QUICK, folder)
            except InputError:
                continue
            got_through.append(sql)
    assert got_through == []
    assert list(tmp_path.iterdir()) == []


def test_a_python_variable_is_not_a_table(folder: Path) -> None:
    import pyarrow as pa

    secret = pa.table({"a": [1]})
    with pytest.raises(InputError, match="secret"):
        ask_sql(folder, "SELECT * FROM secret", QUICK)
    assert secret.num_rows == 1


def test_the_guard_is_not_the_only_wall(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files outside stay shut and the lake unwritten when every table function is let through."""
    monkeypatch.setattr("catalog.guard.TABLE_FUNCTIONS", AllNames())
    monkeypatch.chdir(tmp_path)
    secret = folder.parent / "secret.csv"
    for sql in (
        f"SELECT * FROM read_text('{secret}')",
        "SELECT * FROM read_blob('/etc/passwd')",
        f"SELECT * FROM glob('{folder.parent}/*')",
        "SELECT * FROM read_csv('http://127.0.0.1:9/x')",
        "SELECT * FROM ducklake_delete_orphaned_files('lake', cleanup_all => true)",
        "SELECT * FROM ducklake_expire_snapshots('lake', versions => [1])",
    ):
        with pytest.raises((InputError, SetupError)):
            ask_sql(folder, sql, QUICK)
    assert rows(ask_sql(folder, "SELECT * FROM duckdb_secrets()", QUICK)) == []


class AllNames(frozenset[str]):
    def __contains__(self, name: object) -> bool:
        return True


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM range(100000) a, range(1000000000) b WHERE a.range + b.range < 0",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r",
        "SELECT i FROM range(1000000000000) t(i) WHERE i % 1000000007 = 1000000006",
    ],
)
def test_endless_work_is_stopped(folder: Path, sql: str) -> None:
    begun = time.monotonic()
    with pytest.raises(InputError, match="longer than 1 s"):
        ask_sql(folder, sql, Limits(seconds=1))
    assert time.monotonic() - begun < 15


def test_memory_is_bounded(folder: Path) -> None:
    with pytest.raises(InputError, match="more memory"):
        ask_sql(
            folder, "SELECT list(i::VARCHAR) FROM range(100000000) t(i)", Limits(memory="100MB")
        )


def test_too_large_an_answer_is_refused_never_cut(folder: Path) -> None:
    with pytest.raises(InputError, match="more than 1,000 rows"):
        ask_sql(folder, "FROM range(1001)", Limits(rows=1000))
    assert ask_sql(folder, "FROM range(1000)", Limits(rows=1000)).table.num_rows == 1000
    with pytest.raises(InputError, match="more than 1 MiB"):
        ask_sql(folder, "SELECT repeat('x', 100000) FROM range(100)", Limits(megabytes=1))


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT * FROM references", "in double quotes"),
        ("SELECT colour FROM images", "colour"),
        ("SELECT * FROM imagse", "images"),
        ("SELECT 1 +", "syntax error"),
        ("SELECT 'x'::INTEGER", "Could not convert"),
        ("SELECT $days", "parameter"),
        ("SELECT " + "1 + " * 40_000 + "1", "longer than"),
        ("SELECT " + "(" * 20_000 + "1" + ")" * 20_000, "SQL"),
    ],
)
def test_wrong_sql_is_answered_with_what_is_wrong(folder: Path, sql: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        ask_sql(folder, sql, QUICK)


def test_no_allowed_table_function_takes_a_file() -> None:
    assert not {name for name in TABLE_FUNCTIONS if "read" in name or "scan" in name}


def write_while(folder: Path, stop: Path) -> None:
    with writing(folder) as lake:
        for number in range(100, 10_000, 2):
            commit_batch(lake, "run-2", str(number), [produced_of(number), produced_of(number + 1)])
            if stop.exists():
                return


def test_an_audit_works_while_a_flow_writes(tmp_path: Path) -> None:
    folder, stop = tmp_path / "catalog", tmp_path / "stop"
    with writing(folder) as lake:
        commit_batch(lake, "run-1", "b1", [produced_of(1), produced_of(2)])
        writer = multiprocessing.get_context("spawn").Process(
            target=write_while, args=(folder, stop)
        )
        writer.start()
        seen = []
        try:
            # The flow's own process reads too, with its connection open.
            while len(seen) < 20 and (not seen or seen[-1] < 8):
                answer = ask_sql(folder, "SELECT count(*) AS n, count(sha256) AS f FROM images")
                (row,) = answer.table.to_pylist()
                assert row["n"] == row["f"] and row["n"] % 2 == 0, "half a batch was seen"
                seen.append(row["n"])
                assert commit_batch(lake, "run-1", f"own-{len(seen)}", []) is True
        finally:
            stop.touch()
            writer.join(60)
    assert writer.exitcode == 0
    assert seen == sorted(seen) and seen[-1] > 2, seen
    with reading(folder) as lake:
        assert lake.rows("SELECT count(*) % 2 AS odd FROM raw.requests") == [{"odd": 0}]
