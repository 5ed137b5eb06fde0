"""Who may approve what a policy held back, and until when: policies' `approvals` and `approvers`.

Asked by catalog/release.py before anything is signed.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from pipeline.errors import Fault
from pipeline.policy_model import Policy
from pipeline.policy_rules import Combination, Rule
from pipeline.records import Verdict


def may_not_approve(
    policy: Policy, verdict: Verdict, reviewer: str, roles: Collection[str]
) -> list[Fault]:
    """A fault for each rule that sent the image to review and accepts none of the person's roles.

    A rule's `approvers` stand before the policy's `approvals.roles`; where neither says any,
    anybody may approve. Upper and lower case matter, as names of roles are exact.
    """
    faults = []
    for name in dict.fromkeys(each.rule for each in verdict.reasons if each.outcome == "review"):
        accepted = _accepted(policy, name)
        if accepted and accepted.isdisjoint(roles):
            has = f"has {', '.join(sorted(roles))}" if roles else "has no role"
            what = f"{name} is approved by {' or '.join(sorted(accepted))}; {reviewer} {has}"
            remedy = "ask one of them, or give the role in the settings: `reviewers`"
            faults.append(Fault(what, reviewer, remedy))
    return faults


def approved_until(policy: Policy, decided_at: datetime) -> datetime | None:
    """When an approval under this policy ends, None where it does not."""
    days = policy.approvals.expire_after_days
    return decided_at + timedelta(days=days) if days else None


def _accepted(policy: Policy, reason: str) -> frozenset[str]:
    rule = _rule(policy, reason)
    return frozenset((rule and rule.approvers) or policy.approvals.roles)


def _rule(policy: Policy, reason: str) -> Rule | Combination | None:
    """The rule behind a reason: a rule for all libraries speaks in the name of each."""
    rules = {rule.name: rule for rule in policy.rules}
    score, bracket, channels = reason.partition("[")
    return rules.get(reason) or rules.get(score.partition("@")[0] + bracket + channels)
