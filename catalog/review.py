"""People's decisions on what a policy sent to review: the queue, and the record of each."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from catalog.lake import Lake
from catalog.rows import arrow, later_file_row, manifest_row, owed_rows
from catalog.write import insert_row, insert_table
from pipeline.errors import Fault, InputError
from pipeline.records import SEVERITIES, Asset, Review, Signed

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Approval:
    """What a reviewer was when deciding, and when an approval ends. `expires` is aware, in UTC."""

    roles: Sequence[str] = ()
    expires: datetime | None = None
    policy_digest: str | None = None
    """Of the verdict that was looked at; None where it does not matter."""


def review_queue(lake: Lake) -> list[dict[str, Any]]:
    """Images in review that wait for a person: request, reasons, severity, url, sha256.

    Nobody has decided on them, or an approval no longer holds (`approved_until`, `reviewer`): it
    has expired, or a replay holds the image back for another rule. The most urgent come first, then
    the oldest.
    """
    rows = lake.rows(
        'SELECT request_id, sku, "index", campaign, client, prompt, sha256, url, mime, policy, '
        "policy_version, policy_digest, reasons, recorded_at, reviewer, approved_until, "
        "urgency FROM raw.counted JOIN (SELECT request_key, attempt, urgency FROM raw.waiting) "
        'USING (request_key, attempt) ORDER BY urgency DESC, recorded_at, sku, "index"'
    )
    return [{**row, "severity": SEVERITIES[row.pop("urgency") - 1]} for row in rows]


def record_review(
    lake: Lake,
    request_id: str,
    review: Review,
    asset: Asset | None = None,
    signed: Signed | None = None,
    approval: Approval | None = None,
    *,
    owes: bool = False,
) -> str:
    """Records a decision; an approval brings the signed asset that was made for it. Returns its id.

    Without `signed` the asset is one that is catalogued already. `approval` says who the reviewer
    is, and until when an approval holds. `owes`: a file without a time stamp waits for one.

    The last decision counts, so an approval can be withdrawn by a rejection, and one that no longer
    holds can be given again. Raises InputError when the image is unknown, its verdict is not
    `review` (a blocked image cannot be approved), the same was decided already, or the reason is
    empty.
    """
    approval = approval or Approval()
    if (review.decision == "approve") != (asset is not None):
        raise ValueError("an approval comes with its signed asset, a rejection without")
    review_id = str(uuid.uuid4())

    def append(connection: duckdb.DuckDBPyConnection) -> None:
        state = connection.execute(
            "SELECT attempt, outcome, decision, reviewer, perceptual_hash, "
            "NOT approval_holds AS lapsed, list_transform(list_filter(reasons, "
            "lambda one: one.outcome = 'review'), lambda one: one.rule) AS rules, policy_digest, "
            "erased "
            "FROM raw.counted WHERE request_id = ?",
            [request_id],
        ).fetchone()
        faults = _faults(review, state)
        if state and approval.policy_digest not in (None, state[7]):
            faults.append(Fault("another policy was applied meanwhile", remedy="look again"))
        if state and state[8] and asset:
            faults.append(Fault("its prompt was erased meanwhile", remedy="reject it"))
        if faults or state is None:
            raise InputError(f"review of {request_id[:12]}", faults)
        key = {"request_id": request_id, "attempt": state[0]}
        insert_row(
            connection,
            "reviews",
            {
                "review_id": review_id,
                **key,
                "decision": review.decision,
                "reviewer": review.reviewer,
                "reason": review.reason,
                "decided_at": review.decided_at,
                "asset_sha256": asset.sha256 if asset else None,
                "roles": list(approval.roles),
                "expires": approval.expires,
                "rules": list(dict.fromkeys(state[6] or ())),
            },
        )
        if asset and signed:
            kept = later_file_row(asset, signed, "review", state[4])
            files = [{**key, **kept, "recorded_at": review.decided_at}]
            stores = [{**key, **manifest_row(asset, signed), "recorded_at": review.decided_at}]
            insert_table(connection, "later_files", arrow("later_files", files))
            insert_table(connection, "manifests", arrow("manifests", stores))
            files_owed = [(asset.sha256, signed.manifest, signed.label)] if owes else []
            if owed := owed_rows(files_owed, review.decided_at):
                insert_table(connection, "stamps_owed", owed)

    lake.transact(append)
    return review_id


def _faults(review: Review, state: tuple[Any, ...] | None) -> list[Fault]:
    if state is None:
        return [Fault("the catalog has no such request", remedy="`platemark review list`")]
    _, outcome, decision, reviewer, _, lapsed, *_ = state
    faults = []
    if not review.reason.strip() or not review.reviewer.strip():
        faults.append(Fault("a decision needs a reviewer and a reason", remedy='--reason "…"'))
    if outcome != "review":
        faults.append(
            Fault(
                f"its verdict is {outcome or 'missing'}, not review",
                remedy="only what a policy sends to review is decided by people",
            )
        )
    if decision == review.decision and not (lapsed and decision == "approve"):
        faults.append(Fault(f"{reviewer} decided so already ({decision})", remedy="nothing to do"))
    return faults
