"""Lets through one SELECT over the catalog and nothing else, for people who cannot be trusted.

DuckDB's own switches are not enough: with external access off, sqlite_scan still opens any file,
ducklake_* table functions change a lake, and COPY overwrites attached files. So the SQL is parsed,
and every table function, table and scalar function it names is checked by allow-list or deny-list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from pipeline.errors import Fault, InputError

if TYPE_CHECKING:
    import duckdb

MAX_CHARACTERS = 64 * 1024
TABLE_FUNCTIONS = frozenset(
    {
        "unnest",
        "range",
        "generate_series",
        "json_each",
        "json_tree",
        "duckdb_columns",
        "duckdb_tables",
        "duckdb_views",
        "ducklake_snapshots",
    }
)
"""All that may stand in FROM as a function; none of them touches a file of its caller's choice."""
SCHEMAS = frozenset({"", "main", "raw", "information_schema"})
CATALOGS = frozenset({"", "lake"})
REFUSED_FUNCTIONS = frozenset(
    {
        "current_setting",
        "currval",
        "getenv",
        "getvariable",
        "nextval",
        "set_config",
        "setseed",
        "sleep_ms",
        "write_log",
    }
)
_SYSTEM = ("duckdb_", "pg_", "pragma_", "sqlite_")
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def one_select(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    """The one SELECT that `sql` consists of, parsed. Nothing is run.

    Raises InputError when it does not parse, is anything but one SELECT (COPY, ATTACH, SET, CALL,
    PRAGMA, EXPLAIN … included), or names a function or table that audits may not use.
    """
    import duckdb

    if len(sql) > MAX_CHARACTERS:
        _refuse(f"the SQL is longer than {MAX_CHARACTERS} characters")
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise wrong_sql(error) from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        kinds = ", ".join(each.type.name for each in statements) or "nothing"
        _refuse(f"an audit is one SELECT, this is {kinds}")
    faults = [
        Fault(f"{what} may not be used in an audit", remedy="the catalog's own tables are open")
        for what in sorted(set(_forbidden(_tree(connection, sql))))
    ]
    if faults:
        raise InputError("SQL", faults)
    return statements[0]


def wrong_sql(error: Exception) -> InputError:
    """DuckDB's complaint about somebody's SQL as an InputError with a remedy."""
    message = str(error).strip()
    remedy = "`platemark audit` lists the questions, `DESCRIBE images` shows a table's columns"
    if re.search(r'at or near "references"', message):
        remedy = 'references is a word of SQL: write "references" in double quotes'
    elif re.search(r'at or near "(index|check|where)"', message):
        remedy = "that is a word of SQL: write it in double quotes"
    elif message.startswith("Permission Error"):
        remedy = "audits reach neither files nor the network"
    return InputError("SQL", [Fault(message, remedy=remedy)])


def _refuse(what: str) -> NoReturn:
    raise InputError("SQL", [Fault(what, remedy="write SELECT … and no other statement")])


def _tree(connection: duckdb.DuckDBPyConnection, sql: str) -> Any:
    row = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
    try:
        tree: Any = json.loads(row[0]) if row else {"error": True}
    except RecursionError:
        tree = {"error": True}
    # What the parser cannot spell out cannot be checked: PRAGMA passes as a SELECT until here.
    if tree["error"] or len(tree["statements"]) != 1:
        _refuse("an audit is one plain SELECT, this cannot be checked")
    return tree


def _forbidden(tree: Any) -> Iterator[str]:
    for node in _nodes(tree):
        kind = node.get("type")
        if kind == "TABLE_FUNCTION":
            name = str(node.get("function", {}).get("function_name", "?")).lower()
            if name not in TABLE_FUNCTIONS:
                yield f"the table function {name}"
        elif kind == "BASE_TABLE":
            name = str(node.get("table_name", ""))
            schema = str(node.get("schema_name", "")).lower()
            catalog = str(node.get("catalog_name", "")).lower()
            # `lake.images` parses as schema lake; a name that is no plain word may be a file.
            known = catalog in CATALOGS and schema in SCHEMAS | CATALOGS
            if not known or not _PLAIN_NAME.fullmatch(name) or _is_system_view(name):
                yield f"the table {'.'.join(part for part in (catalog, schema, name) if part)}"
        elif str(node.get("function_name", "")).lower() in REFUSED_FUNCTIONS:
            yield f"the function {str(node['function_name']).lower()}"


def _is_system_view(name: str) -> bool:
    """Whether DuckDB has a view of that name, of its databases and their files for instance."""
    return name.lower().startswith(_SYSTEM) and name.lower() not in TABLE_FUNCTIONS


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    stack = [tree]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            yield value
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
