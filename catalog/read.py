"""What flows and faces ask of the catalog: what is done, what is known, which image is meant."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.lake import Lake
from catalog.rows import text_table
from pipeline.errors import Fault, InputError

if TYPE_CHECKING:
    from pipeline.checks.duplicates import Catalogued


@dataclass(frozen=True)
class Found:
    """One image of the catalog: its request, and the file that counts (the signed one, if any)."""

    request_id: str
    sku: str
    index: int
    outcome: str | None
    state: str
    sha256: str | None
    url: str | None


def done_request_ids(lake: Lake, request_ids: Iterable[str]) -> set[str]:
    """Which of these requests have been made (failed ones have not). 100,000 ids in one join."""
    wanted = text_table(request_id=list(request_ids))
    found = lake.read(
        "SELECT DISTINCT request_id FROM wanted JOIN raw.images USING (request_id) "
        "WHERE state = 'done'",
        wanted=wanted,
    )
    return set(found.column("request_id").to_pylist())


def done_under_other_policies(
    lake: Lake, request_ids: Iterable[str], policy_digest: str
) -> dict[str, int]:
    """Images of these requests whose verdict another policy gave, counted by "name version".

    They are done and not judged again: whoever plans under a new policy wants to know.
    """
    wanted = text_table(request_id=list(request_ids))
    rows = lake.rows(
        "SELECT concat(policy, ' ', policy_version) AS policy, count(*) AS images FROM verdicts "
        "SEMI JOIN wanted USING (request_id) WHERE policy_digest <> $digest "
        "GROUP BY 1 ORDER BY 1",
        {"digest": policy_digest},
        wanted=wanted,
    )
    return {row["policy"]: row["images"] for row in rows}


def catalogued_images(lake: Lake) -> Iterator[Catalogued]:
    """Every image made, oldest first, for the check on duplicates."""
    from pipeline.checks.duplicates import Catalogued

    for row in lake.rows(
        "SELECT request_id, sku, pixels_sha256, perceptual_hash FROM images "
        "WHERE pixels_sha256 IS NOT NULL ORDER BY recorded_at, request_id"
    ):
        yield Catalogued(**row)


def knows(lake: Lake, sha256s: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What the catalog knows of files by SHA-256 (hex), superseded attempts' files included.

    Each: request_id, sku, state (`signed` …), outcome, decision, c2pa_label, recorded_at, counts.
    Unknown files are absent.
    """
    wanted = text_table(sha256=[sha256.lower() for sha256 in sha256s])
    rows = lake.rows(
        """
        WITH files AS (
            SELECT r.sha256, r.request_id, r.attempt, r.asset_state AS state, r.c2pa_label,
                   r.recorded_at
            FROM wanted JOIN raw.images AS r USING (sha256)
            UNION ALL
            SELECT f.sha256, f.request_id, f.attempt, f.state, f.c2pa_label, f.recorded_at
            FROM wanted JOIN raw.later_files AS f USING (sha256)),
        made AS (
            SELECT request_id, request_key, attempt, sku, outcome
            FROM raw.images SEMI JOIN files USING (request_id, attempt))
        SELECT a.sha256, a.request_id, m.sku, a.state,
               CASE WHEN s.out IS NULL THEN coalesce(n.outcome, m.outcome) ELSE m.outcome END
                   AS outcome, n.decision, a.c2pa_label, a.recorded_at, s.out IS NULL AS counts
        FROM files AS a JOIN made AS m USING (request_id, attempt)
        LEFT JOIN (SELECT request_id, attempt, true AS out FROM raw.superseded) AS s
            USING (request_id, attempt)
        LEFT JOIN raw.since AS n ON n.request_key = m.request_key
        ORDER BY counts, a.recorded_at DESC
        """,
        wanted=wanted,
    )
    return {row.pop("sha256"): row for row in rows}


def find_asset(lake: Lake, name: str) -> Found:
    """The one image meant by a file, whatever its name, a sku (`SKU-1`: its second image), a prefix
    (6 hex digits or more) of the file's SHA-256 or of the request id, or a catalogued path (its
    name is the SHA-256).

    Raises InputError when nothing matches or several images do, naming them.
    """
    found = find_assets(lake, name)
    if len(found) == 1:
        return found[0]
    if not found:
        fault = Fault(
            "the catalog has no such image",
            remedy="give a sku, a file, or 6 or more digits of its SHA-256 or request id",
        )
        raise InputError(name, [fault])
    faults = [
        Fault(f"{one.sku}-{one.index} {one.outcome or one.state}", one.request_id[:12])
        for one in found[:20]
    ]
    raise InputError(f"{name} names {len(found)} images, give one of these request ids", faults)


def find_assets(lake: Lake, name: str) -> list[Found]:
    """All images meant by `name`, as find_asset reads it, by sku and index."""
    if (sha256 := _file_sha256(name)) and (found := _matching(lake, name=None, prefix=sha256)):
        return found
    stem = Path(name).stem.lower() if "/" in name or "\\" in name or "." in name else name.lower()
    prefix = stem if len(stem) >= 6 and all(c in "0123456789abcdef" for c in stem) else None
    return _matching(lake, name, prefix)


def _matching(lake: Lake, name: str | None, prefix: str | None) -> list[Found]:
    rows = lake.rows(
        'SELECT request_id, sku, "index", outcome, state, sha256, url FROM images '
        "WHERE sku = $name OR concat(sku, '-', \"index\") = $name "
        "OR starts_with(request_id, $prefix) OR request_id IN "
        "(SELECT request_id FROM assets WHERE starts_with(sha256, $prefix)) "
        'ORDER BY sku, "index", request_id',
        {"name": name, "prefix": prefix},
    )
    return [Found(**row) for row in rows]


def _file_sha256(name: str) -> str | None:
    """The SHA-256 (hex) of the file called `name`, None when there is none that can be read."""
    try:
        if not Path(name).is_file():
            return None
        with Path(name).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def measured_speed(lake: Lake) -> dict[str, float]:
    """Images made per second by model, over the last batches (50 a model) of this machine.

    Failed images do not count, nor does the time of batches that failed whole.
    """
    rows = lake.rows(
        """
        WITH times AS (
            SELECT b.run_id, b.batch_id, b.images - b.failed AS made, b.committed_at,
                   epoch(b.committed_at - coalesce(
                       lag(b.committed_at) OVER (PARTITION BY b.run_id ORDER BY b.committed_at),
                       r.started_at)) AS seconds
            FROM batches AS b JOIN runs AS r USING (run_id) WHERE r.host = $host),
        models AS (
            SELECT DISTINCT run_id, batch_id, model FROM raw.images)
        SELECT model, sum(made) / sum(seconds) AS speed FROM (
            SELECT * FROM times JOIN models USING (run_id, batch_id) WHERE made > 0
            QUALIFY row_number() OVER (PARTITION BY model ORDER BY committed_at DESC) <= 50)
        GROUP BY model HAVING sum(seconds) > 0
        """,
        {"host": platform.node()},
    )
    return {row["model"]: row["speed"] for row in rows}
