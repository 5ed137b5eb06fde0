from __future__ import annotations

import base64
import json
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pack_samples import product, studio

from catalog.export import export
from catalog.lake import reading, writing
from catalog.pack import NothingToExport
from catalog.revocation import Revocation, revoke, revoked
from catalog.revocation_list import _signed, read_revocation_list, write_revocation_list
from pipeline.certificates import CLAIM_SIGNING, pem
from pipeline.errors import InputError
from pipeline.keys import Identity, signing_identity, trust_anchors
from pipeline.request import canonical_json
from pipeline.settings import Settings
from pipeline.store import sha256_of

NOBODY = "f" * 64


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = Settings(workspace=tmp_path / "ws")
    studio(found, [("MUG-1", product(64, 64)), ("LAMP-2", product(64, 48))])
    return found


def files_of(pack: str | Path) -> dict[str, str]:
    """SHA-256 of each image in a zip, by its sku."""
    with zipfile.ZipFile(pack) as archive:
        return {
            name.split("/")[1].rsplit("-", 2)[0]: sha256_of(archive.read(name))
            for name in archive.namelist()
            if name.startswith("images/")
        }


def take_back(settings: Settings, name: str) -> Revocation:
    with writing(settings.catalog) as lake:
        return revoke(lake, name, reason="a rival's mark is on it", by="ada")


def told(settings: Settings, *sha256s: str) -> dict[str, list[Revocation]]:
    with reading(settings.catalog) as lake:
        return revoked(lake, sha256s)


def test_a_revoked_asset_is_told_of_and_exported_no_more(
    settings: Settings, tmp_path: Path
) -> None:
    mug, lamp = files_of(export(settings, tmp_path / "a.zip").path)["MUG-1"], NOBODY
    assert told(settings, mug, lamp) == {}
    found = take_back(settings, "MUG-1")
    assert told(settings, mug.upper(), lamp) == {mug: [found]}
    assert "revoked by ada" in str(found) and "a rival's mark" in str(found)
    pack = export(settings, tmp_path / "b.zip")
    assert set(files_of(pack.path)) == {"LAMP-2"}
    assert "revoked by ada" in pack.left_out[0].reasons[0]


def test_a_revoked_pack_is_told_of_by_its_files_and_itself(
    settings: Settings, tmp_path: Path
) -> None:
    pack = export(settings, tmp_path / "a.zip", where="sku = 'MUG-1'")
    other = export(settings, tmp_path / "b.zip", where="sku = 'LAMP-2'")
    found = take_back(settings, "a.zip")
    assert found.pack_id == pack.pack_id
    mug, lamp = files_of(pack.path)["MUG-1"], files_of(other.path)["LAMP-2"]
    assert set(told(settings, mug, lamp, pack.sha256, other.sha256)) == {mug, pack.sha256}
    with pytest.raises(InputError, match=f"pack {pack.pack_id} was revoked"):
        export(settings, tmp_path / "again.zip", where="sku = 'MUG-1'")
    assert not (tmp_path / "again.zip").exists()


def test_renditions_of_a_revoked_asset_are_revoked(settings: Settings, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "channel: own\ntitle: Own\ndelivery: {format: jpeg}\n"
        "sources:\n  a: {page: 'https://a.example', checked: 2026-01-01}\n"
        "rules:\n  - {measure: format, one_of: [jpeg], source: a}\n"
    )
    pack = export(settings, tmp_path / "a.zip", channel=str(own))
    files = files_of(pack.path)
    found = take_back(settings, "MUG-1")
    assert told(settings, *files.values()) == {files["MUG-1"]: [found]}


def test_a_revocation_stands_as_it_was_first_recorded(settings: Settings) -> None:
    first = take_back(settings, "MUG-1")
    with writing(settings.catalog) as lake:
        again = revoke(lake, "MUG-1", reason="another reason", by="bob")
        assert lake.rows("SELECT count(*) AS n FROM revocations") == [{"n": 1}]
    assert again == first


def test_an_image_revoked_while_it_is_packed_leaves_no_pack(
    settings: Settings, tmp_path: Path
) -> None:
    def meanwhile(done: int, of: int) -> None:
        if done == of:
            take_back(settings, "MUG-1")

    with pytest.raises(InputError, match="MUG-1-0: the image was revoked"):
        export(settings, tmp_path / "a.zip", progress=meanwhile)
    assert not list(tmp_path.glob("*.zip")) and not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize(
    ("name", "given", "fault"),
    [
        ("nothing", {"reason": "x", "by": "ada"}, "no such pack or image"),
        ("MUG-1", {"reason": " ", "by": ""}, "--reason: must be given(.|\n)*--by"),
    ],
)
def test_what_is_meant_must_be_clear(
    settings: Settings, name: str, given: dict[str, str], fault: str
) -> None:
    with writing(settings.catalog) as lake, pytest.raises(InputError, match=fault):
        revoke(lake, name, **given)


def test_nothing_goes_in_when_all_is_revoked(settings: Settings, tmp_path: Path) -> None:
    for name in ("MUG-1", "LAMP-2"):
        take_back(settings, name)
    with pytest.raises(NothingToExport, match="revoked by ada"):
        export(settings, tmp_path / "a.zip", terms="spring-web")


def signed_list(settings: Settings) -> bytes:
    with reading(settings.catalog) as lake:
        return write_revocation_list(lake, signing_identity(settings))


def test_the_signed_list_says_the_same_without_a_catalog(
    settings: Settings, tmp_path: Path
) -> None:
    pack = export(settings, tmp_path / "a.zip", where="sku = 'MUG-1'")
    take_back(settings, "LAMP-2")
    take_back(settings, pack.pack_id)
    found = read_revocation_list(signed_list(settings), trust_anchors(settings))
    mug = files_of(pack.path)["MUG-1"]
    assert {mug, pack.sha256} < set(found.by_sha256) and len(found.by_sha256) == 3
    assert told(settings, mug) == {mug: found.by_sha256[mug]}
    assert "development" in found.signer


def changed(data: bytes) -> bytes:
    document = json.loads(data)
    document["list"]["revoked"] = []
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (changed, "its signature does not hold"),
        (lambda data: data[: len(data) // 2], "revocation list"),
        (lambda data: b"[]", "revocation list"),
        (lambda data: b'{"list": {"format": "x"}}', "revocation list"),
    ],
)
def test_a_list_that_was_changed_is_refused(settings: Settings, harm: object, fault: str) -> None:
    take_back(settings, "MUG-1")
    data = harm(signed_list(settings))  # type: ignore[operator]
    with pytest.raises(InputError, match=fault):
        read_revocation_list(data, trust_anchors(settings))


@pytest.mark.parametrize("revoked", [["MUG-1"], [{"files": []}], {}, 7])
def test_a_list_of_another_shape_is_refused_however_well_it_is_signed(
    settings: Settings, revoked: Any
) -> None:
    identity, document = signing_identity(settings), json.loads(signed_list(settings))
    document["list"]["revoked"] = revoked
    signature = _signed(canonical_json(document["list"]), identity)
    document["signature"] = base64.b64encode(signature).decode()
    if revoked == {}:
        assert not read_revocation_list(json.dumps(document).encode(), identity.anchors).by_sha256
        return
    with pytest.raises(InputError, match="revocation list"):
        read_revocation_list(json.dumps(document).encode(), identity.anchors)


def test_a_list_signed_by_a_stranger_or_too_late_is_refused(
    settings: Settings, tmp_path: Path
) -> None:
    data = signed_list(settings)
    stranger = Settings(workspace=tmp_path / "other")
    signing_identity(stranger)
    with pytest.raises(InputError, match="no configured root vouches"):
        read_revocation_list(data, trust_anchors(stranger))
    with reading(settings.catalog) as lake:
        late = write_revocation_list(
            lake, signing_identity(settings), datetime(2099, 1, 1, tzinfo=UTC)
        )
    with pytest.raises(InputError, match="outside its certificate's validity"):
        read_revocation_list(late, trust_anchors(settings))


class Authority:
    """A certificate authority that issues whatever a test asks for, right or wrong."""

    def __init__(self, name: str, issuer: Authority | None = None, **wishes: Any) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        above = issuer or self
        self.certificate = self._certificate(above, **wishes)
        self.chain = [self.certificate, *(issuer.chain if issuer else [])]

    def _certificate(
        self,
        above: Authority,
        ca: bool = True,
        signs_certificates: bool = True,
        usage: bool = True,
        path_length: int | None = None,
        use: x509.ObjectIdentifier | None = None,
        days: int = 30,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        length = path_length if ca else None
        made = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(above.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=60))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=length), critical=True)
        )
        if usage:
            signs = signs_certificates and ca
            made = made.add_extension(
                x509.KeyUsage(not signs, False, False, False, False, signs, signs, False, False),
                critical=True,
            )
        if use:
            made = made.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        return made.sign(above.key, hashes.SHA256())

    def identity(self, root: Authority) -> Identity:
        """Signs lists as this one, with its chain below the root."""
        key = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        chain = b"".join(map(pem, self.chain[:-1]))
        return Identity(chain, "es256", pem(root.certificate), "test", False, "Studio", key)


SIGNS_IMAGES = {"ca": False, "use": CLAIM_SIGNING}
SERVES_WEB = {"ca": False, "use": ExtendedKeyUsageOID.SERVER_AUTH}


@pytest.mark.parametrize(
    ("between", "leaf", "told"),
    [
        ([], SIGNS_IMAGES, None),
        ([{}], SIGNS_IMAGES, None),
        ([{"path_length": 0}], SIGNS_IMAGES, None),
        ([{"usage": False}], SIGNS_IMAGES, None),
        # Whoever holds a certificate for images must not make others that sign lists.
        ([SIGNS_IMAGES], SIGNS_IMAGES, "chain of certificates does not hold"),
        ([{"signs_certificates": False}], SIGNS_IMAGES, "chain of certificates does not hold"),
        ([{"path_length": 0}, {}], SIGNS_IMAGES, "chain of certificates does not hold"),
        ([{"days": -1}], SIGNS_IMAGES, "outside its certificate's validity"),
        ([], SERVES_WEB, "not one that signs images"),
        ([], {"ca": True}, "not one that signs images"),
    ],
)
def test_only_certificates_for_images_under_real_authorities_sign_lists(
    settings: Settings, between: list[dict[str, Any]], leaf: dict[str, Any], told: str | None
) -> None:
    root = above = Authority("Root")
    for wishes in between:
        above = Authority("Between", above, **wishes)
    signer = Authority("Signer", above, **leaf).identity(root)
    with reading(settings.catalog) as lake:
        data = write_revocation_list(lake, signer)
    if told is None:
        assert read_revocation_list(data, signer.anchors).signer.startswith("Signer")
    else:
        with pytest.raises(InputError, match=told):
            read_revocation_list(data, signer.anchors)


def test_a_root_that_may_not_issue_vouches_for_nobody(settings: Settings) -> None:
    root = Authority("Root", ca=False)
    signer = Authority("Signer", root, **SIGNS_IMAGES).identity(root)
    with reading(settings.catalog) as lake:
        data = write_revocation_list(lake, signer)
    with pytest.raises(InputError, match="no configured root vouches"):
        read_revocation_list(data, signer.anchors)
