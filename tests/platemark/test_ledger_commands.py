"""platemark ledger: what people read, exit codes, and files that are given out."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import typer
from rich.console import Console
from timestamp_authority import TimestampAuthority, timestamp_authority
from typer.testing import CliRunner, Result

from catalog.lake import writing
from catalog.ledger_notes import opened, signer_in, verifier_from_text
from catalog.ledger_proof import check_proof
from pipeline import timestamps
from pipeline.errors import PlatemarkError
from platemark import ledger_commands

sys.path.append(str(Path(__file__).parent.parent / "catalog"))
from ledger_samples import commit, copied, sample

app = typer.Typer()
ledger_commands.register(app)
NO_FILES = ("--no-files",)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample(tmp_path_factory.mktemp("commands") / "workspace")


def run(workspace: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["ledger", *words, "--workspace", str(workspace)])


def test_the_log_is_signed_shown_proven_and_verified(made: Path, tmp_path: Path) -> None:
    signed = run(made, "checkpoint", "--witness", str(tmp_path / "witness.txt"))
    assert signed.exit_code == 0, signed.output
    verifier = verifier_from_text((made / "ledger" / "verifier.txt").read_text())
    assert opened(signed.stdout, [verifier]).size > 0

    proven = run(made, "prove", "MUG-00000", "--out", str(tmp_path / "proof.json"))
    assert proven.exit_code == 0, proven.output
    proof = json.loads((tmp_path / "proof.json").read_text())
    assert check_proof(proof, proof["asset_sha256"], [verifier])

    witness = ("--checkpoint", str(tmp_path / "witness.txt"))
    key = ("--key", str(made / "ledger" / "verifier.txt"))
    told = run(made, "verify", *witness, *key, *NO_FILES)
    assert told.exit_code == 0, told.output
    assert "Intact" in told.stdout

    with writing(made / "catalog") as lake:
        lake.connection.execute("UPDATE raw.library_works SET licence = 'MIT' WHERE work_id = 3")
    told = run(made, "verify", *NO_FILES)
    assert told.exit_code == 1
    assert "changed" in told.stdout and "library_works" in told.stdout
    answer = json.loads(run(made, "verify", "--json", *NO_FILES).stdout)
    assert not answer["ok"] and answer["findings"][0]["where"] == "row"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("erase", "--reason", "asked"), "what to erase is not clear"),
        (("erase", "--reason", "asked", "--library", "own"), "what to erase is not clear"),
        (("verify", "--key", "none.txt"), "verifier key cannot be read"),
        (("verify", "--checkpoint", "none.txt"), "none.txt"),
    ],
)
def test_wrong_words_are_told(made: Path, words: tuple[str, ...], message: str) -> None:
    failed = run(made, *words)

    assert isinstance(failed.exception, PlatemarkError)
    assert message in str(failed.exception)


def test_a_witness_by_address_gets_the_note_and_a_dead_one_is_told(made: Path) -> None:
    received: list[bytes] = []

    class Witness(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Witness)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    try:
        signed = run(made, "checkpoint", "--witness", address)
    finally:
        server.shutdown()
        server.server_close()

    assert signed.exit_code == 0, signed.output
    assert received[0].decode() in signed.stdout
    dead = run(made, "checkpoint", "--witness", address)
    assert dead.exit_code == 1
    assert "Not told" in dead.stderr


@pytest.fixture
def authority(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TimestampAuthority]:
    """One that the settings name; something new is in the log, to be signed."""
    with timestamp_authority(tmp_path / "tsa") as serving:
        (tmp_path / "platemark.toml").write_text(f'signing.timestamp_url = "{serving.url}"\n')
        monkeypatch.setenv("PLATEMARK_CONFIG", str(tmp_path / "platemark.toml"))
        with writing(made / "catalog") as lake:
            commit(lake, [90], tmp_path.name)
        yield serving
    timestamps._out_until.clear()


def test_a_time_stamp_is_told_in_words_and_verified(
    made: Path, authority: TimestampAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = run(made, "checkpoint")

    assert signed.exit_code == 0, signed.output
    verifier = verifier_from_text((made / "ledger" / "verifier.txt").read_text())
    assert opened(signed.stdout, [verifier]).stamp
    assert re.fullmatch(r"Time-stamped at 20\S+\+00:00 by Stamps\n", signed.stderr)
    again = json.loads(run(made, "checkpoint", "--json").stdout)
    assert (again["new"], again["unstamped"]) == (False, None)
    assert again["time_stamp"]["authority"] == "Stamps" and not again["time_stamp"]["trusted"]

    (tmp_path / "root.pem").write_bytes(authority.root)
    known = run(made, "verify", "--trust-stamps", str(tmp_path / "root.pem"), *NO_FILES)
    assert re.search(r"1 checkpoints are time-stamped, last at 20\S+ by Stamps", known.stdout)
    unknown = run(made, "verify", *NO_FILES)
    assert "1 checkpoints have time stamps by authorities that no trust list" in unknown.stdout

    terminal = Console(force_terminal=True, soft_wrap=True, file=io.StringIO())
    monkeypatch.setattr(ledger_commands, "out", terminal)
    run(made, "checkpoint")
    assert isinstance(terminal.file, io.StringIO)
    assert "\nstamp …\n" in terminal.file.getvalue()
    assert all(len(line) < 200 for line in terminal.file.getvalue().splitlines())


def test_a_last_checkpoint_whose_stamp_does_not_hold_is_told_without_a_traceback(
    made: Path, authority: TimestampAuthority, tmp_path: Path
) -> None:
    root = copied(made, tmp_path / "workspace")
    signer = signer_in(root / "ledger")
    said = opened(run(root, "checkpoint").stdout, [signer.verifier])
    with writing(root / "catalog") as lake:
        lake.connection.execute(
            'UPDATE raw.ledger_checkpoints SET checkpoint = ? WHERE "size" = ?',
            [signer.sign(replace(said, stamp=b"good morning")), said.size],
        )

    failed = run(root, "checkpoint")

    assert isinstance(failed.exception, PlatemarkError)
    assert "time stamp is damaged" in str(failed.exception)


def test_an_authority_that_is_out_is_told(made: Path, authority: TimestampAuthority) -> None:
    authority.mood = "refuses"

    signed = run(made, "checkpoint")

    assert signed.exit_code == 1
    assert f"Not time-stamped: {authority.url}" in signed.stderr
    verifier = verifier_from_text((made / "ledger" / "verifier.txt").read_text())
    assert opened(signed.stdout, [verifier]).stamp == b""
    proven = run(made, "prove", "MUG-00000")
    assert proven.exit_code == 0 and json.loads(proven.stdout)["checkpoint"]


def test_a_work_is_erased_by_name(made: Path) -> None:
    done = run(
        made,
        "erase",
        "--library",
        "own",
        "--work",
        "2",
        "--reason",
        "asked",
        "--by",
        "ann",
        "--yes",
    )

    assert done.exit_code == 0, done.output
    assert "Erased: file, note, rights_holder, title" in done.stdout
