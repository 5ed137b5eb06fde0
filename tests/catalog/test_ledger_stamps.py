"""Time stamps of checkpoints: asked for, kept, checked; an authority's bad days lose nothing."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from ledger_samples import commit, copied, sample, verified
from timestamp_authority import TimestampAuthority, timestamp_authority

from catalog.lake import Lake, reading, writing
from catalog.ledger_checkpoints import Signed, write_checkpoint
from catalog.ledger_notes import LAST_FILE, Checkpoint, NoteError, Signer, opened, signer_in
from catalog.ledger_proof import ProofError, check_proof, inclusion_proofs
from pipeline import timestamps
from pipeline.errors import InputError
from pipeline.keys import init_development_keys
from pipeline.settings import Settings
from pipeline.timestamps import ask_stamp
from pipeline.trust import authority_roots


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TimestampAuthority]:
    with timestamp_authority(tmp_path_factory.mktemp("tsa")) as serving:
        yield serving


@pytest.fixture(autouse=True)
def a_good_day(authority: TimestampAuthority) -> Iterator[None]:
    yield
    authority.mood = "serves"
    timestamps._out_until.clear()


@pytest.fixture(scope="module")
def roots(authority: TimestampAuthority) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(authority.root)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, authority: TimestampAuthority) -> Path:
    """The sample, and a third checkpoint that is time-stamped."""
    root = sample(tmp_path_factory.mktemp("stamps") / "workspace")
    with writing(root / "catalog") as lake:
        commit(lake, [30], "b3")
        stamped(lake, root, authority)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return copied(made, tmp_path / "workspace")


def stamped(lake: Lake, root: Path, authority: TimestampAuthority) -> Signed:
    return write_checkpoint(lake, root / "ledger", "run run-2", timestamp_url=authority.url)


def said_by(note: str, root: Path) -> Checkpoint:
    return opened(note, [signer_in(root / "ledger").verifier])


def last_of(root: Path) -> Checkpoint:
    return said_by((root / "ledger" / LAST_FILE).read_text(), root)


def put_back(root: Path, said: Checkpoint) -> None:
    """As who has the key does: the last checkpoint says this instead, here and beside the key."""
    note = signer_in(root / "ledger").sign(said)
    with writing(root / "catalog") as lake:
        lake.connection.execute(
            "UPDATE raw.ledger_checkpoints SET checkpoint = ? "
            "WHERE rowid = (SELECT max(rowid) FROM raw.ledger_checkpoints)",
            [note],
        )
    (root / "ledger" / LAST_FILE).write_text(note)


def test_stamps_are_counted_by_whether_a_list_names_their_authority(
    made: Path, roots: list[x509.Certificate], tmp_path: Path
) -> None:
    known = verified(made, authorities=roots)

    assert known.ok, known.findings
    assert (known.checkpoints, known.time_stamps.trusted, known.time_stamps.unknown) == (3, 1, 0)
    assert known.time_stamps.last and known.time_stamps.last.authority == "Stamps"
    assert known.as_json()["time_stamps"]["last"]["time"].endswith("+00:00")

    with timestamp_authority(tmp_path / "other") as other:
        for others in ([], x509.load_pem_x509_certificates(other.root)):
            unknown = verified(made, authorities=others)
            assert unknown.ok, unknown.findings
            assert (unknown.time_stamps.trusted, unknown.time_stamps.last) == (0, None)
            assert (unknown.time_stamps.unknown, unknown.time_stamps.authorities) == (
                1,
                ("Stamps",),
            )


def of_another_root(said: Checkpoint, url: str) -> Checkpoint:
    return replace(said, stamp=ask_stamp(url, hashlib.sha256(b"another log").digest()))


def back_dated(said: Checkpoint, url: str) -> Checkpoint:
    assert said.stamp.count(b"\x18\x0f20") == 1
    return replace(said, stamp=said.stamp.replace(b"\x18\x0f20", b"\x18\x0f19"))


def nonsense(said: Checkpoint, url: str) -> Checkpoint:
    return replace(said, stamp=b"good morning")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (of_another_root, "its time stamp is of something else"),
        (back_dated, "its time stamp has a signature that does not hold"),
        (nonsense, "its time stamp is damaged"),
    ],
)
def test_a_stamp_that_does_not_fit_is_named(
    root: Path,
    authority: TimestampAuthority,
    roots: list[x509.Certificate],
    change: Callable[[Checkpoint, str], Checkpoint],
    why: str,
) -> None:
    put_back(root, change(last_of(root), authority.url))

    for known in (roots, []):
        (found,) = verified(root, authorities=known).findings
        assert str(found).startswith("changed checkpoint 3 (size ")
        assert str(found).endswith(why)


@pytest.mark.parametrize("mood", ["refuses", "talks nonsense"])
def test_a_bad_day_costs_the_stamp_not_the_checkpoint(
    root: Path, authority: TimestampAuthority, roots: list[x509.Certificate], mood: str
) -> None:
    authority.mood = mood  # type: ignore[assignment]
    with writing(root / "catalog") as lake:
        commit(lake, [40], "b4")
        without = stamped(lake, root, authority)
        assert without.fresh and authority.url in without.unstamped
        assert said_by(without.note, root).stamp == b""

        asked = authority.asked
        commit(lake, [41], "b5")
        assert "failed a short while ago" in stamped(lake, root, authority).unstamped
        assert authority.asked == asked

        authority.mood = "serves"
        timestamps._out_until.clear()
        commit(lake, [42], "b6")
        again = stamped(lake, root, authority)
        assert said_by(again.note, root).stamp and not again.unstamped
    answer = verified(root, authorities=roots)
    assert answer.ok and (answer.checkpoints, answer.time_stamps.trusted) == (6, 2)


def test_the_same_log_is_stamped_once(root: Path, authority: TimestampAuthority) -> None:
    asked = authority.asked
    with writing(root / "catalog") as lake:
        again = stamped(lake, root, authority)

    assert (again.fresh, again.unstamped, authority.asked) == (False, "", asked)
    assert said_by(again.note, root) == last_of(root)


def test_what_is_appended_while_the_authority_is_asked_gets_the_next_checkpoint(
    root: Path,
    authority: TimestampAuthority,
    roots: list[x509.Certificate],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = authority.reply

    def reply(query: bytes) -> bytes:
        # Nobody who writes waits for the authority.
        commit(lake, [51, 52], "meanwhile")
        return answered(query)

    with writing(root / "catalog") as lake:
        commit(lake, [50], "before")
        (entries,) = lake.rows("SELECT count(*) AS n FROM raw.ledger_entries")
        monkeypatch.setattr(authority, "reply", reply)
        first = stamped(lake, root, authority)
        monkeypatch.undo()
    between = verified(root, authorities=roots)
    with writing(root / "catalog") as lake:
        second = stamped(lake, root, authority)
    after = verified(root, authorities=roots)

    assert (first.size, first.unstamped) == (entries["n"], "")
    assert between.ok and between.open_entries > 0
    assert second.size == first.size + between.open_entries
    assert after.ok and (after.open_entries, after.time_stamps.trusted) == (0, 3)


def test_a_proof_tells_the_stamp_and_holds_with_no_other(
    root: Path, authority: TimestampAuthority, roots: list[x509.Certificate]
) -> None:
    def proof() -> dict[str, object]:
        with reading(root / "catalog") as lake:
            (late,) = lake.rows(
                "SELECT asset_sha256 FROM manifests ORDER BY recorded_at DESC LIMIT 1"
            )
            sha256 = late["asset_sha256"]
            return inclusion_proofs(lake, [sha256], [key])[sha256]

    key = signer_in(root / "ledger").verifier
    good = proof()
    sha256 = str(good["asset_sha256"])

    shown = check_proof(good, sha256, [key], roots).time_stamp
    assert shown and shown.trusted and shown.authority == "Stamps"
    unknown = check_proof(good, sha256, [key]).time_stamp
    assert unknown and unknown.time == shown.time and not unknown.trusted

    put_back(root, of_another_root(last_of(root), authority.url))
    with pytest.raises(ProofError, match=r"time stamp .* is of something else"):
        check_proof(proof(), sha256, [key], roots)


def signed(text: str, signer: Signer) -> str:
    data = base64.b64encode(signer.verifier.key_id + signer.key.sign(text.encode())).decode()
    return f"{text}\n— {signer.verifier.name} {data}\n"


@pytest.mark.parametrize(
    ("lines", "stamp"),
    [
        ("", b""),
        ("stamp QUJDRA==\n", b"ABCD"),
        ("stamp QUJDRB==\n", None),
        ("stamp QUJDRA\n", None),
        ("stamp \n", None),
        ("stamp\n", None),
        ("QUJDRA==\n", None),
        ("stamp  QUJDRA==\n", None),
        ("stamp QUJDRA==\nstamp QUJDRA==\n", None),
        ("stamp QUJD\nREVG\n", None),
        ("mood good\n", None),
    ],
)
def test_a_stamp_is_written_in_one_way(made: Path, lines: str, stamp: bytes | None) -> None:
    signer = signer_in(made / "ledger")
    note = signed(replace(last_of(made), stamp=b"").text + lines, signer)

    if stamp is None:
        with pytest.raises(NoteError, match="not those of a checkpoint"):
            opened(note, [signer.verifier])
    else:
        assert opened(note, [signer.verifier]).stamp == stamp


def test_a_stamp_is_checked_by_hand_as_the_docs_say(
    root: Path, authority: TimestampAuthority
) -> None:
    docs = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text("utf-8")
    block = next(one for one in docs.split("```") if "openssl ts -verify" in one)
    lines = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
    script = "\n".join(lines).replace("workspace/ledger/", f"{root}/ledger/")
    (root / "authority.pem").write_bytes(authority.root)

    done = subprocess.run(
        ["bash", "-ec", script], cwd=root, capture_output=True, text=True, check=False
    )

    assert "Verification: OK" in done.stdout, done.stdout + done.stderr


def test_only_lists_of_time_stamps_name_authorities(
    authority: TimestampAuthority, roots: list[x509.Certificate], tmp_path: Path
) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a.pem").write_bytes(authority.root)
    settings = Settings(workspace=tmp_path / "ws")
    # Its key lies beside the ledger's.
    init_development_keys(settings.keys)
    listed = Settings(workspace=tmp_path / "ws", trust={"time_stamps": [tmp_path / "lists"]})

    assert authority_roots(settings) == ()
    assert authority_roots(listed, [tmp_path / "lists" / "a.pem"]) == tuple(roots)
    (tmp_path / "empty.pem").write_text("none")
    with pytest.raises(InputError) as told:
        authority_roots(listed, [tmp_path / "empty.pem", tmp_path / "missing.pem"])
    assert "empty.pem" in str(told.value) and "missing.pem" in str(told.value)
