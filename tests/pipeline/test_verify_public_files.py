"""Public C2PA test files (tests/c2pa_files): each gets the state that its name promises."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest

from pipeline.settings import ROOT
from pipeline.verify import verify_bytes, verify_file

FILES = ROOT / "tests" / "c2pa_files"
ROOT_OF_C2PAS_LIST = (FILES / "trufo_root.pem").read_bytes()
CHAIN = (FILES / "es256_certs.pem").read_bytes()
STRIPPED = "c3423a347da65a7198eb75188002d1d8bf5a3f6846c41eecc42cc7cca21ca5e4"
"""SHA-256 of `stripped.png` as is-it-ai-mcp 0.1.0 has it."""


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


def test_the_stripped_public_file_carries_nothing() -> None:
    """Not kept here, as it is `signed.png` without one chunk: 764,201 bytes."""
    stripped = without_manifest((FILES / "signed.png").read_bytes())
    assert hashlib.sha256(stripped).hexdigest() == STRIPPED
    report = verify_bytes(stripped, Path("stripped.png"), ROOT_OF_C2PAS_LIST)
    assert report.state == "None" and "carries no C2PA manifest" in report.why[0]


def without_manifest(png: bytes) -> bytes:
    kept, at = png[:8], 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        kept += b"" if kind == b"caBX" else png[at : at + 12 + length]
        at += 12 + length
    return kept


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
