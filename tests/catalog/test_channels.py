from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pack_samples import product, studio

from catalog.channel import load_channel, shipped_channels
from catalog.export import dry_run, export
from catalog.fitting import fit
from catalog.lake import reading, writing
from catalog.pack import NothingToExport, Pack
from catalog.pack_plan import Plan
from catalog.revocation import revoke
from pipeline.errors import InputError
from pipeline.keys import trust_anchors
from pipeline.label import read_packet
from pipeline.policy import load_policy
from pipeline.policy_model import Policy
from pipeline.rendition import source_type_of, xmp_packet_of
from pipeline.settings import Settings
from pipeline.store import path_of
from pipeline.verify import verify_bytes

TODAY = date(2026, 12, 1)
AI = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
BASE = {"base_url": "https://cdn.example.com/spring"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Items of different size and background, all signed by this machine's C2PA library."""
    found = Settings(workspace=tmp_path_factory.mktemp("shop"))
    studio(
        found,
        [
            ("MUG-1", product(1024, 1024)),
            ("MUG-1", product(300, 200)),
            ("LAMP-2", product(80, 120)),
            ("HAT-3", product(1200, 240, background=200)),
        ],
    )
    return found


def table(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def product_row(sku: str, **more: Any) -> dict[str, Any]:
    return {
        "sku": sku,
        "title": f"A {sku}",
        "description": "Made well.",
        "link": f"https://shop.example.com/{sku}",
        "availability": "in_stock",
        "price": "19.00 EUR",
        "keywords": "mug, red, kitchen",
        **more,
    }


def every_item(folder: Path, **more: Any) -> Path:
    return table(folder, [product_row(sku, **more) for sku in ("MUG-1", "LAMP-2", "HAT-3")])


def contents(pack: Pack) -> dict[str, bytes]:
    with zipfile.ZipFile(pack.path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def reasons(pack: Pack) -> dict[str, str]:
    return {f"{one.sku}-{one.index}": "; ".join(one.reasons) for one in pack.left_out}


def row(width: int, height: int, **more: Any) -> dict[str, Any]:
    names = ("campaign", "client", "model", "c2pa_label", "prompt")
    told = dict.fromkeys(names, "") | {"sku": "MUG-1", "index": 0, "mime": "image/png"}
    return told | {"sha256": "ab" * 32, "size": 100_000, "width": width, "height": height} | more


def test_every_shipped_rule_names_a_page_and_a_day() -> None:
    channels = shipped_channels()
    assert {each.channel for each in channels} >= {
        *("google-merchant", "shopify", "amazon", "adobe-stock", "shutterstock"),
        *("getty-istock", "dam", "croissant", "plain"),
    }
    for channel in channels:
        for rule in channel.rules:
            assert channel.cited(rule.source).startswith("https://")
            assert channel.sources[rule.source].checked <= date.today()


@pytest.mark.parametrize("name", ["shutterstock", "getty-istock"])
def test_channels_that_refuse_ai_images_refuse_by_name_and_rule(
    settings: Settings, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InputError, match=r"refuses AI images(.|\n)*https://(.|\n)*read 2026"):
        export(settings, tmp_path / "a.zip", channel=name)
    with pytest.raises(InputError, match="refuses AI images"):
        dry_run(settings, channel=name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("channel", "measured", "when", "rule"),
    [
        ("google-merchant", row(100, 100), TODAY, None),
        ("google-merchant", row(99, 100), TODAY, "the shortest side is 99"),
        ("google-merchant", row(499, 500), date(2027, 1, 31), "the shortest side is 499"),
        ("google-merchant", row(500, 500), date(2027, 1, 31), None),
        ("amazon", row(1000, 600), TODAY, None),
        ("amazon", row(999, 600), TODAY, "the longest side is 999"),
        ("adobe-stock", row(2000, 2000), TODAY, None),
        ("adobe-stock", row(2000, 1999), TODAY, "the number of pixels is 3,998,000"),
        ("shopify", row(10, 10), TODAY, None),
    ],
)
def test_bounds_hold_to_the_pixel(
    channel: str, measured: dict[str, Any], when: date, rule: str | None
) -> None:
    (found,) = fit(load_channel(channel), [measured], {}, BASE, when)
    told = "; ".join(str(each) for each in found.broken)
    assert (rule is None and not told) or (rule is not None and rule in told)
    if rule:
        assert "upscaling" in told and "https://" in told


def test_apparel_must_be_larger_at_google() -> None:
    items = {"MUG-1": {"google_product_category": "Apparel & Accessories > Hats"}}
    channel = load_channel("google-merchant")
    assert not fit(channel, [row(200, 200)], {}, BASE, TODAY)[0].broken
    assert fit(channel, [row(200, 200)], items, BASE, TODAY)[0].broken


@pytest.mark.parametrize(
    ("channel", "measured", "size", "mime"),
    [
        ("shopify", row(6000, 6000), (5000, 5000), "image/png"),
        ("shopify", row(6000, 3000), (5000, 2500), "image/png"),
        ("shopify", row(4000, 4000, size=21_000_000), (4000, 4000), "image/jpeg"),
        ("adobe-stock", row(2000, 2000), (2000, 2000), "image/jpeg"),
        ("google-merchant", row(9000, 8000), (8485, 7542), "image/png"),
    ],
)
def test_what_is_too_large_or_of_another_format_becomes_a_rendition(
    channel: str, measured: dict[str, Any], size: tuple[int, int], mime: str
) -> None:
    (found,) = fit(load_channel(channel), [measured], {}, BASE, TODAY)
    assert found.recipe and not found.broken
    assert (found.width, found.height, found.mime) == (*size, mime)


def test_google_feed_links_only_images_that_keep_the_ai_label(
    settings: Settings, tmp_path: Path
) -> None:
    pack = export(
        settings,
        tmp_path / "google.zip",
        channel="google-merchant",
        items=every_item(tmp_path),
        values=BASE,
    )
    files = contents(pack)
    text = io.StringIO(files["google-merchant.tsv"].decode(), newline="")
    rows = list(csv.DictReader(text, delimiter="\t"))
    assert [each["id"] for each in rows] == ["HAT-3", "MUG-1"]
    links = [
        link
        for each in rows
        for column in ("image_link", "additional_image_link", "lifestyle_image_link")
        for link in each[column].split(",")
        if link
    ]
    assert len(links) == 3
    for link in links:
        data = files[link.replace(BASE["base_url"], "images")]
        assert source_type_of(data) == AI
        assert AI in verify_bytes(data, Path("x"), trust_anchors(settings)).source_types
    assert "the shortest side is 80, at least 100" in reasons(pack)["LAMP-2-0"]


def test_google_refuses_images_without_the_label(tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path)
    plain = Policy.model_validate(
        load_policy("starter").model_dump() | {"labels": {"xmp": False}, "description": ""}
    )
    studio(settings, [("MUG-1", product(300, 300))], policy=plain)
    with pytest.raises(NothingToExport, match="source type is none, one of http"):
        export(
            settings,
            tmp_path / "a.zip",
            channel="google-merchant",
            items=every_item(tmp_path),
            values=BASE,
        )


def test_a_needed_value_is_asked_for(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="base_url: must be given"):
        export(settings, tmp_path / "a.zip", channel="shopify")


def test_amazon_wants_white_main_images_named_by_place(settings: Settings, tmp_path: Path) -> None:
    plan = dry_run(settings, channel="amazon", items=every_item(tmp_path))
    told = {
        f"{each.row['sku']}-{each.row['index']}": "; ".join(one.rule for one in each.broken)
        for each in plan.unfit
    }
    assert told == {
        "HAT-3-0": "the border's darkest value",
        "LAMP-2-0": "the longest side",
        "MUG-1-1": "the longest side",
    }
    assert [each.name for each in plan.fits] == ["MUG-1.MAIN.png"]
    studio(settings, [("BAG-4", product(1000, 1000, share=0.5))], run_id="run-2", first=50)
    small = dry_run(settings, where="sku = 'BAG-4'", channel="amazon")
    assert "share of the frame is 0.5" in str(small.unfit[0].broken[0])


@pytest.fixture(scope="module")
def amazon(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """An item whose first image is no main image, one that has none, and one of plain images."""
    found = Settings(workspace=tmp_path_factory.mktemp("amazon"))
    grey, white, small = product(1000, 1000, background=200), product(1000, 1000), product(99, 99)
    studio(
        found,
        [
            *(("A", each) for each in (small, grey, white, grey)),
            *(("B", each) for each in (grey, grey)),
            *(("C", each) for each in (white, small, grey)),
        ],
    )
    return found


def test_the_main_image_is_the_first_that_fits_and_without_one_the_item_is_refused(
    amazon: Settings, tmp_path: Path
) -> None:
    plan = dry_run(amazon, channel="amazon")
    named = {f"{each.row['sku']}-{each.row['index']}": each.name for each in plan.fits}
    assert named == {
        "A-2": "A.MAIN.png",
        "A-1": "A.PT01.png",
        "A-3": "A.PT02.png",
        "C-0": "C.MAIN.png",
        "C-2": "C.PT01.png",
    }
    pack = export(amazon, tmp_path / "a.zip", channel="amazon")
    files = contents(pack)
    assert {name.removeprefix("images/") for name in files if "images/" in name} == set(
        named.values()
    )
    rows = list(
        csv.DictReader(io.StringIO(files["amazon-images.tsv"].decode(), newline=""), delimiter="\t")
    )
    assert [(each["file"], each["place"]) for each in rows] == [
        (name, name.split(".")[1]) for name in named.values()
    ]
    assert {key: "border" in told for key, told in reasons(pack).items()} == {
        "A-0": False,
        "B-0": True,
        "B-1": True,
        "C-1": False,
    }


def test_an_item_whose_main_image_is_found_altered_goes_out_in_no_part(
    amazon: Settings, tmp_path: Path
) -> None:
    settings = Settings(workspace=tmp_path / "ws")
    shutil.copytree(amazon.root, settings.root)
    with reading(settings.catalog) as lake:
        (row,) = lake.rows("SELECT url FROM images WHERE sku = 'C' AND \"index\" = 0")
    path = path_of(settings, row["url"])
    path.write_bytes(path.read_bytes() + b"x")
    pack = export(settings, tmp_path / "a.zip", where="sku <> 'B'", channel="amazon")
    told = reasons(pack)
    assert not any(name.startswith("images/C") for name in contents(pack))
    assert "was altered" in told["C-0"]
    assert "the item's main image is left out" in told["C-2"]


def test_more_places_than_nine_are_named_in_two_digits() -> None:
    channel = load_channel("amazon")
    rows = [row(1000, 1000, index=n, sha256=f"{n:02d}" * 32) for n in range(11)]
    names = [each.name for each in fit(channel, rows, {}, {}, TODAY)]
    assert (names[0], names[1], names[9], names[10]) == (
        *("MUG-1.MAIN.png", "MUG-1.PT01.png"),
        *("MUG-1.PT09.png", "MUG-1.PT10.png"),
    )


PAIRS = """
channel: pairs
title: Pairs
sources:
  a: {page: 'https://a.example', checked: 2026-01-01}
feed:
  file: pairs.csv
  format: csv
  row: item
  bytes: {at_most: 120, source: a}
  columns:
    - {name: id, value: "{{ sku }}", required: true}
    - {name: second, value: "{{ images[1].name }}", required: true}
    - {name: text, value: "{{ item.text }}"}
"""


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[Settings, str]:
    path = tmp_path / "pairs.yaml"
    path.write_text(PAIRS)
    settings = Settings(workspace=tmp_path / "ws")
    studio(settings, [(sku, product(32, 32)) for sku in ("A", "A", "B", "B")])
    return settings, str(path)


def harm(settings: Settings, sku: str) -> None:
    with reading(settings.catalog) as lake:
        rows = lake.rows('SELECT url FROM images WHERE sku = ? AND "index" = 1', [sku])
    path = path_of(settings, rows[0]["url"])
    path.write_bytes(path.read_bytes() + b"x")


def test_an_item_whose_row_breaks_when_it_is_packed_stays_out(
    pairs: tuple[Settings, str], tmp_path: Path
) -> None:
    settings, channel = pairs
    harm(settings, "A")
    pack = export(settings, tmp_path / "a.zip", channel=channel)
    files = contents(pack)
    assert [each.split(",")[0] for each in files["pairs.csv"].decode().split()] == ["id", "B"]
    told = reasons(pack)
    assert "was altered" in told["A-1"] and "column second is empty" in told["A-0"]


def words(plan: Plan) -> dict[str, str]:
    unfit = {
        f"{each.row['sku']}-{each.row['index']}": "; ".join(map(str, each.broken))
        for each in plan.unfit
    }
    out = {f"{each.sku}-{each.index}": "; ".join(each.reasons) for each in plan.left_out}
    return {**unfit, **out}


@pytest.mark.parametrize("trouble", ["altered file", "long row", "untrusted"])
def test_a_dry_run_leaves_out_what_the_export_leaves_out(
    pairs: tuple[Settings, str], tmp_path: Path, trouble: str
) -> None:
    settings, channel = pairs
    if trouble == "altered file":
        harm(settings, "A")
    if trouble == "untrusted":
        for key in settings.keys.iterdir():
            key.unlink()
        studio(settings, [("C", product(32, 32))] * 2, run_id="run-2", first=40)
    text = "x" * 90 if trouble == "long row" else "short"
    items = table(tmp_path, [{"sku": "A", "text": text}])
    plan = dry_run(settings, channel=channel, items=items)
    pack = export(settings, tmp_path / "a.zip", channel=channel, items=items)
    assert words(plan) == reasons(pack)
    assert len(plan.fits) == pack.images
    assert words(plan)
    if trouble == "long row":
        assert "the feed's row is" in words(plan)["A-0"]


def test_a_dry_run_refuses_expired_terms_and_a_revoked_pack_as_the_export_does(
    pairs: tuple[Settings, str], tmp_path: Path
) -> None:
    settings, channel = pairs
    over = tmp_path / "over.yaml"
    over.write_text("id: over\nlicensor: Studio\nexpires: 2020-01-01\n")
    pack = export(settings, tmp_path / "a.zip", channel=channel)
    with writing(settings.catalog) as lake:
        revoke(lake, pack.pack_id, reason="recalled", by="ada")
    for terms, told in ((str(over), "they expired on 2020-01-01"), (None, "was revoked by ada")):
        with pytest.raises(InputError, match=told):
            dry_run(settings, "true", terms, channel=channel)
        with pytest.raises(InputError, match=told):
            export(settings, tmp_path / "b.zip", "true", terms, channel=channel)


def test_adobe_files_are_jpeg_renditions_under_short_names(tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path)
    long = "A-VERY-LONG-STOCK-KEEPING-UNIT-NAME"
    studio(settings, [(long, np.full((2000, 2000, 3), 200, np.uint8))])
    items = table(tmp_path, [product_row(long)])
    pack = export(settings, tmp_path / "adobe.zip", channel="adobe-stock", items=items)
    files = contents(pack)
    (image,) = (name for name in files if name.startswith("images/"))
    (listed,) = csv.DictReader(io.StringIO(files["adobe-stock.csv"].decode(), newline=""))
    assert listed["Filename"] == image.removeprefix("images/") and len(listed["Filename"]) <= 30
    report = verify_bytes(files[image], Path(image), trust_anchors(settings))
    assert (report.state, report.mime, report.width) == ("Trusted", "image/jpeg", 2000)
    assert report.actions == ("c2pa.opened", "c2pa.converted")
    (manifest,) = csv.DictReader(io.StringIO(files["manifest.csv"].decode(), newline=""))
    assert manifest["sha256"] == report.sha256 != manifest["original_sha256"]
    # Made once: the same export finds it again, and its pack is the same to the byte.
    again = export(settings, tmp_path / "again.zip", channel="adobe-stock", items=items)
    assert again.sha256 == pack.sha256


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"title": "Mug, red"}, "column Title is holding ','"),
        ({"title": "x" * 71}, "column Title is 71 characters"),
        ({"title": "A mug after Picasso"}, "naming"),
        ({"keywords": ", ".join(f"k{n}" for n in range(51))}, "column Keywords is 51 entries"),
        ({"keywords": ""}, "column Keywords is empty"),
        ({"title": "=HYPERLINK(1)"}, "a spreadsheet would run that"),
    ],
)
def test_adobe_limits_on_words(
    settings: Settings, tmp_path: Path, more: dict[str, Any], told: str
) -> None:
    studio_row = row(2000, 2000, prompt="a red mug")
    from catalog.feeds import Listed, feed_rows
    from catalog.fitting import image_context

    channel = load_channel("adobe-stock")
    context = image_context(studio_row, 1, product_row("MUG-1", **more), {}) | {"terms": {}}
    (found,) = feed_rows(channel, [Listed("a.jpg", context, "a red mug")])
    assert told in "; ".join(str(each) for each in found.broken)


def test_a_dam_pack_has_each_images_packet_beside_it(settings: Settings, tmp_path: Path) -> None:
    files = contents(export(settings, tmp_path / "dam.zip", channel="dam"))
    images = [name for name in files if name.startswith("images/") and not name.endswith(".xmp")]
    assert len(images) >= 4
    for name in images:
        beside = files[f"{name}.xmp"]
        assert xmp_packet_of(files[name])
        assert "Studio" in str(read_packet(beside)["dc:rights"])
        assert read_packet(beside)["Iptc4xmpExt:DigitalSourceType"] == AI
        assert f"{name}.xmp" in files["SHA256SUMS"].decode()
    rows = list(csv.DictReader(io.StringIO(files["assets.csv"].decode(), newline="")))
    assert {each["licensor"] for each in rows} == {"Studio"}


def test_a_croissant_pack_describes_its_manifest(settings: Settings, tmp_path: Path) -> None:
    files = contents(export(settings, tmp_path / "set.zip", channel="croissant"))
    told = json.loads(files["croissant.json"])
    assert told["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    by_id = {each["@id"]: each for each in told["distribution"]}
    sums = {
        line.split("  ")[1]: line.split("  ")[0]
        for line in files["SHA256SUMS"].decode().splitlines()
    }
    assert by_id["manifest.parquet"]["sha256"] == sums["manifest.parquet"]
    assert by_id["image-files"]["encodingFormat"] == ["image/png"]
    fields = {each["@id"].removeprefix("images/") for each in told["recordSet"][0]["field"]}
    assert fields == set(files["manifest.csv"].decode().splitlines()[0].split(","))


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        (
            "channel: x\ntitle: X\nrules:\n  - measure: bytes\n    at_most: 1\n    source: no\n",
            6,
            "no source",
        ),
        ("channel: x\ntitle: X\ncolour: red\n", 3, "unknown key"),
        ("channel: x\n", 1, "title: is missing"),
        (
            "channel: x\ntitle: X\nsources:\n  a: {page: https://a.example, checked: 2026-01-01}\n"
            "rules:\n  - {measure: weight, at_most: 1, source: a}\n",
            6,
            "measure",
        ),
        ("channel: x\ntitle: X\nname: '{{ sku'\n", 1, "template"),
        ("channel: x\ntitle: X\nname: '{% macro a() %}{% endmacro %}'\n", 1, "not allowed"),
        (
            "channel: x\ntitle: X\nfeed:\n  file: ../feed.csv\n  format: csv\n  columns: []\n",
            4,
            "feed.file",
        ),
    ],
)
def test_faults_of_a_channel_file_name_their_line(
    tmp_path: Path, text: str, line: int, told: str
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_channel(str(path))
    assert told in str(error.value)
    assert any(fault.where == f"{path}:{line}" for fault in error.value.faults)


def test_an_unknown_channel_names_its_neighbour() -> None:
    with pytest.raises(InputError, match="did you mean 'shopify'"):
        load_channel("shopfy")


def test_a_template_leads_no_file_out_of_its_folder(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("channel: own\ntitle: Own\nname: '../../{{ item.where }}/{{ sku }}'\n")
    items = every_item(tmp_path, where="/etc/../..")
    files = contents(export(settings, tmp_path / "own.zip", channel=str(path), items=items))
    images = [name for name in files if "/" in name]
    assert len(images) >= 4 and all(name.count("/") == 1 for name in images)
    assert not any(name.removeprefix("images/").startswith(".") for name in images)
