"""What audits rank images by: columns of new rows, lists of old ones, measured again."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from pathlib import Path

import pytest
from catalog_samples import begin, produced_of, request_of
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from catalog.audit import ask
from catalog.lake import Lake, writing
from catalog.ranks import nearness, urgency
from catalog.rescore import record_rescores
from catalog.write import commit_batch
from pipeline.records import Produced, Reason, Score, Severity, Verdict

DISTANCES = st.just(nan) | st.integers(0, 256).map(float)
COSINES = st.just(nan) | st.floats(-1, 1)
SCORES = {
    ("duplicates", "exact"): st.sampled_from((0.0, 1.0)),
    ("duplicates", "near"): DISTANCES,
    ("duplicates", "in_set"): DISTANCES,
    ("copying", "pdq@logos"): DISTANCES,
    ("copying", "pdq@art"): DISTANCES,
    ("copying", "descriptor@logos"): COSINES,
    ("copying", "descriptor@art"): COSINES,
    ("copying", "clip@logos"): COSINES,
    ("copying", "concept"): COSINES,
    ("similarity", "nearest"): COSINES,
    ("nsfw", "concept"): COSINES,
}
COLUMNS = ("duplicate_distance", "nearest_pdq", "nearest_clip", "nearest_descriptor")
NOTHING = {
    "duplicate_distance": 256.0,
    "nearest_pdq": 256.0,
    "nearest_clip": -1.0,
    "nearest_descriptor": -1.0,
}


def score(name: str, value: float) -> Score:
    check, _, of = name.partition(".")
    return Score(check, of, value, {})


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([], {}),
        ([score("nsfw.concept", 1.0), score("copying.concept", 0.9)], {}),
        ([score("duplicates.exact", 1.0)], {"duplicate_distance": 0}),
        ([score("duplicates.exact", 0.0), score("duplicates.near", 7)], {"duplicate_distance": 7}),
        ([score("duplicates.in_set", 3)], {}),
        ([score("copying.pdq@a", 40), score("copying.pdq@b", 9)], {"nearest_pdq": 9}),
        ([score("similarity.nearest", 0.4), score("copying.clip@a", 0.6)], {"nearest_clip": 0.6}),
        ([score("copying.descriptor@a", nan)], {}),
        ([score("copying.descriptor@a", nan), score("copying.descriptor@b", -0.5)],
         {"nearest_descriptor": -0.5}),
    ],
)  # fmt: skip
def test_the_nearest_of_all_libraries_counts(
    scores: list[Score], expected: dict[str, float]
) -> None:
    assert nearness(scores) == NOTHING | expected


def reason(severity: Severity) -> Reason:
    return Reason("review", "r", "t", 0.5, 0.4, {}, severity)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (None, 0),
        (Verdict("pass", (), "p", "1", "d"), 0),
        (Verdict("block", (reason("critical"),), "p", "1", "d"), 0),
        (Verdict("review", (reason("low"),), "p", "1", "d"), 1),
        (Verdict("review", (reason("low"), reason("critical"), reason("high")), "p", "1", "d"), 4),
        (Verdict("review", (), "p", "1", "d"), 2),
    ],
)
def test_the_worst_reason_makes_it_urgent(verdict: Verdict | None, expected: int) -> None:
    assert urgency(verdict) == expected


@settings(
    max_examples=3,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.fixed_dictionaries({}, optional=SCORES), min_size=40, max_size=40))
def test_columns_say_what_the_lists_of_earlier_versions_say(
    tmp_path_factory: pytest.TempPathFactory, found: list[dict[tuple[str, str], float]]
) -> None:
    batch = [
        replace(
            produced_of(number, "pass"),
            scores=tuple(Score(*name, value, {}) for name, value in one.items()),
        )
        for number, one in enumerate(found)
    ]
    with writing(tmp_path_factory.mktemp("ranks") / "catalog") as lake:
        begin(lake)
        commit_batch(lake, "run-1", "b1", batch)
        listed = ", ".join(COLUMNS)
        sql = f"SELECT request_key, {listed} FROM raw.ranked ORDER BY request_key"
        told = lake.rows(sql)
        assert len(told) == len(batch)
        forgotten = ", ".join(f"{column} = NULL" for column in COLUMNS)
        lake.connection.execute(f"UPDATE raw.images SET {forgotten}")
        assert lake.rows(sql) == told


def near(number: int, value: float, title: str = "Logo") -> Produced:
    evidence = {"detector": "clip", "nearest": [{"library": "logos", "title": title}]}
    return replace(
        produced_of(number, "pass"), scores=(Score("similarity", "nearest", value, evidence),)
    )


@pytest.fixture
def rescored(lake: Lake) -> Path:
    """Images 0 to 4, of which 4 was nearest and is not since it was measured again; 0 is now."""
    commit_batch(lake, "run-1", "b1", [near(number, 0.1 * number) for number in range(5)])
    ((attempt,),) = lake.connection.execute("SELECT DISTINCT attempt FROM raw.images").fetchall()
    again = {4: 0.0, 0: 0.9}
    record_rescores(
        lake,
        {
            (request_of(number).request_id, attempt): near(number, value, "New").scores
            for number, value in again.items()
        },
    )
    return lake.folder


def test_what_was_measured_again_ranks_as_it_was_measured_last(rescored: Path) -> None:
    found = ask(rescored, "nearest-references", {"limit": "3"}).table.to_pylist()
    assert [(row["sku"], row["title"], round(row["value"], 1)) for row in found] == [
        ("MUG-00000", "New", 0.9),
        ("MUG-00003", "Logo", 0.3),
        ("MUG-00002", "Logo", 0.2),
    ]


def test_no_image_is_missed_when_most_were_measured_again(rescored: Path, lake: Lake) -> None:
    """More than the 10,000 that are looked at first, all of them measured again and far since."""
    key = "md5('more' || n)"
    lake.connection.execute(
        f"""
        INSERT INTO raw.images BY NAME
        SELECT i.* REPLACE ({key} || {key} AS request_id, {key}::UUID AS request_key,
                            0.95 AS nearest_clip)
        FROM (FROM raw.images WHERE sku = 'MUG-00001') AS i, range(10050) AS r(n)
        """
    )
    lake.connection.execute(
        """
        INSERT INTO raw.rescored BY NAME
        SELECT request_id, attempt, signature, [-0.5] AS "values", evidence,
               -0.5 AS nearest_clip, 256 AS nearest_pdq, -1 AS nearest_descriptor,
               256 AS duplicate_distance, now() AS measured_at
        FROM raw.images WHERE nearest_clip = 0.95
        """
    )
    found = ask(rescored, "nearest-references", {"limit": "4"}).table.to_pylist()
    assert [row["sku"] for row in found] == ["MUG-00000", "MUG-00003", "MUG-00002", "MUG-00001"]
