"""Usage terms: what a pack may grant of what an asset grants."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.terms import UsageTerms
from pipeline.terms_text import licence_text

TODAY = date(2027, 1, 15)
DAYS = st.none() | st.integers(-30, 30).map(lambda days: TODAY + timedelta(days))


def terms(**fields: object) -> UsageTerms:
    return UsageTerms.model_validate({"id": "t", "licensor": "Acme", **fields})


@pytest.mark.parametrize(
    ("pack", "asset", "said"),
    [
        ({}, {}, None),
        ({"channels": ["web"]}, {"channels": ["web", "print"]}, None),
        ({"territories": ["DE"]}, {"territories": ["worldwide"]}, None),
        ({"expires": "2027-06-30"}, {"expires": "2027-06-30"}, None),
        ({}, {"channels": ["web"]}, "channel any is not granted"),
        ({"territories": ["US"]}, {"territories": ["DE"]}, "territory US"),
        ({}, {"expires": "2027-06-30"}, "runs until no end"),
        ({"expires": "2027-07-01"}, {"expires": "2027-06-30"}, "only until 2027-06-30"),
        ({"expires": "2027-01-10"}, {"expires": "2027-01-14"}, "expired on 2027-01-14"),
        ({}, {"starts": "2027-01-16"}, "start only on 2027-01-16"),
        ({"licensee": "B"}, {"licensee": "A"}, "licensed to A"),
        ({"exclusive": True}, {"exclusive": True}, None),
        ({}, {"exclusive": True}, None),
        ({"exclusive": True}, {}, "the pack is exclusive"),
        ({"starts": "2027-01-10"}, {"starts": "2027-01-10"}, None),
        ({}, {"starts": "2027-01-10"}, None),
        ({"starts": "2027-01-09"}, {"starts": "2027-01-10"}, "starts on 2027-01-09, the asset"),
        ({"licensor": "Other"}, {}, "the licensor is Acme, the pack says Other"),
        ({"credit": "Photo: Acme"}, {}, None),
        ({"credit": "Photo: Acme"}, {"credit": "Photo: Acme"}, None),
        ({}, {"credit": "Photo: Acme"}, "'Photo: Acme' is required, the pack has none"),
        ({"credit": "Us"}, {"credit": "Photo: Acme"}, "required, the pack says 'Us'"),
    ],
)
def test_a_pack_stays_within_its_assets_terms(pack: dict, asset: dict, said: str | None) -> None:
    reasons = terms(**pack).outside(terms(**asset), TODAY)
    assert reasons == [] if said is None else any(said in reason for reason in reasons)


@given(st.sets(st.sampled_from(["web", "print", "tv"]), min_size=1), DAYS)
def test_what_is_granted_is_within_itself_unless_it_is_over(channels: set[str], end: date) -> None:
    granted = terms(channels=sorted(channels), expires=end)
    assert bool(granted.outside(granted, TODAY)) == (end is not None and end < TODAY)


def test_the_licence_text_names_every_field() -> None:
    page = "https://acme.example/licence"
    stated = terms(text="You may.", credit="Photo: Acme", territories=["DE"], web_statement=page)
    for part in ("You may.", "Photo: Acme", "DE", "Acme", "Exclusive:   no", page):
        assert part in licence_text(stated)
    assert "Web page" not in licence_text(terms())


def test_dates_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="lies before starts"):
        terms(starts="2027-02-01", expires="2027-01-01")
