"""A picture that lost its metadata leads back to its record; one that is not ours leads nowhere."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from mutations import DAMAGES, mutant
from PIL import Image
from recovery_samples import picture, shoot_marked, stripped, unmarked

from catalog.fingerprints import index_signed, unindexed
from catalog.lake import Lake, reading, writing
from catalog.recover import by_binding, labels_in, manifest_store, recover
from pipeline.images import ImageRefused
from pipeline.settings import Settings
from pipeline.soft_binding import bindings_of


@dataclass(frozen=True)
class Shop:
    settings: Settings
    made: list[tuple[str, bytes]]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    settings = Settings(workspace=tmp_path_factory.mktemp("shop") / "workspace")
    made = shoot_marked(settings, range(6))
    with writing(settings.catalog) as lake:
        assert index_signed(lake) == 6
    return Shop(settings, made)


@pytest.fixture
def lake(shop: Shop) -> Iterator[Lake]:
    with reading(shop.settings.catalog) as opened:
        yield opened


def saved(edit: Callable[[Image.Image], Image.Image], data: bytes) -> bytes:
    """An edited picture as a JPEG without metadata."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(data)) as picture:
        edit(picture.convert("RGB")).save(out, "JPEG", quality=85)
    return out.getvalue()


@pytest.mark.parametrize(
    ("quality", "kept", "kind"),
    [(90, 1.0, "watermark"), (70, 1.0, "watermark"), (80, 0.9, "watermark")],
)
def test_the_watermark_leads_to_the_record(
    lake: Lake, shop: Shop, quality: int, kept: float, kind: str
) -> None:
    for request_id, data in shop.made:
        (match,) = recover(lake, stripped(data, quality=quality, kept=kept)).matches
        assert (match.kind, match.request_id) == (kind, request_id)
        assert match.difference is not None
        assert match.difference < 12
        assert match.sure.startswith("near certain")


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "stored thumbnail, mirrored"),
        (lambda p: p.rotate(3, Image.Resampling.BICUBIC, fillcolor="white"), "turned by 3°"),
    ],
)
def test_mirrored_and_turned_pictures_are_found_and_said_to_be(
    lake: Lake, shop: Shop, edit: Callable[[Image.Image], Image.Image], told: str
) -> None:
    for request_id, data in shop.made:
        (match,) = recover(lake, saved(edit, data)).matches
        assert (match.kind, match.request_id) == ("watermark", request_id)
        assert match.score > 90
        assert match.sure.endswith(told)


def test_without_the_watermark_a_mirrored_picture_is_found_by_its_fingerprint(
    lake: Lake, shop: Shop
) -> None:
    mirrored = saved(lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT), unmarked(3))
    told = recover(lake, mirrored)
    assert told.found is not None
    assert (told.found.kind, told.found.request_id) == ("fingerprint", shop.made[3][0])
    assert told.found.mirrored


def test_the_very_file_is_certain(lake: Lake, shop: Shop) -> None:
    request_id, data = shop.made[2]
    (match,) = recover(lake, data).matches
    assert (match.kind, match.score, match.request_id) == ("bytes", 100, request_id)


def test_a_changed_file_that_kept_its_manifest_only_claims_it(lake: Lake, shop: Shop) -> None:
    _, data = shop.made[1]
    match = recover(lake, data + b"\0" * 8).matches[0]
    assert match.kind == "manifest"
    assert match.sure.startswith("claimed")
    assert match.label == labels_in(data)[0]


def test_without_the_watermark_the_fingerprint_leads_there(lake: Lake, shop: Shop) -> None:
    told = recover(lake, unmarked(4))
    (match,) = told.matches
    assert told.found == match
    assert (match.kind, match.request_id) == ("fingerprint", shop.made[4][0])
    assert match.distance is not None
    assert match.distance <= 31


def test_without_the_watermark_a_crop_is_found_by_its_middle(lake: Lake, shop: Shop) -> None:
    told = recover(lake, stripped(unmarked(5), kept=0.9))
    (match,) = told.matches
    assert (match.kind, match.request_id) == ("fingerprint", shop.made[5][0])
    assert match.window == pytest.approx((0.1, 0.1, 1.0, 1.0), abs=0.011)
    # Others show the same things in the same places: that alone names no record.
    assert match.sure.startswith("possible")
    assert told.found is None


def test_a_mark_on_another_picture_is_doubted(lake: Lake, shop: Shop) -> None:
    from pipeline.soft_binding.payload import payload_of
    from pipeline.soft_binding.watermark import embed

    forged = io.BytesIO()
    Image.fromarray(embed(picture(99), payload_of(shop.made[0][0]))).save(forged, "PNG")
    (match,) = recover(lake, forged.getvalue()).matches
    assert match.kind == "watermark"
    assert match.sure.startswith("doubtful")
    assert match.score < 50


def test_pictures_that_are_not_ours_are_not_found(lake: Lake) -> None:
    assert [recover(lake, unmarked(number)).matches for number in range(100, 112)] == [()] * 12


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_picture_is_refused(lake: Lake, data: bytes) -> None:
    with pytest.raises(ImageRefused):
        recover(lake, data)


@hypothesis.settings(
    max_examples=40, deadline=20_000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    number=st.integers(0, 5),
    fmt=st.sampled_from(["signed", "JPEG", "PNG", "WEBP"]),
    kind=st.sampled_from(sorted(DAMAGES)),
    seed=st.integers(0, 2**32),
)
def test_no_damage_raises_or_leads_to_another_record(
    lake: Lake, shop: Shop, number: int, fmt: str, kind: str, seed: int
) -> None:
    request_id, data = shop.made[number]
    file = data if fmt == "signed" else stripped(data, fmt, quality=90)
    try:
        told = recover(lake, mutant(file, kind, seed))
    except ImageRefused as refused:
        assert refused.remedy
        return
    assert told.found is None or told.found.request_id == request_id


def test_each_binding_of_a_manifest_finds_it(lake: Lake, shop: Shop) -> None:
    label = labels_in(shop.made[3][1])[0]
    store = manifest_store(lake, label)
    assert store is not None
    for binding in bindings_of(store):
        if binding.part is None:
            assert by_binding(lake, binding.alg, binding.value)[0].label == label


@pytest.mark.parametrize(
    ("alg", "value"), [("org.platemark.pdq.1", "zz"), ("org.platemark.watermark.1", "x"), ("a", "")]
)
def test_values_that_fit_no_algorithm_are_refused(lake: Lake, alg: str, value: str) -> None:
    with pytest.raises(ValueError):
        by_binding(lake, alg, value)


def test_indexing_again_adds_what_is_new_and_nothing_twice(tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path / "workspace")
    shoot_marked(settings, [1, 2])
    with writing(settings.catalog) as lake:
        assert (unindexed(lake), index_signed(lake), index_signed(lake)) == (2, 2, 0)
    shoot_marked(settings, [3])
    with writing(settings.catalog) as lake:
        assert (index_signed(lake), unindexed(lake)) == (1, 0)
        (row,) = lake.rows("SELECT count(*) AS n, count(DISTINCT label) AS d FROM fingerprints")
    assert (row["n"], row["d"]) == (3, 3)
