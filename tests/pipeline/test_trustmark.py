"""TrustMark: refused where it cannot run; what it marks is claimed only where it can be read."""

from __future__ import annotations

import hashlib
import io
import sys
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.encode import encode
from pipeline.errors import SetupError
from pipeline.images import RgbImage
from pipeline.keys import Identity
from pipeline.manifest import manifest_for
from pipeline.policy import Policy
from pipeline.policy_model import Labels
from pipeline.request import Request
from pipeline.sign import sign
from pipeline.soft_binding import bindings_of, mark, trustmark
from pipeline.soft_binding.watermarks import WATERMARKS, Watermark, ready_to_mark

ID = "0123456789abcdef" * 4
VALUE = "1*1" + f"{int(ID[:15], 16):060b}"
Requests = Callable[..., Request]


@pytest.fixture
def marked_policy(policy: Policy) -> Policy:
    return policy.model_copy(update={"labels": Labels(watermark="trustmark")})


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is asked of the network: nothing is answered."""
    asked: list[Any] = []

    def refuse(*args: Any, **_: Any) -> None:
        asked.append(args)
        raise OSError("no internet here")

    monkeypatch.setattr(urllib.request, "urlretrieve", refuse)
    return asked


@pytest.fixture
def readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: list[Any]) -> Path:
    """Toy weights that mark and read, where the package looks for its own; their folder."""
    pytest.importorskip("trustmark")
    from trustmark_toys import readable_weights

    readable_weights(tmp_path / "package", monkeypatch)
    return tmp_path / "package" / "models"


def soft(number: int, height: int = 256, width: int = 256) -> RgbImage:
    """Soft colours away from black and white, uint8 [height, width, 3]."""
    small = np.random.default_rng(number).integers(90, 170, (3, 3, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


class TestPayload:
    def test_it_is_a_one_and_how_the_request_id_begins(self) -> None:
        payload = trustmark.payload_of(ID)
        assert f"{payload:x}" == f"1{ID[:15]}"
        assert trustmark.value_of(payload) == VALUE
        assert trustmark.payload_in(VALUE) == payload

    @pytest.mark.parametrize(
        "value",
        ["", "1*", VALUE[2:], f"2{VALUE[1:]}", f"1*0{VALUE[3:]}", f"{VALUE}0", f"{VALUE}\n", "1*x"],
    )
    def test_other_values_are_refused(self, value: str) -> None:
        with pytest.raises(ValueError, match="no TrustMark payload"):
            trustmark.payload_in(value)

    @pytest.mark.parametrize("value", ["", "0" * 11, "0" * 13, "0x0123456789", "-12345678901"])
    def test_so_are_those_of_the_embedded_watermark(self, value: str) -> None:
        with pytest.raises(ValueError, match="no payload of 48 bits"):
            WATERMARKS["embedded"].payload_in(value)

    @pytest.mark.parametrize("watermark", WATERMARKS.values(), ids=WATERMARKS)
    @pytest.mark.parametrize("digit", "0f")
    def test_every_watermark_keeps_to_its_own(self, watermark: Watermark, digit: str) -> None:
        payload = watermark.payload_of(digit * 64)
        inside = [each for each in WATERMARKS.values() if payload in each.payloads]
        assert inside == [watermark]
        assert watermark.payload_in(watermark.value_of(payload)) == payload


class TestRefused:
    def test_without_the_package(
        self, marked_policy: Policy, monkeypatch: pytest.MonkeyPatch, request_of: Requests
    ) -> None:
        monkeypatch.setitem(sys.modules, "trustmark", None)
        with pytest.raises(SetupError, match=r"cannot be imported .* '\.\[trustmark\]'"):
            ready_to_mark(marked_policy)
        with pytest.raises(SetupError):
            mark(soft(1), request_of(), marked_policy)

    def test_without_the_weights(
        self, marked_policy: Policy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        # As much of the package as is asked before its weights are there.
        package, inside = ModuleType("trustmark"), ModuleType("trustmark.trustmark")
        inside.__file__ = str(tmp_path / "trustmark.py")
        inside.MODEL_REMOTE_HOST = "https://weights.example/"  # type: ignore[attr-defined]
        inside.MODEL_CHECKSUMS = dict.fromkeys(  # type: ignore[attr-defined]
            ("trustmark_Q.yaml", "encoder_Q.ckpt", "decoder_Q.ckpt"), "0" * 32
        )
        package.trustmark = inside  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "trustmark", package)
        monkeypatch.setitem(sys.modules, "trustmark.trustmark", inside)
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "encoder_Q.ckpt").write_bytes(b"another file")
        with pytest.raises(SetupError) as refused:
            ready_to_mark(marked_policy)
        said = str(refused.value)
        assert str(tmp_path / "models") in said
        assert "decoder_Q.ckpt: No such file" in said
        assert "encoder_Q.ckpt: not the published file" in said
        assert "https://weights.example/" in said

    @pytest.mark.parametrize("name", ["trustmark_Q.yaml", "encoder_Q.ckpt", "decoder_Q.ckpt"])
    def test_with_one_changed_byte(
        self, readable: Path, offline: list[Any], marked_policy: Policy, name: str
    ) -> None:
        data = bytearray((readable / name).read_bytes())
        data[len(data) // 2] ^= 1
        (readable / name).write_bytes(data)
        with pytest.raises(SetupError, match=f"{name}: not the published file"):
            ready_to_mark(marked_policy)
        assert offline == []

    def test_weights_that_do_not_load_are_told_of(
        self, readable: Path, marked_policy: Policy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from trustmark.trustmark import MODEL_CHECKSUMS

        (readable / "decoder_Q.ckpt").write_bytes(b"no checkpoint")
        digest = hashlib.md5(b"no checkpoint").hexdigest()
        monkeypatch.setitem(MODEL_CHECKSUMS, "decoder_Q.ckpt", digest)
        with pytest.raises(SetupError, match="cannot be loaded"):
            ready_to_mark(marked_policy)

    def test_other_policies_need_nothing(
        self, policy: Policy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "trustmark", None)
        for name in ("embedded", "none"):
            ready_to_mark(policy.model_copy(update={"labels": Labels(watermark=name)}))


@pytest.mark.usefixtures("readable")
class TestMarked:
    def test_the_manifest_names_the_registered_algorithm(
        self,
        marked_policy: Policy,
        request_of: Requests,
        model: Any,
        verdict_of: Any,
        identity: Identity,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        request = request_of()
        marked = mark(soft(2), request, marked_policy)
        manifest = manifest_for(
            request, model, marked_policy, verdict_of(marked_policy), bindings=marked.bindings
        )
        data, mime = encode(marked.pixels, marked_policy.image)
        _, signed = sign(data, mime, manifest, identity)
        first = bindings_of(signed.manifest)[0]
        assert first.alg == "com.adobe.trustmark.Q"
        assert first.value.startswith("1*1")
        assert trustmark.payload_in(first.value) == trustmark.payload_of(request.request_id)
        actions = manifest["assertions"][0]["data"]["actions"]
        assert actions[-1]["action"] == "c2pa.watermarked.bound"
        assert capsys.readouterr().out == ""

    def test_it_is_read_after_jpeg_and_at_another_size(self, offline: list[Any]) -> None:
        payload = trustmark.payload_of(ID)
        marked = trustmark.embed(soft(3, 300, 400), payload)
        assert marked is not None
        out = io.BytesIO()
        Image.fromarray(marked).resize((320, 240)).save(out, "JPEG", quality=85)
        reading = trustmark.read(np.asarray(Image.open(out)))
        assert reading is not None
        assert reading.payload == payload
        assert offline == []

    def test_pure_white_stays_pure_white(self) -> None:
        image = soft(4).copy()
        image[:, 240:] = 255
        marked = trustmark.embed(image, trustmark.payload_of(ID))
        assert marked is not None
        assert (marked[:, 240:] == 255).all()
        assert not (marked[:, :240] == image[:, :240]).all()

    def test_pictures_without_it_say_nothing(self) -> None:
        assert [trustmark.read(soft(number)) for number in range(20, 30)] == [None] * 10

    def test_marks_of_other_schemas_are_not_ours(self) -> None:
        from trustmark import TrustMark

        bits = f"{trustmark.payload_of(ID):068b}"
        other = TrustMark(
            verbose=False, device="cpu", encoding_type=TrustMark.Encoding.BCH_4, loadRemover=False
        )
        marked = other.encode(Image.fromarray(soft(7)), bits, MODE="binary")
        assert other.decode(marked, MODE="binary") == (bits, True, 2)
        assert trustmark.read(np.asarray(marked)) is None

    def test_the_package_is_never_asked_for_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from trustmark import TrustMark

        asked: list[str] = []
        monkeypatch.setattr(TrustMark, "check_and_download", lambda self, name: asked.append(name))
        assert trustmark.embed(soft(8), trustmark.payload_of(ID)) is not None
        assert asked == []

    def test_marked_side_by_side_each_has_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from trustmark_toys import PatternDecoder, PatternEncoder

        inside, most = [0], [0]

        def watched(forward: Any) -> Any:
            def run(*arguments: Any) -> Any:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.01)
                inside[0] -= 1
                return forward(*arguments)

            return run

        def marked_and_read(payload: int) -> bool:
            marked = trustmark.embed(soft(5), payload)
            assert marked is not None
            reading = trustmark.read(marked)
            return reading is not None and reading.payload == payload

        for network in (PatternEncoder, PatternDecoder):
            monkeypatch.setattr(network, "forward", watched(network.forward))
        payloads = [trustmark.payload_of(f"{number:x}" * 64) for number in range(8)]
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(marked_and_read, payloads)) == [True] * 8
        # The package's error correction is not made for two threads at once.
        assert most == [1]

    def test_what_cannot_be_read_back_is_neither_marked_nor_claimed(
        self, marked_policy: Policy, request_of: Requests
    ) -> None:
        white = np.full((128, 128, 3), 255, np.uint8)
        marked = mark(white, request_of(), marked_policy)
        assert (marked.pixels == white).all()
        assert trustmark.ALGORITHM not in {each.alg for each in marked.bindings}


def test_the_packages_own_networks_load_and_what_they_garble_is_not_claimed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    marked_policy: Policy,
    request_of: Requests,
    offline: list[Any],
) -> None:
    pytest.importorskip("trustmark")
    from trustmark_toys import random_weights

    random_weights(tmp_path, monkeypatch)
    ready_to_mark(marked_policy)
    image = soft(6, 96, 128)
    marked = mark(image, request_of(), marked_policy)
    assert (marked.pixels == image).all()
    assert trustmark.ALGORITHM not in {each.alg for each in marked.bindings}
    assert offline == []
