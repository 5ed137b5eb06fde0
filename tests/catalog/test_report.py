"""Written audit reports: what they count, that they open offline, and that nothing in them runs."""

from __future__ import annotations

import base64
import io
import math
import re
import stat
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import hypothesis
import pytest
from catalog_samples import failed_of, produced_of, request_of, sha256
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from workspace_samples import policy_named, shoot

from catalog.export import export
from catalog.lake import writing
from catalog.plots import Marker, bars, columns, distribution
from catalog.print_pdf import find_browser, pdf_of
from catalog.report import Integrity, Report, report
from catalog.report_facts import Scope
from catalog.review import record_review
from catalog.write import commit_batch, start_run
from pipeline.errors import InputError, SetupError
from pipeline.records import Asset, Review, Signed
from pipeline.settings import Settings, load_settings

HOSTILE = "</svg></style><script>alert(1)</script><img src=x onerror=alert(2)>'\"{{ 7*7 }}&"
SHARP = {"review": {"at_least": 0.5}, "block": {"at_least": 0.95}}
BOUNDED = policy_named("bounded", [{"check": "quality", "score": "sharpness", **SHARP}])
ALL = Scope(first=date(2020, 1, 1))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Eight real images, four of them signed; twelve rows of a hostile campaign; two decisions."""
    made = load_settings(tmp_path_factory.mktemp("reported"))
    shoot(made, BOUNDED, ["pass", "review", "block", "pass", "pass", "review", None, "pass"])
    with writing(made.catalog) as lake:
        start_run(
            lake, "run-2", brief=HOSTILE, brief_sha256=sha256("other"), policy=HOSTILE,
            policy_version="1", policy_digest=sha256("policy"), requested=12, host="h",
            device="cuda", versions={},
        )  # fmt: skip
        hostile = [produced_of(n, sku=HOSTILE, campaign=HOSTILE) for n in range(100, 110)]
        commit_batch(lake, "run-2", "b", [*hostile, failed_of(200, HOSTILE), failed_of(201)])
        held = request_of(103, sku=HOSTILE, campaign=HOSTILE).request_id
        files = (
            Asset("f" * 64, "signed", "assets/ff/f.png", "image/png", 8, 8, 9, "aa"),
            Signed(b"store", "urn:c2pa:a", "CN=dev"),
        )
        record_review(lake, held, Review("ada", "approve", HOSTILE, datetime.now(UTC)), *files)
        record_review(lake, held, Review("bob", "reject", HOSTILE, datetime.now(UTC)))
    export(made, made.packs / "spring.zip", "run_id = 'run-1' AND cleared")
    return made


@pytest.fixture(scope="module")
def whole(settings: Settings) -> Report:
    return report(settings, ALL)


@pytest.fixture(scope="module")
def hostile(settings: Settings) -> Report:
    return report(settings, Scope(HOSTILE), pictures=3)


class Page(HTMLParser):
    """A page as a browser reads it: its tags with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data + " "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def facts(page: Page) -> str:
    return " ".join(page.text.split())


def test_a_report_counts_what_is_in_the_catalog(whole: Report) -> None:
    said = facts(Page(whole.html))
    assert whole.images == 20
    for sentence in (
        "20 images of 11 items", "10 passed", "4 sent to review", "0 of them approved",
        "1 rejected", "3 undecided", "4 blocked", "2 failed", "10 cleared", "4 exported in packs",
        "1 accelerator seconds", "spring.zip", "retail", "similarity.nearest",
    ):  # fmt: skip
        assert sentence in said, sentence


def test_every_part_is_there_with_its_plot(whole: Report) -> None:
    page = Page(whole.html)
    for part in (
        "Summary", "Integrity", "Outcomes over time", "Why images did not pass",
        "Scores and bounds", "Cost and yield", "People's decisions", "Disagreements",
        "What was exported, and under which terms", "Runs", "Cleared images, the newest",
    ):  # fmt: skip
        assert part in page.text, part
    assert len(page.all("svg")) >= 6
    assert "review at least 0.5" in page.text and "block at least 0.95" in page.text


def test_it_opens_offline_and_runs_nothing(whole: Report, hostile: Report) -> None:
    for html in (whole.html, hostile.html):
        page = Page(html)
        assert not {"script", "iframe", "object", "embed", "link", "base", "form"} & {
            tag for tag, _ in page.tags
        }
        for _, attributes in page.tags:
            assert not [name for name in attributes if name.startswith("on") or name == "style"]
            loaded = [attributes.get(name) for name in ("src", "href", "xlink:href")]
            assert all((each or "data:image/jpeg").startswith("data:image/jpeg") for each in loaded)
        (policy,) = [each for each in page.all("meta") if "http-equiv" in each]
        assert "default-src 'none'" in str(policy["content"])
        assert "script" not in str(policy["content"])


def test_what_people_wrote_is_text(hostile: Report) -> None:
    page = Page(hostile.html)
    assert hostile.images == 10
    assert page.text.count("<script>alert(1)</script>") > 3
    assert "{{ 7*7 }}" in page.text and "49&" not in page.text
    assert {each["alt"] for each in page.all("img")} <= {HOSTILE}
    drawings = re.findall(r"<svg.*?</svg>", hostile.html, re.DOTALL)
    assert len(drawings) == len(page.all("svg")) and [tree_of(each) for each in drawings]


def test_cleared_images_are_shown_small_and_quarantined_ones_never(
    settings: Settings, whole: Report
) -> None:
    shown = [str(each["src"]) for each in Page(whole.html).all("img")]
    pictures = [Image.open(io.BytesIO(base64.b64decode(each.split(",")[1]))) for each in shown]
    # Ten are cleared, four of them have a file.
    assert len(pictures) == 4 and all(max(each.size) <= 160 for each in pictures)
    assert Page(whole.html).text.count("not shown") == 6
    assert not Page(report(settings, ALL, pictures=0).html).all("img")


@pytest.mark.parametrize(
    ("scope", "images"),
    [
        (Scope(last=date(2020, 1, 1)), 0),
        (Scope("campaign-1", first=date(2020, 1, 1)), 3),
    ],
)
def test_the_scope_bounds_it(settings: Settings, scope: Scope, images: int) -> None:
    found = report(settings, scope, pictures=0)
    assert found.images == images
    assert str(scope) in Page(found.html).text
    assert ("holds no image" in found.html) == (images == 0)


def test_a_report_of_then_says_so(settings: Settings) -> None:
    with pytest.raises(InputError, match="knows nothing"):
        report(settings, ALL, as_of=datetime(2020, 1, 1, tzinfo=UTC))
    now = datetime.now(UTC)
    found = report(settings, ALL, pictures=0, as_of=now)
    assert f"as of {now:%Y-%m-%d %H:%M} UTC" in facts(Page(found.html))


def test_integrity_has_one_place(settings: Settings, whole: Report) -> None:
    assert "The ledger was not checked" in whole.html
    status = Integrity(False, ("1,234 rows hashed <b>",))
    html = report(settings, Scope("none"), integrity=status).html
    assert '<p class="broken">1,234 rows hashed &lt;b&gt;</p>' in html


@pytest.mark.parametrize(
    ("given_scope", "told"),
    [({}, "give --campaign"), ({"first": date(2026, 2, 1), "last": date(2026, 1, 1)}, "is after")],
)
def test_a_scope_that_is_none_is_refused(given_scope: Mapping[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Scope(**given_scope)


# Plots


def tree_of(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def rectangles(svg: str) -> list[ElementTree.Element]:
    return list(tree_of(svg).iter("{http://www.w3.org/2000/svg}rect"))


def test_columns_are_as_tall_as_their_numbers() -> None:
    drawn = columns("t", ["a", "b"], {"pass": [30, 10], "block": [10, 0]})
    tall = [float(each.get("height", 0)) for each in rectangles(drawn) if each.get("width") != "9"]
    assert tall[0] == pytest.approx(3 * tall[1]) == pytest.approx(3 * tall[2])
    assert len(tall) == 3


def test_bounds_outside_the_values_are_still_drawn() -> None:
    drawn = distribution("s", [1, 2, 3], 0.0, 0.3, [Marker(0.9, "block", "block at least 0.9")])
    (line,) = [
        each
        for each in tree_of(drawn).iter("{http://www.w3.org/2000/svg}line")
        if each.get("stroke-dasharray")
    ]
    right = max(float(each.get("x", 0)) for each in rectangles(drawn))
    assert float(line.get("x1", 0)) > right


@hypothesis.settings(deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=40), st.integers(0, 10**9)), max_size=40),
    st.floats(-1e6, 1e6),
    st.floats(-1e6, 1e6),
)
def test_any_text_and_numbers_make_a_drawing(
    rows: Sequence[tuple[str, int]], one: float, other: float
) -> None:
    labels, values = [text for text, _ in rows], [number for _, number in rows]
    low, high = min(one, other), max(one, other)
    marker = Marker(one, "review", labels[0] if labels else "")
    for svg in (
        columns("t", labels, {"pass": values, "block": values}),
        bars("t", labels, {"a": values}),
        distribution("t", values, low, high, [marker]),
    ):
        for each in tree_of(svg).iter():
            assert each.tag.rpartition("}")[2] in {"svg", "rect", "text", "line", "title"}
            numbers = [float(each.get(name, 0)) for name in ("x", "y", "width", "height")]
            assert all(map(math.isfinite, numbers)) and min(numbers[2:]) >= 0


# PDF


def test_without_a_browser_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SetupError, match=r"(?s)needs a browser.*Chromium.*print it"):
        pdf_of("<p>x</p>")


def browser_that(does: str, folder: Path) -> Path:
    """A program with the command line of Chromium."""
    program = folder / "chromium"
    program.write_text(
        f"#!{sys.executable}\nimport sys, pathlib\n"
        "out = [a.split('=', 1)[1] for a in sys.argv if a.startswith('--print-to-pdf=')][0]\n"
        "page = pathlib.Path(sys.argv[-1].removeprefix('file://')).read_bytes()\n"
        f"{does}\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def test_a_browser_prints_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser_that("pathlib.Path(out).write_bytes(b'%PDF-1.7 ' + page)", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_browser() == tmp_path / "chromium"
    assert pdf_of("<p>é\ud800</p>") == b"%PDF-1.7 <p>\xc3\xa9?</p>"


@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("sys.exit('no display')", "printed no PDF.*no display"),
        ("pathlib.Path(out).write_bytes(b'<html>')", "printed no PDF"),
        ("pathlib.Path(out).write_bytes(b'')", "printed no PDF"),
    ],
)
def test_a_browser_that_does_not_print_is_told(tmp_path: Path, does: str, told: str) -> None:
    with pytest.raises(SetupError, match=told):
        pdf_of("<p>x</p>", browser_that(does, tmp_path))


@pytest.mark.skipif(find_browser() is None, reason="no browser on this machine")
def test_a_real_browser_prints_a_report(whole: Report) -> None:
    printed = pdf_of(whole.html)
    assert printed.startswith(b"%PDF-") and len(printed) > 20_000
