"""Markets as data: what each asks, what a file of ours and a bare one have of it, faulty files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.markets import check, find_market, markets, meets, read_market
from pipeline.verify import Report

MADE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
AIGC = '{"Label":"1","ContentProducer":"Acme","ProduceID":"42"}'
BARE = Report("a.png", mime="image/png", decodes=True)
MARKED = Report(
    "a.png", state="Trusted", mime="image/png", decodes=True, label="urn:c2pa:1",
    actions=("c2pa.created", "c2pa.watermarked.bound"),
    source_types=(MADE,), time_stamp="Valid", signed_at="2026-11-25T12:00:00+00:00",
    claim_generator="Platemark 1", assertions=("c2pa.soft-binding",),
    disclosure={"modelName": "starter", "modelIdentifier": "pkg:generic/starter"},
    labels={
        "Iptc4xmpExt:DigitalSourceType": MADE, "dc:creator": ["Acme"], "TC260:AIGC": AIGC,
        "xmp:CreateDate": "2026-11-25T12:00:00Z",
    },
)  # fmt: skip


@pytest.mark.parametrize("name", ["eu", "china", "california", "google-merchant", "iptc"])
def test_each_market_tells_a_marked_file_from_a_bare_one(name: str) -> None:
    market = find_market(name)
    assert meets(check(MARKED, market))
    assert not meets(check(BARE, market))
    assert market.checked.year >= 2026
    assert all(each.rule for each in market.requirements)


@pytest.mark.parametrize(
    ("market", "requirement", "change", "met"),
    [
        ("eu", "signed", {"state": "Valid"}, True),
        ("eu", "signed", {"state": "Invalid"}, False),
        ("eu", "recognised-signer", {"state": "Valid"}, False),
        ("eu", "time-stamped", {"time_stamp": None}, False),
        # A fingerprint is a soft binding too: only the action says that the pixels are marked.
        ("eu", "watermark", {"actions": ("c2pa.created",)}, False),
        ("eu", "watermark", {"assertions": ()}, True),
        ("eu", "visible-label", {}, None),
        ("eu", "machine-readable", {"source_types": (), "labels": {}}, False),
        ("eu", "machine-readable", {"source_types": ("http://x/digitalCapture",)}, True),
        ("china", "implicit-label", {"labels": {"TC260:AIGC": '{"Label":"1"}'}}, False),
        ("china", "implicit-label", {"labels": {"TC260:AIGC": "not JSON"}}, False),
        ("china", "implicit-label", {"labels": {"TC260:AIGC": "[" * 9_999}}, False),
        ("china", "propagator", {}, False),
        ("california", "system", {"disclosure": {"modelName": ""}}, False),
        ("google-merchant", "source-type", {"labels": {}}, False),
        ("google-merchant", "source-type", {"source_types": ()}, True),
    ],
)
def test_one_change_decides_one_requirement(
    market: str, requirement: str, change: dict[str, Any], met: bool | None
) -> None:
    report = Report(**{**vars(MARKED), **change})
    found = {each.requirement.id: each for each in check(report, find_market(market))}
    assert found[requirement].met is met
    assert (found[requirement].found is not None) == (met is True)


def test_what_only_people_can_tell_fails_nobody() -> None:
    findings = check(MARKED, find_market("eu"))
    assert any(each.met is None for each in findings)
    assert meets(findings)


GOOD = """market: own
title: Our house rule
source: https://example.org/rules
checked: 2026-11-25
applies: to us
requirements:
- id: credit
  text: a credit line
  rule: page 3
  any: [{fact: "labels.photoshop:Credit", matches: "Acme.*"}]
"""


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("fact: \"labels", "fact: \"lables"), "own.yaml:10"),
        (("matches: \"Acme.*\"", "matches: \"(\""), "matches is no pattern"),
        (("checked: 2026-11-25", "checked: soon"), "own.yaml:4"),
        (("source: https://example.org/rules", "source: somewhere"), "own.yaml:3"),
        (("rule: page 3", "rules: page 3"), "rule"),
        (("id: credit", "id: Credit Line"), "own.yaml:7"),
        (("requirements:", "requirements: []\nx:"), "requirements"),
        (("market: own", "market: own\nmarket: own"), "written twice"),
    ],
)  # fmt: skip
def test_a_faulty_market_is_refused_with_its_line(
    change: tuple[str, str], fault: str, tmp_path: Path
) -> None:
    assert change[0] in GOOD
    path = tmp_path / "own.yaml"
    path.write_text(GOOD.replace(*change))
    with pytest.raises(InputError) as refused:
        find_market(str(path))
    assert fault in str(refused.value)


def test_a_market_of_ones_own_works(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(GOOD)
    own = read_market(path)
    assert not meets(check(MARKED, own))
    assert meets(check(Report("a", labels={"photoshop:Credit": "Acme Studio"}), own))


def test_an_unknown_market_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="california, china, eu, google-merchant, iptc"):
        find_market("mars")
    assert list(markets()) == ["california", "china", "eu", "google-merchant", "iptc"]
