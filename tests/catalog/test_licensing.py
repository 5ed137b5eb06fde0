"""Licences behind catalogued images: a pack that they do not allow is refused, with the reason."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from catalog_samples import TERMS, produced_of, request_of, sha256

from catalog.audit import ask, questions
from catalog.lake import Lake, writing
from catalog.licensing import record_input_licences
from catalog.review import record_review
from catalog.selection import Selection, choose, judge, named
from catalog.write import (
    commit_batch,
    insert_table,
    record_terms,
    register_model,
    register_training_images,
)
from pipeline.encode import encode
from pipeline.errors import InputError
from pipeline.licences import load_licences, question_rows, shipped_licences
from pipeline.policy_model import ImageFormat
from pipeline.records import Asset, Review, Signed, UsedInput
from pipeline.request import Adapter, Control, Input, Region
from pipeline.terms import UsageTerms

TODAY = date(2026, 5, 1)
PACK = UsageTerms(
    id="shop",
    licensor="Studio",
    licensee="acme",
    territories=("DE",),
    channels=("web",),
    expires=date(2030, 12, 31),
)
PHOTO, PARENT = sha256("photo"), sha256("file 1")
MODELS = {
    ("starter/text-to-image", "r1"): "Apache-2.0",
    ("hub/other", "r1"): "Apache-2.0",
    ("flux", "f1"): "FLUX-1-dev-Non-Commercial",
    ("depth", "d1"): "CC-BY-NC-4.0",
    ("brand", "a1"): "see adapter.json",
    ("house", "h1"): "Acme-Internal",
    ("sd-1.5", "s1"): "CreativeML-OpenRAIL-M",
}


def stocked(lake: Lake) -> Lake:
    """The catalog, made to know models and what an adapter was trained on."""
    for (name, revision), licence in MODELS.items():
        register_model(lake, name=name, revision=revision, licence=licence, source="hub")
    pictures = [
        {"file": f"{n}.png", "sha256": sha256(str(n)), "title": f"Mug {n}",
         "rights_holder": "Ada", "licence": licence, "waiver": None}
        for n, licence in enumerate(("own", "by handshake", "CC-BY-NC-4.0", "CC-BY-NC-4.0"))
    ]  # fmt: skip
    register_training_images(lake, "brand", "a1", pictures)
    return lake


@pytest.fixture
def shelf(lake: Lake) -> Lake:
    """A catalog of one test's own."""
    return stocked(lake)


def numbered(cases: Sequence[tuple[Any, ...]], first: int) -> list[tuple[Any, ...]]:
    """Cases of a table, each with the number of its image."""
    return [(first + at, *case) for at, case in enumerate(cases)]


@pytest.fixture(scope="module")
def shared(empty_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One catalog with an image for each case of the four tables, committed at once."""
    folder = tmp_path_factory.mktemp("shared") / "catalog"
    shutil.copytree(empty_catalog, folder)
    photo_of = (used("file", "mug.png", PHOTO),)
    batch = [produced_of(n, "pass", **changes) for n, changes, *_ in numbered(PARTS, 100)]
    for number, materials, *_ in numbered(WORKS, 200):
        own = {**TERMS, "exclusive": True, "materials": materials}
        batch.append(replace(produced_of(number, "pass", terms=own, **edited()), used=photo_of))
    for number, says, approved, _ in numbered(SAYS, 300):
        one = produced_of(number, "review" if approved else "pass", **edited())
        batch.append(replace(one, used=(used("file", "mug.png", PHOTO, says),)))
    everywhere = {**TERMS, "exclusive": True, "territories": ["worldwide"]}
    batch += [produced_of(n, "pass", terms=everywhere) for n, *_ in numbered(SALES, 400)]
    with writing(folder) as lake:
        commit_batch(stocked(lake), "run-1", "b1", batch)
        for one in batch:
            if one.verdict and one.verdict.outcome == "review":
                approve(lake, one.request.request_id)
        sell(lake, *((number, earlier) for number, earlier, *_ in numbered(SALES, 400)))
    return folder


def approve(lake: Lake, request_id: str) -> None:
    digest = sha256(request_id)
    file = Asset(digest, "signed", "assets/ff/f.png", "image/png", 8, 8, 9, "aa")
    review = Review("ada", "approve", "the owner agrees", datetime.now(UTC))
    record_review(lake, request_id, review, file, Signed(b"m", "urn:c2pa:a", "CN"))


def made(lake: Lake, number: int, used: tuple[UsedInput, ...] = (), **changes: Any) -> str:
    """Catalogs one cleared image; its sku."""
    one = replace(produced_of(number, "pass", **changes), used=used)
    commit_batch(lake, "run-1", f"b{number}", [one])
    return one.request.sku


def used(source: str, name: str, digest: str, *says: str, request_id: str | None = None) -> Any:
    return UsedInput(0, "image", source, name, digest, "image/png", request_id, restrictions=says)


def chosen_of(folder: Path, pack: UsageTerms, **options: Any) -> Selection:
    with named(folder, "true") as found:
        return choose(found, pack, TODAY, **options)


def told(lake: Lake, pack: UsageTerms = PACK, **options: Any) -> dict[str, str]:
    """What `choose` leaves out, with the reasons, by sku."""
    chosen = chosen_of(lake.folder, pack, **options)
    return {one.sku: " | ".join(one.reasons) for one in chosen.left_out}


@cache
def told_all(folder: Path, pack: UsageTerms) -> dict[str, str]:
    """Every item of a catalog with the reasons that keep it out, none where it goes in."""
    chosen = chosen_of(folder, pack)
    left_out = {one.sku: " | ".join(one.reasons) for one in chosen.left_out}
    return {row["sku"]: "" for row in chosen.images} | left_out


def sku_of(number: int) -> str:
    return f"MUG-{number:05d}"


def edited(name: str = "mug.png", digest: str = PHOTO) -> dict[str, Any]:
    return {"mode": "image-to-image", "inputs": (Input("image", "file", digest, name),)}


NON_COMMERCIAL = PACK.model_copy(update={"purposes": ("non-commercial",)})


PARTS = [
    ({}, None, ()),
    (
        {"model": "flux", "model_revision": "f1"},
        "licence.commercial",
        ("model flux", "FLUX-1-dev-Non-Commercial", "grants any"),
    ),
    ({"controls": (Control("depth", "d1"),)}, "licence.commercial", ("control depth",)),
    (
        {"controls": (Control("sd-1.5", "s1", tool="depth", tool_revision="d1"),)},
        "licence.commercial",
        ("tool depth", "licence.flow-down", "control sd-1.5"),
    ),
    (
        {"region": Region("object", tool="depth", tool_revision="d1")},
        "licence.commercial",
        ("tool depth",),
    ),
    (
        {"adapters": (Adapter("brand", "a1"),)},
        "licence.commercial",
        ("training picture Mug 2 and 1 more of adapter brand",),
    ),
    (
        {"adapters": (Adapter("house", "h1"),)},
        "licence.unknown",
        ("adapter house", "Acme-Internal", "clearances: [{of: Acme-Internal"),
    ),
    (
        {"model": "sd-1.5", "model_revision": "s1"},
        "licence.flow-down",
        ("model sd-1.5", "flow_down: [CreativeML-OpenRAIL-M]"),
    ),
    (
        {"earlier": (request_of(90, model="flux", model_revision="f1"),)},
        "licence.commercial",
        ("model flux",),
    ),
    ({"model": "never registered"}, None, ()),
]


@pytest.mark.parametrize(("number", "changes", "rule", "names"), numbered(PARTS, 100))
def test_every_part_of_an_image_answers_for_its_licence(
    shared: Path, number: int, changes: dict[str, Any], rule: str | None, names: tuple[str, ...]
) -> None:
    why = told_all(shared, PACK)[sku_of(number)]
    assert bool(why) is bool(rule)
    assert all(part in why for part in (rule or "", *names)), why


def test_a_pack_that_sells_nothing_may_hold_non_commercial_images(shelf: Lake) -> None:
    made(shelf, 1, model="flux", model_revision="f1")
    assert told(shelf) and not told(shelf, NON_COMMERCIAL)


def test_what_an_image_was_made_from_flows_down_through_generations(shelf: Lake) -> None:
    first = request_of(1, model="flux", model_revision="f1")
    made(shelf, 1, model="flux", model_revision="f1")
    child = {"mode": "variation", "inputs": (Input("image", "asset", PARENT, "first"),)}
    second = request_of(2, **child)
    made(shelf, 2, (used("asset", "first", PARENT, request_id=first.request_id),), **child)
    grand = {"mode": "variation", "inputs": (Input("image", "asset", sha256("file 2"), "s"),)}
    parent = used("asset", "s", sha256("file 2"), request_id=second.request_id)
    made(shelf, 3, (parent,), **grand)
    left_out = told(shelf)
    assert set(left_out) == {"MUG-00001", "MUG-00002", "MUG-00003"}
    assert all("model flux" in why for why in left_out.values())


# Input pictures


WORKS = [
    ([], {}, None),
    ([{"name": "mug.png", "licence": "CC0"}], {}, None),
    ([{"name": "mug.png", "licence": "CC-BY-4.0", "credit": "Jane"}], {}, "licence.credit"),
    (
        [{"sha256": PHOTO, "licence": "CC-BY-4.0", "credit": "Jane"}],
        {"credit": "Studio, photo: Jane"},
        None,
    ),
    ([{"name": "cup.png", "licence": "CC-BY-ND-4.0"}], {}, None),
    (
        [{"name": "mug.png", "licence": "CC-BY-ND-4.0", "credit": "Jane"}],
        {"credit": "Jane"},
        "licence.derivatives",
    ),
    (
        [{"name": "mug.png", "licence": "CC-BY-SA-4.0", "credit": "Jane"}],
        {"credit": "Jane", "exclusive": True},
        "licence.share-alike",
    ),
]


@pytest.mark.parametrize(("number", "materials", "pack", "rule"), numbered(WORKS, 200))
def test_works_that_the_terms_declare_keep_their_conditions(
    shared: Path,
    number: int,
    materials: list[dict[str, Any]],
    pack: dict[str, Any],
    rule: str | None,
) -> None:
    why = told_all(shared, PACK.model_copy(update=pack))[sku_of(number)]
    assert bool(why) is bool(rule)
    assert rule is None or f"rule {rule}" in why


def photo(path: Path, address: str) -> Path:
    import numpy as np

    packet = f"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
      xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
      xmlns:cc="http://creativecommons.org/ns#" cc:attributionName="Jane">
      <cc:license rdf:resource="{address}"/></rdf:Description></rdf:RDF></x:xmpmeta>"""
    pixels = np.full((8, 8, 3), 200, np.uint8)
    path.write_bytes(encode(pixels, ImageFormat(format="png"), packet.encode())[0])
    return path


def test_a_photos_own_licence_is_recorded_once_and_judged(shelf: Lake, tmp_path: Path) -> None:
    path = photo(tmp_path / "mug.png", "https://creativecommons.org/licenses/by-nc/4.0/")
    bare = tmp_path / "bare.png"
    bare.write_bytes(b"no picture")
    pictures = {PHOTO: path, sha256("bare"): bare, sha256("gone"): tmp_path / "gone.png"}
    assert record_input_licences(shelf, pictures) == 1
    assert record_input_licences(shelf, pictures) == 0
    (row,) = shelf.rows("SELECT * FROM input_licences")
    assert (row["licence"], row["credit"]) == ("CC-BY-NC-4.0", "Jane")
    sku = made(shelf, 1, (used("file", "mug.png", PHOTO),), **edited())
    why = told(shelf)[sku]
    assert "rule licence.commercial" in why and "'Jane'" in why
    agreed = {"name": "mug.png", "licence": "own"}
    record_terms(shelf, [request_of(1, terms={**TERMS, "materials": [agreed]}, **edited())])
    assert not told(shelf)


BY_ND = (
    "editing: XMP cc:license = https://creativecommons.org/licenses/by-nd/4.0/, which allows no "
    "derivatives"
)
MINING = "editing: C2PA cawg.training-mining says ai_inference notAllowed"


SAYS = [
    (BY_ND, False, "licence.derivatives"),
    (BY_ND, True, "licence.derivatives"),
    (MINING, False, "licence.ai-use"),
    (MINING, True, None),
    ("training: XMP plus:DataMining = DMI-PROHIBITED", False, None),
]


@pytest.mark.parametrize(("number", "says", "approved", "rule"), numbered(SAYS, 300))
def test_an_input_that_says_no_stays_no_unless_a_person_allowed_it(
    shared: Path, number: int, says: str, approved: bool, rule: str | None
) -> None:
    why = told_all(shared, PACK)[sku_of(number)]
    assert bool(why) is bool(rule)
    assert rule is None or f"rule {rule}" in why


# Terms


def test_a_clearance_in_the_images_terms_lifts_its_rule(shelf: Lake) -> None:
    agreed = {"of": "flux", "lifts": ["licence.commercial"], "document": "contract 7"}
    made(shelf, 1, model="flux", model_revision="f1", terms={**TERMS, "clearances": [agreed]})
    assert not told(shelf)
    over = {**agreed, "expires": "2026-12-31"}
    made(shelf, 2, model="flux", model_revision="f1", terms={**TERMS, "clearances": [over]})
    left_out = told(shelf)
    assert set(left_out) == {"MUG-00002"} and "contract 7 ends on 2026-12-31" in str(left_out)


def test_a_release_counts_for_its_items(shelf: Lake) -> None:
    release = {"kind": "model", "id": "MR-7", "expires": "2026-04-30", "skus": ["MUG-00001"]}
    for number in (1, 2):
        made(shelf, number, terms={**TERMS, "releases": [release]})
    left_out = told(shelf)
    assert set(left_out) == {"MUG-00001"}
    assert "the model release MR-7 expired on 2026-04-30, today is 2026-05-01" in str(left_out)
    assert "renew MR-7" in str(left_out)


def test_a_table_of_ones_own_is_judged_by(shelf: Lake, tmp_path: Path) -> None:
    made(shelf, 1, adapters=(Adapter("house", "h1"),))
    path = tmp_path / "licences.yaml"
    path.write_text(
        "licences:\n  Acme-Internal:\n    name: Acme's\n    url: https://acme.example\n"
        "    source: contract\n    dated: 2026-01-01\n    commercial: true\n"
    )
    assert told(shelf) and not told(shelf, licences=load_licences(path))


# Sold once


def sell(lake: Lake, *sales: tuple[int, dict[str, Any]]) -> None:
    """Records packs of one image each, as export does."""
    packs, files = [], []
    for number, fields in sales:
        terms = PACK.model_copy(update={"licensee": "rival", "exclusive": True, **fields})
        key = {"pack_id": f"pack{number}"}
        packs.append({
            **key, "file": "a.zip", "sha256": "aa", "size": 1, "images": 1, "left_out": 0,
            "where": "true", "terms": terms.model_dump_json(), "terms_id": terms.id,
            "licensee": terms.licensee, "expires": terms.expires,
            "created_at": datetime(2026, 4, 1, tzinfo=UTC),
        })  # fmt: skip
        files.append({
            **key, "request_id": request_of(number).request_id,
            "asset_sha256": sha256(f"file {number}"), "file": "images/a.png",
        })  # fmt: skip

    def append(connection: duckdb.DuckDBPyConnection) -> None:
        insert_table(connection, "packs", pa.Table.from_pylist(packs))
        insert_table(connection, "pack_assets", pa.Table.from_pylist(files))

    lake.transact(append)


SALES = [
    ({}, {}, True),
    ({"exclusive": False}, {}, False),
    ({"exclusive": False}, {"exclusive": True}, True),
    ({"licensee": "acme"}, {"exclusive": True}, False),
    ({"territories": ("FR",)}, {}, False),
    ({"territories": ("EU",)}, {}, True),
    ({"territories": ("DACH",)}, {}, True),
    ({"territories": ("worldwide",)}, {"territories": ("FR",)}, True),
    ({"channels": ("print",)}, {}, False),
    ({"channels": ("any",)}, {}, True),
    ({"media": ("billboard",)}, {"media": ("social",)}, False),
    ({"expires": date(2026, 4, 30)}, {}, False),
    ({"expires": date(2026, 5, 1)}, {}, True),
    ({"expires": date(2026, 6, 30)}, {"starts": date(2026, 7, 1)}, False),
    ({"starts": date(2027, 1, 1)}, {"expires": date(2026, 12, 31)}, False),
    ({"starts": date(2027, 1, 1)}, {}, True),
    ({"expires": None}, {}, True),
]


@pytest.mark.parametrize(("number", "earlier", "new", "refused"), numbered(SALES, 400))
def test_an_exclusive_item_is_sold_once_where_both_reach(
    shared: Path, number: int, earlier: dict[str, Any], new: dict[str, Any], refused: bool
) -> None:
    why = told_all(shared, PACK.model_copy(update=new))[sku_of(number)]
    assert bool(why) is refused
    if refused:
        assert why.startswith(f"pack pack{number} gave it to rival")
        assert "rule terms.sold" in why


@pytest.mark.parametrize(
    ("earlier", "new", "why"),
    [
        ({"licensee": "any"}, {"licensee": "any", "exclusive": True}, "does not say to whom"),
        ({"licensee": "any"}, {"licensee": "any"}, "rule terms.sold"),
        ({"licensee": "any", "exclusive": False}, {"licensee": "any"}, None),
    ],
)
def test_what_names_no_licensee_is_somebody_elses(
    shelf: Lake, earlier: dict[str, Any], new: dict[str, Any], why: str | None
) -> None:
    made(shelf, 1, terms={**TERMS, "exclusive": True})
    sell(shelf, (1, earlier))
    left_out = chosen_of(shelf.folder, PACK.model_copy(update=new)).left_out
    assert [why in each.reasons[0] for each in left_out] == [True] * bool(why)  # type: ignore[operator]


def test_an_earlier_pack_with_terms_of_a_newer_version_is_told(shelf: Lake) -> None:
    made(shelf, 1)
    sell(shelf, (1, {}))
    text = "replace(terms::VARCHAR, 'exclusive', 'exclusively')::JSON"
    shelf.transact(lambda connection: connection.execute(f"UPDATE raw.packs SET terms = {text}"))
    with pytest.raises(InputError, match="the terms of the earlier pack pack1 cannot be read"):
        chosen_of(shelf.folder, PACK)


def test_another_image_of_an_exclusive_sku_is_the_same_item(shelf: Lake) -> None:
    first = request_of(1)
    made(shelf, 1)
    made(shelf, 2, sku=first.sku, index=1)
    made(shelf, 3, sku=first.sku, client="somebody else")
    made(shelf, 4)
    sell(shelf, (1, {}))
    chosen = chosen_of(shelf.folder, PACK)
    assert [(one.sku, one.index) for one in chosen.left_out] == [(first.sku, 0), (first.sku, 1)]
    assert f"gave another image of {first.sku} to rival" in chosen.left_out[1].reasons[0]
    assert {row["client"] for row in chosen.images if row["sku"] == first.sku} == {"somebody else"}


def test_the_transaction_judges_as_the_choice_does(shelf: Lake) -> None:
    made(shelf, 1, model="flux", model_revision="f1")
    made(shelf, 2)
    ids = [request_of(1, model="flux", model_revision="f1").request_id, request_of(2).request_id]
    judged = shelf.transact(lambda connection: judge(connection, ids, PACK, TODAY))
    assert [bool(reasons) for _, reasons in judged] == [True, False]


# The question


def test_licences_behind_an_image_can_be_asked(shelf: Lake, tmp_path: Path) -> None:
    path = photo(tmp_path / "mug.png", "https://creativecommons.org/licenses/by-sa/4.0/")
    record_input_licences(shelf, {PHOTO: path})
    made(
        shelf,
        1,
        (used("file", "mug.png", PHOTO),),
        model="flux",
        model_revision="f1",
        adapters=(Adapter("brand", "a1"),),
        **edited(),
    )
    made(shelf, 2)
    found = ask(shelf.folder, "licences", {"asset": "MUG-00001"}).table.to_pylist()
    assert [(row["part"], row["name"], row["licence"]) for row in found] == [
        ("adapter", "brand", "see adapter.json"),
        ("input", "mug.png", "CC-BY-SA-4.0"),
        ("model", "flux", "FLUX-1-dev-Non-Commercial"),
        ("training picture", "brand", "CC-BY-NC-4.0"),
        ("training picture", "brand", "by handshake"),
        ("training picture", "brand", "own"),
    ]
    demands = {row["licence"]: row["demands"] for row in found}
    assert demands["FLUX-1-dev-Non-Commercial"] == "no commercial use"
    assert demands["CC-BY-SA-4.0"] == "credit, share alike"
    assert demands["by handshake"] == "not in the table of licences"
    assert [row["pictures"] for row in found] == [1, 1, 1, 2, 1, 1]


def test_the_questions_table_is_that_of_the_licences_file() -> None:
    written = question_rows()
    assert written in questions()["licences"].sql, "run python -m pipeline.licences, put it there"
    rows = duckdb.sql(f"SELECT * FROM (VALUES\n{written})").fetchall()
    found = {name: (model, work) for model, work, names in rows for name in names}
    for licence in shipped_licences():
        told = [", ".join(licence.demands(work)) for work in (False, True)]
        assert found[licence.id.lower()] == tuple(told)
