"""Trust lists from settings and files: what they vouch for, what they do not, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.keys import signing_identity
from pipeline.settings import ROOT, Settings
from pipeline.trust import TrustList, trust_lists
from pipeline.verify import verify_file

FILES = ROOT / "tests" / "c2pa_files"
SIGNED, LIST = FILES / "signed.png", FILES / "trufo_root.pem"


@pytest.fixture
def fresh(tmp_path: Path) -> Settings:
    return Settings(workspace=tmp_path / "workspace")


def test_the_list_that_vouches_is_named(fresh: Settings) -> None:
    signing_identity(fresh)
    lists = trust_lists(fresh, signers=[LIST])
    assert [(each.name, each.kind) for each in lists] == [
        ("workspace", "signers"), ("trufo_root.pem", "signers"),
    ]  # fmt: skip
    report = verify_file(SIGNED, lists)
    assert (report.state, report.trust_list) == ("Trusted", "trufo_root.pem")
    assert verify_file(SIGNED, trust_lists(fresh)).state == "Valid"


def test_a_list_of_time_stamp_authorities_vouches_for_no_signer(fresh: Settings) -> None:
    report = verify_file(SIGNED, trust_lists(fresh, time_stamps=[LIST]))
    assert (report.state, report.trust_list, report.ok) == ("Valid", None, False)
    assert any("is one of time-stamp authorities" in why for why in report.why)
    both = trust_lists(fresh, signers=[LIST], time_stamps=[LIST])
    assert verify_file(SIGNED, both).ok


def test_a_folder_stands_for_its_lists_and_texts_between_certificates_do_not_matter(
    fresh: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "a.pem").write_bytes("Subject\tCN=Ümlaut\n".encode("latin-1") + LIST.read_bytes())
    (folder / "note.txt").write_text("not a list")
    assert verify_file(SIGNED, trust_lists(fresh, signers=[folder])).trust_list == "a.pem"


def test_every_unusable_list_is_named(fresh: Settings, tmp_path: Path) -> None:
    (tmp_path / "words.pem").write_text("no certificate")
    (tmp_path / "none").mkdir()
    given = [tmp_path / name for name in ("words.pem", "none", "missing.pem")]
    with pytest.raises(InputError) as refused:
        trust_lists(fresh, signers=given[:2], time_stamps=given[2:])
    said = "\n".join(map(str, refused.value.faults))
    for words in ("holds no PEM certificates", "holds no .pem file", "No such file"):
        assert words in said


def test_pem_never_reaches_a_message() -> None:
    assert "BEGIN" not in repr(TrustList("x", "signers", LIST.read_bytes()))
