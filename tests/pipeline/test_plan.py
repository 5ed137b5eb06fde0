"""Plans: requests grouped into batches of one forward pass each, models one after another."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.plan import make_batches
from pipeline.request import Request

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
