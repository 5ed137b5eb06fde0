"""Replays a policy over everything catalogued, on stored scores: what would change, what matters.

SQL alone, no model: catalog/replay_evaluate.py judges, catalog/replay_apply.py records. Scores that
the policy needs and the catalog lacks block, as ever; flows/rescore.py measures them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog.audit import Limits, isolated, select
from catalog.lake import Lake, reading
from catalog.replay_evaluate import JUDGED, Evaluation, evaluate
from catalog.replay_judged import LATER, Group, near
from catalog.replay_reasons import decided
from catalog.replay_sql import CODES
from pipeline.policy_model import Policy
from pipeline.records import SEVERITIES, Outcome, Severity

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

SHOWN = 20
"""Images that a replay names, those that matter most."""
Expected = Mapping[str, Collection[str]]
"""Weights or revisions of the policy's models today, by score: `nsfw.concept`."""

_NAMED = Limits(seconds=600, memory="8GB", rows=100_000_000, megabytes=16_384)


@dataclass(frozen=True)
class Change:
    """Images of a campaign whose verdict goes one way."""

    campaign: str
    was: Outcome
    now: Outcome
    images: int


@dataclass(frozen=True)
class RuleSpoke:
    """How many images a rule holds back, and of how many of these the verdict changes."""

    rule: str
    review: int
    block: int
    changed: int


@dataclass(frozen=True)
class Shown:
    """One image whose verdict changes. `packs` are those it was delivered in.

    `why` are the reasons of the new verdict, `before` those of the old one.
    """

    request_id: str
    sku: str
    index: int
    campaign: str
    was: Outcome
    now: Outcome
    severity: Severity
    asset_state: str | None
    packs: tuple[str, ...]
    why: tuple[str, ...]
    before: tuple[str, ...]


@dataclass(frozen=True)
class DeliveredPack:
    """A pack with images that would no longer be cleared, and the rules that say so."""

    pack_id: str
    file: str
    licensee: str
    images: int
    rules: Mapping[str, int]


@dataclass(frozen=True)
class Replay:
    """What a policy would change. `outcomes` count images before and now, by outcome.

    `missing` are needed scores and how many images lack each; `other_detectors` says of which
    scores not all come from one detector, or not from the policy's models of today.
    """

    policy: str
    version: str
    digest: str
    where: str | None
    judged: int
    changed: int
    before: Mapping[Outcome, int]
    now: Mapping[Outcome, int]
    changes: tuple[Change, ...]
    rules: tuple[RuleSpoke, ...]
    first: tuple[Shown, ...]
    packs: tuple[DeliveredPack, ...]
    missing: Mapping[str, int]
    other_detectors: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return asdict(self)


def replay(
    source: Lake | Path,
    policy: Policy,
    where: str | None = None,
    expected: Expected | None = None,
    shown: int = SHOWN,
) -> Replay:
    """What `policy` says of all images, or of those that `where` names; nothing is recorded.

    `where` is a condition over the view `images`, checked like any auditor's SQL. `expected` says
    which detectors the policy would measure with today. Raises InputError for a wrong condition,
    SetupError when there is no catalog.
    """
    folder = source.folder if isinstance(source, Lake) else source
    wanted = None if where is None else named(folder, where)
    with _connection(source) as connection:
        found = evaluate(connection, policy, wanted)
        return summary(connection, policy, where, found, expected or {}, shown)


def named(folder: Path, where: str) -> pa.Table:
    """The ids (column request_id) of the requests that a condition over `images` names.

    Raises InputError for a wrong condition.
    """
    with isolated(folder, _NAMED) as connection:
        # The line break ends a comment that the condition may finish with.
        sql = f"SELECT request_id FROM images WHERE (\n{where}\n)"
        return select(connection, sql, {}, _NAMED, folder).table


def summary(
    connection: duckdb.DuckDBPyConnection,
    policy: Policy,
    where: str | None,
    found: Evaluation,
    expected: Expected,
    shown: int,
) -> Replay:
    """What an evaluation found, told by the table that it left."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE packed AS SELECT DISTINCT pack_id, "
        "left(request_id, 32)::UUID AS request_key FROM pack_assets"
    )
    changes = _changes(connection)
    counts = connection.execute(f"SELECT was, now, count(*) FROM {JUDGED} GROUP BY ALL").fetchall()
    silent = found.sets.judged - sum(row[2] for row in counts)
    before, now = (
        {
            outcome: sum(row[2] for row in counts if row[at] == code) + (0 if code else silent)
            for code, outcome in enumerate(CODES)
        }
        for at in (0, 1)
    )
    return Replay(
        policy=policy.policy,
        version=policy.version,
        digest=policy.digest,
        where=where,
        judged=found.sets.judged,
        changed=sum(change.images for change in changes),
        before=before,
        now=now,
        changes=changes,
        rules=_rules(connection, found),
        first=_first(connection, policy, found, shown),
        packs=_packs(connection, found),
        missing=found.missing,
        other_detectors=tuple(_other_detectors(found, expected)),
    )


@contextmanager
def _connection(source: Lake | Path) -> Iterator[duckdb.DuckDBPyConnection]:
    if isinstance(source, Lake):
        with source.alone() as connection:
            yield connection
    else:
        with reading(source) as lake, lake.alone() as connection:
            yield connection


def _changes(connection: duckdb.DuckDBPyConnection) -> tuple[Change, ...]:
    rows = connection.execute(
        f"SELECT campaign, was, now, count(*) AS images FROM {JUDGED} WHERE was <> now "
        "GROUP BY campaign, was, now ORDER BY now - was DESC, now DESC, images DESC, campaign"
    ).fetchall()
    return tuple(Change(row[0], CODES[row[1]], CODES[row[2]], row[3]) for row in rows)


def _rules(connection: duckdb.DuckDBPyConnection, found: Evaluation) -> tuple[RuleSpoke, ...]:
    words = found.compiled.words
    counted = ", ".join(
        f"count(*) FILTER (w{n} = 1), count(*) FILTER (w{n} = 2), "
        f"count(*) FILTER (w{n} > 0 AND was <> now)"
        for n in range(len(words))
    )
    row = connection.execute(f"SELECT {counted} FROM {JUDGED}").fetchone() or ()
    told: dict[str, list[int]] = {}
    for number, word in enumerate(words):
        sums = told.setdefault(word.name, [0, 0, 0])
        for at in range(3):
            sums[at] += row[3 * number + at]
    spoke = [RuleSpoke(name, *sums) for name, sums in told.items() if sums[0] or sums[1]]
    return tuple(sorted(spoke, key=lambda each: (-each.changed, -each.block, each.rule)))


_CLEARED = "(was = 0 OR (was = 1 AND approved))"
_NOT_CLEARED = "now > 0 AND NOT (now = 1 AND holds)"
"""Images that could go out, and that no longer could: an approval holds for its own rules."""


def _first(
    connection: duckdb.DuckDBPyConnection, policy: Policy, found: Evaluation, shown: int
) -> tuple[Shown, ...]:
    """Delivered images first, then those that were cleared and would be blocked, then by severity
    and by how far they are beyond the bound."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE first_ones AS SELECT *, row_number() OVER () AS place "
        f"FROM (SELECT j.*, {_NOT_CLEARED} AND request_key IN "
        f"(SELECT request_key FROM temp.packed) AS delivered, now = 2 AND {_CLEARED} AS signed "
        f"FROM {JUDGED} AS j WHERE was <> now OR ({_CLEARED} AND {_NOT_CLEARED}) "
        "ORDER BY delivered DESC, signed DESC, "
        "now > was DESC, now DESC, severity DESC, beyond DESC NULLS LAST, request_key "
        f"LIMIT {int(shown)})"
    )
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE named_ones AS "
        'SELECT f.*, r.request_id, r.sku, r."index", r.asset_state, r.reasons '
        "FROM raw.images AS r JOIN temp.first_ones AS f USING (request_key, attempt) "
        f"WHERE {near(connection, 'temp.first_ones')}"
    )
    why = {
        request_id: tuple(reason.text for reason in verdict.reasons)
        for request_id, _, verdict in decided(connection, policy, found.sets, "temp.named_ones")
    }
    rows = connection.execute(
        "WITH packs AS (SELECT request_key, list(pack_id ORDER BY pack_id) AS packs "
        "FROM temp.packed SEMI JOIN temp.first_ones USING (request_key) GROUP BY ALL) "
        'SELECT f.request_id, f.sku, f."index", f.campaign, f.was, f.now, f.severity, '
        "coalesce(s.asset_state, f.asset_state), p.packs, list_transform(CASE WHEN "
        "s.replayed THEN s.reasons ELSE f.reasons END, lambda one: one.text) "
        "FROM temp.named_ones AS f LEFT JOIN packs AS p USING (request_key) "
        f"LEFT JOIN {LATER} AS s USING (request_key) ORDER BY f.place"
    ).fetchall()
    return tuple(
        Shown(
            request_id=row[0],
            sku=row[1],
            index=row[2],
            campaign=row[3],
            was=CODES[row[4]],
            now=CODES[row[5]],
            severity=SEVERITIES[row[6]],
            asset_state=row[7],
            packs=tuple(row[8] or ()),
            why=why[row[0]],
            before=tuple(row[9] or ()),
        )
        for row in rows
    )


def _packs(connection: duckdb.DuckDBPyConnection, found: Evaluation) -> tuple[DeliveredPack, ...]:
    words = found.compiled.words
    counted = ", ".join(f"count(*) FILTER (w{n} > 0)" for n in range(len(words)))
    rows = connection.execute(
        "SELECT p.pack_id, p.file, p.licensee, count(*), "
        f"{counted} FROM (SELECT pack_id, any_value(file) AS file, any_value(licensee) AS licensee "
        "FROM packs GROUP BY pack_id) AS p "
        "JOIN temp.packed AS a USING (pack_id) "
        f"JOIN (SELECT * FROM {JUDGED} WHERE {_CLEARED} AND {_NOT_CLEARED}) AS j "
        "USING (request_key) "
        "GROUP BY ALL ORDER BY count(*) DESC, p.pack_id"
    ).fetchall()
    packs = []
    for row in rows:
        rules: dict[str, int] = {}
        for word, images in zip(words, row[4:], strict=True):
            if images:
                rules[word.name] = rules.get(word.name, 0) + images
        packs.append(DeliveredPack(row[0], row[1], row[2], row[3], rules))
    return tuple(packs)


def _other_detectors(found: Evaluation, expected: Expected) -> Iterator[str]:
    """Scores that are not comparable with one another, or with what is measured today."""
    needed = {pair for _, pairs in found.compiled.needs for pair in pairs}
    for pair in sorted(needed):
        score = ".".join(pair)
        groups = [group for group in found.sets.groups if group.pair == pair]
        by_detector: dict[str | None, list[Group]] = {}
        for group in groups:
            by_detector.setdefault(group.detector, []).append(group)
        mixed = any(len(each) > 1 for each in by_detector.values())
        whole = max(group.images for group in groups)
        # Two detectors may measure one class, on every image; then they do not stand in for each
        # other.
        shared = len({sum(g.images for g in each) for each in by_detector.values()}) == 1
        if mixed or (len(by_detector) > 1 and not (shared and whole == found.sets.judged)):
            told = ", ".join(f"{_called(group)} ({group.images:,} images)" for group in groups)
            yield f"{score} comes from several detectors: {told}; rescore to make them comparable"
        today = expected.get(score.partition("@")[0])
        old = sum(g.images for g in groups if g.revision and g.revision not in (today or ()))
        if today and old:
            yield (
                f"{score} of {old:,} images is from other weights than the policy's model has "
                f"today; rescore to measure it again"
            )


def _called(group: Group) -> str:
    return f"{group.detector or 'not recorded'} {(group.revision or '')[:12]}".strip()
