"""A person's decision carried out: an approved image leaves quarantine labelled and signed.

The verdict stays as it was; the file says that a person validated it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from catalog.lake import Lake, reading, writing
from catalog.read import find_asset
from catalog.review import record_review
from catalog.story import story
from pipeline.errors import Fault, InputError, SetupError
from pipeline.images import ImageRefused
from pipeline.ingredients import WORDS_ALONE, made_from
from pipeline.inputs import InputStore
from pipeline.keys import signing_identity
from pipeline.lock import staging_lock
from pipeline.models import Model
from pipeline.policy import policy_from_text
from pipeline.records import Asset, Reason, Review, Verdict
from pipeline.request import Request, request_from_json
from pipeline.seal import Sealed, release
from pipeline.settings import Settings
from pipeline.store import drop_staged, flush_staging, path_of, place, sha256_of, stage


def approve(settings: Settings, name: str, reviewer: str, reason: str) -> dict[str, Any]:
    """Sign the image called `name`, which waits for review, and record who said so.

    Raises InputError when it does not wait for a review, SetupError when its quarantined file is
    gone or altered: then nothing is signed.
    """
    return _decide(settings, name, Review(reviewer, "approve", reason, datetime.now(UTC)))


def reject(settings: Settings, name: str, reviewer: str, reason: str) -> dict[str, Any]:
    """Record that the image called `name` must not be used. Its file and scores are kept."""
    return _decide(settings, name, Review(reviewer, "reject", reason, datetime.now(UTC)))


def _decide(settings: Settings, name: str, review: Review) -> dict[str, Any]:
    with reading(settings.catalog) as lake:
        found = find_asset(lake, name)
        told = story(lake, found.request_id)
    _refuse(told, found.request_id, review)
    with writing(settings.catalog) as lake:
        decided: dict[str, Any] = {
            "request_id": found.request_id,
            "sku": found.sku,
            "index": found.index,
            "decision": review.decision,
            "reviewer": review.reviewer,
            "reason": review.reason,
        }
        if review.decision == "reject":
            record_review(lake, found.request_id, review)
            return decided
        asset = _signed(settings, lake, told, review)
        return decided | {"sha256": asset.sha256, "file": str(path_of(settings, str(asset.url)))}


def _refuse(told: Mapping[str, Any], request_id: str, review: Review) -> None:
    """Refuse what record_review would refuse, before anything is signed."""
    verdict, decided = told["verdict"], told["reviews"][-1:]
    faults = []
    if not verdict or verdict["outcome"] != "review":
        outcome = verdict["outcome"] if verdict else told["request"]["state"]
        what = f"its verdict is {outcome}, not review"
        faults.append(Fault(what, request_id[:12], "`platemark review list`"))
    if decided and decided[0]["decision"] == review.decision:
        what = f"{decided[0]['reviewer']} decided so already ({review.decision})"
        faults.append(Fault(what, request_id[:12], "nothing to do"))
    if not review.reason.strip() or not review.reviewer.strip():
        faults.append(Fault("a decision needs a reviewer and a reason", "--reason", "say why"))
    if faults:
        raise InputError("review", faults)


def _signed(settings: Settings, lake: Lake, told: Mapping[str, Any], review: Review) -> Asset:
    request_id = told["request"]["request_id"]
    held = next(each for each in told["assets"] if each["state"] == "quarantined")
    path = path_of(settings, held["url"])
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}; restore the file") from error
    if sha256_of(data) != held["sha256"]:
        raise SetupError(f"{path} is not the image that was checked; restore it from a backup")
    identity = signing_identity(settings)
    request = request_of(told["request"])
    made = made_from(request, InputStore(settings)) if request.recipe else WORDS_ALONE
    try:
        sealed = release(
            data,
            request,
            model_of(told["model"]["details"]),
            policy_from_text(told["policy"]["text"]),
            verdict_of(told["verdict"]),
            identity,
            review,
            datetime.fromisoformat(told["request"]["recorded_at"]),
            made,
        )
    except ImageRefused as error:
        raise SetupError(f"{path}: {error}") from error
    with staging_lock(settings, alone=False):
        return _catalogued(settings, lake, request_id, review, sealed, held)


def _catalogued(
    settings: Settings,
    lake: Lake,
    request_id: str,
    review: Review,
    sealed: Sealed,
    held: Mapping[str, Any],
) -> Asset:
    sha256, url = stage(settings, "assets", sealed.data, sealed.mime)
    asset = Asset(
        sha256=sha256,
        state="signed",
        url=url,
        mime=sealed.mime,
        width=held["width"],
        height=held["height"],
        size=len(sealed.data),
        pixels_sha256=held["pixels_sha256"],
    )
    flush_staging(settings)
    try:
        record_review(lake, request_id, review, asset, sealed.signed)
    except BaseException:
        drop_staged(settings, url)
        raise
    place(settings, [url])
    return asset


def request_of(row: Mapping[str, Any]) -> Request:
    """A request as the catalog holds it; its `request_id` is the row's."""
    return request_from_json({**row, **(row["recipe"] or {})})


def model_of(details: Mapping[str, Any]) -> Model:
    """A model as the catalog holds it."""
    return Model(**{**details, "base": tuple(details.get("base") or ())})


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
