"""`platemark verify` where a catalog knows the files: proofs of its ledger, what was revoked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner
from workspace_samples import MILD, shoot

from catalog.lake import reading, writing
from catalog.ledger import enter_found, place_of
from catalog.ledger_checkpoints import write_checkpoint
from catalog.ledger_notes import verifier_in
from catalog.ledger_proof import inclusion_proofs, proofs_document
from catalog.revocation import revoke
from pipeline.errors import InputError
from pipeline.settings import Settings
from pipeline.store import path_of
from platemark import verify_commands

app = typer.Typer()
verify_commands.register(app)


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["verify", *map(str, arguments)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(workspace=tmp_path / "ws")
    shoot(made, MILD, ["pass", "pass"])
    return made


@pytest.fixture
def files(settings: Settings) -> list[Path]:
    with reading(settings.catalog) as lake:
        rows = lake.rows("SELECT url FROM images ORDER BY sku")
    return [path_of(settings, row["url"]) for row in rows]


def test_a_proof_is_checked_with_the_logs_key_and_no_catalog(
    settings: Settings, files: list[Path], tmp_path: Path
) -> None:
    with writing(settings.catalog) as lake:
        lake.transact(enter_found)
        write_checkpoint(lake, place_of(settings), "test")
    verifier = verifier_in(place_of(settings))
    assert verifier is not None
    with reading(settings.catalog) as lake:
        proofs = inclusion_proofs(lake, [files[0].stem], [verifier])
    one, all_of_them = tmp_path / "one.json", tmp_path / "all.json"
    one.write_text(json.dumps(proofs[files[0].stem], indent=2))
    all_of_them.write_bytes(proofs_document(proofs))
    roots = settings.keys / "ca.pem"
    stranger = ("-w", tmp_path / "stranger", "--trust", roots, "--ledger-key", verifier.text)
    for proof in (one, all_of_them):
        code, said = run(files[0], "--proof", proof, *stranger)
        assert code == 0, said
        assert "the ledger has it since" in said
    code, said = run(files[1], "--proof", one, *stranger)
    assert code == 1
    assert "there is no proof of this file" in said
    altered = json.loads(one.read_text()) | {"entry_index": 0, "record_index": 7}
    one.write_text(json.dumps(altered))
    code, said = run(files[0], "--proof", one, "-w", settings.root, "--json")
    assert code == 1
    assert json.loads(said)[0]["proof"]["holds"] is False
    for broken in ("{}", "[1]", "no JSON", '{"asset_sha256": []}'):
        one.write_text(broken)
        with pytest.raises(InputError, match="holds no proof"):
            run(files[0], "--proof", one, "-w", settings.root)


def test_a_revoked_image_is_told_so_from_then_on(settings: Settings, files: list[Path]) -> None:
    assert run(files[0], "-w", settings.root)[0] == 0
    with writing(settings.catalog) as lake:
        revoke(lake, files[0].stem, reason="the licence ended", by="Ada")
    code, said = run(files[0], "-w", settings.root)
    assert code == 1
    assert "was revoked on" in said and "by Ada: the licence ended" in said
    assert run(files[1], "-w", settings.root)[0] == 0
