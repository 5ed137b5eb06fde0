"""Signs what a replay let pass: images that lie in quarantine leave it labelled and signed.

The queue is the view `to_sign`; an image that is signed has left it, so a run that was interrupted
goes on where it stopped. What fails for one image is a value beside its name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from catalog.lake import Lake, reading, writing
from catalog.release import model_of, quarantined, request_of, signed_asset, verdict_of
from catalog.replay import named
from catalog.rows import arrow, later_file_row, manifest_row, owed_rows, text_table
from catalog.write import insert_table
from pipeline.errors import PlatemarkError
from pipeline.images import decode_limited
from pipeline.ingredients import WORDS_ALONE, made_from
from pipeline.inputs import InputStore
from pipeline.keys import Identity, signing_identity
from pipeline.licences import Licences, load_licences
from pipeline.lock import staging_lock
from pipeline.policy import policy_from_text
from pipeline.records import Asset, Signed
from pipeline.seal import Sealed, seal
from pipeline.settings import Settings
from pipeline.store import place_recorded

if TYPE_CHECKING:
    import duckdb

AT_ONCE = 2_048
"""Images signed between two commits."""
_QUEUE = """
SELECT r.* EXCLUDE (milliseconds), v.outcome, v.reasons, v.policy, v.policy_version,
       v.policy_digest, m.details, p."text", a.sha256 AS held_sha256, a.url AS held_url,
       a.width AS held_width, a.height AS held_height, a.pixels_sha256, a.perceptual_hash
FROM requests AS r SEMI JOIN wanted USING (request_id)
JOIN verdicts AS v USING (request_id)
JOIN (SELECT * FROM assets WHERE state = 'quarantined') AS a USING (request_id)
LEFT JOIN models AS m ON m.name = r.model AND m.revision = r.model_revision
LEFT JOIN policies AS p ON p.digest = v.policy_digest
ORDER BY r.request_id
"""


@dataclass(frozen=True)
class NotSigned:
    """An image that stays in the queue, and why."""

    request_id: str
    sku: str
    index: int
    error: str


@dataclass(frozen=True)
class Released:
    """What a run signed, and what it could not sign."""

    signed: int
    failed: tuple[NotSigned, ...]


def release_queued(
    settings: Settings,
    where: str | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Released:
    """Sign the images that wait in `to_sign`, or those of them that `where` names.

    Raises InputError for a wrong condition, SetupError when nothing can be signed or written.
    """
    identity, licences = signing_identity(settings), load_licences(settings.licences)
    failed: list[NotSigned] = []
    with reading(settings.catalog) as lake:
        waiting = [
            row["request_id"]
            for row in lake.rows("SELECT request_id FROM to_sign ORDER BY recorded_at, request_id")
        ]
        if where is not None:
            chosen = set(named(settings.catalog, where).column("request_id").to_pylist())
            waiting = [request_id for request_id in waiting if request_id in chosen]
            failed = _erased(lake, chosen)
    signed = 0
    with (
        writing(settings.catalog) as lake,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1), "sign") as threads,
    ):
        for start in range(0, len(waiting), AT_ONCE):
            part = waiting[start:][:AT_ONCE]
            for outcome in _sign(settings, lake, identity, licences, threads, part):
                if isinstance(outcome, NotSigned):
                    failed.append(outcome)
                else:
                    signed += 1
            progress(min(start + AT_ONCE, len(waiting)), len(waiting))
    return Released(signed, tuple(failed))


def _erased(lake: Lake, request_ids: Collection[str]) -> list[NotSigned]:
    """Images that would wait, had nobody erased what they were asked for with."""
    rows = lake.rows(
        'SELECT request_id, sku, "index" FROM images SEMI JOIN wanted USING (request_id) '
        "WHERE outcome = 'pass' AND asset_state = 'quarantined' AND prompt IS NULL "
        "AND decision IS DISTINCT FROM 'reject' ORDER BY request_id",
        wanted=text_table(request_id=sorted(request_ids)),
    )
    why = "its prompt was erased, so that what was asked for cannot be shown any more"
    return [NotSigned(row["request_id"], row["sku"], row["index"], why) for row in rows]


Finished = tuple[Asset, Signed, Mapping[str, Any]]


def _sign(
    settings: Settings,
    lake: Lake,
    identity: Identity,
    licences: Licences,
    threads: ThreadPoolExecutor,
    request_ids: Sequence[str],
) -> Iterator[NotSigned | Finished]:
    rows = lake.rows(_QUEUE, wanted=text_table(request_id=request_ids))
    with staging_lock(settings, alone=False):
        outcomes = list(threads.map(lambda row: _one(settings, identity, licences, row), rows))
        done = [each for each in outcomes if not isinstance(each, NotSigned)]
        kept: set[str] = set()

        def record() -> list[str]:
            owes = bool(settings.signing.timestamp_url)
            kept.update(lake.transact(lambda connection: _record(connection, done, owes=owes)))
            return [str(asset.url) for asset, _, row in done if row["request_id"] in kept]

        place_recorded(settings, [str(asset.url) for asset, _, _ in done], record)
    # What another process signed or replaced meanwhile is neither signed by this one nor a failure.
    yield from (
        each for each in outcomes if isinstance(each, NotSigned) or each[2]["request_id"] in kept
    )


def _one(
    settings: Settings, identity: Identity, licences: Licences, row: Mapping[str, Any]
) -> NotSigned | Finished:
    try:
        sealed = _sealed(settings, identity, licences, row)
    # Decoders and the signing library raise what they like; it belongs to this image alone.
    except Exception as error:
        told = isinstance(error, PlatemarkError)
        said = str(error) if told else f"{type(error).__name__}: {error}"
        return NotSigned(row["request_id"], row["sku"], row["index"], said)
    size = row["held_width"], row["held_height"]
    asset = signed_asset(settings, sealed, *size, row["pixels_sha256"])
    return asset, sealed.signed, row


def _sealed(
    settings: Settings, identity: Identity, licences: Licences, row: Mapping[str, Any]
) -> Sealed:
    data = quarantined(settings, row["held_url"], row["held_sha256"])
    told = {**row, "terms": _parsed(row["terms"]), "recipe": _parsed(row["recipe"])}
    request = request_of(told)
    reasons = [{**each, "evidence": _parsed(each["evidence"])} for each in row["reasons"] or ()]
    return seal(
        decode_limited(data),
        request,
        model_of(json.loads(row["details"])),
        _policy(row["text"]),
        verdict_of({**row, "reasons": reasons}),
        identity,
        when=row["recorded_at"],
        made=made_from(request, InputStore(settings)) if request.recipe else WORDS_ALONE,
        licences=licences,
    )


def _parsed(text: str | None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text) if text else {}
    return found


_policy = lru_cache(maxsize=16)(policy_from_text)


def _record(
    connection: duckdb.DuckDBPyConnection, done: Sequence[Finished], *, owes: bool
) -> set[str]:
    """Records the signed files of those that still wait; returns their request ids.

    Where it `owes` one, a file without a time stamp waits for it.
    Where a run or a replay was faster, what was signed is of another attempt or policy: it is not
    recorded, and the image waits for the next release.
    """
    connection.register("finished", text_table(request_id=[row["request_id"] for *_, row in done]))
    try:
        waiting = {
            request_id: judged
            for request_id, *judged in connection.execute(
                "SELECT request_id, attempt, policy_digest, sha256 FROM to_sign AS t "
                "SEMI JOIN finished USING (request_id) JOIN raw.current USING (request_id)"
            ).fetchall()
        }
    finally:
        connection.unregister("finished")
    now = datetime.now(UTC)
    files, stores = [], []
    for asset, signed, row in done:
        signed_as = [row["attempt"], row["policy_digest"], row["held_sha256"]]
        if waiting.get(row["request_id"]) == signed_as:
            key = {"request_id": row["request_id"], "attempt": row["attempt"]}
            kept = later_file_row(asset, signed, "replay", row["perceptual_hash"])
            files.append({**key, **kept, "recorded_at": now})
            stores.append({**key, **manifest_row(asset, signed), "recorded_at": now})
    if files:
        insert_table(connection, "later_files", arrow("later_files", files))
        insert_table(connection, "manifests", arrow("manifests", stores))
    kept_files = ((row["asset_sha256"], row["manifest"], row["label"]) for row in stores)
    if owed := owed_rows(kept_files if owes else (), now):
        insert_table(connection, "stamps_owed", owed)
    return {each["request_id"] for each in files}
