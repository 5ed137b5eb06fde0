"""Proofs that are checked without the catalog: they hold for their file, and for nothing else."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_samples import commit, copied, sample

from catalog.lake import reading, writing
from catalog.ledger_checkpoints import write_checkpoint
from catalog.ledger_merkle import (
    EMPTY_ROOT,
    Levels,
    Peaks,
    leaf_hash,
    merkle_root,
    root_of_path,
)
from catalog.ledger_notes import NoteError, notes_in, opened, signer_in, verifier_from_text
from catalog.ledger_proof import ProofError, check_proof, inclusion_proofs
from pipeline.errors import InputError, SetupError

# The published vectors of RFC 6962 trees, as certificate-transparency and trillian test them.
INPUTS = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    bytes(range(0x50, 0x58)),
    bytes(range(0x60, 0x70)),
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_the_standard(size: int) -> None:
    leaves = [leaf_hash(data) for data in INPUTS[:size]]

    assert merkle_root(b"".join(leaves)).hex() == ROOTS[size - 1]
    assert Peaks().grown(leaves).root.hex() == ROOTS[size - 1]


def test_the_empty_tree_has_the_standards_root() -> None:
    assert merkle_root(b"") == Peaks().root == EMPTY_ROOT


@given(st.integers(1, 70), st.data())
def test_every_leaf_is_proven_at_its_place_only(size: int, data: st.DataObject) -> None:
    leaves = [leaf_hash(bytes([at])) for at in range(size)]
    at, other = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
    tree = Levels(leaves)

    proven = root_of_path(leaves[at], at, size, tree.path(at))

    assert proven == tree.root == Peaks().grown(leaves).root
    if other != at:
        assert root_of_path(leaves[at], other, size, tree.path(at)) != tree.root
        assert root_of_path(leaves[other], at, size, tree.path(at)) != tree.root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample(tmp_path_factory.mktemp("proofs") / "workspace")


@pytest.fixture(scope="module")
def proofs(root: Path) -> dict[str, dict[str, Any]]:
    with reading(root / "catalog") as lake:
        files = [row["asset_sha256"] for row in lake.rows("SELECT asset_sha256 FROM manifests")]
        found = inclusion_proofs(lake, [*files, "f" * 64], [signer_in(root / "ledger").verifier])
    assert set(found) == set(files)
    return found


def test_a_proof_says_what_was_recorded_and_when(
    root: Path, proofs: dict[str, dict[str, Any]]
) -> None:
    verifier = signer_in(root / "ledger").verifier
    for sha256, proof in proofs.items():
        shown = check_proof(json.loads(json.dumps(proof)), sha256, [verifier])
        assert shown.asset_sha256 == sha256
        assert shown.label.startswith("urn:c2pa:")
        assert not shown.found
        assert shown.checkpoint.occasion == "export spring"
        assert "mug" not in json.dumps(proof)


def change(field: str, value: Callable[[Any], Any]) -> Any:
    return pytest.param(lambda proof: {**proof, field: value(proof[field])}, id=field)


@pytest.mark.parametrize(
    "alter",
    [
        change("format", lambda old: "v0"),
        change("record", lambda old: old.replace("request_id=64:", "request_id=64:x")),
        change("record", lambda old: old.replace("manifest~", "manifest#")),
        change("record", lambda old: old + "x"),
        change("record", lambda old: ""),
        change("record_index", lambda old: old + 1),
        change("record_index", lambda old: -1),
        change("record_path", lambda old: old[1:]),
        change("record_path", lambda old: [*old, "00" * 32]),
        change("record_path", lambda old: ["zz"]),
        change("record_path", lambda old: None),
        change("entry", lambda old: old.replace("commit", "found")),
        change("entry", lambda old: old + "\n"),
        change("entry_index", lambda old: old + 1),
        change("entry_path", lambda old: old[::-1]),
        change("checkpoint", lambda old: old.replace("export", "import")),
        change("checkpoint", lambda old: "\n".join(old.split("\n")[:-3]) + "\n"),
        pytest.param(lambda proof: {}, id="nothing"),
        pytest.param(lambda proof: [], id="a list"),
    ],
)
def test_an_altered_proof_is_refused(
    root: Path,
    proofs: dict[str, dict[str, Any]],
    alter: Callable[[dict[str, Any]], Any],
) -> None:
    sha256, proof = max(proofs.items(), key=lambda one: len(one[1]["record_path"]))

    with pytest.raises(ProofError):
        check_proof(alter(proof), sha256, [signer_in(root / "ledger").verifier])


def test_a_proof_is_of_one_file_and_one_log(
    root: Path, proofs: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    (first, proof), (second, _) = list(proofs.items())[:2]
    verifier = signer_in(root / "ledger").verifier

    with pytest.raises(ProofError, match="of another file"):
        check_proof(proof, second, [verifier])
    with pytest.raises(ProofError, match="not signed by"):
        check_proof(proof, first, [signer_in(tmp_path / "other").verifier])


def test_checking_needs_neither_catalog_nor_duckdb(
    root: Path, proofs: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    sha256, proof = next(iter(proofs.items()))
    (tmp_path / "proof.json").write_text(json.dumps(proof))
    code = (
        "import json, sys; sys.modules['duckdb'] = None; sys.modules['pyarrow'] = None\n"
        "from catalog.ledger_proof import check_proof\n"
        "from catalog.ledger_notes import verifier_from_text\n"
        f"proof = json.load(open({str(tmp_path / 'proof.json')!r}))\n"
        f"key = verifier_from_text({signer_in(root / 'ledger').verifier.text!r})\n"
        f"print(check_proof(proof, {sha256!r}, [key]).label)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stdout.startswith("urn:c2pa:"), done.stderr


def test_no_proof_of_what_was_changed_or_is_not_signed_yet(root: Path, tmp_path: Path) -> None:
    changed = copied(root, tmp_path / "workspace")
    verifier = signer_in(changed / "ledger").verifier
    with writing(changed / "catalog") as lake:
        commit(lake, [70], "late")
        (late,) = lake.rows("SELECT asset_sha256 FROM manifests ORDER BY recorded_at DESC LIMIT 1")
        assert inclusion_proofs(lake, [late["asset_sha256"]], [verifier]) == {}
        write_checkpoint(lake, changed / "ledger", "later")
        assert inclusion_proofs(lake, [late["asset_sha256"]], [verifier])
        lake.connection.execute("UPDATE raw.manifests SET label = 'urn:c2pa:forged'")
        with pytest.raises(InputError, match="not as it was entered"):
            inclusion_proofs(lake, [late["asset_sha256"]], [verifier])


def test_a_note_is_what_the_specification_says(tmp_path: Path) -> None:
    # The example of c2sp.org/signed-note, verifier key and note of Go's sumdb/note package.
    key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    text = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n"
    )
    signature = (
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpR"
        "Zb6KE6RyyBwJnAM="
    )
    with pytest.raises(NoteError, match="of another log"):
        # The signature fits; only that it is no checkpoint of a log is wrong.
        opened(f"{text}\n— PeterNeumann {signature}\n", [verifier_from_text(key)])
    with pytest.raises(NoteError, match="does not fit"):
        opened(f"{text}x\n\n— PeterNeumann {signature}\n", [verifier_from_text(key)])


def test_keys_are_private_and_damaged_ones_are_told(tmp_path: Path) -> None:
    signer = signer_in(tmp_path / "ledger")

    assert (tmp_path / "ledger" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "ledger").stat().st_mode & 0o777 == 0o700
    assert signer_in(tmp_path / "ledger").verifier == signer.verifier
    assert verifier_from_text(signer.verifier.text) == signer.verifier
    with pytest.raises(SetupError, match="no verifier key"):
        verifier_from_text("name+00000000+" + base64.b64encode(b"\x01" + bytes(32)).decode())
    (tmp_path / "ledger" / "key.pem").write_text("broken")
    with pytest.raises(SetupError, match="unusable"):
        signer_in(tmp_path / "ledger")


def test_a_witness_file_holds_all_checkpoints(root: Path, tmp_path: Path) -> None:
    changed = copied(root, tmp_path / "workspace")
    witness = tmp_path / "witness.txt"
    with writing(changed / "catalog") as lake:
        for number in range(3):
            commit(lake, [80 + number], f"w{number}")
            told = write_checkpoint(lake, changed / "ledger", f"run {number}", [str(witness)])
            assert not told.unreached
        again = write_checkpoint(lake, changed / "ledger", "again", [str(witness), "/no/such/dir"])

    assert not again.fresh
    assert "No such file" in again.unreached[0]
    notes = notes_in(witness.read_text())
    verifier = signer_in(changed / "ledger").verifier
    assert [opened(note, [verifier]).occasion for note in notes] == ["run 0", "run 1", "run 2"]
