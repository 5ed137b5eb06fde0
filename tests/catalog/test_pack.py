from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from catalog_samples import TERMS, failed_of, produced_of, request_of
from PIL import Image

from catalog.audit import ask
from catalog.channel import load_channel
from catalog.lake import Lake
from catalog.pack import NothingToExport, Pack, export_pack
from catalog.pack_check import Files
from catalog.pack_plan import Asked
from catalog.read import find_asset
from catalog.review import record_review
from catalog.selection import EVERYTHING, choose, named
from catalog.story import story
from catalog.write import commit_batch, record_terms
from pipeline.errors import InputError
from pipeline.records import Produced, Review, Signed
from pipeline.terms import UsageTerms
from pipeline.terms_text import licence_text
from pipeline.verify import Report

TODAY = date(2026, 5, 1)
GRANT = UsageTerms(
    id="shop",
    licensor="Studio",
    territories=("DE",),
    channels=("web",),
    expires=date(2030, 12, 31),
)


class Shoot:
    """A catalog with real files beside it: two passed, one in review, one blocked, one failed."""

    def __init__(self, lake: Lake, root: Path) -> None:
        self.lake, self.root = lake, root
        self.distrusted: dict[str, str] = {}
        batch = [self.file(n) for n in (1, 2, 3, 4)]
        commit_batch(lake, "run-1", "b1", [*batch, failed_of(5)])

    def file(self, number: int, outcome: str | None = None, **changes: Any) -> Produced:
        stream = io.BytesIO()
        Image.new("RGB", (96, 64), (number * 9 % 256, 80, 160)).save(stream, "PNG")
        one = produced_of(number, outcome, stream.getvalue(), **changes)
        assert one.asset and one.asset.url
        path = self.root / one.asset.url
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stream.getvalue())
        return one

    def verify(self, path: Path) -> Report:
        """Stands in for pipeline.verify, whose own tests sign real files: trusts all but some."""
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        label = self.lake.rows("SELECT label FROM manifests WHERE asset_sha256 = ?", [digest])
        why = self.distrusted.get(digest)
        return Report(
            path=str(path),
            state="Invalid" if why else "Trusted",
            why=(why,) if why else (),
            sha256=digest,
            decodes=True,
            label=label[0]["label"],
        )

    def export(
        self,
        out: Path,
        terms: UsageTerms = GRANT,
        *,
        where: str = EVERYTHING,
        today: date = TODAY,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> Pack:
        asked = Asked(where, terms, load_channel("plain"), today)
        files = Files(verify=self.verify, locate=lambda url: self.root / url)
        with named(self.lake.folder, where) as found:
            chosen = choose(found, terms, today)
        return export_pack(self.lake, out, asked, chosen, files, progress)


@pytest.fixture
def shoot(lake: Lake, tmp_path: Path) -> Shoot:
    return Shoot(lake, tmp_path)


def reasons(pack: Pack | NothingToExport) -> dict[str, str]:
    return {one.sku: "; ".join(one.reasons) for one in pack.left_out}


def test_a_pack_holds_images_licence_manifest_sums_and_sheet(shoot: Shoot, tmp_path: Path) -> None:
    pack = shoot.export(tmp_path / "packs" / "shop.zip")
    assert hashlib.sha256(Path(pack.path).read_bytes()).hexdigest() == pack.sha256
    assert (pack.images, pack.size) == (2, Path(pack.path).stat().st_size)
    with zipfile.ZipFile(pack.path) as archive:
        assert archive.testzip() is None
        files = {name: archive.read(name) for name in archive.namelist()}
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    images = [name for name in files if name.startswith("images/")]
    stems = [name.removeprefix("images/").rsplit("-", 1)[0] for name in images]
    assert stems == ["MUG-00001-0", "MUG-00002-0"]
    assert set(files) - set(images) == {
        "LICENSE.txt",
        "SHA256SUMS",
        "contact-sheet.jpg",
        "manifest.csv",
        "manifest.parquet",
        "pack.json",
    }
    assert files["LICENSE.txt"].decode() == licence_text(GRANT)
    for line in files["SHA256SUMS"].decode().splitlines():
        digest, name = line.split("  ", 1)
        assert hashlib.sha256(files[name]).hexdigest() == digest
    assert len(files["SHA256SUMS"].splitlines()) == len(files) - 1
    with Image.open(io.BytesIO(files["contact-sheet.jpg"])) as sheet:
        assert sheet.width > 2 * 96
    text = io.StringIO(files["manifest.csv"].decode(), newline="")
    first, _ = csv.DictReader(text)
    assert first["file"] == images[0] and first["verdict"] == "pass"
    assert first["sha256"] == hashlib.sha256(files[images[0]]).hexdigest()
    assert first["c2pa_label"] == "urn:c2pa:1"
    table = pq.read_table(io.BytesIO(files["manifest.parquet"])).to_pylist()
    assert [row["file"] for row in table] == images


def test_the_same_content_gives_the_same_bytes(shoot: Shoot, tmp_path: Path) -> None:
    first = shoot.export(tmp_path / "a.zip")
    second = shoot.export(tmp_path / "b.zip")
    assert Path(first.path).read_bytes() == Path(second.path).read_bytes()
    assert first.pack_id == second.pack_id
    again = shoot.export(tmp_path / "a.zip")
    assert again.sha256 == first.sha256


def test_each_file_of_a_pack_is_recorded_with_what_was_left_out_of_it(
    shoot: Shoot, tmp_path: Path
) -> None:
    shoot.export(tmp_path / "a.zip", where="outcome <> 'block'")
    shoot.export(tmp_path / "b.zip")
    shoot.export(tmp_path / "b.zip")
    found = shoot.lake.rows("SELECT pack_id, file, left_out FROM packs ORDER BY file")
    assert [(row["file"], row["left_out"]) for row in found] == [("a.zip", 1), ("b.zip", 3)]
    assert len({row["pack_id"] for row in found}) == 1
    exports = shoot.lake.rows(
        "SELECT p.file, list(r.sku ORDER BY r.sku) AS skus FROM raw.packs AS p "
        "JOIN raw.pack_refusals AS r USING (pack_id, created_at) "
        "GROUP BY p.file, p.created_at ORDER BY p.created_at"
    )
    three = ["MUG-00003", "MUG-00004", "MUG-00005"]
    assert [(row["file"], row["skus"]) for row in exports] == [
        ("a.zip", ["MUG-00003"]),
        ("b.zip", three),
        ("b.zip", three),
    ]
    contents = ask(shoot.lake.folder, "packs-contents", {"pack": "b.zip"}).table.to_pylist()
    assert [each["place"] for each in contents] == ["in"] * 2 + ["left out"] * 3


def test_what_may_not_go_in_stays_out_with_the_reason(shoot: Shoot, tmp_path: Path) -> None:
    pack = shoot.export(tmp_path / "a.zip")
    assert reasons(pack) == {
        "MUG-00003": "it waits for a review",
        "MUG-00004": "blocked by retail 1: too near to a protected work",
        "MUG-00005": "it failed: out of memory",
    }


def decide(shoot: Shoot, decision: str, minute: int, file: int = 103) -> None:
    files: tuple[Any, ...] = ()
    if decision == "approve":
        signed = shoot.file(file)
        assert signed.asset
        digest = signed.asset.sha256
        asset = replace(signed.asset, state="signed")
        files = (asset, Signed(b"store", f"urn:c2pa:{digest[:4]}", "CN=dev"))
    moment = datetime(2026, 1, 1, 0, minute, tzinfo=UTC)
    review = Review("ada", decision, "so it is", moment)  # type: ignore[arg-type]
    record_review(shoot.lake, request_of(3).request_id, review, *files)


def test_an_approved_image_goes_in_and_a_withdrawn_one_does_not(
    shoot: Shoot, tmp_path: Path
) -> None:
    decide(shoot, "approve", 1)
    pack = shoot.export(tmp_path / "a.zip", where="sku = 'MUG-00003'")
    with zipfile.ZipFile(pack.path) as archive:
        text = io.StringIO(archive.read("manifest.csv").decode(), newline="")
    (row,) = csv.DictReader(text)
    assert (row["verdict"], row["decision"], row["reviewer"]) == ("review", "approve", "ada")
    decide(shoot, "reject", 2)
    with pytest.raises(NothingToExport, match="rejected by ada: so it is"):
        shoot.export(tmp_path / "b.zip", where="sku = 'MUG-00003'")


@pytest.mark.parametrize(
    ("granted", "change", "told"),
    [
        ({"expires": "2026-04-30"}, {}, "expired on 2026-04-30"),
        ({"starts": "2026-06-01"}, {}, "start only on 2026-06-01"),
        ({"expires": "2027-01-01"}, {}, "only until 2027-01-01"),
        ({}, {"territories": ("worldwide",)}, "territory worldwide is not granted"),
        ({}, {"channels": ("tv",)}, "channel tv is not granted"),
        ({"licensee": "acme"}, {"licensee": "other"}, "licensed to acme"),
        (None, {}, "no usage terms"),
        ({"territories": 7}, {}, "cannot be read"),
    ],
)
def test_nothing_goes_in_beyond_its_terms(
    shoot: Shoot, tmp_path: Path, granted: dict[str, Any] | None, change: dict[str, Any], told: str
) -> None:
    terms = {} if granted is None else {**TERMS, **granted}
    record_terms(shoot.lake, [request_of(1, terms=terms)])
    with pytest.raises(NothingToExport, match=told):
        shoot.export(tmp_path / "a.zip", GRANT.model_copy(update=change), where="sku = 'MUG-00001'")
    assert not (tmp_path / "a.zip").exists()


def offer_exclusively(shoot: Shoot) -> None:
    terms = {**TERMS, "exclusive": True}
    record_terms(shoot.lake, [request_of(number, terms=terms) for number in (1, 2)])


def test_what_is_exclusive_goes_to_one_licensee_only(shoot: Shoot, tmp_path: Path) -> None:
    offer_exclusively(shoot)
    exclusive = GRANT.model_copy(update={"licensee": "acme", "exclusive": True})
    shoot.export(tmp_path / "acme.zip", exclusive, where="sku = 'MUG-00001'")
    other = shoot.export(tmp_path / "other.zip", GRANT.model_copy(update={"licensee": "other"}))
    assert "gave it to acme" in reasons(other)["MUG-00001"]
    again = shoot.export(tmp_path / "again.zip", exclusive.model_copy(update={"id": "second"}))
    assert "gave it to other" in reasons(again)["MUG-00002"]
    assert again.images == 1
    later = date(2031, 1, 1)
    record_terms(shoot.lake, [request_of(1, terms={**TERMS, "expires": None})])
    free = GRANT.model_copy(update={"licensee": "other", "expires": None})
    assert shoot.export(tmp_path / "late.zip", free, today=later).images == 1


def test_an_image_rejected_while_it_is_packed_leaves_no_pack(shoot: Shoot, tmp_path: Path) -> None:
    decide(shoot, "approve", 1)

    def reject(done: int, of: int) -> None:
        if done == of:
            decide(shoot, "reject", 2)

    with pytest.raises(InputError, match="MUG-00003-0: rejected by ada: so it is") as told:
        shoot.export(tmp_path / "a.zip", progress=reject)
    assert "MUG-00001" not in str(told.value)
    assert not list(tmp_path.glob("*.zip")) and not list(tmp_path.glob(".*.part"))
    assert shoot.lake.rows("SELECT * FROM raw.packs") == []
    assert shoot.export(tmp_path / "a.zip").images == 2


def test_a_file_signed_again_while_it_is_packed_leaves_no_pack(
    shoot: Shoot, tmp_path: Path
) -> None:
    decide(shoot, "approve", 1)

    def approve_another(done: int, of: int) -> None:
        if done == of:
            decide(shoot, "reject", 2)
            decide(shoot, "approve", 3, file=104)

    with pytest.raises(InputError, match="MUG-00003-0: another file of it was signed"):
        shoot.export(tmp_path / "a.zip", progress=approve_another)
    assert not list(tmp_path.glob("*.zip"))


def test_of_two_exclusive_exports_at_once_one_wins(shoot: Shoot, tmp_path: Path) -> None:
    offer_exclusively(shoot)
    exclusive = GRANT.model_copy(update={"licensee": "acme", "exclusive": True})
    rival = exclusive.model_copy(update={"licensee": "rival"})

    def overtake(done: int, of: int) -> None:
        if done == of:
            shoot.export(tmp_path / "rival.zip", rival, where="sku = 'MUG-00002'")

    with pytest.raises(InputError, match=r"MUG-00002-0: pack \w+ gave it to rival"):
        shoot.export(tmp_path / "acme.zip", exclusive, progress=overtake)
    assert not (tmp_path / "acme.zip").exists()
    assert [row["licensee"] for row in shoot.lake.rows("SELECT * FROM packs")] == ["rival"]


def missing(shoot: Shoot, path: Path, digest: str) -> None:
    path.unlink()


def altered(shoot: Shoot, path: Path, digest: str) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def untrusted(shoot: Shoot, path: Path, digest: str) -> None:
    shoot.distrusted[digest] = "the file was changed after it was signed"


# A folder copies what its contact sheet does not show.
@pytest.mark.parametrize(("out", "shown"), [("a.zip", 240), ("a", 240), ("a", 0)])
@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (missing, "is missing or unreadable"),
        (altered, "was altered"),
        (untrusted, "C2PA state Invalid: the file was changed"),
    ],
)
def test_each_file_is_verified_as_it_goes_in(
    shoot: Shoot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[Shoot, Path, str], None],
    told: str,
    out: str,
    shown: int,
) -> None:
    monkeypatch.setattr("catalog.pack_check.SHEET_IMAGES", shown)
    found = find_asset(shoot.lake, "MUG-00001")
    assert found.url and found.sha256
    harm(shoot, shoot.root / found.url, found.sha256)
    pack = shoot.export(tmp_path / out)
    assert pack.images == 1 and told in reasons(pack)["MUG-00001"]
    if out == "a":
        sums = (tmp_path / out / "SHA256SUMS").read_text()
        (image,) = (tmp_path / out / "images").iterdir()
        assert f"{hashlib.sha256(image.read_bytes()).hexdigest()}  images/{image.name}" in sums


def test_no_condition_talks_a_blocked_image_in(shoot: Shoot, tmp_path: Path) -> None:
    forged = (
        "false) UNION ALL SELECT request_id FROM (SELECT request_id, 'pass' AS outcome, "
        "true AS cleared FROM images WHERE (outcome = 'block'"
    )
    with pytest.raises((NothingToExport, InputError)):
        shoot.export(tmp_path / "a.zip", where=forged)
    with pytest.raises(NothingToExport, match="blocked"):
        shoot.export(tmp_path / "a.zip", where="outcome = 'block' -- and a comment")


@pytest.mark.parametrize(
    "where",
    [
        "sku IN (SELECT content FROM read_text('/etc/passwd'))",
        "true); COPY (SELECT 1) TO '/tmp/evil' --",
        "getenv('HOME') = 'x'",
        "colour = 'red'",
        "",
        "1 +",
    ],
)
def test_conditions_are_held_to_what_auditors_may_ask(
    shoot: Shoot, tmp_path: Path, where: str
) -> None:
    with pytest.raises(InputError):
        shoot.export(tmp_path / "a.zip", where=where)
    assert not list(tmp_path.glob("*.zip"))


def test_a_condition_that_names_nothing_writes_nothing(shoot: Shoot, tmp_path: Path) -> None:
    with pytest.raises(NothingToExport, match="names no image"):
        shoot.export(tmp_path / "a.zip", where="campaign = 'unknown'")
    assert not list(tmp_path.glob("*.zip*")) and not list(tmp_path.glob(".*.part"))


def test_another_pack_is_not_overwritten(shoot: Shoot, tmp_path: Path) -> None:
    out = tmp_path / "a.zip"
    shoot.export(out, where="sku = 'MUG-00001'")
    before = out.read_bytes()
    with pytest.raises(InputError, match="another pack"):
        shoot.export(out)
    assert out.read_bytes() == before
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize(
    ("out", "change", "told"),
    [
        ("pack.tar.gz", {}, "a pack is not compressed"),
        ("a.zip", {"expires": date(2026, 4, 30)}, "they expired"),
    ],
)
def test_wrong_arguments_are_refused_at_once(
    shoot: Shoot, tmp_path: Path, out: str, change: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        shoot.export(tmp_path / out, GRANT.model_copy(update=change))


def test_odd_skus_become_safe_and_unique_names(lake: Lake, tmp_path: Path) -> None:
    shoot = Shoot(lake, tmp_path)
    skus = ["../../etc/passwd", "-rf *", "Tasse blau/groß", "=1+1", "..", "a" * 300]
    batch = [shoot.file(200 + n, "pass", sku=sku) for n, sku in enumerate(skus)]
    same = [
        replace(shoot.file(300, "pass", sku=sku), perceptual_hash=None) for sku in ("a b", "A_B")
    ]
    commit_batch(lake, "run-2", "b1", [*batch, *same])
    pack = shoot.export(tmp_path / "a.zip", where="seed >= 200")
    with zipfile.ZipFile(pack.path) as archive:
        names = [name for name in archive.namelist() if name.startswith("images/")]
        rows = list(csv.DictReader(io.StringIO(archive.read("manifest.csv").decode(), newline="")))
    assert len(names) == len({name.lower() for name in names}) == 8
    for name in names:
        assert name.count("/") == 1 and name.isascii() and " " not in name and len(name) < 120
        assert not name.removeprefix("images/").startswith((".", "-"))
    assert {row["sku"] for row in rows} >= {"'=1+1", "Tasse blau/groß"}


def test_the_catalog_records_what_went_in_and_what_did_not(shoot: Shoot, tmp_path: Path) -> None:
    pack = shoot.export(tmp_path / "a.zip", where="campaign <> 'x'")
    (row,) = shoot.lake.rows("SELECT * FROM packs")
    assert (row["sha256"], row["images"], row["left_out"], row["where"]) == (
        pack.sha256,
        2,
        3,
        "campaign <> 'x'",
    )
    contents = ask(shoot.lake.folder, "packs-contents", {"pack": pack.sha256[:8]}).table.to_pylist()
    assert [each["place"] for each in contents] == ["in"] * 2 + ["left out"] * 3
    assert contents[2]["reason"] == "it waits for a review"
    told = story(shoot.lake, request_of(1).request_id)
    assert told["packs"][0]["pack_id"] == pack.pack_id


def test_progress_is_told_image_by_image(shoot: Shoot, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    shoot.export(tmp_path / "a.zip", progress=lambda done, of: heard.append((done, of)))
    assert heard == [(1, 2), (2, 2)]
