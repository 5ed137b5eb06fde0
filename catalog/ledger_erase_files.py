"""Which files go with an erased image, and which stay because other images have them too.

Files lie under the SHA-256 of their bytes, so images with equal bytes share one.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from catalog.ledger import file_tombstones
from catalog.ledger_entries import tables_of_files
from catalog.ledger_forms import KEY_LENGTH, SALT_BYTES
from catalog.ledger_notes import Verifier
from pipeline.errors import SetupError
from pipeline.settings import Settings
from pipeline.store import drop_staged, path_of

if TYPE_CHECKING:
    import duckdb

SHARED = json.dumps({"shared": True})
"""What a tombstone keeps of a file that other images still have: it goes with the last of them."""


@dataclass
class FilesToGo:
    """Urls of files that the erased image has alone, of those it shares, and their tombstones."""

    going: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    tombstones: list[dict[str, Any]] = field(default_factory=list)


def files_to_go(
    connection: duckdb.DuckDBPyConnection, request_id: str, verifiers: Sequence[Verifier]
) -> FilesToGo:
    """What becomes of an image's files.

    An image that was erased with its files before does not count as one that has them.
    """
    tables = tables_of_files(connection)
    found, own = FilesToGo(), _key(request_id)
    erased_with = file_tombstones(connection, verifiers)
    for url, (table, sha256) in _files(connection, tables, request_id).items():
        erased = {own, *erased_with.get(sha256, ())}
        held = any(_key(one) not in erased for one in _holders(connection, tables, url))
        (found.shared if held else found.going).append(url)
        found.tombstones.append(
            {
                "erasure_id": secrets.token_bytes(SALT_BYTES),
                "table_name": table,
                "row_key": own,
                "erased": [],
                "file_sha256": sha256,
                "kept": SHARED if held else None,
            }
        )
    return found


def remove_files(settings: Settings, urls: Sequence[str]) -> None:
    """Removes files from the store, and from staging where a run was stopped before it placed them.

    A url that leads out of the store is left alone. Raises SetupError with all that stay.
    """
    left = []
    for url in urls:
        if ".." not in url.split("/"):
            try:
                path_of(settings, url).unlink(missing_ok=True)
                drop_staged(settings, url)
            except OSError as error:
                left.append(f"{url} ({error.strerror})")
    if left:
        raise SetupError(
            f"the rows are erased, but files cannot be removed: {', '.join(left)}; remove them, or "
            f"mend their folders' rights and run the erasure again"
        )


def _files(
    connection: duckdb.DuckDBPyConnection, tables: Sequence[str], request_id: str
) -> dict[str, tuple[str, str]]:
    """Table and SHA-256 of every file of the image, by url."""
    return {
        url: (table, sha256)
        for table in tables
        for url, sha256 in connection.execute(
            f"SELECT DISTINCT url, sha256 FROM raw.{table} "
            "WHERE request_id = ? AND url IS NOT NULL ORDER BY url",
            [request_id],
        ).fetchall()
    }


def _holders(connection: duckdb.DuckDBPyConnection, tables: Sequence[str], url: str) -> set[str]:
    """Request ids of all images that have the file."""
    parts = [f"SELECT request_id FROM raw.{table} WHERE url = $url" for table in tables]
    return {one for (one,) in connection.execute(" UNION ".join(parts), {"url": url}).fetchall()}


def _key(request_id: str) -> str:
    return request_id[:KEY_LENGTH]
