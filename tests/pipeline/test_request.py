"""Requests: the same work has the same id, across versions and whatever files are called."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.request import (
    Adapter,
    Control,
    Input,
    Region,
    Request,
    Role,
    Source,
    canonical_json,
    derived_seed,
    request_from_json,
)

RequestOf = Callable[..., Request]
A, B = "a" * 64, "b" * 64
PHOTO = Input("image", "file", A, "mug.jpg")
OTHER: dict[str, Any] = {
    "sku": "Häkel-7", "index": 3, "mode": "text-to-image", "model": "sd-1.5",
    "model_revision": "r1", "prompt": "eine Mütze, 帽子", "negative_prompt": "", "seed": 0,
    "width": 512, "height": 768, "steps": 25, "guidance": 1.0, "scheduler": "", "campaign": "",
    "client": "", "terms": {"id": "t"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "request_id", "seed"),
    [
        ({}, "7e19ad520534b3d7f1e7002b218db0881a1ebaad66f24cc0e862378848d76092",
         8908992147021140083),
        (OTHER, "0efbd6816b7c42fb810449e07318d58603ad33bf110d66dfdda8ec6989119a5e",
         3643902768757469536),
    ],
)  # fmt: skip
def test_plain_requests_keep_the_ids_and_seeds_of_the_first_version(
    changes: dict[str, Any], request_id: str, seed: int, request_of: RequestOf
) -> None:
    # Computed with that version: other ids would make every catalogued image again.
    made = request_of(**changes)
    assert made.request_id == request_id
    assert derived_seed(made.as_json()) == seed
    assert made.recipe == {}


EXTRAS: dict[str, Any] = {
    "inputs": (PHOTO,),
    "strength": 0.5,
    "region": Region("box", (0, 0, 8, 8)),
    "controls": (Control("edges", "r1"),),
    "adapters": (Adapter("look", "r1"),),
    "prompt_syntax": "compel",
    "prompt_writer": "tiny-llm",
}


def test_every_field_is_accounted_for(request_of: RequestOf) -> None:
    plain = set(json.loads(canonical_json(request_of().as_json())))
    assert plain | set(EXTRAS) | {"terms", "earlier"} == {each.name for each in fields(Request)}


@pytest.mark.parametrize("name", EXTRAS)
def test_whatever_makes_other_pixels_makes_another_id(name: str, request_of: RequestOf) -> None:
    assert request_of(**{name: EXTRAS[name]}).request_id != request_of().request_id


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"inputs": (PHOTO,)}, {"inputs": (replace(PHOTO, sha256=B),)}),
        ({"inputs": (PHOTO,)}, {"inputs": (replace(PHOTO, role="control"),)}),
        ({"inputs": (PHOTO,)}, {"inputs": (replace(PHOTO, source="asset"),)}),
        ({"inputs": (PHOTO, replace(PHOTO, sha256=B))},
         {"inputs": (replace(PHOTO, sha256=B), PHOTO)}),
        ({"strength": 0.5}, {"strength": 0.6}),
        ({"region": Region("box", (0, 0, 8, 8))}, {"region": Region("box", (0, 0, 8, 9))}),
        ({"region": Region("object", (), "seg", "r1")},
         {"region": Region("object", (), "seg", "r2")}),
        ({"region": Region("object", (), "seg", "r1")},
         {"region": Region("background", (), "seg", "r1")}),
        ({"controls": (Control("c", "r1"),)}, {"controls": (Control("c", "r2"),)}),
        ({"controls": (Control("c", "r1"),)}, {"controls": (Control("c", "r1", "edges"),)}),
        ({"controls": (Control("c", "r1"),)}, {"controls": (Control("c", "r1", scale=0.9),)}),
        ({"controls": (Control("c", "r1", "depth", 1.0, "t", "1"),)},
         {"controls": (Control("c", "r1", "depth", 1.0, "t", "2"),)}),
        ({"adapters": (Adapter("a", "r1"),)}, {"adapters": (Adapter("a", "r2"),)}),
        ({"adapters": (Adapter("a", "r1"),)}, {"adapters": (Adapter("a", "r1", 0.5),)}),
    ],
)  # fmt: skip
def test_details_of_extras_count(
    first: dict[str, Any], second: dict[str, Any], request_of: RequestOf
) -> None:
    assert request_of(**first).request_id != request_of(**second).request_id


def test_names_of_inputs_and_terms_do_not_count(request_of: RequestOf) -> None:
    renamed = request_of(inputs=(replace(PHOTO, name="IMG_0001.JPG"),), terms={"id": "new"})
    assert renamed.request_id == request_of(inputs=(PHOTO,)).request_id


def test_a_chain_is_pinned_by_the_ids_of_its_steps(request_of: RequestOf) -> None:
    def chain(seed: int) -> Request:
        first = request_of(seed=seed)
        made = Input("image", "step", first.request_id, "step 1")
        return request_of(mode="upscaling", inputs=(made,), earlier=(first,))

    assert chain(1).request_id == chain(1).request_id
    assert chain(1).request_id != chain(2).request_id
    assert [step.mode for step in chain(1).chain] == ["text-to-image", "upscaling"]
    # The steps are pinned by the inputs that name them, so they need not stand in the id again.
    assert replace(chain(1), earlier=()).request_id == chain(1).request_id


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=12)
HEX = st.sampled_from([A, B])
SIDES = st.integers(0, 4096)
INPUTS = st.builds(
    Input, st.sampled_from(get_args(Role)), st.sampled_from(get_args(Source)), HEX, TEXT
)
WEIGHTS = st.floats(-2, 2)
CONTROLS = st.builds(
    Control, TEXT, TEXT, st.sampled_from(["none", "edges", "depth", "hole"]), WEIGHTS, TEXT, TEXT
)
REGIONS = st.builds(
    Region, st.sampled_from(["file", "box", "background", "object", "border"]),
    st.one_of(st.just(()), st.tuples(SIDES, SIDES, SIDES, SIDES)), TEXT, TEXT,
)  # fmt: skip


@st.composite
def requests(draw: st.DrawFn, earlier: int = 2) -> Request:
    steps = tuple(draw(requests(earlier=0)) for _ in range(draw(st.integers(0, earlier))))
    return Request(
        sku=draw(TEXT), index=draw(SIDES), mode=draw(st.sampled_from(["upscaling", "inpainting"])),
        model=draw(TEXT), model_revision=draw(TEXT), prompt=draw(TEXT), negative_prompt=draw(TEXT),
        seed=draw(st.integers(0, 2**63 - 1)), width=draw(SIDES), height=draw(SIDES),
        steps=draw(SIDES), guidance=draw(st.floats(0, 50)), scheduler=draw(TEXT),
        campaign=draw(TEXT), client=draw(TEXT),
        inputs=tuple(draw(st.lists(INPUTS, max_size=3))),
        strength=draw(st.none() | st.floats(0, 1, exclude_min=True)),
        region=draw(st.none() | REGIONS),
        controls=tuple(draw(st.lists(CONTROLS, max_size=2))),
        adapters=tuple(draw(st.lists(st.builds(Adapter, TEXT, TEXT, WEIGHTS), max_size=2))),
        prompt_syntax=draw(st.sampled_from(["plain", "compel"])),
        prompt_writer=draw(TEXT),
        earlier=steps,
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(requests())
def test_requests_come_back_from_the_json_that_the_catalog_keeps(request: Request) -> None:
    # The columns of the catalog and its `recipe`, through real JSON.
    kept = json.loads(canonical_json({**request.as_json(), **request.recipe}))
    back = request_from_json(kept)
    assert back == request
    assert back.request_id == request.request_id
    assert [step.request_id for step in back.chain] == [step.request_id for step in request.chain]


def test_unknown_columns_and_absent_terms_are_no_obstacle(request_of: RequestOf) -> None:
    row = {**request_of().as_json(), "recipe": None, "state": "done", "terms": None}
    assert request_from_json(row).request_id == request_of().request_id
