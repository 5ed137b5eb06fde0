"""What somebody who cannot be trusted may type, and what it must not do."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from catalog_samples import begin, produced_of

from catalog.audit import Answer, Limits, ask_sql, isolated, select
from catalog.guard import REFUSED_FUNCTIONS, TABLE_FUNCTIONS
from catalog.lake import reading, writing
from catalog.metadata import METADATA
from catalog.write import commit_batch
from pipeline.errors import InputError, SetupError

QUICK = Limits(seconds=20)
Ask = Callable[[str], Answer]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("attacked") / "catalog"
    with writing(made) as lake:
        begin(lake)
        commit_batch(lake, "run-1", "b1", [produced_of(n) for n in range(20)])
    (made.parent / "secret.csv").write_text("a,b\n1,2\n")
    return made


@pytest.fixture(scope="module")
def ask(folder: Path) -> Iterator[Ask]:
    """Asks as `ask_sql` does, on one connection for all tests: to open one takes a second."""
    with isolated(folder, QUICK) as connection:
        yield lambda sql: select(connection, sql, {}, QUICK, folder)


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
        "SELECT count(*) AS n FROM raw.images",
        "SELECT count(*)::BIGINT AS n FROM (SELECT unnest(range(20)))",
        "SELECT max(seed) + 1 AS n FROM images AT (VERSION => 3)",
    ],
)
def test_one_select_over_the_catalog_is_answered(ask: Ask, sql: str) -> None:
    assert rows(ask(sql)) == [{"n": 20}]


@pytest.mark.parametrize("sql", ["DESCRIBE images", "SUMMARIZE requests", "SHOW TABLES"])
def test_tables_can_be_described(ask: Ask, sql: str) -> None:
    assert rows(ask(sql))


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
        "DELETE FROM raw.images",
        "INSERT INTO raw.run_ends (run_id) VALUES ('x') RETURNING *",
        "UPDATE raw.images SET sku = 'x'",
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
        "WITH x AS (DELETE FROM raw.images RETURNING *) SELECT * FROM x",
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
        "SELECT * FROM ducklake_table_info('lake')",
        "SELECT * FROM ducklake_options('lake')",
        "SELECT * FROM ducklake_table_changes('lake', 'raw', 'requests', 1, 2)",
        "SELECT * FROM ducklake_rewrite_data_files('lake')",
        "SELECT * FROM lake.set_option('parquet_compression', 'zstd')",
        "CALL lake.merge_adjacent_files()",
        "SELECT * FROM sqlite_master",
        "SELECT * FROM sqlite_schema",
        "SELECT * FROM pragma_database_list",
        "SELECT * FROM duckdb_databases",
        "SELECT * FROM DuckDB_Databases",
        "SELECT * FROM main.duckdb_settings",
        "SELECT * FROM pragma_database_list()",
        "SELECT * FROM pragma_storage_info('images')",
        "SELECT * FROM system.main.duckdb_settings()",
        "SELECT * FROM memory.main.x",
        "SELECT * FROM temp.information_schema.tables",
        "SELECT * FROM duckdb_functions()",
        "SELECT * FROM duckdb_memory()",
        "SELECT * FROM duckdb_temporary_files()",
        "SELECT * FROM duckdb_variables()",
        "SELECT * FROM pg_catalog.pg_settings",
        "SELECT * FROM test_all_types()",
        "SELECT * FROM repeat_row(1, num_rows => 10)",
        "SELECT * FROM seq_scan('images')",
        "SELECT * FROM arrow_scan(1, 2, 3)",
        "SELECT * FROM pandas_scan(1)",
        "SELECT * FROM force_download('https://example.com')",
        "SELECT * FROM getenv('HOME')",
        "SELECT getvariable('x')",
        "SELECT main.getenv('HOME')",
        "SELECT system.main.getenv('HOME')",
        "SELECT \"getenv\"('HOME')",
        "SELECT GETENV('HOME')",
        "SELECT count(*) FILTER (getenv('HOME') = '/root') FROM images",
        "SELECT list_transform(['HOME'], lambda x: getenv(x))",
        "SELECT sum(seed) OVER (ORDER BY getenv('HOME')) FROM images",
        "SELECT * FROM images ORDER BY getenv('HOME')",
        "SELECT * FROM images LIMIT (SELECT length(getenv('HOME')))",
        "VALUES (getenv('HOME'))",
        "SELECT * FROM (VALUES (getenv('HOME'))) t",
        "SELECT nextval('s')",
        # Comments, white space and letters that look like others
        f"/* SELECT */ COPY (SELECT 1) TO '{target}'",
        f"SELECT 1 --\n; COPY (SELECT 1) TO '{target}'",
        f"SELECT 1; /* */ COPY (SELECT 1) TO '{target}'; --",
        f"FROM/**/read_text('{secret}')",
        f"FROM read_text/* x */('{secret}')",
        f"FROM\u00a0read_text('{secret}')",
        f"FROM\ufeffread_text('{secret}')",
        f"\ufeffCOPY (SELECT 1) TO '{target}'",
        f"FROM ｒead_text('{secret}')",
        f"FROM read_te\u200bxt('{secret}')",
        f"FROM U&\"read\\005ftext\"('{secret}')",
        f"SELECT * FROM $${secret}$$",
        f"SELECT * FROM e'{secret}'",
        "SELECT * FROM duc\u212adb_settings()",
        "SELECT \x00 FROM images",
        f"SELECT * FROM '{secret}\x00.csv'",
        # Places beyond the workspace, and the network
        "SELECT * FROM '/dev/stdin'",
        "SELECT * FROM '/proc/self/environ'",
        "SELECT * FROM read_text('/proc/self/environ')",
        "SELECT * FROM read_csv('https://127.0.0.1/x')",
        "SELECT * FROM read_parquet('s3://bucket/x')",
        "SELECT * FROM 'hf://datasets/x/y.csv'",
        "SELECT * FROM '\\\\host\\share\\x.csv'",
        f"SELECT * FROM '{folder.name}/../secret.csv'",
        # As of, abused
        "SELECT * FROM images AT (VERSION => 999999)",
        "SELECT * FROM images AT (TIMESTAMP => '1970-01-01')",
        f"SELECT * FROM images AT (VERSION => (SELECT count(*) FROM glob('{secret}')))",
        "SELECT * FROM images AT (VERSION => getenv('HOME'))",
    ]


def test_nothing_but_a_select_over_the_catalog_gets_through(
    ask: Ask, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    got_through = []
    for sql in attacks(folder):
        try:
            ask(sql)
        except InputError:
            continue
        got_through.append(sql)
    assert got_through == []
    assert list(tmp_path.iterdir()) == []


def test_a_python_variable_is_not_a_table(ask: Ask) -> None:
    import pyarrow as pa

    secret = pa.table({"a": [1]})
    with pytest.raises(InputError, match="secret"):
        ask("SELECT * FROM secret")
    assert secret.num_rows == 1


def test_the_guard_is_not_the_only_wall(
    ask: Ask, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files outside stay shut and the lake unwritten when every table function is let through."""
    monkeypatch.setattr("catalog.guard.TABLE_FUNCTIONS", AllNames())
    monkeypatch.chdir(tmp_path)
    reached = []
    secret = folder.parent / "secret.csv"
    for sql in (
        f"SELECT * FROM read_text('{secret}')",
        "SELECT * FROM read_blob('/etc/passwd')",
        f"SELECT * FROM glob('{folder.parent}/*')",
        "SELECT * FROM read_csv('http://127.0.0.1:9/x')",
        "SELECT * FROM ducklake_delete_orphaned_files('lake', cleanup_all => true)",
        "SELECT * FROM ducklake_expire_snapshots('lake', versions => [1])",
    ):
        try:
            ask(sql)
        except (InputError, SetupError):
            continue
        reached.append(sql)
    assert reached == []
    assert rows(ask("SELECT * FROM duckdb_secrets()")) == []


class AllNames(frozenset[str]):
    def __contains__(self, name: object) -> bool:
        return True


UNINTERRUPTED = "SELECT levenshtein(repeat('a', 200000), repeat('b', 200000))"
BOMBS = [
    # Work without end
    "SELECT count(*) FROM range(100000) a, range(1000000000) b WHERE a.range + b.range < 0",
    "SELECT count(*) FROM images a, images b, images c, images d, images e, images f, images g",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r",
    "WITH RECURSIVE r AS (SELECT 1 n UNION ALL SELECT n + 1 FROM r, range(1000)) "
    "SELECT count(*) FROM r",
    "SELECT i FROM range(1000000000000) t(i) WHERE i % 1000000007 = 1000000006",
    # One call that never comes back to where DuckDB looks at the clock
    UNINTERRUPTED,
    # One value larger than the memory
    "SELECT length(repeat('x', 4000000000))",
    "SELECT length(repeat(repeat('x', 1000000), 3000))",
    "SELECT length(printf('%2000000000d', 1))",
    "SELECT len(range(1000000000))",
    "SELECT len(list_resize([1], 1000000000))",
    "WITH RECURSIVE r AS (SELECT 'x' s UNION ALL SELECT s || s FROM r) SELECT max(s) FROM r",
    # Many values larger than the memory
    "SELECT list(i::VARCHAR) FROM range(100000000) t(i)",
    "SELECT length(string_agg(repeat('x', 1000000), '')) FROM range(3000)",
]


@pytest.mark.parametrize("sql", BOMBS)
def test_time_and_memory_are_bounded(folder: Path, sql: str) -> None:
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"longer than 0.5 s|more memory than 100MB"):
        ask_sql(folder, sql, Limits(seconds=0.5, memory="100MB", megabytes=64))
    assert time.monotonic() - begun < 25


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT regexp_matches(repeat('a', 100000) || 'b', '(a+)+$')",
        "SELECT repeat('a', 30000) LIKE '%a%a%a%a%a%a%a%b'",
        "SELECT repeat('a', 3000) SIMILAR TO '(a|a)*b'",
    ],
)
def test_patterns_that_blow_up_elsewhere_are_answered_at_once(ask: Ask, sql: str) -> None:
    assert list(rows(ask(sql))[0].values()) == [False]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + "NOT " * 15_000 + "true",
        "SELECT " + "[" * 5_000 + "1" + "]" * 5_000,
        "SELECT " + "1 + " * 15_000 + "1",
        "SELECT regexp_matches('a', '((a{0,100}){0,100}){0,100}')",
        "SELECT factorial(1000000)",
        "SELECT bar(1, 0, 1, 100000000)",
    ],
)
def test_what_is_too_deep_or_too_large_for_duckdb_is_an_error(ask: Ask, sql: str) -> None:
    with pytest.raises(InputError):
        ask(sql)


def test_the_process_that_answers_is_gone_with_the_answer(folder: Path) -> None:
    with pytest.raises(InputError, match="longer than"):
        ask_sql(folder, UNINTERRUPTED, Limits(seconds=0.5))
    commands = Path("/proc").glob("[0-9]*/task/[0-9]*/children")
    mine = [path for path in commands if path.parts[2] == str(os.getpid())]
    assert not "".join(path.read_text() for path in mine).split()


def test_what_is_answered_apart_is_what_is_answered_here(folder: Path, ask: Ask) -> None:
    for sql in ("SELECT * EXCLUDE (recorded_at) FROM images ORDER BY sku", "SELECT 1 AS a, 2 AS a"):
        apart, here = ask_sql(folder, sql, QUICK), ask(sql)
        assert apart.types == here.types and apart.table.equals(here.table)


def test_columns_of_one_name_do_not_hide_each_other(ask: Ask) -> None:
    assert rows(ask("SELECT 1 AS a, 2 AS a, 3 AS a_2")) == [{"a": 1, "a_2": 2, "a_2_2": 3}]


def test_an_error_tells_nothing_of_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that answers has no secrets to tell."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2")
    secret = folder.parent / "secret.csv"
    for sql in (
        f"SELECT * FROM read_text('{secret}')",
        f"SELECT error((SELECT content FROM read_text('{secret}')))",
        "SELECT error(getenv('AWS_SECRET_ACCESS_KEY'))",
        "SELECT CAST(getenv('AWS_SECRET_ACCESS_KEY') AS INTEGER)",
        "SELECT CAST(content AS INTEGER) FROM read_text('/proc/self/environ')",
        f"SELECT CAST(a AS DATE) FROM '{secret}'",
        "SELECT * FROM no_such_table",
    ):
        with pytest.raises(InputError) as caught:
            ask_sql(folder, sql, QUICK)
        assert "hunter2" not in str(caught.value) and "1,2" not in str(caught.value)


# What the functions of this DuckDB may do that is no mere calculation: chance, and the time.
HARMLESS = {
    *("current_connection_id", "current_query", "current_query_id", "current_transaction_id"),
    *("error", "gen_random_uuid", "random", "stats", "txid_current", "uuid", "uuidv4", "uuidv7"),
}


def test_every_function_with_effects_is_refused_or_known_to_be_harmless(folder: Path) -> None:
    with isolated(folder, QUICK) as connection:
        names = {
            name
            for (name,) in connection.execute(
                "SELECT DISTINCT function_name FROM duckdb_functions() "
                "WHERE has_side_effects AND function_type IN ('scalar', 'macro', 'aggregate')"
            ).fetchall()
        }
    assert names and names - REFUSED_FUNCTIONS - HARMLESS == set()


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
def test_wrong_sql_is_answered_with_what_is_wrong(ask: Ask, sql: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        ask(sql)


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
        assert lake.rows("SELECT count(*) % 2 AS odd FROM raw.images") == [{"odd": 0}]
