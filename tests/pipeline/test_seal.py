"""Encode, label, sign: real files of every format, read back as anybody would read them."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c2pa import Builder, C2paSignerInfo, C2paSigningAlg, Context, Reader, Signer
from c2pa import Settings as SdkSettings
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from PIL import Image
from timestamp_authority import TimestampAuthority, timestamp_authority

from pipeline import timestamps
from pipeline.encode import EncodeError, encode, lossless_png
from pipeline.images import ImageRefused, RgbImage, decode_limited
from pipeline.keys import Identity, signing_identity
from pipeline.manifest import ManifestError, manifest_for
from pipeline.policy import Policy
from pipeline.policy_model import ImageFormat
from pipeline.records import Reason, Review, Verdict
from pipeline.request import Request
from pipeline.seal import release, seal
from pipeline.settings import Settings
from pipeline.sign import SignError, reader_settings, sign, stamp
from pipeline.soft_binding import mark
from pipeline.timestamps import is_stamped
from pipeline.trust import TrustList
from pipeline.verify import verify_bytes

RequestOf = Callable[..., Request]
VerdictOf = Callable[..., Verdict]
FORMATS = ["png", "jpeg", "webp"]
REVIEW = Review("Ada", "approve", "fine", datetime(2026, 11, 22, tzinfo=UTC))
REASON = Reason("review", "similarity.nearest", "near", 0.85, 0.8)


def read(data: bytes, mime: str, anchors: bytes) -> dict[str, Any]:
    context = Context(SdkSettings.from_dict(reader_settings(anchors)))
    with Reader(mime, io.BytesIO(data), context=context) as reader:
        return {**json.loads(reader.json()), "detailed": json.loads(reader.detailed_json())}


def thumbnail_of(data: bytes, mime: str) -> Image.Image:
    out = io.BytesIO()
    with Reader(mime, io.BytesIO(data)) as reader:
        active = reader.get_active_manifest()
        assert active is not None
        reader.resource_to_stream(active["thumbnail"]["identifier"], out)
    return Image.open(out)


def in_format(policy: Policy, fmt: str) -> Policy:
    return policy.model_copy(update={"image": ImageFormat(format=fmt, quality=90)})  # type: ignore[arg-type]


@pytest.fixture
def manifest(
    request_of: RequestOf, model: Any, policy: Policy, verdict_of: VerdictOf
) -> dict[str, Any]:
    return manifest_for(request_of(), model, policy, verdict_of(policy))


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_sealed_file_is_trusted_labelled_and_pixel_for_pixel_what_was_encoded(
    fmt: str,
    picture: RgbImage,
    request_of: RequestOf,
    model: Any,
    policy: Policy,
    verdict_of: VerdictOf,
    identity: Identity,
) -> None:
    chosen = in_format(policy, fmt)
    sealed = seal(picture, request_of(), model, chosen, verdict_of(chosen), identity)
    store = read(sealed.data, sealed.mime, identity.anchors)
    assert store["validation_state"] == "Trusted"
    assert store["active_manifest"] == sealed.signed.label
    assert sealed.signed.certificate == identity.certificate
    assert sealed.milliseconds.keys() == {"encode", "sign"}
    marked = mark(picture, request_of(), chosen).pixels
    unsigned, mime = encode(marked, chosen.image)
    assert mime == sealed.mime
    assert np.array_equal(decode_limited(sealed.data), decode_limited(unsigned))
    if fmt == "png":
        assert np.array_equal(decode_limited(sealed.data), marked)
    with Image.open(io.BytesIO(sealed.data)) as image:
        assert b"trainedAlgorithmicMedia" in bytes_of(image.info["xmp"])


def bytes_of(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def test_our_statements_are_created_ones_in_the_signed_claim(
    picture: RgbImage,
    request_of: RequestOf,
    model: Any,
    policy: Policy,
    verdict_of: VerdictOf,
    identity: Identity,
) -> None:
    sealed = seal(picture, request_of(), model, policy, verdict_of(policy), identity)
    store = read(sealed.data, sealed.mime, identity.anchors)
    claim = store["detailed"]["manifests"][sealed.signed.label]["claim"]
    created = {each["url"].rsplit("/", 1)[1] for each in claim["created_assertions"]}
    assert {
        "c2pa.actions.v2", "c2pa.ai-disclosure", "org.platemark.generation",
        "org.platemark.policy", "c2pa.hash.data",
    } <= created  # fmt: skip
    assert claim["claim_generator_info"]["specVersion"] == "2.4.0"
    active = store["manifests"][sealed.signed.label]
    data = {each["label"]: each["data"] for each in active["assertions"]}
    assert data["c2pa.actions.v2"]["allActionsIncluded"] is True
    done = [each["action"] for each in data["c2pa.actions.v2"]["actions"]]
    assert done == ["c2pa.created", "c2pa.watermarked.bound"]
    assert data["org.platemark.generation"]["seed"] == str(2**63 - 1)
    assert data["org.platemark.generation"]["guidance"] == 7.5
    assert data["org.platemark.policy"]["digest"] == policy.digest


def test_the_catalogs_manifest_bytes_are_those_in_the_file(
    picture: RgbImage, manifest: dict[str, Any], identity: Identity
) -> None:
    plain, mime = encode(picture, ImageFormat(format="png"))
    data, signed = sign(plain, mime, manifest, identity)
    assert signed.manifest in data
    assert signed.label.encode() in signed.manifest
    with Reader(mime, io.BytesIO(plain), signed.manifest) as reader:
        assert json.loads(reader.json())["active_manifest"] == signed.label


@pytest.mark.parametrize(
    ("size", "expected"), [((96, 64), (96, 64)), ((512, 256), (256, 128)), ((100, 800), (32, 256))]
)
def test_the_thumbnail_is_256_pixels_at_most_and_never_enlarged(
    size: tuple[int, int],
    expected: tuple[int, int],
    manifest: dict[str, Any],
    identity: Identity,
) -> None:
    plain, mime = encode(Image.new("RGB", size, "teal"), ImageFormat(format="png"))
    data, _ = sign(plain, mime, manifest, identity)
    thumbnail = thumbnail_of(data, mime)
    assert (thumbnail.format, thumbnail.size) == ("JPEG", expected)


def test_without_labels_there_is_no_packet_but_still_a_manifest(
    picture: RgbImage,
    request_of: RequestOf,
    model: Any,
    policy: Policy,
    verdict_of: VerdictOf,
    identity: Identity,
) -> None:
    bare = policy.model_copy(update={"labels": policy.labels.model_copy(update={"xmp": False})})
    sealed = seal(picture, request_of(), model, bare, verdict_of(bare), identity)
    report = verify_bytes(sealed.data, Path("a.png"), identity.anchors)
    assert report.ok
    assert report.labels == {}


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_changed_byte_is_detected(
    fmt: str, picture: RgbImage, manifest: dict[str, Any], identity: Identity
) -> None:
    plain, mime = encode(picture, ImageFormat(format=fmt, quality=90))  # type: ignore[arg-type]
    data, _ = sign(plain, mime, manifest, identity)
    changed = bytearray(data)
    # WebP ends with the manifest, the others with pixels.
    changed[60 if fmt == "webp" else -40] ^= 1
    report = verify_bytes(bytes(changed), Path("x"), identity.anchors)
    assert report.state == "Invalid"
    assert any("changed after it was signed" in why for why in report.why)


def test_nothing_that_is_blocked_or_unapproved_is_sealed(
    picture: RgbImage,
    request_of: RequestOf,
    model: Any,
    policy: Policy,
    verdict_of: VerdictOf,
    identity: Identity,
) -> None:
    for outcome in ("block", "review"):
        verdict = verdict_of(policy, outcome, replace(REASON, outcome=outcome))  # type: ignore[arg-type]
        with pytest.raises(ManifestError):
            seal(picture, request_of(), model, policy, verdict, identity)


def test_an_approved_image_is_released_from_quarantine_with_its_review(
    picture: RgbImage,
    request_of: RequestOf,
    model: Any,
    policy: Policy,
    verdict_of: VerdictOf,
    identity: Identity,
) -> None:
    quarantined = lossless_png(picture)
    verdict = verdict_of(policy, "review", REASON)
    sealed = release(quarantined, request_of(), model, policy, verdict, identity, REVIEW)
    report = verify_bytes(sealed.data, Path("a.png"), identity.anchors)
    assert report.ok
    assert report.policy is not None
    assert report.policy["review"]["reviewer"] == "Ada"
    assert np.array_equal(decode_limited(sealed.data), mark(picture, request_of(), policy).pixels)
    with pytest.raises(ImageRefused):
        release(quarantined[:-30], request_of(), model, policy, verdict, identity, REVIEW)
    with pytest.raises(ManifestError):
        rejected = replace(REVIEW, decision="reject")
        release(quarantined, request_of(), model, policy, verdict, identity, rejected)


@pytest.mark.parametrize("fmt", FORMATS)
def test_half_an_image_is_never_signed(
    fmt: str, picture: RgbImage, manifest: dict[str, Any], identity: Identity
) -> None:
    data, mime = encode(picture, ImageFormat(format=fmt))  # type: ignore[arg-type]
    for broken in (data[: len(data) // 2], b"", b"no image"):
        with pytest.raises(ImageRefused):
            sign(broken, mime, manifest, identity)


def test_pixels_of_another_shape_are_refused() -> None:
    for wrong in (np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4), np.uint8)):
        with pytest.raises(EncodeError):
            encode(wrong, ImageFormat())  # type: ignore[arg-type]
    with pytest.raises(EncodeError, match="webp"):
        encode(np.zeros((4, 20_000, 3), np.uint8), ImageFormat(format="webp"))


def test_threads_share_one_signer_and_each_file_gets_its_own_manifest(
    picture: RgbImage,
    request_of: RequestOf,
    model: Any,
    policy: Policy,
    verdict_of: VerdictOf,
    identity: Identity,
) -> None:
    def one(index: int) -> tuple[str, bool, str]:
        request = request_of(index=index, seed=index)
        sealed = seal(picture, request, model, policy, verdict_of(policy), identity)
        report = verify_bytes(sealed.data, Path("a.png"), identity.anchors)
        assert report.generation is not None
        return sealed.signed.label, report.ok, report.generation["seed"]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(24)))
    assert len({label for label, _, _ in found}) == 24
    assert [(ok, seed) for _, ok, seed in found] == [(True, str(i)) for i in range(24)]


def _seal_in_child(pipe: Any, plain: bytes, manifest: dict[str, Any], identity: Identity) -> None:
    pipe.send_bytes(sign(plain, "image/png", manifest, identity)[0])


def _seal_in_parent_and_fork(
    pipe: Any, plain: bytes, manifest: dict[str, Any], identity: Identity
) -> None:
    sign(plain, "image/png", manifest, identity)
    fork = multiprocessing.get_context("fork")
    child = fork.Process(target=_seal_in_child, args=(pipe, plain, manifest, identity))
    child.start()
    child.join(20)
    raise SystemExit(child.exitcode)


def test_a_forked_child_signs_with_a_signer_of_its_own(
    picture: RgbImage, manifest: dict[str, Any], identity: Identity
) -> None:
    plain = lossless_png(picture)
    here, there = multiprocessing.Pipe()
    # In a process of its own: other tests' servers and threads do not survive a fork.
    parent = multiprocessing.get_context("spawn").Process(
        target=_seal_in_parent_and_fork, args=(there, plain, manifest, identity)
    )
    parent.start()
    assert here.poll(60)
    data = here.recv_bytes()
    parent.join(30)
    assert parent.exitcode == 0
    assert verify_bytes(data, Path("a.png"), identity.anchors).ok


def test_a_key_that_does_not_fit_is_caught_while_signing(
    picture: RgbImage, manifest: dict[str, Any], identity: Identity
) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with pytest.raises(SignError):
        sign(lossless_png(picture), "image/png", manifest, replace(identity, key=other))


def test_a_callback_signs_and_what_it_raises_comes_through(
    picture: RgbImage, manifest: dict[str, Any], identity: Identity
) -> None:
    assert identity.key is not None
    key: Any = serialization.load_pem_private_key(identity.key, None)
    healthy = replace(
        identity, key=None, callback=lambda data: key.sign(data, ec.ECDSA(hashes.SHA256()))
    )
    data, _ = sign(lossless_png(picture), "image/png", manifest, healthy)
    assert verify_bytes(data, Path("a.png"), identity.anchors).ok

    def away(data: bytes) -> bytes:
        raise ConnectionError("the HSM is away")

    broken = replace(identity, key=None, callback=away)
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            waiting = pool.submit(sign, lossless_png(picture), "image/png", manifest, broken)
            with pytest.raises(ConnectionError, match="the HSM is away"):
                waiting.result()


def test_without_the_root_a_file_is_valid_but_not_trusted(
    picture: RgbImage, manifest: dict[str, Any], identity: Identity
) -> None:
    rootless = replace(identity, anchors=b"")
    data, _ = sign(lossless_png(picture), "image/png", manifest, rootless)
    report = verify_bytes(data, Path("a.png"), b"")
    assert report.state == "Valid"
    assert any("no configured root" in why for why in report.why)
    assert report.development


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[TimestampAuthority]:
    with timestamp_authority(tmp_path / "tsa") as serving:
        yield serving
    timestamps._out_until.clear()


def stamped_identity(authority: TimestampAuthority, folder: Path) -> Identity:
    return signing_identity(Settings(workspace=folder, signing={"timestamp_url": authority.url}))


def test_a_time_stamp_is_embedded_when_an_authority_is_configured(
    authority: TimestampAuthority, tmp_path: Path, picture: RgbImage, manifest: dict[str, Any]
) -> None:
    identity = stamped_identity(authority, tmp_path)
    data, signed = sign(lossless_png(picture), "image/png", manifest, identity)
    report = verify_bytes(data, Path("a.png"), identity.anchors)
    assert (report.state, report.time_stamp) == ("Trusted", "Valid")
    assert report.signed_at is not None
    assert is_stamped(signed.manifest, signed.label)
    trusted = verify_bytes(
        data,
        Path("a.png"),
        (
            TrustList("ours", "signers", identity.anchors),
            TrustList("stamps", "time-stamps", authority.root),
        ),
    )
    assert (trusted.state, trusted.trust_list, trusted.time_stamp) == ("Trusted", "ours", "Trusted")


@pytest.mark.parametrize("mood", ["refuses", "talks nonsense"])
def test_an_authority_that_fails_in_a_run_is_done_without_and_left_alone(
    mood: Any,
    authority: TimestampAuthority,
    tmp_path: Path,
    picture: RgbImage,
    manifest: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    identity = stamped_identity(authority, tmp_path)
    authority.mood, authority.asked = mood, 0
    for _ in range(3):
        data, signed = sign(lossless_png(picture), "image/png", manifest, identity)
        assert verify_bytes(data, Path("a.png"), identity.anchors).ok
        assert not is_stamped(signed.manifest, signed.label)
    assert authority.asked == 1
    authority.mood = "serves"
    monkeypatch.setattr(timestamps, "PAUSE_SECONDS", 0.0)
    timestamps.note_outage(authority.url)
    data, signed = sign(lossless_png(picture), "image/png", manifest, identity)
    assert is_stamped(signed.manifest, signed.label)


def test_a_stamp_given_later_keeps_the_story_and_the_pixels(
    authority: TimestampAuthority,
    tmp_path: Path,
    picture: RgbImage,
    request_of: RequestOf,
    model: Any,
    policy: Policy,
    verdict_of: VerdictOf,
) -> None:
    identity = stamped_identity(authority, tmp_path)
    for fmt in FORMATS:
        authority.mood = "refuses"
        chosen = in_format(policy, fmt)
        sealed = seal(picture, request_of(), model, chosen, verdict_of(chosen), identity)
        timestamps._out_until.clear()
        before = verify_bytes(sealed.data, Path("a"), identity.anchors)
        with pytest.raises(SignError):
            stamp(sealed.data, sealed.mime, identity)
        authority.mood = "serves"
        data, signed = stamp(sealed.data, sealed.mime, identity)
        after = verify_bytes(data, Path("a"), identity.anchors)
        assert (before.time_stamp, after.time_stamp) == (None, "Valid")
        assert after.ok
        assert after.label == signed.label != before.label
        assert np.array_equal(decode_limited(data), decode_limited(sealed.data))
        for name in ("generation", "policy", "source_types", "actions", "labels", "disclosure"):
            assert getattr(after, name) == getattr(before, name), name
            assert getattr(after, name)


def test_what_is_not_signed_or_was_changed_gets_no_stamp(
    authority: TimestampAuthority, tmp_path: Path, picture: RgbImage, manifest: dict[str, Any]
) -> None:
    identity = stamped_identity(authority, tmp_path)
    png = lossless_png(picture)
    data, _ = sign(png, "image/png", manifest, replace(identity, timestamp_url=None))
    changed = bytearray(data)
    changed[-40] ^= 1
    for broken in (png, bytes(changed)):
        with pytest.raises(SignError):
            stamp(broken, "image/png", identity)
    with pytest.raises(SignError, match="no time-stamp authority is configured"):
        stamp(data, "image/png", replace(identity, timestamp_url=None))


def test_a_real_chain_signs_and_its_root_is_what_makes_it_trusted(
    tmp_path: Path, picture: RgbImage, manifest: dict[str, Any]
) -> None:
    from test_keys import Authority, key_bytes

    authority = Authority()
    key = ec.generate_private_key(ec.SECP256R1())
    root = authority.certificate.public_bytes(serialization.Encoding.PEM)
    leaf = authority.issue(key.public_key()).public_bytes(serialization.Encoding.PEM)
    for name, content in (("leaf", leaf), ("root", root), ("key", key_bytes(key))):
        (tmp_path / f"{name}.pem").write_bytes(content)
        (tmp_path / f"{name}.pem").chmod(0o600)
    identity = signing_identity(
        Settings(
            workspace=tmp_path,
            signing={
                "certificates": tmp_path / "leaf.pem",
                "key": tmp_path / "key.pem",
                "trust_anchors": tmp_path / "root.pem",
            },
        )
    )
    data, signed = sign(lossless_png(picture), "image/png", manifest, identity)
    report = verify_bytes(data, Path("a.png"), root)
    assert report.ok
    assert not report.development
    fingerprint = x509.load_pem_x509_certificate(leaf).fingerprint(hashes.SHA256()).hex()
    assert fingerprint in signed.certificate


def test_the_same_pixels_are_lossless_in_quarantine(picture: RgbImage) -> None:
    png = lossless_png(picture)
    assert np.array_equal(decode_limited(png), picture)
    assert hashlib.sha256(png).digest() == hashlib.sha256(lossless_png(picture)).digest()
    assert b"xmp" not in png


def test_a_certificate_for_claim_signing_alone_is_trusted(
    tmp_path: Path, picture: RgbImage, manifest: dict[str, Any], identity: Identity
) -> None:
    from test_keys import CLAIM_SIGNING, PEM, Authority, key_bytes

    authority, key = Authority(), ec.generate_private_key(ec.SECP256R1())
    root = authority.certificate.public_bytes(PEM)
    leaf = authority.issue(key.public_key(), uses=(CLAIM_SIGNING,)).public_bytes(PEM)
    strict = replace(identity, chain=leaf + root, key=key_bytes(key), anchors=root)
    data, _ = sign(lossless_png(picture), "image/png", manifest, strict)
    assert verify_bytes(data, Path("a.png"), root).ok


def test_the_sdk_makes_no_thumbnail_of_its_own(
    picture: RgbImage, manifest: dict[str, Any], identity: Identity
) -> None:
    info = C2paSignerInfo(C2paSigningAlg.ES256, identity.chain, identity.key, None)
    sdk = SdkSettings.from_dict(reader_settings(identity.anchors))
    out = io.BytesIO()
    with Builder(json.dumps(manifest), Context(sdk, Signer.from_info(info))) as builder:
        builder.sign("image/png", io.BytesIO(lossless_png(picture)), out)
    store = read(out.getvalue(), "image/png", identity.anchors)
    assert "thumbnail" not in store["manifests"][store["active_manifest"]]
