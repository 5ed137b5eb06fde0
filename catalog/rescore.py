"""Which stored scores a policy lacks, the pixels to measure them on, and what was measured.

flows/rescore.py drives it: catalog → images → checks → raw.rescored. A score that is measured
again supersedes the stored one, which stays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog.lake import Lake
from catalog.replay import Expected, named
from catalog.replay_facts import REQUEST_COLUMNS, request_of_row
from catalog.replay_judged import REQUESTS
from catalog.replay_lacking import LACKING, lacking
from catalog.replay_sql import quoted
from catalog.rows import arrow, score_set, text_table
from catalog.upkeep import merge_small_files
from catalog.write import MERGE_EVERY, insert_signatures, insert_table
from pipeline.checks.protocol import Check, ImageBatch, run_checks
from pipeline.errors import PlatemarkError
from pipeline.images import RgbImage, decode_limited
from pipeline.policy_model import Policy
from pipeline.records import Score
from pipeline.request import Request
from pipeline.settings import Settings
from pipeline.store import path_of, sha256_of
from pipeline.verdict import plain_words

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Stored:
    """An image to be measured again: its request, the checks to run, and the file that is left.

    `url` is None where the pixels were discarded. `pixels_sha256` is of the pixels as they were
    made; a signed file may be encoded with losses.
    """

    request: Request
    attempt: str
    checks: tuple[str, ...]
    sha256: str | None
    url: str | None
    pixels_sha256: str


@dataclass(frozen=True)
class NotMeasured:
    """An image that keeps lacking scores, and why."""

    request_id: str
    sku: str
    index: int
    error: str


@dataclass(frozen=True, eq=False)
class StoredImages(ImageBatch):
    """A batch whose images are those of the catalog, whatever their files were encoded with."""

    recorded: tuple[str, ...] = ()

    @cached_property
    def pixels_sha256(self) -> tuple[str, ...]:
        """SHA-256 (hex) of each image's pixels as they were made."""
        return self.recorded


def to_measure(
    lake: Lake, policy: Policy, expected: Expected, where: str | None = None
) -> list[Stored]:
    """Images that lack a score which the policy needs, or have it from other weights than
    `expected`; of those that `where` names, or of all. Images alike come together.

    Raises InputError for a wrong condition.
    """
    wanted = None if where is None else named(lake.folder, where)
    with lake.alone() as connection:
        lacking(connection, policy, expected, wanted)
        rows = _rows(connection)
    declared = policy.checks.model_dump(exclude_none=True)
    stored = [
        Stored(
            request_of_row(row),
            row["attempt"],
            tuple(name for name in declared if name in row["checks"]),
            row["file_sha256"],
            row["url"],
            row["pixels_sha256"],
        )
        for row in rows
    ]
    # Nothing can be measured for a check that the policy does not run: its rule blocks for ever.
    return sorted(filter(lambda each: each.checks, stored), key=_alike)


def erased_images(lake: Lake, where: str) -> list[NotMeasured]:
    """Images that a condition names and of which something was erased: they keep their verdicts.

    Raises InputError for a wrong condition.
    """
    rows = lake.rows(
        'SELECT request_id, sku, "index" FROM requests SEMI JOIN wanted USING (request_id) '
        "WHERE left(request_id, 12) IN "
        "(SELECT row_key FROM raw.ledger_erasures WHERE table_name = 'images') ORDER BY request_id",
        wanted=named(lake.folder, where),
    )
    why = "a text of it was erased: it keeps the scores and the verdict that it has"
    return [NotMeasured(row["request_id"], row["sku"], row["index"], why) for row in rows]


def _rows(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Each lacking image with the file that is left: the quarantined one, which has no losses."""
    found: list[dict[str, Any]] = (
        connection.execute(
            f"SELECT {REQUEST_COLUMNS}, checks, "
            "CASE WHEN r.url IS NULL AND f.url IS NOT NULL THEN f.sha256 ELSE r.sha256 END "
            "AS file_sha256, coalesce(r.url, f.url) AS url, r.pixels_sha256 "
            f"FROM {REQUESTS} AS r JOIN {LACKING} AS l USING (request_id) "
            "LEFT JOIN (SELECT request_id, sha256, url FROM raw.since WHERE remade) AS f "
            "USING (request_id)"
        )
        .to_arrow_table()
        .to_pylist()
    )
    return found


def _alike(stored: Stored) -> tuple[Any, ...]:
    request = stored.request
    return (
        stored.checks,
        request.campaign,
        request.client,
        request.width,
        request.height,
        request.request_id,
    )


def batches(stored: Sequence[Stored], size: int) -> list[tuple[Stored, ...]]:
    """Images of one size, campaign and set of checks together, at most `size` at a time."""
    groups: dict[tuple[Any, ...], list[Stored]] = {}
    for each in stored:
        groups.setdefault(_alike(each)[:-1], []).append(each)
    return [
        tuple(group[start : start + size])
        for group in groups.values()
        for start in range(0, len(group), size)
    ]


def words_of_items(lake: Lake, campaign: str, client: str) -> Mapping[str, str]:
    """What the items of a campaign ask for, by sku: the words of their images' first steps."""
    rows = lake.rows(
        "SELECT sku, coalesce(recipe ->> '$.earlier[0].prompt', prompt) AS prompt, "
        "coalesce(if(recipe ->> '$.earlier[0].prompt' IS NULL, recipe ->> '$.prompt_syntax', "
        "recipe ->> '$.earlier[0].prompt_syntax'), 'plain') AS syntax "
        "FROM requests WHERE campaign = ? AND client = ? AND prompt IS NOT NULL "
        "QUALIFY row_number() OVER (PARTITION BY sku ORDER BY prompt, request_id) = 1 ORDER BY sku",
        [campaign, client],
    )
    return {row["sku"]: plain_words(row["prompt"], row["syntax"]) for row in rows}


def measure(
    settings: Settings, lake: Lake, checks: Sequence[Check], batch: Sequence[Stored]
) -> tuple[int, list[NotMeasured]]:
    """Measures a batch and records its scores in one transaction; returns how many images.

    All have a `url`. An image whose file is gone, altered or broken, or whose check fails, is told
    with the reason.
    """
    lost: list[NotMeasured] = []
    opened: dict[tuple[int, ...], list[tuple[Stored, RgbImage]]] = {}
    for each in batch:
        try:
            image = _pixels(settings, each)
        except (PlatemarkError, OSError) as error:
            lost.append(_lost(each, str(error)))
        else:
            opened.setdefault(image.shape, []).append((each, image))
    again: dict[tuple[str, str], tuple[Score, ...]] = {}
    for group in opened.values():
        found = [each for each, _ in group]
        images = StoredImages(
            np.stack([image for _, image in group]),
            tuple(each.request for each in found),
            recorded=tuple(each.pixels_sha256 for each in found),
        )
        for each, checked in zip(found, run_checks(checks, images), strict=True):
            if checked.error:
                lost.append(_lost(each, checked.error))
                continue
            again[each.request.request_id, each.attempt] = checked.scores
    if again:
        record_rescores(lake, again)
    return len(again), lost


def record_rescores(lake: Lake, again: Mapping[tuple[str, str], Sequence[Score]]) -> None:
    """Appends scores that were measured again, by request id and attempt, in one transaction.

    They supersede stored ones of the same names; the others of an image are kept beside them.
    """
    now = datetime.now(UTC)

    def append(connection: duckdb.DuckDBPyConnection) -> None:
        rows, signatures = [], []
        stored = _stored_scores(connection, list(again))
        for (request_id, attempt), scores in again.items():
            new = {(score.check, score.name) for score in scores}
            kept = [
                score
                for score in stored[request_id, attempt]
                if (score.check, score.name) not in new
            ]
            signature, columns = score_set([*kept, *scores])
            signatures.append(signature)
            key = {"request_id": request_id, "attempt": attempt}
            rows.append({**key, **columns, "measured_at": now})
        insert_signatures(connection, arrow("signatures", signatures))
        insert_table(connection, "rescored", arrow("rescored", rows))

    lake.transact(append)
    lake.unmerged += 1
    if lake.unmerged >= MERGE_EVERY:
        merge_small_files(lake)


def _stored_scores(
    connection: duckdb.DuckDBPyConnection, keys: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], list[Score]]:
    """The scores of images as last measured, by request id and attempt."""
    ids, attempts = zip(*keys, strict=True)
    connection.register("measured", text_table(request_id=ids, attempt=attempts))
    listed = ", ".join(map(quoted, sorted(set(attempts))))
    try:
        rows = connection.execute(
            "SELECT request_id, attempt, n.scores, "
            'coalesce(a."values", r."values"), coalesce(a.evidence, r.evidence) '
            "FROM raw.images AS r SEMI JOIN measured USING (request_id, attempt) "
            "LEFT JOIN (SELECT * EXCLUDE (request_key) FROM raw.latest_rescored) AS a "
            "USING (request_id, attempt) "
            "JOIN (SELECT DISTINCT * FROM raw.signatures) AS n "
            "ON n.signature = coalesce(a.signature, r.signature) "
            # With it whole files are skipped.
            f"WHERE attempt IN ({listed})"
        ).fetchall()
    finally:
        connection.unregister("measured")
    return {
        (request_id, attempt): [
            Score(each["check_name"], each["name"], value, json.loads(evidence))
            for each, value, evidence in zip(scores, values, evidences, strict=True)
        ]
        for request_id, attempt, scores, values, evidences in rows
    }


def _pixels(settings: Settings, stored: Stored) -> RgbImage:
    path = path_of(settings, str(stored.url))
    data = _read(path)
    if sha256_of(data) != stored.sha256:
        raise OSError(f"{path} is not the file that was catalogued; restore it from a backup")
    return decode_limited(data)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror}; restore the file") from error


def _lost(stored: Stored, why: str) -> NotMeasured:
    request = stored.request
    return NotMeasured(request.request_id, request.sku, request.index, why)
