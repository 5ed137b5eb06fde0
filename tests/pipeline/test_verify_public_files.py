"""Public C2PA test files (tests/c2pa_files): each gets the state that its name promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.settings import ROOT
from pipeline.verify import verify_file

FILES = ROOT / "tests" / "c2pa_files"
ROOT_OF_C2PAS_LIST = (FILES / "trufo_root.pem").read_bytes()
CHAIN = (FILES / "es256_certs.pem").read_bytes()


@pytest.mark.parametrize(
    ("name", "anchors", "state", "why"),
    [
        ("A.jpg", b"", "None", "carries no C2PA manifest"),
        ("C.jpg", b"", "Valid", "no configured root vouches"),
        ("C.jpg", CHAIN, "Valid", "no configured root vouches"),
        ("cloud.jpg", b"", "None", "its manifest lies elsewhere"),
        ("compressed_boxhash.jpg", b"", "Valid", "no configured root vouches"),
        ("compressed_boxhash.jpg", CHAIN, "Trusted", "'C2PA Signer' signed it"),
        ("compressed_boxhash.png", CHAIN, "Trusted", "'C2PA Signer' signed it"),
        ("signed.png", b"", "Valid", "no configured root vouches"),
        ("signed.png", ROOT_OF_C2PAS_LIST, "Trusted", "'OpenAI Media Service' signed it"),
        ("tampered.png", ROOT_OF_C2PAS_LIST, "Invalid", "changed after it was signed"),
        ("tampered.png", b"", "Invalid", "changed after it was signed"),
        ("synthetic-app11.jpg", b"", "None", "carries no C2PA manifest"),
    ],
)
def test_each_public_file_gets_the_state_that_its_name_promises(
    name: str, anchors: bytes, state: str, why: str
) -> None:
    report = verify_file(FILES / name, anchors)
    assert report.state == state, report.why
    assert any(why in each for each in report.why), report.why


def test_every_file_here_is_in_the_table_and_has_its_source() -> None:
    readme = (FILES / "README.md").read_text()
    for path in FILES.iterdir():
        assert path.name == "README.md" or path.stem in readme, path


def test_a_public_file_tells_how_it_was_made() -> None:
    report = verify_file(FILES / "signed.png", b"")
    assert report.signer == "OpenAI Media Service"
    assert report.time_stamp == "Valid"
    assert report.source_types == (
        "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
    )
    assert "c2pa.watermarked.unbound" in report.actions
    assert not report.development


def test_total_size_stays_small() -> None:
    assert sum(path.stat().st_size for path in Path(FILES).iterdir()) < 3_000_000
