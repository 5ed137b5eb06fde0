"""Loads DuckDB's ducklake and sqlite extensions, with or without internet."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import SetupError

if TYPE_CHECKING:
    import duckdb

EXTENSIONS = ("sqlite_scanner", "ducklake")


def load_extensions(connection: duckdb.DuckDBPyConnection) -> None:
    """Loads both: from the installed packages, else as DuckDB installed them, else by INSTALL.

    All three are DuckDB's own signed binaries; unsigned ones stay disallowed, so DuckDB verifies
    the signature of each as it loads. Raises SetupError saying what to install.
    """
    import duckdb

    for name in EXTENSIONS:
        try:
            if (packaged := _packaged(name, duckdb.__version__)) is not None:
                connection.load_extension(str(packaged))
            else:
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
