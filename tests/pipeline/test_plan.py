"""Plans: requests grouped into batches of one forward pass each, models one after another."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.plan import make_batches, make_plan
from pipeline.request import Request
from pipeline.settings import Settings

FIELDS = {
    "mode": "text-to-image", "model_revision": "r", "prompt": "a mug", "negative_prompt": "",
    "seed": 1, "steps": 2, "guidance": 1.0, "scheduler": "", "campaign": "c", "client": "",
}  # fmt: skip
SHAPES = st.tuples(
    st.sampled_from(["one", "two", "three"]), st.sampled_from([64, 128]), st.sampled_from([64, 96])
)


def requests(shapes: list[tuple[str, int, int]]) -> list[Request]:
    return [
        Request(sku=f"S{number}", index=0, model=model, width=width, height=height, **FIELDS)
        for number, (model, width, height) in enumerate(shapes)
    ]


@settings(max_examples=50, deadline=None)
@given(st.lists(SHAPES, max_size=60), st.integers(1, 9))
def test_every_request_is_in_one_batch_of_its_kind(shapes: list, size: int) -> None:
    wanted = requests(shapes)
    batches = make_batches(wanted, size)
    assert sorted(r.sku for batch in batches for r in batch.requests) == sorted(
        r.sku for r in wanted
    )
    for batch in batches:
        assert 1 <= len(batch.requests) <= size
        assert len({(r.model, r.width, r.height) for r in batch.requests}) == 1
    # A model is loaded once: its batches stand together.
    models = [name for name, _ in groupby(batch.requests[0].model for batch in batches)]
    assert len(models) == len(set(models))


def test_equal_requests_are_one_batch_when_sent_again() -> None:
    again = [make_batches(requests([("one", 64, 64)] * 3), 2) for _ in range(2)]
    assert [batch.batch_id for batch in again[0]] == [batch.batch_id for batch in again[1]]
    assert len({batch.batch_id for batch in again[0]}) == 2


def test_terms_are_no_part_of_a_requests_identity(request_of: Callable[..., Request]) -> None:
    assert request_of(terms={"id": "new"}).request_id == request_of().request_id
    for field in ("prompt", "sku", "campaign", "scheduler"):
        assert request_of(**{field: "other"}).request_id != request_of().request_id
    assert request_of(seed=1).request_id != request_of(seed=2).request_id


POLICY = """\
policy: plain
version: '1'
checks: {quality: {}}
licences: [Apache-2.0]
rules:
- {check: quality, score: decodes, block: {below: 1}}
"""
BRIEF = """\
campaign: spring
client: acme
steps: 2
items:
- {sku: PLAIN, prompt: a red mug on a white background}
- sku: CHAIN
  prompt: a white mug on a beige background
  then:
  - {mode: image-to-image, prompt: a white mug on a pale green background}
- sku: WEIGHTED
  prompt: a (glossy)1.4 blue mug
  prompt_syntax: compel
  then:
  - {mode: image-to-image, prompt: soft light}
"""


def test_an_items_words_are_those_of_its_first_step_without_weights(tmp_path: Path) -> None:
    (tmp_path / "brief.yaml").write_text(BRIEF)
    (tmp_path / "policy.yaml").write_text(POLICY)
    plan = make_plan(
        Settings(workspace=tmp_path / "ws"), tmp_path / "brief.yaml", tmp_path / "policy.yaml"
    )
    asked = {request.sku: request.prompt for request in plan.requests}
    assert (asked["CHAIN"], asked["WEIGHTED"]) == (
        "a white mug on a pale green background", "soft light",
    )  # fmt: skip
    assert {sku: " ".join(words.split()) for sku, words in plan.words.items()} == {
        "PLAIN": "a red mug on a white background",
        "CHAIN": "a white mug on a beige background",
        "WEIGHTED": "a glossy blue mug",
    }
