"""Reads on the catalog's connection outside a transaction, where one SELECT does not say it all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from catalog.lake import Lake, patiently

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")


def read_patiently(lake: Lake, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
    """What `work` reads, all of it again while a writer is in the way.

    `work` reads its results to their ends: one read halfway keeps writers waiting. Raises BusyError
    and SetupError as `Lake.read` does.
    """

    def attempt() -> T:
        with lake.alone() as connection:
            return work(connection)

    return patiently(attempt, lake.folder)
