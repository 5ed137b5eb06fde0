from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from catalog_samples import TERMS, failed_of, produced_of, request_of

from catalog.export import export
from catalog.lake import Lake
from catalog.pack import NothingToExport
from catalog.selection import named, own_terms
from catalog.write import commit_batch, record_terms
from pipeline.errors import InputError
from pipeline.settings import Settings
from pipeline.terms import UsageTerms

SPRING, OTHER = "campaign = 'spring'", "campaign = 'other'"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(workspace=tmp_path)


@pytest.fixture
def shoot(lake: Lake) -> Lake:
    """Two passed images of the campaign spring, one of another, one in review, one failed.

    Their files are missing: a pack whose terms are found says so of each.
    """
    spring = [produced_of(number, campaign="spring") for number in (1, 2, 3)]
    other = produced_of(6, campaign="other", terms={**TERMS, "id": "other-web"})
    commit_batch(lake, "run-1", "b1", [*spring, other, failed_of(5)])
    return lake


def retell(lake: Lake, number: int, campaign: str, **terms: Any) -> None:
    record_terms(lake, [request_of(number, campaign=campaign, terms={**TERMS, **terms})])


def terms_of(lake: Lake, where: str) -> tuple[UsageTerms, ...]:
    with named(lake.folder, where) as found:
        return own_terms(found)


def test_another_campaigns_terms_do_not_disturb(
    shoot: Lake, settings: Settings, tmp_path: Path
) -> None:
    for where, id in ((SPRING, "spring-web"), (OTHER, "other-web")):
        assert [terms.id for terms in terms_of(shoot, where)] == [id]
        for given in (None, id):
            with pytest.raises(NothingToExport, match="missing or unreadable"):
                export(settings, tmp_path / "a.zip", where, given)


def test_different_terms_are_named_for_a_choice(
    shoot: Lake, settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="different terms: other-web, spring-web"):
        export(settings, tmp_path / "a.zip")
    with pytest.raises(InputError, match="the condition names has terms 'other-web'"):
        export(settings, tmp_path / "a.zip", SPRING, "other-web")


def test_terms_of_one_id_and_different_content_ask_for_a_file(
    shoot: Lake, settings: Settings, tmp_path: Path
) -> None:
    retell(shoot, 2, "spring", expires="2031-12-31", channels=["web"])
    told = (
        r"terms spring-web differ from image to image: channels \['web', 'print'\] or "
        r"\['web'\]; expires 2030-12-31 or 2031-12-31 \(.*--terms FILE"
    )
    for given in (None, "spring-web"):
        with pytest.raises(InputError, match=told):
            export(settings, tmp_path / "a.zip", SPRING, given)


def test_terms_that_say_the_same_in_other_words_are_the_same(shoot: Lake) -> None:
    retell(shoot, 2, "spring", exclusive=False, starts=None)
    assert len(terms_of(shoot, SPRING)) == 1


def test_images_that_offer_no_terms_say_why(
    shoot: Lake, settings: Settings, tmp_path: Path
) -> None:
    record_terms(shoot, [request_of(number, campaign="spring", terms={}) for number in (1, 2)])
    with pytest.raises(NothingToExport, match=r"(?s)1-0: it has no usage.*3-0: it waits for a rev"):
        export(settings, tmp_path / "a.zip", SPRING)
    with pytest.raises(NothingToExport, match="names no image"):
        export(settings, tmp_path / "a.zip", "campaign = 'autumn'")
    assert not (tmp_path / "a.zip").exists()


def test_the_condition_is_held_to_what_auditors_may_ask(
    shoot: Lake, settings: Settings, tmp_path: Path
) -> None:
    for where in ("true); COPY (SELECT 1) TO 'evil' --", "colour = 'red'", ""):
        with pytest.raises(InputError):
            export(settings, tmp_path / "a.zip", where)
