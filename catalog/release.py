"""A person's decision carried out: an approved image leaves quarantine labelled and signed.

The verdict stays as it was; the file says that a person validated it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from catalog.approval import approved_until, may_not_approve
from catalog.lake import Lake, reading, writing
from catalog.read import find_asset
from catalog.review import Approval, record_review
from catalog.story import story
from pipeline.errors import Fault, InputError, SetupError
from pipeline.images import ImageRefused
from pipeline.ingredients import WORDS_ALONE, made_from
from pipeline.inputs import InputStore
from pipeline.keys import signing_identity
from pipeline.licences import load_licences
from pipeline.lock import staging_lock
from pipeline.models import Model
from pipeline.policy import Policy, policy_from_text
from pipeline.records import Asset, Reason, Review, Verdict
from pipeline.request import Request, request_from_json
from pipeline.seal import Sealed, release
from pipeline.settings import Settings
from pipeline.store import path_of, place_recorded, sha256_of, stage


def approve(settings: Settings, name: str, reviewer: str, reason: str) -> dict[str, Any]:
    """Sign the image called `name`, which waits for review, and record who said so.

    Its policy says which roles (settings, `reviewers`) may, and how long the approval holds. An
    image that a replay sent to review keeps the signed file that it has.

    Raises InputError when it does not wait for a review or the reviewer may not approve it,
    SetupError when its quarantined file is gone or altered: then nothing is signed.
    """
    return _decide(settings, name, Review(reviewer, "approve", reason, datetime.now(UTC)))


def reject(settings: Settings, name: str, reviewer: str, reason: str) -> dict[str, Any]:
    """Record that the image called `name` must not be used. Its file and scores are kept."""
    return _decide(settings, name, Review(reviewer, "reject", reason, datetime.now(UTC)))


def _decide(settings: Settings, name: str, review: Review) -> dict[str, Any]:
    with reading(settings.catalog) as lake:
        found = find_asset(lake, name)
        told = story(lake, found.request_id)
        told["decided"] = lake.rows(
            "FROM raw.since WHERE decision IS NOT NULL AND request_id = $id",
            {"id": found.request_id},
        )
    roles = settings.reviewers.get(review.reviewer, [])
    _refuse(told, found.request_id, review, roles)
    with writing(settings.catalog) as lake:
        decided: dict[str, Any] = {
            "request_id": found.request_id,
            "sku": found.sku,
            "index": found.index,
            "decision": review.decision,
            "reviewer": review.reviewer,
            "reason": review.reason,
            "expires": None,
        }
        if review.decision == "reject":
            record_review(lake, found.request_id, review, approval=Approval(roles))
            return decided
        policy = policy_from_text(told["policy"]["text"])
        approval = Approval(
            roles, approved_until(policy, review.decided_at), told["verdict"]["policy_digest"]
        )
        asset = _approved(settings, lake, told, policy, review, approval)
        return decided | {
            "expires": approval.expires,
            "sha256": asset.sha256,
            "file": str(path_of(settings, str(asset.url))),
        }


def _refuse(told: Mapping[str, Any], request_id: str, review: Review, roles: Sequence[str]) -> None:
    """Refuse what record_review would refuse, before anything is signed."""
    verdict, decided = told["verdict"], told["decided"]
    faults = []
    if not verdict or verdict["outcome"] != "review":
        outcome = verdict["outcome"] if verdict else told["request"]["state"]
        what = f"its verdict is {outcome}, not review"
        faults.append(Fault(what, request_id[:12], "`platemark review list`"))
    elif review.decision == "approve":
        policy = policy_from_text(told["policy"]["text"])
        faults += may_not_approve(policy, verdict_of(verdict), review.reviewer, roles)
    if decided and decided[0]["decision"] == review.decision and not _lapsed(decided[0]):
        what = f"{decided[0]['reviewer']} decided so already ({review.decision})"
        faults.append(Fault(what, request_id[:12], "nothing to do"))
    if not review.reason.strip() or not review.reviewer.strip():
        faults.append(Fault("a decision needs a reviewer and a reason", "--reason", "say why"))
    if faults:
        raise InputError("review", faults)


def _lapsed(decided: Mapping[str, Any]) -> bool:
    return decided["decision"] == "approve" and not decided["approval_holds"]


def _approved(
    settings: Settings,
    lake: Lake,
    told: Mapping[str, Any],
    policy: Policy,
    review: Review,
    approval: Approval,
) -> Asset:
    """The signed file of an approved image, recorded with the review."""
    request_id = told["request"]["request_id"]
    files = {each["state"]: each for each in told["assets"]}
    if "quarantined" not in files:
        if "signed" not in files:
            what = "its pixels were not kept, so nothing can be signed"
            raise InputError(
                "review", [Fault(what, request_id[:12], "make it again, or reject it")]
            )
        # It passed once: the file that was signed then is the one that is approved.
        asset = asset_of(files["signed"])
        record_review(lake, request_id, review, asset, approval=approval)
        return asset
    held = files["quarantined"]
    data = quarantined(settings, held["url"], held["sha256"])
    identity = signing_identity(settings)
    request = request_of(told["request"])
    made = made_from(request, InputStore(settings)) if request.recipe else WORDS_ALONE
    try:
        sealed = release(
            data,
            request,
            model_of(told["model"]["details"]),
            policy,
            verdict_of(told["verdict"]),
            identity,
            review,
            datetime.fromisoformat(told["request"]["recorded_at"]),
            made,
            load_licences(settings.licences),
        )
    except ImageRefused as error:
        raise SetupError(f"{path_of(settings, held['url'])}: {error}") from error
    with staging_lock(settings, alone=False):
        return _catalogued(settings, lake, request_id, review, sealed, held, approval)


def quarantined(settings: Settings, url: str, sha256: str) -> bytes:
    """The bytes of a quarantined file. Raises SetupError when they are not those checked."""
    path = path_of(settings, url)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}; restore the file") from error
    if sha256_of(data) != sha256:
        raise SetupError(f"{path} is not the image that was checked; restore it from a backup")
    return data


def signed_asset(
    settings: Settings, sealed: Sealed, width: int, height: int, pixels_sha256: str
) -> Asset:
    """A sealed file, staged: the asset that it becomes once it is recorded and placed."""
    sha256, url = stage(settings, "assets", sealed.data, sealed.mime)
    return Asset(
        sha256=sha256,
        state="signed",
        url=url,
        mime=sealed.mime,
        width=width,
        height=height,
        size=len(sealed.data),
        pixels_sha256=pixels_sha256,
    )


def _catalogued(
    settings: Settings,
    lake: Lake,
    request_id: str,
    review: Review,
    sealed: Sealed,
    held: Mapping[str, Any],
    approval: Approval,
) -> Asset:
    asset = signed_asset(settings, sealed, held["width"], held["height"], held["pixels_sha256"])
    urls = [str(asset.url)]

    def record() -> list[str]:
        owes = bool(settings.signing.timestamp_url)
        record_review(lake, request_id, review, asset, sealed.signed, approval, owes=owes)
        return urls

    place_recorded(settings, urls, record)
    return asset


def request_of(row: Mapping[str, Any]) -> Request:
    """A request as the catalog holds it; its `request_id` is the row's.

    Raises InputError when its prompt was erased: what it asked for cannot be signed any more.
    """
    request = request_from_json({**row, **(row["recipe"] or {})})
    if any(None in (step.prompt, step.negative_prompt) for step in request.chain):
        what = "its prompt was erased, so that what was asked for cannot be shown any more"
        remedy = "reject it, or make the image anew from a brief"
        raise InputError("release", [Fault(what, str(row["request_id"])[:12], remedy)])
    return request


def model_of(details: Mapping[str, Any]) -> Model:
    """A model as the catalog holds it."""
    return Model(**{**details, "base": tuple(details.get("base") or ())})


def asset_of(row: Mapping[str, Any]) -> Asset:
    """A file as the catalog holds it."""
    names = ("sha256", "state", "url", "mime", "width", "height", "size", "pixels_sha256")
    return Asset(**{name: row[name] for name in names})


def verdict_of(row: Mapping[str, Any]) -> Verdict:
    """A verdict as the catalog holds it."""
    outcome: Literal["pass", "review", "block"] = row["outcome"]
    return Verdict(
        outcome=outcome,
        reasons=tuple(Reason(**reason) for reason in row["reasons"] or ()),
        policy=row["policy"],
        policy_version=row["policy_version"],
        policy_digest=row["policy_digest"],
    )
