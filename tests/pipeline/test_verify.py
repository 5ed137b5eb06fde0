"""Verify: a report for any file, ours, other people's, broken, absent; never an exception."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c2pa import Builder, C2paSignerInfo, C2paSigningAlg, Context, Signer
from c2pa import Settings as SdkSettings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import pipeline.verify
from pipeline.images import decode_limited
from pipeline.keys import Identity
from pipeline.seal import Sealed
from pipeline.settings import ROOT
from pipeline.sign import reader_settings
from pipeline.verify import verify_bytes, verify_file

Write = Callable[[str, bytes], Path]


@pytest.fixture
def sealed(sealed_of: Callable[..., Sealed]) -> Sealed:
    return sealed_of()


def test_a_file_of_ours_is_told_in_full(sealed: Sealed, write: Write, identity: Identity) -> None:
    report = verify_file(write("a.png", sealed.data), identity.anchors)
    assert report.ok
    assert report.state == "Trusted"
    assert report.development
    assert any("development certificate" in why for why in report.why)
    assert report.claim_generator is not None
    assert report.claim_generator.startswith("Platemark ")
    assert report.actions == ("c2pa.created", "c2pa.watermarked.bound")
    assert report.source_types[0].endswith("/trainedAlgorithmicMedia")
    assert report.label == sealed.signed.label
    assert report.generation is not None
    assert report.generation["model"]["name"] == "starter"
    assert report.policy is not None
    assert report.policy["verdict"] == "pass"
    assert report.labels["dc:creator"] == ["Studio & Söhne <1>"]
    assert (report.width, report.height, report.mime) == (96, 64, "image/png")
    told = json.loads(json.dumps(report.as_json()))
    assert told["ok"] is True
    assert told["verifier"].startswith("c2pa-rs ")


CAPTURE = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
FOREIGN = {
    "claim_generator_info": [{"name": "Camera", "version": "3"}],
    "assertions": [
        {
            "label": "c2pa.actions",
            "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": CAPTURE}]},
        }
    ],
}


def foreign_file(identity: Identity) -> bytes:
    """A photo by another program: signed by a stranger, edited, without anything of ours."""
    image = io.BytesIO()
    Image.new("RGB", (64, 64), "olive").save(image, "JPEG")
    info = C2paSignerInfo(C2paSigningAlg.ES256, identity.chain, identity.key, None)
    context = Context(SdkSettings.from_dict({}), Signer.from_info(info))
    out = io.BytesIO()
    with Builder(json.dumps(FOREIGN), context) as builder:
        builder.sign("image/jpeg", image, out)
    return out.getvalue()


def test_a_foreign_file_is_told_without_our_statements(write: Write, identity: Identity) -> None:
    report = verify_file(write("photo.jpg", foreign_file(identity)), b"")
    assert report.state == "Valid"
    assert not report.ok
    assert report.claim_generator == "Camera 3"
    assert report.source_types == (CAPTURE,)
    assert (report.generation, report.policy, report.labels) == (None, None, {})


def test_a_manifest_that_lies_elsewhere_is_named_and_never_fetched(identity: Identity) -> None:
    asked: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/manifest.c2pa"
        image, out = io.BytesIO(), io.BytesIO()
        Image.new("RGB", (64, 64), "olive").save(image, "JPEG")
        info = C2paSignerInfo(C2paSigningAlg.ES256, identity.chain, identity.key, None)
        sdk = SdkSettings.from_dict(reader_settings(identity.anchors))
        with Builder(json.dumps(FOREIGN), Context(sdk, Signer.from_info(info))) as builder:
            builder.set_no_embed()
            builder.set_remote_url(url)
            builder.sign("image/jpeg", image, out)
        report = verify_bytes(out.getvalue(), Path("a.jpg"), identity.anchors)
        with contextlib.suppress(TimeoutError):
            asked.append(server.accept())
    assert not asked
    assert report.state == "None"
    assert "lies elsewhere" in report.why[0]
    assert url in report.why[0]


def test_an_unsigned_image_has_no_state_but_its_labels(write: Write) -> None:
    out = io.BytesIO()
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        b'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" photoshop:Credit="Someone"/>'
        b"</rdf:RDF></x:xmpmeta>"
    )
    Image.new("RGB", (8, 8)).save(out, "JPEG", xmp=packet)
    report = verify_file(write("plain.jpg", out.getvalue()), b"")
    assert (report.state, report.decodes, report.ok) == ("None", True, False)
    assert report.why == ("it carries no C2PA manifest",)
    assert report.labels == {"photoshop:Credit": "Someone"}


def test_a_hostile_label_is_named_not_parsed(write: Write) -> None:
    out = io.BytesIO()
    bomb = b'<!DOCTYPE x [<!ENTITY a "aa">]><x>&a;</x>'
    Image.new("RGB", (8, 8)).save(out, "WEBP", xmp=bomb)
    report = verify_file(write("bomb.webp", out.getvalue()), b"")
    assert "declares a document type" in report.labels["unreadable"]


def test_a_resaved_file_has_lost_its_manifest(
    sealed: Sealed, write: Write, identity: Identity
) -> None:
    out = io.BytesIO()
    with Image.open(io.BytesIO(sealed.data)) as image:
        image.save(out, "PNG")
    report = verify_file(write("resaved.png", out.getvalue()), identity.anchors)
    assert (report.state, report.decodes) == ("None", True)


def test_tampering_is_said_in_words(sealed: Sealed, write: Write, identity: Identity) -> None:
    pixels = bytearray(sealed.data)
    pixels[-20] ^= 1
    report = verify_file(write("a.png", bytes(pixels)), identity.anchors)
    assert report.state == "Invalid"
    assert any("changed after it was signed" in why for why in report.why)
    statement = sealed.data.replace(b"human_validated", b"x").replace(
        b"prompt_guided", b"prompt_guides"
    )
    report = verify_file(write("b.png", statement), identity.anchors)
    assert report.state == "Invalid"
    assert any("statement in the manifest was changed" in why for why in report.why)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.png", b""),
        ("words.txt", b"just words"),
        ("no-extension", b"\x00\x01\x02"),
        ("fake.png", b"\x89PNG\r\n\x1a\n" + b"\x00" * 50),
        ("fake.jpg", b"\xff\xd8\xff\xe0" + b"\x00" * 50),
        ("fake.pdf", b"%PDF-1.7 nothing"),
        ("fake.mp4", b"\x00\x00\x00\x18ftypmp42"),
        ("picture.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("sound.wav", b"RIFF\x00\x00\x00\x00WAVE"),
    ],
)
def test_files_that_are_no_images_get_a_report(name: str, content: bytes, write: Write) -> None:
    report = verify_file(write(name, content), b"")
    assert (report.state, report.decodes, report.ok) == ("None", False, False)
    assert report.why
    assert report.error
    assert report.sha256 is not None
    json.dumps(report.as_json())


def test_what_cannot_be_read_gets_a_report(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (tmp_path / "none.png", tmp_path, fifo, loop, Path("/dev/zero"), Path("a\0b")):
        report = verify_file(path, b"")
        assert report.state == "None"
        assert report.error
        assert report.sha256 is None


def test_a_truncated_file_of_ours_never_decodes_or_verifies(
    sealed: Sealed, write: Write, identity: Identity
) -> None:
    for size in (1, 40, len(sealed.data) // 3, len(sealed.data) - 200, len(sealed.data) - 13):
        report = verify_file(write("cut.png", sealed.data[:size]), identity.anchors)
        assert not report.ok, size
        assert report.state in ("None", "Invalid")


def test_a_decompression_bomb_is_not_decoded(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(out, "PNG")
    report = verify_file(write("bomb.png", out.getvalue()), b"")
    assert not report.decodes
    assert report.error


def test_a_huge_file_is_hashed_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.verify, "MAX_BYTES", 1 << 20)
    huge = tmp_path / "huge.png"
    with huge.open("wb") as file:
        file.truncate((1 << 20) + 1)
    report = verify_file(huge, b"")
    assert report.sha256 is not None
    assert "larger than 1 MiB" in str(report.error)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    damage=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=20)
)
def test_no_damage_crashes_or_goes_unnoticed(
    damage: list[tuple[int, int]], sealed: Sealed, identity: Identity
) -> None:
    data = bytearray(sealed.data)
    for place, flip in damage:
        data[place % len(data)] ^= flip
    report = verify_bytes(bytes(data), Path("a.png"), identity.anchors)
    if report.ok:
        # Sizes and flags of the manifest's boxes are in no hash; what they hold is.
        seen, made = decode_limited(bytes(data)), decode_limited(sealed.data)
        assert np.array_equal(seen, made)
        whole = verify_bytes(sealed.data, Path("a.png"), identity.anchors)
        assert (report.generation, report.policy) == (whole.generation, whole.policy)
    json.dumps(report.as_json())


def test_a_stranger_who_calls_himself_trusted_is_not(
    sealed: Sealed, write: Write, tmp_path: Path
) -> None:
    from pipeline.keys import signing_identity
    from pipeline.settings import Settings

    other = signing_identity(Settings(workspace=tmp_path / "other"))
    report = verify_file(write("a.png", sealed.data), other.anchors)
    assert report.state == "Valid"
    assert not report.ok


def test_a_broken_root_file_does_not_make_reports_raise(sealed: Sealed, write: Write) -> None:
    report = verify_file(write("a.png", sealed.data), b"no certificate at all")
    assert not report.ok
    assert replace(report).why


def test_verifying_and_policies_start_without_torch() -> None:
    code = (
        "import sys, pipeline.policy, pipeline.verify, pipeline.seal, pipeline.keys\n"
        "heavy = {'torch', 'diffusers', 'open_clip', 'transformers', 'prefect', 'c2pa'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr
