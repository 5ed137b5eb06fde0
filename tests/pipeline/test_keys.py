"""Keys: minted once and privately; whatever is configured wrong is said before anything runs."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pipeline.errors import InputError, SetupError
from pipeline.keys import (
    Identity,
    init_development_keys,
    is_development,
    signing_identity,
    trust_anchors,
)
from pipeline.settings import ROOT, Settings

PEM = serialization.Encoding.PEM
CLAIM_SIGNING = x509.ObjectIdentifier("1.3.6.1.4.1.62558.2.1")


def key_bytes(key: Any, form: Any = serialization.PrivateFormat.PKCS8, words: bytes = b"") -> bytes:
    lock: Any = (
        serialization.BestAvailableEncryption(words) if words else serialization.NoEncryption()
    )
    return bytes(key.private_bytes(PEM, form, lock))


class Authority:
    """A CA that issues whatever a test asks for, right or wrong."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test root")])
        self.certificate = self._issue(self.name, self.key.public_key(), ca=True)

    def issue(self, public_key: Any, **wishes: Any) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Studio signing")])
        return self._issue(name, public_key, **wishes)

    def _issue(
        self,
        subject: x509.Name,
        public_key: Any,
        ca: bool = False,
        uses: tuple[Any, ...] = (CLAIM_SIGNING, ExtendedKeyUsageOID.EMAIL_PROTECTION),
        days: tuple[int, int] = (-1, 30),
        authority_id: bool = True,
        signs: bool = True,
        critical_uses: bool = False,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(signs, False, not signs, False, False, ca, ca, False, False),
                critical=True,
            )
        )
        if not ca and uses:
            builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=critical_uses)
        if authority_id:
            identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
            builder = builder.add_extension(identifier, critical=False)
        return builder.sign(self.key, hashes.SHA256())


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def configured(tmp_path: Path, authority: Authority) -> Callable[..., Settings]:
    def make(leaf: x509.Certificate, key: bytes, mode: int = 0o600, **signing: Any) -> Settings:
        chain, key_file = tmp_path / "chain.pem", tmp_path / "key.pem"
        chain.write_bytes(leaf.public_bytes(PEM) + authority.certificate.public_bytes(PEM))
        key_file.write_bytes(key)
        key_file.chmod(mode)
        fields = {"certificates": chain, "key": key_file, **signing}
        return Settings(workspace=tmp_path / "ws", signing=fields)

    return make


def faults_of(settings: Settings) -> str:
    with pytest.raises(InputError) as refused:
        signing_identity(settings)
    return "\n".join(map(str, refused.value.faults))


def test_development_keys_are_private_and_say_what_they_are(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        identity = signing_identity(Settings(workspace=tmp_path / "ws"))
    finally:
        os.umask(previous)
    folder = tmp_path / "ws" / "keys"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    assert [entry.name for entry in (tmp_path / "ws").iterdir()] == ["keys"]
    assert identity.development
    leaf, ca = x509.load_pem_x509_certificates(identity.chain)
    assert is_development(leaf)
    assert not is_development(ca)
    assert "Platemark development certificate" in identity.certificate
    assert leaf.fingerprint(hashes.SHA256()).hex() in identity.certificate
    uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(uses) == {CLAIM_SIGNING, ExtendedKeyUsageOID.EMAIL_PROTECTION}


def test_development_keys_are_minted_once(tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path)
    assert init_development_keys(settings.keys)
    first = signing_identity(settings)
    assert not init_development_keys(settings.keys)
    assert signing_identity(settings) == first
    assert trust_anchors(settings) == first.anchors


def test_of_many_that_mint_at_once_one_wins(tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path / "ws")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: signing_identity(settings), range(16)))
    assert len({identity.certificate for identity in found}) == 1
    assert [entry.name for entry in (tmp_path / "ws").iterdir()] == ["keys"]


def test_many_processes_that_mint_at_once_agree(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.settings import Settings\n"
        "from pipeline.keys import signing_identity\n"
        "print(signing_identity(Settings(workspace=Path(sys.argv[1]))).certificate)"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    assert len({run.communicate()[0] for run in runs}) == 1
    assert all(run.returncode == 0 for run in runs)


@pytest.mark.parametrize("missing", ["key.pem", "ca.pem", "certificates.pem"])
def test_a_damaged_key_folder_is_never_minted_over(missing: str, tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path)
    init_development_keys(settings.keys)
    (settings.keys / missing).unlink()
    with pytest.raises(SetupError, match="holds only"):
        signing_identity(settings)


def test_open_or_foreign_development_keys_are_refused(tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path)
    init_development_keys(settings.keys)
    key = settings.keys / "key.pem"
    key.chmod(0o644)
    with pytest.raises(SetupError, match=r"mode 0644.*chmod 600"):
        signing_identity(settings)
    key.chmod(0o600)
    key.write_bytes(key_bytes(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(SetupError, match="does not belong"):
        signing_identity(settings)


def test_an_unwritable_place_for_keys_is_a_setup_error(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("a file where the folder should be")
    with pytest.raises(SetupError, match="choose another workspace"):
        signing_identity(Settings(workspace=tmp_path))


def test_configured_keys_are_accepted_and_shown_nowhere(
    authority: Authority, configured: Callable[..., Settings]
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    settings = configured(authority.issue(key.public_key()), key_bytes(key))
    identity = signing_identity(settings)
    assert not identity.development
    # Else our own files would not be Trusted by our own verify.
    top = x509.load_pem_x509_certificates(identity.chain)[-1]
    assert top in x509.load_pem_x509_certificates(trust_anchors(settings))
    assert identity.certificate.startswith("Studio signing (sha256:")
    assert "PRIVATE" not in repr(identity)


def test_rsa_keys_sign_with_ps256(
    authority: Authority, configured: Callable[..., Settings]
) -> None:
    key = rsa.generate_private_key(65537, 2048)
    leaf = authority.issue(key.public_key())
    assert signing_identity(configured(leaf, key_bytes(key), algorithm="ps256"))
    assert "is not for es256" in faults_of(configured(leaf, key_bytes(key)))


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"days": (-30, -1)}, "not now"),
        ({"days": (1, 30)}, "not now"),
        ({"uses": ()}, "no extended key usage for C2PA"),
        ({"uses": (ExtendedKeyUsageOID.SERVER_AUTH,)}, "no extended key usage for C2PA"),
        ({"uses": (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)}, "`any`"),
        ({"authority_id": False}, "authority key identifier"),
        ({"signs": False}, "digitalSignature"),
        ({"ca": True}, "is a CA"),
    ],
)
def test_a_certificate_that_cannot_sign_claims_is_refused(
    wishes: dict[str, Any],
    words: str,
    authority: Authority,
    configured: Callable[..., Settings],
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    assert words in faults_of(
        configured(authority.issue(key.public_key(), **wishes), key_bytes(key))
    )


def test_a_key_of_another_certificate_is_refused(
    authority: Authority, configured: Callable[..., Settings]
) -> None:
    leaf = authority.issue(ec.generate_private_key(ec.SECP256R1()).public_key())
    other = key_bytes(ec.generate_private_key(ec.SECP256R1()))
    assert "the key does not belong to the certificate" in faults_of(configured(leaf, other))


def test_several_faults_come_at_once(
    authority: Authority, configured: Callable[..., Settings]
) -> None:
    leaf = authority.issue(
        ec.generate_private_key(ec.SECP256R1()).public_key(), days=(-9, -1), authority_id=False
    )
    key = key_bytes(ec.generate_private_key(ec.SECP256R1()))
    faults = faults_of(configured(leaf, key, mode=0o640))
    for words in ("not now", "authority key", "does not belong", "mode 0640"):
        assert words in faults


@pytest.mark.parametrize(
    ("form", "words", "expected"),
    [
        (serialization.PrivateFormat.TraditionalOpenSSL, b"", "no PKCS#8 PEM key"),
        (serialization.PrivateFormat.PKCS8, b"secret", "passphrase"),
    ],
)
def test_keys_in_other_forms_come_with_the_remedy(
    form: Any,
    words: bytes,
    expected: str,
    authority: Authority,
    configured: Callable[..., Settings],
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = authority.issue(key.public_key())
    assert expected in faults_of(configured(leaf, key_bytes(key, form, words)))


def test_a_chain_out_of_order_is_refused(
    tmp_path: Path, authority: Authority, configured: Callable[..., Settings]
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    settings = configured(authority.issue(key.public_key()), key_bytes(key))
    stranger = Authority().certificate
    chain = tmp_path / "chain.pem"
    leaf = x509.load_pem_x509_certificates(chain.read_bytes())[0]
    chain.write_bytes(leaf.public_bytes(PEM) + stranger.public_bytes(PEM))
    assert "is not issued by" in faults_of(settings)


@pytest.mark.parametrize(
    ("signing", "words"),
    [
        ({"key": Path("k.pem")}, "signing.certificates: is missing"),
        ({"certificates": Path("c.pem")}, "signing.key: is missing"),
        ({"certificates": Path("none.pem"), "key": Path("none.key")}, "No such file"),
        ({"certificates": Path("c"), "key": Path("k"), "callback": "a:b"}, "keep one"),
        ({"certificates": Path("c"), "callback": "no.such:thing"}, "module:function"),
        ({"certificates": Path("c"), "callback": "os:sep"}, "no function"),
        ({"algorithm": "ed25519"}, "the development certificate is es256"),
    ],
)
def test_half_configured_signing_says_what_is_missing(
    signing: dict[str, Any], words: str, tmp_path: Path
) -> None:
    assert words in faults_of(Settings(workspace=tmp_path, signing=signing))


def test_files_that_are_no_certificates_are_refused(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("not a certificate")
    (tmp_path / "k.pem").write_text("not a key")
    (tmp_path / "k.pem").chmod(0o600)
    faults = faults_of(
        Settings(
            workspace=tmp_path,
            signing={"certificates": tmp_path / "c.pem", "key": tmp_path / "k.pem"},
        )
    )
    assert "holds no PEM certificates" in faults
    assert "no PKCS#8" in faults
    with pytest.raises(InputError, match="PEM root"):
        trust_anchors(Settings(workspace=tmp_path, signing={"trust_anchors": tmp_path / "c.pem"}))


CALLBACK = """
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
key = serialization.load_pem_private_key(open({key!r}, "rb").read(), None)
def der(data): return key.sign(data, ec.ECDSA(hashes.SHA256()))
def raw(data):
    r, s = utils.decode_dss_signature(der(data))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")
def dead(data): raise ConnectionError("the HSM is away")
other = ec.generate_private_key(ec.SECP256R1())
def foreign(data): return other.sign(data, ec.ECDSA(hashes.SHA256()))
"""


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        ("der", None),
        ("raw", None),
        ("dead", "the HSM is away"),
        ("foreign", "does not belong"),
    ],
)
def test_a_callback_is_asked_for_one_signature_before_anything_runs(
    function: str,
    fault: str | None,
    tmp_path: Path,
    authority: Authority,
    configured: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    settings = configured(
        authority.issue(key.public_key()),
        key_bytes(key),
        callback=f"kms_{tmp_path.name}:{function}",
    )
    module = tmp_path / f"kms_{tmp_path.name}.py"
    module.write_text(CALLBACK.format(key=str(tmp_path / "key.pem")))
    monkeypatch.syspath_prepend(tmp_path)
    settings.signing.key = None
    if fault:
        assert fault in faults_of(settings)
    else:
        identity = signing_identity(settings)
        assert isinstance(identity, Identity)
        assert identity.callback


def test_a_time_stamp_authority_that_does_not_serve_stops_everything(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:9/tsa", "ftp://x", "nonsense"):
        settings = Settings(workspace=tmp_path, signing={"timestamp_url": url})
        with pytest.raises(SetupError, match="does not serve"):
            signing_identity(settings)
