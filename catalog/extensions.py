"""Opens a DuckDB with its ducklake and sqlite extensions, with or without internet."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import SetupError

if TYPE_CHECKING:
    import duckdb

EXTENSIONS = ("sqlite_scanner", "ducklake")


def connected(**config: Any) -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory with both: of the installed packages, else as DuckDB has installed them,
    else by INSTALL.

    A package's binary is loaded as the rest of its code is, trusted because it is installed: to
    check the signatures, 70 MB in each process, takes half of the time of a quick audit. Those that
    DuckDB installed in a home folder must have its signature, and no unsigned one can be loaded
    later. Raises SetupError saying what to install.
    """
    import duckdb

    connection = duckdb.connect(
        config={"autoinstall_known_extensions": False, "allow_unsigned_extensions": True, **config}
    )
    try:
        for name in EXTENSIONS:
            _load(connection, name, _packaged(name, duckdb.__version__))
        connection.execute("SET allow_unsigned_extensions = false")
    except BaseException:
        connection.close()
        raise
    return connection


def _load(connection: duckdb.DuckDBPyConnection, name: str, packaged: Path | None) -> None:
    import duckdb

    try:
        if packaged is not None:
            connection.load_extension(str(packaged))
        else:
            connection.execute("SET allow_unsigned_extensions = false")
            _load_or_install(connection, name)
    except duckdb.Error as error:
        package = f"duckdb-extension-{name.replace('_', '-')}=={duckdb.__version__}"
        raise SetupError(
            f"DuckDB's extension {name} is missing or does not load: "
            f"`pip install {package}`, or go online once ({str(error).splitlines()[0]})"
        ) from error


def _load_or_install(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    import duckdb

    try:
        connection.load_extension(name)
    except duckdb.Error:
        connection.install_extension(name)
        connection.load_extension(name)


def _packaged(name: str, version: str) -> Path | None:
    """The binary inside the package duckdb-extension-<name> of the same version, if installed."""
    spec = find_spec(f"duckdb_extension_{name}")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(folder) / "extensions" / f"v{version}" / f"{name}.duckdb_extension"
        if binary.is_file():
            return binary
    return None
