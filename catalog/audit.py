"""Answers questions about the catalog: named ones, and any SELECT that somebody types.

Each audit has a DuckDB of its own over a private copy of the metadata: it works while a flow
writes, and nothing it does can reach the catalog itself.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from catalog.faults import setup_error
from catalog.guard import one_select, wrong_sql
from catalog.lake import DATA, attached
from catalog.metadata import metadata_copy
from pipeline.errors import Fault, InputError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

QUESTIONS = Path(__file__).parent / "questions"
_PARAMETER = re.compile(r"-- \$(?P<name>\w+)(?: = (?P<default>[^:]+?))?: (?P<about>.+)")
_CHUNK_ROWS = 20_000

Value = str | int | float | None


@dataclass(frozen=True)
class Parameter:
    """A question's parameter; without a default it must be given."""

    name: str
    about: str
    default: Value
    required: bool


@dataclass(frozen=True)
class Question:
    """A named question: what it answers, what it takes, and its SQL."""

    name: str
    title: str
    parameters: tuple[Parameter, ...]
    sql: str


@dataclass(frozen=True)
class Answer:
    """The rows of an audit. `types` are DuckDB's names of the columns' types, in their order."""

    table: pa.Table
    types: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(self.table.column_names)


@dataclass(frozen=True)
class Limits:
    """What one audit may use; DuckDB writes nothing to disk for it."""

    seconds: float = 60.0
    memory: str = "1GB"
    threads: int = 2
    rows: int = 5_000_000
    megabytes: int = 1024


@cache
def questions() -> Mapping[str, Question]:
    """All named questions, by name."""
    return {path.stem: _question(path) for path in sorted(QUESTIONS.glob("*.sql"))}


def ask(
    folder: Path,
    name: str,
    arguments: Mapping[str, str] | None = None,
    limits: Limits | None = None,
) -> Answer:
    """Answers a named question over the catalog in `folder`; arguments come as text.

    Raises InputError for an unknown question and for missing, unknown or ill-typed arguments.
    """
    question = questions().get(name)
    if question is None:
        fault = Fault("there is no such question", remedy=f"one of: {', '.join(questions())}")
        raise InputError(f"audit {name}", [fault])
    return _answer(folder, question.sql, _arguments(question, arguments or {}), limits)


def ask_sql(folder: Path, sql: str, limits: Limits | None = None) -> Answer:
    """Answers one SELECT that anybody may have typed, over the catalog in `folder`.

    Raises InputError when it is not one SELECT over the catalog, is wrong, takes longer than the
    limits allow or returns more; nothing is ever cut off silently.
    """
    return _answer(folder, sql, {}, limits)


@contextmanager
def isolated(folder: Path, limits: Limits) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB that sees the catalog as it is now, and no file, network, secret or setting."""
    config = {
        "memory_limit": limits.memory,
        "threads": limits.threads,
        "temp_directory": "",
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        "allow_persistent_secrets": False,
    }
    with (
        metadata_copy(folder) as copy,
        attached(copy, folder, read_only=True, **config) as connection,
    ):
        data = str(folder / DATA).replace("'", "''")
        connection.execute(f"SET allowed_directories = ['{data}/']")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection


def select(
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    parameters: Mapping[str, Value],
    limits: Limits,
    folder: Path,
) -> Answer:
    """Checks and runs one SELECT on an isolated connection, within the limits."""
    import duckdb
    import pyarrow as pa

    statement = one_select(connection, sql)
    late = threading.Event()

    def stop() -> None:
        late.set()
        connection.interrupt()

    timer = threading.Timer(limits.seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        result = connection.execute(statement, dict(parameters) or None)
        types = tuple(str(column[1]) for column in result.description or ())
        return Answer(_within(result.to_arrow_reader(_CHUNK_ROWS), limits), types)
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        if late.is_set():
            raise _too_much(f"it took longer than {limits.seconds:g} s") from error
        if isinstance(error, duckdb.OutOfMemoryException) or "Out of Memory" in str(error):
            raise _too_much(f"it needs more memory than {limits.memory}") from error
        raise setup_error(error, folder) or wrong_sql(error) from error
    finally:
        timer.cancel()


def _answer(
    folder: Path, sql: str, parameters: Mapping[str, Value], limits: Limits | None
) -> Answer:
    limits = limits or Limits()
    with isolated(folder, limits) as connection:
        return select(connection, sql, parameters, limits, folder)


def _within(reader: pa.RecordBatchReader, limits: Limits) -> pa.Table:
    import pyarrow as pa

    batches: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in reader:
        rows += batch.num_rows
        size += batch.nbytes
        if rows > limits.rows:
            raise _too_much(f"it returns more than {limits.rows:,} rows")
        if size > limits.megabytes * 2**20:
            raise _too_much(f"it returns more than {limits.megabytes:,} MiB")
        batches.append(batch)
    return pa.Table.from_batches(batches, reader.schema)


def _too_much(what: str) -> InputError:
    return InputError("SQL", [Fault(what, remedy="ask for less: WHERE, GROUP BY or LIMIT")])


def _question(path: Path) -> Question:
    """Reads a question's file: comment lines (title, `-- $name = default: about`), then SQL."""
    sql = path.read_text(encoding="utf-8")
    comments = [line for line in sql.splitlines() if line.startswith("-- ")]
    parameters = []
    for line in comments[1:]:
        if found := _PARAMETER.fullmatch(line):
            default = found["default"]
            value = None if default is None else json.loads(default)
            parameters.append(Parameter(found["name"], found["about"], value, default is None))
    return Question(path.stem, comments[0].removeprefix("-- "), tuple(parameters), sql)


def _arguments(question: Question, given: Mapping[str, str]) -> dict[str, Value]:
    known = {parameter.name: parameter for parameter in question.parameters}
    faults = [
        Fault("there is no such parameter", name, f"known: {', '.join(known) or 'none'}")
        for name in given
        if name not in known
    ]
    values: dict[str, Value] = {}
    for name, parameter in known.items():
        try:
            values[name] = _typed(given[name], parameter) if name in given else parameter.default
        except ValueError:
            faults.append(Fault(f"{given[name]!r} is not a number", name, parameter.about))
        if parameter.required and not given.get(name):
            faults.append(Fault("it must be given", name, parameter.about))
    if faults:
        raise InputError(f"audit {question.name}", faults)
    return values


def _typed(text: str, parameter: Parameter) -> Value:
    if isinstance(parameter.default, int):
        return int(text)
    if isinstance(parameter.default, float):
        return float(text)
    return text
