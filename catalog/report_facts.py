"""What an audit report says: facts about a campaign or a period, asked of the catalog's views.

Plain rows, counted in SQL and bounded; catalog/report.py lays them out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from catalog.lineage_subject import Reader
from catalog.plots import Marker
from pipeline.errors import Fault, InputError

BINS = 40
LISTED = 50
"""Rows of a table: a report is read by people; `platemark audit` has the rest."""
_PLOTTED_SCORES = 16
_UNITS = ((timedelta(days=3), "hour"), (timedelta(days=92), "day"), (timedelta(days=800), "week"))

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Scope:
    """What a report is about: a campaign, a period, or both. Days are whole, in UTC, inclusive."""

    campaign: str | None = None
    first: date | None = None
    last: date | None = None

    def __post_init__(self) -> None:
        if not (self.campaign or self.first or self.last):
            fault = Fault("of what?", remedy="give --campaign, or --from and --to")
            raise InputError("report", [fault])
        if self.first and self.last and self.first > self.last:
            fault = Fault(f"{self.first} is after {self.last}", remedy="give the earlier day first")
            raise InputError("report", [fault])

    def __str__(self) -> str:
        period = " ".join(
            [*([f"from {self.first}"] if self.first else []),
             *([f"to {self.last}"] if self.last else [])]
        )  # fmt: skip
        about = f"campaign {self.campaign}" if self.campaign else "all campaigns"
        return f"{about}, {period}" if period else about

    @property
    def parameters(self) -> dict[str, Any]:
        """As the report's SQL takes them: campaign, since (inclusive) and until (exclusive)."""
        day = timedelta(days=1)
        return {
            "campaign": self.campaign,
            "since": _start(self.first) if self.first else None,
            "until": _start(self.last) + day if self.last else None,
        }


@dataclass(frozen=True)
class Distribution:
    """One score's values in equal bins, and the bounds that policies set on it."""

    score: str
    images: int
    lowest: float
    highest: float
    counts: list[int]
    markers: list[Marker] = field(default_factory=list)


@dataclass(frozen=True)
class Facts:
    """All that a report says, in the order in which it says it."""

    totals: dict[str, Any]
    unit: str
    over_time: Rows
    reasons: Rows
    distributions: list[Distribution]
    models: Rows
    briefs: Rows
    policies: Rows
    reviewers: Rows
    decisions: Rows
    disagreements: Rows
    exports: Rows
    left_out: Rows
    restricted: Rows
    trained_on: Rows
    runs: Rows
    pictures: Rows


def facts_of(read: Reader, scope: Scope, pictures: int) -> Facts:
    """Asks the catalog all of it; `pictures` cleared images at most are named, newest first."""

    def asked(sql: str, **more: Any) -> Rows:
        given = {**scope.parameters, "listed": LISTED, "pictures": pictures, **more}
        return read(sql, **{name: value for name, value in given.items() if f"${name}" in sql})

    (totals,) = asked(_TOTALS)
    span = (totals["last_at"] - totals["first_at"]) if totals["images"] else timedelta(0)
    unit = next((name for longest, name in _UNITS if span <= longest), "month")
    policies = asked(_POLICIES)
    return Facts(
        totals=totals,
        unit=unit,
        over_time=asked(_OVER_TIME, unit=unit),
        reasons=asked(_REASONS),
        distributions=list(_distributions(asked, policies)),
        models=asked(_YIELD.format(by="s.model, s.model_revision, s.model_licence", runs="")),
        briefs=asked(_YIELD.format(by="b.brief, b.brief_sha256", runs=_RUNS_OF)),
        policies=policies,
        reviewers=asked(_REVIEWERS),
        decisions=asked(_DECISIONS, unit=unit),
        disagreements=asked(_DISAGREEMENTS),
        exports=asked(_EXPORTS),
        left_out=asked(_LEFT_OUT),
        restricted=asked(_RESTRICTED),
        trained_on=asked(_TRAINED_ON),
        runs=asked(_RUNS),
        pictures=asked(_PICTURES) if pictures else [],
    )


def _distributions(asked: Any, policies: Rows) -> Iterator[Distribution]:
    bounds: dict[str, list[Marker]] = {}
    for policy in policies:
        for score, marker in _bounds(policy["text"] or ""):
            if marker not in bounds.setdefault(score, []):
                bounds[score].append(marker)
    rows = asked(_SCORES, bins=BINS)
    by_score: dict[str, Rows] = {}
    for row in rows:
        by_score.setdefault(row["score"], []).append(row)
    # Scores with a bound first: those decided something.
    bounded = {score: _bounds_on(score, bounds) for score in by_score}
    ordered = sorted(by_score, key=lambda score: (not bounded[score], score))
    # What is the same on all images and decides nothing is not worth a drawing.
    ordered = [
        score
        for score in ordered
        if bounded[score] or by_score[score][0]["lowest"] < by_score[score][0]["highest"]
    ]
    for score in ordered[:_PLOTTED_SCORES]:
        counts = [0] * BINS
        for row in by_score[score]:
            counts[row["bin"]] = row["images"]
        first = by_score[score][0]
        yield Distribution(
            score,
            sum(counts),
            first["lowest"],
            first["highest"],
            counts if first["lowest"] < first["highest"] else [sum(counts)],
            bounded[score],
        )


def _bounds_on(score: str, bounds: dict[str, list[Marker]]) -> list[Marker]:
    """A rule without a library speaks of that score against each library."""
    return [
        *bounds.get(score, ()),
        *(bounds.get(score.partition("@")[0], ()) if "@" in score else ()),
    ]


def _bounds(policy: str) -> Iterator[tuple[str, Marker]]:
    from pydantic import ValidationError
    from yaml import YAMLError

    from pipeline.policy import policy_from_text
    from pipeline.policy_model import Rule

    try:
        rules = policy_from_text(policy).rules
    # Policies of earlier versions may not be read by this one; their images count all the same.
    except (ValidationError, YAMLError):
        return
    for rule in rules:
        if isinstance(rule, Rule):
            for outcome, bound in (("review", rule.review), ("block", rule.block)):
                if bound:
                    label = f"{outcome} {bound.words} {bound.value:g}{rule.suffix}"
                    yield rule.measures, Marker(bound.value, outcome, label)


def _start(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)


_WHERE = """($campaign::VARCHAR IS NULL OR campaign = $campaign)
      AND ($since::TIMESTAMPTZ IS NULL OR recorded_at >= $since)
      AND ($until::TIMESTAMPTZ IS NULL OR recorded_at < $until)"""
_SCOPE = f"""
WITH scope AS (
    SELECT request_id, run_id, state, model, model_revision, model_licence, recorded_at, sku,
           "index", generate_ms / 1000 AS seconds
    FROM requests WHERE {_WHERE})"""
_TOTALS = f"""
WITH told AS (SELECT sku, state, outcome, decision, cleared, recorded_at, request_id,
                     generate_ms
              FROM images WHERE {_WHERE})
SELECT count(*) AS images, count(DISTINCT sku) AS items,
       count(*) FILTER (state = 'failed') AS failed,
       count(*) FILTER (outcome = 'pass') AS passed,
       count(*) FILTER (outcome = 'review') AS review,
       count(*) FILTER (outcome = 'review' AND decision = 'approve') AS approved,
       count(*) FILTER (outcome = 'review' AND decision = 'reject') AS rejected,
       count(*) FILTER (outcome = 'review' AND decision IS NULL) AS waiting,
       count(*) FILTER (outcome = 'block') AS blocked,
       count(*) FILTER (cleared) AS cleared, coalesce(sum(generate_ms), 0) / 1000 AS seconds,
       (SELECT count(DISTINCT request_id) FROM pack_assets
        WHERE request_id IN (SELECT request_id FROM told)) AS exported,
       min(recorded_at) AS first_at, max(recorded_at) AS last_at
FROM told"""
_OVER_TIME = f"""
{_SCOPE}
SELECT date_trunc($unit, s.recorded_at) AS at, count(*) FILTER (v.outcome = 'pass') AS passed,
       count(*) FILTER (v.outcome = 'review') AS review,
       count(*) FILTER (v.outcome = 'block') AS blocked,
       count(*) FILTER (s.state = 'failed') AS failed
FROM scope AS s LEFT JOIN verdicts AS v USING (request_id) GROUP BY 1 ORDER BY 1"""
_REASONS = f"""
{_SCOPE}
SELECT one.rule AS rule, one.outcome AS says, policy, policy_version, count(*) AS images,
       min(one.score) AS lowest, median(one.score) AS median, max(one.score) AS highest,
       any_value(one.bound) AS bound, any_value(one.text) AS example
FROM (SELECT policy, policy_version, unnest(reasons) AS one FROM verdicts
      WHERE request_id IN (SELECT request_id FROM scope))
GROUP BY ALL ORDER BY images DESC, rule LIMIT $listed"""
_SCORES = f"""
{_SCOPE},
said AS (SELECT score, value FROM scores
         WHERE isfinite(value) AND request_id IN (SELECT request_id FROM scope)),
ends AS (SELECT score, min(value) AS lowest, max(value) AS highest FROM said GROUP BY score)
SELECT score, lowest, highest, count(*) AS images,
       coalesce(least(floor((value - lowest) / nullif(highest - lowest, 0) * $bins), $bins - 1), 0)
           ::INTEGER AS bin
FROM said JOIN ends USING (score) GROUP BY ALL ORDER BY score, bin LIMIT 100000"""
_RUNS_OF = "LEFT JOIN (SELECT run_id, brief, brief_sha256 FROM runs) AS b ON b.run_id = s.run_id"
_YIELD = (
    _SCOPE.replace("{", "{{").replace("}", "}}")
    + """
SELECT {by}, count(*) AS images, count(*) FILTER (s.state = 'failed') AS failed,
       count(*) FILTER (v.outcome = 'pass') AS passed,
       count(*) FILTER (v.outcome = 'review') AS review,
       count(*) FILTER (v.outcome = 'block') AS blocked,
       count(*) FILTER (v.outcome = 'review' AND w.decision = 'approve') AS approved,
       count(*) FILTER (v.outcome = 'pass') / nullif(count(v.outcome), 0) AS pass_rate,
       sum(s.seconds) AS seconds,
       sum(s.seconds) / nullif(count(*) FILTER (v.outcome = 'pass' OR (
           v.outcome = 'review' AND w.decision = 'approve')), 0) AS seconds_a_usable
FROM scope AS s {runs}
LEFT JOIN verdicts AS v ON v.request_id = s.request_id
LEFT JOIN (SELECT request_id, decision FROM reviews WHERE counts) AS w
          ON w.request_id = s.request_id
GROUP BY ALL ORDER BY images DESC, {by} LIMIT $listed"""
)
_POLICIES = f"""
{_SCOPE},
judged AS (
    SELECT v.policy, v.policy_version, v.policy_digest, count(*) AS images,
           count(*) FILTER (v.outcome = 'pass') AS passed,
           count(*) FILTER (v.outcome = 'review') AS review,
           count(*) FILTER (v.outcome = 'block') AS blocked,
           count(*) FILTER (v.replay_id IS NOT NULL) AS replayed,
           count(*) FILTER (v.outcome = 'pass') / count(*) AS pass_rate
    FROM verdicts AS v WHERE v.request_id IN (SELECT request_id FROM scope) GROUP BY ALL)
SELECT j.*, p.text FROM judged AS j LEFT JOIN policies AS p ON p.digest = j.policy_digest
ORDER BY j.images DESC, j.policy_digest LIMIT $listed"""
_DECIDED = f"""
{_SCOPE},
decided AS (SELECT * FROM reviews WHERE request_id IN (SELECT request_id FROM scope)),
today AS (SELECT request_id, outcome, replay_id, policy, policy_version FROM verdicts
          WHERE request_id IN (SELECT request_id FROM decided)),
counting AS (SELECT request_id, decision, reviewer FROM decided WHERE counts)"""
_REVIEWERS = f"""
{_DECIDED},
asked AS (
    SELECT w.review_id, max(h.decided_at) AS at FROM decided AS w
    JOIN verdict_history AS h USING (request_id)
    WHERE h.outcome = 'review' AND h.decided_at <= w.decided_at
      AND h.request_id IN (SELECT request_id FROM decided) GROUP BY 1)
SELECT w.reviewer, count(*) AS decisions, count(*) FILTER (w.decision = 'approve') AS approved,
       count(*) FILTER (w.decision = 'reject') AS rejected,
       count(*) FILTER (c.decision <> w.decision) AS reversed_by_people,
       count(*) FILTER (w.counts AND t.replay_id IS NOT NULL AND (
           (w.decision = 'approve' AND t.outcome = 'block')
           OR (w.decision = 'reject' AND t.outcome = 'pass'))) AS reversed_by_replay,
       median(epoch(w.decided_at - a.at)) / 3600 AS median_hours
FROM decided AS w LEFT JOIN asked AS a USING (review_id)
LEFT JOIN counting AS c ON c.request_id = w.request_id
LEFT JOIN today AS t ON t.request_id = w.request_id
GROUP BY w.reviewer ORDER BY decisions DESC, w.reviewer LIMIT $listed"""
_DECISIONS = f"""
{_SCOPE}
SELECT date_trunc($unit, decided_at) AS at, count(*) FILTER (decision = 'approve') AS approved,
       count(*) FILTER (decision = 'reject') AS rejected
FROM reviews WHERE request_id IN (SELECT request_id FROM scope) GROUP BY 1 ORDER BY 1"""
_DISAGREEMENTS = f"""
{_DECIDED},
said AS (
    SELECT request_id, count(DISTINCT decision) > 1 AS divided, max(decided_at) AS last_at,
           list(reviewer || ': ' || decision || ' – ' || reason ORDER BY decided_at) AS decisions
    FROM decided GROUP BY request_id)
SELECT s.request_id, s.sku || '-' || s."index" AS image, d.decisions, c.decision, t.outcome,
       t.policy, t.policy_version, d.last_at
FROM said AS d JOIN scope AS s USING (request_id) JOIN counting AS c USING (request_id)
LEFT JOIN today AS t USING (request_id)
WHERE d.divided OR (t.replay_id IS NOT NULL AND ((c.decision = 'approve' AND t.outcome = 'block')
      OR (c.decision = 'reject' AND t.outcome = 'pass')))
ORDER BY d.last_at DESC, s.request_id LIMIT $listed"""
_EXPORTS = f"""
{_SCOPE}
SELECT p.pack_id, p.file, p.created_at, p.terms_id, p.licensee, p.expires, p.sha256, a.images
FROM packs AS p
JOIN (SELECT pack_id, count(DISTINCT request_id) AS images FROM pack_assets
      WHERE request_id IN (SELECT request_id FROM scope) GROUP BY pack_id) AS a USING (pack_id)
ORDER BY p.created_at DESC, p.file LIMIT $listed"""
_LEFT_OUT = f"""
{_SCOPE}
SELECT reason, count(DISTINCT request_id) AS images FROM pack_refusals
WHERE request_id IN (SELECT request_id FROM scope)
GROUP BY reason ORDER BY images DESC, reason LIMIT $listed"""
_RESTRICTED = f"""
{_SCOPE}
SELECT says, count(DISTINCT sha256) AS pictures, count(DISTINCT request_id) AS images
FROM (SELECT request_id, sha256, unnest(restrictions) AS says FROM inputs
      WHERE request_id IN (SELECT request_id FROM scope))
GROUP BY says ORDER BY images DESC, says LIMIT $listed"""
_TRAINED_ON = f"""
{_SCOPE},
adapters AS (SELECT model, revision, count(DISTINCT request_id) AS images FROM models_used
             WHERE part = 'adapter' AND request_id IN (SELECT request_id FROM scope) GROUP BY ALL)
SELECT a.model AS adapter, a.revision, a.images, count(t.sha256) AS pictures,
       count(t.waiver) AS waivers,
       list(DISTINCT t.rights_holder) FILTER (t.rights_holder IS NOT NULL) AS rights_holders,
       list(DISTINCT t.licence) FILTER (t.licence IS NOT NULL) AS licences
FROM adapters AS a
LEFT JOIN training_images AS t ON t.adapter = a.model AND t.revision = a.revision
GROUP BY ALL ORDER BY a.images DESC, a.model, a.revision LIMIT $listed"""
_RUNS = f"""
{_SCOPE}
SELECT run_id, started_at, finished_at, status, brief, policy, policy_version, host, device,
       images, failed
FROM runs WHERE run_id IN (SELECT run_id FROM scope) ORDER BY started_at DESC LIMIT $listed"""
_PICTURES = f"""
SELECT request_id, sku, "index", sha256, url, terms_id, expires FROM images
WHERE {_WHERE} AND cleared AND url IS NOT NULL
ORDER BY recorded_at DESC, sku, "index" LIMIT $pictures"""
