"""Images marked with TrustMark lead back to their records; where it cannot be read, it is said."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from recovery_samples import picture, shoot_marked, stripped, unmarked
from workspace_samples import policy_named

from catalog.fingerprints import index_signed
from catalog.lake import reading, writing
from catalog.recover import Recovered, by_binding, labels_in, recover
from pipeline.images import RgbImage
from pipeline.policy_model import Policy
from pipeline.request import Request
from pipeline.settings import Settings
from pipeline.soft_binding import Marked, SoftBinding, mark, trustmark
from pipeline.soft_binding.watermarks import WATERMARKS
from pipeline.store import sha256_of

RULES = [{"check": "quality", "score": "decodes", "block": {"below": 1}}]
ADOBE = policy_named("adobe", RULES, labels={"watermark": "trustmark"})
BARE = policy_named("bare", RULES, labels={"watermark": "none"})


def find(settings: Settings, data: bytes) -> Recovered:
    """Looks a file up in the catalog, with everything indexed."""
    with writing(settings.catalog) as lake:
        index_signed(lake)
        return recover(lake, data)


def made_elsewhere(pixels: RgbImage, request: Request, policy: Policy) -> Marked:
    """What a machine with TrustMark leaves here, but for the mark in the pixels."""
    marked = mark(pixels, request, policy)
    value = trustmark.value_of(trustmark.payload_of(request.request_id))
    return replace(marked, bindings=(SoftBinding(trustmark.ALGORITHM, value), *marked.bindings))


class TestWithoutThePackage:
    @pytest.fixture(autouse=True)
    def missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "trustmark", None)

    def test_the_fingerprint_leads_there_and_so_does_what_others_read(self, tmp_path: Path) -> None:
        settings = Settings(workspace=tmp_path)
        (first, data), _ = shoot_marked(settings, [1, 2], BARE, made_elsewhere)
        found = find(settings, stripped(data))
        assert [(each.kind, each.request_id) for each in found.matches] == [("fingerprint", first)]
        assert found.watermark is None
        assert "TrustMark cannot be imported" in str(found.unread)
        value = trustmark.value_of(trustmark.payload_of(first))
        wrong = value[:-1] + str(1 - int(value[-1]))
        with reading(settings.catalog) as lake:
            (match,) = by_binding(lake, trustmark.ALGORITHM, value)
            assert (match.kind, match.label) == ("watermark", labels_in(data)[0])
            assert by_binding(lake, trustmark.ALGORITHM, wrong) == []
            # Marked with one, found by that one alone.
            assert by_binding(lake, WATERMARKS["embedded"].algorithm, first[:12]) == []

    def test_a_catalog_without_its_marks_never_asks_for_it(self, tmp_path: Path) -> None:
        settings = Settings(workspace=tmp_path)
        [(request_id, data)] = shoot_marked(settings, [1])
        found = find(settings, stripped(data))
        assert (found.matches[0].kind, found.watermark) == ("watermark", request_id[:12])
        with reading(settings.catalog) as lake:
            assert recover(lake, unmarked(2)) == Recovered(sha256_of(unmarked(2)), ())


class TestWithThePackage:
    def test_every_watermark_leads_to_its_own_record_and_a_stray_one_nowhere(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("trustmark")
        from trustmark_toys import readable_weights

        readable_weights(tmp_path / "package", monkeypatch)
        settings = Settings(workspace=tmp_path / "workspace")
        made = {
            "trustmark": shoot_marked(settings, [1, 2], ADOBE),
            "embedded": shoot_marked(settings, [4, 5]),
        }
        for name, files in made.items():
            watermark = WATERMARKS[name]
            for request_id, data in files:
                found = find(settings, stripped(data, quality=90))
                (match,) = found.matches
                assert (match.kind, match.request_id) == ("watermark", request_id)
                assert match.sure.startswith("near certain")
                assert found.watermark == watermark.value_of(watermark.payload_of(request_id))
                assert found.unread is None
        stray = trustmark.embed(picture(9), trustmark.payload_of("ab" * 32))
        assert stray is not None
        out = io.BytesIO()
        Image.fromarray(stray).save(out, "PNG")
        found = find(settings, out.getvalue())
        assert (found.matches, found.watermark, found.unread) == ((), None, None)
