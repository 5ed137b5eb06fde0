"""Copies the catalog's metadata for readers: consistent while others write, never in their way."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catalog.faults import setup_error
from pipeline.errors import BusyError, SetupError

METADATA = "catalog.sqlite"
_PATIENCE_SECONDS = 120
# Writable, so that what a killed writer left half done is rolled back first; it creates nothing.
_COPY = """
import sqlite3, sys
source = sqlite3.connect(sys.argv[1] + "?mode=rw", uri=True)
target = sqlite3.connect(sys.argv[2])
try:
    source.backup(target)
except sqlite3.Error as error:
    sys.exit(str(error))
"""


def exists(folder: Path) -> bool:
    """Whether `folder` holds a catalog. Nothing is created."""
    return (folder / METADATA).is_file()


@contextmanager
def metadata_copy(folder: Path) -> Iterator[Path]:
    """A copy of the metadata as last committed, in a private temporary folder.

    Made by SQLite's backup in a process of its own: Python and DuckDB each bring an SQLite, and in
    one process the two do not see each other's locks, and drop them ("How To Corrupt An SQLite
    Database File", 2.2.1). Raises SetupError when there is no catalog yet or it is damaged,
    BusyError when a writer holds it for two minutes.
    """
    if not exists(folder):
        raise SetupError(
            f"there is no catalog in {folder} yet: `platemark demo` or `platemark run` makes one"
        )
    with tempfile.TemporaryDirectory(prefix="platemark-catalog-") as private:
        copy = Path(private) / METADATA
        source = (folder / METADATA).absolute()
        command = [sys.executable, "-I", "-S", "-c", _COPY, source.as_uri(), str(copy)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise BusyError(
                f"the catalog {folder} has been locked by a writer for {_PATIENCE_SECONDS} s: "
                f"try again when it is done"
            ) from error
        if done.returncode:
            cause = RuntimeError(done.stderr.strip().rpartition("\n")[2])
            raise setup_error(cause, folder) or SetupError(
                f"the catalog's metadata {source} cannot be read: {cause}"
            )
        yield copy
