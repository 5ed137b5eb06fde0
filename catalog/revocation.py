"""Taking back: a pack or an asset is revoked, and whoever asks for its files hears of it.

Nothing is deleted. catalog/revocation_list.py carries the same to people without the catalog.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from catalog.lake import Lake
from catalog.read import find_assets
from catalog.rows import text_table
from catalog.write import insert_row
from pipeline.errors import Fault, InputError

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Revocation:
    """One thing taken back: a pack (`pack_id`) or an asset (`request_id`, `asset_sha256`)."""

    kind: Literal["pack", "asset"]
    pack_id: str | None
    request_id: str | None
    asset_sha256: str | None
    reason: str
    revoked_by: str
    revoked_at: datetime

    def __str__(self) -> str:
        what = f"pack {self.pack_id}" if self.kind == "pack" else "the image"
        return (
            f"{what} was revoked by {self.revoked_by} on {self.revoked_at:%Y-%m-%d}: {self.reason}"
        )


_COLUMNS = "kind, pack_id, request_id, asset_sha256, reason, revoked_by, revoked_at"
# Four ways in which a file is reached: it is the asset's or a rendition of it, it lies in a pack,
# or it is the pack.
_REVOKED = f"""
WITH reached AS (
    SELECT wanted.sha256, r.* FROM wanted JOIN assets AS a USING (sha256)
    JOIN revocations AS r ON r.kind = 'asset' AND r.request_id = a.request_id
    UNION ALL
    SELECT wanted.sha256, r.* FROM wanted JOIN renditions AS n USING (sha256)
    JOIN revocations AS r ON r.kind = 'asset' AND r.request_id = n.request_id
    UNION ALL
    SELECT wanted.sha256, r.* FROM wanted JOIN pack_assets AS f ON f.asset_sha256 = wanted.sha256
    JOIN revocations AS r ON r.kind = 'pack' AND r.pack_id = f.pack_id
    UNION ALL
    SELECT wanted.sha256, r.* FROM wanted JOIN packs AS p USING (sha256)
    JOIN revocations AS r ON r.kind = 'pack' AND r.pack_id = p.pack_id)
SELECT DISTINCT sha256, {_COLUMNS} FROM reached ORDER BY revoked_at
"""


def revoke(lake: Lake, name: str, *, reason: str, by: str) -> Revocation:
    """Records that a pack or an asset is taken back; what is revoked already stays as it was.

    `name` is a pack's id, file name or SHA-256, or an image as find_asset reads it. Raises
    InputError when nothing or several things are meant, or `reason` or `by` is empty.
    """
    given = {"--reason": reason, "--by": by}
    if empty := [where for where, text in given.items() if not text.strip()]:
        raise InputError("revoke", [Fault("must be given", where, "say it") for where in empty])
    meant = _meant(lake, name)
    row = {**meant, "reason": reason, "revoked_by": by, "revoked_at": datetime.now(UTC)}

    def append(connection: duckdb.DuckDBPyConnection) -> Revocation:
        cursor = connection.execute(
            f"SELECT {_COLUMNS} FROM revocations WHERE kind = ? "
            "AND pack_id IS NOT DISTINCT FROM ? AND request_id IS NOT DISTINCT FROM ?",
            [row["kind"], row["pack_id"], row["request_id"]],
        )
        if known := cursor.fetchone():
            return Revocation(*known)
        insert_row(connection, "revocations", {"revocation_id": secrets.token_hex(8), **row})
        return Revocation(**row)

    return lake.transact(append)


def revoked(lake: Lake, sha256s: Iterable[str]) -> dict[str, list[Revocation]]:
    """What was taken back of these files, by SHA-256 (hex): assets, renditions, packs themselves.

    A file in a revoked pack is named with that pack, though another pack may still grant it. Files
    that nobody revoked are absent.
    """
    wanted = text_table(sha256=[sha256.lower() for sha256 in dict.fromkeys(sha256s)])
    found: dict[str, list[Revocation]] = {}
    for row in lake.rows(_REVOKED, wanted=wanted):
        found.setdefault(row.pop("sha256"), []).append(Revocation(**row))
    return found


def revoked_requests(
    connection: duckdb.DuckDBPyConnection, request_ids: Iterable[str]
) -> dict[str, Revocation]:
    """The revocations of these requests' assets, by request id."""
    connection.register("asked", text_table(request_id=list(request_ids)))
    try:
        rows = connection.execute(
            f"SELECT {_COLUMNS} FROM raw.revocations SEMI JOIN asked USING (request_id) "
            "WHERE kind = 'asset' ORDER BY revoked_at DESC"
        ).fetchall()
    finally:
        connection.unregister("asked")
    return {each.request_id: each for row in rows if (each := Revocation(*row)).request_id}


def revoked_pack(connection: duckdb.DuckDBPyConnection, pack_id: str) -> Revocation | None:
    """The revocation of a pack, None when it stands."""
    # All rows: a result read halfway keeps SQLite's lock, and with it other writers waiting.
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM raw.revocations WHERE kind = 'pack' AND pack_id = ? "
        "ORDER BY revoked_at LIMIT 1",
        [pack_id],
    ).fetchall()
    return Revocation(*rows[0]) if rows else None


def as_json(revocation: Revocation) -> dict[str, Any]:
    """The same as plain JSON values."""
    return {**asdict(revocation), "revoked_at": revocation.revoked_at.isoformat()}


def _meant(lake: Lake, name: str) -> dict[str, Any]:
    packs = lake.rows(
        "SELECT DISTINCT pack_id FROM packs WHERE $name IN (file, pack_id, sha256)",
        {"name": name},
    )
    images = [] if packs else find_assets(lake, name)
    if len(packs) == 1:
        pack_id = packs[0]["pack_id"]
        return {"kind": "pack", "pack_id": pack_id, "request_id": None, "asset_sha256": None}
    if len(images) == 1:
        image = images[0]
        return {
            "kind": "asset",
            "pack_id": None,
            "request_id": image.request_id,
            "asset_sha256": image.sha256,
        }
    if packs or images:
        ids = [each["pack_id"] for each in packs] or [each.request_id[:12] for each in images]
        what = f"it names {len(ids)} {'packs' if packs else 'images'}: {', '.join(ids[:20])}"
        raise InputError(f"revoke {name}", [Fault(what, "", "give one of these ids")])
    remedy = "give a pack's id or file name, a sku, a file, or 6 or more digits of its SHA-256"
    raise InputError(f"revoke {name}", [Fault("there is no such pack or image", "", remedy)])
